"""Certificates out of measured values, of one constraint or of several together."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._own_version import __version__
from ...errors import InvalidInput
from .._group_average import Average
from .._safety_constraint import Constraint
from ._cases_needed import GroupSample, count_cases, count_cases_of_successes
from ._certificate_record import Certificate, CertifiedAverage
from ._clustered_values import ClusteredValues, GroupBound
from ._confidence_bounds import Floats, require_confidence
from ._family_correction import Correction, Decision, decide_together, require_correction


@dataclass(frozen=True, eq=False)
class HeldOutValues:
    """What a student shows on held-out data of one constraint.

    Attributes:
        constraint: With numbers of its classes and contexts.
        groups: Measured values of each of its groups, at least one each.
        left_out: Covered values that do not count, for the record.
        data_hash: SHA-256 of the examples that were covered, for the record.
        largest_weight: The most that an importance weight can be, for the record.
    """

    constraint: Constraint
    groups: Sequence[ClusteredValues]
    left_out: int = 0
    data_hash: str = ""
    largest_weight: float | None = None


def certify_values(
    constraint: Constraint,
    values: Sequence[ClusteredValues],
    confidence: float = 0.95,
    *,
    method: str = "auto",
    seed: int = 0,
) -> Certificate:
    """Return what measured values of held-out data show, see ``certify``.

    Args:
        constraint: What is to be shown; with numbers of its classes and contexts.
        values: Of each of its groups, at least one each.
        confidence: In (0, 1).
        method: See ``certify``.
        seed: Of the order in which the betting bound sees the values.

    Raises:
        InvalidInput: The constraint is an equality, or a setting is out of range or does not fit the values.
    """
    return certify_together([HeldOutValues(constraint, values)], confidence, method=method, seed=seed)[0]


def certify_together(
    held: Sequence[HeldOutValues],
    confidence: float = 0.95,
    *,
    correction: Correction = "holm",
    method: str = "auto",
    seed: int = 0,
    model_hash: str = "",
) -> list[Certificate]:
    """Return what measured values of held-out data show of several constraints at once, see ``certify``.

    Args:
        held: Values of each constraint.
        confidence: In (0, 1), of all together.
        correction: For how many there are.
        method: See ``certify``.
        seed: Of the order in which the betting bound sees the values.
        model_hash: SHA-256 of the student, for the record.

    Returns:
        One certificate a constraint.

    Raises:
        InvalidInput: A constraint is an equality, or a setting is out of range or does not fit the values.
    """
    for each in held:
        refuse_equality(each.constraint)
    confidence = require_confidence(confidence)
    require_correction(correction)
    bounds = [_GroupBounds(each, method, seed, 1 - confidence) for each in held]
    decisions = decide_together([each.read_value for each in bounds], [e.constraint.required for e in held], correction)
    said = correction if correction is not None and len(held) > 1 else "none"
    return [
        _write_certificate(each, bound, decision, confidence, len(held) if said != "none" else 1, said, model_hash)
        for each, bound, decision in zip(held, bounds, decisions, strict=True)
    ]


class _GroupBounds:
    """The bounds of one constraint's groups at every part of the error."""

    def __init__(self, held: HeldOutValues, method: str, seed: int, error: float) -> None:
        self.held, self.seed, self.error = held, seed, error
        self.measures = [average.measure for _, average in held.constraint.parts for _ in range(average.size)]
        self.size_G = torch.tensor([group.size for group in held.groups], dtype=torch.float64)
        self.methods = [self._choose(*pair, method) for pair in zip(held.groups, self.measures, strict=True)]
        self.read = cache(self._read)

    def _choose(self, group: ClusteredValues, measure: Any, method: str) -> str:
        try:
            return group.choose_method(measure, method)
        except InvalidInput as error:
            raise InvalidInput(f"'{self.held.constraint.name}': {error}") from error

    def find_level(self, divisor: int) -> float:
        """Return the confidence of each mean's bound."""
        return 1 - self.error / divisor / len(self.held.groups)

    def _read(self, divisor: int) -> list[GroupBound]:
        level = self.find_level(divisor)
        groups = zip(self.held.groups, self.measures, self.methods, strict=True)
        return [group.bound(measure, level, self.seed, method) for group, measure, method in groups]

    def combine(self, mean_G: Tensor) -> float:
        """Return the constraint's value where the means are these."""
        constraint = self.held.constraint
        return constraint.offset + float(constraint.gradient(mean_G, self.size_G) @ mean_G)

    def read_value(self, divisor: int) -> float:
        """Return the constraint's value at the bounds of its means."""
        return self.combine(torch.tensor([bound.bound for bound in self.read(divisor)], dtype=torch.float64))

    def count_needed(self, divisor: int, estimate: float) -> int | None:
        """Return about how many independent cases would show what was not shown."""
        required, groups = self.held.constraint.required, self.held.groups
        clusters = sum(group.clusters for group in groups)
        if not estimate > required:
            return None
        level = self.find_level(divisor)
        if self.methods == ["clopper_pearson"] and self.held.constraint.offset == 0:
            found = count_cases_of_successes(required, groups[0].mean, level)
        else:
            samples = [
                GroupSample(method, group.read_sample(self.seed))
                for group, method in zip(groups, self.methods, strict=True)
            ]
            if not all(len(each.sample.total_C) for each in samples):
                return None

            def shows(bound_G: Floats) -> bool:
                return self.combine(torch.from_numpy(np.asarray(bound_G))) >= required

            found = count_cases(samples, clusters, shows, level)
        return None if found is None else max(found, clusters + 1)


def _write_certificate(
    held: HeldOutValues,
    bounds: _GroupBounds,
    decision: Decision,
    confidence: float,
    family: int,
    correction: Any,
    model_hash: str,
) -> Certificate:
    estimate = bounds.combine(torch.tensor([group.mean for group in held.groups], dtype=torch.float64))
    clusters = sum(group.clusters for group in held.groups)
    read = bounds.read(decision.divisor)
    return Certificate(
        constraint=held.constraint.name,
        required=float(held.constraint.required),
        estimate=estimate,
        lower_bound=float(decision.bound),
        confidence=confidence,
        count=sum(len(group.value_P) for group in held.groups),
        method=" and ".join(sorted(set(bounds.methods))),
        decision="safe" if decision.safe else "not_shown",
        left_out=held.left_out,
        clusters=clusters,
        averages=tuple(_describe_average(weight, average) for weight, average in held.constraint.parts),
        level=1 - (1 - confidence) / decision.divisor,
        family=family,
        correction=correction,
        means=len(held.groups),
        note="; ".join(dict.fromkeys(bound.note for bound in read if bound.note)),
        largest_weight=None if held.largest_weight is None else float(held.largest_weight),
        weighted=any(group.weight_P is not None for group in held.groups),
        cases_needed=clusters if decision.safe else bounds.count_needed(decision.divisor, estimate),
        data_hash=held.data_hash,
        model_hash=model_hash,
        version=__version__,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _describe_average(weight: float, average: Average) -> CertifiedAverage:
    chosen = {what: getattr(average, what) for what in ("contexts", "tasks", "classes")}
    return CertifiedAverage(
        weight=weight,
        measure=repr(average.measure),
        average=average.average,
        **{what: None if groups is None else sorted(map(int, groups)) for what, groups in chosen.items()},
        by=average.by,
        mix=None if average.mix is None else {str(group): float(share) for group, share in average.mix.items()},
        worst=None if average.worst is None else repr(average.worst),
    )


def refuse_equality(constraint: Constraint) -> None:
    """Raise InvalidInput where a constraint is an equality."""
    if constraint.is_equality:
        raise InvalidInput(
            f"'{constraint.name}' asks for exactly {constraint.required:g}; no data can show an equality. "
            "Certify the side that matters: a SafetyConstraint of the same measure with at_least."
        )
