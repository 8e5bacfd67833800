"""The claims of the papers on ensembles, recursion and temperature, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.claims.siblings import pools, recursion, softening

CONDITION = "holds under an extra condition"


def test_no_pool_is_convex_and_commutes_with_temperature():
    claim = pools.convexity_and_temperature(rows=100)
    n = claim.numbers
    assert claim.verdict == "fails"
    assert n["arithmetic_outside"] < 1e-12 < n["arithmetic_gap"]
    assert n["geometric_gap"] < 1e-12 < n["geometric_outside"]
    assert n["median_apart"] > 1e-3


def test_a_pool_has_less_variance_than_teachers_alike():
    claim = pools.variance_reduction(draws=4000)
    n = claim.numbers
    assert claim.verdict == CONDITION
    assert [n["independent"], n["half"], n["high"]] == pytest.approx([0.25, 0.625, 0.925], rel=0.08)
    assert n["pooled"] == pytest.approx(28 / 16, rel=0.08)
    assert n["best"] < n["pooled"]


def test_jensens_gap_is_never_negative():
    claim = pools.jensen_gap(rows=500)
    assert claim.verdict == "holds"
    assert claim.numbers["equal"] < 1e-12


def test_the_geometric_pool_can_be_less_safe_than_all_its_teachers():
    claim = pools.unsafe_mass(rows=500)
    n = claim.numbers
    assert claim.verdict == CONDITION
    roots = np.sqrt([0.4 * 0.4, 0.59 * 0.01, 0.01 * 0.59])
    assert n["pooled_geometric"] == pytest.approx(roots[0] / roots.sum())
    assert n["pooled_geometric"] > 0.7 > 0.4 == pytest.approx(n["pooled_arithmetic"])


def test_anchored_recursion_contracts_for_perfect_students():
    claim = recursion.contraction(rows=50, anchor=0.25)
    n = claim.numbers
    assert claim.verdict == CONDITION
    assert n["excess"] <= 1e-12
    assert 0.75**2 < n["factor"] < 0.75
    assert n["corner"] == pytest.approx(0.75, abs=1e-5)
    assert n["sharpened"] > 0.01


def test_the_geometric_form_is_exact_in_log_odds():
    claim = recursion.geometric_form(rows=50)
    assert claim.verdict == "holds"
    assert claim.numbers["off"] < 1e-12


def test_unanchored_recursion_loses_diversity_as_wright_said():
    claim = recursion.drift(generations=40, runs=1000)
    n = claim.numbers
    assert claim.verdict == "holds"
    assert n["off"] < 0.08
    assert n["lost_free"] > 0.5 > n["lost_anchored"]


def test_students_that_fall_short_come_to_rest_elsewhere():
    claim = recursion.capacity_gap()
    assert claim.verdict == CONDITION
    assert claim.numbers["factor"] == pytest.approx(0.7 * 0.8, abs=1e-6)
    assert claim.numbers["gap"] > claim.numbers["once"] > 0.01


def test_perfect_students_come_to_rest_at_the_base_teachers():
    """The same experiment gives another verdict where there is nothing to fall short by."""
    assert recursion.capacity_gap(smoothing=0.0).verdict == "holds"


def test_students_on_digits_contract_drift_and_stay_safe():
    claim = recursion.students_on_digits(generations=5, epochs=60)
    n = claim.numbers
    assert claim.verdict == "holds"
    assert n["factor"] < n["high"] < 1 < n["growth_low"]
    assert n["safety"] >= 0.9 - 1e-3


def test_softening_keeps_what_it_should():
    claim = softening.softening(rows=100)
    assert claim.verdict == "holds"
    assert claim.numbers["power_entropy"] > 0


def test_a_bucket_of_tokens_does_not_commute_with_softening():
    claim = softening.truncated(rows=100)
    assert claim.verdict == CONDITION
    assert claim.numbers["above"] > 0
    assert claim.numbers["exact"] < 1e-12
    assert softening.truncated(rows=100, temperature=1.0).verdict == "holds"
