"""Which examples a source holds, by their keys, in constant memory.  Axes: N examples.

Up to ``most_keys`` examples all keys are held.  Beyond, a Bloom filter says of any example whether it was there: yes
for all that were, and for ``false_share`` of those that were not.  Source: Bloom 1970.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._bit_mixing import Keys


@dataclass(frozen=True)
class SeenExamplesSettings:
    """Sizes of what is held; ``tests/safekd/data/test_seen_examples.py`` notices.

    Attributes:
        most_keys: Examples up to which all keys are held: 16 MiB.
        filter_bytes: Of the filter beyond, a power of two: 32 MiB; with 40 million examples one in twenty that was not
            there passes for one that was.
        probes: Bits that each example sets.
        some_keys: Of the keys, the lowest, held beyond ``most_keys``: a sample to be compared with other data.
        most_false: Share of wrong answers above which the filter says nothing any more.
    """

    most_keys: int = 2**21
    filter_bytes: int = 2**25
    probes: int = 4
    some_keys: int = 2**16
    most_false: float = 0.2


SETTINGS = SeenExamplesSettings()


class SeenExamples:
    """The keys of a source's examples, added in parts.

    Args:
        most_keys: Examples up to which all keys are held.

    Attributes:
        count: How many were added.
    """

    def __init__(self, most_keys: int = SETTINGS.most_keys) -> None:
        self._most_keys = most_keys
        self.count, self._sums = 0, np.zeros(2, dtype=np.uint64)
        self._parts: list[Keys] = []
        self._bits: NDArray[np.uint8] | None = None
        self._fingerprint: str | None = None  # where it was read from disk

    @classmethod
    def from_tensor(cls, stored: Tensor, count: int, fingerprint: str) -> SeenExamples:
        """Return what ``to_tensor`` was made of.

        Args:
            stored: All keys, (N,), or the filter.
            count: How many examples there were.
            fingerprint: What they are told by.
        """
        seen = cls(len(stored))
        if stored.dtype == torch.uint8:
            seen.count, seen._bits, seen._fingerprint = count, stored.numpy(), fingerprint
        else:
            seen.add(stored.numpy().view(np.uint64))
        return seen

    @classmethod
    def join(cls, parts: Sequence[SeenExamples]) -> SeenExamples:
        """Return the keys of several sources together.

        Args:
            parts: Of each source.
        """
        whole = cls(max(part._most_keys for part in parts))
        for part in parts:
            if part._bits is None:
                whole.add(part.keys)
                continue
            bits = whole._begin_filter() if whole._bits is None else whole._bits
            whole._bits = bits | part._bits
            whole._parts.append(part.keys)
            whole.count, whole._sums = whole.count + part.count, whole._sums + part._sums
        return whole

    def to_tensor(self) -> Tensor:
        """Return what is written to disk: all keys (N,) as int64, or the filter."""
        return torch.from_numpy(self.keys.view(np.int64) if self._bits is None else self._bits)

    @property
    def is_exact(self) -> bool:
        """Whether all keys are held."""
        return self._bits is None

    @property
    def keys(self) -> Keys:
        """All keys, (N,), in the order in which they came; where they are too many, the lowest: a sample."""
        self._parts = [self._join_parts()]
        return self._parts[0] if self._bits is None else np.sort(self._parts[0])[: SETTINGS.some_keys]

    @property
    def false_share(self) -> float:
        """Share of examples that were not there for which ``contains`` says yes."""
        return (
            0.0
            if self._bits is None
            else float(np.bitwise_count(self._bits).sum() / self._bits.size / 8) ** SETTINGS.probes
        )

    @property
    def usable(self) -> bool:
        """Whether ``contains`` says anything: a filter of too many examples says yes to all."""
        return self.false_share <= SETTINGS.most_false

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the number of examples and of sums of their keys, in whatever order they came."""
        own = hashlib.sha256(np.array([self.count, *self._sums], dtype=np.uint64).tobytes()).hexdigest()
        return self._fingerprint or own

    def add(self, key_N: Keys) -> None:
        """Take in some examples.

        Args:
            key_N: One key an example, (N,).
        """
        self.count += len(key_N)
        self._sums += np.array([key_N.sum(dtype=np.uint64), (key_N * (key_N >> np.uint64(32))).sum(dtype=np.uint64)])
        self._parts.append(key_N)
        if self._bits is not None:
            self._set_bits(self._bits, key_N)
        elif self.count > self._most_keys:
            self._bits = self._begin_filter()
        if self._bits is not None and sum(map(len, self._parts)) > 2 * SETTINGS.some_keys:
            self._parts = [np.partition(self._join_parts(), SETTINGS.some_keys)[: SETTINGS.some_keys]]

    def contains(self, key_N: Keys) -> NDArray[np.bool_]:
        """Say which examples were among those added; see ``false_share``.

        Args:
            key_N: One key an example, (N,).
        """
        if self._bits is None:
            return np.isin(key_N, self.keys)
        inside_N = np.ones(len(key_N), dtype=bool)
        for byte_N, bit_N in self._probe(key_N):
            inside_N &= (self._bits[byte_N] & bit_N) != 0
        return inside_N

    def _begin_filter(self) -> NDArray[np.uint8]:
        bits = np.zeros(SETTINGS.filter_bytes, dtype=np.uint8)
        for part in self._parts:
            self._set_bits(bits, part)
        return bits

    def _join_parts(self) -> Keys:
        return np.concatenate([np.zeros(0, np.uint64), *self._parts])

    def _set_bits(self, bits: NDArray[np.uint8], key_N: Keys) -> None:
        for byte_N, bit_N in self._probe(key_N):
            np.bitwise_or.at(bits, byte_N, bit_N)

    def _probe(self, key_N: Keys) -> list[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """Return bytes and bits in them; keys are well mixed, so that two of their halves give all probes."""
        low_N, high_N = key_N & np.uint64(2**32 - 1), (key_N >> np.uint64(32)) | np.uint64(1)
        places = [
            (low_N + np.uint64(probe) * high_N) % np.uint64(8 * SETTINGS.filter_bytes)
            for probe in range(SETTINGS.probes)
        ]
        return [
            (
                (place >> np.uint64(3)).astype(np.int64),
                np.left_shift(1, (place & np.uint64(7)).astype(np.uint8)).astype(np.uint8),
            )
            for place in places
        ]
