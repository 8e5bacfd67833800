"""Divergences against torch and by hand: their zero, their temperature and their gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from safekd.divergences import DIVERGENCES, ForwardKL, JensenShannon, ReverseKL
from safekd.errors import InvalidInput
from safekd.pooling import POOLS
from safekd.teachers import StoredTeacher
from tests.support.problems import FreeLogits, one_each, trainer_for


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


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf"), 1e300, 1e-300, "2", True, None])
def test_a_temperature_that_is_none(temperature):
    with pytest.raises(
        InvalidInput, match=r"`temperature` is .*; it must be above 0 and finite: a number from 0.0001 to 10000"
    ):
        ForwardKL(temperature)


def test_shapes_that_do_not_fit():
    with pytest.raises(InvalidInput, match=r"target has shape \(2, 3\), the student gives \(2, 4\)"):
        ForwardKL()(torch.zeros(2, 3), torch.zeros(2, 4))


# reverse and Jensen-Shannon -----------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), temperature=st.floats(0.3, 10))
def test_the_reverse_divergence_is_the_forward_one_the_other_way_round(seed, temperature):
    log_q_BV, logits_BV = pair(seed, 5, 4)
    torch.testing.assert_close(
        ReverseKL(temperature)(log_q_BV, logits_BV), ForwardKL(temperature)(logits_BV.log_softmax(-1), log_q_BV)
    )


@given(seed=st.integers(0, 10**6), beta=st.floats(0.01, 0.99), temperature=st.floats(0.3, 10))
def test_jensen_shannon_is_its_formula(seed, beta, temperature):
    log_q_BV, logits_BV = pair(seed, 5, 4)
    q, p = ((t / temperature).softmax(-1) for t in (log_q_BV, logits_BV))
    m = beta * q + (1 - beta) * p
    by_hand = beta * (q * (q / m).log()).sum(-1) + (1 - beta) * (p * (p / m).log()).sum(-1)
    torch.testing.assert_close(
        JensenShannon(temperature, beta)(log_q_BV, logits_BV), temperature**2 * by_hand, rtol=1e-6, atol=1e-10
    )


def test_beta_is_the_share_of_the_target():
    """Of disjoint distributions it is the entropy of (beta, 1 - beta), log 2 at most; its ends are the two others."""
    apart = torch.tensor([1.0, 0.0], dtype=torch.float64).log(), torch.tensor([0.0, 1.0], dtype=torch.float64).log()
    for beta in (0.5, 0.2):
        entropy = -beta * torch.tensor(beta).log() - (1 - beta) * torch.tensor(1 - beta).log()
        assert float(JensenShannon(beta=beta)(*apart)) == pytest.approx(float(entropy))
    log_q_BV, logits_BV = pair(0, 5, 4)
    near = 1e-6
    torch.testing.assert_close(
        JensenShannon(beta=near)(log_q_BV, logits_BV) / near, ForwardKL()(log_q_BV, logits_BV), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(
        JensenShannon(beta=1 - near)(log_q_BV, logits_BV) / near, ReverseKL()(log_q_BV, logits_BV), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("kind", DIVERGENCES.values())
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradients_of_every_divergence(kind, temperature):
    log_q_BV, logits_BV = pair(1, 3, 4)
    assert torch.autograd.gradcheck(kind(temperature), (log_q_BV, logits_BV.requires_grad_()))
    assert torch.autograd.gradgradcheck(kind(temperature), (log_q_BV, logits_BV))
    equal = kind(temperature)(log_q_BV, log_q_BV + 3.0)
    assert float(equal.abs().max()) < 1e-12 * temperature**2


@pytest.mark.parametrize("beta", [0, 1, -0.1, float("nan"), "half"])
def test_a_share_that_is_none(beta):
    with pytest.raises(InvalidInput, match=r"`beta` of JensenShannon is .* At 0 take ForwardKL, at 1 ReverseKL"):
        JensenShannon(beta=beta)


# by name ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("pool", POOLS)
def test_a_trainer_takes_divergences_and_pools_by_name(name, pool):
    def loss(divergence, pool):
        student = FreeLogits()
        p_NV = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], dtype=torch.float64)
        teachers = [StoredTeacher(f"t{k}", p_V.expand(3, -1)) for k, p_V in enumerate(p_NV)]
        trainer = trainer_for(student=student, teachers=teachers, lr=1e-30, divergence=divergence, pool=pool)
        return trainer.fit(one_each(), epochs=1).point.loss

    assert loss(name, pool) == pytest.approx(loss(DIVERGENCES[name](), POOLS[pool]))
    assert loss(name, "arithmetic") != pytest.approx(loss(name, "geometric"))


@pytest.mark.parametrize(("what", "given"), [("divergence", "kl"), ("pool", "mean"), ("divergence", 3), ("pool", None)])
def test_names_that_are_none(what, given):
    with pytest.raises(InvalidInput, match=rf"`{what}` is .*; wanted '(forward_kl|arithmetic)'"):
        trainer_for(**{what: given})
