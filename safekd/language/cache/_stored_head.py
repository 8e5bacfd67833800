"""The head of a teacher in a file of its own, bit for bit.  Axes: V vocabulary, H width."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...io.arrays import BoundFile, RawRows, open_tensors
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
    for name, value in _list_head_tensors(head).items():
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
            f"{who} has a head of {head.weight.dtype}; wanted bfloat16, float16, float32 or float64: widen it, or "
            "store top-k tables, kind='topk'."
        )
    return write_whole_file(_list_head_tensors(head), folder / HEAD)


def read_head(folder: Path, record: CacheRecord) -> Head:
    """Return the head that was written, on the processor.

    Args:
        folder: Of the teacher.
        record: What its manifest says.

    Raises:
        InvalidInput: It is not what was written.
    """
    assert record.head is not None
    held = {name: rows.read(torch.arange(len(rows))) for name, rows in open_head(folder, record).items()}
    bias = held["bias"].reshape(-1) if "bias" in held else None
    try:
        return Head(held["weight"], bias, record.head.scale, record.head.softcap)
    except InvalidInput as error:
        raise InvalidInput(f"{folder} holds no head: {error}") from error


def open_head(folder: Path, record: CacheRecord) -> dict[str, RawRows]:
    """Return the tensors of a head in their file, whose hash was compared.

    Args:
        folder: Of the teacher.
        record: What its manifest says.

    Raises:
        InvalidInput: It is not what was written.
    """
    if wrong := find_misfit(folder, HEAD, record.files[HEAD]):
        raise InvalidInput(f"{folder} is damaged: {wrong}.")
    file = BoundFile(folder / HEAD)
    if file.hash_content() != record.files[HEAD].get("sha256"):
        raise InvalidInput(f"{folder / HEAD} is not what was written: it has another hash.")
    held = open_tensors(file)
    V, H = record.format.vocabulary, record.format.width
    wanted = {"weight": (V, H), **({"bias": (1, V)} if "bias" in held else {})}
    if (found := {name: rows.shape for name, rows in held.items()}) != wanted:
        raise InvalidInput(f"{folder / HEAD} holds {str(found)[:200]}; wanted {wanted}.")
    return held


def _list_head_tensors(head: Head) -> dict[str, Tensor]:
    """Return the numbers of a head by name, on the processor; a bias as one row, as readers of rows have it."""
    tensors = {"weight": head.weight} if head.bias is None else {"weight": head.weight, "bias": head.bias[None]}
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
