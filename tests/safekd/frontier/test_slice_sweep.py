"""Which runs a slice sweep asks for, and what it makes of made-up points, nothing trained."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safekd.frontier.store import RunSpec, TrainedPoint
from safekd.frontier.sweep import SliceSweep, TargetRow, WeightSweep, check_sweep_plan
from safekd.training.trace import ConstraintReading

ANCHOR = 0.3


def plan_of(method="epsilon", **more):
    given = {"targets": 5, "highest": 0.9, "budget": None, "seeds": None, "held": None, "warm": True, "tolerance": 1e-3}
    return check_sweep_plan(lambda s: None, method=method, **{**given, **more})


def reading(safety: float, required: float) -> ConstraintReading:
    return ConstraintReading("a", "train", safety, safety, required, 10, 0.01)


def point(
    spec: RunSpec, loss: float, safety: float, multiplier: float = 1.0, status="converged", **more
) -> TrainedPoint:
    given = {"primal": 0.0, "dual": 0.0, "complementarity": 0.0, "stationarity": 1e-4, "steps": 10, "interval": 80}
    answer = [reading(safety, spec.target)]
    tensors = {"student": {"x": torch.tensor([loss])}}
    return TrainedPoint(
        spec, status, loss=loss, readings=answer, multipliers=[multiplier], **{**given, **tensors, **more}
    )


def convex(spec: RunSpec) -> TrainedPoint:
    """The loss (t - .3)^2, met exactly, with its slope as multiplier."""
    t = max(spec.target, ANCHOR)
    return point(spec, (t - ANCHOR) ** 2, t, 2 * (t - ANCHOR))


def drive(train_point, sweep_kind=SliceSweep, **more):
    """Drive one slice sweep; return its rows, the specs in order, and what was reported."""
    reported: list[TargetRow] = []
    method = "mu" if sweep_kind is WeightSweep else "epsilon"
    swept = sweep_kind(plan_of(method, **more), None, {}, "", reported.append)
    requests, answers, specs = swept.list_run_specs(), None, []
    while True:
        try:
            wanted = next(requests) if answers is None else requests.send(answers)
        except StopIteration:
            return swept, specs, reported
        specs += wanted
        answers = [train_point(spec) for spec in wanted]


def column(swept, name):
    return [getattr(row, name) for row in swept.rows]


# ---- grid, starts, redundancy -------------------------------------------------------------------------------


def test_a_smooth_front_costs_one_run_a_target_and_no_reverse_pass():
    swept, specs, reported = drive(convex)
    assert [spec.name for spec in specs] == ["anchor", *(f"target-{e.target!r}" for e in swept.rows[1:])]
    assert column(swept, "status") == ["anchor"] + ["converged"] * 4
    assert column(swept, "target") == pytest.approx([0.3, 0.45, 0.6, 0.75, 0.9])
    assert [row.target for row in reported] == column(swept, "target")
    assert column(swept, "warm_from")[1:] == pytest.approx([0.3, 0.45, 0.6, 0.75])


def test_warm_runs_begin_next_door_and_along_the_line_of_the_two_before():
    _, specs, _ = drive(convex)
    names = [spec.name for spec in specs]
    assert [spec.start for spec in specs] == [None, *names[:-1]]
    assert [spec.before for spec in specs] == [None, None, None, names[1], names[2]]
    assert [spec.trace_every for spec in specs] == [None] + [math.ceil(math.sqrt(80))] * 4


def test_cold_runs_are_wanted_safety_at_once_and_begin_nowhere():
    _, specs, reported = drive(convex, warm=False)
    assert all(spec.start is None and spec.trace_every is None for spec in specs)
    assert len(reported) == 5


def test_a_target_that_a_looser_student_meets_is_not_solved_again():
    def stepped(spec):
        answer = convex(spec)
        return point(spec, 0.1, 0.8, 0.0) if 0.4 < spec.target <= 0.8 else answer

    swept, specs, _ = drive(stepped, targets=[0.2, 0.5, 0.6, 0.7, 0.85])
    assert column(swept, "status") == ["anchor", "converged", "redundant", "redundant", "converged"]
    assert len(specs) == 3
    assert swept.rows[2].point is swept.rows[1].point
    assert swept.rows[2].note == "target 0.5 meets it already"


def test_a_run_that_fell_short_makes_no_target_redundant():
    def careless(spec):
        return replace(convex(spec), status="budget_spent", readings=[reading(0.95, spec.target)])

    swept, _, _ = drive(lambda r: convex(r) if r.name == "anchor" else careless(r), targets=[0.5, 0.6])
    assert column(swept, "status") == ["anchor", "budget_spent", "budget_spent"]


def test_below_the_unconstrained_student_there_is_nothing_to_solve():
    swept, specs, _ = drive(convex, highest=0.2)
    assert len(specs) == 1
    assert column(swept, "status") == ["anchor"]


# ---- what fails ---------------------------------------------------------------------------------------------


def test_one_failure_keeps_its_row_and_the_sweep_goes_on_from_the_last_student():
    def flaky(spec):
        return TrainedPoint(spec, "failed", "OSError: disk") if abs(spec.target - 0.6) < 1e-9 else convex(spec)

    swept, specs, _ = drive(flaky, budget=5)
    assert column(swept, "status") == ["anchor", "converged", "failed", "converged", "converged"]
    assert swept.rows[2].note == "OSError: disk"
    assert specs[3].start == specs[1].name
    assert specs[3].name.startswith("target-0.75")


def test_a_failure_is_tried_once_more_from_the_right():
    def flaky(spec):
        failed = abs(spec.target - 0.6) < 1e-9 and spec.name.startswith("target")
        return TrainedPoint(spec, "failed", "OSError: disk") if failed else convex(spec)

    swept, specs, _ = drive(flaky)
    assert specs[-1].name == "back-" + specs[2].name.removeprefix("target-")
    assert column(swept, "status") == ["anchor"] + ["converged"] * 4
    assert swept.rows[2].note == "begun from the right; from the left it ended failed: OSError: disk"
    assert swept.rows[2].warm_from == pytest.approx(0.75)


def test_what_was_proved_impossible_is_not_tried_at_tighter_targets():
    def capped(spec):
        return convex(spec) if spec.target < 0.7 else point(spec, 1.0, 0.65, 9.0, "infeasible", impossible=True)

    swept, specs, _ = drive(capped)
    assert column(swept, "status") == ["anchor", "converged", "converged", "infeasible", "infeasible"]
    assert len(specs) == 4
    assert [row.feasible for row in swept.rows] == [True, True, True, False, False]


def test_a_slice_without_a_finite_anchor_ends_there():
    swept, specs, _ = drive(lambda r: point(r, math.nan, math.nan, status="diverged"))
    assert len(specs) == 1
    assert column(swept, "status") == ["diverged", "failed", "failed", "failed", "failed"]


# ---- budget and gaps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 2, 4, 7, 12])
@pytest.mark.parametrize("warm", [True, False])
def test_no_sweep_costs_more_than_its_budget(budget, warm):
    swept, specs, _ = drive(convex, budget=budget, warm=warm)
    assert len(specs) == swept.budget.spent == budget
    assert len(swept.rows) == max(5, budget)
    unsolved = [row for row in swept.rows if row.status == "budget_spent"]
    assert len(unsolved) == max(5 - budget, 0)
    assert all(row.note == f"the budget of {budget} runs was spent before" for row in unsolved)


def test_what_a_budget_has_left_goes_into_the_widest_gaps():
    swept, specs, _ = drive(convex, budget=7)
    filled = sorted(spec.target for spec in specs if spec.name.startswith("gap"))
    assert filled == pytest.approx([0.675, 0.825])  # next to .9 and .75, where loss rises most
    assert column(swept, "target") == sorted(column(swept, "target"))


def broken(spec):
    """A front in two parts: nothing between .5 and .8."""
    t = max(spec.target, ANCHOR)
    if t <= 0.5:
        return convex(spec)
    t = max(t, 0.8)
    return point(spec, 1 + (t - 0.8) ** 2, t, 2 * (t - 0.8) if spec.target > 0.8 else 0.0)


@pytest.mark.parametrize("warm", [True, False])
def test_a_gap_that_does_not_close_is_recorded_and_left(warm):
    swept, specs, _ = drive(broken, targets=[0.3, 0.4, 0.5, 0.85, 0.9], budget=14, warm=warm)
    gaps = [row for row in swept.rows if row.status == "gap"]
    assert len(gaps) >= 1
    assert "no student was found between safety 0.5 and 0.8" in " ".join(row.note for row in gaps)
    assert sum(spec.name.startswith("gap") and 0.5 < spec.target < 0.8 for spec in specs) <= 4
    assert len(specs) <= 14


# ---- the reverse pass, and who takes whose student ----------------------------------------------------------


def two_branches(spec):
    """From the left runs stay on a branch that costs .5 more from .5 on; from the right they find the lower one."""
    answer = convex(spec)
    worse = spec.target > 0.5 and spec.name.startswith("target") and spec.target < 0.8
    return replace(answer, loss=answer.loss + 0.5) if worse else answer


def test_a_lower_branch_is_found_from_the_right():
    swept, specs, _ = drive(two_branches)
    assert [r.name.split("-")[0] for r in specs[5:]] == ["back", "back"]
    assert [e.point.loss for e in swept.rows] == pytest.approx([(e.target - ANCHOR) ** 2 for e in swept.rows])
    assert swept.rows[3].note.startswith("begun from the right; from the left it ended converged at a loss of 0.7025")
    assert swept.rows[3].steps == 20  # both runs


def test_without_a_better_run_a_dominated_row_takes_the_student_of_the_tighter_one():
    stuck = lambda r: convex(r) if r.target > 0.8 or r.name == "anchor" else point(r, 2.0 + r.target, r.target)  # noqa: E731
    swept, _, _ = drive(stuck)
    assert column(swept, "status") == ["anchor", "taken", "taken", "taken", "converged"]
    assert {row.point.loss for row in swept.rows[1:]} == {swept.rows[4].point.loss}
    assert set(column(swept, "warm_from")[1:4]) == {0.9}
    assert "the student of target 0.9 meets this one too, for less; its own run ended converged" in swept.rows[1].note


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-0.05, 0.05)), min_size=8, max_size=8), st.integers(1, 14))
def test_whatever_runs_answer_the_front_is_monotone_and_every_target_has_a_row(drawn, budget):
    answers = iter(drawn * 4)

    def any_(spec):
        loss, off = next(answers)
        return point(spec, loss, min(max(spec.target, ANCHOR) + off, 1.0), 1.0)

    swept, specs, _ = drive(any_, targets=[0.4, 0.5, 0.6, 0.7], budget=budget)
    assert len(specs) <= budget
    assert {0.4, 0.5, 0.6, 0.7} <= set(column(swept, "target")) or swept.rows[0].point.safety > 0.4
    losses = [row.point.loss for row in swept.rows if row.feasible]
    assert losses == sorted(losses)
    for looser, tighter in pairwise(swept.rows):
        assert looser.feasible or not tighter.feasible or tighter.target == looser.target


def test_the_unconstrained_row_takes_a_cheaper_student_too_and_stays_the_anchor():
    loose = lambda r: point(r, 0.02, 0.3, 0.0) if r.name == "anchor" else convex(r)  # noqa: E731
    swept, _, _ = drive(loose, targets=[0.2, 0.25, 0.4])
    assert column(swept, "status") == ["anchor", "redundant", "converged"]
    assert [row.point.loss for row in swept.rows] == pytest.approx([0.01] * 3)


# ---- weights ------------------------------------------------------------------------------------------------


def weighted(front):
    """What a fixed weight finds: the minimum of loss - mu safety over a table of (safety, loss)."""

    def train_point(spec):
        safety, loss = min(front, key=lambda point: point[1] - (spec.weight or 0.0) * point[0])
        return point(spec, loss, safety, spec.weight or 0.0)

    return train_point


GRID = [0.3 + 0.6 * i / 600 for i in range(601)]


def test_weights_find_a_convex_front_evenly():
    swept, specs, _ = drive(weighted([(s, (s - 0.3) ** 2) for s in GRID]), WeightSweep)
    safeties = sorted(row.point.safety for row in swept.rows)
    assert set(column(swept, "status")) == {"anchor", "converged"}
    assert max(b - a for a, b in pairwise(safeties)) < 0.31
    for wanted_safety in (0.45, 0.6, 0.75, 0.9):
        assert min(abs(wanted_safety - s) for s in safeties) <= 0.6 / 8
    assert len(specs) <= 15
    for row in swept.rows:
        assert row.weight == pytest.approx(2 * (row.point.safety - 0.3), abs=2e-3) or row.point.safety > 0.8999


def test_weights_say_which_part_of_a_concave_front_they_cannot_reach():
    swept, specs, _ = drive(weighted([(s, math.sqrt(s - 0.3)) for s in GRID]), WeightSweep)
    assert column(swept, "status")[0] == "anchor"
    reached = [row for row in swept.rows if row.point is not None]
    assert {round(row.point.safety, 9) for row in reached} == {0.3, 0.9}
    lost = [row for row in swept.rows if row.status == "unreachable"]
    assert [row.target for row in lost] == pytest.approx([0.45, 0.6, 0.75])
    slope = math.sqrt(0.6) / 0.6
    assert f"out of reach of weights: below {slope:.6g} they lead to safety 0.3" in lost[0].note
    assert "method='epsilon' looks between them" in lost[0].note
    assert len(specs) <= 10


def test_a_safety_above_every_weight_is_unreachable_too():
    swept, _, _ = drive(weighted([(s, (s - 0.3) ** 2) for s in GRID if s <= 0.7]), WeightSweep)
    last = swept.rows[-1]
    assert (last.status, last.target) == ("unreachable", 0.9)
    assert "leads to safety 0.7" in last.note


@pytest.mark.parametrize("budget", [1, 2, 3, 6])
def test_weights_stop_at_the_budget_and_every_target_has_a_row(budget):
    swept, specs, _ = drive(weighted([(s, (s - 0.3) ** 2) for s in GRID]), WeightSweep, budget=budget)
    assert len(specs) <= budget
    near = [e.point.safety if e.point is not None else e.target for e in swept.rows]
    for target in (0.45, 0.6, 0.75, 0.9):
        assert min(abs(target - one) for one in near) <= 0.6 / 8 + 1e-9
