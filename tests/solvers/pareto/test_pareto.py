"""Frontiers that are known: values, multipliers, gaps, cost, and what weights cannot reach."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import solvers
from solvers import minimize, trace_frontier
from solvers.errors import InvalidInput
from solvers.pareto import contradicts_neighbors
from tests.support.curves import ROOT, full, gauss, spread, square, t


def first(x):
    return x[0]


def zdt1(x):
    return spread(x) * (1 - (x[0] / spread(x)).sqrt())


def zdt2(x):
    return spread(x) * (1 - (x[0] / spread(x)) ** 2)


def zdt3(x):
    return spread(x) * (1 - (x[0] / spread(x)).sqrt() - x[0] / spread(x) * torch.sin(10 * torch.pi * x[0]))


def fonseca(e):
    return 1 - np.exp(-((2 - np.sqrt(-np.log(1 - e))) ** 2))


def discs(x):
    return torch.stack([(x[0] - 5) ** 2 + x[1] ** 2 - 25, 7.7 - (x[0] - 8) ** 2 - (x[1] + 3) ** 2])


def binh_and_korn(e):
    return np.where(e <= 72, 2 * (5 - np.sqrt(e / 8)) ** 2, 4 + (5 - np.sqrt((e - 36).clip(0) / 4)) ** 2)


def binh_and_korn_multiplier(e):
    near, far = np.sqrt(e.clip(1e-300) / 8), np.sqrt((e - 36).clip(1e-9) / 4)
    return np.where(e <= 72, (5 - near) / (4 * near), (5 - far) / (4 * far))


FRONTS = {
    # objective, constrained, x0, rows, bounds; objective at e, minus its derivative there, range of e
    "ZDT1": (
        zdt1, first, full(30, 0.5), None, (0.0, 1.0),
        lambda e: 1 - np.sqrt(e), lambda e: 0.5 / np.sqrt(e), (0.0, 1.0),
    ),
    "ZDT2": (zdt2, first, full(30, 0.5), None, (0.0, 1.0), lambda e: 1 - e**2, lambda e: 2 * e, (0.0, 1.0)),
    "Fonseca and Fleming": (
        lambda x: gauss(x, -ROOT), lambda x: gauss(x, ROOT), full(3, 0.0), None, (-4.0, 4.0),
        fonseca, lambda e: (fonseca(e - 1e-7) - fonseca(e + 1e-7)) / 2e-7, (0.0, 1 - np.exp(-4)),
    ),
    "Binh and Korn": (
        lambda x: square(x - 5), lambda x: 4 * square(x), t(1.0, 1.0), discs, (0.0, t(5.0, 3.0)),
        binh_and_korn, binh_and_korn_multiplier, (0.0, 136.0),
    ),
    "Schaffer": (
        lambda x: square(x - 2), square, t(5.0), None, None,
        lambda e: (2 - np.sqrt(e)) ** 2, lambda e: (2 - np.sqrt(e)) / np.sqrt(e), (0.0, 4.0),
    ),
}  # fmt: skip


def hypervolume(points_N2, reference):
    """Area between points and a reference, by strips."""
    points = points_N2[np.argsort(points_N2[:, 0])]
    edges = np.append(points[1:, 0], reference[0])
    heights = reference[1] - np.minimum.accumulate(points[:, 1])
    return float(((edges - points[:, 0]) * heights).sum())


@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("given", [False, True])
def test_known_fronts_at_defaults(name, given):
    objective, constrained, x0, rows, bounds, exact, multiplier, ends = FRONTS[name]
    levels = np.linspace(*ends, 21)
    f = trace_frontier(
        objective, constrained, x0, inequality=rows, bounds=bounds, **({"targets": levels[::-1]} if given else {})
    )
    table = f.table
    assert table["target"].to_numpy() == pytest.approx(levels, abs=1e-6 * ends[1])
    values = exact(levels)
    width = np.ptp(values)
    assert np.abs(table["objective"] - values).max() <= 1e-6 * width
    assert table["violation"].max() <= 1e-6 * width
    with np.errstate(divide="ignore"):
        multipliers = multiplier(levels[1:-1])
    assert table["multiplier"].to_numpy()[1:-1] == pytest.approx(multipliers, rel=1e-5)
    vertical = name != "ZDT2"
    assert table["multiplier"].iloc[0] == (np.inf if vertical else pytest.approx(0, abs=1e-6))
    last = {"ZDT1": 0.5, "ZDT2": 2.0}.get(name, 0.0)  # from the left: beyond the end the row is slack
    assert table["multiplier"].iloc[-1] == pytest.approx(last, abs=1e-4)
    assert set(table["status"]) <= {"converged", "anchor", "redundant"}
    assert table["nondominated"].all()
    assert table["feasible"].all()
    assert not table["multiplier_contradicted"].any()
    assert not table["filled"].any()
    assert f.gaps == []
    reference = levels[-1] * 1.1, values.max() + 0.1 * width
    exact_volume = hypervolume(np.column_stack([levels, values]), reference)
    assert hypervolume(f.points, reference) >= 0.9999 * exact_volume
    for x, row in zip(f.solutions, table.itertuples(), strict=True):
        assert float(objective(x)) == row.objective
        assert float(constrained(x)) == row.constrained


def test_hypervolumes_are_the_published_ones():
    levels = np.linspace(0, 1, 21)
    for values, volume in ((1 - np.sqrt(levels), 0.63945), (1 - levels**2, 0.30875)):
        assert hypervolume(np.column_stack([levels, values]), (1.0, 1.0)) == pytest.approx(volume, abs=1e-5)


SLOW = {"ZDT1", "Fonseca and Fleming"}  # cold runs at the steep ends take thousands of gradients


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in FRONTS])
def test_sixteen_points_by_warm_starts_cost_at_most_half_of_cold_runs_to_the_same_residuals(name):
    objective, constrained, x0, rows, bounds, *_ = FRONTS[name]
    f = trace_frontier(objective, constrained, x0, inequality=rows, bounds=bounds, targets=16, starts=1)
    inner = f.table.iloc[1:-1]
    assert (inner["status"] == "converged").all()
    cold = 0
    for row in f.table.itertuples():

        def held(x, e=row.target):
            besides = [] if rows is None else [rows(x)]
            return torch.cat([(constrained(x) - e).reshape(1), *besides])

        alone = minimize(objective, x0, inequality=held, bounds=bounds)
        cold += alone.evaluations
        if alone.status == "converged" and row.status == "converged":
            assert row.kkt_stationarity <= max(1e-9, alone.residuals.stationarity)
    # where a cold run costs next to nothing as well, a point of a frontier costs no more than seven evaluations
    assert f.evaluations <= max(0.5 * cold, 7 * len(f.table))


def test_weights_find_the_ends_of_a_concave_frontier_and_say_that_the_rest_is_out_of_reach():
    f = trace_frontier(zdt2, first, full(30, 0.5), method="mu", bounds=(0.0, 1.0))
    assert f.points.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert f.table["status"].tolist() == ["anchor", "unreachable", "anchor"]
    assert "From 0 to 1 of constrained (objective 1 to 0) is out of reach of any weight" in f.message
    assert "use method='epsilon'" in f.message
    assert [gap.left for gap in f.gaps] == [(0.0, 1.0)]


def test_weights_trace_a_convex_frontier_with_as_many_points_as_asked():
    f = trace_frontier(lambda x: square(x - 2), square, t(5.0), method="mu", targets=11)
    assert len(f.points) == 11
    assert f.gaps == []
    c, objective = f.points.T
    assert objective == pytest.approx((2 - np.sqrt(c)) ** 2, abs=1e-9)
    inner = f.table.iloc[1:-1]
    assert inner["multiplier"].to_numpy() == pytest.approx((2 - np.sqrt(c[1:-1])) / np.sqrt(c[1:-1]), rel=1e-5)
    assert not f.table["multiplier_contradicted"].any()


def test_weights_given_by_hand_are_all_answered_and_their_jumps_are_looked_into():
    f = trace_frontier(zdt2, first, full(30, 0.5), method="mu", targets=[2.0, 0.5, 1.5], bounds=(0.0, 1.0))
    assert sorted(f.table["mu"].tolist()) == [0.0, 0.5, 1.0, 1.5, 2.0, np.inf]
    assert len(f.points) == 2
    assert "out of reach of any weight" in f.message


def test_a_frontier_in_pieces_is_found_whole_and_its_gaps_are_named():
    f = trace_frontier(zdt3, first, full(4, 0.5), bounds=(0.0, 1.0))
    grid = np.linspace(1e-9, 1, 200001)
    least = np.minimum.accumulate(1 - np.sqrt(grid) - grid * np.sin(10 * np.pi * grid))
    exact = np.interp(f.table["target"], grid, least)
    assert f.table["objective"].to_numpy() == pytest.approx(exact, abs=2e-4)
    pieces = [(0.0830, 0.1822), (0.2578, 0.4093), (0.4539, 0.6184), (0.6525, 0.8233)]  # Deb's test function, 1999
    found = sorted((gap.left[0], gap.right[0]) for gap in f.gaps)
    assert np.array(found) == pytest.approx(np.array(pieces), abs=1.5e-3)
    assert "the objective does not fall in between" in f.message
    asked = f.table[~f.table["filled"]]
    assert len(asked) == 21
    assert (asked["status"] == "redundant").sum() >= 8


def test_a_step_in_the_frontier_is_a_gap_between_levels_of_the_objective():
    def stair(x):  # two bowls: the lower one can be had from x = 2 on
        return torch.where(x < 2, 3 + (x - 1) ** 2, (x - 3) ** 2).sum()

    f = trace_frontier(stair, lambda x: x.sum(), t(2.5), targets=9, bounds=(1.0, 4.0))
    below = f.table["target"] < 2
    exact = np.where(below, 3.0, (f.table["target"] - 3).clip(upper=0) ** 2)
    assert f.table["objective"].to_numpy() == pytest.approx(exact, abs=2e-2)
    assert len(f.gaps) == 1
    assert f.gaps[0].left == pytest.approx((1.0, 3.0), abs=1e-6)


LINES = {
    # rows (each <= 0), objective at e: the objective is the second variable
    "one line": (lambda x: (1 - x[0] - 0.5 * x[1]).reshape(1), lambda e: 2 - 2 * e, lambda e: 2 + 0 * e),
    "a kink": (
        lambda x: torch.stack([1 - 3 * x[0] - x[1], 0.4 - 0.4 * x[0] - x[1]]),
        lambda e: np.maximum(1 - 3 * e, 0.4 - 0.4 * e), lambda e: np.where(e < 0.6 / 2.6, 3.0, 0.4),
    ),
    "a kink the other way": (
        lambda x: torch.minimum(1 - 0.2 * x[0] - x[1], 1.6 - 1.6 * x[0] - x[1]).reshape(1),
        lambda e: np.minimum(1 - 0.2 * e, 1.6 - 1.6 * e), lambda e: np.where(e < 0.6 / 1.4, 0.2, 1.6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_straight_frontiers_and_kinks(name):
    rows, exact, multiplier = LINES[name]
    f = trace_frontier(lambda x: x[1], first, t(0.9, 0.9), inequality=rows, bounds=(0.0, t(0.9, 9.0)), targets=12)
    e = f.table["target"].to_numpy()
    assert f.table["objective"].to_numpy() == pytest.approx(exact(e), abs=1e-7)
    assert f.table["multiplier"].to_numpy() == pytest.approx(multiplier(e), rel=1e-5)
    assert not f.table["multiplier_contradicted"].any()
    assert f.gaps == []
    by_weights = trace_frontier(
        lambda x: x[1], first, t(0.9, 0.9), inequality=rows, bounds=(0.0, t(0.9, 9.0)), method="mu"
    )
    assert "concave, straight or missing" in by_weights.message


def test_ends_are_lexicographic_where_many_points_are_best():
    """The objective is 0 wherever x0 >= 1, and the constrained value 0 wherever x0 = 0: the ends are (1, 0), (0, 2)."""
    for start in (t(4.0, 3.0), t(0.2, 5.0)):
        f = trace_frontier(
            lambda x: x[1], first, start, inequality=lambda x: (1 - x[0] - 0.5 * x[1]).reshape(1), bounds=(0.0, 5.0)
        )
        assert f.points[0].tolist() == pytest.approx([0.0, 2.0], abs=1e-6)
        assert f.points[-1].tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
        assert f.table["objective"].to_numpy() == pytest.approx(2 - 2 * f.table["target"].to_numpy(), abs=1e-6)


def test_one_point_that_is_best_in_both_is_the_frontier():
    for objective, constrained in (
        (square, lambda x: (x**4).sum() + 3),
        (lambda x: square(x - 1), lambda x: 0 * x.sum() + 3),
        (lambda x: 0 * x.sum() + 3, lambda x: square(x - 1)),
    ):
        f = trace_frontier(objective, constrained, t(0.9, 0.5))
        assert len(f.table) == 1
        assert "the frontier is that point" in f.message
        assert f.table["status"].tolist() == ["anchor"]


def deceptive(x):
    valleys = 1 + 10 * (len(x) - 1) + (x[1:] ** 2 - 10 * torch.cos(4 * torch.pi * x[1:])).sum()
    return valleys * (1 - (x[0] / valleys).sqrt())


def test_local_minima_are_left_by_other_starts_and_the_better_answer_spreads():
    f = trace_frontier(deceptive, first, t(0.5, 1.7), bounds=(t(0, -2), t(1, 2)), starts=8, targets=11)
    assert f.table["objective"].to_numpy() == pytest.approx(1 - np.sqrt(f.table["target"]), abs=1e-6)
    assert "Several local minima were seen" in f.message
    alone = minimize(deceptive, t(0.5, 1.7), bounds=(t(0, -2), t(1, 2)))
    assert alone.status == "converged"
    assert alone.objective > 0.5


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_starts_where_a_root_has_no_gradient_are_moved_inwards(value):
    f = trace_frontier(zdt1, first, full(30, value), bounds=(0.0, 1.0), targets=6)
    assert f.table["objective"].to_numpy() == pytest.approx(1 - np.sqrt(f.table["target"]), abs=1e-6)


def test_units_and_precision_do_not_matter():
    plain = trace_frontier(lambda x: square(x - 2), square, t(5.0), targets=7).table
    scaled = trace_frontier(lambda x: 1000 * square(x - 2), lambda x: 1e-3 * square(x), t(5.0), targets=7).table
    assert scaled["objective"].to_numpy() == pytest.approx(1000 * plain["objective"].to_numpy(), abs=1e-5)
    assert scaled["multiplier"].to_numpy() == pytest.approx(1e6 * plain["multiplier"].to_numpy(), rel=1e-5, abs=1.0)
    mixed = torch.ones(3, 2) / 3  # float32: a product with float64 is refused
    f = trace_frontier(lambda x: square(x @ mixed - 1), square, torch.full((2, 3), 0.3), targets=5)
    assert f.solutions[2].dtype == torch.float32
    assert f.solutions[2].shape == (2, 3)
    e = f.table["target"].to_numpy()
    assert f.table["objective"].to_numpy() == pytest.approx((2 - np.sqrt(e * 2 / 3)) ** 2, abs=1e-4)


def test_equalities_and_a_start_that_meets_nothing():
    rows = lambda x: (x.sum() - 1).reshape(1)  # noqa: E731
    centre, other = t(1, 2, 0), t(-1, 0, -1)
    f = trace_frontier(
        lambda x: square(x - centre), lambda x: square(x - other), t(50, 5, -5), equality=rows, targets=6
    )
    points = [x - (x.sum() - 1) / 3 for x in (centre, other)]  # both on the plane: the frontier is the line between
    miss = [float(square(p - x)) for p, x in zip(points, (centre, other), strict=True)]
    apart = float((points[0] - points[1]).norm())
    e = f.table["target"].to_numpy()
    assert f.table["objective"].to_numpy() == pytest.approx(
        miss[0] + (apart - np.sqrt((e - miss[1]).clip(0))) ** 2, abs=1e-6
    )


def test_targets_out_of_range_repeated_and_unsorted_keep_their_rows():
    f = trace_frontier(zdt2, first, full(5, 0.5), targets=[0.5, -0.5, 1.5, 0.5, 0.25], bounds=(0.0, 1.0))
    table = f.table
    assert table["target"].tolist() == [-0.5, 0.25, 0.5, 0.5, 1.5]
    assert table["status"].tolist() == ["infeasible", "converged", "converged", "converged", "redundant"]
    assert table["duplicate"].tolist() == [False, False, False, True, False]
    assert table["feasible"].tolist() == [False, True, True, True, True]
    assert table["violation"].iloc[0] == pytest.approx(0.5)
    assert table["multiplier"].iloc[-1] == 0.0
    assert "`constrained` gets no lower than 0, by 0.5 more than this target" in table["message"].iloc[0]
    assert table["objective"].iloc[-1] == pytest.approx(0.0, abs=1e-9)


def test_the_budget_ends_the_run_and_every_target_keeps_a_row():
    for budget in (4, 9, 30):
        f = trace_frontier(zdt2, first, full(30, 0.5), bounds=(0.0, 1.0), targets=21, budget=budget, starts=1)
        assert f.solves <= budget
        assert len(f.table[~f.table["filled"]]) == 21
        assert (f.table["status"] == "not_solved").sum() == max(0, 21 + 2 - 2 - budget)
    assert f.table["filled"].any()  # what targets left over went into the widest gaps
    assert f.table["objective"].to_numpy() == pytest.approx(1 - f.table["target"] ** 2, abs=1e-8)


def test_rows_are_told_as_they_land_and_the_table_goes_to_a_file_and_back(tmp_path):
    seen = []
    f = trace_frontier(lambda x: square(x - 2), square, t(5.0), targets=5, on_point=seen.append)
    assert sorted(row["target"] for row in seen) == f.table["target"].tolist()
    f.to_csv(tmp_path / "front.csv")
    again = pd.read_csv(tmp_path / "front.csv")
    assert again["objective"].tolist() == f.table["objective"].tolist()


def test_no_multiplier_of_a_trace_is_wrong_and_the_judge_can_say_no():
    table = trace_frontier(zdt2, first, full(30, 0.5), bounds=(0.0, 1.0)).table
    wrong = table["multiplier"].to_numpy().copy()
    wrong[7] /= 2
    assert contradicts_neighbors(table["constrained"], table["objective"], wrong).nonzero()[0].tolist() == [7]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": []}, "`targets` is empty"),
        ({"targets": 1}, "`targets` is 1; wanted at least 2"),
        ({"targets": [0.1, float("nan")]}, r"`targets\[1\]` is nan; wanted a finite number"),
        ({"targets": [0.1, "a"]}, r"`targets\[1\]` is 'a'"),
        ({"targets": [0.1, None]}, r"`targets\[1\]` is None; wanted a number"),
        ({"targets": "abc"}, "`targets` is 'abc'"),
        ({"targets": t(0.5)[0]}, "`targets` is 0.5; wanted how many, or a sequence of numbers"),
        (
            {"inequality": lambda x: torch.ones(2, 2)},
            r"`inequality` gave \(2, 2\); wanted a tensor of one row of values",
        ),
        ({"targets": 2.5}, "`targets` is 2.5"),
        ({"method": "grid"}, "`method` is 'grid'; wanted 'epsilon'"),
        ({"method": "mu", "targets": [-1.0, 1.0]}, "weights; found -1"),
        ({"budget": 2}, "`budget` is 2; the two ends alone"),
        ({"starts": 0}, "`starts` is 0"),
        ({"tolerance": float("nan")}, "`tolerance` is nan"),
        ({"x0": [1.0]}, "`x0` is list"),
        ({"x0": t(float("nan"))}, "`x0` has entries that are not finite"),
        ({"constrained": lambda x: x}, r"`constrained` gave \(2,\); wanted a tensor with one number"),
        ({"constrained": lambda x: 1.0}, "`constrained` gave float"),
        ({"objective": lambda x: -x.sum()}, "no end of the frontier where `objective` alone is least"),
        ({"constrained": lambda x: x.sum()}, "no end of the frontier where `constrained` alone is least"),
        ({"inequality": lambda x: torch.stack([1 - x[0], x[0] + 1])}, "no point met the rows and bounds"),
    ],
)
def test_bad_input_is_named(change, message):
    given = {"objective": lambda x: square(x - 2), "constrained": square, "x0": t(1.0, 1.0)} | change
    with pytest.raises(InvalidInput, match=message):
        trace_frontier(given.pop("objective"), given.pop("constrained"), given.pop("x0"), **given)


def test_the_names_are_at_the_door():
    assert solvers.trace_frontier is trace_frontier
    assert solvers.ParetoFrontier.__name__ == "ParetoFrontier"
