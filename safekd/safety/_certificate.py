"""What held-out data can prove about a student's safety, and what they cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._modes import evaluating
from .._uses import Trained, unseen
from ..data import Batch, as_split, logits_of
from ..errors import InvalidInput
from ._bounds import betting_lower_bound, clopper_pearson_lower_bound
from ._constraint import SafetyConstraint
from ._measures import SafetyMeasure


@dataclass(frozen=True)
class Certificate:
    """A one-sided statement: with the stated confidence, expected safety is at least ``lower_bound``.

    decision: "safe" when the bound reaches ``required``, else "not shown", which is not the same as unsafe.
    estimate: the plain average on the held-out data; count: how many examples it averages; method: which bound.
    left_out: covered examples that the student's own run had used and that do not count here.
    """

    constraint: str
    required: float
    estimate: float
    lower_bound: float
    confidence: float
    count: int
    method: str
    decision: str
    left_out: int = 0

    def __str__(self) -> str:
        sign = ">=" if self.decision == "safe" else "<"
        left_out = f"; {self.left_out} left out that its training had used" if self.left_out else ""
        return (
            f"{self.constraint}: {self.decision}. {self.confidence:.0%} lower bound {self.lower_bound:.4f} {sign} "
            f"required {self.required:g} (average {self.estimate:.4f} over {self.count} examples, {self.method}"
            f"{left_out})"
        )


def certify(
    student: nn.Module | Trained,
    constraint: SafetyConstraint,
    held_out: Any,
    confidence: float = 0.95,
    *,
    seed: int = 0,
    batch_size: int = 4096,
) -> Certificate:
    """Bound the student's expected safety from below on data that nothing else has seen.

    student: a module that gives logits (B, ..., V), or the result of a run, which knows the data it used: examples that
    it used are left out and counted, and data that hold no others are refused, naming what they were used for.  A bare
    module cannot know.  held_out: a Split or what ``as_split`` takes.
    confidence: in (0, 1).
    A binary measure gets the exact binomial bound (Clopper and Pearson 1934), another one the betting bound
    (Waudby-Smith and Ramdas 2024) in an order shuffled by ``seed``.  The bound is only as honest as the data are
    unseen: a split that chose thresholds, weights or the student certifies nothing.  Values must be independent: the
    positions of one sequence are not, so certify such students on one position a sequence.
    Raises InvalidInput when no example is covered by the constraint, the student gives NaN or too few classes, or its
    run used the data.
    """
    data = as_split(held_out, "held_out")
    left_out = 0
    if not isinstance(student, nn.Module):
        fresh_N = unseen(data, student.uses).to(data.labels.device)
        left_out = int(constraint.covers(data.batch(~fresh_N)).sum())
        data, student = data.part(fresh_N), student.student
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
    method, bound = lower_bound(value, constraint.measure, confidence, seed)
    decision = "safe" if bound >= constraint.at_least else "not shown"
    return Certificate(
        constraint=constraint.name,
        required=constraint.at_least,
        estimate=float(value.mean()),
        lower_bound=bound,
        confidence=confidence,
        count=value.numel(),
        method=method,
        decision=decision,
        left_out=left_out,
    )


def lower_bound(value_N: Tensor, measure: SafetyMeasure, confidence: float = 0.95, seed: int = 0) -> tuple[str, float]:
    """Return which bound fits what ``measure`` read, and that lower bound on its expectation, as ``certify`` has it."""
    if measure.binary:
        return "Clopper-Pearson", clopper_pearson_lower_bound(int(value_N.sum()), value_N.numel(), confidence)
    order = torch.randperm(value_N.numel(), generator=torch.Generator().manual_seed(seed))
    return "betting", betting_lower_bound(value_N[order].numpy(), confidence)


def _require_usable(log_p_V: Tensor, batch: Batch, name: str) -> None:
    if bool(torch.isnan(log_p_V).any()):  # an argmax would take NaN for the most probable class
        raise InvalidInput(f"The student gives values that are not finite on '{name}'; it cannot be certified.")
    top, known = int(batch.labels.max()), log_p_V.shape[-1]
    if top >= known:
        raise InvalidInput(f"A label of '{name}' is {top}, but the student knows only {known} classes.")
