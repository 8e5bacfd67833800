"""The promises of the projection benchmark, each measured with its rivals taking turns, and whether it is kept.

A missed promise is printed, never raised: times depend on the machine and on what else it does.
Axes: B rows, K teachers.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .._timing import ChildDied, Timing, in_child, take_turns
from ._cases import Case, case_of
from ._cells import MODES, compare, why_missing
from ._peers import OURS, contender


@dataclass(frozen=True)
class Goal:
    """One promise.

    value: "ratio" is rival / ours, at least ``goal``; "inverse" is ours / rival, at most; "call" is microseconds of one
    call of ours, at most.  sizes: B wanted last; smaller ones stand in where that would take too long.  seeds: one
    measurement each, the median counts.
    """

    what: str
    case: str
    K: int
    sizes: tuple[int, ...]
    mode: str
    value: str
    rival: str | None
    goal: float
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Verdict:
    """A goal with what was found.  values: one a seed.  note: what stood in the way, or what the reader must know."""

    goal: Goal
    values: tuple[float, ...]
    note: str = ""

    @property
    def measured(self) -> float:
        """The median, NaN if nothing was measured."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def word(self) -> str:
        """met, MISSED, or not measured."""
        if math.isnan(self.measured):
            return "not measured"
        met = self.measured >= self.goal.goal if self.goal.value == "ratio" else self.measured <= self.goal.goal
        return "met" if met else "MISSED"


def goals(quick: bool) -> list[Goal]:
    """Return the promises; quick ones are measured on fewer rows."""
    forward, both = MODES
    batch, million, dag = ((256,), (4096,), (64,)) if quick else ((1024, 16384), (100_000, 1_000_000), (256, 16384))
    seeds = (0,) if quick else (0, 1, 2)
    listed = []
    for mode in (forward, both):
        for rival, goal in (("Moreau direct", 100.0), ("cvxpylayers + Moreau", 500.0)):
            listed.append(Goal(f"{rival} / ours", "chain", 8, batch, mode, "ratio", rival, goal))
    listed.append(Goal("ours / copy", "chain", 8, million, forward, "inverse", "copy", 20.0))
    listed.append(Goal("one row from Python, us", "chain", 4, (1,), forward, "call", None, 50.0))
    listed.append(Goal("one row from Python, us", "chain", 4, (1,), both, "call", None, 150.0))
    for K in (8, 16):
        for mode in (forward, both):
            listed.append(Goal("Moreau direct / ours", "dag", K, dag, mode, "ratio", "Moreau direct", 10.0, seeds))
    return listed


def judge_all(quick: bool, budget: float) -> Iterator[Verdict]:
    """Measure each promise in a process of its own."""
    for goal in goals(quick):
        try:
            yield from in_child(judge, goal, budget, patience=60 + 40 * budget)
        except ChildDied as cause:
            yield Verdict(goal, (), str(cause))


def judge(goal: Goal, budget: float) -> Iterator[Verdict]:
    """Measure one promise."""
    values, notes = [], []
    for seed in goal.seeds:
        names = [OURS] if goal.rival is None else [OURS, goal.rival]
        try:
            B, timings, agree = duel(names, case_of(goal.case, goal.K, seed), goal.sizes, goal.mode, budget)
        except ImportError as cause:
            yield Verdict(goal, (), f"{goal.rival} {why_missing(contender(goal.rival or OURS), cause)}")
            return
        if goal.sizes[-1] != B:
            notes.append(f"B={B}, more rows would take too long")
        if agree:
            values.append(_value(goal, [timing.seconds for timing in timings]))
        else:
            notes.append("answers differ, so this is no comparison")
    yield Verdict(goal, tuple(values), "; ".join(dict.fromkeys(notes)))


def _value(goal: Goal, seconds: Sequence[float]) -> float:
    if goal.value == "call":
        return seconds[0] * 1e6
    return seconds[1] / seconds[0] if goal.value == "ratio" else seconds[0] / seconds[1]


def duel(
    names: Sequence[str], case: Case, sizes: Sequence[int], mode: str, budget: float
) -> tuple[int, list[Timing], bool]:
    """Time contenders in turns on the same rows; return how many rows, the timings, and whether all agree with ours.

    sizes: ascending; the largest at which one round is expected within a quarter of the budget is taken, the first
    in any case.
    """
    both = mode == MODES[1]
    for place, B in enumerate(sizes):
        v_BK, c_BK = case.scores(B)
        calls = [contender(name).build(case, v_BK, c_BK, both) for name in names]
        for call in calls:
            call()  # the first call compiles
        start = time.perf_counter()
        answers = [call() for call in calls]
        cost = time.perf_counter() - start
        if place + 1 == len(sizes) or cost * sizes[place + 1] / B > budget / 4:
            break
    verdicts = [
        compare(contender(name), case, v_BK, c_BK, answer, both) for name, answer in zip(names, answers, strict=True)
    ]
    return B, take_turns(calls, budget), all(verdict.get("agrees", True) for verdict in verdicts)
