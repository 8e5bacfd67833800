"""What held-out data can prove about a student's safety, and what they cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._modes import evaluating
from ..data import Batch, as_split, logits_of
from ..errors import InvalidInput
from ._bounds import betting_lower_bound, clopper_pearson_lower_bound
from ._constraint import SafetyConstraint


@dataclass(frozen=True)
class Certificate:
    """A one-sided statement: with the stated confidence, expected safety is at least ``lower_bound``.

    decision: "safe" when the bound reaches ``required``, else "not shown", which is not the same as unsafe.
    estimate: the plain average on the held-out data; count: how many examples it averages; method: which bound.
    """

    constraint: str
    required: float
    estimate: float
    lower_bound: float
    confidence: float
    count: int
    method: str
    decision: str

    def __str__(self) -> str:
        sign = ">=" if self.decision == "safe" else "<"
        return (
            f"{self.constraint}: {self.decision}. {self.confidence:.0%} lower bound {self.lower_bound:.4f} {sign} "
            f"required {self.required:g} (average {self.estimate:.4f} over {self.count} examples, {self.method})"
        )


def certify(
    student: nn.Module,
    constraint: SafetyConstraint,
    held_out: Any,
    confidence: float = 0.95,
    *,
    seed: int = 0,
    batch_size: int = 4096,
) -> Certificate:
    """Bound the student's expected safety from below on data that nothing else has seen.

    student: a module that gives logits (B, ..., V).  held_out: a Split or what ``as_split`` takes.
    confidence: in (0, 1).
    A binary measure gets the exact binomial bound (Clopper and Pearson 1934), another one the betting bound
    (Waudby-Smith and Ramdas 2024) in an order shuffled by ``seed``.  The bound is only as honest as the data are
    unseen: a split that chose thresholds, weights or the student certifies nothing.  Values must be independent: the
    positions of one sequence are not, so certify such students on one position a sequence.
    Raises InvalidInput when no example is covered by the constraint, or the student gives NaN or too few classes.
    """
    data = as_split(held_out, "held_out")
    device = next((p.device for p in student.parameters()), torch.device("cpu"))
    values = []
    with evaluating(student), torch.no_grad():
        for index in data.chunks(batch_size):
            batch = data.batch(index).to(device)
            log_p_V = torch.log_softmax(logits_of(student(batch.inputs), "The student").double(), dim=-1)
            _require_usable(log_p_V, batch, data.name)
            values.append(constraint.measure.measured(log_p_V, batch.labels)[constraint.covers(batch)].cpu())
    value = torch.cat(values).clamp(0, 1)  # exp(log_softmax) can pass 1 by an ulp
    if value.numel() == 0:
        raise InvalidInput(
            f"No example of '{data.name}' is covered by '{constraint.name}'; nothing can be certified on it."
        )
    if constraint.measure.binary:
        method, bound = "Clopper-Pearson", clopper_pearson_lower_bound(int(value.sum()), value.numel(), confidence)
    else:
        order = torch.randperm(value.numel(), generator=torch.Generator().manual_seed(seed))
        method, bound = "betting", betting_lower_bound(value[order].numpy(), confidence)
    decision = "safe" if bound >= constraint.at_least else "not shown"
    return Certificate(
        constraint.name, constraint.at_least, float(value.mean()), bound, confidence, value.numel(), method, decision
    )


def _require_usable(log_p_V: Tensor, batch: Batch, name: str) -> None:
    if bool(torch.isnan(log_p_V).any()):  # an argmax would take NaN for the most probable class
        raise InvalidInput(f"The student gives values that are not finite on '{name}'; it cannot be certified.")
    top, known = int(batch.labels.max()), log_p_V.shape[-1]
    if top >= known:
        raise InvalidInput(f"A label of '{name}' is {top}, but the student knows only {known} classes.")
