"""What held-out data can prove about a student's safety, and what they cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._torch_state import evaluation_mode, extract_logits
from ..data import Batch, Split, Trained, as_split, find_unseen
from ..errors import InvalidInput
from ._confidence_bounds import betting_lower_bound, clopper_pearson_lower_bound, require_confidence
from ._safety_constraint import Constraint
from ._safety_measure import SafetyMeasure


@dataclass(frozen=True)
class Certificate:
    """A one-sided statement: with the stated confidence, expected safety is at least ``lower_bound``.

    Attributes:
        constraint: Its name.
        required: Its threshold.
        estimate: The plain average on the held-out data.
        lower_bound: What the data prove.
        confidence: In (0, 1).
        count: How many examples the estimate averages.
        method: Which bound.
        decision: "safe" when the bound reaches ``required``, else "not shown", which is not the same as unsafe.
        left_out: Covered examples that the student's own run had used and that do not count here.
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
    constraint: Constraint,
    held_out: Any,
    confidence: float = 0.95,
    *,
    seed: int = 0,
    batch_size: int = 4096,
) -> Certificate:
    """Bound the student's expected safety from below on data that nothing else has seen.

    A binary measure gets the exact binomial bound (Clopper and Pearson 1934), another one the betting bound
    (Waudby-Smith and Ramdas 2024) in an order shuffled by ``seed``.  Where several groups or measures make one value,
    each mean is bounded at ``1 - (1 - confidence) / groups``, so that all bounds hold at once (Bonferroni), and the
    value is taken at the bounds: it rises with every mean, the worst mix too.  A ball around the data's own shares is
    here the one around the shares in ``held_out``.

    The bound is only as honest as the data are unseen: a split that chose thresholds, weights or the student certifies
    nothing.  Values must be independent: the positions of one sequence are not, so certify such students on one
    position a sequence.

    Args:
        student: A module that gives logits (B, ..., V), or the result of a run, which knows the data it used: examples
            that it used are left out and counted, and data that hold no others are refused, naming what they were used
            for.  A bare module cannot know.
        constraint: What is to be shown; on which split it is posed does not matter.
        held_out: A Split or what ``as_split`` takes.
        confidence: In (0, 1).
        seed: Of the order in which the betting bound sees the values.
        batch_size: How many examples the student sees at a time.

    Returns:
        The certificate.

    Raises:
        InvalidInput: No example, or none of some group, is covered by the constraint, it is an equality, the student
            gives NaN or too few classes, or its run used the data.
    """
    if constraint.is_equality:
        raise InvalidInput(
            f"'{constraint.name}' asks for exactly {constraint.required:g}; no data can show an equality. "
            "Certify the side that matters: a SafetyConstraint of the same measure with at_least."
        )
    data = as_split(held_out, "held_out")
    module, data, left_out = _drop_used_examples(student, constraint, data)
    values = evaluate_groups(module, constraint, data, batch_size)
    count_G = torch.tensor([float(len(value)) for value in values], dtype=torch.float64)
    if not bool(count_G.any()):
        raise InvalidInput(
            f"No example of '{data.name}' is covered by '{constraint.name}'; nothing can be certified on it."
        )
    constraint.require_examples(data)
    confidence = require_confidence(confidence)
    level = 1 - (1 - confidence) / len(values)
    measures = [average.measure for _, average in constraint.parts for _ in range(average.size)]
    bounds = [bound_expectation(value, measure, level, seed) for value, measure in zip(values, measures, strict=True)]
    bound_G = torch.tensor([bound for _, bound in bounds], dtype=torch.float64)
    mean_G = torch.stack([value.mean() for value in values])
    method = " and ".join(sorted({which for which, _ in bounds}, reverse=True)) + (
        f", Bonferroni over {len(values)} means" if len(values) > 1 else ""
    )
    bound = _combine_means(constraint, bound_G, count_G)
    return Certificate(
        constraint=constraint.name,
        required=constraint.required,
        estimate=_combine_means(constraint, mean_G, count_G),
        lower_bound=bound,
        confidence=confidence,
        count=int(count_G.sum()),
        method=method,
        decision="safe" if bound >= constraint.required else "not shown",
        left_out=left_out,
    )


def _drop_used_examples(
    student: nn.Module | Trained, constraint: Constraint, data: Split
) -> tuple[nn.Module, Split, int]:
    """Return the module, the examples that its run did not use, and how many covered ones that leaves out."""
    if isinstance(student, nn.Module):
        return student, data, 0
    unused_N = find_unseen(data, student.uses).to(data.labels.device)
    left_out = int(constraint.covers(data.batch(~unused_N)).sum())
    return student.student, data.part(unused_N), left_out


def _combine_means(constraint: Constraint, mean_G: Tensor, count_G: Tensor) -> float:
    return constraint.offset + float(constraint.gradient(mean_G, count_G) @ mean_G)


def evaluate_groups(student: nn.Module, constraint: Constraint, data: Split, batch_size: int = 4096) -> list[Tensor]:
    """Return the measured values of each group of covered examples, all averages of the constraint one after the other.

    Args:
        student: Module from inputs (B, ...) to logits (B, ..., V); asked in eval mode.
        constraint: What is measured, and of which examples; on which split it is posed does not matter.
        data: The examples.
        batch_size: How many the student sees at a time.

    Returns:
        One tensor (n,) a group, float64, in [0, 1], on the CPU, in the order of the examples.

    Raises:
        InvalidInput: The student gives NaN or too few classes.
    """
    device = next((p.device for p in student.parameters()), torch.device("cpu"))
    chunks: list[list[Tensor]] = []
    with evaluation_mode(student), torch.no_grad():
        for index in data.chunks(batch_size):
            batch = data.batch(index).to(device)
            log_p_V = torch.log_softmax(extract_logits(student(batch.inputs), "The student").double(), dim=-1)
            _require_usable(log_p_V, batch, data.name)
            chunks.append([v.cpu() for _, average in constraint.parts for v in average.measured_values(log_p_V, batch)])
    return [torch.cat(parts).clamp(0, 1) for parts in zip(*chunks, strict=True)]  # exp(log_softmax) can pass 1


def bound_expectation(
    value_N: Tensor, measure: SafetyMeasure, confidence: float = 0.95, seed: int = 0
) -> tuple[str, float]:
    """Return which bound fits what a measure read, and that lower bound on its expectation, as ``certify`` has it.

    Args:
        value_N: Measured values in [0, 1], (N,).
        measure: What they were read by.
        confidence: In (0, 1).
        seed: Of the order in which the betting bound sees the values.

    Returns:
        Name of the method, and the bound.
    """
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
