"""What held-out data can prove about a student's safety, and what they cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._modes import evaluating
from ..data import Batch, Split, as_split, logits_of
from ..errors import InvalidInput
from ._bounds import betting_lower_bound, clopper_pearson_lower_bound
from ._constraint import Constraint


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
    constraint: Constraint,
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
    (Waudby-Smith and Ramdas 2024) in an order shuffled by ``seed``.  Where several groups or measures make one value,
    each mean is bounded at ``1 - (1 - confidence) / groups``, so that all bounds hold at once (Bonferroni), and the
    value is taken at the bounds: it rises with every mean, the worst mix too.  A ball around the data's own shares is
    here the one around the shares in ``held_out``.
    The bound is only as honest as the data are unseen: a split that chose thresholds, weights or the student certifies
    nothing.  Values must be independent: the positions of one sequence are not, so certify such students on one
    position a sequence.
    Raises InvalidInput when no example, or none of some group, is covered by the constraint, when it is an equality,
    or the student gives NaN or too few classes.
    """
    if constraint.is_equality:
        raise InvalidInput(
            f"'{constraint.name}' asks for exactly {constraint.required:g}; no data can show an equality. "
            "Certify the side that matters: a SafetyConstraint of the same measure with at_least."
        )
    data = as_split(held_out, "held_out")
    values = _values(student, constraint, data, batch_size)
    count_G = torch.tensor([float(len(value)) for value in values], dtype=torch.float64)
    if not bool(count_G.any()):
        raise InvalidInput(
            f"No example of '{data.name}' is covered by '{constraint.name}'; nothing can be certified on it."
        )
    constraint.require_examples(data)
    level = 1 - (1 - confidence) / len(values) if 0 < confidence < 1 else confidence  # the bounds refuse the latter
    binary = [average.measure.binary for _, average in constraint.parts for _ in range(average.size)]
    bound_G = torch.tensor([_bound(*one, level, seed) for one in zip(values, binary, strict=True)], dtype=torch.float64)
    mean_G = torch.stack([value.mean() for value in values])
    methods = sorted({"Clopper-Pearson" if counted else "betting" for counted in binary}, reverse=True)
    method = " and ".join(methods) + (f", Bonferroni over {len(values)} means" if len(values) > 1 else "")
    bound = _value(constraint, bound_G, count_G)
    return Certificate(
        constraint=constraint.name,
        required=constraint.required,
        estimate=_value(constraint, mean_G, count_G),
        lower_bound=bound,
        confidence=confidence,
        count=int(count_G.sum()),
        method=method,
        decision="safe" if bound >= constraint.required else "not shown",
    )


def _value(constraint: Constraint, mean_G: Tensor, count_G: Tensor) -> float:
    return constraint.offset + float(constraint.slopes(mean_G, count_G) @ mean_G)


def _bound(value: Tensor, binary: bool, level: float, seed: int) -> float:
    if binary:
        return clopper_pearson_lower_bound(int(value.sum()), value.numel(), level)
    order = torch.randperm(value.numel(), generator=torch.Generator().manual_seed(seed))
    return betting_lower_bound(value[order].numpy(), level)


def _values(student: nn.Module, constraint: Constraint, data: Split, batch_size: int) -> list[Tensor]:
    """Return the measured values of each group, all averages of the constraint one after the other."""
    device = next((p.device for p in student.parameters()), torch.device("cpu"))
    chunks: list[list[Tensor]] = []
    with evaluating(student), torch.no_grad():
        for index in data.chunks(batch_size):
            batch = data.batch(index).to(device)
            log_p_V = torch.log_softmax(logits_of(student(batch.inputs), "The student").double(), dim=-1)
            _require_usable(log_p_V, batch, data.name)
            chunks.append([v.cpu() for _, average in constraint.parts for v in average.values(log_p_V, batch)])
    return [torch.cat(parts).clamp(0, 1) for parts in zip(*chunks, strict=True)]  # exp(log_softmax) can pass 1


def _require_usable(log_p_V: Tensor, batch: Batch, name: str) -> None:
    if bool(torch.isnan(log_p_V).any()):  # an argmax would take NaN for the most probable class
        raise InvalidInput(f"The student gives values that are not finite on '{name}'; it cannot be certified.")
    top, known = int(batch.labels.max()), log_p_V.shape[-1]
    if top >= known:
        raise InvalidInput(f"A label of '{name}' is {top}, but the student knows only {known} classes.")
