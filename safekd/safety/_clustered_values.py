"""Measured values with the cluster that each belongs to: clusters are independent, the values in one are not.

The positions of one sequence are such a cluster, and so are the examples that a split's ``cluster`` puts together.
With S_c the sum and n_c the number of a cluster's values, the average is a ratio, E[S] / E[n].  It is above m where
``E[S - m n] > 0``, a mean of independent terms, which ``betting_lower_bound`` can bet on if n is bounded.

Axes: P values, C clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from .._torch_state import ask_module, evaluation_mode
from ..data import Batch, Split, expand_to_positions, require_class_count
from ..errors import InvalidInput
from ._confidence_bounds import betting_lower_bound, clopper_pearson_lower_bound, skew_adjusted_t_lower_bound
from ._safety_constraint import Constraint
from ._safety_measure import SafetyMeasure


@dataclass(frozen=True)
class EvaluationSettings:
    """How much is held at once; ``tests/safekd/language/teachers/test_token_weights.py`` notices.

    Attributes:
        chunk_bytes: Log-probabilities of so many sequences, in float64; a vocabulary makes them large.
    """

    chunk_bytes: int = 2**28


SETTINGS = EvaluationSettings()


@dataclass(frozen=True, eq=False)
class ClusteredValues:
    """Measured values of one group of examples.

    Attributes:
        value_P: In [0, 1], float64, (P,).
        cluster_P: Number of the cluster of each, (P,).
        most: How many values a cluster can have, where that is known whatever the data; None where it is not.
    """

    value_P: Tensor
    cluster_P: Tensor
    most: int | None = None

    @classmethod
    def concatenate(cls, parts: Sequence[ClusteredValues]) -> ClusteredValues:
        """Return the values of several parts, whose clusters are different ones.

        Args:
            parts: At least one.
        """
        numbers, offset = [], 0
        for part in parts:
            numbers.append(part.cluster_P + offset)
            offset += int(part.cluster_P.max()) + 1 if len(part.cluster_P) else 0
        known = [part.most for part in parts]
        most = None if None in known else max(m for m in known if m is not None)
        return cls(torch.cat([part.value_P for part in parts]), torch.cat(numbers), most)

    @cached_property
    def _sums(self) -> tuple[Tensor, Tensor]:
        """Sum and number of values of each cluster that has any, in the order of their numbers, (C,) each."""
        _, place_P, count_C = torch.unique(self.cluster_P, return_inverse=True, return_counts=True)
        total_C = torch.zeros(len(count_C), dtype=torch.float64).index_add(0, place_P, self.value_P)
        return total_C, count_C

    @property
    def cluster_totals(self) -> Tensor:
        """Sum of each cluster's values, (C,), float64."""
        return self._sums[0]

    @property
    def cluster_counts(self) -> Tensor:
        """How many values each cluster has, at least one, (C,)."""
        return self._sums[1]

    @property
    def clusters(self) -> int:
        """How many clusters have a value."""
        return len(self.cluster_counts)

    @property
    def mean(self) -> float:
        """Average of all values; not a number where there are none."""
        return float(self.value_P.mean())

    @property
    def are_independent(self) -> bool:
        """Whether every value is a cluster of its own."""
        return self.clusters == len(self.value_P)

    def bound(self, measure: SafetyMeasure, confidence: float = 0.95, seed: int = 0) -> tuple[str, float]:
        """Return which bound fits, and that lower bound on the expected average; it holds at every sample size.

        Where clusters differ in size and nobody knows how large they can be, the largest here says it: the statement is
        about clusters up to that size, for which that one is no evidence and is left out.

        Args:
            measure: What the values were read by.
            confidence: In (0, 1).
            seed: Of the order in which the betting bound sees the clusters.

        Returns:
            Name of the method, and the bound.
        """
        if self.are_independent:
            return bound_expectation(self.value_P, measure, confidence, seed)
        order = torch.randperm(self.clusters, generator=torch.Generator().manual_seed(seed))
        total_C, count_C = self.cluster_totals[order], self.cluster_counts[order]
        method, most = "betting on clusters", int(count_C.max()) if self.most is None else self.most
        if self.most is None and int(count_C.min()) < most:
            others = torch.arange(self.clusters) != int(count_C.argmax())
            total_C, count_C = total_C[others], count_C[others]
            method += f" of at most {most}"
        return method, betting_lower_bound(total_C.numpy() / most, confidence, count_C.numpy() / most)

    def approximate_bound(self, measure: SafetyMeasure, confidence: float) -> float:
        """Return a lower bound that is nearer to the average, and holds where clusters are many.

        Student's t with Johnson's correction, over the linearized ratio ``r + (S_c - r n_c) / mean n``, r the average;
        Clopper and Pearson's bound for independent values of 0 and 1, and where clusters do not differ.

        Args:
            measure: What the values were read by.
            confidence: In (0, 1).

        Source: Cochran 1977, section 9A.2 (cluster sampling, ratio to size).
        """
        if self.are_independent and measure.binary:
            return clopper_pearson_lower_bound(
                int(np.floor(float(self.value_P.sum()) + 1e-9)), len(self.value_P), confidence
            )
        if self.are_independent:
            return skew_adjusted_t_lower_bound(self.value_P.numpy(), confidence)
        count_C = self.cluster_counts.double()
        value_C = self.mean + (self.cluster_totals - self.mean * count_C) / count_C.mean()
        if float(value_C.std()) < 1e-12 and measure.binary:
            return clopper_pearson_lower_bound(int(self.mean * self.clusters + 1e-9), self.clusters, confidence)
        return skew_adjusted_t_lower_bound(value_C.numpy(), confidence)


def bound_expectation(
    value_N: Tensor, measure: SafetyMeasure, confidence: float = 0.95, seed: int = 0
) -> tuple[str, float]:
    """Return which bound fits what a measure read of independent examples, and that lower bound on its expectation.

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


def evaluate_groups(
    student: nn.Module,
    constraint: Constraint,
    data: Split,
    batch_size: int = 4096,
    *,
    largest_cluster: int | None = None,
) -> list[ClusteredValues]:
    """Return the measured values of each group of covered examples, all averages of the constraint one after the other.

    Args:
        student: Module from inputs (B, ...) to logits (B, ..., V); asked in eval mode.
        constraint: What is measured, and of which examples; on which split it is posed does not matter.
        data: The examples; those of one ``cluster`` belong together, and the positions of one example do.
        batch_size: How many examples the student sees at a time; fewer where they are sequences of large vocabularies.
        largest_cluster: How many examples a cluster can have at most; None where that is not known.

    Returns:
        Values of each group, on the CPU, in the order of the examples.

    Raises:
        InvalidInput: The student gives NaN or too few classes, names of classes do not fit it, or a cluster is larger.
    """
    constraint = constraint.with_names(data.names)
    device = next((p.device for p in student.parameters()), torch.device("cpu"))
    cluster_N = torch.arange(len(data)) if data.cluster is None else data.cluster.cpu()
    averages = [average for _, average in constraint.parts]
    values: list[list[Tensor]] = [[] for average in averages for _ in range(average.size)]
    clusters: list[list[Tensor]] = [[] for _ in values]
    with evaluation_mode(student), torch.no_grad():
        for index in data.chunks(_count_rows_at_once(student, data, device, batch_size)):
            batch = data.batch(index).to(device)
            logits_V = batch.fill_uncounted(ask_module(student, batch.inputs, "The student"), 0.0)
            log_p_V = torch.log_softmax(logits_V.double(), dim=-1)
            _require_usable(log_p_V, batch, data)
            here = expand_to_positions(cluster_N[index.cpu()], batch.labels.shape)
            read_G = [value for average in averages for value in average.measured_values(log_p_V, batch)]
            inside_G = [inside for average in averages for inside in average.members(batch)]
            for group, (value, inside) in enumerate(zip(read_G, inside_G, strict=True)):
                values[group].append(value.cpu())
                clusters[group].append(here[inside.cpu()])
    positions = data.labels[0].numel()
    groups = []
    for parts, numbers in zip(values, clusters, strict=True):
        read = ClusteredValues(torch.cat(parts).clamp(0, 1), torch.cat(numbers))  # exp(log_softmax) can pass 1
        groups.append(replace(read, most=_limit_cluster(read, data, positions, largest_cluster)))
    return groups


def _count_rows_at_once(student: nn.Module, data: Split, device: torch.device, most: int) -> int:
    """Return how many examples the student sees at a time: of sequences no more than fit, by the first one."""
    if data.labels.ndim == 1 or most == 1:
        return most
    first = data.batch(torch.arange(1, device=data.labels.device)).to(device)
    return max(1, min(most, SETTINGS.chunk_bytes // (8 * ask_module(student, first.inputs, "The student").numel())))


def _limit_cluster(read: ClusteredValues, data: Split, positions: int, largest_cluster: int | None) -> int | None:
    """Return how many values a cluster can have, where that is known; padding is as long as the data happen to be."""
    largest = int(read.cluster_counts.max()) if read.clusters else 0
    if largest_cluster is not None:
        if largest > largest_cluster * positions:
            raise InvalidInput(
                f"`largest_cluster` is {largest_cluster}, but a cluster of '{data.name}' has {largest} values; wanted "
                "the most examples that a cluster can have."
            )
        return largest_cluster * positions
    return positions if data.cluster is None and data.mask is None and largest == positions else None


def _require_usable(log_p_V: Tensor, batch: Batch, data: Split) -> None:
    if bool(torch.isnan(log_p_V).any()):  # an argmax would take NaN for the most probable class
        raise InvalidInput(f"The student gives values that are not finite on '{data.name}'; it cannot be certified.")
    top, known = int(batch.labels.max()), log_p_V.shape[-1]
    if top >= known:
        raise InvalidInput(f"A label of '{data.name}' is {top}, but the student knows only {known} classes.")
    require_class_count(data, known, "the student")
