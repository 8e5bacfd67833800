"""Weights computed elsewhere, one row an example.  Axes: N rows, B batch, ... positions, K teachers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...data import ExampleSource, Split, fill_uncounted
from ...errors import InvalidInput, MissingSignal
from ...io import Block, open_table
from ...io.arrays import BoundFile, RowTable, open_rows
from ..signals import Signals
from ._rule_tree import walk_rule
from ._weight_rule import register_rule

Source = str | os.PathLike[str] | Tensor
_IN_ROWS = (".npy", ".safetensors")  # files without names of columns, whose rows stay there
_SUM_ERROR = 1e-6  # up to which a row of a file counts as summing to 1


@register_rule
class Stored:
    """Weights from a file or a tensor: the row of the position's example.

    Rows are found by example number, ``Batch.index``: 0 to N - 1 in the order of a split, or ``Split(numbers=...)``,
    which is needed where one table is about the examples of several splits.  Columns of a file are found by the names
    of the trainer's teachers; their order does not matter, and other columns are left alone.  A fit begins by reading
    the file and refuses it where a teacher or an example has no weights.  The rows of a .npy or .safetensors file stay
    there and are read a batch at a time.

    Args:
        source: A CSV or Parquet file; a tensor (N, K) or (N, ..., K), or a .npy or .safetensors file that holds one; or
            one of these for each split, by its name.
        by: "index": row n is about example n.  Otherwise the column of the file that holds example numbers; rows may
            then be in any order.
        teachers: Names of a tensor's K columns, in a file or not; None where they are in the trainer's order.

    Raises:
        InvalidInput: The source is none, or lacks the column ``by``.
    """

    scale: ClassVar[str] = "any"
    needs: ClassVar[frozenset[str]] = frozenset({"index"})
    continuous: ClassVar[bool] = True

    def __init__(
        self, source: Source | Mapping[str, Source], by: str = "index", *, teachers: Sequence[str] | None = None
    ) -> None:
        parts = source.items() if isinstance(source, Mapping) else [(None, source)]
        self._sources: dict[str | None, Source] = dict(parts)
        self.by, self.teachers = by, None if teachers is None else tuple(teachers)
        self._tables: dict[tuple[str | None, tuple[str, ...] | None], _WeightTable] = {}
        for one in self._sources.values():
            if isinstance(one, Tensor):
                self._require_tensor(one)
            elif not isinstance(one, (str, os.PathLike)):
                raise InvalidInput(
                    f"Stored weights are a {type(one).__name__}; wanted the path of a CSV, Parquet, .npy or "
                    ".safetensors file, a tensor (N, K), or a dictionary from split name to one of these."
                )
            elif _stays_in_file(one):
                self._require_columns(open_rows(one).shape[-1])
            else:
                with open_table(one) as table:
                    if by != "index" and by not in table.columns:
                        raise InvalidInput(
                            f"{os.fspath(one)} has no column '{by}' of example numbers; it has: "
                            f"{', '.join(table.columns)}. Name one, or by='index' for rows in the split's order."
                        )

    def __call__(self, signals: Signals) -> Tensor:
        """Return the stored weights of each position's example, (..., K).

        Args:
            signals: The signals of a batch, ``index`` among them.

        Raises:
            MissingSignal: The signals do not say which examples they are about, or what the teachers are called.
            InvalidInput: An example or a teacher has no weights.
        """
        if signals.index is None:
            raise MissingSignal(
                "Stored weights are found by example; pass `index`, its number (Batch.index). A trainer does so."
            )
        table = self._table(signals.split, signals.teachers)
        w_K = table.look_up(signals.index, signals.split).to(signals.ones())
        while w_K.ndim < len(signals.shape):  # one row an example, for all its positions
            w_K = w_K.unsqueeze(-2)
        if w_K.shape[-1] != signals.shape[-1]:
            raise InvalidInput(
                f"Stored weights of {table.name} are about {w_K.shape[-1]} teachers, there are {signals.shape[-1]}."
            )
        w_K = fill_uncounted(w_K.expand(signals.shape), signals.mask, 1 / signals.shape[-1])
        if not bool(torch.isfinite(w_K).all()):
            place = tuple(int(i) for i in (~torch.isfinite(w_K)).any(-1).nonzero()[0])
            example = int(signals.index[place[: signals.index.ndim]])
            raise InvalidInput(f"Stored weights of {table.name} are not finite for example {example}; mend that row.")
        return w_K

    def require_rows(self, splits: Mapping[str, ExampleSource], teachers: Sequence[str]) -> None:
        """Read all tables anew, and refuse those that lack a teacher or an example; streams are looked up as they come.

        Args:
            splits: Those whose examples are weighed, by name.
            teachers: Names of the trainer's teachers.

        Raises:
            InvalidInput: One is missing; the message names it.
        """
        self._tables.clear()
        for source in splits.values():
            if not source.numbered:
                raise InvalidInput(
                    f"Stored weights are found by example, and the examples of '{source.name}' have no index; let the "
                    'stream give one, the row of each example: fields=("inputs", "labels", "numbers").'
                )
        in_memory = [split for split in splits.values() if isinstance(split, Split)]
        unnumbered = [split for split in in_memory if split.numbers is None]
        if None in self._sources and len(unnumbered) > 1:
            one, other = (f"'{split.name}'" for split in unnumbered[:2])
            raise InvalidInput(
                f"Stored weights are one table, but splits {one} and {other} both number their examples from 0, so its "
                f"rows would be taken for both. Give Split(..., numbers=), the row of each example, or "
                f"Stored({{{one}: ..., {other}: ...}})."
            )
        for split in in_memory:
            table = self._table(split.name, teachers)
            if split.numbers is None and len(table) != len(split):
                raise InvalidInput(
                    f"Stored weights of {table.name} have {len(table)} rows, split '{split.name}' has {len(split)} "
                    "examples; wanted one row an example, or Split(..., numbers=), the row of each example."
                )
            table.require_rows(torch.arange(len(split)) if split.numbers is None else split.numbers, split.name)

    def _table(self, split: str | None, teachers: Sequence[str] | None) -> _WeightTable:
        place = None if None in self._sources else split
        if place not in self._sources:
            raise InvalidInput(
                f"There are no stored weights for split '{split}'; there are for {sorted(map(str, self._sources))}."
            )
        key = place, None if teachers is None else tuple(teachers)
        if key not in self._tables:
            self._tables[key] = self._read(self._sources[place], key[1])
        return self._tables[key]

    def _read(self, source: Source, teachers: tuple[str, ...] | None) -> _WeightTable:
        if isinstance(source, Tensor):
            order = self._order_columns(teachers)
            return _WeightTable("a tensor", source.detach() if order is None else source.detach()[..., order])
        if _stays_in_file(source):
            return _WeightFile(open_rows(source), self._order_columns(teachers))
        wanted = teachers or self.teachers
        if wanted is None:
            raise MissingSignal(
                f"The columns of {os.fspath(source)} are found by name; pass `teachers`, the names in the order of the "
                "scores. A trainer does so."
            )
        return _read_file(Path(source), self.by, wanted)

    def _order_columns(self, teachers: tuple[str, ...] | None) -> list[int] | None:
        """Return which column of a tensor each teacher has, None where they are in order."""
        if self.teachers is None or teachers is None:
            return None
        if sorted(self.teachers) != sorted(teachers):
            raise InvalidInput(
                f"Stored weights are about teachers {', '.join(self.teachers)}; the trainer has {', '.join(teachers)}."
            )
        return [self.teachers.index(name) for name in teachers]

    def _require_tensor(self, weights: Tensor) -> None:
        finite = weights.ndim > 2 or bool(torch.isfinite(weights).all())  # by position: known where positions count
        if weights.ndim < 2 or not weights.is_floating_point() or not finite:
            raise InvalidInput(
                f"Stored weights are a tensor of shape {tuple(weights.shape)} ({weights.dtype}); wanted finite floats, "
                "(examples, teachers)."
            )
        self._require_columns(weights.shape[-1])

    def _require_columns(self, count: int) -> None:
        if self.by != "index":
            raise InvalidInput(f"`by` of Stored is '{self.by}', but a tensor has no columns of names; use by='index'.")
        if self.teachers is not None and len(self.teachers) != count:
            raise InvalidInput(f"Stored weights have {count} columns for {len(self.teachers)} `teachers`.")

    def __repr__(self) -> str:
        """Return the sources and a hash of their content: two of one text give the same weights."""
        parts = {str(split): _hash_source(one) for split, one in self._sources.items()}
        what = parts["None"] if None in self._sources else ", ".join(f"{split}: {x}" for split, x in parts.items())
        return f"Stored({what}, by='{self.by}', teachers={self.teachers})"


def require_stored_rows(rule: object, splits: Mapping[str, ExampleSource], teachers: Sequence[str]) -> None:
    """Refuse stored weights inside a rule that lack a teacher or an example; they are read anew.

    Args:
        rule: A rule, wrapped or not.
        splits: Those whose examples are weighed, by name.
        teachers: Names of the trainer's teachers.

    Raises:
        InvalidInput: One is missing; the message names it.
    """
    for _, part in walk_rule(rule, lambda part: not isinstance(part, Stored)):
        if isinstance(part, Stored):
            part.require_rows(splits, teachers)


class _WeightTable:
    """Rows of weights by example number.

    name: what messages call it; keys_N: the example that each row is about, None where row n is about example n.
    """

    def __init__(self, name: str, rows_NK: Tensor, keys_N: Tensor | None = None, by: str = "row") -> None:
        self.name, self._by, self._rows, self._keys = name, by, rows_NK, keys_N
        if keys_N is not None:
            self._keys, order = keys_N.sort()
            self._rows = rows_NK[order]
            if bool((twice := self._keys.diff() == 0).any()):
                number = int(self._keys[1:][twice][0])
                raise InvalidInput(f"{name}: {by} has example {number} twice; wanted one row an example.")

    def __len__(self) -> int:
        return len(self._rows)

    def look_up(self, index: Tensor, split: str | None) -> Tensor:
        """Return the rows of some examples, on the index's device."""
        return self._read_rows(self.require_rows(index, split)).to(index.device)

    def require_rows(self, index: Tensor, split: str | None) -> Tensor:
        """Return the places of the rows of some examples; InvalidInput where there is none."""
        number = index.cpu()
        if self._keys is None:
            place, known = number, (number >= 0) & (number < len(self))
        else:
            place = torch.searchsorted(self._keys, number).clamp_max(len(self) - 1)
            known = self._keys[place] == number
        if not bool(known.all()):
            of_split = "" if split is None else f" of split '{split}'"
            raise InvalidInput(
                f"Stored weights of {self.name} have no row for example {int(number[~known][0])}{of_split}: "
                f"{int((~known).sum())} of {number.numel()} are missing among its {len(self)} rows (by {self._by})."
            )
        return place

    def _read_rows(self, place: Tensor) -> Tensor:
        return self._rows[place.to(self._rows.device)]


class _WeightFile(_WeightTable):
    """Rows of weights that stay in their file: row n is about example n.

    order: which column each teacher has; None where they are in order.
    """

    def __init__(self, rows: RowTable, order: list[int] | None) -> None:
        super().__init__(rows.name, torch.empty(0))
        self._file, self._order = rows, order

    def __len__(self) -> int:
        return len(self._file)

    def _read_rows(self, place: Tensor) -> Tensor:
        w_K = self._file.read(place.reshape(-1))
        if not bool(torch.isfinite(w_K).all()):
            row = int(place.reshape(-1)[(~torch.isfinite(w_K)).reshape(len(w_K), -1).any(1)][0])
            raise InvalidInput(f"{self.name}, row {row}: found a weight that is not finite; wanted finite numbers.")
        w_K = w_K.reshape(*place.shape, *w_K.shape[1:])
        return w_K if self._order is None else w_K[..., self._order]


def _stays_in_file(source: Source) -> bool:
    return not isinstance(source, Tensor) and Path(source).suffix.lower() in _IN_ROWS


def _read_file(path: Path, by: str, teachers: Sequence[str]) -> _WeightTable:
    with open_table(path) as table:
        missing = [name for name in teachers if name not in table.columns]
        if missing:
            raise InvalidInput(
                f"{path} has no column for teacher '{missing[0]}'; it has: {', '.join(table.columns)}. "
                f"Name its columns after the trainer's teachers: {', '.join(teachers)}."
            )
        others = [name for name in table.columns if name not in (*teachers, by)]
        rows, keys = [], []
        for block in table.blocks():
            rows.append(np.asarray(block.numbers(list(teachers)), dtype=np.float64))
            if len(rows) == 1:
                _require_whole_rows(block, rows[0][0].sum(), others, teachers, path)
            if by != "index":
                keys.append(_read_example_numbers(block, by))
    rows_NK = torch.from_numpy(np.concatenate(rows))
    if by == "index":
        return _WeightTable(str(path), rows_NK)
    return _WeightTable(str(path), rows_NK, torch.from_numpy(np.concatenate(keys)), f"column '{by}'")


def _read_example_numbers(block: Block, by: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    number_N = block.numbers([by])[:, 0]
    wrong = np.flatnonzero((number_N != np.floor(number_N)) | (number_N < 0))
    if len(wrong):
        raise block.explain_refusal(int(wrong[0]), by, "the number of an example, a whole number from 0")
    return number_N.astype(np.int64)


def _require_whole_rows(block: Block, total: float, others: Sequence[str], teachers: Sequence[str], path: Path) -> None:
    """Refuse a file whose weights sum to 1 only with a teacher that the trainer does not have."""
    if abs(total - 1) <= _SUM_ERROR:
        return
    for name in others:
        try:
            more = float(block.numbers([name])[0, 0])
        except InvalidInput:  # a column of text
            continue
        if more and abs(total + more - 1) <= _SUM_ERROR:
            raise InvalidInput(
                f"{path}: the weights of {', '.join(teachers)} sum to {total:g}, to 1 only with column '{name}', which "
                "no teacher of the trainer is called. Add that teacher, or drop the column."
            )


def _hash_source(source: Source) -> str:
    if isinstance(source, Tensor):
        content = source.detach().cpu().double().contiguous().numpy().tobytes()
        return f"tensor {tuple(source.shape)} {hashlib.sha256(content).hexdigest()[:12]}"
    try:
        return f"{os.fspath(source)} {BoundFile(source).hash_content()[:12]}"
    except InvalidInput:  # it is gone, or is a pipe
        return os.fspath(source)
