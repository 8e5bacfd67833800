"""The source of a number that is not finite: which constraint, parameter or rule.  Read only once there is one.

Axes: ... positions, V classes, M constraints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..._precision import find_unusable_rows
from ..._torch_state import ask_module
from ...data import Batch
from ...distributed import take_own_shard
from ...safety import Constraint
from ...weights import Learner
from .._student_checks import explain_infinite_loss


def find_loss_source(
    student: nn.Module,
    logits_V: Tensor,
    losses: Tensor | None = None,
    index: Tensor | None = None,
    log_q_V: Tensor | None = None,
) -> str:
    """Say where a distillation loss that is not finite comes from, first cause first; teachers are checked earlier.

    Args:
        student: Its parameters are looked at first.
        logits_V: What it gave, (B, ..., V).
        losses: One loss a position, (B, ...).
        index: The examples' numbers, (B,).
        log_q_V: Log of the target, (B, ..., V).
    """
    usable = not bool(find_unusable_rows(logits_V).any())
    if usable and losses is not None and index is not None and log_q_V is not None:
        explained = explain_infinite_loss(log_q_V, logits_V, losses, index)
        if explained is not None:
            return explained
    for name, value in student.named_parameters():
        if not _is_finite(value):
            return f"The student's parameter '{name}' is not finite"
    if not usable:
        return "The student's output is not finite"
    if losses is not None and index is not None:
        bad = ~torch.isfinite(losses.detach()).reshape(len(index), -1).all(1)
        if bool(bad.any()) and not bool(bad.all()):
            return f"The distillation loss of example {int(index[bad][0])} is not finite"
    return "The distillation loss is not finite"


def find_value_source(constraints: Sequence[Constraint], surrogate_M: Tensor, measured_M: Tensor) -> str | None:
    """Name the first constraint with a surrogate or a measured value that is not finite, or return None.

    Args:
        constraints: M of them.
        surrogate_M: Surrogates, (M,).
        measured_M: Measured values, (M,).
    """
    for m, rule in enumerate(constraints):
        for what, value_M in (("measured value", measured_M), ("surrogate", surrogate_M)):
            if not _is_finite(value_M[m]):
                return f"The {what} of constraint '{rule.name}' is not finite"
    return None


def find_gradient_source(student: nn.Module, terms: Mapping[str, Tensor], batch: Batch | None = None) -> str:
    """Name the first parameter whose gradient is not finite, and the one term alone that makes it so, if it is one.

    Args:
        student: Its parameters are looked at in order.
        terms: What was summed, by name, read once more since the graph of the sum is gone.
        batch: Examples of the step; None where what the student gives beside what counts is not looked at.
    """
    return _find_gradient_source(student, terms) + ("" if batch is None else _blame_uncounted(student, batch))


def _blame_uncounted(student: nn.Module, batch: Batch) -> str:
    """Say that what a student gives where no position counts is not finite, where that is so."""
    if batch.mask is None:
        return ""
    with torch.no_grad():
        given_V = ask_module(student, batch.inputs, "The student")[~batch.mask]
    if _is_finite(given_V):
        return ""
    return (
        "; the student gives what is not finite where positions do not count, and its own backward pass makes NaN of "
        "the gradient of 0 there (0 * NaN): mend it there, or give those positions other inputs"
    )


def _find_gradient_source(student: nn.Module, terms: Mapping[str, Tensor]) -> str:
    """Name parameter and term, as above."""
    variables = {name: p for name, p in student.named_parameters() if p.requires_grad}
    broken: dict[str, str] = {}
    for what, term in terms.items():
        if term.requires_grad:
            gradients = torch.autograd.grad(term, list(variables.values()), retain_graph=True, allow_unused=True)
            bad = [name for name, s in zip(variables, gradients, strict=True) if not (s is None or _is_finite(s))]
            broken |= {what: bad[0]} if bad else {}
    if len(broken) == 1:
        [(what, name)] = broken.items()
        return f"The gradient of {what} in the student's parameter '{name}' is not finite"
    for name, value in student.named_parameters():
        if value.grad is not None and not _is_finite(value.grad):
            return f"The gradient of the student's parameter '{name}' is not finite"
    return "The gradient's norm is too large for its number type"


def _is_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(take_own_shard(value)).all())


def find_rule_source(learners: Sequence[Learner], losses: Mapping[str, Tensor]) -> str | None:
    """Name the first rule with a loss, by place, or a gradient that is not finite, or return None.

    Args:
        learners: Rules that learn.
        losses: Their own losses, by place.
    """
    for learner in learners:
        if learner.place in losses and not _is_finite(losses[learner.place].detach()):
            return f"The loss of weighting rule {learner.name} is not finite"
        for name, value in learner.parameters.items():
            if value.grad is not None and not _is_finite(value.grad):
                return f"The gradient of '{name}' of weighting rule {learner.name} is not finite"
    return None


def find_rule_step_source(learners: Sequence[Learner]) -> str | None:
    """Name the first parameter of a rule that is not finite, or return None.

    Args:
        learners: Rules that learn.
    """
    for learner in learners:
        for name, value in learner.parameters.items():
            if not _is_finite(value.detach()):
                return f"Parameter '{name}' of weighting rule {learner.name} is not finite after its step"
    return None


def find_non_finite_parameter(student: nn.Module) -> str | None:
    """Name the first parameter that a step left not finite, or return None.

    Args:
        student: After the step.
    """
    for name, value in student.named_parameters():
        if not _is_finite(value.detach()):
            return f"The optimizer's step makes the student's parameter '{name}' not finite"
    return None
