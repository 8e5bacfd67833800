"""What a cached example is found by: a hash of what a teacher sees of it, and of the positions that count.

Padding changes nothing: where the inputs have an attention mask, only what lies between the first and the last attended
position is hashed, elsewhere what comes up to the last position that counts.  So an example is the same in a batch of
any size and in any order.  Axes: B batch, T positions.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvers.short_repr import ShortRepr

from ...data import IGNORED, Batch, Inputs, map_inputs

ATTENTION = "attention_mask"


@dataclass(frozen=True, repr=False)
class ExampleKeys(ShortRepr):
    """The examples of a batch, by their content.

    Attributes:
        key_B2: 128 bits of inputs, labels and positions that count, as two int64 each, (B, 2).
        inputs_B: 64 bits of the inputs alone, int64, (B,).
        counted_BT: Which positions count, bool (B, T); labels of several axes are laid out in one row.
    """

    key_B2: NDArray[np.int64]
    inputs_B: NDArray[np.int64]
    counted_BT: Tensor

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many positions of each example count, (B,)."""
        lengths: NDArray[np.int64] = self.counted_BT.sum(1).numpy()
        return lengths


def key_examples(batch: Batch) -> ExampleKeys:
    """Return what the examples of a batch are found by.

    Args:
        batch: Any; a label of -100, or False in its mask, does not count.
    """
    rows = len(batch)
    labels_BT = batch.labels.cpu().long().reshape(rows, -1)
    counted_BT = labels_BT != IGNORED
    if batch.mask is not None:
        counted_BT &= batch.mask.cpu().reshape(rows, -1)
    parts, attended_BT = _read_input_parts(batch.inputs)
    tokens_BT = counted_BT if attended_BT is None else attended_BT
    keys, inputs = [], []
    for row, (first, last) in enumerate(_find_spans(tokens_BT, attended_BT is not None)):
        digest = hashlib.blake2b(digest_size=16)
        for name, value in parts.items():
            piece = np.ascontiguousarray(value[row, first:last] if value.shape[:2] == tokens_BT.shape else value[row])
            digest.update(f"{name} {piece.dtype.str} {piece.shape}".encode())
            digest.update(piece.tobytes())
        if attended_BT is not None and not bool(attended_BT[row, first:last].all()):
            digest.update(attended_BT[row, first:last].numpy().tobytes())
        inputs.append(struct.unpack("<q", digest.digest()[:8])[0])
        counted_T = counted_BT[row]
        begin = first if tokens_BT.shape == counted_BT.shape else 0
        digest.update((counted_T.nonzero()[:, 0] - begin).numpy().tobytes())
        digest.update(labels_BT[row][counted_T].numpy().tobytes())
        keys.append(struct.unpack("<qq", digest.digest()))
    key_B2 = np.array(keys, dtype=np.int64).reshape(rows, 2)
    return ExampleKeys(key_B2, np.array(inputs, dtype=np.int64), counted_BT)


def trim_padding(batch: Batch) -> Batch:
    """Return a batch without the positions at its end at which no example has anything to attend to, or to answer for.

    Args:
        batch: Any; without an attention mask for its labels' positions it stays as it is.
    """
    attention = batch.inputs.get(ATTENTION) if isinstance(batch.inputs, Mapping) else None
    if attention is None or attention.ndim != 2 or attention.shape != batch.labels.shape or not batch.labels.numel():
        return batch
    used_T = (attention != 0).any(0) | ((batch.labels != IGNORED) if batch.mask is None else batch.mask).any(0)
    shape, last = batch.labels.shape, int(used_T.nonzero().max()) + 1 if bool(used_T.any()) else 1
    if last == shape[1]:
        return batch
    inputs = map_inputs(batch.inputs, lambda value: value[:, :last] if value.shape[:2] == shape else value)
    mask = None if batch.mask is None else batch.mask[:, :last]
    return replace(batch, inputs=inputs, labels=batch.labels[:, :last], mask=mask)


def name_cached_inputs(inputs: Inputs) -> list[str]:
    """Return what the inputs are called, in the order of the alphabet; one tensor has no name.

    Args:
        inputs: Of a batch.
    """
    return sorted(inputs) if isinstance(inputs, Mapping) else []


def _read_input_parts(inputs: Inputs) -> tuple[dict[str, NDArray[np.generic]], Tensor | None]:
    """Return inputs by name, zero where nothing is attended to, and which positions are attended to, (B, T)."""
    named = dict(inputs) if isinstance(inputs, Mapping) else {"": inputs}
    attended_BT = None
    if len(named) > 1 and ATTENTION in named and named[ATTENTION].ndim == 2:
        attended_BT = named.pop(ATTENTION).cpu() != 0
    if len(named) == 1:  # a tensor is the same with a name and without one
        named = {"": next(iter(named.values()))}
    parts: dict[str, NDArray[np.generic]] = {}
    for name, value in sorted(named.items()):
        plain = value.detach().cpu()
        plain = plain if plain.is_floating_point() else plain.long()
        if attended_BT is not None and plain.shape[:2] == attended_BT.shape:
            keep = attended_BT.reshape(attended_BT.shape + (1,) * (plain.ndim - 2))
            plain = torch.where(keep, plain, torch.zeros((), dtype=plain.dtype))
        plain = plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain
        parts[name] = plain.contiguous().numpy()
    return parts, attended_BT


def _find_spans(real_BT: Tensor, begins: bool) -> list[tuple[int, int]]:
    """Return where each example ends, and, where padding may stand to its left too, where it begins."""
    positions = real_BT.shape[1]
    if not positions:
        return [(0, 0)] * len(real_BT)
    last_B = torch.where(real_BT, torch.arange(1, positions + 1), 0).amax(1)
    first_B = real_BT.int().argmax(1) if begins else torch.zeros_like(last_B)
    return list(zip(first_B.tolist(), last_B.tolist(), strict=True))
