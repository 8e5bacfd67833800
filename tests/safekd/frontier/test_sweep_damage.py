"""A sweep's folder under attack: flipped bits, forged cells, foreign files, two processes, a killed parent."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import safekd as kd
from safekd.frontier.sweep import StudentSweep
from safekd.io.folders import read_checked_json, write_checked_json
from tests.safekd.frontier import frontier_worker
from tests.support import ROOT
from tests.support.problems import at_least, one_each, trainer_for

SWEEP = {"targets": [0.35, 0.4, 0.9], "epochs": 60, "tolerance": 1e-3}


def make(threshold):
    return trainer_for(at_least(threshold), at_least(0.2, "second", critical=1))


def sweep(folder, make=make, **more):
    return kd.trace_frontier(make, one_each(), run_dir=folder, **{**SWEEP, **more})


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traced") / "run"
    return sweep(folder), folder


@pytest.fixture
def folder(traced, tmp_path):
    shutil.copytree(traced[1], tmp_path / "run")
    return tmp_path / "run"


def csv(folder):
    return (folder / "frontier.csv").read_bytes()


def forbidden(threshold):
    trainer = make(threshold)
    trainer.fit = None  # a run would fail
    return trainer


def flipped(raw, draw):
    changed = bytearray(raw)
    changed[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    return bytes(changed)


# ---- flipped bits ---------------------------------------------------------------------------------------------


def is_told(check, name):
    """Say whether a check does not hold, or is refused with the file's name."""
    try:
        return not check().holds()
    except kd.InvalidInput as error:
        return name in str(error)


def test_any_flipped_bit_of_any_file_is_seen(folder):
    draw = random.Random(0)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) > 30
    for file in files:
        raw = file.read_bytes()
        for _ in range(3):
            file.write_bytes(flipped(raw, draw))
            assert is_told(lambda: kd.verify_files(folder), file.name)
            assert is_told(lambda: kd.verify(folder, make, one_each()), file.name)
        file.write_bytes(raw)
    assert kd.verify_files(folder).holds()
    assert kd.verify(folder, make, one_each()).holds()


def test_any_flipped_bit_of_a_frontiers_files_is_refused(traced, tmp_path):
    draw = random.Random(1)
    traced[0].to_csv(tmp_path / "f.csv")
    for name in ("f.csv", "f.csv.meta.json"):
        raw = (tmp_path / name).read_bytes()
        for _ in range(60):
            (tmp_path / name).write_bytes(flipped(raw, draw))
            with pytest.raises(kd.InvalidInput, match=r"f\.csv"):
                kd.Frontier.from_csv(tmp_path / "f.csv")
            with pytest.raises(kd.InvalidInput, match=r"f\.csv"):
                kd.verify(traced[1], make, one_each(), table=tmp_path / "f.csv")
        (tmp_path / name).write_bytes(raw)
    assert kd.verify_files(tmp_path / "f.csv").holds()


def test_one_digit_of_a_table_is_told_with_the_way_out(folder):
    file = folder / "frontier.csv"
    text = file.read_text()
    file.write_text(text.replace("epsilon,0.3", "epsilon,0.2", 1))
    assert file.read_text() != text
    with pytest.raises(kd.InvalidInput, match=r"frontier\.csv was changed after it was written.*Copy both files again"):
        kd.Frontier.from_csv(file)
    report = kd.verify_files(folder)
    assert not report.holds()
    assert "frontier.csv was changed after it was written" in str(report)


@pytest.mark.parametrize("at", [0, 40, 400, -80, -3])
def test_a_damaged_record_is_made_anew_from_the_points(at, folder, traced):
    file = folder / "sweep.json"
    raw = file.read_bytes()
    file.write_bytes(raw[:at] + b"#" + raw[at + 1 or len(raw) :])
    again = sweep(folder, forbidden, resume="auto")
    assert csv(folder) == csv(traced[1])
    assert file.read_bytes() == raw
    assert len(again.meta["notes"]) == 1
    assert again.meta["notes"][0].startswith("sweep.json was made anew from point anchor: ")


def test_a_record_that_is_gone_is_made_anew_and_still_refuses_another_sweep(folder, traced):
    (folder / "sweep.json").unlink()
    with pytest.raises(kd.InvalidInput, match="holds points of another sweep: `epochs` was 60 and is now 61"):
        sweep(folder, resume="auto", epochs=61)
    assert sweep(folder, forbidden, resume="auto").table.equals(traced[0].table)


def test_a_point_of_another_sweep_is_not_read(folder, traced, tmp_path):
    sweep(tmp_path / "other", epochs=61)
    shutil.rmtree(folder / "target-0.4")
    shutil.copytree(tmp_path / "other" / "target-0.4", folder / "target-0.4")
    assert not kd.verify_files(folder).holds()
    again = sweep(folder, resume="auto")
    assert csv(folder) == csv(traced[1])
    assert "target-0.4 is of sweep" in again.meta["notes"][0]


# ---- forged cells ---------------------------------------------------------------------------------------------


def forge(value):
    if isinstance(value, (bool, np.bool_)):
        return not value
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, (int, np.integer)):
        return value + 1
    return 0.5 if value != value else 1.5 * value + 1e-6


def test_every_column_is_compared(traced):
    made = traced[0]
    for column in made.table.columns:
        for row in (0, 2):
            table = made.table.copy()
            table.loc[row, column] = forge(table.loc[row, column])
            report = kd.verify(kd.Frontier(table, made.constraint, made.meta, made.students), make, one_each())
            assert report.failed.tolist() == [index == row for index in range(4)], column
            assert f"{column} is " in str(report), column


def test_a_forged_table_in_a_folder_is_told_though_its_hashes_fit(traced, tmp_path):
    made, folder = traced
    for column, value in {"status": "converged", "lambda_first": 9.0, "kkt_stationarity": 1e-9, "note": ""}.items():
        table = made.table.copy()
        table.loc[3, column] = value
        kd.Frontier(table, made.constraint, made.meta).to_csv(tmp_path / "forged.csv")
        report = kd.verify(folder, make, one_each(), table=tmp_path / "forged.csv")
        assert report.failed.tolist() == [False, False, False, True], column


def test_numbers_of_ones_own_students_are_worked_out(traced):
    made = traced[0]
    students = {row: made.students[row] for row in made.students}
    numbers = ("distillation", "safety_", "violation_", "se_", "lambda_", "kkt_")
    decided = [column for column in made.table.columns if column.startswith(numbers)]
    for column in [*decided, "feasible", "nondominated", "duplicate", "multiplier_contradicted"]:
        table = made.table.copy()
        table.loc[1, column] = forge(table.loc[1, column])
        report = kd.verify(kd.Frontier(table, made.constraint, made.meta, students), make, one_each())
        assert report.failed[1], column


# ---- files of others --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_restart_removes_its_own_files_alone(resume, folder, traced):
    mine = {
        "notes.txt": "mine",
        "page/manifest.json": '{"name": "a web page"}',
        "page/point.txt": "mine",
        "target-0.4/notes.txt": "mine",
        "target-0.35/plots/a.png": "mine",
    }
    for name, text in mine.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    sweep(folder, resume=resume)
    assert csv(folder) == csv(traced[1])
    assert kd.verify(folder, make, one_each()).holds()
    left = [path for path in folder.rglob("*") if path.is_file() and path.name in ("notes.txt", "point.txt", "a.png")]
    assert len(left) == 4
    assert {path.read_text() for path in left} == {"mine"}
    assert (folder / "page" / "manifest.json").read_text() == mine["page/manifest.json"]


# ---- two processes ----------------------------------------------------------------------------------------------


def test_a_sweep_that_runs_already_is_told_of_with_its_process(tmp_path):
    told = []

    def begin_another(row):
        with pytest.raises(kd.InvalidInput, match=rf"is in use: process {os.getpid()} on .*, since .*, writes a sweep"):
            sweep(tmp_path / "run", resume="auto")
        told.append(row["target"])

    sweep(tmp_path / "run", on_point=begin_another)
    assert len(told) == 4
    assert kd.verify(tmp_path / "run", make, one_each()).holds()


RACER = """
import sys
import safekd as kd
from tests.support.problems import one_each
from tests.safekd.frontier import frontier_worker
print("ready", flush=True)
sys.stdin.readline()
try:
    frontier_worker.run(sys.argv[1])
except kd.InvalidInput as error:
    print("refused", error, flush=True)
"""


def start(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.processes
def test_of_two_that_race_one_sweeps_and_the_other_is_told(tmp_path):
    racers = [start(RACER, tmp_path / "run") for _ in range(2)]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 2
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate()[0] for racer in racers]
    assert sum("refused" in text for text in said) <= 1  # the second may come when all is done
    for text in said:
        assert "refused" not in text or "is in use: process" in text
    assert kd.verify(tmp_path / "run", frontier_worker.make, one_each()).holds()
    assert not list((tmp_path / "run").glob(".*"))


ORPHANS = """
import sys
import torch
import safekd as kd
from joblib import parallel_config
from tests.support.problems import FreeLogits, agreeing, at_least, one_each

def make(threshold):
    student = FreeLogits()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-6)
    return kd.ConstrainedTrainer(student, agreeing(), constraints=[at_least(threshold)], optimizer=optimizer)

def tell(row):
    print("row", flush=True)

if __name__ == "__main__":
    with parallel_config(backend=sys.argv[2]):
        kd.trace_frontier(
            make, one_each(), targets=[0.35, 0.4, 0.45, 0.5], epochs=3000, tolerance=1e-12, warm=False, jobs=2,
            run_dir=sys.argv[1], on_point=tell,
        )
"""


def children(pid):
    text = subprocess.run(["ps", "-eo", "pid,ppid,stat"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in text.splitlines()[1:]]
    return [int(child) for child, parent, _ in rows if int(parent) == pid]


def alive(pid):
    text = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return text.strip()[:1] not in ("", "Z")


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("ps") is None, reason="looks at processes by ps")
@pytest.mark.parametrize("backend", ["multiprocessing", pytest.param("loky", marks=pytest.mark.slow)])
def test_workers_end_with_the_process_that_started_them(backend, tmp_path):
    parent = start(ORPHANS, tmp_path / "run", backend)
    assert parent.stdout.readline() == "row\n"  # the anchor; all targets are under way now
    time.sleep(1)
    workers = children(parent.pid)
    assert len(workers) >= 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(alive, workers))
    left = {path.relative_to(tmp_path): path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    time.sleep(1)
    assert {path.relative_to(tmp_path): path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == left


# ---- folders that fail -------------------------------------------------------------------------------------------


def test_a_frontier_whose_table_cannot_be_written_is_handed_back(tmp_path, monkeypatch, traced):
    def full(*_):
        raise kd.InvalidInput("Cannot write frontier.csv: No space left on device.")

    monkeypatch.setattr(f"{StudentSweep.__module__}.write_frontier", full)
    with pytest.warns(UserWarning, match="The points are kept, the table is not: .*No space left on device"):
        frontier = sweep(tmp_path / "run")
    monkeypatch.undo()
    assert frontier.table.equals(traced[0].table)
    assert "go on there with resume='auto'" in frontier.meta["notes"][-1]
    sweep(tmp_path / "run", forbidden, resume="auto")
    assert csv(tmp_path / "run") == csv(traced[1])


def test_what_is_neither_run_nor_sweep_nor_frontier_cannot_be_verified(tmp_path):
    with pytest.raises(kd.InvalidInput, match="holds no finished run: there is no manifest"):
        kd.verify_files(tmp_path)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(kd.InvalidInput, match="holds no finished sweep"):
        kd.verify_files(tmp_path)
    assert not kd.verify_files(tmp_path / "none.csv").holds()


def test_a_table_of_another_length_than_its_record_is_told(folder):
    """By someone who makes the hashes fit: one row less in ``done.json``."""
    record = read_checked_json(folder / "done.json")
    write_checked_json({**record, "points": record["points"][:-1], "rows": record["rows"][:-1]}, folder / "done.json")
    with pytest.raises(kd.InvalidInput, match=r"has 3 rows and 4 in frontier\.csv; trace it again"):
        kd.verify(folder, make, one_each())
