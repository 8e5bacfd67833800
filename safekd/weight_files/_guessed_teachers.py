"""Whether columns that nobody named as teachers' are all teachers': an index, an id or a total is no weight.

Without names every column counts as a teacher's.  An index column beside weights would then be projected like one of
them, and every row be wrong without a word.  What gives such a column away: it has no name; or the others alone sum to
1 (or to 100) in every row while all together do not; or it is the sum of the others; or it counts the rows.

Axes: N rows seen so far, K columns.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from ..io import Block, holds_numbers, is_nameless, list_names

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

_USUAL = re.compile(
    r"#|n[or]\.?|number|index|idx|key|level_\d+|case|row|line|fold|split|seed|step|time|(row|line)[_ ]?(number|no|nr)"
    r"|(.*[_ ])?id|id[_ ].*|(row|example|sample|case)[_ ]?(id|idx|index)"
    r"|(row|grand|sub)?[_ ]?(total|sum)|(total|sum)[_ ].*|.*[_ ](total|sum)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class GuessSettings:
    """What counts as evidence; ``tests/safekd/weight_files/test_guessed_teachers.py`` would notice.

    Attributes:
        rows: Rows that are looked at, at most: what holds in so many holds by design.
        cells: Cells that are looked at, at most: of very wide files fewer rows.
        rounded: How far from 1 weights may sum that were written with two digits.
        exact: The same for columns that look like weights themselves, where chance is the other explanation.
        better: How many times nearer to 1 the others must sum than all together, where that is near 1 too.
        plain: Rows from which on a column that looks like a weight may be taken for none: in fewer, chance is likely.
        counted: Rows from which on a column that counts them is an index whatever its name.
        listed: Columns that are tried one by one to say which hold numbers, at most: each is read anew.
    """

    rows: int = 1000
    cells: int = 1_000_000
    rounded: float = 0.02
    exact: float = 1e-6
    better: float = 4.0
    plain: int = 5
    counted: int = 5
    listed: int = 50


_SETTINGS = GuessSettings()


class GuessedTeachers:
    """The columns that are taken for teachers' because none were named.

    Args:
        names: The columns.
        path: Their file.
        label: What messages call the key that names teachers: an option, or a key of the rule set.
    """

    def __init__(self, names: Sequence[str], path: Path, label: str) -> None:
        self._names, self._path, self._label = list(names), path, label
        self._seen: Floats | None = None
        self._most = max(2, min(_SETTINGS.rows, _SETTINGS.cells // max(1, len(names))))
        nameless = [k for k, name in enumerate(names) if is_nameless(name)]
        if nameless:
            raise self._refuse(nameless, "has no name, as the index of a table that pandas or R wrote")

    def add(self, x_NK: Floats) -> None:
        """Look at some more rows.

        Args:
            x_NK: Their numbers.

        Raises:
            InvalidInput: A column is no teacher's.
        """
        seen = 0 if self._seen is None else len(self._seen)
        if seen >= self._most:
            return
        more = x_NK[: self._most - seen].astype(np.float64)
        self._seen = more if self._seen is None else np.concatenate([self._seen, more])
        found = find_other_columns(self._names, self._seen)
        if found is not None:
            raise self._refuse(*found)

    def explain(self, error: InvalidInput, block: Block) -> InvalidInput:
        """Return the error about a cell that is no number, with the columns that hold numbers as the next move.

        Args:
            error: What was said of the cell.
            block: The rows that it stands in.
        """
        if len(self._names) > _SETTINGS.listed:
            return InvalidInput(f"{error} If that column is no teacher's, name those that are by {self._label}.")
        numbers = [name for name in self._names if holds_numbers(block, name)]
        if not numbers:
            return error
        return InvalidInput(f"{error} If that column is no teacher's, name those that are: {self._suggest(numbers)}.")

    def _refuse(self, others: Sequence[int], reason: str) -> InvalidInput:
        which = [_call_column(self._names[k], k) for k in others[:3]]
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        few = set(others)
        left = [name for k, name in enumerate(self._names) if k not in few]
        move = f": {self._suggest(left)}" if left else f" by {self._label}"
        return InvalidInput(
            f"{self._path}: {' and '.join(which)}{more} {reason}: hardly a teacher's. Teachers were not "
            f"named; name them{move}."
        )

    def _suggest(self, names: Sequence[str]) -> str:
        if len(names) > _SETTINGS.listed:
            return f"{self._label} followed by {list_names(names)}"
        if not self._label.startswith("-"):
            return f"{self._label} = {json.dumps(list(names), ensure_ascii=False)}"
        if any("," in name for name in names):
            return " ".join(f"{self._label} {shlex.quote(name)}" for name in names)
        return f"{self._label} {shlex.quote(','.join(names))}"


def find_other_columns(names: Sequence[str], x_NK: Floats) -> tuple[list[int], str] | None:
    """Return which columns are no weights and why, None where nothing speaks against them.

    Args:
        names: Of the columns, (K,).
        x_NK: Finite numbers.
    """
    rows, columns = x_NK.shape
    named_K = np.array([_USUAL.fullmatch(name.strip()) is not None for name in names], dtype=bool)
    if columns < 2:
        return None
    whole_K: Mask = np.all(abs(x_NK - np.round(x_NK)) <= 1e-9, axis=0)  # a total is 1 to rounding
    whole_K &= ~whole_K.all()  # where all are whole it tells nothing of one
    for total in (1.0, 100.0):
        found = _find_beside_weights(x_NK / total, named_K, whole_K)
        if found is not None:
            verb, them = ("stand", "them") if len(found) > 1 else ("stands", "it")
            return found, f"{verb} beside columns that sum to {total:g} in every row without {them}"
    sum_N = x_NK.sum(axis=1)
    if any((abs(sum_N / total - 1) <= _SETTINGS.rounded).all() for total in (1.0, 100.0)):
        return None
    sums_K = (abs(sum_N[:, None] - 2 * x_NK) <= _SETTINGS.exact * abs(x_NK)).all(axis=0)
    sums_K &= (x_NK != 0).any(axis=0) & (_count_others_in_use(x_NK) >= 2) & (named_K | (rows >= _SETTINGS.plain))
    if sums_K.any():
        return [int(sums_K.argmax())], "is the sum of the others in every row"
    counts_K = (
        (x_NK == np.floor(x_NK)).all(axis=0) & (abs(np.diff(x_NK, axis=0)) == 1).all(axis=0) & _has_even_steps(x_NK)
    )
    counts_K &= np.isin(x_NK[[0, -1]], (0, 1)).any(axis=0) & (named_K | ((rows >= _SETTINGS.counted) & whole_K))
    if counts_K.any():
        return [int(counts_K.argmax())], "counts the rows"
    return None


def _find_beside_weights(x_NK: Floats, named_K: Mask, whole_K: Mask) -> list[int] | None:
    """Return the columns without which all rows sum to 1, while with them they do not."""
    error = _measure_error(x_NK)
    if error <= _SETTINGS.exact:  # weights; an id of 0 may stand beside them
        others_K = named_K & (x_NK == 0).all(axis=0)
        return np.flatnonzero(others_K).tolist() if others_K.any() and (~others_K).sum() >= 2 else None
    rows, columns = x_NK.shape
    outside_K = ((x_NK < 0) | (x_NK > 1)).any(axis=0)
    odd_K = (whole_K & outside_K) | (outside_K & (rows >= 2)) | (whole_K & (rows >= 2) & (x_NK != 0).any(axis=0))
    odd_K |= named_K | _has_even_steps(x_NK)
    for others_K in (np.zeros(columns, dtype=bool), odd_K):
        left_NK = x_NK[:, ~others_K]
        if left_NK.shape[1] < 2:
            continue
        rest = _measure_error(left_NK)
        plain = (left_NK != np.round(left_NK)).any() or bool(named_K[others_K].any())  # else 0 and 1, which sum to it
        if others_K.any() and plain and rest <= _SETTINGS.rounded and _SETTINGS.better * rest < error:
            return np.flatnonzero(others_K).tolist()
        one = _find_one_more(left_NK, named_K[~others_K], odd_K[~others_K], error)
        if one is not None:
            return sorted([*np.flatnonzero(others_K).tolist(), int(np.flatnonzero(~others_K)[one])])
    return None


def _find_one_more(x_NK: Floats, named_K: Mask, odd_K: Mask, error: float) -> int | None:
    """Return the column without which all rows sum to 1; of several, one that does not look like a weight."""
    rest_K = abs(x_NK.sum(axis=1)[:, None] - x_NK - 1).max(axis=0)
    one_K = (rest_K <= np.where(odd_K, _SETTINGS.rounded, _SETTINGS.exact)) & (_SETTINGS.better * rest_K < error)
    in_use_K = _count_others_in_use(x_NK)
    one_K &= (in_use_K >= 2) | (named_K & (in_use_K >= 1))
    one_K &= odd_K | ((len(x_NK) >= _SETTINGS.plain) & (error > _SETTINGS.rounded))
    if one_K.sum() > 1 and not (one_K & odd_K).any():
        return None
    best = max(np.flatnonzero(one_K), key=lambda k: (named_K[k], odd_K[k]), default=None)
    return None if best is None else int(best)


def _measure_error(x_NK: Floats) -> float:
    """Return how far a row is from summing to 1, at most."""
    return float(abs(x_NK.sum(axis=1) - 1).max())


def _has_even_steps(x_NK: Floats) -> Mask:
    """Return which columns rise or fall by the same step from row to row, over three rows or more, (K,)."""
    if len(x_NK) < 3:
        return np.zeros(x_NK.shape[1], dtype=bool)
    step_NK = np.diff(x_NK, axis=0)
    even: Mask = (abs(step_NK - step_NK[0]) <= 1e-9 * abs(step_NK[0])).all(axis=0) & (step_NK[0] != 0)
    return even


def _count_others_in_use(x_NK: Floats) -> NDArray[np.int64]:
    """Return, for each column, how many of the others hold anything but 0, (K,)."""
    used_K = (x_NK != 0).any(axis=0)
    count: NDArray[np.int64] = used_K.sum() - used_K.astype(np.int64)
    return count


def _call_column(name: str, k: int) -> str:
    return f"column '{name}'" if name.strip() else f"column {k + 1}"
