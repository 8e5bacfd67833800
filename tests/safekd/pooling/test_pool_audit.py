"""The five axioms of pools: what each pool keeps, the two that exclude each other, and counterexamples that refute."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from safekd.errors import InvalidInput
from safekd.pooling import LogLinearPool, PowerPool, arithmetic_pool, audit_pool, geometric_pool

from .random_teachers import draw_teachers, draw_weights, name_pool

CONVEX, COHERENT, MONOTONE = "convexity", "temperature coherence", "weight monotonicity"
VIOLATED = {
    arithmetic_pool: {COHERENT},
    geometric_pool: {CONVEX},
    PowerPool(0.5): {CONVEX, COHERENT},
    PowerPool(-1.0): {CONVEX, COHERENT},
    PowerPool(2.0): {CONVEX, COHERENT},
    LogLinearPool(2.0): {CONVEX, MONOTONE},
    LogLinearPool(0.5): {CONVEX, MONOTONE},
}


@pytest.mark.parametrize("pool", VIOLATED, ids=name_pool)
def test_what_each_pool_keeps(pool):
    audit = audit_pool(pool)
    assert {one.axiom for one in audit.violated} == VIOLATED[pool]
    assert len(list(audit)) == 5
    assert all(one.counterexample for one in audit.violated)


def follow_heaviest(log_p, w):
    place = w.argmax(-1)[..., None, None].expand(*log_p.shape[:-2], 1, log_p.shape[-1])
    return log_p.gather(-2, place).squeeze(-2)


def cut_small(log_p, w):
    q = arithmetic_pool(log_p, w).exp()
    return (q * (q > 0.02)).clamp_min(0).log().log_softmax(-1)


def oppose(log_p, w):
    opposed = (1 - w) / (w.shape[-1] - 1)
    return arithmetic_pool(log_p, opposed)


OWN = {
    "continuity": (follow_heaviest, {"continuity"}),
    "positivity": (cut_small, {"positivity", "continuity", CONVEX, COHERENT, MONOTONE}),
    "weight monotonicity": (oppose, {MONOTONE, COHERENT}),
}


@pytest.mark.parametrize("axiom", OWN)
def test_a_pool_of_ones_own_that_breaks_it(axiom):
    pool, broken = OWN[axiom]
    assert {one.axiom for one in audit_pool(pool).violated} == broken


@pytest.mark.parametrize("pool", [*VIOLATED, follow_heaviest], ids=name_pool)
def test_convexity_and_coherence_exclude_each_other_unless_one_teacher_is_all(pool):
    audit = audit_pool(pool)
    both = audit[CONVEX].holds and audit[COHERENT].holds
    assert both == (pool is follow_heaviest)
    assert audit.remarks[0].startswith("Convexity and temperature coherence exclude each other")
    assert ("a single teacher is all" in audit.remarks[0]) == both


def test_with_two_classes_they_do_not():
    audit = audit_pool(geometric_pool, classes=2)
    assert not audit.violated
    assert "with two classes they can" in audit.remarks[0]


@given(seed=st.integers(0, 10**6), t=st.floats(0.05, 0.95))
def test_no_log_linear_pool_of_two_teachers_that_three_classes_tell_apart_lies_between_them(seed, t):
    """The lemma behind it: a line meets a strictly concave curve at most twice."""
    log_p = draw_teachers(seed, 2, 3, scale=1.0)
    ratio = (log_p[1] - log_p[0]).sort().values
    if float(ratio.diff().min()) < 0.1:
        return
    q = geometric_pool(log_p, torch.tensor([1 - t, t], dtype=torch.float64)).exp()
    p = log_p.exp()
    s = ((q - p[0]) @ (p[1] - p[0]) / (p[1] - p[0]).square().sum()).clamp(0, 1)
    assert float((q - p[0] - s * (p[1] - p[0])).abs().max()) > 1e-6


@given(seed=st.integers(0, 10**6), T=st.floats(0.2, 8))
def test_the_geometric_pool_commutes_with_temperature(seed, T):
    log_p, w = draw_teachers(seed, 4, 3, 6), draw_weights(seed, 4, 3)
    first = geometric_pool((log_p / T).log_softmax(-1), w).exp()
    torch.testing.assert_close(first, (geometric_pool(log_p, w) / T).softmax(-1), rtol=0, atol=1e-12)


def test_the_arithmetic_pool_does_not_and_by_how_much():
    """Two teachers that are sure of different classes: at T = 2 the order of the two operations decides a class."""
    p = torch.tensor([[0.81, 0.01, 0.18], [0.01, 0.64, 0.35]], dtype=torch.float64)
    w = torch.tensor([0.5, 0.5], dtype=torch.float64)
    roots = p.sqrt() / p.sqrt().sum(-1, keepdim=True)
    first, after = w @ roots, (w @ p).sqrt() / (w @ p).sqrt().sum()
    found = arithmetic_pool((p.log() / 2).log_softmax(-1), w).exp()
    torch.testing.assert_close(found, first, rtol=0, atol=1e-14)
    torch.testing.assert_close((arithmetic_pool(p.log(), w) / 2).softmax(-1), after, rtol=0, atol=1e-14)
    assert float((first - after).abs().sum()) / 2 == pytest.approx(0.0489, abs=1e-4)
    seen = audit_pool(arithmetic_pool, p.log()[None], w)[COHERENT]
    assert seen.worst > 0.0488


@pytest.mark.parametrize("pool", [arithmetic_pool, geometric_pool, PowerPool(0.5), PowerPool(3.0)], ids=name_pool)
def test_the_distance_from_the_hull_is_that_of_a_linear_program(pool):
    """Whether a point is in a hull is decided by scipy's linprog, on the numbers of the counterexample."""
    finding = audit_pool(pool, seed=3)[CONVEX]
    if finding.holds:
        log_p, w = draw_teachers(0, 1, 3, 4), draw_weights(0, 1, 3)
        p, q = log_p[0].exp().numpy(), pool(log_p, w)[0].exp().numpy()
    else:
        p, q = np.array(finding.counterexample["teachers"]), np.array(finding.counterexample["pool"])
        nearest = np.array(finding.counterexample["nearest in the hull"])
        assert finding.worst == pytest.approx(np.abs(q - nearest).sum() / 2)
    solved = linprog(np.zeros(len(p)), A_eq=np.vstack([p.T, np.ones(len(p))]), b_eq=np.append(q, 1.0))
    assert solved.success == finding.holds


def test_it_reads_teachers_of_your_own():
    log_p = draw_teachers(5, 200, 2, 3)
    alike = log_p[:, :1].expand(-1, 2, -1)
    assert not audit_pool(geometric_pool, alike, torch.tensor([0.3, 0.7])).violated
    assert "200" not in audit_pool(geometric_pool, log_p).subject  # a sample
    assert audit_pool("geometric", log_p)[CONVEX].worst > 0.01
    assert audit_pool(PowerPool, log_p).to_dict() == audit_pool("power", log_p).to_dict()


def test_the_boundary_is_told():
    assert "loses its last weight, the pool jumps by" in audit_pool(geometric_pool)["continuity"].evidence
    assert "no jump where weights and probabilities reach 0" in audit_pool(arithmetic_pool)["continuity"].evidence
    assert "has a veto" in audit_pool(geometric_pool)["positivity"].evidence
    assert "has no veto" in audit_pool(PowerPool(0.5))["positivity"].evidence


def test_it_is_printed_and_written():
    audit = audit_pool(PowerPool(0.5))
    text = str(audit)
    assert "PowerPool(exponent=0.5) on 64 rows of 3 teachers and 4 classes" in text
    assert "convexity, counterexample: teachers [[" in text
    assert max(map(len, text.splitlines())) <= 120
    assert json.loads(json.dumps(audit.to_dict()))["findings"][0]["axiom"] == CONVEX
    with pytest.raises(InvalidInput, match="says nothing of 'beauty'; it has convexity"):
        audit["beauty"]


REFUSED = {
    "name": (lambda: audit_pool("median"), "`pool` is 'median'; wanted 'arithmetic', 'geometric', 'power'"),
    "number": (lambda: audit_pool(0.5), "`pool` is 0.5; wanted 'arithmetic', .* or a function of your own"),
    "raises": (lambda: audit_pool(lambda log_p, w: 1 / 0), "The pool fails with ZeroDivisionError"),
    "shape": (lambda: audit_pool(lambda log_p, w: log_p), r"The pool gives \(64, 3, 4\); .* \(64, 4\)"),
    "sum": (lambda: audit_pool(lambda log_p, w: log_p.sum(-2)), "exponentials of what the pool gives sum to"),
    "teachers": (lambda: audit_pool(arithmetic_pool, teachers=1), "`teachers` is 1; wanted a whole number of at least"),
    "rows": (lambda: audit_pool(arithmetic_pool, torch.zeros(3, 2, 4)), "exponentials do not sum to 1"),
    "weights": (
        lambda: audit_pool(arithmetic_pool, draw_teachers(0, 5, 2, 3), torch.tensor([1.0, 0.0])),
        "not above 0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    call, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        call()
