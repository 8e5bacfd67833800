"""How many positions at once: what fits into a budget of memory.  Axes: C positions of a chunk, V vocabulary."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

import torch

from ..._number_checks import is_number
from ...errors import InvalidInput, SafekdWarning

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class ChunkSettings:
    """Fewest positions of a chunk; ``python -m benchmarks.kd_loss`` notices.

    Attributes:
        least_on_cpu: Below, the heads are read from memory more often than they are worth.
        least_on_gpu: The same, where matrix products need more rows to be busy.
    """

    least_on_cpu: int = 64
    least_on_gpu: int = 256


SETTINGS = ChunkSettings()


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
    elif is_number(budget) and float(budget) > 0:  # type: ignore[arg-type]
        return int(budget)  # type: ignore[call-overload, no-any-return]
    raise InvalidInput(f"`budget` is {budget!r}; wanted bytes above 0, as a number or as text such as '64MiB'.")


def count_rows(budget: int, buffers: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> int:
    """Return how many positions a chunk has.

    Args:
        budget: Bytes.
        buffers: How many matrices (C, V) a chunk holds at once.
        vocabulary: V.
        dtype: Of the buffers.
        device: Where they are.
    """
    least = SETTINGS.least_on_cpu if device.type == "cpu" else SETTINGS.least_on_gpu
    rows = budget // (buffers * vocabulary * dtype.itemsize)
    if rows < least:
        needed = least * buffers * vocabulary * dtype.itemsize
        if needed > 2**24:  # where a chunk of the least size is small, nobody asks
            warnings.warn(
                f"A budget of {budget / 2**20:.0f} MiB has room for {rows} positions at once; {least} are taken, "
                f"{needed / 2**20:.0f} MiB, since fewer would read the output matrices too often.",
                SafekdWarning,
                stacklevel=4,
            )
        return least
    return int(rows)
