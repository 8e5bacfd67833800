"""A meta-teacher: weights that make the student's next step help most where the student is worst.

With L_KD(theta) = 1/n sum_ik w_ik KD_ik(theta) over n positions and theta' = theta - eta grad L_KD(theta),

    d CE(theta') / d w_ik  =  -eta/n <grad CE(theta'), grad KD_ik(theta)>  =  -eta/n <T (p_s^T - p_k^T)_i, (J g')_i>

where g' = grad CE(theta') and J is the Jacobian of the student's logits: one directional derivative gives the gradient
for every position and every teacher, exactly.  Axes: B batch, ... positions, K teachers, V classes, n positions in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..._precision import log_softmax
from ..._torch_state import call_module, evaluation_mode, extract_logits
from ...data import fill_uncounted
from ...errors import InvalidInput
from ..rules import register_rule
from ..signals import Signals
from ._learned_rule import StudentStep
from ._teacher_network import NETWORK_NEEDS, TeacherNetwork

Parameters = Mapping[str, Tensor]


@register_rule
class MetaTeacher(nn.Module):
    """Weights that make the student's next step help most where the student is worst, learned by a look-ahead.

    They come from a small network of (entropy, cross-entropy, KL to the student, largest p) of each teacher.  Its
    parameters follow the gradient of the student's cross-entropy on hard positions after a look-ahead step, by way of
    the weights that were used, after composition and projection.  The look-ahead is one plain gradient step of the
    distillation loss alone with the student's learning rate, read in eval mode: no dropout in it, no running average
    moved.  It costs two more backward passes of the student and three forward ones.

    Args:
        hidden: Width of the network, at least 1.
        temperature: Of KD and KL, above 0.
        hard: Share of the batch's positions, those of the largest cross-entropy, in (0, 1].

    Source: meta-learned weights, Zhang et al. 2023 (MMKD).  The published network reads all logits, which is impossible
    for large vocabularies.
    """

    scale: ClassVar[str] = "token"
    needs: ClassVar[frozenset[str]] = NETWORK_NEEDS
    continuous: ClassVar[bool] = True

    def __init__(self, hidden: int = 16, *, temperature: float = 1.0, hard: float = 0.5) -> None:
        super().__init__()
        if not (math.isfinite(hard) and 0 < hard <= 1):
            raise InvalidInput(f"`hard` of MetaTeacher is {hard!r}; it is a share of positions, above 0 and at most 1.")
        self.hard = float(hard)
        self.network = TeacherNetwork(hidden, temperature)

    def forward(self, signals: Signals) -> Tensor:
        """Return weights, (..., K), that sum to one.

        Args:
            signals: The signals of a batch.
        """
        weights_K: Tensor = self.network(signals).exp()
        return weights_K

    def learn(self, step: StudentStep) -> Tensor:
        """Return a scalar whose gradient by ``step.weights_K`` is that of the hard positions' loss after the step.

        Args:
            step: The step that the student is about to take.
        """
        gradient_K = look_ahead(step, self.network.temperature, self.hard)
        return (gradient_K.to(step.weights_K) * step.weights_K).sum()


def look_ahead(step: StudentStep, temperature: float, hard: float) -> Tensor:
    """Return the gradient by each weight of the cross-entropy on hard positions after one student step.

    Args:
        step: The step that the student is about to take.
        temperature: Of KD, above 0.
        hard: Share of positions that count, in (0, 1].

    Returns:
        The gradient, (..., K).

    Raises:
        MissingSignal: The true classes are not known.
    """
    student, labels = step.student, step.signals.true_classes
    theta = {n: p.detach().requires_grad_() for n, p in student.named_parameters() if p.requires_grad}

    def compute_logits(parameters: Parameters) -> Tensor:
        def run(*inputs: Tensor, **named: Tensor) -> Any:
            return functional_call(student, dict(parameters), inputs, named)

        logits_V = extract_logits(call_module(run, step.inputs), "The student")
        return fill_uncounted(logits_V, step.signals.mask, 0.0)

    with evaluation_mode(student), torch.enable_grad(), _differentiable_twice():
        z_V = compute_logits(theta)
        read = Signals(log_p=step.signals.log_p, student_log_p=log_softmax(z_V.detach()), mask=step.signals.mask)
        gradient_KV = read.student_gradient(temperature)
        w_K, label_P = step.weights_K.detach(), read.select_counted(labels)
        positions = len(label_P)
        pooled_V = (w_K.unsqueeze(-1) * gradient_KV).sum(-2) / positions
        gradient = _backward_gradient(z_V, theta, pooled_V.to(z_V))
        ahead = {n: (p.detach() - step.rate * gradient[n]).requires_grad_() for n, p in theta.items()}
        chosen = _select_hardest(read.select_counted(z_V.detach()), label_P, hard)
        ahead_PV = read.select_counted(compute_logits(ahead))
        hard_loss = nn.functional.cross_entropy(ahead_PV[chosen], label_P[chosen])
        change_V = _directional_derivative(compute_logits, theta, _backward_gradient(hard_loss, ahead))
    return -(step.rate / positions) * (gradient_KV * change_V.unsqueeze(-2)).sum(-1)


@contextmanager
def _differentiable_twice() -> Iterator[None]:
    """Keep to operations with a second derivative: fused attention and compiled students have the first alone."""
    with sdpa_kernel(SDPBackend.MATH), torch.compiler.set_stance("force_eager"):
        yield


def _select_hardest(z_PV: Tensor, label_P: Tensor, share: float) -> Tensor:
    loss = nn.functional.cross_entropy(z_PV, label_P, reduction="none")
    return loss.topk(math.ceil(share * len(loss))).indices


def _backward_gradient(output: Tensor, parameters: Parameters, direction: Tensor | None = None) -> dict[str, Tensor]:
    """Return the gradient of <direction, output>, or of a scalar, zero for parameters that it does not depend on."""
    gradients: Sequence[Tensor | None] = torch.autograd.grad(
        output, list(parameters.values()), direction, allow_unused=True
    )
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(parameters.items(), gradients, strict=True)}


def _directional_derivative(
    function: Callable[[Parameters], Tensor], parameters: Parameters, direction: Parameters
) -> Tensor:
    """Return the derivative of a function in a direction, by one pass forward where its operations allow that."""
    try:
        with forward_ad.dual_level():
            moving = {n: forward_ad.make_dual(p, direction[n]) for n, p in parameters.items()}  # type: ignore[no-untyped-call]
            change: Tensor = forward_ad.unpack_dual(function(moving)).tangent  # type: ignore[no-untyped-call]
            return change.detach()
    except NotImplementedError:  # an operation knows only how to go backwards: derive its gradient once more
        value = function(parameters)
        weight = torch.zeros_like(value, requires_grad=True)
        gradients = torch.autograd.grad(value, list(parameters.values()), weight, create_graph=True, allow_unused=True)
        parts = [(s * direction[n]).sum() for n, s in zip(parameters, gradients, strict=True) if s is not None]
        return torch.autograd.grad(torch.stack(parts).sum(), weight)[0]
