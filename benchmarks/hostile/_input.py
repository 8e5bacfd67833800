"""What a hostile input is, and what its author knows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
