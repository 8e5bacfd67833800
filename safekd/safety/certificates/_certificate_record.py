"""What held-out data have shown of one constraint, as a record, as text and as a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, get_type_hints

from pydantic import TypeAdapter

from solvers.short_repr import ShortRepr

from ...io import refuse_misfit
from ._sealed_record import read_sealed_record, seal_record, write_sealed_record

FORMAT = "safekd certificate 1"
METHOD_NAMES = {
    "clopper_pearson": "Clopper-Pearson",
    "hoeffding": "Hoeffding",
    "empirical_bernstein": "empirical Bernstein",
    "betting": "betting",
}
_WHAT = "a certificate that safekd wrote"


@dataclass(frozen=True)
class CertifiedAverage:
    """One average that a certificate is about; a budget has several.

    Attributes:
        weight: With which it enters the value.
        measure: What is read, as the measure is written.
        average: "critical" or "all", see SafetyConstraint.
        contexts: Numbers of those that count; None for all.
        tasks: The same of tasks.
        classes: The same of classes.
        by: What groups of the mix are: "context", "task" or "class".
        mix: Share of each group in use, by its number as text; None without a mix.
        worst: The ball of mixes of which the worst is read, as it is written; None without one.
    """

    weight: float
    measure: str
    average: str = "critical"
    contexts: list[int] | None = None
    tasks: list[int] | None = None
    classes: list[int] | None = None
    by: str = "context"
    mix: dict[str, float] | None = None
    worst: str | None = None


@dataclass(frozen=True, repr=False)
class Certificate(ShortRepr):
    """A one-sided statement: with the stated confidence, expected safety is at least ``lower_bound``.

    Attributes:
        constraint: Its name.
        required: Its threshold.
        estimate: The average on the held-out data, weighted where there are weights.
        lower_bound: What the data prove.
        confidence: In (0, 1): with which all bounds of the family hold at once.
        count: How many values the estimate averages: one an example, or one a position.
        method: Which bound: "clopper_pearson", "hoeffding", "empirical_bernstein" or "betting"; several, joined by
            " and ", where means of several kinds make one value.
        decision: "safe" when the bound reaches ``required``, else "not_shown", which is not the same as unsafe.
        left_out: Covered examples that the student's own run had used and that do not count here.
        clusters: How many independent clusters the values are of; ``count`` where every value is one.
        direction: "at_least": the average is to be at or above ``required``.
        averages: What was read, and of whom.
        level: Confidence at which this bound was taken: above ``confidence`` where it is one of a family.
        family: How many constraints were certified together.
        correction: "holm", "bonferroni" or "none".
        means: How many means make the value, each bounded at 1 - (1 - level) / means.
        note: About which clusters or weights the statement is, where not about all.
        largest_weight: The most that an importance weight can be; None without weights, or where that is not known.
        weighted: Whether importance weights were used.
        cases_needed: About how many independent cases (clusters, where there are such) would show it at the average and
            spread that were seen; ``clusters`` where it is shown; None where no number would, since the average itself
            is not above what is required, or so little that it takes more than a billion.
        data_hash: SHA-256 of the examples that were covered, inputs and labels, in whatever order; "" where unknown.
        model_hash: SHA-256 of the student's structure, parameters and buffers; "" where unknown.
        version: Of safekd.
        date: When it was made, UTC; not looked at in comparisons.
    """

    constraint: str
    required: float
    estimate: float
    lower_bound: float
    confidence: float
    count: int
    method: str
    decision: Literal["safe", "not_shown"]
    left_out: int = 0
    clusters: int = 0
    direction: Literal["at_least"] = "at_least"
    averages: tuple[CertifiedAverage, ...] = ()
    level: float = 0.0
    family: int = 1
    correction: Literal["holm", "bonferroni", "none"] = "none"
    means: int = 1
    note: str = ""
    largest_weight: float | None = None
    weighted: bool = False
    cases_needed: int | None = None
    data_hash: str = ""
    model_hash: str = ""
    version: str = ""
    date: str = field(default="", compare=False)

    @property
    def measure(self) -> str:
        """What is read, each measure with its weight where there are several."""
        if len(self.averages) == 1:
            return self.averages[0].measure
        return " + ".join(f"{average.weight:g} {average.measure}" for average in self.averages)

    @property
    def decision_text(self) -> str:
        """The decision as it is printed: "safe" or "not shown"."""
        return self.decision.replace("_", " ")

    @property
    def more_cases_needed(self) -> int | None:
        """How many more independent cases would show it, 0 where it is shown; None as for ``cases_needed``."""
        return None if self.cases_needed is None else self.cases_needed - self.clusters

    def __str__(self) -> str:
        sign = ">=" if self.decision == "safe" else "<"
        what = "examples" if self.clusters == self.count else f"values in {self.clusters} clusters"
        left_out = f"; {self.left_out} left out that its training had used" if self.left_out else ""
        method = " and ".join(METHOD_NAMES.get(part, part) for part in self.method.split(" and "))
        parts = [
            "weighted" if self.weighted else "",
            self.note,
            f"Bonferroni over {self.means} means" if self.means > 1 else "",
            f"{self.correction.capitalize()} over {self.family} constraints" if self.correction != "none" else "",
        ]
        how = ", ".join([method, *filter(None, parts)])
        return (
            f"{self.constraint}: {self.decision_text}. {100 * self.confidence:g}% lower bound {self.lower_bound:.4f} "
            f"{sign} required {self.required:g} (average {self.estimate:.4f} over {self.count} {what}, {how}"
            f"{left_out}){self._advise()}"
        )

    def _advise(self) -> str:
        """Say what it would take, where it is not shown."""
        if self.decision == "safe":
            return ""
        if self.cases_needed is None and self.estimate <= self.required:
            return ". The average itself is not above what is required: more cases like these would not show it"
        if self.cases_needed is None:
            return ". The average is so little above what is required that it would take more than a billion cases"
        what = "cases" if self.clusters == self.count else "clusters"
        return f". At this average about {self.cases_needed:,} {what} would be needed, {self.more_cases_needed:,} more"

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON, with ``measure`` and ``more_cases_needed``."""
        derived = {"measure": self.measure, "more_cases_needed": self.more_cases_needed}
        return {"format": FORMAT, **json.loads(json.dumps(asdict(self), allow_nan=False)), **derived}

    def to_json(self) -> str:
        """Return ``to_dict`` as text, and the SHA-256 of that content, by which ``load`` sees a changed digit."""
        return seal_record(self.to_dict())

    def save(self, path: str | Path) -> Path:
        """Write ``to_json`` to a file that appears whole or not at all.

        Args:
            path: The file; its folder is made.

        Returns:
            The path.

        Raises:
            InvalidInput: It cannot be written there.
        """
        return write_sealed_record(self.to_dict(), path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the certificate that a file holds.

        Args:
            path: What ``save`` wrote.

        Raises:
            InvalidInput: It cannot be read, something in it was changed, or what it states does not fit together.
        """
        record = read_sealed_record(path, _WHAT)
        with refuse_misfit(path, _WHAT):
            if record.pop("format", None) != FORMAT:
                raise ValueError(f"its format is not '{FORMAT}'")
            derived = {name: record.pop(name) for name in ("measure", "more_cases_needed")}
            names = [f.name for f in fields(cls)]
            if set(record) != set(names):
                raise ValueError(f"it has other entries than a certificate: {sorted(set(record) ^ set(names))[:3]}")
            read = {name: _read_strictly(name, record[name]) for name in names}
            certificate = cls(**read)
            for contradiction in _find_contradictions(certificate, derived):
                raise ValueError(contradiction)
        return certificate


@cache
def _list_adapters() -> Mapping[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(hint) for name, hint in get_type_hints(Certificate).items()}


def _read_strictly(name: str, value: Any) -> Any:
    return _list_adapters()[name].validate_json(json.dumps(value, allow_nan=False), strict=True)


def _find_contradictions(stated: Certificate, derived: Mapping[str, Any]) -> list[str]:
    """Return what does not fit together in a certificate that was read."""
    decided = stated.lower_bound >= stated.required
    numbers = (stated.required, stated.estimate, stated.lower_bound)
    needed = stated.cases_needed
    checks = {
        "its decision does not fit its bound": decided == (stated.decision == "safe"),
        "its confidence is not between 0 and 1": 0 < stated.confidence < 1,
        "its level is below its confidence, or not below 1": stated.confidence - 1e-12 <= stated.level < 1,
        "a number is not finite": all(map(math.isfinite, numbers)),
        "it counts fewer values than clusters": 1 <= stated.clusters <= stated.count,
        "a count is below 0": min(stated.left_out, stated.family - 1, stated.means - 1) >= 0,
        "its method is unknown": set(stated.method.split(" and ")) <= set(METHOD_NAMES),
        "it needs fewer cases than it has": needed is None or needed >= stated.clusters,
        "its measure is another": derived["measure"] == stated.measure,
        "it needs another number of cases": derived["more_cases_needed"] == stated.more_cases_needed,
    }
    return [what for what, fits in checks.items() if not fits]
