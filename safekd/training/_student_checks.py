"""Students and optimizers with which a run cannot come out as it is meant to, and losses that are infinite.

Axes: B examples, ... positions, V classes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._precision import log_softmax
from ..errors import InvalidInput, SafekdWarning
from ..safety import Constraint


@dataclass(frozen=True)
class StudentCheckLimits:
    """When outputs count as probabilities; ``tests/safekd/training/test_student_checks.py`` notices.

    Attributes:
        rounding: Units of the outputs' precision by which a sum of probabilities may miss 1, a class.
    """

    rounding: float = 4.0


LIMITS = StudentCheckLimits()


def require_dense_gradients(student: nn.Module) -> None:
    """Raise InvalidInput for a student with embeddings whose gradients are sparse; the message names one.

    Args:
        student: Looked through.

    Raises:
        InvalidInput: An embedding was made with ``sparse=True``.
    """
    for name, part in student.named_modules():
        if isinstance(part, (nn.Embedding, nn.EmbeddingBag)) and part.sparse and part.weight.requires_grad:
            raise InvalidInput(
                f"'{name or type(part).__name__}' of the student is a {type(part).__name__} with sparse=True, whose "
                "gradients are sparse; KKT residuals and multipliers read gradients as one vector. Make it with "
                "sparse=False, and its optimizer one for dense gradients, such as Adam."
            )


def warn_of_weight_decay(optimizer: torch.optim.Optimizer, constraints: Sequence[Constraint]) -> None:
    """Warn of weight decay beside constraints: the run then rests beside the KKT point, not at it.

    Args:
        optimizer: Of the student.
        constraints: Of the problem.
    """
    decay = max(float(group.get("weight_decay", 0.0)) for group in optimizer.param_groups)
    if decay > 0 and constraints:
        warnings.warn(
            f"{type(optimizer).__name__} has weight_decay={decay:g}, and the problem has constraints: the student "
            "comes to rest where the decay balances the gradient of the Lagrangian, beside the KKT point of loss and "
            "constraints as stated. The stationarity residual, which knows of no decay, stays above 0 there, so that "
            "the run may never be called converged, and multipliers are those of another problem. Set weight_decay=0.",
            SafekdWarning,
            stacklevel=3,
        )


def warn_of_probabilities(output_V: Tensor, dtype: torch.dtype) -> None:
    """Warn of a student that gives probabilities where logits are wanted; log-probabilities are logits as well.

    Args:
        output_V: What it gave, (B, ..., V), for some examples: one row alone may sum to 1 by chance.
        dtype: Of its parameters; outputs may have been widened since.
    """
    rows, V = output_V.shape[:-1].numel(), output_V.shape[-1]
    if rows < 2 or V < 2 or not bool(((output_V >= 0) & (output_V <= 1)).all()):
        return
    missed = float((output_V.detach().double().sum(-1) - 1).abs().max())
    eps = max(torch.finfo(kind).eps for kind in (output_V.dtype, dtype) if kind.is_floating_point)
    if missed <= LIMITS.rounding * V * eps:
        warnings.warn(
            f"The student gives probabilities: all {rows} rows lie in [0, 1] and sum to 1. Its outputs are taken for "
            f"logits and go through a softmax once more, so that of its {V} classes none gets more than "
            f"{math.e / (math.e + V - 1):.3g}, and gradients are small. Drop its last Softmax, or return logarithms "
            "(LogSoftmax).",
            SafekdWarning,
            stacklevel=2,
        )


def explain_infinite_loss(log_q_V: Tensor, logits_V: Tensor, losses: Tensor, index: Tensor) -> str | None:
    """Say of the first infinite loss who leaves out which class that the other has; None where that is not the cause.

    Args:
        log_q_V: Log of the target, (B, ..., V).
        logits_V: The student's, (B, ..., V).
        losses: One loss a position, (B, ...).
        index: The examples' numbers, (B,).
    """
    infinite = torch.isposinf(losses.detach())
    if not bool(infinite.any()):
        return None
    where = tuple(int(i) for i in infinite.nonzero()[0])
    text = f"The distillation loss of example {int(index[where[0]])} is infinite"
    p_V, q_V = log_softmax(logits_V.detach()[where]).exp(), log_q_V.detach()[where].exp().to(logits_V)
    for own_V, other_V, who, whom in ((p_V, q_V, "student", "teachers"), (q_V, p_V, "target", "student")):
        missing_V = other_V * (own_V == 0)
        if bool((missing_V > 0).any()):
            v = int(missing_V.argmax())
            verb = "give" if whom == "teachers" else "gives"
            return (
                f"{text}: the {who} leaves out class {v} (a logit of minus infinity), to which the {whom} {verb} "
                f"probability {float(missing_V[v]):.3g}"
            )
    return None
