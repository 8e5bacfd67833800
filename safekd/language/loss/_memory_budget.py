"""How many positions at once: what fits into a budget of memory.

    chunk    positions whose logits are held, so that matrix products are large; buffers that all chunks share
    block    positions of a chunk that are compared at once, so that what is worked out of logits stays in the cache

Axes: C positions of a chunk, R positions of a block, K teachers, V vocabulary.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._number_checks import is_finite
from ...errors import InvalidInput, SafekdWarning

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class ChunkSettings:
    """Sizes of chunks and blocks; ``python -m benchmarks.kd_loss`` notices.

    Attributes:
        least_on_cpu: Fewest positions of a chunk: below, the heads are read from memory more often than they are worth.
        least_on_gpu: The same, where matrix products need more rows to be busy.
        block_on_cpu: Bytes of a matrix (R, V): some ten of them fit into the third-level cache.
        block_on_gpu: The same; larger, since each operation is a kernel to be launched.
    """

    least_on_cpu: int = 64
    least_on_gpu: int = 256
    block_on_cpu: int = 2**21
    block_on_gpu: int = 2**26


SETTINGS = ChunkSettings()


@dataclass(frozen=True)
class ChunkSize:
    """How many positions are read at once.

    Attributes:
        rows: Positions of a chunk.
        block: Positions of a block.
    """

    rows: int
    block: int

    def chunks(self, positions: int) -> Iterator[slice]:
        """Yield the positions of each chunk, as many in one as in another.

        Args:
            positions: How many there are.
        """
        several = -(-positions // self.rows)
        yield from _cut(positions, -(-positions // several) if several else 1)

    def blocks(self, positions: int) -> Iterator[slice]:
        """Yield the positions of each block of a chunk.

        Args:
            positions: How many the chunk has.
        """
        yield from _cut(positions, self.block)


def _cut(positions: int, size: int) -> Iterator[slice]:
    for start in range(0, positions, size):
        yield slice(start, min(start + size, positions))


class ChunkBuffers:
    """Matrices (C, V) that all chunks share, made when they are first asked for.

    Args:
        rows: Positions of the largest chunk.
        vocabulary: V.
        dtype: Of the buffers.
        device: Where they are.
    """

    def __init__(self, rows: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> None:
        self._shape, self._dtype, self._device = (rows, vocabulary), dtype, device
        self._made: dict[int, Tensor] = {}

    def take(self, place: int, rows: int) -> Tensor:
        """Return a buffer with whatever is in it.

        Args:
            place: Which one.
            rows: How many positions of it.
        """
        if place not in self._made:
            self._made[place] = torch.empty(self._shape, dtype=self._dtype, device=self._device)
        return self._made[place][:rows]


def read_bytes(budget: object) -> int:
    """Return a budget in bytes.

    Args:
        budget: A number of bytes, or text such as "64MiB", "1.5 GB".

    Raises:
        InvalidInput: It is neither, or not above 0.
    """
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", budget)
        if match and match[2].upper() in _UNITS and float(match[1]) > 0:
            return int(float(match[1]) * _UNITS[match[2].upper()])
    elif is_finite(budget) and float(budget) > 0:  # type: ignore[arg-type]
        return int(budget)  # type: ignore[call-overload, no-any-return]
    raise InvalidInput(f"`budget` is {budget!r}; wanted bytes above 0, as a number or as text such as '64MiB'.")


def choose_chunk(
    positions: int, budget: int, buffers: int, vocabulary: int, dtype: torch.dtype, device: torch.device
) -> ChunkSize:
    """Return how many positions a chunk and a block have.

    Args:
        positions: How many there are.
        budget: Bytes.
        buffers: How many matrices (C, V) a chunk holds at once.
        vocabulary: V.
        dtype: Of the buffers.
        device: Where they are.
    """
    size = SETTINGS.block_on_cpu if device.type == "cpu" else SETTINGS.block_on_gpu
    rows = count_rows(budget, buffers, vocabulary, dtype, device, positions)
    return ChunkSize(rows, max(1, size // (vocabulary * dtype.itemsize)))


def count_rows(
    budget: int, buffers: int, vocabulary: int, dtype: torch.dtype, device: torch.device, positions: int | None = None
) -> int:
    """Return how many positions a chunk has.

    Args:
        budget: Bytes.
        buffers: How many matrices (C, V) a chunk holds at once.
        vocabulary: V.
        dtype: Of the buffers.
        device: Where they are.
        positions: How many there are; None where that is not known.
    """
    least = SETTINGS.least_on_cpu if device.type == "cpu" else SETTINGS.least_on_gpu
    rows = budget // (buffers * vocabulary * dtype.itemsize)
    if positions is not None:
        least, rows = max(1, min(least, positions)), min(rows, max(1, positions))
    if rows < least:
        needed = least * buffers * vocabulary * dtype.itemsize
        if needed > 2**24:  # where a chunk of the least size is small, nobody asks
            warnings.warn(
                f"A budget of {budget / 2**20:.0f} MiB has room for {rows} positions at once; {least} are taken, "
                f"{needed / 2**20:.0f} MiB, since fewer would read the output matrices too often.",
                SafekdWarning,
                stacklevel=4,
            )
    return int(max(rows, least))
