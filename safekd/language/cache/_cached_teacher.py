"""A teacher whose answers lie on disk.  Axes: B batch, T positions, N examples stored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data import Batch
from ...errors import InvalidInput
from ..loss import Head, TeacherOutput
from ..teachers import require_batch
from ._cache_folder import find_misfit, find_teacher_folder
from ._cache_record import find_differences, read_record
from ._example_index import CRC, INPUTS, LENGTH, ExampleIndex, Table
from ._example_keys import ExampleKeys, key_examples, name_cached_inputs
from ._shard_files import ShardReader
from ._stored_head import read_head


class CachedTeacher:
    """Answers batches with what a teacher said before: in any order, in batches of any size, padded to any length.

    An example is found by its content, so that one that was not cached is refused and named.  Shards stay on disk and
    are read where they are asked for; each example's checksum is compared.  It travels to other processes by its path.

    Args:
        path: Folder of the cache, or of one teacher in it.
        name: Of the teacher; None where the cache has one.
        expect: What the teacher should be: its ``manifest()``, or the ``manifest()`` of a cached teacher; None for
            whatever was stored.

    Attributes:
        path: Folder of the teacher.
        name: Of the teacher.
        vocabulary: How many tokens it scores.
        record: What the manifest of the folder says.

    Raises:
        InvalidInput: There is no such cache, it is not finished, damaged, or of another teacher; what differs is named.
    """

    def __init__(
        self, path: str | os.PathLike[str], name: str | None = None, *, expect: Mapping[str, Any] | None = None
    ) -> None:
        self.path = find_teacher_folder(Path(path), name)
        self._open()
        if expect is not None:
            self.require(expect)

    def _open(self) -> None:
        self.record = read_record(self.path)
        self.name, self.vocabulary = self.record.name, self.record.format.vocabulary
        if not self.record.finished:
            raise InvalidInput(
                f"{self.path} is not finished: {self.record.examples:,} examples are there. The call that wrote them, "
                "write_cache or `safekd cache build`, goes on there."
            )
        for file, stated in self.record.files.items():
            if wrong := find_misfit(self.path, file, stated):
                raise InvalidInput(f"{self.path} is damaged: {wrong}.")
        self._reader = ShardReader(self.path, self.record)
        self._index: ExampleIndex | None = None
        self._head: Head | None = None

    def __len__(self) -> int:
        return self.record.examples

    def __repr__(self) -> str:
        form = self.record.format
        return f"CachedTeacher('{self.path}', {form.kind} in {form.dtype}, {len(self):,} examples)"

    def __getstate__(self) -> dict[str, Any]:
        """Travel by path, with what tells whether it is the same cache."""
        return {"path": self.path, "record": self.record}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open it where one is, and refuse another one."""
        self.path = state["path"]
        self._open()
        if self.record != state["record"]:
            raise InvalidInput(f"{self.path} was changed while it was in use: it is another cache than the one opened.")

    def manifest(self) -> dict[str, Any]:
        """Return what tells it from another teacher: what it said of itself, and of the cache, ``cache_...``."""
        return self.record.list_facts()

    def require(self, expect: Mapping[str, Any]) -> None:
        """Refuse to be another teacher, or another cache, than what is asked for.

        Args:
            expect: The ``manifest()`` of a teacher, or of a cached one.

        Raises:
            InvalidInput: A field differs, or is told on one side alone; the message names each, found and wanted.
        """
        if wrong := find_differences(self.manifest(), expect):
            raise InvalidInput(
                f"The cache {self.path} is not of the teacher that is asked for: {'; '.join(wrong)}. Build it anew in "
                "another folder, or ask for the teacher that it is of."
            )

    def __call__(self, batch: Batch) -> TeacherOutput:
        """Return what the teacher said about a batch, on the batch's device.

        Args:
            batch: Examples that were cached, in any order.

        Returns:
            ``Hidden`` or ``TopK``; at positions that do not count zeros, or equal probabilities.

        Raises:
            InvalidInput: An example was not cached, or is another one than was; the message names it.
        """
        keys = key_examples(require_batch(batch, f"Teacher '{self.name}'"))
        index = self._load_index()
        place_B = index.find(keys.key_B2)
        used_B = keys.lengths > 0
        if bool((used_B & (place_B < 0)).any()):
            raise self._explain_absence(batch, keys, int(np.flatnonzero(used_B & (place_B < 0))[0]))
        rows = self._read(place_B[used_B], index.table_NX)
        return self.record.format.decode(rows, batch, keys, self._load_head(batch.labels.device))

    def _read(self, place_U: Table, table_NX: Table) -> dict[str, torch.Tensor]:
        """Return the rows of some examples, in their order: those of a shard are read together."""
        length_U, shard_U = table_NX[place_U, LENGTH], self._shard_N[place_U]
        columns = self.record.format.columns
        rows = {name: torch.empty(int(length_U.sum()), width, dtype=dtype) for name, (dtype, width) in columns.items()}
        end_U = np.cumsum(length_U)
        for shard in np.unique(shard_U).tolist():
            member_S = np.flatnonzero(shard_U == shard)
            place_S = place_U[member_S]
            read = self._reader.read_rows(
                shard, self._start_N[place_S].tolist(), table_NX[place_S, CRC].tolist(), length_U[member_S]
            )
            spans = zip((end_U - length_U)[member_S].tolist(), length_U[member_S].tolist(), strict=True)
            where_P = torch.cat([torch.arange(start, start + length) for start, length in spans])
            for name, value_PW in read.items():
                _view_as_bytes(rows[name])[where_P] = _view_as_bytes(value_PW)
        return rows

    def _load_index(self) -> ExampleIndex:
        if self._index is None:
            tables = [self._reader.read_table(shard) for shard in range(len(self.record.shards))]
            starts = [np.cumsum(table[:, LENGTH]) - table[:, LENGTH] for table in tables]
            self._start_N = np.concatenate(starts)
            self._shard_N = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
            self._index = ExampleIndex(np.concatenate(tables))
        return self._index

    def _load_head(self, device: torch.device) -> Head | None:
        if self.record.head is None:
            return None
        if self._head is None:
            self._head = read_head(self.path, self.record)
        if self._head.weight.device != device:
            bias = self._head.bias
            moved = self._head.weight.to(device), None if bias is None else bias.to(device)
            self._head = Head(*moved, self._head.scale, self._head.softcap)
        return self._head

    def _explain_absence(self, batch: Batch, keys: ExampleKeys, row: int) -> InvalidInput:
        """Return the error about an example that was not cached: as near as can be told, in what it differs."""
        names, index = tuple(name_cached_inputs(batch.inputs)), self._load_index()
        number = int(batch.index[row])
        who = f"Example {number}" if batch.numbered else f"The example at place {row} of the batch"
        before = index.find_number(number) if batch.numbered else None
        same = np.flatnonzero(index.table_NX[:, INPUTS] == keys.inputs_B[row])
        if len(same):
            cached = int(index.table_NX[same[0], LENGTH])
            what = (
                f"its labels are others: {int(keys.lengths[row])} positions count, {cached} did"
                if cached != keys.lengths[row]
                else "its labels are others than those that were cached"
            )
        elif names != self.record.inputs and len({*names, *self.record.inputs} - {""}) > 1:
            what = f"its inputs are {list(names)}, and {list(self.record.inputs)} were cached"
        elif before is not None:
            what = "its inputs are others than those that were cached under this number"
        else:
            what = "it was not cached"
        return InvalidInput(
            f"{who} is not in the cache {self.path}: {what}. Use the data that were cached, tokenized in the same way, "
            "or build the cache on these data too: what it holds is not asked again."
        )


def _view_as_bytes(value_PW: torch.Tensor) -> torch.Tensor:
    """Return the same memory as bytes: not every operation knows numbers of two bytes without a sign."""
    return value_PW.view(torch.uint8)
