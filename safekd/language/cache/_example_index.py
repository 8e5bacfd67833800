"""Where cached examples are: their keys, sorted.  Axes: N examples stored, B examples asked for."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("key", "key", "inputs", "index", "length", "crc32")  # of a shard's table of examples, int64
KEY, INPUTS, NUMBER, LENGTH, CRC = slice(0, 2), 2, 3, 4, 5
Table = NDArray[np.int64]


class ExampleIndex:
    """Finds stored examples by their keys.

    Args:
        table_NX: Tables of examples of all shards, one after the other, (N, 6).
    """

    def __init__(self, table_NX: Table) -> None:
        self.table_NX = table_NX
        self._order = np.lexsort((table_NX[:, 1], table_NX[:, 0]))
        self._sorted_N2 = table_NX[self._order, KEY]

    def __len__(self) -> int:
        return len(self.table_NX)

    def find(self, key_B2: Table) -> Table:
        """Return where examples are, -1 for those that are not there.

        Args:
            key_B2: Their keys.

        Returns:
            Places in the tables, (B,).
        """
        place_B = np.full(len(key_B2), -1, np.int64)
        low_B = np.searchsorted(self._sorted_N2[:, 0], key_B2[:, 0], "left")
        open_B = np.arange(len(key_B2))
        while len(open_B):  # one round, unless 64 bits of two keys are equal
            open_B = open_B[low_B[open_B] < len(self)]
            open_B = open_B[self._sorted_N2[low_B[open_B], 0] == key_B2[open_B, 0]]
            same = self._sorted_N2[low_B[open_B], 1] == key_B2[open_B, 1]
            place_B[open_B[same]] = self._order[low_B[open_B[same]]]
            open_B = open_B[~same]
            low_B[open_B] += 1
        return place_B

    def find_number(self, number: int) -> int | None:
        """Return where the example of a number is, None where no stored one had it.

        Args:
            number: As its batch gave it.
        """
        places = np.flatnonzero(self.table_NX[:, NUMBER] == number)
        return int(places[0]) if len(places) else None

    def fingerprint(self) -> str:
        """Return the SHA-256 of all keys, in whatever order they came."""
        return hashlib.sha256(np.ascontiguousarray(self._sorted_N2).tobytes()).hexdigest()
