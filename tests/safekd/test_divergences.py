"""ForwardKL against torch, its zero, its temperature and its gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from safekd.divergences import ForwardKL
from safekd.errors import InvalidInput


def pair(seed: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a target's log-probabilities and a student's logits, float64."""
    generator = torch.Generator().manual_seed(seed)
    target, student = torch.randn(2, *shape, generator=generator, dtype=torch.float64) * 3
    return torch.log_softmax(target, -1), student


@given(seed=st.integers(0, 10**6), temperature=st.floats(0.2, 20))
def test_it_is_what_torch_computes(seed, temperature):
    log_q_BTV, logits_BTV = pair(seed, 4, 3, 5)
    soft_q, soft_p = ((t / temperature).log_softmax(-1) for t in (log_q_BTV, logits_BTV))
    expected = temperature**2 * functional.kl_div(soft_p, soft_q, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(ForwardKL(temperature)(log_q_BTV, logits_BTV), expected)


def test_by_hand():
    """KL((1/2, 1/2) || (1/4, 3/4)) = log 2 / 2 + log(2/3) / 2."""
    half, quarter = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    torch.testing.assert_close(ForwardKL()(half, quarter).float(), torch.tensor(0.1438410362))


@given(seed=st.integers(0, 10**6), temperature=st.floats(0.5, 10))
def test_at_least_zero_and_zero_for_the_same(seed, temperature):
    log_q_BV, logits_BV = pair(seed, 6, 4)
    divergence = ForwardKL(temperature)
    assert (divergence(log_q_BV, logits_BV) > 1e-9).all()
    shift_B1 = torch.linspace(-5, 5, 6, dtype=torch.float64).unsqueeze(-1)
    assert divergence(log_q_BV, log_q_BV + shift_B1).abs().max() < 1e-12 * temperature**2


@pytest.mark.parametrize("temperature", [0.5, 2.0, 7.0])
def test_the_law_of_the_temperature(temperature):
    """Dividing by T all logits and all logs of the target, then multiplying by T squared, is the same thing."""
    log_q_BV, logits_BV = pair(0, 6, 4)
    softened = ForwardKL()((log_q_BV / temperature).log_softmax(-1), logits_BV / temperature)
    torch.testing.assert_close(ForwardKL(temperature)(log_q_BV, logits_BV), temperature**2 * softened)


def test_hot_distillation_matches_logits():
    """For T large the loss is half the variance of the difference of logits over classes, summed: Hinton et al."""
    log_q_BV, logits_BV = pair(3, 5, 4)
    gap_BV = (log_q_BV - log_q_BV.mean(-1, True)) - (logits_BV - logits_BV.mean(-1, True))
    torch.testing.assert_close(
        ForwardKL(1e4)(log_q_BV, logits_BV), gap_BV.square().sum(-1) / (2 * 4), rtol=2e-3, atol=1e-4
    )


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradcheck(temperature):
    log_q_BV, logits_BV = pair(1, 3, 4)
    assert torch.autograd.gradcheck(ForwardKL(temperature), (log_q_BV, logits_BV.requires_grad_()))
    assert torch.autograd.gradcheck(ForwardKL(temperature), (log_q_BV.requires_grad_(), logits_BV.detach()))


def test_the_gradient_is_the_difference_of_distributions():
    log_q_BV, logits_BV = pair(2, 3, 4)
    logits_BV.requires_grad_()
    ForwardKL()(log_q_BV, logits_BV).sum().backward()
    torch.testing.assert_close(logits_BV.grad, logits_BV.detach().softmax(-1) - log_q_BV.exp())


def test_zero_log_zero_is_zero():
    """A class that the target never names costs nothing by itself: KL((1, 0, 0) || p) = -log p_0."""
    log_q_V = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).log()
    logits_V = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64, requires_grad=True)
    loss = ForwardKL()(log_q_V, logits_V)
    torch.testing.assert_close(loss, -logits_V.log_softmax(-1)[0])
    loss.backward()
    torch.testing.assert_close(logits_V.grad, logits_V.detach().softmax(-1) - log_q_V.exp())


def test_a_class_that_both_exclude_costs_nothing():
    log_q_V = torch.tensor([0.5, 0.5, 0.0]).log()
    logits_V = torch.tensor([0.0, 0.0, -torch.inf], requires_grad=True)
    loss = ForwardKL()(log_q_V, logits_V)
    loss.backward()
    assert abs(float(loss.detach())) < 1e-6
    assert torch.isfinite(logits_V.grad).all()


def test_a_class_that_only_the_student_excludes_costs_without_limit():
    assert ForwardKL()(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.0, -torch.inf])) == torch.inf


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none(temperature):
    with pytest.raises(InvalidInput, match=r"`temperature` is .*; it must be above 0 and finite"):
        ForwardKL(temperature)


def test_shapes_that_do_not_fit():
    with pytest.raises(InvalidInput, match=r"target has shape \(2, 3\), the student gives \(2, 4\)"):
        ForwardKL()(torch.zeros(2, 3), torch.zeros(2, 4))
