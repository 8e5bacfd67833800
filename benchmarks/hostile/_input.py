"""What a hostile input is, what its author knows of it, and the good tables that many begin from.

Axes: N rows, K teachers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Look = Callable[[Path], str]  # what is wrong in the folder afterwards, "" if nothing
ACCEPTED, REFUSED, EITHER = "accepted", "refused", "either"


@dataclass(frozen=True)
class HostileInput:
    """Files, a command line or a call, and what must come of them.

    Attributes:
        kind: A key of ``_judge.KINDS``.
        story: What was done to an input that was good.
        wanted: "accepted", "refused", or "either" where both may be right.
        files: What stands in the folder beforehand, by name.
        arguments: Of ``safekd``; empty for a call of the library.
        call: The call, given the folder; what it returns is what is wrong with its answer.
        look: Looks at the folder after an input was accepted.
        appears: Names of what appears when it is accepted; nothing else may.
        prepare: Puts more there than files; returns what it did and what must come of that.
        names: Words that a refusal must name one of, such as the file; empty for none.
        code: The exit code when it is accepted, None where both 0 and 1 may be right.
    """

    kind: str
    story: str
    wanted: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    call: Callable[[Path], str] | None = None
    look: Look = lambda folder: ""
    appears: tuple[str, ...] = ()
    prepare: Callable[[Path], tuple[str, str]] | None = None
    names: tuple[str, ...] = ()
    code: int | None = 0


@dataclass(frozen=True)
class Sheet:
    """A table of weights before it is written: teachers' numbers, other columns, and how it is written."""

    names: tuple[str, ...]
    x_NK: Any
    others: tuple[tuple[str, tuple[str, ...]], ...] = ()
    separator: str = ","
    decimal: str = "."
    ending: str = "\n"
    lead: str = ""
    quoted: bool = False
    first: bool = True  # other columns stand before the teachers'
    digits: str = "r"

    def rows(self) -> list[list[str]]:
        """Return header and rows as texts."""

        def text(x: float) -> str:
            return (repr(float(x)) if self.digits == "r" else format(x, self.digits)).replace(".", self.decimal)

        weights = [[text(x) for x in row] for row in self.x_NK.tolist()]
        others = [[column[n] for _, column in self.others] for n in range(len(weights))]
        head = [name for name, _ in self.others]
        pairs = zip([head, *others], [list(self.names), *weights], strict=True)
        return [a + b if self.first else b + a for a, b in pairs]

    def text(self) -> str:
        """Return the file."""
        stream = io.StringIO()
        quoting = csv.QUOTE_ALL if self.quoted else csv.QUOTE_MINIMAL
        csv.writer(stream, delimiter=self.separator, lineterminator=self.ending, quoting=quoting).writerows(self.rows())
        return self.lead + stream.getvalue()


def draw_sheet(rng: Rng) -> Sheet:
    """Return a good table: weights or scores, with or without other columns."""
    rows, teachers = int(rng.integers(1, 7)), int(rng.integers(2, 6))
    x_NK = rng.dirichlet(np.ones(teachers), rows) if rng.random() < 0.5 else rng.normal(size=(rows, teachers))
    others = []
    if rng.random() < 0.6:
        others.append(("note", tuple(rng.choice(["r0", "x y", "", "007", '"q"', "a;b", "é"]) for _ in range(rows))))
    return Sheet(tuple(f"t{k}" for k in range(teachers)), x_NK, tuple(others), first=bool(rng.random() < 0.5))


def project_rows_by_hand(
    v_NK: NDArray[Any], lower: float, upper: float, pair: tuple[int, int] | None = None
) -> NDArray[np.float64]:
    """Return the nearest rows with sum 1, bounds and at most one ordering; by bisection, with nothing of safekd.

    An ordering that the projection without it breaks is active: both weights are then one that counts twice.
    """
    rows = []
    for v_K in np.asarray(v_NK, dtype=np.float64):
        w_K = _bisect(v_K, np.ones(len(v_K)), lower, upper)
        if pair is not None and w_K[pair[0]] < w_K[pair[1]]:
            i, j = pair
            tied_K, count_K = v_K.copy(), np.ones(len(v_K))
            tied_K[i], count_K[i], count_K[j] = (v_K[i] + v_K[j]) / 2, 2, 0
            w_K = _bisect(tied_K, count_K, lower, upper)
            w_K[j] = w_K[i]
        rows.append(w_K)
    return np.array(rows)


def _bisect(v_K: NDArray[Any], count_K: NDArray[Any], lower: float, upper: float) -> NDArray[Any]:
    low, high = float(v_K.min()) - upper - 1, float(v_K.max()) - lower + 1
    for _ in range(200):
        middle = (low + high) / 2
        if (count_K * np.clip(v_K - middle, lower, upper)).sum() > 1:
            low = middle
        else:
            high = middle
    return np.clip(v_K - (low + high) / 2, lower, upper)
