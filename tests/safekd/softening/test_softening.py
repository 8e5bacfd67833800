"""Softening operators: the five axioms, temperatures a teacher, and tables of the most probable classes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safekd.errors import InvalidInput
from safekd.softening import SOFTENINGS, PowerSoftening, UniformMixing, audit_softening

from ..pooling.random_teachers import draw_teachers

KINDS = [PowerSoftening(), UniformMixing()]


def assert_close(found, wanted, tolerance=1e-12):
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


@given(seed=st.integers(0, 10**6), T=st.floats(1, 50))
def test_probabilities_alone_say_what_logits_would(seed, T):
    logits = draw_teachers(seed, 4, 6) + 7.0
    log_p = logits.log_softmax(-1)
    assert_close(PowerSoftening()(log_p, T).exp(), (logits / T).softmax(-1))
    assert_close(UniformMixing()(log_p, T).exp(), log_p.exp() / T + (1 - 1 / T) / 6)


@pytest.mark.parametrize("kind", SOFTENINGS)
def test_both_keep_all_five_axioms(kind):
    audit = audit_softening(kind)
    assert [one.axiom for one in audit] == ["rank", "continuity", "entropy", "identity", "limit"]
    assert not audit.violated


def uniform(log_p):
    return torch.full_like(log_p, -math.log(log_p.shape[-1]))


BROKEN = {
    "rank": (lambda log_p, T: log_p if T == 1 else PowerSoftening()(log_p, T).flip(-1), {"rank", "continuity"}),
    "continuity": (lambda log_p, T: log_p if T < 2 else uniform(log_p), {"continuity"}),
    "a small jump": (lambda log_p, T: PowerSoftening()(log_p, T if T < 1.3 else 0.05 + T * 0.99), {"continuity"}),
    "entropy": (lambda log_p, T: PowerSoftening()(log_p, T if T < 8 or T > 50 else 58 - T), {"continuity", "entropy"}),
    "identity": (lambda log_p, T: PowerSoftening()(log_p, 0.5 * T), {"identity"}),
    "limit": (lambda log_p, T: PowerSoftening()(log_p, min(T, 3.0)), {"limit"}),
}


@pytest.mark.parametrize("axiom", BROKEN)
def test_an_operator_that_breaks_one_is_refuted(axiom):
    operator, broken = BROKEN[axiom]
    audit = audit_softening(operator)
    assert {one.axiom for one in audit.violated} == broken
    assert all(one.counterexample for one in audit.violated)


@pytest.mark.parametrize("operator", KINDS, ids=str)
def test_a_temperature_for_each_teacher(operator):
    log_p, T = draw_teachers(0, 5, 3, 4), torch.tensor([1.0, 2.0, 7.5], dtype=torch.float64)
    together = operator(log_p, T)
    for k in range(3):
        assert_close(together[:, k], operator(log_p[:, k], float(T[k])))
    assert_close(together[:, 0], log_p[:, 0])


@given(seed=st.integers(0, 10**6), T=st.floats(1, 30), k=st.integers(1, 9), kind=st.sampled_from(KINDS))
def test_a_table_with_a_tail_is_the_dense_distribution_cut_the_same_way(seed, T, k, kind):
    log_p = draw_teachers(seed, 3, 9)
    kept, _ = log_p.topk(k)
    tail = (1 - kept.exp().sum(-1)).clamp_min(0.0)
    dense = torch.cat([kept, (tail / max(9 - k, 1)).log().unsqueeze(-1).expand(3, 9 - k)], -1)
    soft, soft_tail = kind.soften_table(kept, tail, 9, T)
    wanted = kind(dense, T)
    assert_close(soft, wanted[:, :k], 1e-10)
    assert_close(soft_tail, wanted[:, k:].exp().sum(-1), 1e-10)


def test_zeros_of_probability():
    log_p = torch.tensor([0.75, 0.25, 0.0]).log()
    assert PowerSoftening()(log_p, 100.0)[2].exp() == 0
    assert UniformMixing()(log_p, 2.0).exp().tolist() == pytest.approx([0.375 + 1 / 6, 0.125 + 1 / 6, 1 / 6])
    for operator in KINDS:
        assert operator(log_p, 1.0).exp().tolist() == pytest.approx([0.75, 0.25, 0.0])
        soft, tail = operator.soften_table(log_p[:2], torch.tensor(0.0), 2, 3.0)
        assert tail == 0
        assert float(soft.exp().sum()) == pytest.approx(1)


def test_half_types_are_widened():
    log_p = draw_teachers(1, 4, 50).bfloat16()
    assert PowerSoftening()(log_p, 2.0).dtype == torch.float32
    assert PowerSoftening()(log_p, 2.0).exp().sum(-1).tolist() == pytest.approx([1] * 4, abs=1e-5)


LOG_P = torch.tensor([0.5, 0.3, 0.2]).log()
REFUSED = {
    "zero": (lambda: PowerSoftening()(LOG_P, 0.0), "`temperature` is 0.0; it must be above 0 and finite"),
    "nan": (lambda: PowerSoftening()(LOG_P, torch.tensor([1.0, math.nan])), "must be above 0 and finite"),
    "below 1": (lambda: UniformMixing()(LOG_P, 0.5), "is 0.5; UniformMixing is defined from 1 on. Take PowerSoftening"),
    "shape": (lambda: PowerSoftening()(LOG_P.expand(2, 3), torch.ones(4)), r"has shape \(4,\) for .* \(2, 3\)"),
    "empty": (lambda: PowerSoftening()(LOG_P, torch.ones(0)), "an empty tensor"),
    "tail": (lambda: PowerSoftening().soften_table(LOG_P[:2], torch.tensor(0.5), 9, 2.0), "sum to 1.3"),
    "no room": (
        lambda: PowerSoftening().soften_table(LOG_P, torch.tensor(0.0), 2, 2.0),
        "is 2 for a table of 3 classes",
    ),
    "tail's shape": (lambda: PowerSoftening().soften_table(LOG_P, torch.zeros(2), 9, 2.0), r"`tail` has shape \(2,\)"),
    "nothing left": (
        lambda: PowerSoftening().soften_table(LOG_P[:2], torch.tensor(0.2), 2, 2.0),
        "A table of all 2 classes has a tail of 0.2",
    ),
    "operator": (lambda: audit_softening("flat"), "`operator` is 'flat'; wanted 'power', 'uniform', or a function"),
    "operator's sum": (lambda: audit_softening(lambda log_p, T: log_p / T), "exponentials sum to"),
    "operator's shape": (lambda: audit_softening(lambda log_p, T: log_p[:1]), r"gives \(1, 6\) for \(64, 6\)"),
    "operator fails": (lambda: audit_softening(lambda log_p, T: 1 / 0), "fails at temperature 0.25 with ZeroDivision"),
    "rows": (lambda: audit_softening(PowerSoftening(), torch.zeros(2, 3)), "wanted rows of log-probabilities"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    call, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        call()
