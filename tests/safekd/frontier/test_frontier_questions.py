"""What a frontier answers: marks of its rows, the best and the cheapest, indicators, attainment, words."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from torch import nn

import safekd as kd
from safekd.frontier.table import annotate_rows
from tests.support.frontiers import CURVE, frontier, held, stacked

# ---- marks --------------------------------------------------------------------------------------------------


def test_nondominated_with_ties_and_infeasible_rows():
    points = [(0.1, 0.5), (0.1, 0.5), (0.1, 0.6), (0.2, 0.6), (0.05, 0.9), (0.3, 0.7), (math.nan, 0.99)]
    made = frontier(points, feasible=[True, True, True, True, False, True, True])
    assert made.table["nondominated"].tolist() == [False, False, True, False, False, True, False]
    twins = frontier([(0.1, 0.5), (0.1, 0.5)])
    assert twins.table["nondominated"].tolist() == [True, False]  # of equals the first
    assert twins.table["duplicate"].tolist() == [False, True]
    assert twins.nondominated().index.tolist() == [0]


@pytest.mark.parametrize("status", ["redundant", "taken"])
def test_of_equal_rows_the_one_that_was_solved_counts(status):
    made = frontier([(0.1, 0.5), (0.1, 0.5), (0.2, 0.6)], status=[status, "anchor", "converged"])
    assert made.choose(0.5).index == 1
    assert made.table["nondominated"].tolist() == [False, True, True]
    assert made.table["duplicate"].tolist() == [True, False, False]


@pytest.mark.parametrize("seed", range(4))
def test_nondominated_against_the_definition(seed):
    draw = np.random.default_rng(seed)
    points, feasible = draw.integers(0, 6, size=(25, 2)) / 5, draw.uniform(size=25) < 0.7
    chosen = frontier(points, feasible=feasible).nondominated()[["distillation_loss", "safety_a"]].to_numpy()
    allowed = {tuple(p) for p in points[feasible]}
    best = {(x, y) for x, y in allowed if not any((u <= x and v >= y) and (u, v) != (x, y) for u, v in allowed)}
    assert sorted(map(tuple, chosen)) == sorted(best)


def test_a_point_again_is_a_duplicate_to_a_millionth_of_the_range():
    points = [(0.0, 0.0), (1e-7, 2e-7), (0.5, 0.5), (0.5 + 3e-6, 0.5), (1.0, 1.0), (math.nan, 0.5)]
    assert frontier(points).table["duplicate"].tolist() == [False, True, False, False, False, False]
    assert frontier(np.array(points) * 1e-9).table["duplicate"].tolist() == [False, True, False, False, False, False]


def test_each_seed_and_each_set_of_held_thresholds_has_a_frontier_of_its_own():
    cheap, dear = CURVE, [(loss + 0.1, safety) for loss, safety in CURVE]
    for other in (held(dear, 0.9), held(dear, 0.8, seed=4)):
        made = stacked(held(cheap, 0.8), other)
        assert made.table["nondominated"].all()
        assert not made.table["duplicate"].any()
        assert [len(part.table) for part in made.slices()] == [4, 4]
    same = stacked(held(cheap, 0.8), held(dear, 0.8))
    assert same.table["nondominated"].tolist() == [True] * 4 + [False] * 4


def with_multipliers(factor=1.0, n=21):
    """Loss s^2 has multiplier 2 s."""
    safety = np.linspace(0.1, 0.9, n)
    multiplier = 2 * safety
    multiplier[n // 2] *= factor
    return frontier(np.stack([safety**2, safety], 1), lambda_a=multiplier)


@pytest.mark.parametrize(("factor", "wrong"), [(1.0, 0), (0.5, 1), (2.0, 1), (0.0, 1), (-1.0, 1)])
def test_a_multiplier_that_contradicts_its_neighbors_is_annotated(factor, wrong):
    assert with_multipliers(factor).table["multiplier_contradicted"].sum() == wrong


def test_multipliers_of_other_rows_are_not_judged():
    made = with_multipliers(0.5).table
    made.loc[10, "feasible"] = False
    assert not annotate_rows(made, "a")["multiplier_contradicted"].any()
    made.loc[10, ["feasible", "distillation_loss"]] = [True, 0.5]  # dominated
    assert not annotate_rows(made, "a")["multiplier_contradicted"].any()


# ---- the best, the cheapest, the knee -----------------------------------------------------------------------


def test_three_objectives_against_the_definition():
    draw = np.random.default_rng(0)

    def points(threshold):
        safety = draw.integers(0, 9, 12) / 8
        return np.stack([np.round(safety**2 + threshold + draw.uniform(-0.2, 0.2, 12), 1), safety], 1)

    made = stacked(*(held(points(threshold), threshold) for threshold in (0.5, 0.7, 0.9)))
    rows = made.table[["distillation_loss", "safety_a", "safety_night"]].to_numpy()
    keep = []
    for n, (loss, a, night) in enumerate(rows):
        as_good = (rows[:, 0] <= loss) & (rows[:, 1] >= a) & (rows[:, 2] >= night)
        twin = (rows == rows[n]).all(axis=1)
        keep.append(not (as_good & ~twin).any() and not twin[:n].any())
    found = made.nondominated(over=["a", "night"])
    assert found.index.tolist() == np.flatnonzero(keep).tolist()
    assert 3 < len(found) < len(rows)
    assert made.nondominated("a").index.tolist() == made.nondominated(["a"]).index.tolist()
    assert len(made.nondominated("a")) < len(made.nondominated())  # the slices together, and each by itself


def test_at_is_the_cheapest_that_is_safe_enough():
    students = {n: nn.Linear(1, 1) for n in range(4)}
    made = frontier([(0.1, 0.5), (0.35, 0.75), (0.3, 0.8), (0.7, 0.9)], students=students)
    point = made.choose(safety=0.75)
    assert (point.index, point.loss, point.safety, point["status"]) == (2, 0.3, 0.8, "converged")
    assert point.student is students[2]
    assert point.multiplier == made.table["lambda_a"][2]
    assert made.choose(0.9).index == 3
    assert made.choose(-1.0).index == 0
    assert "row 2: loss 0.3 nats, safety a 0.8, multiplier" in str(point)
    assert str(point) in repr(point)


def test_at_credits_what_was_asked_of_a_feasible_row():
    made = frontier(CURVE, target=[0.5, 0.7, 0.8 + 1e-7, 0.9])
    assert made.choose(0.8 + 1e-7).index == 2
    assert made.choose(0.8 + 2e-7).index == 3
    made = frontier(CURVE, target=[0.5, 0.7, 0.85, 0.9], feasible=[True, True, False, True])
    assert made.choose(0.8).index == 3  # asked for 0.85, but infeasible


def test_at_with_other_constraints():
    made = stacked(held(CURVE, 0.8), held([(loss + 0.1, s) for loss, s in CURVE], 0.9))
    assert made.choose(0.7).index == 1
    assert made.choose(0.7, also={"night": 0.85}).index == 5
    with pytest.raises(
        kd.InvalidInput, match=r"reaches a 0.7 and night 0.95: the highest are night 0.91, each by itself"
    ):
        made.choose(0.7, also={"night": 0.95})
    with pytest.raises(kd.InvalidInput, match=r"There is no constraint 'day' in this frontier; it has a, night"):
        made.choose(0.7, also={"day": 0.95})


def test_a_safety_out_of_reach_names_the_highest():
    with pytest.raises(kd.InvalidInput, match=r"reaches a 0.97: the highest is a 0.9. Ask for at most that, or trace"):
        frontier(CURVE).choose(0.97)
    with pytest.raises(kd.InvalidInput, match=r"reaches a 0.5: none of the 4 rows is feasible. Trace lower targets"):
        frontier(CURVE, feasible=False).choose(0.5)
    with pytest.raises(kd.InvalidInput, match=r"`safety` is nan; wanted a finite number"):
        frontier(CURVE).choose(math.nan)


def test_a_student_that_is_not_kept_is_told_when_asked_for():
    point = frontier(CURVE).choose(0.8)
    with pytest.raises(kd.InvalidInput, match=r"No student is kept for row 2 \(target 0.8\): a CSV holds numbers only"):
        _ = point.student


def test_slices_keep_their_students_and_load_none():
    class Lazy(dict):
        def __getitem__(self, row):
            loaded.append(row)
            return super().__getitem__(row)

    loaded: list[int] = []
    both = stacked(held(CURVE, 0.8), held(CURVE, 0.9))
    made = kd.Frontier(both.table, "a", both.meta, Lazy({5: "five", 7: "seven"}))
    first, second = made.slices()
    assert loaded == []
    assert (len(first.students), dict(second.students)) == (0, {1: "five", 3: "seven"})
    assert second.choose(0.9).student == "seven"
    assert second.table.index.tolist() == [0, 1, 2, 3]


def test_the_knee_is_a_row():
    assert frontier(CURVE).knee().index == 2
    scaled = (np.array(CURVE) - [0.1, 0.5]) / [0.6, 0.4]
    assert np.argmax(scaled[:, 1] - scaled[:, 0]) == 2  # farthest above the diagonal
    with pytest.raises(kd.InvalidInput, match=r"has no knee: 2 nondominated points, none of them below the chord"):
        frontier(CURVE[:2]).knee()
    with pytest.raises(kd.InvalidInput, match="has no knee: 0 nondominated points"):
        frontier(CURVE, feasible=False).knee()


# ---- indicators ---------------------------------------------------------------------------------------------


def test_hypervolume_by_hand():
    """Two boxes: (1 - .2)(.5 - 0) and (1 - .6)(.9 - .5)."""
    assert frontier([(0.2, 0.5), (0.6, 0.9)]).hypervolume((1.0, 0.0)) == pytest.approx(0.8 * 0.5 + 0.4 * 0.4)


@pytest.mark.parametrize("seed", range(4))
def test_hypervolume_against_a_grid(seed):
    draw = np.random.default_rng(seed)
    points = np.round(draw.uniform(size=(12, 2)), 2)  # ties included
    reference = (0.8, 0.15)
    loss, safety = (np.arange(200) + 0.5) / 200, (np.arange(200) + 0.5) / 200
    inside = (loss[:, None] < reference[0]) & (safety[None, :] > reference[1])
    covered = np.zeros_like(inside)
    for x, y in points:
        covered |= (loss[:, None] >= x) & (safety[None, :] <= y)
    brute = (covered & inside).mean()
    found = frontier(points).hypervolume(reference)
    assert found == pytest.approx(brute, abs=1e-9)  # 0.01 is two cells, so the grid is exact
    assert found > 0


def test_points_outside_the_corner_and_infeasible_ones_add_nothing():
    inside = frontier([(0.2, 0.5)]).hypervolume((1.0, 0.0))
    assert frontier([(0.2, 0.5), (1.5, 0.9), (0.1, -0.2)]).hypervolume((1.0, 0.0)) == inside
    assert frontier([(0.2, 0.5), (0.1, 0.9)], feasible=[True, False]).hypervolume((1.0, 0.0)) == inside
    assert frontier([(0.2, 0.5), (math.nan, 0.9)]).hypervolume((1.0, 0.0)) == inside
    assert frontier(CURVE, feasible=False).hypervolume((1.0, 0.0)) == 0.0
    assert frontier(CURVE, feasible=False).hypervolume() == 0.0


def test_hypervolume_over_three_objectives_by_hand():
    """(1 - .2)(.5)(.81) and (1 - .6)(.9)(.91), less what both cover: (1 - .6)(.5)(.81)."""
    made = stacked(held([(0.2, 0.5)], 0.8), held([(0.6, 0.9)], 0.9))
    found = made.hypervolume((1.0, 0.0, 0.0), over=["a", "night"])
    assert found == pytest.approx(0.8 * 0.5 * 0.81 + 0.4 * 0.9 * 0.91 - 0.4 * 0.5 * 0.81)
    assert made.hypervolume(over=["a", "night"]) > 0


def test_without_a_reference_it_lies_a_tenth_of_the_range_behind_the_worst_points():
    made = frontier([*CURVE, (5.0, 0.6)])  # the last is dominated and moves nothing
    assert made.reference == pytest.approx((0.7 + 0.06, 0.5 - 0.04))
    assert made.hypervolume() == made.hypervolume(made.reference)
    noted = frontier(CURVE, meta={"reference": [1.0, 0.0]})
    assert noted.reference == (1.0, 0.0)
    assert noted.hypervolume() == frontier(CURVE).hypervolume((1.0, 0.0))
    assert frontier(CURVE[:1]).hypervolume() > 0  # a single point has no range
    assert frontier([(0.0, 0.0)]).hypervolume() > 0
    with pytest.raises(kd.InvalidInput, match="No row is feasible, so there is no corner behind the points"):
        _ = frontier(CURVE, feasible=False).reference


@pytest.mark.parametrize("reference", [(0.05, 0.0), (1.0, 0.95), (0.0, 1.0), (0.1, 0.0), (1.0, 0.9), (0.15, 0.85)])
def test_a_corner_that_no_point_beats_is_refused_with_a_better_one(reference):
    with pytest.raises(kd.InvalidInput, match="no point is better in every objective") as caught:
        frontier(CURVE).hypervolume(reference)
    assert str(reference) in str(caught.value)
    assert "the best of (loss, a) are (0.1, 0.9)" in str(caught.value)
    assert "choose for example (0.76, 0.46)" in str(caught.value)
    assert frontier(CURVE).hypervolume((0.76, 0.46)) > 0


@pytest.mark.parametrize("reference", [(math.nan, 0.0), (1.0, math.inf), (1.0,), 1.0, (1.0, 0.0, 0.0), ("a", "b")])
def test_a_corner_that_is_none_is_refused(reference):
    with pytest.raises(kd.InvalidInput, match=r"`reference` is .*wanted two finite numbers \(loss, safety\)"):
        frontier(CURVE).hypervolume(reference)


def test_distances_by_hand():
    made, exact = frontier([(0.2, 0.5), (0.6, 0.9)]), [(0.1, 0.5), (0.6, 1.0)]
    assert made.igd_plus(exact) == pytest.approx(0.1)
    assert made.additive_epsilon(exact) == pytest.approx(0.1)
    assert made.igd_plus([(0.7, 0.4)]) == 0
    assert made.additive_epsilon([(0.7, 0.4)]) == pytest.approx(-0.1)  # (0.2, 0.5) is better by 0.5 and by 0.1
    other = frontier([*exact, (0.9, 0.2)])  # of a frontier only what is not dominated counts
    assert made.igd_plus(other) == made.igd_plus(exact)
    assert made.additive_epsilon(other) == made.additive_epsilon(exact)
    assert frontier(CURVE, feasible=False).igd_plus(exact) == math.inf
    with pytest.raises(kd.InvalidInput, match=r"`exact` has shape \(2,\); wanted points \(loss, safety\)"):
        made.igd_plus((0.1, 0.5))


# ---- attainment ---------------------------------------------------------------------------------------------


def test_attainment_against_the_definition():
    draw = np.random.default_rng(1)
    runs = [frontier(draw.integers(0, 9, (6, 2)) / 8).table.assign(seed=seed) for seed in range(5)]
    made = kd.Frontier(pd.concat(runs, ignore_index=True), "a")
    at, shares = [0.0, 0.4, 0.75, 1.0], [0.2, 0.5, 1.0]
    found = made.attainment(at=at, shares=shares)
    for safety, share in itertools.product(at, shares):
        best = sorted(run.loc[run["safety_a"] >= safety, "distillation_loss"].min() for run in runs)
        best = [math.inf if math.isnan(x) else x for x in best]
        best.sort()
        assert found.loc[safety, share] == best[math.ceil(share * 5) - 1]
    assert found.index.name == "safety_a"
    assert np.isinf(found.to_numpy()).any()


def test_attainment_of_several_frontiers_is_that_of_one_table():
    one, two = held(CURVE, 0.8, seed=1), held([(loss * 2, safety) for loss, safety in CURVE[:3]], 0.8, seed=2)
    together = stacked(one, two).attainment()
    assert together.equals(one.attainment(two))
    assert together.index.tolist() == [0.5, 0.7, 0.8, 0.9]
    assert together[0.5].tolist() == [0.1, 0.2, 1 / 3, 0.7]
    assert together[1.0].tolist() == [0.2, 0.4, 2 / 3, math.inf]
    assert one.attainment()[1.0].tolist() == [loss for loss, _ in CURVE]


def test_attainment_of_several_thresholds_is_refused():
    with pytest.raises(kd.InvalidInput, match=r"several thresholds in held_night; .*Take one of frontier.slices\(\)"):
        stacked(held(CURVE, 0.8), held(CURVE, 0.9)).attainment()


# ---- words --------------------------------------------------------------------------------------------------


def test_a_frontier_tells_what_it_is():
    made = frontier(
        [*CURVE, (0.5, 0.6)], status=["anchor", *["converged"] * 3, "infeasible"], feasible=[True] * 4 + [False]
    )
    text = str(made)
    assert text == made.summary()
    for said in (
        "distillation loss against safety 'a' (train split); method epsilon; seed 3",
        "5 rows: 1 anchor, 3 converged, 1 infeasible",
        "4 feasible, 4 nondominated",
        "safety 0.5000 to 0.9000 costs 0.1 to 0.7 nats; knee at safety 0.8000",
        "against (0.76, 0.46)",
    ):
        assert said in text
    assert repr(made) == "<Frontier over 'a': 5 rows, 4 nondominated>"


def test_odd_frontiers_are_told_too():
    assert "no feasible point" in frontier(CURVE, feasible=False).summary()
    assert frontier([]).summary() == "Frontier over 'a': no rows."
    assert "with a contradicted multiplier" in with_multipliers(0.5).summary()
    assert "knee" not in frontier(CURVE[:1]).summary()
    assert "no point is better" in frontier(CURVE, meta={"reference": [0.0, 1.0]}).summary()
    assert "held night 0.8, 0.9; seed 3" in stacked(held(CURVE, 0.8), held(CURVE, 0.9)).summary()
