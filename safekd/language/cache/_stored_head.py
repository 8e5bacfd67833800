"""The head of a teacher in a file of its own, bit for bit.  Axes: V vocabulary, H width."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...io.arrays import BoundFile, open_tensors
from ..loss import Head
from ._cache_folder import find_misfit
from ._cache_record import HEAD, CacheRecord, HeadFacts
from ._shard_files import write_whole_file

_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def describe_head(head: Head) -> HeadFacts:
    """Return what tells a head from another one.

    Args:
        head: Any.
    """
    digest = hashlib.sha256(repr((tuple(head.weight.shape), head.scale, head.softcap)).encode())
    for name, value in _list_tensors(head).items():
        digest.update(f"{name} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    softcap = None if head.softcap is None else float(head.softcap)
    return HeadFacts(digest.hexdigest(), str(head.weight.dtype).removeprefix("torch."), float(head.scale), softcap)


def write_head(head: Head, folder: Path, who: str) -> dict[str, object]:
    """Write a head; return size and SHA-256 of the file.

    Args:
        head: What is written.
        folder: Of the teacher.
        who: The teacher, for messages.

    Raises:
        InvalidInput: Its numbers are of a type that cannot be stored, or it cannot be written.
    """
    if head.weight.dtype not in _DTYPES:
        raise InvalidInput(
            f"The head of {who} is {head.weight.dtype}; wanted bfloat16, float16, float32 or float64: widen it, or "
            "store top-k tables, kind='topk'."
        )
    return write_whole_file(_list_tensors(head), folder / HEAD)


def read_head(folder: Path, record: CacheRecord) -> Head:
    """Return the head that was written, on the processor.

    Args:
        folder: Of the teacher.
        record: What its manifest says.

    Raises:
        InvalidInput: It is not what was written.
    """
    facts, stated = record.head, record.files[HEAD]
    assert facts is not None
    if wrong := find_misfit(folder, HEAD, stated):
        raise InvalidInput(f"{folder} is damaged: {wrong}.")
    file = BoundFile(folder / HEAD)
    if file.hash_content() != stated.get("sha256"):
        raise InvalidInput(f"{folder / HEAD} is not what was written: it has another hash.")
    held = {name: rows.read(torch.arange(len(rows))) for name, rows in open_tensors(file).items()}
    shape = (record.format.vocabulary, record.format.width)
    weight, bias = held.pop("weight", torch.empty(0)), held.pop("bias", None)
    if held or weight.shape != shape or (bias is not None and bias.numel() != shape[0]):
        raise InvalidInput(f"{folder / HEAD} holds a matrix of shape {tuple(weight.shape)}; wanted {shape}.")
    return Head(weight, None if bias is None else bias.reshape(-1), facts.scale, facts.softcap)


def _list_tensors(head: Head) -> dict[str, Tensor]:
    """Return the numbers of a head by name, on the processor; a bias as one row, as readers of rows have it."""
    tensors = {"weight": head.weight} if head.bias is None else {"weight": head.weight, "bias": head.bias[None]}
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
