"""The arithmetic pool against the plain sum, and its gradient where a logarithm has none."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safekd.errors import InvalidInput
from safekd.pooling import arithmetic_pool
from safekd.weights import EntropyDecay, Signals


def teachers(seed: int, *shape: int) -> torch.Tensor:
    """Return random distributions, (..., K, V), float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).mul(3).softmax(-1)


def weights(seed: int, *shape: int) -> torch.Tensor:
    """Return random weights, (..., K), float64."""
    generator = torch.Generator().manual_seed(seed + 1000)
    return torch.rand(*shape, generator=generator, dtype=torch.float64).softmax(-1)


@given(seed=st.integers(0, 10**6), K=st.integers(1, 6), V=st.integers(1, 9))
def test_it_is_the_sum(seed, K, V):
    p_BTKV, w_BTK = teachers(seed, 3, 2, K, V), weights(seed, 3, 2, K)
    by_hand = sum(w_BTK[..., k, None] * p_BTKV[..., k, :] for k in range(K))
    torch.testing.assert_close(arithmetic_pool(p_BTKV.log(), w_BTK).exp(), by_hand, rtol=1e-12, atol=1e-15)


@given(seed=st.integers(0, 10**6))
def test_it_lies_in_the_convex_hull(seed):
    """Every linear reading of the pool is between the teachers' readings: Definition III.7."""
    p_BKV, w_BK = teachers(seed, 4, 3, 5), weights(seed, 4, 3)
    q_BV = arithmetic_pool(p_BKV.log(), w_BK).exp()
    direction_V = torch.randn(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    reading_BK = p_BKV @ direction_V
    slack = 1e-12
    assert ((q_BV @ direction_V) <= reading_BK.amax(-1) + slack).all()
    assert ((q_BV @ direction_V) >= reading_BK.amin(-1) - slack).all()
    torch.testing.assert_close(q_BV.sum(-1), torch.ones(4, dtype=torch.float64))


def test_a_single_vote_is_that_teacher():
    log_p_KV = teachers(0, 3, 4).log()
    torch.testing.assert_close(arithmetic_pool(log_p_KV, torch.eye(3, dtype=torch.float64)[1]), log_p_KV[1])


def test_zeros_of_probability_stay_zeros():
    p_KV = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    log_q_V = arithmetic_pool(p_KV.log(), torch.tensor([0.25, 0.75], dtype=torch.float64))
    assert log_q_V.exp().tolist() == [0.25, 0.75, 0.0]


def test_tiny_probabilities_do_not_underflow():
    """exp(-2000) is no float, its logarithm is; a teacher of weight 0 must not hide it."""
    log_p_KV = torch.tensor([[0.0, -3.0], [-2000.0, -4.0]])
    assert arithmetic_pool(log_p_KV, torch.tensor([0.0, 1.0]))[0] == -2000.0
    both = torch.tensor([[-2000.0, -1.0], [-2001.0, -1.0]], dtype=torch.float64)
    expected = torch.logsumexp(both[:, 0] + torch.tensor([0.5, 0.5]).log().double(), 0)
    torch.testing.assert_close(arithmetic_pool(both, torch.tensor([0.5, 0.5], dtype=torch.float64))[0], expected)


def test_gradcheck():
    log_p_BKV = teachers(1, 2, 3, 4).log().requires_grad_()
    score_BK = weights(1, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, s: arithmetic_pool(p, s / s.sum(-1, True)), (log_p_BKV, score_BK))


def test_the_gradient_at_a_weight_of_zero_is_the_ratio():
    """It is d log q / d w_k = p_k / q, which a logarithm of the weight would turn into 0 times infinity."""
    p_KV = torch.tensor([[0.5, 0.5, 0.0], [0.3, 0.7, 0.0]], dtype=torch.float64)
    w_K = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    arithmetic_pool(p_KV.log(), w_K)[:2].sum().backward()
    torch.testing.assert_close(w_K.grad, (p_KV[:, :2] / p_KV[1, :2]).sum(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_zeros(dtype):
    p_KV = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0]], dtype=dtype)
    log_p_KV = p_KV.log().requires_grad_()
    w_K = torch.tensor([1.0, 0.0], dtype=dtype, requires_grad=True)
    arithmetic_pool(log_p_KV, w_K).exp().sum().backward()
    assert torch.isfinite(log_p_KV.grad).all()
    assert torch.isfinite(w_K.grad).all()


def test_nan_is_not_hidden():
    log_p_KV = torch.tensor([[float("nan"), -1.0], [-1.0, -1.0]])
    assert arithmetic_pool(log_p_KV, torch.tensor([0.5, 0.5])).isnan().tolist() == [True, False]


def test_bfloat16_weights_are_near_enough():
    third = torch.full((3,), 1 / 3, dtype=torch.bfloat16)
    pooled = arithmetic_pool(teachers(0, 3, 4).log().bfloat16(), third)
    assert pooled.float().exp().sum() == pytest.approx(1, abs=0.02)


SHAPE = torch.zeros(2, 3, 4)
REFUSED = {
    "shape": (SHAPE, torch.ones(3) / 3, r"shape \(3,\) do not fit teachers of shape \(2, 3, 4\); .* shape \(2, 3\)"),
    "negative": (SHAPE[0], torch.tensor([0.7, 0.5, -0.2]), "A weight is -0.2; .*Project them first"),
    "sum": (SHAPE[0], torch.ones(3), r"Weights sum to 3; .*Conforming\(rule, polytope\)"),
    "nan": (SHAPE[0], torch.tensor([0.5, 0.5, float("nan")]), "Weights sum to nan"),
    "one row": (SHAPE, torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.1, 0.1]]), "Weights sum to 0.3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    log_p, w, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        arithmetic_pool(log_p, w)


def test_raw_scores_of_a_rule_are_refused():
    signals = Signals(log_p=teachers(0, 5, 3, 4).log())
    with pytest.raises(InvalidInput, match="pool needs weights that sum to 1"):
        arithmetic_pool(signals.log_p, EntropyDecay()(signals))
