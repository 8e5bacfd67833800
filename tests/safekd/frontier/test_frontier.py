"""trace_frontier on a problem whose whole frontier is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import safekd as kd
from safekd.frontier import COLUMNS_DOC
from safekd.teachers import CallableTeacher
from tests.support.problems import FreeLogits, Q, agreeing, at_least, one_each, optimal_multiplier, trainer_for, value

EXACT = {"epochs": 3000, "tolerance": 1e-7, "trace_every": 25}
TARGETS = [0.1, 0.2, 0.35, 0.59, 0.6, 0.61, 0.9]


@pytest.fixture(scope="module")
def swept():
    seen = []
    frontier = kd.trace_frontier(
        lambda s: trainer_for(at_least(s), seed=7), one_each(), targets=TARGETS, on_point=seen.append, **EXACT
    )
    return frontier, seen


def test_loss_safety_and_multipliers_are_the_closed_form(swept):
    table = swept[0].table
    assert table["target"].tolist() == TARGETS
    for row in table.to_dict("records"):
        s = max(row["target"], Q[0])
        assert row["distillation_loss"] == pytest.approx(value(s), abs=1e-5)
        assert row["safety_first"] == pytest.approx(s, abs=1e-6)
        assert row["lambda_first"] == pytest.approx(optimal_multiplier(s), abs=1e-4)
        assert row["violation_first"] == pytest.approx(max(row["target"] - row["safety_first"], 0), abs=1e-12)
    assert table["feasible"].all()
    assert (table[["kkt_stationarity", "kkt_primal", "kkt_dual", "kkt_complementarity"]] <= 1e-7).all(axis=None)


def test_the_multiplier_is_the_trade_off(swept):
    table = swept[0].table.set_index("target")
    loss = table["distillation_loss"]
    assert table.loc[0.6, "lambda_first"] == pytest.approx((loss[0.61] - loss[0.59]) / 0.02, rel=1e-3)


def test_every_target_keeps_a_row_with_its_status(swept):
    table = swept[0].table
    assert table["status"].tolist() == ["anchor", "redundant"] + ["converged"] * 5
    assert table["nondominated"].tolist() == [True, False] + [True] * 5  # the redundant one is the anchor again
    assert table["steps"].tolist()[1] == 0
    assert (table["steps"] > 0).sum() == 6
    np.testing.assert_array_equal(
        table["warm_from"], [math.nan, math.nan, table["safety_first"][0], 0.35, 0.59, 0.6, 0.61]
    )
    assert set(table["seed"]) == {7}
    assert table["run_id"].nunique() == 1
    assert set(table["split"]) == {"train"}


def test_on_point_sees_every_row_as_it_is_done(swept):
    frontier, seen = swept
    assert [row["target"] for row in seen] == TARGETS
    assert [row["status"] for row in seen] == frontier.table["status"].tolist()


def test_every_column_that_is_documented_is_there(swept):
    frontier = swept[0]
    documented = "schema_version run_id method target seed distillation_loss rho split status feasible nondominated"
    for column in [*documented.split(), "warm_from", "steps", "wall_s"]:
        assert column in COLUMNS_DOC
        assert column in frontier.table
    assert frontier.constraint == "first"
    assert frontier.meta["senses"] == {"distillation_loss": "min", "safety_first": "max"}
    assert frontier.meta["run_id"] == frontier.table["run_id"][0]


def test_a_count_spreads_targets_from_the_unconstrained_student_to_the_highest():
    frontier = kd.trace_frontier(
        lambda s: trainer_for(at_least(s)), one_each(), targets=np.int64(4), highest=0.6, **EXACT
    )
    table = frontier.table
    assert table["target"].tolist() == pytest.approx([0.3, 0.4, 0.5, 0.6], abs=1e-5)
    assert table["target"].iloc[-1] == 0.6
    assert table["status"].tolist() == ["anchor"] + ["converged"] * 3
    assert table["distillation_loss"].tolist() == pytest.approx([value(s) for s in (0.3, 0.4, 0.5, 0.6)], abs=1e-5)


def test_targets_need_no_order_and_repeat_at_no_cost():
    frontier = kd.trace_frontier(
        lambda s: trainer_for(at_least(s)), one_each(), targets=(0.5, 0.4, 0.5), epochs=300, trace_every=25
    )
    assert frontier.table["target"].tolist() == pytest.approx([0.3, 0.4, 0.5], abs=1e-3)
    assert frontier.table["status"].iloc[0] == "anchor"  # the unconstrained end is always there


def test_targets_that_cannot_be_met_are_kept_as_such():
    """Beside p_1 >= .5, which always holds, p_0 can reach .5 and no more."""
    frontier = kd.trace_frontier(
        lambda s: trainer_for(at_least(s), at_least(0.5, "other", critical=1), lr=0.1),
        one_each(),
        targets=[0.4, 0.9, 0.95],
        epochs=1500,
        tolerance=1e-3,
    )
    table = frontier.table.set_index("target")
    assert table.loc[0.4, "status"] == "converged"
    assert table.loc[0.9, "status"] == "infeasible"
    assert "No student of any size" in table.loc[0.9, "note"]
    assert table.loc[0.9, "safety_first"] == pytest.approx(0.5, abs=0.35)  # the best that was reached is in its row
    assert table.loc[0.95, ["status", "steps"]].tolist() == ["infeasible", 0]
    assert table.loc[0.95, "note"] == "target 0.9, which is looser, was proved to be out of reach"
    assert not table.loc[0.9, "feasible"]
    assert not table.loc[0.9, "nondominated"]
    assert table.loc[0.4, "lambda_other"] > 0
    assert len(frontier.points) == 2
    assert 0.9 not in set(frontier.nondominated()["target"])


def test_the_sweep_is_the_same_twice():
    one, two = (
        kd.trace_frontier(lambda s: trainer_for(at_least(s)), one_each(), targets=[0.4, 0.5], epochs=50).table
        for _ in range(2)
    )
    assert one.drop(columns="wall_s").equals(two.drop(columns="wall_s"))


def test_teachers_are_asked_once_for_a_whole_sweep():
    asked = []

    def says(inputs):
        asked.append(len(inputs))
        return torch.tensor(Q).double().expand(len(inputs), -1)

    ensemble = kd.teachers.TeacherEnsemble([CallableTeacher("q", says)])
    pair = (torch.zeros(3, 1), torch.arange(3))
    kd.trace_frontier(lambda s: trainer_for(at_least(s), teachers=ensemble), pair, targets=[0.4, 0.5, 0.6], epochs=20)
    assert sum(asked) <= 6


def test_each_run_has_a_folder_of_its_own(tmp_path):
    kd.trace_frontier(
        lambda s: trainer_for(at_least(s)), one_each(), targets=[0.2, 0.4, 0.5], epochs=100, run_dir=tmp_path
    )
    names = ["anchor", "done.json", "frontier.csv", "frontier.csv.meta.json", "sweep.json", "target-0.4", "target-0.5"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert (tmp_path / "target-0.4" / "verdict.json").exists()


def sweep(targets=2, **more):
    return kd.trace_frontier(lambda s: trainer_for(at_least(s)), one_each(), targets=targets, epochs=1, **more)


REFUSED = {
    "method": (
        lambda: sweep(method="tau"),
        "`method` is 'tau'; wanted 'epsilon', the epsilon-constraint sweep, or 'mu'",
    ),
    "budget": (lambda: sweep(budget=0), "`budget` is 0; wanted how many training runs at most, at least 1, or None"),
    "budget true": (lambda: sweep(budget=True), "`budget` is True"),
    "seeds": (lambda: sweep(seeds=[0, 0]), r"`seeds` is \[0, 0\]; wanted different whole numbers from 0"),
    "seeds negative": (lambda: sweep(seeds=[-1]), r"`seeds` is \[-1\]"),
    "no seed": (lambda: sweep(seeds=[0, 1]), r"`seeds` is \[0, 1\], but make_trainer takes no `seed`; let it"),
    "held": (lambda: sweep(held={"b": [0.5]}), r"`held` names 'b', which is no further constraint.*there are \[\]"),
    "held swept": (lambda: sweep(held={"first": [0.5]}), "besides 'first', which is swept"),
    "held nan": (lambda: sweep(held={"b": [math.nan]}), "`held` of 'b' holds nan; wanted thresholds above 0"),
    "held true": (lambda: sweep(held={"b": [True]}), "`held` of 'b' holds True"),
    "held empty": (lambda: sweep(held={"b": []}), "`held` of 'b' is empty"),
    "held list": (lambda: sweep(held=[0.5]), r"`held` is \[0.5\]; wanted thresholds by constraint"),
    "jobs": (lambda: sweep(jobs=0), "`jobs` is 0; wanted a whole number from 1, or None"),
    "threads": (lambda: sweep(threads=-1), "`threads` is -1"),
    "true in a list": (lambda: sweep([True, 0.5]), r"`targets` is \[True, 0.5\]; wanted how many"),
    "a word": (lambda: sweep("0.5"), "`targets` is '0.5'; wanted how many"),
    "none": (lambda: sweep(None), "`targets` is None; wanted how many"),
    "highest true": (lambda: sweep(3, highest=True), "up to True"),
    "another threshold": (
        lambda: kd.trace_frontier(lambda s: trainer_for(at_least(0.5)), one_each(), targets=2, epochs=1),
        r"make_trainer\(1e-09\) gave a trainer whose first constraint, 'first', asks for 0.5; .*constraint.with_thresh",
    ),
    "an equality": (
        lambda: kd.trace_frontier(
            lambda s: trainer_for(kd.SafetyConstraint("first", kd.safety.TruthProbability([0]), exactly=s)),
            one_each(),
            targets=2,
            epochs=1,
        ),
        "'first' is to be met exactly, so no student is unconstrained; sweep one with at_least",
    ),
    "weights of two": (
        lambda: kd.trace_frontier(
            lambda s: trainer_for(at_least(s), at_least(0.2, "b", critical=1)), one_each(), epochs=1, method="mu"
        ),
        r"method='mu' gives one constraint a fixed weight, and the trainer has further ones: \['b'\]",
    ),
    "empty": (lambda: sweep([]), r"`targets` is empty; wanted safety thresholds above 0 and at most 1"),
    "nan": (lambda: sweep([0.5, math.nan]), "`targets` holds nan"),
    "zero": (lambda: sweep([0.0, 0.5]), "`targets` holds 0.0"),
    "above one": (lambda: sweep([0.5, 95]), "`targets` holds 95.0"),
    "one": (lambda: sweep(1), "`targets` is 1 up to 0.99; wanted at least 2 targets"),
    "true": (lambda: sweep(True), "`targets` is True up to 0.99; wanted at least 2"),
    "highest": (lambda: sweep(3, highest=1.5), r"`targets` is 3 up to 1.5; .* a highest one in \(0, 1\]"),
    "highest nan": (lambda: sweep(3, highest=math.nan), "up to nan"),
    "a float": (lambda: sweep(0.9), "`targets` is 0.9; wanted how many, a whole number, or the thresholds"),
    "text": (lambda: sweep(["high"]), r"`targets` is \['high'\]; wanted how many"),
    "data": (lambda: kd.trace_frontier(lambda s: trainer_for(at_least(s)), 3, targets=2, epochs=1), "`train` is a int"),
    "no trainer": (
        lambda: kd.trace_frontier(lambda s: None, one_each(), targets=2, epochs=1),
        "make_trainer gave a NoneType; wanted a fresh kd.ConstrainedTrainer",
    ),
    "no constraint": (
        lambda: kd.trace_frontier(lambda s: trainer_for(), one_each(), targets=2, epochs=1),
        "gave a trainer without constraints; its first one is what is swept",
    ),
    "epochs": (
        lambda: kd.trace_frontier(lambda s: trainer_for(at_least(s)), one_each(), targets=2, epochs=0),
        "`epochs` is 0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_named(case):
    call, message = REFUSED[case]
    with pytest.raises(kd.InvalidInput, match=message):
        call()


def test_a_sweep_that_cannot_begin_says_why():
    class Broken(FreeLogits):
        def forward(self, inputs):
            return super().forward(inputs) * math.nan

    with pytest.raises(kd.SolverFailure, match=r"unconstrained run.*The student's output is not finite at step 1"):
        kd.trace_frontier(
            lambda s: trainer_for(at_least(s), student=Broken(), teachers=agreeing()), one_each(), targets=3, epochs=2
        )


def test_several_seeds_and_slices_are_sweeps_of_their_own():
    def make(threshold, seed):
        return trainer_for(at_least(threshold), at_least(0.2, "other", critical=1), seed=seed)

    frontier = kd.trace_frontier(
        make, one_each(), targets=[0.4, 0.5], epochs=120, tolerance=1e-2, seeds=[3, 5], held={"other": [0.4, 0.2]}
    )
    table = frontier.table
    assert table["seed"].tolist() == [3] * 6 + [5] * 6
    assert table["held_other"].tolist() == ([0.2] * 3 + [0.4] * 3) * 2
    assert (table.loc[table["held_other"] == 0.4, "safety_other"] > 0.38).all()
    assert table.loc[:2, "lambda_other"].tolist() == [0, 0, 0]
    assert table["lambda_other"][5] > 0.3
    assert len(frontier.slices()) == 4
    loss = table["distillation_loss"].tolist()
    assert loss[:6] == loss[6:]  # no random number in this student
    assert frontier.meta["runs"] == 12


def test_what_was_asked_twice_and_what_lies_below_is_noted():
    twice = sweep([0.4, 0.4, 0.5])
    assert twice.meta["notes"] == ["target 0.4 was given more than once and has one row"]
    below = kd.trace_frontier(lambda s: trainer_for(at_least(s)), one_each(), targets=3, highest=0.2, epochs=20)
    assert below.table["status"].tolist() == ["anchor"]
    assert "`highest` is 0.2, and the unconstrained student reaches 0.29" in below.meta["notes"][0]


@pytest.mark.slow
def test_a_warm_run_goes_on_with_the_optimizers_moments_and_costs_less():
    """Sixteen points, warm and cold, to the same residuals."""

    def adam(threshold):
        student = FreeLogits()
        optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
        return kd.ConstrainedTrainer(student, agreeing(), constraints=[at_least(threshold)], optimizer=optimizer)

    swept = {"targets": 16, "highest": 0.8, "epochs": 1500, "tolerance": 1e-4, "trace_every": 10}
    warm = kd.trace_frontier(adam, one_each(), **swept)
    cold = kd.trace_frontier(adam, one_each(), warm=False, **swept)
    assert set(warm.table["status"]) == set(cold.table["status"]) == {"anchor", "converged"}
    assert (warm.table["kkt_stationarity"] <= 1e-4).all()
    assert warm.table["steps"].sum() <= cold.table["steps"].sum() / 2
