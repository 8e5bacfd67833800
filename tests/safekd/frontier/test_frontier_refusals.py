"""What a sweep cannot use is told before anything is trained or written, and stopping it loses nothing."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import safekd as kd
from safekd.frontier.store import _point_store
from tests.support.frontiers import CURVE, frontier
from tests.support.problems import FreeLogits, agreeing, at_least, one_each, trainer_for

SWEEP = {"targets": [0.4, 0.5], "epochs": 30, "tolerance": 1e-2}


def make(threshold):
    return trainer_for(at_least(threshold))


def sweep(make=make, **more):
    return kd.trace_frontier(make, one_each(), **{**SWEEP, **more})


def seeded(threshold, seed):
    return trainer_for(at_least(threshold), seed=seed)


REFUSED = {
    "an absurd number of targets": ({"targets": 10**9}, "`targets` is 1000000000 up to 0.99; wanted .* at most 1000"),
    "too many targets": ({"targets": np.linspace(0.1, 0.9, 1001)}, "`targets` holds 1001 thresholds"),
    "words": ({"targets": "0.5"}, "`targets` is '0.5'; wanted how many"),
    "targets in words": ({"targets": ["0.5"]}, r"`targets` is \['0.5'\]"),
    "truth values": ({"targets": [True, 0.5]}, r"`targets` is \[True, 0.5\]"),
    "nan": ({"targets": [0.5, float("nan")]}, "`targets` holds nan"),
    "highest in words": ({"targets": 3, "highest": "0.9"}, "`targets` is 3 up to '0.9'"),
    "epochs in words": ({"epochs": "30"}, "`epochs` is '30'; wanted at least 1, a whole number"),
    "half an epoch": ({"epochs": 2.5}, "`epochs` is 2.5"),
    "epochs nan": ({"epochs": float("nan")}, "`epochs` is nan"),
    "tolerance in words": ({"tolerance": "x"}, "`tolerance` is 'x'; it must be above 0"),
    "tolerance true": ({"tolerance": True}, "`tolerance` is True"),
    "trace_every in words": ({"trace_every": "a"}, "`trace_every` is 'a'"),
    "few snapshots": ({"snapshots": 2}, "`snapshots` is 2; wanted at least 3"),
    "warm in words": ({"warm": "no"}, "`warm` is 'no'; wanted True, or False"),
    "a huge seed": ({"seeds": [2**80], "make": seeded}, "`seeds` is .* wanted different whole numbers"),
    "held is nothing": ({"held": {"first": None}}, "`held` of 'first' holds None"),
    "held in words": ({"held": {"first": "0.5"}}, "`held` of 'first' holds '0.5'"),
    "no function": ({"make": None}, "`make_trainer` is a NoneType; wanted a function from a threshold"),
    "no listener": ({"on_point": 5}, "`on_point` is a int; wanted a function"),
    "callbacks": ({"callbacks": 3}, "`callbacks` is a int; wanted a list"),
    "warm start": ({"warm_start": 3}, "`warm_start` was given to a sweep, which decides where runs begin"),
    "a slip": ({"epoch": 3}, "`epoch` is no argument of trace_frontier, nor of ConstrainedTrainer.fit"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_before_a_folder_is_made(what, tmp_path):
    more, message = REFUSED[what]
    with pytest.raises(kd.InvalidInput, match=message):
        sweep(run_dir=tmp_path / "run", **more)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("run_dir", [5, ""])
def test_a_run_dir_that_is_none_is_told(run_dir):
    with pytest.raises(kd.InvalidInput, match=r"`run_dir` is .*; wanted a folder for the runs"):
        sweep(run_dir=run_dir)


def test_a_file_in_place_of_the_folder_is_left_alone(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(kd.InvalidInput, match="run is a file; wanted a folder"):
        sweep(run_dir=tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def test_numpys_numbers_are_numbers(tmp_path):
    more = {"targets": np.int64(2), "highest": np.float32(0.5), "budget": np.int64(3), "seeds": np.arange(1)}
    table = sweep(
        seeded, run_dir=tmp_path / "run", epochs=np.int64(30), **{**more, "tolerance": np.float32(0.01)}
    ).table
    assert table["target"].iloc[-1] == np.float32(0.5)
    assert json.loads((tmp_path / "run" / "sweep.json").read_text())["sweep"]["budget"] == 3


@pytest.mark.parametrize(
    "other", [lambda s: [at_least(s, "other")], lambda s: [at_least(s), at_least(0.2, "b", 1)]], ids=["name", "number"]
)
def test_a_trainer_that_poses_other_constraints_fails_its_row_and_says_so(other):
    def changing(threshold):
        return trainer_for(*(other(threshold) if threshold == 0.5 else [at_least(threshold)]))

    table = sweep(changing).table
    assert (table["status"] == "failed").tolist() == [False, False, True]
    assert not table["feasible"][2]
    assert "and before that 'first' (train split); wanted the same ones for every threshold" in table["note"][2]


# ---- stopped ------------------------------------------------------------------------------------------------


def test_an_interrupt_keeps_what_is_done_and_says_how_to_go_on(tmp_path):
    def stop(row):
        if row["target"] == 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        sweep(run_dir=tmp_path / "run", on_point=stop)
    assert caught.value.__notes__ == [
        f"{tmp_path / 'run'} keeps 2 finished runs; go on there with resume='auto' (--resume)."
    ]
    again = sweep(run_dir=tmp_path / "run", resume="auto")
    sweep(run_dir=tmp_path / "whole")
    first, second = (tmp_path / name / "frontier.csv" for name in ("run", "whole"))
    assert first.read_bytes() == second.read_bytes()
    assert len(again.table) == 3


def test_a_sweep_of_which_nothing_is_kept_gives_way_to_another(tmp_path):
    def broken(threshold):
        student = FreeLogits()
        student.forward = lambda inputs: 1 / 0
        return kd.ConstrainedTrainer(
            student,
            agreeing(),
            constraints=[at_least(threshold)],
            optimizer=torch.optim.SGD(student.parameters(), lr=1),
        )

    with pytest.raises(ZeroDivisionError) as caught:
        sweep(broken, run_dir=tmp_path / "run")
    assert not hasattr(caught.value, "__notes__")
    assert len(sweep(run_dir=tmp_path / "run", targets=[0.4]).table) == 2


def test_a_full_disk_is_told_and_what_was_kept_is_left(tmp_path, monkeypatch):
    written = _point_store.save_tensors

    def full(tensors, path):
        if "target-0.4" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        written(tensors, path)

    monkeypatch.setattr(_point_store, "save_tensors", full)
    with pytest.raises(kd.InvalidInput, match=r"Run target-0.4 cannot be kept in .*No space left on device.*Make room"):
        sweep(run_dir=tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["anchor", "sweep.json"]


def test_a_file_on_a_full_disk_is_named(tmp_path):
    from safekd.io import write_atomically

    (tmp_path / "f.csv").write_text("old")
    told = pytest.raises(kd.InvalidInput, match=r"Cannot write .*f.csv: No space left on device. Make room")
    with told, write_atomically(tmp_path / "f.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="other"), write_atomically(tmp_path / "f.csv"):
        raise OSError(errno.ENOENT, "other")
    assert (tmp_path / "f.csv").read_text() == "old"


# ---- files that are none ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"points": [1]}', '{"points": ["../other"]}'])
def test_a_folder_whose_lists_are_damaged_is_refused(text, tmp_path):
    (tmp_path / "done.json").write_text(text)
    with pytest.raises(kd.InvalidInput, match=r"done\.json is not what a sweep writes there"):
        kd.verify(tmp_path, make, one_each())


def test_what_is_no_frontier_cannot_be_verified():
    with pytest.raises(kd.InvalidInput, match="`frontier` is a NoneType; wanted a Frontier, or the folder"):
        kd.verify(None, make, one_each())
    traced = sweep()
    with pytest.raises(kd.InvalidInput, match="`tolerance` is 'x'"):
        kd.verify(traced, make, one_each(), tolerance="x")


@pytest.mark.parametrize("text", ["[]", "null", "3"])
def test_a_record_that_is_none_is_told(text, tmp_path):
    (tmp_path / "anchor").mkdir()
    (tmp_path / "anchor" / "manifest.json").write_text("{}")
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(kd.InvalidInput, match=r"sweep\.json is not what a sweep writes there"):
        sweep(run_dir=tmp_path, resume="auto")


# ---- questions that are none, and files that stay ------------------------------------------------------------

ASKED = {
    "safety in words": (lambda f: f.choose("0.7"), "`safety` is '0.7'; wanted a finite number"),
    "safety true": (lambda f: f.choose(True), "`safety` is True"),
    "also in words": (lambda f: f.choose(0.7, also={"a": "x"}), "`also` is .* wanted finite numbers by constraint"),
    "also a number": (lambda f: f.choose(0.7, also=3), "`also` is 3"),
    "over a number": (lambda f: f.nondominated(over=3), "`over` is 3; wanted names of constraints"),
    "exact in words": (lambda f: f.igd_plus("x"), "`exact` is 'x'; wanted numbers"),
    "places in words": (lambda f: f.attainment(at=["x"]), r"`at` is \['x'\]; wanted numbers"),
    "no frontier": (lambda f: f.attainment(3), "attainment was given a int; wanted further frontiers"),
    "required nan": (lambda f: f.plot("no.html", required=float("nan")), "`required` is nan; wanted a finite number"),
}


@pytest.mark.parametrize("what", ASKED)
def test_a_question_that_is_none_is_told(what):
    ask, message = ASKED[what]
    with pytest.raises(kd.InvalidInput, match=message):
        ask(frontier(CURVE))


def test_a_folder_in_the_tables_place_gets_no_meta_file(tmp_path):
    (tmp_path / "f.csv").mkdir()
    with pytest.raises(kd.InvalidInput, match="it is a folder"):
        frontier(CURVE).to_csv(tmp_path / "f.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["f.csv"]


@pytest.mark.parametrize("which", ["write_text", "write_bytes"])
def test_a_pair_of_files_that_cannot_be_replaced_stays_as_it_was(which, tmp_path, monkeypatch):
    frontier(CURVE).to_csv(tmp_path / "f.csv")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, which, full)
    with pytest.raises(kd.InvalidInput, match="No space left on device"):
        frontier(CURVE[:2]).to_csv(tmp_path / "f.csv")
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
