"""Safetensors files that are hashed while they are written, since hashing costs as much as writing.

The format: the header's length in eight bytes, a header of JSON with type, shape and place of each tensor, their bytes.
https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import InvalidInput
from ._state_encoding import find_dtype, store_tensor

_NAMES = {  # in the format; tensors of other types are written as their bytes
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "uint16": "U16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_OTHER = "other_types"  # in the header's metadata: type and shape of tensors that are written as bytes


@dataclass(frozen=True)
class TensorFileSettings:
    """How files are written; the costs of ``python -m benchmarks.survive`` notice.

    Attributes:
        piece: Bytes that are written and handed to the hash at a time: few, so that the hash begins early.
        small: Pieces below this are put together first.
        waiting: Pieces that may wait for the hash, which is slower than the system's memory.
        large: A file of so many bytes is hashed in a thread of its own; below, starting one costs more.
    """

    piece: int = 2**20
    small: int = 2**16
    waiting: int = 64
    large: int = 2**20


SETTINGS = TensorFileSettings()


class HashedFile:
    """A new file that is hashed while it is written and flushed; a context, at whose end it is closed.

    Args:
        path: Does not exist.
        size: About how many bytes it will have.

    Attributes:
        is_large: Whether the hash is worked out beside writing and flushing.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        self.is_large = size >= SETTINGS.large
        self._size, self._hash = 0, hashlib.sha256()
        self._waiting = queue.Queue[memoryview | None](SETTINGS.waiting)
        self._thread = threading.Thread(target=self._work, daemon=True) if self.is_large else None

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_hash()
        os.close(self._handle)

    def write(self, pieces: Iterable[memoryview]) -> None:
        """Write the whole file.

        Args:
            pieces: Its bytes, in order; they must stay as they are until ``describe``.

        Raises:
            OSError: It cannot be written.
        """
        if self._thread is not None:
            self._thread.start()
        for piece in _join_small(pieces):
            self._size += len(piece)
            if self._thread is None:
                self._hash.update(piece)
            else:
                self._waiting.put(piece)
            while piece:
                piece = piece[os.write(self._handle, piece) :]
        if self._thread is not None:
            self._waiting.put(None)

    def flush(self) -> None:
        """Wait until the file is on the disk.

        Raises:
            OSError: It cannot be written there.
        """
        os.fsync(self._handle)

    def describe(self) -> dict[str, Any]:
        """Return size and SHA-256 of what was written, as ``hash_file`` would."""
        self._end_hash()
        return {"bytes": self._size, "sha256": self._hash.hexdigest()}

    def _end_hash(self) -> None:
        if self._thread is not None and self._thread.ident is not None:
            if self._thread.is_alive():
                self._waiting.put(None)  # one more ends a thread whose writer failed
            self._thread.join()

    def _work(self) -> None:
        while (piece := self._waiting.get()) is not None:
            self._hash.update(piece)


def write_tensor_file(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Write named tensors, flush them to the disk, and return size and SHA-256 as ``hash_file`` would.

    Args:
        tensors: As ``list_pieces`` takes them.
        path: A file that does not exist.

    Raises:
        OSError: It cannot be written.
    """
    with HashedFile(path, count_bytes(tensors)) as file:
        file.write(list_pieces(tensors))
        file.flush()
        return file.describe()


def read_tensor_file(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the processor, in memory of their own.

    Args:
        path: A file whose hash was compared before.

    Raises:
        InvalidInput: It is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            others = json.loads((file.metadata() or {}).get(_OTHER, "{}"))
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  # no mapping
        for name, (dtype, shape) in others.items():
            tensors[name] = tensors[name].view(find_dtype(dtype)).reshape(shape)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InvalidInput(f"{path} is no readable safetensors file: {error}.") from error
    return tensors


def count_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return about how many bytes the file of some tensors has.

    Args:
        tensors: By name.
    """
    return sum(_count(tensor) + 200 + 2 * len(name) for name, tensor in tensors.items())


def _join_small(pieces: Iterable[memoryview]) -> Iterator[memoryview]:
    """Yield the same bytes in fewer pieces."""
    small: list[memoryview] = []
    size = 0
    for piece in pieces:
        if len(piece) < SETTINGS.small:
            small.append(piece)
            size += len(piece)
        if small and (len(piece) >= SETTINGS.small or size >= SETTINGS.piece):
            yield memoryview(b"".join(small))
            small, size = [], 0
        if len(piece) >= SETTINGS.small:
            yield piece
    if small:
        yield memoryview(b"".join(small))


def list_pieces(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    """Yield the bytes of the safetensors file of some tensors.

    Args:
        tensors: Dense ones, by name; one that is on a device is copied when its turn comes.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that each is aligned
    yield memoryview(_format_header(tensors, order))
    for name in order:
        raw = store_tensor(tensors[name]).reshape(-1)
        if raw.numel():
            whole = memoryview(raw.view(torch.uint8).numpy())  # type: ignore[arg-type]  # numpy 2 on Python 3.11
            for start in range(0, len(whole), SETTINGS.piece):
                yield whole[start : start + SETTINGS.piece]


def _format_header(tensors: Mapping[str, Tensor], order: list[str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    others, place = {}, 0
    for name in order:
        tensor, dtype = tensors[name], str(tensors[name].dtype).removeprefix("torch.")
        end, shape = place + _count(tensor), list(tensor.shape)
        if dtype not in _NAMES:
            others[name] = [dtype, shape]
            shape = [end - place]
        header[name] = {"dtype": _NAMES.get(dtype, "U8"), "shape": shape, "data_offsets": [place, end]}
        place = end
    if others:
        header["__metadata__"][_OTHER] = json.dumps(others)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _count(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
