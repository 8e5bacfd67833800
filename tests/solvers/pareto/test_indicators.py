"""Indicators against their definitions, exact fractions, closed forms and the laws that they obey."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from fractions import Fraction

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from solvers import InvalidInput
from solvers import indicators as ind

GRID = st.integers(0, 5).map(float)


def fronts(columns, most=9, least=0):
    return st.integers(least, most).flatmap(lambda n: arrays(np.float64, (n, columns), elements=GRID))


def beats(a, b):
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def unbeaten(points):
    rows = [tuple(row) for row in points]
    return [not any(beats(other, row) for other in rows) and row not in rows[:n] for n, row in enumerate(rows)]


def cells_covered(points, corner):
    """The volume by counting unit cells; for points and corners on whole numbers."""
    return sum(
        any(all(x <= c for x, c in zip(p, cell, strict=True)) for p in points)
        for cell in itertools.product(*(range(int(c)) for c in corner))
    )


def area(points, corner):
    """The area of two objectives in exact fractions: one strip a point, from left to right."""
    total, low = Fraction(0), Fraction(corner[1])
    for x, y in sorted(map(tuple, points)):
        if x < corner[0] and Fraction(y) < low:
            total += (Fraction(corner[0]) - Fraction(x)) * (low - Fraction(y))
            low = Fraction(y)
    return float(total)


# ---- what is not beaten -------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 2, 3, 5])
@given(data=st.data())
def test_nondominated_is_the_definition_with_the_first_of_twins(columns, data):
    points = data.draw(fronts(columns, most=14))
    assert ind.nondominated(points).tolist() == unbeaten(points)


def test_signed_zeros_are_twins():
    assert ind.nondominated([[0.0, -0.0], [-0.0, 0.0]]).tolist() == [True, False]


# ---- hypervolume --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
@given(data=st.data())
def test_hypervolume_counts_the_cells(columns, data):
    points = data.draw(fronts(columns))
    corner = data.draw(st.tuples(*[st.integers(1, 4)] * columns))
    assert ind.hypervolume(points, corner) == pytest.approx(cells_covered(points, corner), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_hypervolume_of_two_objectives_in_fractions(seed):
    draw = np.random.default_rng(seed)
    points = draw.uniform(-1, 1, (30, 2)) * 10.0 ** draw.integers(-6, 6, 2)
    corner = np.quantile(points, 0.8, axis=0)
    assert ind.hypervolume(points, corner) == pytest.approx(area(points, corner), rel=1e-12)


@pytest.mark.parametrize(
    ("front", "limit", "at_21"),
    [(lambda e: 1 - np.sqrt(e), 2 / 3, 0.63945), (lambda e: 1 - e**2, 1 / 3, 0.30875)],
    ids=["ZDT1", "ZDT2"],
)
def test_hypervolume_of_known_fronts(front, limit, at_21):
    """The area above y = 1 - sqrt(x) is 2/3, above y = 1 - x^2 it is 1/3; 21 points are short of it by a known part."""
    few, many = np.linspace(0, 1, 21), np.linspace(0, 1, 20001)
    assert ind.hypervolume(np.stack([few, front(few)], 1), [1, 1]) == pytest.approx(at_21, abs=5e-6)
    assert ind.hypervolume(np.stack([many, front(many)], 1), [1, 1]) == pytest.approx(limit, abs=1e-4)


@given(points=fronts(3, least=1), extra=arrays(np.float64, (1, 3), elements=GRID))
def test_hypervolume_obeys_its_laws(points, extra):
    corner = np.array([6.0, 5.5, 7.0])
    whole = ind.hypervolume(points, corner)
    order = [2, 0, 1]
    assert ind.hypervolume(points[:, order], corner[order]) == pytest.approx(whole)
    assert ind.hypervolume(points + 3, corner + 3) == pytest.approx(whole)
    assert ind.hypervolume(points * [2, 3, 4], corner * [2, 3, 4]) == pytest.approx(24 * whole)
    assert ind.hypervolume(points[ind.nondominated(points)], corner) == pytest.approx(whole)
    more = ind.hypervolume(np.concatenate([points, extra]), corner)
    assert more >= whole - 1e-9
    beaten = (points <= extra).all(axis=1).any()
    assert (more > whole + 1e-9) == (not beaten)  # a new point adds volume exactly where nothing beats it yet


def test_a_corner_on_the_wrong_side_leaves_nothing():
    assert ind.hypervolume([[0.5, 0.5]], [0.5, 1.0]) == 0
    assert ind.hypervolume([[0.5, 0.5]], [0.0, 0.0]) == 0
    assert ind.hypervolume([[0.5, 0.5], [0.2, 2.0]], [1.0, 1.0]) == 0.25  # of two, one is beyond the corner


# ---- distances from an exact front --------------------------------------------------------------------------


def igd_plus_by_definition(points, exact):
    return np.mean([min(math.dist(np.maximum(x, z), z) for x in points) for z in exact])


def epsilon_by_definition(points, exact):
    return max(min(max(x - z) for x in points) for z in exact)


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
@given(data=st.data())
def test_distances_are_their_definitions(columns, data):
    points, exact = data.draw(fronts(columns, least=1)), data.draw(fronts(columns, least=1))
    assert ind.igd_plus(points, exact) == pytest.approx(igd_plus_by_definition(points, exact), abs=1e-12)
    e = ind.additive_epsilon(points, exact)
    assert e == pytest.approx(epsilon_by_definition(points, exact), abs=1e-12)
    lowered = points - e
    assert all((lowered <= z).all(axis=1).any() for z in exact)  # grids of whole numbers: no rounding
    assert not all((lowered + 0.5 <= z).all(axis=1).any() for z in exact)  # and no smaller e will do


@given(points=fronts(2, least=1))
def test_a_front_is_at_no_distance_from_itself(points):
    assert ind.igd_plus(points, points) == 0
    assert ind.additive_epsilon(points, points) == 0
    assert ind.igd_plus(points - 1, points) == 0
    assert ind.additive_epsilon(points - 1, points) == -1
    assert ind.igd_plus(points + 1, points) <= math.sqrt(2) + 1e-12
    assert ind.additive_epsilon(points + 1, points) == 1


def test_no_points_are_infinitely_far():
    """The library itself says 0, the best there is."""
    assert ind.igd_plus(np.zeros((0, 2)), [[0, 0]]) == math.inf
    assert ind.additive_epsilon([], [[0, 0]]) == math.inf


# ---- knee ---------------------------------------------------------------------------------------------------


def test_knee_is_farthest_from_the_chord():
    x = np.linspace(0.01, 1, 200)
    front = np.stack([x, 0.01 / x], 1)  # symmetric: the knee is the middle, (0.1, 0.1)
    at = ind.knee(front)
    assert front[at] == pytest.approx([0.1, 0.1], abs=0.005)
    ends = front[[0, -1]]
    along = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    away = np.abs((front - ends[0]) @ [along[1], -along[0]])
    assert at == away.argmax()


def test_units_move_no_knee_and_beaten_points_are_none():
    front = np.array([[0.0, 1.0], [0.3, 0.2], [0.5, 0.1], [1.0, 0.0]])
    assert ind.knee(front) == ind.knee(front * [1e-6, 1e6] + [5, -7]) == 1
    assert ind.knee(np.concatenate([[[0.35, 0.25]], front[::-1]])) == 3  # the row among all points


@pytest.mark.parametrize(
    "points",
    [[], [[0.0, 1.0]], [[0, 1], [1, 0]], [[0, 1], [0.5, 0.5], [1, 0]], [[0, 1], [0.6, 0.6], [1, 0]]],
    ids=["none", "one", "two", "straight", "outward"],
)
def test_no_knee(points):
    assert ind.knee(points) is None


# ---- attainment ---------------------------------------------------------------------------------------------


@given(runs=st.lists(fronts(3), min_size=1, max_size=5), at=fronts(3, least=1))
def test_attained_share_is_its_definition(runs, at):
    found = ind.attained_share(runs, at)
    assert found.tolist() == [np.mean([any((x <= z).all() for x in run) for run in runs]) for z in at]


@given(runs=st.lists(fronts(2, least=1), min_size=1, max_size=6))
def test_attainment_is_the_surface_of_the_library(runs):
    """The surface that a share attains, as moocore computes it, read at every first objective."""
    R = len(runs)
    sets = np.concatenate([np.full(len(run), r) for r, run in enumerate(runs)])
    surface = moocore.eaf(np.concatenate(runs), sets)
    at = np.arange(6.0)
    found = ind.attainment(runs, at, np.arange(1, R + 1) / R)
    for q in range(R):
        level = surface[np.isclose(surface[:, 2], 100 * (q + 1) / R)]
        expected = [level[level[:, 0] <= x, 1].min(initial=math.inf) for x in at]
        assert found[:, q].tolist() == expected


@given(runs=st.lists(fronts(2), min_size=1, max_size=5))
def test_attainment_and_share_agree(runs):
    at, shares = np.arange(6.0), np.array([0.3, 0.5, 1.0])
    reached = ind.attainment(runs, at, shares)
    for g, q in itertools.product(range(6), range(3)):
        if np.isfinite(reached[g, q]):
            assert ind.attained_share(runs, [[at[g], reached[g, q]]])[0] >= shares[q]
            assert ind.attained_share(runs, [[at[g], reached[g, q] - 0.5]])[0] < shares[q]
        else:
            assert ind.attained_share(runs, [[at[g], 1e9]])[0] < shares[q]


@pytest.mark.parametrize("R", [3, 7, 10, 49])
def test_a_share_is_no_run_more_for_rounding(R):
    runs = [[[0.0, float(r)]] for r in range(R)]
    assert ind.attainment(runs, [0.0], np.arange(1, R + 1) / R)[0].tolist() == list(range(R))


# ---- inputs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("N", [0, 1])
def test_no_point_and_one(N, columns):
    points, ones = np.full((N, columns), 0.5), np.ones(columns)
    assert ind.nondominated(points).tolist() == [True] * N
    assert ind.hypervolume(points, ones) == N * 0.5**columns
    assert ind.attained_share([points], [ones]).tolist() == [N]
    assert ind.igd_plus(points, [ones]) == (0 if N else math.inf)


def test_an_empty_list_is_no_point():
    assert ind.nondominated([]).tolist() == []
    assert ind.hypervolume([], [1, 1]) == 0
    assert ind.attainment([[]], [0.0], [1.0]).tolist() == [[math.inf]]


def test_inputs_are_left_as_they_are():
    points = np.array([[3, 1], [1, 3], [2, 2]], order="F")
    kept = points.copy()
    for call, *more in ((ind.nondominated,), (ind.knee,), (ind.hypervolume, [4, 4]), (ind.igd_plus, points)):
        call(points, *more)
    assert (points == kept).all()


REFUSED = {
    "a row": (lambda: ind.nondominated([1.0, 2.0]), r"`points` has shape \(2,\); wanted \(N, D\), a row a point"),
    "a cube": (lambda: ind.nondominated(np.zeros((2, 2, 2))), r"`points` has shape \(2, 2, 2\)"),
    "no columns": (lambda: ind.nondominated(np.zeros((2, 0))), r"`points` has shape \(2, 0\)"),
    "nan": (lambda: ind.nondominated([[0, 1], [math.nan, 0]]), r"`points\[1\]` is \[nan, 0.0\].* Leave that row out"),
    "infinite": (lambda: ind.hypervolume([[-math.inf, 0]], [1, 1]), r"`points\[0\]` is \[-inf, 0.0\]"),
    "one objective": (lambda: ind.knee([[1.0], [2.0]]), r"`points` has shape \(2, 1\); wanted \(N, 2\)"),
    "no rows": (lambda: ind.hypervolume(3.0, [1, 1]), r"`points` has shape \(\); wanted \(N, 2\)"),
    "words": (lambda: ind.knee([["a", "b"]]), "`points` holds what is no number"),
    "ragged": (lambda: ind.knee([[1, 2], [3]]), "`points` holds what is no number.* rows of equal length"),
    "corner": (
        lambda: ind.hypervolume([[0, 0]], [1, math.nan]),
        r"`reference` is \[1.0, nan\]; wanted a row of finite",
    ),
    "corner shape": (lambda: ind.hypervolume([[0, 0]], [1]), r"`points` has shape \(1, 2\); wanted \(N, 1\)"),
    "a number": (lambda: ind.hypervolume([[0, 0]], 1.0), "`reference` is 1.0; wanted a row"),
    "too many": (
        lambda: ind.hypervolume(np.zeros((1, 32)), np.ones(32)),
        "`points` has 32 objectives; wanted at most 31",
    ),
    "nothing exact": (lambda: ind.igd_plus([[0, 0]], []), "`exact` is empty; wanted at least one point"),
    "another width": (lambda: ind.additive_epsilon([[0, 0]], [[1]]), r"`points` has shape \(1, 2\); wanted \(N, 1\)"),
    "no runs": (lambda: ind.attained_share([], [[0, 0]]), "`runs` is empty"),
    "three objectives": (lambda: ind.attainment([[[0, 0, 0]]], [0], [1]), r"`runs\[0\]` has shape \(1, 3\)"),
    "no share": (lambda: ind.attainment([[[0, 0]]], [0], [0.0]), r"`shares` is \[0.0\]; wanted shares of the runs"),
    "per cent": (lambda: ind.attainment([[[0, 0]]], [0], [50]), r"`shares` is \[50.0\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_set_of_points_is_named(case):
    call, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        call()


def test_the_library_is_imported_when_it_is_needed_and_leaves_no_file(tmp_path):
    code = (
        "import sys; from solvers import indicators as i; print('moocore' in sys.modules); "
        "i.hypervolume([[0, 0]], [1, 1]); print('moocore' in sys.modules)"
    )
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ran.stdout.split() == ["False", "True"], ran.stderr
    assert list(tmp_path.iterdir()) == []
