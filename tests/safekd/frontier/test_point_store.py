"""Sweeps that survive: points on disk, damage, resuming, and what may not be resumed."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch
from joblib import parallel_config
from joblib.externals.loky.backend.reduction import dumps

import safekd as kd
from safekd.frontier.store import read_point
from safekd.frontier.sweep import SweepJob
from safekd.frontier.sweep._worker_pool import _Run, _train_remotely
from tests.support.problems import FreeLogits, agreeing, at_least, one_each, same, state, trainer_for

SWEEP = {"targets": [0.4, 0.5, 0.6], "epochs": 400, "tolerance": 1e-3}
FILES = ["anchor", "done.json", "frontier.csv", "frontier.csv.meta.json", "sweep.json"]


def adam(threshold, lr=0.05, teachers=None):
    student = FreeLogits()
    optimizer = torch.optim.Adam(student.parameters(), lr=lr)
    return kd.ConstrainedTrainer(
        student, teachers or agreeing(), constraints=[at_least(threshold)], optimizer=optimizer
    )


def sweep(folder, make=adam, data=None, **more):
    return kd.trace_frontier(make, one_each() if data is None else data, run_dir=folder, **{**SWEEP, **more})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return sweep(folder), folder


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole[1], tmp_path / "run")
    return tmp_path / "run"


def csv(folder):
    return (folder / "frontier.csv").read_bytes()


def stopped(folder, *points):
    """Leave the folder as a kill would have that came before these points were finished."""
    for name in points:
        shutil.rmtree(folder / name)
    for name in ("done.json", "frontier.csv", "frontier.csv.meta.json"):
        (folder / name).unlink()


def test_a_folder_holds_a_point_a_run_and_the_table(whole):
    frontier, folder = whole
    points = ["anchor", "target-0.4", "target-0.5", "target-0.6"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, *points[1:]])
    for name in points:
        inside = {path.name for path in (folder / name).iterdir()}
        assert {"point.json", "manifest.json", "student.safetensors", "verdict.json", "trace.csv"} <= inside
    assert json.loads((folder / "done.json").read_text())["points"] == points
    assert frontier.table["wall_s"].isna().all()
    assert len(frontier.meta["wall_s"]) == 4
    assert min(frontier.meta["wall_s"]) > 0
    assert kd.Frontier.from_csv(folder / "frontier.csv").table.equals(frontier.table)


def test_a_point_reads_back_bit_for_bit(whole):
    frontier, folder = whole
    point = read_point(folder / "target-0.5")
    assert same(dict(point.student), state(frontier.students[2]))
    assert point.optimizer_kind == "Adam"
    assert {"0.exp_avg", "0.exp_avg_sq", "0.step"} == set(point.optimizer)
    assert list(point.multipliers) == frontier.students.warm_start(2).multipliers
    assert point.loss == frontier.table["distillation_loss"][2]


def test_finished_points_are_read_and_not_run(copy, whole):
    def forbidden(threshold):
        trainer = adam(threshold)
        trainer.fit = None  # a run would fail
        return trainer

    again = sweep(copy, forbidden, resume="auto")
    assert again.table.equals(whole[0].table)
    assert csv(copy) == csv(whole[1])
    assert again.meta["notes"] == []


@pytest.mark.parametrize("points", [["target-0.6"], ["target-0.5", "target-0.6"], ["anchor", "target-0.4"]])
def test_a_stopped_sweep_ends_as_an_undisturbed_one(points, copy, whole):
    stopped(copy, *points)
    (copy / ".target-0.5.1234.part").mkdir()
    assert sweep(copy, resume="auto").table.equals(whole[0].table)
    assert csv(copy) == csv(whole[1])
    assert not list(copy.glob(".*"))


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(bytes(raw))


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


DAMAGE = {
    "a flipped bit": lambda point: flip(point / "student.safetensors"),
    "a flipped bit in the optimizer": lambda point: flip(point / "optimizer.safetensors"),
    "a number": lambda point: edit(point / "point.json", '"loss": 0', '"loss": 1'),
    "a file gone": lambda point: (point / "trace.csv").unlink(),
    "a file more": lambda point: (point / "notes.txt").write_text("x"),
    "no manifest": lambda point: (point / "manifest.json").unlink(),
    "half a manifest": lambda point: (point / "manifest.json").write_text("{"),
    "nothing left": lambda point: [path.unlink() for path in point.iterdir()],
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_point_is_found_and_run_again(what, copy, whole):
    DAMAGE[what](copy / "target-0.5")
    report = kd.verify(copy, adam, one_each())
    assert report.table["wrong"].str.startswith("point target-0.5 is damaged").tolist() == [False, False, True, False]
    again = sweep(copy, resume="auto")
    assert again.table.equals(whole[0].table)
    assert csv(copy) == csv(whole[1])
    assert len(again.meta["notes"]) == 1
    assert again.meta["notes"][0].startswith("point target-0.5 was run again: ")
    assert kd.verify(copy, adam, one_each()).holds()


CHANGES = {
    "epochs": ({"epochs": 70}, "`epochs` was 400 and is now 70"),
    "targets": ({"targets": [0.4, 0.5]}, r"`sweep.targets` was \[0.4, 0.5, 0.6\] and is now \[0.4, 0.5\]"),
    "method": ({"method": "mu"}, '`sweep.method` was "epsilon" and is now "mu"'),
    "tolerance": ({"tolerance": 1e-4}, "`sweep.tolerance` was 0.001 and is now 0.0001"),
    "warm": ({"warm": False}, "`sweep.warm` was true and is now false"),
    "budget": ({"budget": 9}, "`sweep.budget` was null and is now 9"),
    "a fit argument": ({"trace_every": 7}, "`fit.trace_every` was null and is now 7"),
    "threads": ({"threads": 2}, "`threads` was 1 and is now 2"),
    "learning rate": ({"make": lambda s: adam(s, lr=0.06)}, "`trainer.optimizer.lr` was 0.05 and is now 0.06"),
    "optimizer": ({"make": lambda s: trainer_for(at_least(s))}, '`trainer.optimizer.kind` was "Adam" and is now "SGD"'),
    "constraint": (
        {"make": lambda s: trainer_for(at_least(s, "other", critical=1))}, "`trainer.constraints` was .* and is now"),
    "teacher": ({"make": lambda s: adam(s, teachers=agreeing((0.31, 0.49, 0.2)))}, "`teacher_probabilities` was"),
    "data": ({"data": (torch.ones(3, 1) - 1, torch.tensor([0, 1, 1]))}, "`data.train` was"),
    "validation": ({"validation": one_each(name="validation")}, "`data.validation` was null"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("resume", [None, "auto"])
def test_another_sweep_is_refused_and_what_changed_is_told(what, resume, copy):
    change, message = CHANGES[what]
    before = csv(copy)
    with pytest.raises(kd.InvalidInput, match="holds points of another sweep: .*" + message):
        sweep(copy, resume=resume, **change)
    assert csv(copy) == before


def test_a_sweep_that_was_stopped_is_not_begun_afresh_by_mistake(copy):
    stopped(copy, "target-0.6")
    with pytest.raises(kd.InvalidInput, match=r"holds 3 finished points of this sweep.*resume='auto' \(--resume\)"):
        sweep(copy)
    assert (copy / "target-0.5").exists()


def test_a_finished_sweep_is_repeated_where_that_is_asked_for(copy, whole):
    (copy / "target-0.4" / "trace.csv").write_text("old")
    sweep(copy)
    assert csv(copy) == csv(whole[1])
    assert (copy / "target-0.4" / "trace.csv").read_text() != "old"


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(kd.InvalidInput, match="holds other files, but no sweep; choose another folder"):
        sweep(tmp_path)
    with pytest.raises(kd.InvalidInput, match="`resume` needs the folder to go on in: give `run_dir` too"):
        kd.trace_frontier(adam, one_each(), resume="auto", **SWEEP)
    with pytest.raises(kd.InvalidInput, match="`resume` is 'yes'; wanted 'auto'"):
        sweep(tmp_path / "new", resume="yes")


def test_a_run_that_failed_is_tried_again(copy, tmp_path):
    def flaky(threshold):
        if threshold == 0.5:
            raise OSError("no space left")
        return adam(threshold)

    folder = tmp_path / "flaky"
    failed = sweep(folder, flaky)
    assert (failed.table["status"] == "failed").tolist() == [False, False, True, False]
    assert failed.table["note"][2] == "OSError: no space left"
    assert failed.table["distillation_loss"].isna().tolist() == [False, False, True, False]
    assert not (folder / "target-0.5").exists()
    assert kd.verify(folder, adam, one_each()).holds()  # a row that is not feasible needs no student
    mended = sweep(folder, resume="auto")
    assert mended.table["distillation_loss"].notna().all()


# ---- jobs ---------------------------------------------------------------------------------------------------


# forked workers have everything imported; joblib's own choice, loky, takes half a minute to begin on a busy machine
WORKERS = [
    (False, "multiprocessing"),
    *(pytest.param(w, "loky", marks=pytest.mark.slow) for w in (False, True)),
]


@pytest.mark.parametrize(("warm", "backend"), WORKERS)
def test_the_table_is_the_same_whatever_the_number_of_workers(warm, backend, tmp_path):
    tables = []
    for jobs in (1, 2):
        seen = []
        with parallel_config(backend=backend):
            sweep(tmp_path / f"{jobs}", seeded, warm=warm, jobs=jobs, seeds=[0, 1], epochs=25, on_point=seen.append)
        tables.append(csv(tmp_path / f"{jobs}"))
        assert len(seen) == 8
    assert tables[0] == tables[1]
    table = kd.Frontier.from_csv(tmp_path / "2" / "frontier.csv").table
    assert table["seed"].tolist() == [0] * 4 + [1] * 4
    assert table["distillation_loss"][1] != table["distillation_loss"][5]


def seeded(threshold, seed):
    student = FreeLogits()
    with torch.no_grad():
        student.logits += torch.randn(student.logits.shape, generator=torch.Generator().manual_seed(seed))
    return trainer_for(at_least(threshold), student=student, seed=seed)


def test_what_is_sent_to_a_worker_gives_the_same_point_there(whole):
    """By the pickle that loky uses, functions that no module holds included."""
    job = SweepJob("sent", lambda s: adam(s), one_each(), None, SWEEP["epochs"], {}, 1, None)
    spec, start = read_point(whole[1] / "target-0.5").spec, read_point(whole[1] / "target-0.4")
    there, task = pickle.loads(dumps((_train_remotely, (job, _Run(7, spec, start, None)))))
    run, point = there(*task)
    assert (run.number, run.spec) == (7, spec)
    assert same(dict(point.student), state(whole[0].students[2]))


def test_threads_that_share_random_numbers_are_refused(tmp_path):
    with parallel_config(backend="threading"), pytest.raises(kd.InvalidInput, match="set to a backend of threads"):
        sweep(tmp_path / "run", warm=False, jobs=2)
