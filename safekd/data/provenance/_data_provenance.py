"""Which data a run used, and for what, so that nobody certifies a student on them by mistake.

Examples are told apart by what is in them, inputs and label, not by the name of their split: a copy, a shuffled one, a
part of one are found too.  Axes: N examples, W words of 64 bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from solvers.short_repr import ShortRepr

from ...errors import InvalidInput, SafekdWarning
from .._batch import Batch
from .._bit_mixing import Keys, mix_bits
from .._inputs import list_inputs
from .._position_mask import fill_uncounted
from .._split import Split
from ._seen_examples import SeenExamples

_CHUNK = 2**20  # words at a time
_FRACTIONS = np.uint64(0x5851F42D4C957F2D)  # sets the bits of a fraction apart from integers


@dataclass(frozen=True, repr=False)
class StoredSplit(ShortRepr):
    """A split of which only its examples' marks were kept: enough to know them again.

    Attributes:
        name: Of the split.
        seen: Keys of the examples.
    """

    name: str
    seen: SeenExamples

    def __len__(self) -> int:
        return self.seen.count


class Surveyed(Protocol):
    """Data that are read as they are needed, and were counted in a first pass.

    Attributes:
        name: "train", "validation", ...
        seen: Keys of the examples.
    """

    name: str

    @property
    def seen(self) -> SeenExamples:
        """Keys of the examples."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, repr=False)
class SplitUse(ShortRepr):
    """What one split was used for.

    Attributes:
        split: The data, or what was stored of them.
        roles: In words, for example "gradient steps".
        looks: How often a decision was read off it; 0 where it took part in training, or nothing was decided.
    """

    split: Split | StoredSplit | Surveyed
    roles: tuple[str, ...]
    looks: int = 0

    @property
    def name(self) -> str:
        """Name of the split."""
        return self.split.name

    def add_looks(self, looks: int, why: str) -> SplitUse:
        """Return the same use and more looks.

        Args:
            looks: How many more decisions were read off it.
            why: What for, in words.
        """
        return replace(self, looks=self.looks + looks, roles=(*self.roles, f"{_count_nouns(looks, 'look')} {why}"))

    @cached_property
    def seen(self) -> SeenExamples:
        """Keys of the examples, equal for equal inputs and label."""
        return read_seen_examples(self.split)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the examples, in whatever order they come."""
        return self.seen.fingerprint

    def record(self) -> dict[str, Any]:
        """Return what is written to disk."""
        record = {"split": self.name, "examples": len(self.split), "roles": list(self.roles), "looks": self.looks}
        return {**record, "sha256": self.fingerprint}

    def __str__(self) -> str:
        return f"{self.name} ({_count_nouns(len(self.split), 'example')}): {', '.join(self.roles)}"


class Trained(Protocol):
    """A student that knows which data it was made with, such as a FitResult.

    Attributes:
        student: The student.
        uses: The splits that were used, and for what.
    """

    @property
    def student(self) -> nn.Module:
        """The student."""
        ...

    @property
    def uses(self) -> Sequence[SplitUse]:
        """The splits that were used, and for what."""
        ...


def find_unseen(data: Split, uses: Sequence[SplitUse]) -> Tensor:
    """Say which examples of some data none of a run's uses holds.

    An example that occurs several times on either side is no evidence that data were used twice: it is kept, unless
    ``data`` as a whole are the same examples.

    Args:
        data: N examples.
        uses: The splits that were used, and for what.

    Returns:
        Bool, (N,).

    Raises:
        InvalidInput: No example is left; the message names the use.
    """
    key_N = hash_examples(data)
    fingerprint, fresh_N = read_seen_examples(data).fingerprint, np.ones(len(data), dtype=bool)
    for use in uses:
        if not use.seen.usable:
            warnings.warn(
                f"Whether '{data.name}' holds examples of '{use.name}' cannot be told: that streamed "
                f"{len(use.split):,}, more than are kept track of. Make sure that it does not.",
                SafekdWarning,
                stacklevel=3,
            )
            continue
        same = use.split is data or use.fingerprint == fingerprint
        seen_N = mark_shared(key_N, use.seen)
        if same or bool(seen_N.all()):
            raise InvalidInput(
                f"'{data.name}' holds the data that this run used as '{use.name}' for {', '.join(use.roles)}: "
                f"{_count_nouns(len(data), 'shared example')}, all it has; a bound on them proves nothing new. "
                "Certify on data that nothing else saw."
            )
        fresh_N &= ~seen_N
    if not fresh_N.any():
        raise InvalidInput(
            f"Every example of '{data.name}' was used in this run: {'; '.join(map(str, uses))}. "
            "Certify on data that nothing else saw."
        )
    return torch.from_numpy(fresh_N)


def read_seen_examples(split: Split | StoredSplit | Surveyed) -> SeenExamples:
    """Return the keys of some data.

    Args:
        split: A split, what was stored of one, or data that were counted.
    """
    if not isinstance(split, Split):
        return split.seen
    seen = SeenExamples(len(split))
    seen.add(hash_examples(split))
    return seen


def mark_shared(mine_N: Keys, theirs: SeenExamples) -> NDArray[np.bool_]:
    """Say which keys occur once on this side, and once on the other, or at all where that is not known.

    Args:
        mine_N: One key an example, (N,).
        theirs: Keys of other data.

    Returns:
        (N,).
    """
    mine = _select_single_keys(mine_N)
    if theirs.is_exact:
        shared = np.intersect1d(mine, _select_single_keys(theirs.keys), assume_unique=True)
    else:
        shared = mine[theirs.contains(mine)]
    return np.asarray(np.isin(mine_N, shared), dtype=np.bool_)


def hash_examples(split: Split | Batch) -> Keys:
    """Return one 64-bit number an example, from its inputs, as float32 or int64, and its labels.

    A whole number is the same as an integer and as a float, so that copies of another dtype are found; what is written
    at a position that does not count, a label of -100 or another one under a mask, is the same too, and so are zeros
    that pad an example to another length.

    Args:
        split: N examples.

    Returns:
        (N,), equal for equal inputs and labels.
    """
    size = len(split)
    labels = fill_uncounted(split.labels.long() + 1, split.mask, 0)
    parts_NW = [value.reshape(size, -1) for value in (*list_inputs(split.inputs), labels)]
    rows = max(1, _CHUNK // sum(part.shape[1] for part in parts_NW))
    keys = []
    for begin in range(0, size, rows):
        total_N = np.zeros(min(rows, size - begin), dtype=np.uint64)
        for number, part_NW in enumerate(parts_NW):
            word_NW = _read_words(part_NW[begin : begin + rows])
            place_W = mix_bits(np.arange(1, word_NW.shape[1] + 1, dtype=np.uint64) + np.uint64(number << 48))
            total_N += np.where(word_NW == 0, np.uint64(0), mix_bits(word_NW ^ place_W)).sum(axis=1, dtype=np.uint64)
        keys.append(mix_bits(total_N))
    return np.concatenate(keys)


def _read_words(part_NW: Tensor) -> Keys:
    """Return what a tensor holds as words of 64 bits: of whole numbers the integer, of others the bits of float32."""
    part_NW = part_NW.detach().cpu()
    if not part_NW.is_floating_point():
        return part_NW.to(torch.int64).numpy().view(np.uint64)
    value_NW = part_NW.float()
    whole_NW = (value_NW == value_NW.trunc()) & (value_NW.abs() < 2**24)  # -0.0 is 0 among these
    bits_NW = value_NW.view(torch.int32).to(torch.int64).numpy().view(np.uint64) ^ _FRACTIONS
    integer_NW = torch.where(whole_NW, value_NW, 0.0).to(torch.int64).numpy().view(np.uint64)
    return np.where(whole_NW.numpy(), integer_NW, bits_NW)


def _select_single_keys(keys: Keys) -> Keys:
    """Return the keys that occur once."""
    single, counts = np.unique(keys, return_counts=True)
    once: Keys = single[counts == 1]
    return once


def _count_nouns(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
