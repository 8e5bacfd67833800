"""What held-out data can prove about a student's safety, and what they cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from solvers.short_repr import ShortRepr

from .._number_checks import is_whole, require_seed
from ..data import Fields, Split, Trained, as_split, find_unseen, require_same_names
from ..errors import InvalidInput
from ._clustered_values import ClusteredValues, evaluate_groups
from ._confidence_bounds import require_confidence
from ._safety_constraint import Constraint


@dataclass(frozen=True, repr=False)
class Certificate(ShortRepr):
    """A one-sided statement: with the stated confidence, expected safety is at least ``lower_bound``.

    Attributes:
        constraint: Its name.
        required: Its threshold.
        estimate: The plain average on the held-out data.
        lower_bound: What the data prove.
        confidence: In (0, 1).
        count: How many values the estimate averages: one an example, or one a position.
        method: Which bound.
        decision: "safe" when the bound reaches ``required``, else "not shown", which is not the same as unsafe.
        left_out: Covered examples that the student's own run had used and that do not count here.
        clusters: How many independent clusters the values are of; ``count`` where every value is one.
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
    clusters: int = 0

    def __str__(self) -> str:
        sign = ">=" if self.decision == "safe" else "<"
        what = "examples" if self.clusters == self.count else f"values in {self.clusters} clusters"
        left_out = f"; {self.left_out} left out that its training had used" if self.left_out else ""
        return (
            f"{self.constraint}: {self.decision}. {self.confidence:.0%} lower bound {self.lower_bound:.4f} {sign} "
            f"required {self.required:g} (average {self.estimate:.4f} over {self.count} {what}, {self.method}"
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
    largest_cluster: int | None = None,
    fields: Fields | None = None,
) -> Certificate:
    """Bound the student's expected safety from below on data that nothing else has seen.

    A binary measure gets the exact binomial bound (Clopper and Pearson 1934), another one the betting bound
    (Waudby-Smith and Ramdas 2024) in an order shuffled by ``seed``.  Where several groups or measures make one value,
    each mean is bounded at ``1 - (1 - confidence) / groups``, so that all bounds hold at once (Bonferroni), and the
    value is taken at the bounds: it rises with every mean, the worst mix too.  A ball around the data's own shares is
    here the one around the shares in ``held_out``.

    The bound is only as honest as the data are unseen: a split that chose thresholds, weights or the student certifies
    nothing.  What is independent is clusters: the positions of one sequence are one, and the examples that the split's
    ``cluster`` puts together, such as those of one patient.  Examples are independent where it has none.  A betting
    bound then sees the clusters, whose sizes count as those in the data do, and which need a largest size: where they
    differ and ``largest_cluster`` is not given, the statement is about clusters up to the largest of the data, of which
    that one is no evidence; ``method`` says so.

    Args:
        student: A module that gives logits (B, ..., V), or the result of a run, which knows the data it used: examples
            that it used are left out and counted, and data that hold no others are refused, naming what they were used
            for.  A bare module cannot know.
        constraint: What is to be shown; on which split it is posed does not matter.
        held_out: A Split or what ``as_split`` takes.
        confidence: In (0, 1).
        seed: Of the order in which the betting bound sees the values.
        batch_size: How many examples the student sees at a time.
        largest_cluster: How many examples a cluster can have at most, where that is known.
        fields: What the parts of ``held_out`` are where it is no Split, as for ``as_split``.

    Returns:
        The certificate.

    Raises:
        InvalidInput: No example, or none of some group, is covered by the constraint, it is an equality or names what
            the data do not have, the student gives NaN or too few classes, or its run used the data.
    """
    _refuse_equality(constraint)
    seed = require_seed(seed)
    for name, value in (("batch_size", batch_size), ("largest_cluster", largest_cluster)):
        if value is not None and not (is_whole(value) and value >= 1):
            raise InvalidInput(f"`{name}` is {value!r}; wanted a whole number of at least 1.")
    data = as_split(held_out, "held_out", fields)
    constraint = constraint.with_names(data.names)
    module, data, left_out = _drop_used_examples(student, constraint, data)
    values = evaluate_groups(module, constraint, data, batch_size, largest_cluster=largest_cluster)
    if not any(len(group.value_P) for group in values):
        raise InvalidInput(
            f"No example of '{data.name}' is covered by '{constraint.name}'; nothing can be certified on it."
        )
    constraint.require_examples(data, constraint.counts(data.batch()))
    return certify_values(constraint, values, confidence, seed=seed, left_out=left_out)


def certify_values(
    constraint: Constraint,
    values: Sequence[ClusteredValues],
    confidence: float = 0.95,
    *,
    seed: int = 0,
    left_out: int = 0,
) -> Certificate:
    """Return what measured values of held-out data show, see ``certify``.

    Args:
        constraint: What is to be shown; with numbers of its classes and contexts.
        values: Of each of its groups, at least one each.
        confidence: In (0, 1).
        seed: Of the order in which the betting bound sees the values.
        left_out: Covered values that do not count, for the record.

    Raises:
        InvalidInput: The constraint is an equality, or ``confidence`` is out of range.
    """
    _refuse_equality(constraint)
    count_G = torch.tensor([float(len(group.value_P)) for group in values], dtype=torch.float64)
    confidence = require_confidence(confidence)
    level = 1 - (1 - confidence) / len(values)
    measures = [average.measure for _, average in constraint.parts for _ in range(average.size)]
    bounds = [group.bound(measure, level, seed) for group, measure in zip(values, measures, strict=True)]
    bound_G = torch.tensor([bound for _, bound in bounds], dtype=torch.float64)
    mean_G = torch.tensor([group.mean for group in values], dtype=torch.float64)
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
        clusters=sum(group.clusters for group in values),
    )


def _refuse_equality(constraint: Constraint) -> None:
    if constraint.is_equality:
        raise InvalidInput(
            f"'{constraint.name}' asks for exactly {constraint.required:g}; no data can show an equality. "
            "Certify the side that matters: a SafetyConstraint of the same measure with at_least."
        )


def _drop_used_examples(
    student: nn.Module | Trained, constraint: Constraint, data: Split
) -> tuple[nn.Module, Split, int]:
    """Return the module, the examples that its run did not use, and how many covered ones that leaves out."""
    if isinstance(student, nn.Module):
        return student, data, 0
    for use in student.uses:
        if isinstance(use.split, Split):
            require_same_names(use.split.names, data.names)
    unused_N = find_unseen(data, student.uses).to(data.labels.device)
    left_out = int(constraint.covers(data.batch(~unused_N)).sum())
    return student.student, data.part(unused_N), left_out


def _combine_means(constraint: Constraint, mean_G: Tensor, count_G: Tensor) -> float:
    return constraint.offset + float(constraint.gradient(mean_G, count_G) @ mean_G)
