"""Ctrl-C and SIGTERM finish the step and save; a second one stops at once; a folder that fails costs no run."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

import safekd as kd
from benchmarks.survive import contents_but_clock, make_split, make_trainer
from safekd.training.loop.step import PrimalDualStep
from safekd.training.resume import CheckpointStore, Interrupts
from safekd.training.resume import _tensor_files as files_module
from tests.support import ROOT

TRAIN, HELD = make_split("train", 70, 1), make_split("validation", 40, 2)


def fit(folder, **more):
    trainer = more.pop("trainer", None) or make_trainer()
    return trainer.fit(TRAIN, HELD, run_dir=folder, **{"epochs": 8, "trace_every": 7} | more)


def send_after(monkeypatch, steps, *numbers):
    """Let signals arrive in the middle of a step."""
    real, count, waiting = PrimalDualStep.step, iter(range(steps)), [*numbers]

    def step(self, *given):
        if next(count, None) is None and waiting:
            for number in waiting:
                signal.raise_signal(number)
            waiting.clear()
        return real(self, *given)

    monkeypatch.setattr(PrimalDualStep, "step", step)


def test_ctrl_c_finishes_the_step_and_saves(tmp_path, monkeypatch):
    fit(tmp_path / "whole")
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        send_after(patch, 12, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            fit(folder)
    assert CheckpointStore(folder).find_latest().step == 13
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    fit(folder, trainer=make_trainer(start=5), resume="must")
    assert contents_but_clock(folder) == contents_but_clock(tmp_path / "whole")


def test_the_same_trainer_goes_on_after_ctrl_c(tmp_path, monkeypatch):
    """As in a notebook, whose cell is run again; with a schedule that has moved the rate meanwhile."""
    fit(tmp_path / "whole", trainer=make_trainer("schedule"))
    folder, trainer = tmp_path / "stopped", make_trainer("schedule")
    with monkeypatch.context() as patch:
        send_after(patch, 12, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            fit(folder, trainer=trainer)
    fit(folder, trainer=trainer)
    assert contents_but_clock(folder) == contents_but_clock(tmp_path / "whole")


def test_sigterm_saves_and_ends_with_its_code(tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    send_after(monkeypatch, 12, signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        fit(tmp_path)
    assert ended.value.code == 143
    assert CheckpointStore(tmp_path).find_latest().step == 13
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(second, tmp_path, monkeypatch):
    send_after(monkeypatch, 12, signal.SIGINT, second)
    with pytest.raises(KeyboardInterrupt if second == signal.SIGINT else SystemExit):
        fit(tmp_path, checkpoint_every=5)
    assert CheckpointStore(tmp_path).find_latest().step == 10
    assert not (tmp_path / ".lock").exists()


def test_a_handler_of_the_programs_own_is_called_after_the_checkpoint(tmp_path, monkeypatch):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(CheckpointStore(tmp_path).find_latest().step))
    try:
        send_after(monkeypatch, 12, signal.SIGTERM)
        result = fit(tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [13]
    assert result.point.step == 40


def test_a_signal_that_is_ignored_stays_so(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        send_after(monkeypatch, 12, signal.SIGINT)
        assert fit(tmp_path).point.step == 40
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_after_the_last_step_loses_no_result(tmp_path):
    def stop(point):
        if point.step == 40:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, on_trace=stop)
    assert kd.verify_files(tmp_path).holds()
    assert not (tmp_path / "checkpoints").exists()


def test_without_a_folder_ctrl_c_stops_at_once(monkeypatch):
    send_after(monkeypatch, 3, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        make_trainer().fit(TRAIN, HELD, epochs=8)


def test_signals_are_put_back_where_the_run_fails():
    interrupts, before = Interrupts(), signal.getsignal(signal.SIGINT)
    with contextlib.suppress(ZeroDivisionError), interrupts.catch():
        assert signal.getsignal(signal.SIGINT) != before
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


# ---- folders that fail while a run lasts -------------------------------------------------------------------


def fail(code):
    def raise_error(*_, **__):
        raise OSError(code, os.strerror(code))

    return raise_error


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_fails_is_told_and_the_last_checkpoint_stays(code, tmp_path, monkeypatch):
    left = []

    def act(point):
        if point.step == 14:
            monkeypatch.setattr(files_module.os, "write", fail(code))
        if point.step == 35:
            left.append(CheckpointStore(tmp_path).find_latest().step)
            monkeypatch.undo()

    with pytest.warns(UserWarning, match=rf"checkpoint of step 15 in .*: {os.strerror(code)}\. The run goes on"):
        result = fit(tmp_path, checkpoint_every=5, on_trace=act)
    assert left == [10]
    assert result.save_note == ""
    assert result.point.step == 40


def test_a_folder_that_is_removed_meanwhile_is_told(tmp_path):
    def act(point):
        if point.step == 14:
            shutil.rmtree(tmp_path / "run")

    with pytest.warns(UserWarning, match=r"checkpoint of step 15 in .*: No such file or directory\. The run goes on"):
        result = fit(tmp_path / "run", checkpoint_every=5, on_trace=act)
    assert result.point.step == 40


# ---- another process, really killed ------------------------------------------------------------------------

CHILD = """
import sys
from benchmarks.survive import make_split, make_trainer
def tell(point):
    if point.step == 14:
        print("here", flush=True)
make_trainer().fit(
    make_split("train", 70, 1), make_split("validation", 40, 2), epochs=4000, trace_every=7, run_dir=sys.argv[1],
    on_trace=tell,
)
"""


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, -signal.SIGINT, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_process_that_is_asked_to_end_leaves_a_checkpoint(number, code, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "here\n"
        time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == code
    assert CheckpointStore(tmp_path).find_latest().step > 14
    assert not (tmp_path / ".lock").exists()
