"""Measured values with the cluster that each belongs to: clusters are independent, the values in one are not.

The positions of one sequence are such a cluster, and so are the examples that a split's ``cluster`` puts together.
With S_c the sum and n_c the number of a cluster's values, the average is a ratio, E[S] / E[n].  It is above m where
``E[S - m n] > 0``, a mean of independent terms, on which every bound but Clopper and Pearson's can speak if n is
bounded.  With importance weights w both are sums of weights, ``S = sum w f`` and ``n = sum w``: the ratio is the
average in use, and weights need be known up to a factor only.

Axes: P values, C clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import InvalidInput
from .._safety_measure import SafetyMeasure
from ._confidence_bounds import Floats, bound_rows, bound_success_share, require_confidence

METHODS = ("clopper_pearson", "hoeffding", "empirical_bernstein", "betting")
_ALIKE = 1 - 1e-9  # sizes that differ by less differ by rounding


class GroupBound(NamedTuple):
    """A lower bound on the expected average of one group.

    Attributes:
        method: One of METHODS.
        bound: The bound.
        note: About which clusters or weights it speaks; empty where about all.
    """

    method: str
    bound: float
    note: str = ""


class ClusterSample(NamedTuple):
    """What a bound reads: one pair a cluster, as shares of the most that a cluster can have.

    Attributes:
        total_C: Sums of values, (C,), float64.
        size_C: Sizes, (C,), ones where all are alike.
        note: About which clusters or weights it speaks.
    """

    total_C: Floats
    size_C: Floats
    note: str


@dataclass(frozen=True, eq=False)
class ClusteredValues:
    """Measured values of one group of examples.

    Attributes:
        value_P: In [0, 1], float64, (P,).
        cluster_P: Number of the cluster of each, (P,).
        most: How many values a cluster can have, or how much weight, where that is known whatever the data; None where
            it is not.
        weight_P: Importance weights, above 0, float64, (P,); None for ones.
    """

    value_P: Tensor
    cluster_P: Tensor
    most: float | None = None
    weight_P: Tensor | None = None

    @classmethod
    def concatenate(cls, parts: Sequence[ClusteredValues]) -> ClusteredValues:
        """Return the values of several parts, whose clusters are different ones.

        Args:
            parts: At least one, without weights.
        """
        numbers, offset = [], 0
        for part in parts:
            numbers.append(part.cluster_P + offset)
            offset += int(part.cluster_P.max()) + 1 if len(part.cluster_P) else 0
        known = [part.most for part in parts]
        most = None if None in known else max(m for m in known if m is not None)
        return cls(torch.cat([part.value_P for part in parts]), torch.cat(numbers), most)

    @cached_property
    def _sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sum, size and number of values of each cluster that has any, in the order of their numbers, (C,) each."""
        _, place_P, count_C = torch.unique(self.cluster_P, return_inverse=True, return_counts=True)
        zeros = torch.zeros(len(count_C), dtype=torch.float64)
        if self.weight_P is None:
            return zeros.index_add(0, place_P, self.value_P), count_C.double(), count_C
        totals = zeros.index_add(0, place_P, self.weight_P * self.value_P)
        return totals, zeros.index_add(0, place_P, self.weight_P), count_C

    @property
    def cluster_totals(self) -> Tensor:
        """Sum of each cluster's values, weighted where there are weights, (C,), float64."""
        return self._sums[0]

    @property
    def cluster_sizes(self) -> Tensor:
        """How many values each cluster has, at least one, or how much weight, (C,), float64."""
        return self._sums[1]

    @property
    def largest_count(self) -> int:
        """How many values the largest cluster has, 0 where there are none."""
        return int(self._sums[2].max()) if self.clusters else 0

    @property
    def clusters(self) -> int:
        """How many clusters have a value."""
        return len(self._sums[2])

    @property
    def size(self) -> float:
        """How many values there are, or how much weight."""
        return float(self.cluster_sizes.sum())

    @property
    def mean(self) -> float:
        """Average of all values, weighted where there are weights; not a number where there are none."""
        if self.weight_P is None:
            return float(self.value_P.mean())
        return float(self.weight_P @ self.value_P / self.weight_P.sum())

    @property
    def are_independent(self) -> bool:
        """Whether every value is a cluster of its own."""
        return self.clusters == len(self.value_P)

    def choose_method(self, measure: SafetyMeasure, method: str = "auto") -> str:
        """Return which bound is taken: by the kind of the data, never by which is highest.

        Args:
            measure: What the values were read by.
            method: One of METHODS; "auto" is Clopper and Pearson's for independent values of 0 and 1, else betting.

        Raises:
            InvalidInput: The method is unknown, or is not valid for such data.
        """
        if not isinstance(method, str) or method not in ("auto", *METHODS):
            raise InvalidInput(
                f"`method` is {method!r}; wanted 'auto' or one of {list(METHODS)}. Approximate bounds, such as "
                "Student's t, certify nothing."
            )
        counts = measure.binary and self.are_independent and self.weight_P is None
        if method == "auto":
            return "clopper_pearson" if counts else "betting"
        if method == "clopper_pearson" and not counts:
            why = (
                f"{measure!r} gives other values than 0 and 1"
                if not measure.binary
                else "they have importance weights"
                if self.weight_P is not None
                else f"these {len(self.value_P)} values are of {self.clusters} clusters"
            )
            raise InvalidInput(
                f"`method` is 'clopper_pearson', which holds for independent cases of 0 and 1 alone, and {why}. Leave "
                "`method` out, or take 'betting', 'empirical_bernstein' or 'hoeffding', which hold here."
            )
        return method

    def read_sample(self, seed: int = 0) -> ClusterSample:
        """Return what a bound reads, in an order shuffled by a seed.

        Where clusters differ in size and nobody knows how large they can be, the largest here says it: the statement is
        about clusters up to that size, for which that one is no evidence and is left out.  Where k are the largest, one
        of them is left out: the others are independent draws from clusters of which those of just that size are thinned
        by the largest of k uniform numbers, k / (k + 1) or so.

        Args:
            seed: Of the order.
        """
        draw = torch.Generator().manual_seed(seed)
        if self.are_independent and self.weight_P is None:
            value_C = self.value_P[torch.randperm(self.clusters, generator=draw)].numpy()
            return ClusterSample(value_C, np.ones_like(value_C), "")
        total_C, size_C = self.cluster_totals, self.cluster_sizes
        most = float(size_C.max()) if self.most is None else float(self.most)
        note = ""
        if self.most is None and float(size_C.min()) < most * _ALIKE:
            others = torch.arange(self.clusters) != int(size_C.argmax())  # before the order: that it says nothing of it
            total_C, size_C = total_C[others], size_C[others]
            note = f"about {self._name_sizes()} of at most {most:g}"
        order = torch.randperm(len(size_C), generator=draw)
        total_C, size_C = total_C[order], size_C[order]
        total_C, size_C = (total_C / most).clamp(0, 1), (size_C / most).clamp(0, 1)
        return ClusterSample(torch.minimum(total_C, size_C).numpy(), size_C.numpy(), note)

    def _name_sizes(self) -> str:
        if self.weight_P is None:
            return "clusters"
        return "weights" if self.are_independent else "clusters of weights"

    def bound(
        self, measure: SafetyMeasure, confidence: float = 0.95, seed: int = 0, method: str = "auto"
    ) -> GroupBound:
        """Return a lower bound on the expected average that holds at every sample size.

        Args:
            measure: What the values were read by.
            confidence: In (0, 1).
            seed: Of the order in which the betting bound sees the clusters.
            method: See ``choose_method``.

        Returns:
            Name of the method, the bound, and about which clusters it speaks.
        """
        method, confidence = self.choose_method(measure, method), require_confidence(confidence)
        if method == "clopper_pearson":
            return GroupBound(method, self._bound_count(len(self.value_P), confidence))
        total_C, size_C, note = self.read_sample(seed)
        if not len(total_C):  # one cluster, of which nobody knows how large others are
            return GroupBound(method, 0.0, note)
        return GroupBound(method, float(bound_rows(method, total_C[None], confidence, size_C[None])[0]), note)

    def approximate_bound(self, measure: SafetyMeasure, confidence: float) -> float:
        """Return a lower bound that is nearer to the average, and holds where clusters are many: no certificate.

        Student's t with Johnson's correction, over the linearized ratio ``r + (S_c - r n_c) / mean n``, r the average;
        Clopper and Pearson's bound for independent values of 0 and 1, and where clusters do not differ.

        Args:
            measure: What the values were read by.
            confidence: In (0, 1).

        Source: Cochran 1977, section 9A.2 (cluster sampling, ratio to size).
        """
        if self.are_independent and measure.binary:
            return self._bound_count(len(self.value_P), confidence)
        total_C, size_C = self.cluster_totals, self.cluster_sizes
        alike = float((total_C - self.mean * size_C).std()) < 1e-12 * float(size_C.mean())
        if alike and measure.binary:
            return self._bound_count(self.clusters, confidence)
        if self.clusters < 2:
            raise InvalidInput(f"{self.clusters} values cannot show their spread; wanted at least two, all finite.")
        most = float(size_C.max())
        pairs = [(part / most).clamp(0, 1).numpy()[None] for part in (torch.minimum(total_C, size_C), size_C)]
        return float(bound_rows("skew_adjusted_t", pairs[0], confidence, pairs[1])[0])

    def _bound_count(self, trials: int, confidence: float) -> float:
        """Return Clopper and Pearson's bound as if so many independent trials had this average."""
        successes = np.floor(self.mean * trials + 1e-6)
        return float(bound_success_share(np.array([successes]), trials, confidence)[0])


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
    method, bound, _ = ClusteredValues(value_N.double(), torch.arange(value_N.numel())).bound(measure, confidence, seed)
    return method, bound
