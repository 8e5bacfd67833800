"""The folder of a run: checked before training, one writer, all files of one run, no result lost for it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import SafetensorError

import safekd as kd
from safekd.io import folders
from safekd.training.result_files import _student_files
from safekd.training.trace import Callback, JsonlWriter, read_trace
from tests.support import ROOT
from tests.support.problems import FreeLogits, at_least, one_each, trainer_for


def fit(folder, *callbacks, trainer=None, **more):
    trainer = trainer_for(at_least(0.6), lr=1e-3) if trainer is None else trainer
    return trainer.fit(one_each(), epochs=30, trace_every=10, callbacks=callbacks, run_dir=folder, **more)


class At(Callback):
    """Does something at a step."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def on_trace(self, point):
        if point.step == self.step:
            self.act()


def fail():
    raise RuntimeError("stopped here")


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_a_second_run_that_fails_leaves_the_first_as_it_was(tmp_path):
    fit(tmp_path)
    before = contents(tmp_path)
    for error in (RuntimeError("stopped here"), KeyboardInterrupt()):

        def stop(error=error):
            raise error

        with pytest.raises(type(error)):
            fit(tmp_path, At(20, stop))
        assert contents(tmp_path) == before
    assert kd.FitResult.load(tmp_path, FreeLogits()).point.step == 30


def test_a_first_run_that_fails_leaves_its_trace_and_nothing_that_looks_finished(tmp_path):
    with pytest.raises(RuntimeError, match="stopped here"):
        fit(tmp_path, At(20, fail))
    assert [path.name for path in tmp_path.iterdir()] == ["trace.jsonl"]
    assert read_trace(tmp_path / "trace.jsonl")["step"].tolist() == [0, 10, 20]
    with pytest.raises(kd.InvalidInput, match="holds no finished run"):
        kd.FitResult.load(tmp_path, FreeLogits())
    fit(tmp_path)
    assert kd.verify_files(tmp_path).holds()


def test_two_runs_at_once_are_told_of_each_other_before_training(tmp_path):
    told = []

    def begin_another():
        with pytest.raises(kd.InvalidInput, match=rf"is in use: process {os.getpid()} on .*, writes a training run"):
            fit(tmp_path, At(0, lambda: told.append("trained")))

    result = fit(tmp_path, At(10, begin_another))
    assert told == []
    trace = read_trace(tmp_path / "trace.jsonl")
    pd.testing.assert_frame_equal(trace, result.trace, check_exact=True)
    assert trace["step"].is_unique


CHILD = """
import sys
import torch
from tests.support.problems import at_least, one_each, trainer_for
from safekd.training.trace import OnTrace
def tell(point):
    if point.step == 20:
        print("here", flush=True)
        sys.stdin.read()
trainer_for(at_least(0.6), lr=1e-3).fit(
    one_each(), epochs=30, trace_every=10, run_dir=sys.argv[1], on_trace=tell
)
"""


@pytest.mark.parametrize("finished_before", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_killed_run_leaves_nothing_that_looks_finished(finished_before, tmp_path):
    if finished_before:
        fit(tmp_path)
    before = contents(tmp_path)
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "here\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    left = {name: raw for name, raw in contents(tmp_path).items() if not name.startswith(".")}
    if finished_before:
        assert left == before
        assert kd.FitResult.load(tmp_path, FreeLogits()).point.step == 30
    else:
        assert set(left) == {"trace.jsonl"}
        assert read_trace(tmp_path / "trace.jsonl")["step"].tolist() == [0, 10, 20]
    fit(tmp_path)  # the lock died with its process
    assert kd.verify_files(tmp_path).holds()
    assert not list(tmp_path.glob(".*"))


# ---- links ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to], ids=["symbolic", "hard"])
def test_what_links_in_the_folder_lead_to_is_left_as_it_is(link, tmp_path):
    (tmp_path / "mine").write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("trace.jsonl", "trace.csv", "student.safetensors", "verdict.json", "manifest.json"):
        link(folder / name, tmp_path / "mine")
    fit(folder)
    assert (tmp_path / "mine").read_text() == "precious"
    assert not any(path.is_symlink() for path in folder.iterdir())
    assert kd.verify_files(folder).holds()


def test_a_link_to_nowhere_makes_no_file_there(tmp_path):
    (tmp_path / "trace.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RuntimeError):
        fit(tmp_path, At(20, fail))
    assert not (tmp_path / "nowhere").exists()
    assert read_trace(tmp_path / "trace.jsonl")["step"].tolist() == [0, 10, 20]


def test_a_writer_of_ones_own_follows_no_link_either(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "t.jsonl").symlink_to(tmp_path / "mine")
    trainer_for(at_least(0.6)).fit(one_each(), epochs=3, callbacks=[JsonlWriter(tmp_path / "t.jsonl")])
    assert (tmp_path / "mine").read_text() == "precious"


# ---- folders that fail ---------------------------------------------------------------------------------------


def untrained(folder, message, **more):
    """Say whether the folder was refused before a step was taken."""
    steps = []
    with pytest.raises(kd.InvalidInput, match=message):
        fit(folder, At(0, lambda: steps.append(0)), **more)
    return steps == []


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_folder_that_cannot_be_written_to_is_told_before_training(code, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(folders._folder_lock.os, "ftruncate", refuse)
    assert untrained(tmp_path / "run", f"Cannot write .*run: {os.strerror(code)}")
    assert not (tmp_path / "run").exists()


def test_a_disk_without_room_for_the_student_is_told_before_training(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    assert untrained(tmp_path / "run", "its disk has 1,000 bytes left, and what is to be written needs about")


def test_a_folder_in_a_files_place_is_told_before_training(tmp_path):
    (tmp_path / "student.safetensors").mkdir()
    assert untrained(tmp_path, r"student\.safetensors: it is a folder")


@pytest.mark.parametrize("run_dir", ["", 5, b"run"])
def test_what_names_no_folder_is_refused(run_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert untrained(run_dir, "`run_dir` is .*; wanted a folder for the files of the run")
    assert list(tmp_path.iterdir()) == []


def test_a_student_that_a_file_cannot_hold_is_told_before_training(tmp_path):
    class Odd(FreeLogits):
        def get_extra_state(self):
            return {"words": ["x"]}

        def set_extra_state(self, state):
            pass

    message = "A run folder cannot hold '_extra_state', which is a dict; wanted dense tensors. Leave run_dir out"
    assert untrained(tmp_path / "run", message, trainer=trainer_for(at_least(0.6), student=Odd()))
    student = FreeLogits()
    student.register_buffer("odd", torch.zeros(3).to_sparse())
    message = "'odd', which is a tensor of layout torch.sparse_coo"
    assert untrained(tmp_path / "run", message, trainer=trainer_for(at_least(0.6), student=student))
    student.odd = torch.ones(1, dtype=torch.complex128)
    message = "cannot hold 'odd': a safetensors file knows no torch.complex128. Leave run_dir out"
    assert untrained(tmp_path / "run", message, trainer=trainer_for(at_least(0.6), student=student))


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def broken(*_, **__):
    raise SafetensorError("Error while serializing: I/O error")


def replace_by_file(folder):
    shutil.rmtree(folder)
    folder.write_text("")


FAILURES = {
    "a full disk": lambda patch, folder: patch.setattr(Path, "write_text", full),
    "a full disk under safetensors": lambda patch, folder: patch.setattr(_student_files, "save_file", full),
    "an error of safetensors": lambda patch, folder: patch.setattr(_student_files, "save_file", broken),
    "a folder that cannot be renamed": lambda patch, folder: patch.setattr(Path, "rename", full),
    "a file in the folder's place": lambda patch, folder: replace_by_file(folder),
}


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("what", FAILURES)
@pytest.mark.filterwarnings("ignore")
def test_a_result_is_handed_back_though_its_folder_fails(what, before, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    if before:
        fit(folder)
    left = contents(folder) if before else None
    with monkeypatch.context() as patch:
        result = fit(folder, At(20, lambda: FAILURES[what](patch, folder)))
    assert result.point.step == 30
    assert result.save_note.startswith(f"{folder} does not hold this run: ")
    assert "keep it by FitResult.save in another folder" in result.save_note
    assert result.save_note[:60] in repr(result).replace("\n  ", " ")
    if before and folder.is_dir():
        assert contents(folder) == left
    result.save(tmp_path / "elsewhere")
    assert kd.FitResult.load(tmp_path / "elsewhere", FreeLogits()).point.loss == result.point.loss


@pytest.mark.filterwarnings("ignore")
def test_a_folder_that_was_removed_meanwhile_is_made_anew(tmp_path):
    result = fit(tmp_path / "run", At(10, lambda: shutil.rmtree(tmp_path / "run")))
    assert result.save_note == ""
    pd.testing.assert_frame_equal(read_trace(tmp_path / "run" / "trace.jsonl"), result.trace, check_exact=True)


def test_a_trace_that_cannot_be_written_on_is_warned_of_once(tmp_path, monkeypatch):
    with pytest.warns(UserWarning, match=r"trace\.jsonl ends before step 10: No space left on device") as caught:
        fit(tmp_path, At(0, lambda: monkeypatch.setattr(JsonlWriter, "_append", full)))
    assert len(caught) == 1
    monkeypatch.undo()
    assert read_trace(tmp_path / "trace.jsonl")["step"].tolist() == [0, 10, 20, 30]


def test_files_that_no_run_wrote_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    fit(tmp_path)
    fit(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert kd.verify_files(tmp_path).holds()
