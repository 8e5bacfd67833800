"""An audit of signals with positions that do not count says what it says of the others alone.

Axes: B batch, T positions, P positions that count, K teachers, V classes.
"""

from __future__ import annotations

import math

import pytest
import torch

import safekd as kd
from safekd.axioms.rows import RowAudit
from safekd.weights import Confidence, Conforming, EntropyDecay, Normalized, ScaleOrderings, Signals, Unified

K, V = 3, 4


def draw(seed=0):
    """Signals of (3, 5) positions, junk where ``mask`` is False, and those of the positions that count."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(3, 5, generator=generator) < 0.6
    log_p_KV = torch.randn(3, 5, K, V, generator=generator, dtype=torch.float64).log_softmax(-1)
    safety_K = torch.rand(3, 5, K, generator=generator, dtype=torch.float64)
    labels = torch.randint(V, (3, 5), generator=generator)
    student_V = torch.randn(3, 5, V, generator=generator, dtype=torch.float64).log_softmax(-1)
    whole = Signals(
        log_p=log_p_KV.masked_fill(~mask[..., None, None], math.nan),
        labels=labels.masked_fill(~mask, -100),
        safety=safety_K.masked_fill(~mask[..., None], math.nan),
        student_log_p=student_V.masked_fill(~mask[..., None], -math.inf),
        critical_classes=[0, 1],
    )
    alone = Signals(
        log_p=log_p_KV[mask],
        labels=labels[mask],
        safety=safety_K[mask],
        student_log_p=student_V[mask],
        critical_classes=[0, 1],
    )
    return mask, whole, alone


RULES = {
    "normalized": Normalized(EntropyDecay()),
    "conforming": Conforming(Confidence(), kd.WeightPolytope(K, 0.1, 0.6)),
    "unified": Unified(
        polytope=kd.WeightPolytope(K, 0.05, 0.8),
        token=EntropyDecay(),
        token_orderings=ScaleOrderings("token", K, by_group={0: [(2, 0)], 1: [(0, 1)]}),
    ),
    "scores": lambda signals: torch.exp(-signals.entropy),
    "broken": lambda signals: 2.0 * signals.safety / signals.safety.sum(-1, keepdim=True),
}


@pytest.mark.parametrize("rule", RULES)
def test_an_audit_is_that_of_the_positions_that_count(rule):
    mask, whole, alone = draw()
    losses = torch.rand(5, K, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, plain = (kd.audit(RULES[rule], signals, losses=losses, tries=2) for signals in (whole, alone))
    places = [tuple(place) for place in mask.nonzero().tolist()]
    assert [f.axiom for f in ours.findings] == [f.axiom for f in plain.findings]
    for a, b in zip(ours.findings, plain.findings, strict=True):
        assert (a.axiom, a.status, a.rows, a.judged) == (b.axiom, b.status, b.rows, b.judged)
        if a.axiom not in ("III.4", "A2", "U.4"):  # searched along random lines
            if b.worst is not None:
                assert a.worst == pytest.approx(b.worst, rel=1e-12, nan_ok=True)
            if b.where is not None:
                assert tuple(a.where) == places[b.where[0]]


def test_weights_that_were_given_are_judged_where_positions_count():
    mask, whole, alone = draw()
    w_K = torch.rand(3, 5, K, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    w_K = (w_K / w_K.sum(-1, keepdim=True)).masked_fill(~mask[..., None], math.nan)
    polytope = kd.WeightPolytope(K, 0.1, 0.6)
    ours, plain = kd.audit(w_K, whole, polytope=polytope), kd.audit(w_K[mask], alone, polytope=polytope)
    assert [(f.status, f.rows, f.judged) for f in ours.findings] == [
        (f.status, f.rows, f.judged) for f in plain.findings
    ]


def test_rows_keep_their_numbers():
    w_BK = torch.tensor([[0.5, 0.5], [0.7, 0.7], [0.5, 0.5], [0.9, 0.5]], dtype=torch.float64)
    rows = RowAudit(None)
    rows.add(w_BK, counted=torch.tensor([True, False, True, True]), first_row=10)
    tally = rows.tallies["normalization"]
    assert (tally.rows, tally.row, tally.first) == (1, 13, 13)


def test_what_a_repair_did_is_counted_where_positions_count():
    mask, whole, alone = draw()
    ours, plain = RULES["unified"].repair(whole), RULES["unified"].repair(alone)
    assert ours.counted == plain.counted == int(mask.sum())
    assert ours.repaired_fraction == plain.repaired_fraction
    assert str(ours).splitlines()[:2] == str(plain).splitlines()[:2]
    torch.testing.assert_close(ours.weights[mask], plain.weights, rtol=1e-12, atol=1e-12)
