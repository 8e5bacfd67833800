"""Orderings from evidence: asserted where the difference is significant, a tie elsewhere, so that noise is no rule.

Within one context (or class) there are K (K - 1) statements "teacher i is safer than teacher j"; each is tested on the
examples that both teachers were read on (``PairedSums``), and Shaffer's correction keeps the probability of even one
false statement at most ``level`` for each context, as far as the tests hold theirs.  What follows from true statements
is true, so this covers the transitive closure too.

The statements cannot go round in a circle: each has its safer teacher's average strictly above the other's, so sorting
by averages sorts them all.  They make a partial order and no ranking: 0 may be safer than 2, while 1 can be told from
neither.  So each context gets a polytope with its own pairs, which is what the projection takes; merging teachers into
tiers would have to assert or drop pairs for which there is no evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..._number_checks import is_finite
from ...errors import InvalidInput, MissingSignal
from ...safety import PairedSums, adjust_pair_p_values
from ..signals import OrderedScale, TeacherEvidence
from ._scale_orderings import ScaleOrderings


@dataclass(frozen=True)
class Comparison:
    """Two teachers in one context (or class): i has the higher average, or the lower number if they are equal.

    Attributes:
        group: Number of the context or class.
        i: The teacher that reads higher on average.
        j: The other one.
        count: Examples on which both were read, or independent cases of several.
        wins: On how many of them i reads higher.
        losses: On how many of them i reads lower.
        mean_i: Average of i, in [0, 1].
        mean_j: Average of j.
        p_value: Against "i is not safer than j".
        p_adjusted: After Shaffer's correction for all pairs of the group.
        asserted: Whether it became an ordering.
    """

    group: int
    i: int
    j: int
    count: int
    wins: int
    losses: int
    mean_i: float
    mean_j: float
    p_value: float
    p_adjusted: float
    asserted: bool

    @property
    def difference(self) -> float:
        """How much higher i reads on average, at least 0."""
        return self.mean_i - self.mean_j


@dataclass(frozen=True, init=False, repr=False)
class MeasuredOrderings(ScaleOrderings):
    """Orderings that evidence supports, with every comparison behind them, ties included.

    Attributes:
        scale: "token" or "context".
        n_teachers: K.
        everywhere: None: each context or class has its own.
        by_group: Pairs (i, j) that are significant, by the number of the context or class.
        level: At most this probability of a false ordering, in each context or class.
        source: Name of the split.
        comparisons: All pairs of teachers in each context or class.
    """

    level: float
    source: str
    comparisons: tuple[Comparison, ...]

    def __init__(
        self, scale: OrderedScale, n_teachers: int, level: float, source: str, comparisons: Sequence[Comparison]
    ) -> None:
        by_group: dict[int, list[tuple[int, int]]] = {}
        for comparison in comparisons:
            by_group.setdefault(comparison.group, [])
            if comparison.asserted:
                by_group[comparison.group].append((comparison.i, comparison.j))
        super().__init__(scale, n_teachers, by_group=by_group)
        object.__setattr__(self, "level", level)
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "comparisons", tuple(comparisons))

    def to_frame(self) -> pd.DataFrame:
        """Return one row a comparison: ``context`` or ``class``, then what ``Comparison`` holds."""
        columns = [*Comparison.__dataclass_fields__, "difference"]
        rows = [{**asdict(comparison), "difference": comparison.difference} for comparison in self.comparisons]
        name = "class" if self.scale == "token" else "context"
        return pd.DataFrame(rows, columns=columns).rename(columns={"group": name})

    def __str__(self) -> str:
        """Return a line for each context or class: its orderings, and how many pairs are ties."""
        name = "class" if self.scale == "token" else "context"
        lines = [f"Orderings significant at {self.level:g} on '{self.source}':"]
        for number, pairs in self.by_group:
            here = [comparison for comparison in self.comparisons if comparison.group == number]
            said = ", ".join(f"teacher {i} >= teacher {j}" for i, j in pairs) or "none"
            lines.append(f"  {name} {number} ({here[0].count} examples): {said}; {len(here) - len(pairs)} ties")
        return "\n".join(lines)


def infer_orderings(
    evidence: TeacherEvidence, level: float = 0.05, scale: OrderedScale = "context"
) -> MeasuredOrderings:
    """Return the orderings that are significant in the evidence; the other pairs are ties.

    Values of 0 and 1 get an exact test, others a betting test, or from 40 examples on a t test that is corrected for
    skewness and guarded against cases that nobody saw; ``benchmarks.orderings`` measures error and power.

    Args:
        evidence: What was measured of the teachers.
        level: In (0, 0.5), the probability of a false ordering that is accepted in each context or class.
        scale: "context", or "token" for orderings by class.

    Returns:
        The orderings, and every comparison.

    Raises:
        InvalidInput: Another level.
        MissingSignal: The evidence holds no comparisons of that scale.

    Source: Shaffer 1986 for several pairs at once.
    """
    if not is_finite(level) or not 0 < level < 0.5:
        raise InvalidInput(f"`level` is {level!r}; wanted a probability above 0 and below 0.5, for example 0.05.")
    paired = {"context": evidence.paired_context, "token": evidence.paired_class}.get(scale)
    if paired is None:
        option = ", by_class=True" if scale == "token" else ""
        raise MissingSignal(
            f"The evidence does not compare teachers at scale {scale!r}; wanted 'token' or 'context', and "
            f"`evidence=kd.teachers.measure_teachers(...{option})`."
        )
    p_GKK = paired.p_values()
    comparisons = [comparison for g, p_KK in enumerate(p_GKK) for comparison in _compare_pairs(paired, g, p_KK, level)]
    return MeasuredOrderings(scale, paired.sum_GK.shape[-1], level, evidence.source, comparisons)


def _compare_pairs(paired: PairedSums, g: int, p_KK: npt.NDArray[np.float64], level: float) -> list[Comparison]:
    mean_K, wins_KK = paired.means()[g], paired.wins_GKK[g]
    K = len(mean_K)
    adjusted_KK = adjust_pair_p_values(p_KK)
    comparisons = []
    for a in range(K):
        for b in range(a + 1, K):
            i, j = (a, b) if mean_K[a] >= mean_K[b] else (b, a)
            comparisons.append(
                Comparison(
                    group=paired.groups[g],
                    i=i,
                    j=j,
                    count=int(paired.count_G[g]),
                    wins=int(wins_KK[i, j]),
                    losses=int(wins_KK[j, i]),
                    mean_i=float(mean_K[i]),
                    mean_j=float(mean_K[j]),
                    p_value=float(p_KK[i, j]),
                    p_adjusted=float(adjusted_KK[i, j]),
                    asserted=bool(adjusted_KK[i, j] <= level),
                )
            )
    return comparisons
