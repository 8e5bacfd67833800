"""Shards: the rows of some examples, and a table of these.  Axes: N examples, P positions, W width of a row.

A shard is read where it is asked for, never mapped; each example has a checksum of its rows, so that a byte that was
changed on disk is an error when it is read, and not a wrong target.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import InvalidInput
from ...io.arrays import BoundFile, RawRows, open_tensors
from ...io.folders import flush_folder, require_room
from ...training.resume import write_tensor_file
from ._cache_folder import find_misfit
from ._cache_record import CacheRecord, ShardEntry
from ._example_index import COLUMNS, CRC, LENGTH, Table

PART = ".part"
_EXAMPLES = "examples"


@dataclass(frozen=True)
class ShardSettings:
    """How shards are read; ``tests/safekd/language/cache/test_cached_teacher.py`` would notice.

    Attributes:
        open_files: Shards that are open at a time: a process may have some thousand files open.
    """

    open_files: int = 64


SETTINGS = ShardSettings()


def write_whole_file(tensors: Mapping[str, Tensor], path: Path) -> dict[str, object]:
    """Write named tensors into a file that is there whole or not at all; return its size and SHA-256.

    Args:
        tensors: By name.
        path: The file; what lies there is replaced.

    Raises:
        InvalidInput: It cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        require_room(path.parent, sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) + 2**16)
        written = write_tensor_file(tensors, part)
        os.replace(part, path)
        flush_folder(path.parent)
    except OSError as error:
        raise InvalidInput(
            f"Cannot write {path}: {error.strerror or error}. Make room; the same call goes on after the last shard."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return written


def write_shard(
    folder: Path, file: str, table_NX: Table, rows: Mapping[str, Tensor]
) -> tuple[ShardEntry, dict[str, object]]:
    """Write a shard; return what the manifest notes of it, and size and SHA-256 of the file.

    Args:
        folder: Of the teacher.
        file: Name of the shard.
        table_NX: Its examples, (N, 6), without checksums.
        rows: Their positions, by name, (P, W) each.

    Raises:
        InvalidInput: It cannot be written.
    """
    table_NX = table_NX.copy()
    table_NX[:, CRC] = list_checksums(rows, table_NX[:, LENGTH])
    written = write_whole_file({_EXAMPLES: torch.from_numpy(table_NX), **rows}, folder / file)
    digest = hashlib.sha256(table_NX.tobytes()).hexdigest()
    return ShardEntry(file, len(table_NX), int(table_NX[:, LENGTH].sum()), digest), written


def list_checksums(rows: Mapping[str, Tensor], length_N: Table) -> list[int]:
    """Return a CRC-32 of the rows of each example.

    Args:
        rows: Of all of them, one after the other, by name.
        length_N: How many rows each example has, (N,).
    """
    end_N = np.cumsum(length_N)
    sums = [0] * len(length_N)
    for _, value_PW in sorted(rows.items()):
        data_PX = value_PW.contiguous().view(torch.uint8).numpy()
        for number, (end, length) in enumerate(zip(end_N.tolist(), length_N.tolist(), strict=True)):
            sums[number] = zlib.crc32(data_PX[end - length : end].data, sums[number])
    return sums


class ShardReader:
    """The shards of one teacher, opened when something of them is asked for.

    Args:
        folder: Of the teacher.
        record: What its manifest says.

    Attributes:
        folder: As given.
        record: As given.
    """

    def __init__(self, folder: Path, record: CacheRecord) -> None:
        self.folder, self.record = folder, record
        self._open: OrderedDict[int, dict[str, RawRows]] = OrderedDict()
        self._versions: dict[int, tuple[int, int]] = {}

    def read_table(self, shard: int) -> Table:
        """Return the table of examples of a shard.

        Args:
            shard: Its place among the shards.

        Raises:
            InvalidInput: It is not what was written.
        """
        entry = self.record.shards[shard]
        table = self._open_shard(shard)[_EXAMPLES].read(torch.arange(entry.examples)).numpy()
        lengths = table[:, LENGTH]
        whole = bool((lengths > 0).all()) and int(lengths.sum()) == entry.positions
        if not whole or hashlib.sha256(table.tobytes()).hexdigest() != entry.index_sha256:
            raise InvalidInput(f"{self.folder / entry.file} is not what was written: its examples are others.")
        return table

    def read_rows(self, shard: int, start_B: Sequence[int], crc_B: Sequence[int], length_B: Table) -> dict[str, Tensor]:
        """Return the rows of some examples of a shard, one example after the other.

        Args:
            shard: Its place among the shards.
            start_B: Where the rows of each example begin.
            crc_B: Their checksums.
            length_B: How many rows each example has, (B,).

        Raises:
            InvalidInput: A number was changed since it was written.
        """
        opened = self._open_shard(shard)
        spans = zip(start_B, length_B.tolist(), strict=True)
        place_P = torch.cat([torch.arange(start, start + length) for start, length in spans])
        rows = {name: opened[name].read(place_P) for name in self.record.format.columns}
        if list_checksums(rows, length_B) != list(crc_B):
            raise InvalidInput(
                f"{self.folder / self.record.shards[shard].file} is not what was written: the checksum of an example "
                "is another one. `safekd cache verify` says what else was changed; building again mends it."
            )
        return rows

    def _open_shard(self, shard: int) -> dict[str, RawRows]:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        entry = self.record.shards[shard]
        if wrong := find_misfit(self.folder, entry.file, self.record.files[entry.file]):
            raise InvalidInput(f"{self.folder} is damaged: {wrong}.")
        file = BoundFile(self.folder / entry.file)
        if self._versions.setdefault(shard, file.version) != file.version:
            raise InvalidInput(f"{self.folder / entry.file} was changed while it was in use.")
        opened = self._require_columns(open_tensors(file), entry)
        self._open[shard] = opened
        if len(self._open) > SETTINGS.open_files:
            self._open.popitem(last=False)
        return opened

    def _require_columns(self, opened: dict[str, RawRows], entry: ShardEntry) -> dict[str, RawRows]:
        wanted = {
            name: (dtype, (entry.positions, width)) for name, (dtype, width) in self.record.format.columns.items()
        }
        wanted[_EXAMPLES] = (torch.int64, (entry.examples, len(COLUMNS)))
        found = {name: (rows.dtype, rows.shape) for name, rows in opened.items()}
        if found != wanted:
            odd = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))[0]
            raise InvalidInput(
                f"{self.folder / entry.file} is not what was written: tensor {odd[:80]!r} is "
                f"{str(found.get(odd))[:120]}, wanted {wanted.get(odd)}."
            )
        return opened
