"""Which runs a sweep asks for, and what it makes of their answers: chains fed with made-up cells, nothing trained."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safekd.frontier._cells import Cell, Request
from safekd.frontier._chain import Chain, Entry
from safekd.frontier._mu import WeightChain
from safekd.frontier._plan import checked_plan
from safekd.training.trace import ConstraintReading

ANCHOR = 0.3


def plan_of(method="epsilon", **more):
    asked = {"targets": 5, "highest": 0.9, "budget": None, "seeds": None, "held": None, "warm": True, "tolerance": 1e-3}
    return checked_plan(lambda s: None, method=method, **{**asked, **more})


def reading(safety: float, required: float) -> ConstraintReading:
    return ConstraintReading("a", "train", safety, safety, required, 10, 0.01)


def cell(request: Request, loss: float, safety: float, price: float = 1.0, status="converged", **more) -> Cell:
    given = {"primal": 0.0, "dual": 0.0, "complementarity": 0.0, "stationarity": 1e-4, "steps": 10, "interval": 80}
    found = [reading(safety, request.target)]
    tensors = {"student": {"x": torch.tensor([loss])}}
    return Cell(request, status, loss=loss, readings=found, multipliers=[price], **{**given, **tensors, **more})


def convex(request: Request) -> Cell:
    """The loss (t - .3)^2, met exactly, with its slope as multiplier."""
    t = max(request.target, ANCHOR)
    return cell(request, (t - ANCHOR) ** 2, t, 2 * (t - ANCHOR))


def traced(solve, chain_of=Chain, **more):
    """Drive one chain; return its entries, the requests in order, and what was told."""
    told: list[Entry] = []
    method = "mu" if chain_of is WeightChain else "epsilon"
    chain = chain_of(plan_of(method, **more), None, {}, "", told.append)
    steps, answers, asked = chain.steps(), None, []
    while True:
        try:
            wanted = next(steps) if answers is None else steps.send(answers)
        except StopIteration:
            return chain, asked, told
        asked += wanted
        answers = [solve(request) for request in wanted]


def column(chain, name):
    return [getattr(entry, name) for entry in chain.entries]


# ---- grid, starts, redundancy -------------------------------------------------------------------------------


def test_a_smooth_front_costs_one_run_a_target_and_no_reverse_pass():
    chain, asked, told = traced(convex)
    assert [request.name for request in asked] == ["anchor", *(f"target-{e.asked!r}" for e in chain.entries[1:])]
    assert column(chain, "status") == ["anchor"] + ["converged"] * 4
    assert column(chain, "asked") == pytest.approx([0.3, 0.45, 0.6, 0.75, 0.9])
    assert [entry.asked for entry in told] == column(chain, "asked")
    assert column(chain, "warm_from")[1:] == pytest.approx([0.3, 0.45, 0.6, 0.75])


def test_warm_runs_begin_next_door_and_along_the_line_of_the_two_before():
    _, asked, _ = traced(convex)
    names = [request.name for request in asked]
    assert [request.start for request in asked] == [None, *names[:-1]]
    assert [request.before for request in asked] == [None, None, None, names[1], names[2]]
    assert [request.trace_every for request in asked] == [None] + [math.ceil(math.sqrt(80))] * 4


def test_cold_runs_are_asked_for_at_once_and_begin_nowhere():
    _, asked, told = traced(convex, warm=False)
    assert all(request.start is None and request.trace_every is None for request in asked)
    assert len(told) == 5


def test_a_target_that_a_looser_student_meets_is_not_solved_again():
    def stepped(request):
        found = convex(request)
        return cell(request, 0.1, 0.8, 0.0) if 0.4 < request.target <= 0.8 else found

    chain, asked, _ = traced(stepped, targets=[0.2, 0.5, 0.6, 0.7, 0.85])
    assert column(chain, "status") == ["anchor", "converged", "redundant", "redundant", "converged"]
    assert len(asked) == 3
    assert chain.entries[2].cell is chain.entries[1].cell
    assert chain.entries[2].note == "target 0.5 meets it already"


def test_a_run_that_fell_short_makes_no_target_redundant():
    def careless(request):
        return replace(convex(request), status="budget_spent", readings=[reading(0.95, request.target)])

    chain, _, _ = traced(lambda r: convex(r) if r.name == "anchor" else careless(r), targets=[0.5, 0.6])
    assert column(chain, "status") == ["anchor", "budget_spent", "budget_spent"]


def test_below_the_unconstrained_student_there_is_nothing_to_solve():
    chain, asked, _ = traced(convex, highest=0.2)
    assert len(asked) == 1
    assert column(chain, "status") == ["anchor"]


# ---- what fails ---------------------------------------------------------------------------------------------


def test_one_failure_keeps_its_row_and_the_sweep_goes_on_from_the_last_student():
    def flaky(request):
        return Cell(request, "failed", "OSError: disk") if abs(request.target - 0.6) < 1e-9 else convex(request)

    chain, asked, _ = traced(flaky, budget=5)
    assert column(chain, "status") == ["anchor", "converged", "failed", "converged", "converged"]
    assert chain.entries[2].note == "OSError: disk"
    assert asked[3].start == asked[1].name
    assert asked[3].name.startswith("target-0.75")


def test_a_failure_is_tried_once_more_from_the_right():
    def flaky(request):
        failed = abs(request.target - 0.6) < 1e-9 and request.name.startswith("target")
        return Cell(request, "failed", "OSError: disk") if failed else convex(request)

    chain, asked, _ = traced(flaky)
    assert asked[-1].name == "back-" + asked[2].name.removeprefix("target-")
    assert column(chain, "status") == ["anchor"] + ["converged"] * 4
    assert chain.entries[2].note == "begun from the right; from the left it ended failed: OSError: disk"
    assert chain.entries[2].warm_from == pytest.approx(0.75)


def test_what_was_proved_impossible_is_not_tried_at_tighter_targets():
    def capped(request):
        return convex(request) if request.target < 0.7 else cell(request, 1.0, 0.65, 9.0, "infeasible", impossible=True)

    chain, asked, _ = traced(capped)
    assert column(chain, "status") == ["anchor", "converged", "converged", "infeasible", "infeasible"]
    assert len(asked) == 4
    assert [entry.meets for entry in chain.entries] == [True, True, True, False, False]


def test_a_slice_without_a_finite_anchor_ends_there():
    chain, asked, _ = traced(lambda r: cell(r, math.nan, math.nan, status="diverged"))
    assert len(asked) == 1
    assert column(chain, "status") == ["diverged", "failed", "failed", "failed", "failed"]


# ---- budget and gaps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 2, 4, 7, 12])
@pytest.mark.parametrize("warm", [True, False])
def test_no_sweep_costs_more_than_its_budget(budget, warm):
    chain, asked, _ = traced(convex, budget=budget, warm=warm)
    assert len(asked) == chain.runs == budget
    assert len(chain.entries) == max(5, budget)
    unsolved = [entry for entry in chain.entries if entry.status == "budget_spent"]
    assert len(unsolved) == max(5 - budget, 0)
    assert all(entry.note == f"the budget of {budget} runs was spent before" for entry in unsolved)


def test_what_a_budget_has_left_goes_into_the_widest_gaps():
    chain, asked, _ = traced(convex, budget=7)
    filled = sorted(request.target for request in asked if request.name.startswith("gap"))
    assert filled == pytest.approx([0.675, 0.825])  # next to .9 and .75, where loss rises most
    assert column(chain, "asked") == sorted(column(chain, "asked"))


def broken(request):
    """A front in two parts: nothing between .5 and .8."""
    t = max(request.target, ANCHOR)
    if t <= 0.5:
        return convex(request)
    t = max(t, 0.8)
    return cell(request, 1 + (t - 0.8) ** 2, t, 2 * (t - 0.8) if request.target > 0.8 else 0.0)


@pytest.mark.parametrize("warm", [True, False])
def test_a_gap_that_does_not_close_is_recorded_and_left(warm):
    chain, asked, _ = traced(broken, targets=[0.3, 0.4, 0.5, 0.85, 0.9], budget=14, warm=warm)
    gaps = [entry for entry in chain.entries if entry.status == "gap"]
    assert len(gaps) >= 1
    assert "no student was found between safety 0.5 and 0.8" in " ".join(entry.note for entry in gaps)
    assert sum(request.name.startswith("gap") and 0.5 < request.target < 0.8 for request in asked) <= 4
    assert len(asked) <= 14


# ---- the reverse pass, and who takes whose student ----------------------------------------------------------


def two_branches(request):
    """From the left runs stay on a branch that costs .5 more from .5 on; from the right they find the lower one."""
    found = convex(request)
    worse = request.target > 0.5 and request.name.startswith("target") and request.target < 0.8
    return replace(found, loss=found.loss + 0.5) if worse else found


def test_a_lower_branch_is_found_from_the_right():
    chain, asked, _ = traced(two_branches)
    assert [r.name.split("-")[0] for r in asked[5:]] == ["back", "back"]
    assert [e.cell.loss for e in chain.entries] == pytest.approx([(e.asked - ANCHOR) ** 2 for e in chain.entries])
    assert chain.entries[3].note.startswith(
        "begun from the right; from the left it ended converged at a loss of 0.7025"
    )
    assert chain.entries[3].steps == 20  # both runs


def test_without_a_better_run_a_dominated_row_takes_the_student_of_the_tighter_one():
    stuck = lambda r: convex(r) if r.target > 0.8 or r.name == "anchor" else cell(r, 2.0 + r.target, r.target)  # noqa: E731
    chain, _, _ = traced(stuck)
    assert column(chain, "status") == ["anchor", "taken", "taken", "taken", "converged"]
    assert {entry.cell.loss for entry in chain.entries[1:]} == {chain.entries[4].cell.loss}
    assert set(column(chain, "warm_from")[1:4]) == {0.9}
    assert (
        "the student of target 0.9 meets this one too, for less; its own run ended converged" in chain.entries[1].note
    )


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-0.05, 0.05)), min_size=8, max_size=8), st.integers(1, 14))
def test_whatever_runs_answer_the_front_is_monotone_and_every_target_has_a_row(drawn, budget):
    answers = iter(drawn * 4)

    def any_(request):
        loss, off = next(answers)
        return cell(request, loss, min(max(request.target, ANCHOR) + off, 1.0), 1.0)

    chain, asked, _ = traced(any_, targets=[0.4, 0.5, 0.6, 0.7], budget=budget)
    assert len(asked) <= budget
    assert {0.4, 0.5, 0.6, 0.7} <= set(column(chain, "asked")) or chain.entries[0].cell.safety > 0.4
    losses = [entry.cell.loss for entry in chain.entries if entry.meets]
    assert losses == sorted(losses)
    for looser, tighter in pairwise(chain.entries):
        assert looser.meets or not tighter.meets or tighter.asked == looser.asked


def test_the_unconstrained_row_takes_a_cheaper_student_too_and_stays_the_anchor():
    loose = lambda r: cell(r, 0.02, 0.3, 0.0) if r.name == "anchor" else convex(r)  # noqa: E731
    chain, _, _ = traced(loose, targets=[0.2, 0.25, 0.4])
    assert column(chain, "status") == ["anchor", "redundant", "converged"]
    assert [entry.cell.loss for entry in chain.entries] == pytest.approx([0.01] * 3)


# ---- weights ------------------------------------------------------------------------------------------------


def weighted(front):
    """What a fixed weight finds: the minimum of loss - mu safety over a table of (safety, loss)."""

    def solve(request):
        safety, loss = min(front, key=lambda point: point[1] - (request.weight or 0.0) * point[0])
        return cell(request, loss, safety, request.weight or 0.0)

    return solve


GRID = [0.3 + 0.6 * i / 600 for i in range(601)]


def test_weights_find_a_convex_front_evenly():
    chain, asked, _ = traced(weighted([(s, (s - 0.3) ** 2) for s in GRID]), WeightChain)
    safeties = sorted(entry.cell.safety for entry in chain.entries)
    assert set(column(chain, "status")) == {"anchor", "converged"}
    assert max(b - a for a, b in pairwise(safeties)) < 0.31
    for asked_for in (0.45, 0.6, 0.75, 0.9):
        assert min(abs(asked_for - s) for s in safeties) <= 0.6 / 8
    assert len(asked) <= 15
    for entry in chain.entries:
        assert entry.weight == pytest.approx(2 * (entry.cell.safety - 0.3), abs=2e-3) or entry.cell.safety > 0.8999


def test_weights_say_which_part_of_a_concave_front_they_cannot_reach():
    chain, asked, _ = traced(weighted([(s, math.sqrt(s - 0.3)) for s in GRID]), WeightChain)
    assert column(chain, "status")[0] == "anchor"
    reached = [entry for entry in chain.entries if entry.cell is not None]
    assert {round(entry.cell.safety, 9) for entry in reached} == {0.3, 0.9}
    lost = [entry for entry in chain.entries if entry.status == "unreachable"]
    assert [entry.asked for entry in lost] == pytest.approx([0.45, 0.6, 0.75])
    slope = math.sqrt(0.6) / 0.6
    assert f"out of reach of weights: below {slope:.6g} they lead to safety 0.3" in lost[0].note
    assert "method='epsilon' looks between them" in lost[0].note
    assert len(asked) <= 10


def test_a_safety_above_every_weight_is_unreachable_too():
    chain, _, _ = traced(weighted([(s, (s - 0.3) ** 2) for s in GRID if s <= 0.7]), WeightChain)
    last = chain.entries[-1]
    assert (last.status, last.asked) == ("unreachable", 0.9)
    assert "leads to safety 0.7" in last.note


@pytest.mark.parametrize("budget", [1, 2, 3, 6])
def test_weights_stop_at_the_budget_and_every_target_has_a_row(budget):
    chain, asked, _ = traced(weighted([(s, (s - 0.3) ** 2) for s in GRID]), WeightChain, budget=budget)
    assert len(asked) <= budget
    near = [e.cell.safety if e.cell is not None else e.asked for e in chain.entries]
    for target in (0.45, 0.6, 0.75, 0.9):
        assert min(abs(target - one) for one in near) <= 0.6 / 8 + 1e-9
