"""The benchmark's machinery: peers solve our problem, a wrong one is flagged, tables can be read.  No test of speed."""

from __future__ import annotations

import math
import os
import re
import time
from itertools import chain

import numpy as np
import pytest
import torch

from benchmarks._timing import ChildDied, PeakMemory, exponent, in_child, take_turns, time_calls
from benchmarks.projection._cases import CASES, case_of, random_order, solver_rows
from benchmarks.projection._cells import MODES, Cell, compare, measure_contender, measure_series
from benchmarks.projection._headline import Goal, Verdict, duel
from benchmarks.projection._peers import CONTENDERS, OURS, Contender, contender
from benchmarks.projection._report import agreement, as_csv, growth, headline, markdown, number, times_table

# jax starts threads, torchisotonic a compiler: they get a process of their own, or only run in the benchmark
ELSEWHERE = ("jaxopt", "torchisotonic")
HERE = [
    pytest.param(who, case, marks=[pytest.mark.slow] * (number > 0), id=f"{who.name}-{case}")
    for who in CONTENDERS
    if who.name not in ELSEWHERE
    for number, case in enumerate(who.cases)
]


def check_cells(cells: list[Cell], who: Contender) -> None:
    measured = [cell for cell in cells if not math.isnan(cell.seconds)]
    missing = [cell.note for cell in cells if cell.note.startswith(("not installed", "does not"))]
    if not measured:
        pytest.skip(f"{who.name}: {missing[0]}")
    assert all(cell.agrees for cell in measured), [(cell.mode, cell.difference) for cell in measured]
    assert all(cell.seconds > 0 and cell.repeats > 0 for cell in measured)


@pytest.mark.parametrize(("who", "case"), HERE)
def test_a_peer_answers_as_we_do(who, case):
    check_cells(list(measure_contender(who, case_of(case, 4), (3,), budget=0.01)), who)


@pytest.mark.slow
def test_a_peer_answers_as_we_do_in_a_process_of_its_own():
    cells = list(in_child(measure_series, "jaxopt", "bounds", (4,), (3,), 0.01, patience=60))
    check_cells(cells, contender("jaxopt"))


def wrong(shift: float, slope: float) -> Contender:
    """Ours, moved."""

    def build(case, v_BK, c_BK, with_gradient):
        w_BK, gradient_BK = contender(OURS).build(case, v_BK, c_BK, True)()
        w_BK, gradient_BK = w_BK.detach() + shift, gradient_BK + slope
        return lambda: (w_BK, gradient_BK) if with_gradient else w_BK

    return Contender("wrong", build, "", "1", ("chain",))


@pytest.mark.parametrize(
    ("shift", "slope", "agrees"),
    [
        (0.0, 0.0, [True, True]),
        (1e-6, 0.0, [False, False]),
        (0.0, 1e-3, [True, False]),
        (math.nan, 0.0, [False, False]),
    ],
)
def test_a_wrong_peer_is_flagged(shift, slope, agrees):
    cells = list(measure_contender(wrong(shift, slope), case_of("chain", 4), (5,), 0.01))
    assert [cell.agrees for cell in cells] == agrees
    assert ("!=" in times_table(cells)) == (agrees != [True, True])


def test_the_agreement_table_names_who_is_not_a_peer():
    cells = [Cell("chain", "Moreau direct", 4, 5, MODES[1], 1.0, 1, difference=0.1, gradient_difference=0.0)]
    assert "NOT A PEER" in agreement(cells)
    cells = [Cell("chain", "Moreau direct", 4, 5, MODES[1], 1.0, 1, difference=0.0, gradient_difference=math.nan)]
    assert "GRADIENTS DIFFER" in agreement(cells)


def test_a_wrong_answer_is_no_comparison_even_if_a_column_is_missing():
    case = case_of("chain", 4)
    v_BK, c_BK = case.scores(3)
    assert compare(contender("copy"), case, v_BK, c_BK, v_BK, False) == {}
    assert not compare(contender("Moreau direct"), case, v_BK, c_BK, np.zeros((3, 4)), False)["agrees"]


def test_a_missing_package_is_named_with_its_command():
    def build(case, v_BK, c_BK, with_gradient):
        import nobody_has_this  # noqa: F401

    absent = Contender("absent", build, "", "1", ("chain",), packages=("nobody_has_this",))
    (forward, backward) = measure_contender(absent, case_of("chain", 2), (1,), 0.01)
    assert forward.note == backward.note == "not installed: pip install nobody_has_this"


def test_a_cell_beyond_the_budget_is_skipped_with_its_estimate():
    def build(case, v_BK, c_BK, with_gradient):
        def call():
            time.sleep(2e-4 * len(v_BK))
            return v_BK

        return call

    slow = Contender("slow", build, "", "1", ("chain",), tolerance=None)
    cells = list(measure_contender(slow, case_of("chain", 2), (1, 10**6), 0.02))
    assert not math.isnan(cells[0].seconds)
    assert math.isnan(cells[1].seconds)
    said = re.fullmatch(r"skipped, about (\d+) s", cells[1].note)
    assert said, cells[1].note
    assert int(said[1]) >= 200  # a sleep lasts at least what is asked, and longer on a busy machine


@pytest.mark.parametrize("case_name", CASES)
def test_the_short_list_of_rules_leaves_the_same_polytope(case_name):
    """Points of the short list's polytope conform to the whole one, and the other way round."""
    case = case_of(case_name, 5)
    rows_MK, bounds_M = solver_rows(case.polytope)
    raw_BK = torch.from_numpy(np.random.default_rng(0).dirichlet(np.full(5, 4.0), 600))
    ordered_BK = torch.empty_like(raw_BK)
    ordered_BK[:, list(case.polytope.downward)] = raw_BK.sort(descending=True).values
    points_BK = torch.cat([raw_BK, ordered_BK])
    short_B = (points_BK.numpy() @ rows_MK.T <= bounds_M).all(axis=1)
    whole_B = np.array([case.polytope.check(w_K).holds(1e-12) for w_K in points_BK])
    assert (short_B == whole_B).all()
    assert short_B.any()
    assert not short_B.all()


def test_random_orders_have_no_redundant_pair():
    pairs = set(random_order(8, 0))
    assert pairs
    assert not any((i, k) in pairs and (j, k) in pairs and (i, j) in pairs for i, j in pairs for k in range(8))


def test_goals_are_judged_and_missed_ones_say_so():
    fast = Goal("peer / ours", "chain", 8, (4,), MODES[0], "ratio", "copy", 100.0)
    call = Goal("call", "chain", 4, (1,), MODES[0], "call", None, 50.0)
    words = [Verdict(fast, (99.0,)).word, Verdict(fast, (100.0, 300.0, 90.0)).word, Verdict(call, (51.0,)).word]
    assert words == ["MISSED", "met", "MISSED"]
    assert Verdict(call, ()).word == "not measured"
    text = headline([Verdict(fast, (100.0, 300.0, 90.0)), Verdict(call, (), "why")])
    assert ">= 100" in text
    assert "100 (90 to 300)" in text
    assert "not measured" in text


def test_rivals_take_turns_on_the_same_rows():
    B, timings, agree = duel([OURS, "copy"], case_of("chain", 4), (2, 10**9), MODES[1], 1e-6)
    assert (B, len(timings), agree) == (2, 2, True)
    assert timings[0].repeats == timings[1].repeats >= 3


def test_the_report_holds_every_part_and_no_line_breaks_its_table():
    cells = [
        Cell("chain", OURS, 8, 1000, MODES[0], 1e-3, 9, 1.0, 10**6, 0.0),
        Cell("chain", "Moreau direct", 8, 1000, MODES[0], 2e-2, 9, 1.0, None, 1e-15),
        Cell("chain", "Moreau direct", 8, 10**6, MODES[0], note="skipped, about 20 s"),
    ]
    text = markdown(cells, [], {"processor": "a | b"})
    assert "20 (20x)" in text
    assert "skipped, about 20 s" in text
    for block in text.split("\n\n"):
        widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1
    lines = as_csv(cells).splitlines()
    assert len(lines) == 4
    assert lines[2].endswith(",20.0,20.0")
    assert [number(x) for x in (0.0123, 1.5, 12345.6)] == ["0.0123", "1.5", "12,346"]


def test_growth_is_the_slope_of_the_logarithms():
    assert exponent([1, 10, 100], [3e-6, 3e-4, 3e-2]) == pytest.approx(2)
    assert exponent([5, 5], [1, 2]) is None
    cells = [Cell("chain", OURS, 8, B, MODES[0], 1e-8 * B) for B in (1, 1000, 10**6)]
    assert "1.00 (2)" in growth(cells)


def test_clocks_and_memory_measure_what_happens():
    asleep = time_calls(lambda: time.sleep(0.005), 0.1)
    assert 0.005 < asleep.seconds < 0.1
    assert asleep.cores < 0.5
    first, second = take_turns([lambda: time.sleep(0.004), lambda: time.sleep(0.001)], 0.05)
    assert first.seconds > second.seconds
    memory = PeakMemory()
    torch.ones(4_000_000, dtype=torch.float64).sum()
    found = memory.bytes()
    assert found is None or 30e6 < found < 100e6


def test_a_child_that_dies_leaves_its_results():
    seen = []
    with pytest.raises(ChildDied, match="TypeError: 'int' object is not iterable"):
        seen.extend(in_child(chain.from_iterable, ([1], 2), patience=60))
    assert seen == [1]


@pytest.mark.parametrize(("call", "says"), [(time.sleep, "no answer for 1 s"), (os._exit, "ended with code 60")])
def test_a_child_that_hangs_or_vanishes_is_reported(call, says):
    with pytest.raises(ChildDied, match=says):
        list(in_child(map, call, [60], patience=1 if call is time.sleep else 60))
