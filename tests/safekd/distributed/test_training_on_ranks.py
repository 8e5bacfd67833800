"""Runs on two gloo ranks against one process with the same global batches, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from ...support.rank_worker import run_on_ranks
from . import training_cases as cases

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def runs():
    """What two ranks gave, and one process."""
    functions = [cases.short_runs, cases.own_parts, cases.learned, cases.failures]
    short, parts, learned, failures = run_on_ranks(2, *functions, within=280)
    both = [{**short[r], **learned[r], **parts[r]} for r in range(2)]
    return both, cases.one_process(), failures


@pytest.fixture(scope="module")
def long_runs():
    """Likewise, of many steps."""
    (both,) = run_on_ranks(2, cases.long_runs, within=280)
    return both, cases.one_process_for_long()


@pytest.fixture
def compared(request, name):
    """One run: what each rank gave, and what one process did."""
    both, alone = request.getfixturevalue("long_runs" if name in cases.LONG else "runs")[:2]
    return *(given[name] for given in both), alone[name]


RUNS = [
    "ddp",
    "fsdp",
    "plain",
    "ddp in microbatches",
    "fsdp in microbatches",
    "ddp on full batches",
    "ddp on independent batches",
    "ddp clipped",
    "ddp beside a stream",
    "fsdp beside a stream",
    "own parts",
    "one stream",
    "streams of parts",
    "MetaTeacher",
    "PolicyGradient",
    "Tracking",
    *(pytest.param(name, marks=pytest.mark.slow) for name in cases.LONG),
]


def largest_difference(one, other):
    return max(0.0 if math.isnan(a) and math.isnan(b) else abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_give_what_one_process_gives(compared, name):
    here, _, there = compared
    assert list(here["trace"]) == list(there["trace"])
    for column, values in here["trace"].items():
        assert largest_difference(values, there["trace"][column]) < 1e-10, column
    for rule, multiplier in there["multipliers"].items():
        assert here["multipliers"][rule] == pytest.approx(multiplier, abs=1e-10)
    for students in ("state", "most_feasible"):
        assert list(here[students]) == list(there[students])  # names without those of a wrapper
        for parameter, value in there[students].items():
            assert torch.allclose(here[students][parameter], value, rtol=0, atol=1e-10), parameter
    assert here["status"] == there["status"]
    assert here["uses"] == there["uses"]


@pytest.mark.parametrize("name", RUNS)
def test_multipliers_and_all_that_was_read_are_the_same_bits_on_every_rank(compared, name):
    first, second, _ = compared
    assert first["multipliers"] == second["multipliers"]
    assert str(first["trace"]) == str(second["trace"])  # NaN is NaN
    for parameter, value in first["state"].items():
        assert torch.equal(second["state"][parameter], value)
    assert first["message"] == second["message"]


def test_a_number_that_is_none_on_one_rank_stops_both_with_the_reason(runs):
    _, _, failures = runs
    for given in failures:
        assert given["nan"][0] == "diverged"
        assert given["nan"][1].startswith("The student's output is not finite at step 1")


def test_a_teacher_that_fails_on_one_rank_ends_both_with_its_reason(runs):
    _, _, ((kind, text), (own_kind, own_text)) = *runs[:2], (given["teacher"] for given in runs[2])
    assert "the teacher's server is down" in own_text
    assert (kind, "Rank 1 of 2 stopped, and all others with it:" in text, own_text in text) == (
        "RankFailure",
        True,
        True,
    )
    assert own_kind != "RankFailure"


def test_parts_that_each_rank_has_alone_are_said_to_leave_proofs_out(runs):
    (first, _), alone, _ = runs
    assert "no process has all of them" in first["own parts"]["message"]
    assert "no process has all of them" not in alone["own parts"]["message"]
