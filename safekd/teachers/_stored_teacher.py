"""A teacher that was asked elsewhere: a table with a row an example, in memory or in a file."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from torch import Tensor

from .._fingerprint import fingerprint_tensors
from .._precision import widen
from ..data import Batch
from ..errors import InvalidInput
from ..io.arrays import RowTable, open_rows
from ._teacher import read_distributions, require_floor, require_gives, require_request

Table = Tensor | RowTable | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class StoredTeacher:
    """What a teacher said, computed elsewhere: a table with a row an example.

    A table belongs to a split by the numbers of its examples: ``kd.Split(..., numbers=rows)`` says which row is whose,
    and a ``Split.part`` keeps them.  A split without numbers is read in its order, from a table of its own size that no
    other split reads; content cannot tell whether that order is the table's.

    A table in a file stays there: each batch reads its rows, so that memory does not grow with the table.  What the
    file holds is bound when the teacher is made; a file that is changed or replaced later is refused.  What a
    ``TeacherEnsemble`` keeps of answers, at most its ``cache_limit``, comes on top.

    Args:
        name: What tables and messages call it.
        table: A table (N, ..., V): a tensor, or the path of a .npy file, of a .safetensors file, or of a Parquet file
            with a column of floats a class; a list of paths, whose rows follow each other; or one of these a split, by
            its name.
        floor: Smallest probability, under which none is let fall: a stored 0 would make one mistake infinitely
            expensive.  None for 1e-6 under probabilities, or 1e-3 / V with more than a thousand classes, and for none
            under logits; 0 keeps zeros.
        gives: What the rows are, "probabilities", "logits" or "log_probabilities".
        tensor: Which tensor of .safetensors files it is; None where they hold one.
        columns: Which columns of Parquet files, in the order of the classes; None for all.

    Raises:
        InvalidInput: It is no table, or ``gives`` none of the three.
    """

    def __init__(
        self,
        name: str,
        table: Table | Mapping[str, Table],
        floor: float | None = None,
        *,
        gives: str = "probabilities",
        tensor: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        require_gives(gives, name)
        self.name, self.floor, self.gives = name, require_floor(floor, name), gives
        self._readers: set[str] = set()  # the split without numbers that reads the only table; no part of the content
        by_split = isinstance(table, Mapping)
        given = dict(table) if isinstance(table, Mapping) else {"": table}
        tables = {split: _open_table_rows(name, one, tensor, columns) for split, one in given.items()}
        self._rows = tables if by_split else None
        self._only = None if by_split else tables[""]

    def fingerprint(self) -> Hashable:
        """Return what changes with the content of its tables.

        A file is read once for it, while nobody changes it.

        Raises:
            InvalidInput: A file was changed since the teacher was made.
        """
        tables = {"": self._only} if self._rows is None else self._rows
        parts = [
            (split, *fingerprint_tensors([one])) if isinstance(one, Tensor) else (split, one.fingerprint())
            for split, one in tables.items()
            if one is not None
        ]
        return (self.gives, self.floor, *parts)

    def log_probabilities(self, batch: Batch, split: str) -> Tensor:
        """Return the stored rows of the batch's examples as log-probabilities.

        Args:
            batch: Examples.
            split: Name of the split that the batch is from.

        Returns:
            (B, ..., V).

        Raises:
            InvalidInput: There are no rows for the split, or too few, or it is not known which are whose; or a row is
                no distribution, or its file was changed.
        """
        require_request(self.name, batch, split)
        table = self._only if self._rows is None else self._rows.get(split)
        if table is None:
            raise InvalidInput(
                f"Teacher '{self.name}' has no stored rows for split '{split}'; it has {sorted(self._rows or {})}."
            )
        self._require_bound_rows(len(table), batch, split)
        rows_V = table[batch.index.to(table.device)] if isinstance(table, Tensor) else table.read(batch.index)
        rows_V = rows_V.to(batch.labels.device)
        if not rows_V.is_floating_point():
            raise InvalidInput(f"Teacher '{self.name}' has stored rows of {rows_V.dtype}; wanted floats.")
        try:
            return read_distributions(widen(rows_V), self.gives, self.name, self.floor, batch, split, rows_V.dtype)
        except InvalidInput as error:
            if not isinstance(table, Tensor):
                error.add_note(f"The row is from {table.name}.")
            raise

    def _require_bound_rows(self, count: int, batch: Batch, split: str) -> None:
        """Refuse to read rows of which nobody said whose they are."""
        who = f"Teacher '{self.name}' has {count} stored rows"
        how = f"say which row is whose: kd.Split('{split}', ..., numbers=rows), with the row of each example"
        if not batch.numbered:
            raise InvalidInput(
                f"{who}, and the examples of '{split}' have no index, so it is not known which row is whose; let the "
                'stream give one, the row of each example: fields=("inputs", "labels", "numbers").'
            )
        last, size, first = int(batch.index.max()), batch.split_size, next(iter(self._readers), split)
        if last >= count:
            raise InvalidInput(
                f"{who} for split '{split}', but example {last} was asked for; store one row an example, in the "
                f"split's order, or {how}."
            )
        if size is None:
            return
        if size != count:
            raise InvalidInput(
                f"{who}, split '{split}' has {size} examples without numbers, so it is not known which rows are "
                f"theirs; {how}, or store one row an example, in the split's order."
            )
        if self._rows is None and first != split:
            raise InvalidInput(
                f"{who}, which split '{first}' reads in its order, and now split '{split}', both without numbers; give "
                f"a table for each, {{'{first}': ..., '{split}': ...}}, or {how}."
            )
        self._readers.add(split)


def _open_table_rows(name: str, table: Any, tensor: str | None, columns: Sequence[str] | None) -> Tensor | RowTable:
    """Return a tensor or an open table as it is, and open what is in files."""
    in_files = isinstance(table, (str, os.PathLike)) or (
        isinstance(table, Sequence) and all(isinstance(part, (str, os.PathLike)) for part in table)
    )
    if in_files:
        try:
            return open_rows(table, tensor=tensor, columns=columns)
        except InvalidInput as error:
            raise InvalidInput(f"Teacher '{name}': {error}") from error
    if tensor is not None or columns is not None:
        raise InvalidInput(f"Teacher '{name}': `tensor` and `columns` say what to read of files; leave them out.")
    if isinstance(table, (Tensor, RowTable)):
        return table
    raise InvalidInput(
        f"Teacher '{name}': stored probabilities are a {type(table).__name__}; wanted a tensor (N, V), the path of a "
        ".npy, .safetensors or .parquet file, or a dictionary from split name to one of these."
    )
