"""Weights judged row by row: exact, in constant memory, and unable to let a NaN pass."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safekd.axioms import RowAudit, build_report
from safekd.errors import InvalidInput
from solvers.polytope import WeightPolytope
from solvers.projection import project
from tests.support.weighting import t

BOX = WeightPolytope(3, lower=0.1, upper=0.6)
FINE = t([0.5, 0.3, 0.2])
NAN, INF = float("nan"), float("inf")


def judged(w, polytope=BOX, scale="token", **more):
    rows = RowAudit(polytope, scale)
    rows.add(w, **more)
    return build_report(rows.findings())


def broken(report):
    return {finding.axiom for finding in report.violated}


# one violation at a time ----------------------------------------------------------------------------------------------

SAFETY = t(0.9, 0.6, 0.3)
ONE_BY_ONE = {
    "fine": ([0.5, 0.3, 0.2], set()),
    "on the bounds": ([0.6, 0.3, 0.1], set()),
    "tied": ([0.35, 0.35, 0.3], set()),
    "sum below": ([0.5, 0.3, 0.199], {"III.1"}),
    "sum above": ([0.5, 0.3, 0.2 + 1e-14], {"III.1"}),
    "above by an ulp": ([0.6 + 2**-53, 0.3, 0.1], {"III.3"}),
    "below by an ulp": ([0.5, 0.4, 0.1 - 2**-56], {"III.3"}),
    "order by an ulp": ([0.4, 0.4 + 2**-54, 0.2], {"III.5"}),
    "order": ([0.3, 0.2, 0.5], {"III.5"}),
    "last pair": ([0.5, 0.2, 0.3], {"III.5"}),
    "zero": ([0.6, 0.4, 0.0], {"III.2", "III.3", "A1"}),
    "negative": ([0.6, 0.5, -0.1], {"III.2", "III.3", "A1"}),
    "nan": ([0.5, NAN, 0.2], {"III.1", "III.2", "III.3", "III.5", "A1"}),
    "all nan": ([NAN, NAN, NAN], {"III.1", "III.2", "III.3", "III.5", "A1"}),
    "inf": ([INF, 0.3, 0.2], {"III.1", "III.3"}),
}


@pytest.mark.parametrize("case", ONE_BY_ONE)
def test_each_violation_is_found_and_no_other(case):
    w, expected = ONE_BY_ONE[case]
    report = judged(t(w), safety=SAFETY)
    found = broken(report)
    assert found >= expected
    assert found - expected <= ({"III.5"} if case == "inf" else set())
    assert report.holds() is not expected or bool(expected) is False


def test_worst_where_and_how_many():
    w = FINE.repeat(6, 1)
    w[2] = t(0.75, 0.15, 0.1)
    w[4] = t(0.62, 0.28, 0.1)
    bounds = judged(w)["III.3"]
    assert (bounds.status, bounds.rows, bounds.judged, bounds.where) == ("violated", 2, 6, (2,))
    assert bounds.worst == pytest.approx(0.15)
    assert bounds.evidence.startswith("Teacher 0 weighs 0.75, above upper=0.6, in row 2, (0.75, 0.15, 0.1).")
    assert "Conforming(rule, polytope)" in bounds.remedy


def test_the_first_row_is_told_when_another_is_worse():
    w = torch.stack([t(0.55, 0.35, 0.09), t(0.5, 0.3, 0.1)])
    finding = judged(w, first_row=100)["III.1"]
    assert finding.where == (101,)
    assert finding.worst == pytest.approx(0.1)
    assert "The first is row 100." in finding.evidence


def test_teachers_are_named():
    rows = RowAudit(BOX, names=["forest", "linear", "boosting"])
    rows.add(t([0.2, 0.5, 0.3]), safety=SAFETY)
    text = build_report(rows.findings())["III.5"].evidence
    assert text.startswith(
        "'forest' weighs less than 'linear', 0.20000000000000001 against 0.5, though its safety is 0.9"
    )


def test_a_nan_stays_the_worst():
    rows = RowAudit(BOX)
    for row, w in enumerate(([0.9, 0.05, 0.05], [NAN, 0.5, 0.5], [1.0, 0.0, 0.0])):
        rows.add(t([w]), first_row=row)
    finding = build_report(rows.findings())["III.3"]
    assert math.isnan(finding.worst)
    assert finding.where == (1,)
    assert finding.rows == 3


def test_orderings_hold_on_critical_rows_only():
    w = t([0.2, 0.3, 0.5], [0.2, 0.3, 0.5], [0.5, 0.3, 0.2])
    finding = judged(w, safety=SAFETY, critical=torch.tensor([False, True, True]))["III.5"]
    assert (finding.status, finding.rows, finding.judged, finding.where) == ("violated", 1, 2, (1,))
    assert judged(w[:1], safety=SAFETY, critical=torch.tensor([False]))["III.5"].status == "not_applicable"


def test_a_nan_is_wrong_on_rows_that_are_not_critical_too():
    report = judged(t([NAN, 0.3, 0.5]), safety=SAFETY, critical=torch.tensor([False]))
    assert "III.5" in broken(report)


def test_orderings_of_the_polytope_and_of_scores_count_together():
    ranked = WeightPolytope(3, 0.1, 0.6, orderings=[(2, 1)])
    both = judged(t([0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.25, 0.35]), ranked, safety=t(0.9, 0.3, 0.3))
    assert both["III.5"].rows == 2
    assert judged(t([0.4, 0.25, 0.35]), ranked, safety=t(0.9, 0.3, 0.3)).holds()


def test_a_margin_is_asked_for_within_two_ulp():
    apart = WeightPolytope(2, 0.1, 0.9, orderings=[(0, 1)], margin=0.2)
    assert judged(t(0.6, 0.4), apart).holds()
    finding = judged(t(0.55, 0.45), apart)["III.5"]
    assert finding.worst == pytest.approx(0.1)
    assert "plus the margin 0.2" in finding.evidence


def test_linear_rows_are_judged_where_there_are_some():
    linear = WeightPolytope(3, 0.0, 1.0, linear=([[1.0, 1.0, 0.0]], [0.6]))
    assert judged(t(0.3, 0.3, 0.4), linear)["P"].status == "holds"
    finding = judged(t([0.3, 0.3, 0.4], [0.5, 0.3, 0.2]), linear)["P"]
    assert (finding.status, finding.rows, finding.where) == ("violated", 1, (1,))
    assert finding.worst == pytest.approx(0.2)
    with pytest.raises(InvalidInput, match="says nothing of 'P'"):
        judged(FINE)["P"]


# what cannot be judged ------------------------------------------------------------------------------------------------


def test_what_weights_alone_cannot_tell():
    report = judged(FINE)
    assert report["III.4"].status == "not_applicable"
    assert "pass the rule and its signals to kd.audit" in report["III.4"].evidence
    assert "pass `safety`, or a polytope with orderings" in report["III.5"].evidence
    assert "No weights of the task scale were given." in report["III.10"].evidence
    assert judged(FINE, scale="task")["III.14"].status == "not_applicable"
    assert judged(FINE, scale="context", safety=SAFETY)["III.22"].status == "holds"
    assert judged(FINE, scale="unified", safety=SAFETY)["U.5"].status == "holds"


def test_no_rows_are_no_proof():
    report = judged(torch.empty(0, 3, dtype=torch.float64))
    assert not report.violated
    assert not report.holds()
    assert report["III.1"].evidence == "There are no rows."


def test_bounds_that_nobody_gave_are_estimated():
    report = judged(t([0.5, 0.3, 0.2], [0.97, 0.02, 0.01]), None)
    assert report["III.3"].status == "estimated"
    assert "between 0.01 and 0.97" in report["III.3"].evidence
    assert report["A1"].status == "estimated"
    assert {"III.2", "III.3", "A1"} == broken(judged(t([0.5, 0.5, 0.0]), None))


@pytest.mark.parametrize("lower", [0.0, 0.1])
def test_a_floor_is_promised_or_only_seen(lower):
    """(A1) asks for some w_min > 0; a polytope with lower = 0 keeps none, whatever the rows show."""
    assert judged(FINE, WeightPolytope(3, lower, 0.6))["A1"].status == ("holds" if lower else "estimated")


# dtypes, shapes, kinds of input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_projected_weights_of_every_dtype_pass(dtype):
    v = torch.randn(500, 3, generator=torch.Generator().manual_seed(3)).to(dtype)
    assert judged(project(v, BOX, safety=SAFETY), safety=SAFETY).holds()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_bound_is_the_nearest_number_of_the_dtype(dtype):
    w = torch.tensor([0.6, 0.3, 0.1], dtype=dtype)
    assert judged(w)["III.3"].status == "holds"
    w[0] = torch.nextafter(w[0], torch.tensor(1.0, dtype=dtype))
    assert judged(w)["III.3"].status == "violated"


def test_arrays_and_lists_and_more_axes():
    assert judged(np.array([[0.5, 0.3, 0.2]])).holds()
    assert judged([0.5, 0.3, 0.2]).holds()
    rows = RowAudit(BOX, lead=(2, 2))
    rows.add(t([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], [[0.5, 0.3, 0.2], [0.7, 0.2, 0.1]]))
    finding = build_report(rows.findings())["III.3"]
    assert finding.where == (1, 1)
    assert "in position (1, 1)" in finding.evidence


REFUSED = {
    "teachers": (lambda: judged(t(0.5, 0.5)), r"Weights of 3 teachers are judged; found float64 of shape \(2,\)"),
    "integers": (lambda: judged(torch.tensor([1, 0, 0])), "must be floats .* found int64"),
    "critical dtype": (
        lambda: judged(FINE, safety=SAFETY, critical=t(1.0)),
        "`critical` has dtype torch.float64; wanted",
    ),
    "critical shape": (lambda: judged(FINE, critical=torch.ones(2, dtype=torch.bool)), r"`critical` has shape \(2,\)"),
    "safety shape": (lambda: judged(FINE, safety=t(0.5, 0.5)), r"`safety` has shape \(2,\); wanted \(1, 3\)"),
    "safety nan": (lambda: judged(FINE, safety=t(0.5, NAN, 0.5), first_row=7), "`safety` holds NaN in row 7"),
    "scale": (lambda: RowAudit(BOX, "word"), "`scale` is 'word'; wanted 'token', 'task', 'context' or 'unified'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_judged_is_refused(case):
    call, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        call()


# laws -----------------------------------------------------------------------------------------------------------------


def _drawn(seed, K, B=40):
    generator = torch.Generator().manual_seed(seed)
    polytope = WeightPolytope(K, 0.2 / K, min(1.0, 2.5 / K))
    safety = torch.randint(4, (B, K), generator=generator).double() / 3
    critical = torch.rand(B, generator=generator) < 0.6
    scores = torch.randn(B, K, generator=generator, dtype=torch.float64)
    return polytope, project(scores, polytope, safety=safety, critical=critical), safety, critical


@given(seed=st.integers(0, 10**6), K=st.integers(1, 9), cuts=st.lists(st.integers(1, 39), max_size=4))
def test_chunks_do_not_matter(seed, K, cuts):
    polytope, w, safety, critical = _drawn(seed, K)
    w = w + 0.02 * torch.randint(-1, 2, w.shape, generator=torch.Generator().manual_seed(seed))
    whole, pieces = RowAudit(polytope), RowAudit(polytope)
    whole.add(w, safety=safety, critical=critical)
    edges = [0, *sorted(set(cuts)), 40]
    for start, stop in pairwise(edges):
        part = slice(start, stop)
        pieces.add(w[part], safety=safety[part], critical=critical[part], first_row=start)
    assert pieces.findings() == whole.findings()


@given(seed=st.integers(0, 10**6), K=st.integers(1, 9))
def test_it_agrees_with_the_polytopes_own_check(seed, K):
    """``WeightPolytope.check`` judges rule by rule and by other code."""
    polytope, w, safety, critical = _drawn(seed, K)
    w = w + 0.02 * torch.randint(-1, 2, w.shape, generator=torch.Generator().manual_seed(seed))
    report = judged(w, polytope, safety=safety, critical=critical)
    rules = {rule.name.split("=")[0]: rule for rule in polytope.check(w, safety=safety, critical=critical).rules}
    assert report["III.1"].rows == rules["weights sum to 1"].rows
    assert report["III.3"].worst == pytest.approx(max(rules["lower"].amount, rules["upper"].amount), abs=1e-15)
    if report["III.5"].status != "not_applicable":
        assert report["III.5"].rows == rules["the order of `safety`"].rows
        assert report["III.5"].worst == pytest.approx(rules["the order of `safety`"].amount, abs=1e-15)


@given(seed=st.integers(0, 10**6), K=st.integers(2, 9))
def test_conforming_weights_pass(seed, K):
    polytope, w, safety, critical = _drawn(seed, K)
    assert judged(w, polytope, safety=safety, critical=critical).holds()


BREAKS = ("sum", "zero", "negative", "below", "above", "order", "nan")


@given(seed=st.integers(0, 10**6), K=st.integers(2, 9), how=st.sampled_from(BREAKS), size=st.floats(-15, -1))
def test_no_injected_violation_is_missed(seed, K, how, size):
    """One weight of one row is spoiled, by 1e-15 to 0.1; the axiom that it breaks is named, and the row."""
    polytope, w, safety, critical = _drawn(seed, K)
    generator = torch.Generator().manual_seed(seed + 1)
    row, k = (int(torch.randint(n, (1,), generator=generator)) for n in (40, K))
    amount, lower, upper = 10.0**size, polytope.lower[0], polytope.upper[0]
    expected = _spoil(w, row, k, how, amount, lower, upper, safety, critical)
    finding = judged(w, polytope, safety=safety, critical=critical)[expected]
    assert finding.status == "violated"
    assert finding.where == (row,)
    assert finding.rows == 1


def _spoil(w, row, k, how, amount, lower, upper, safety, critical):
    j = (k + 1) % w.shape[1]
    if how == "sum":
        w[row, k] += amount + 4 * w.shape[1] * 2**-52
        return "III.1"
    if how in ("zero", "negative", "nan"):
        w[row, k] = {"zero": 0.0, "negative": -amount, "nan": NAN}[how]
        return "III.2"
    if how in ("below", "above"):
        beyond = lower - amount if how == "below" else upper + amount
        w[row, j] += w[row, k] - beyond
        w[row, k] = beyond
        return "III.3"
    critical[row], safety[row] = True, 0.5
    safety[row, k] = 0.9
    w[row] = 1 / w.shape[1]
    w[row, j] += amount + 2**-52
    w[row, k] -= amount + 2**-52
    return "III.5"
