"""Folders of runs and sweeps that somebody else made: hashes that fit, and content that leads astray."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import safekd as kd
from benchmarks.hostile._good_folders import TARGETS, _load_run, _make_student
from safekd.io.folders import (
    MANIFEST,
    finish_replacement,
    format_checked_json,
    hash_file,
    lock_folder,
    parse_checked_json,
    read_manifest,
)
from safekd.training.trace import read_trace

MAKE = {target.kind: target.make for target in TARGETS}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    for kind in ("run", "sweep"):
        MAKE[kind](folder / kind, 0)
    return folder


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made / "run", tmp_path / "run")
    (tmp_path / "mine").write_bytes(b"mine")
    return tmp_path / "run"


def mend_manifest(folder, name):
    """Give a file the hash that its manifest states."""
    record = parse_checked_json((folder / MANIFEST).read_text(), MANIFEST)
    record["files"][name] = hash_file(folder / name)
    (folder / MANIFEST).write_text(format_checked_json(record))


def test_a_run_as_it_was_written_is_loaded(run):
    assert _load_run(run) == ""


FORGED = {
    "a word for a number": lambda record: record["residuals"].update(primal="x"),
    "no number at all": lambda record: record.pop("distillation_loss"),
    "a list for a record": lambda record: record.update(point=[1]),
    "a status of its own": lambda record: record.update(status="splendid"),
    "readings that are none": lambda record: record.update(readings=[{"name": "x"}]),
    "no marks of examples": lambda record: record["data"].append(record["data"][0]),
    "another structure": lambda record: record.update(structure=["Linear(in_features=9)"]),
    "students that are not there": lambda record: record.update(
        mixture={"weights": {"3": 1.0}, "distillation_loss": 0.1, "safety": {}, "multipliers": {}}
    ),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_verdict_is_refused_by_name_and_fills_no_student(how, run):
    record = json.loads((run / "verdict.json").read_text())
    FORGED[how](record)
    (run / "verdict.json").write_text(json.dumps(record))
    mend_manifest(run, "verdict.json")
    student = _make_student()
    before = student.weight.clone()
    with pytest.raises(kd.InvalidInput, match="run"):
        kd.FitResult.load(run, student)
    assert torch.equal(student.weight, before)


def test_a_student_that_the_manifest_does_not_list_is_none_of_the_runs(run):
    best = kd.FitResult.load(run, _make_student()).best_validated
    planted = {name: value + 1 for name, value in load_file(run / "student.safetensors").items()}
    for name in ("best_validated.safetensors", "best_feasible.safetensors"):
        if name not in read_manifest(run, "run").files:
            save_file(planted, run / name)
    loaded = kd.FitResult.load(run, _make_student())
    for one in (loaded.best_validated, loaded.best_feasible):
        assert one is None or not torch.equal(one.weight, planted["weight"])
    assert (loaded.best_validated is None) == (best is None)


def test_a_path_for_a_student_leads_nowhere(run):
    shutil.copy(run / "student.safetensors", run.parent / "other.safetensors")
    record = json.loads((run / "verdict.json").read_text())
    record["same_as"]["best_validated"] = "../other"
    (run / "verdict.json").write_text(json.dumps(record))
    mend_manifest(run, "verdict.json")
    assert kd.FitResult.load(run, _make_student()).best_validated is None


# ----------------------------------------------------------------------------------- files of a writer that was killed


def plant(run, files, **contents):
    ready = run / ".ready"
    ready.mkdir()
    for name, content in contents.items():
        (ready / name).write_bytes(content)
    (ready / MANIFEST).write_text(format_checked_json({"kind": "run", "files": files}))
    return ready


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"\x80\x04cposix\nsystem\n(S'true'\ntR.",
            r"safetensors is no safetensors file: .* pickle wrote is never read",
        ),
        ((2).to_bytes(8, "little") + b"{]", r"student\.safetensors cannot be read as safetensors"),
    ],
)
def test_a_student_that_is_no_safetensors_file_is_refused(content, message, run):
    (run / "student.safetensors").write_bytes(content)
    mend_manifest(run, "student.safetensors")
    with pytest.raises(kd.InvalidInput, match=message):
        kd.FitResult.load(run, _make_student())


@pytest.mark.parametrize("name", ["../../mine", "../mine", "/etc/hostname", "..", ".", "a/b", "a\0b"])
def test_unfinished_files_move_nothing_that_lies_elsewhere(name, run):
    plant(run, {name: {"bytes": 4, "sha256": ""}})
    for read in (finish_replacement, lambda folder: kd.FitResult.load(folder, _make_student())):
        with pytest.raises(kd.InvalidInput, match=r"\.ready"):
            read(run)
    assert (run.parent / "mine").read_bytes() == b"mine"


def test_unfinished_files_by_a_link_are_refused(run):
    elsewhere = run.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / MANIFEST).write_text(format_checked_json({"kind": "run", "files": {}}))
    (run / ".ready").symlink_to(elsewhere)
    with pytest.raises(kd.InvalidInput, match=r"\.ready is not the folder of a writer"):
        finish_replacement(run)
    (run / ".ready").unlink()
    ready = plant(run, {"verdict.json": hash_file(run.parent / "mine")})
    (ready / "verdict.json").symlink_to(run.parent / "mine")
    with pytest.raises(kd.InvalidInput, match=r"verdict.json is not what its writer had finished"):
        finish_replacement(run)
    assert (run.parent / "mine").read_bytes() == b"mine"


def test_finished_files_of_a_killed_writer_still_move(run):
    content = b"{}"
    (run.parent / "x").write_bytes(content)
    plant(run, {"verdict.json": hash_file(run.parent / "x")}, **{"verdict.json": content})
    finish_replacement(run)
    assert (run / "verdict.json").read_bytes() == content
    assert not (run / ".ready").exists()


# ------------------------------------------------------------------------------------------------------------- traces


def test_a_step_that_no_machine_counts_to_is_told(made, tmp_path):
    lines = (made / "run" / "trace.jsonl").read_text().splitlines()
    row = json.loads(lines[-1]) | {"step": 10**30}
    (tmp_path / "t.jsonl").write_text("\n".join([*lines[:-1], json.dumps(row)]) + "\n")
    with pytest.raises(kd.InvalidInput, match="column 'step': found a number of more than 64 bits, wanted a whole num"):
        read_trace(tmp_path / "t.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 100_000, "line 1: no readable JSON"),
        ('{"step": 1e999}', "columns .* are missing"),
        ("[1]", "found a list; wanted an object"),
    ],
)
def test_a_line_that_is_no_trace_is_told(line, message, tmp_path):
    (tmp_path / "t.jsonl").write_text(line + "\n")
    with pytest.raises(kd.InvalidInput, match=message):
        read_trace(tmp_path / "t.jsonl")


@pytest.mark.parametrize("cell", ["1e999", "9" * 40, "[[[1]]]", "true", '"x"', "null", "NaN"])
@pytest.mark.parametrize("column", ["step", "distillation_loss"])
def test_a_cell_of_another_kind_is_told_or_read(cell, column, run):
    lines = (run / "trace.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    row[column] = 12345
    text = json.dumps(row).replace("12345", cell)
    (run.parent / "t.jsonl").write_text(text + "\n")
    try:
        table = read_trace(run.parent / "t.jsonl")
    except kd.InvalidInput as error:
        refused = str(error)
        assert "t.jsonl" in refused
    else:
        assert len(table) == 1


# ------------------------------------------------------------------------------------------------------------- sweeps


def test_the_record_of_another_sweep_is_told(made, tmp_path):
    shutil.copytree(made / "sweep", tmp_path / "sweep")
    assert kd.verify_files(tmp_path / "sweep").holds()
    MAKE["sweep"](tmp_path / "other", 1)
    shutil.copy(tmp_path / "other" / "sweep.json", tmp_path / "sweep" / "sweep.json")
    with pytest.raises(kd.InvalidInput, match=r"sweep.json is that of another sweep than .*done.json"):
        kd.verify_files(tmp_path / "sweep")


def test_a_point_that_is_a_link_is_not_cleared(made, tmp_path):
    """Its files are somebody else's, though they look like those of a sweep."""
    shutil.copytree(made / "sweep", tmp_path / "sweep")
    shutil.move(tmp_path / "sweep" / "anchor", tmp_path / "mine")
    (tmp_path / "sweep" / "anchor").symlink_to(tmp_path / "mine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    from safekd.frontier.store import PointStore

    with lock_folder(tmp_path / "sweep", "a test") as lock:
        PointStore(lock, {}, lambda kept, now: [], lambda record: "x", resume=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == before
    assert os.readlink(tmp_path / "sweep" / "anchor") == str(tmp_path / "mine")
