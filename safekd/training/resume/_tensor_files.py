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
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    """How files are written; ``python -m benchmarks.survive --cost`` notices.

    Attributes:
        piece: Bytes that are written and handed to the hash at a time.
        small: Pieces below this are put together first: threads that take turns lose milliseconds at each.
        waiting: Pieces that may wait for the hash.
    """

    piece: int = 2**23
    small: int = 2**20
    waiting: int = 8


SETTINGS = TensorFileSettings()
Tell = Callable[[dict[str, Any]], object]


def write_tensor_file(tensors: Mapping[str, Tensor], path: Path, tell: Tell | None = None) -> dict[str, Any]:
    """Write named tensors, flush them to the disk, and return size and SHA-256 as ``hash_file`` would.

    Args:
        tensors: Dense ones; one that is on a device is copied when its turn comes.
        path: A file that does not exist.
        tell: See ``write_flushed``.

    Raises:
        OSError: It cannot be written.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that each is aligned
    return write_flushed(_list_pieces(tensors, order), path, tell)


def write_flushed(pieces: Iterable[memoryview], path: Path, tell: Tell | None = None) -> dict[str, Any]:
    """Write bytes, flush them to the disk, and return size and SHA-256 as ``hash_file`` would.

    Args:
        pieces: The bytes, in order.
        path: A file that does not exist.
        tell: Is given size and hash as soon as all is written and hashed, which may be before it is flushed.

    Raises:
        OSError: It cannot be written.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with _HashInThread(tell) as digest:
            for piece in _join_small(pieces):
                digest.put(piece)
                _write_all(handle, piece)
            digest.end()
            os.fsync(handle)
    finally:
        os.close(handle)
    return digest.describe()


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
    joined = bytearray()
    for piece in pieces:
        if len(piece) < SETTINGS.small:
            joined += piece
        if joined and (len(piece) >= SETTINGS.small or len(joined) >= SETTINGS.piece):
            yield memoryview(joined)
            joined = bytearray()
        if len(piece) >= SETTINGS.small:
            yield piece
    if joined:
        yield memoryview(joined)


def _list_pieces(tensors: Mapping[str, Tensor], order: list[str]) -> Iterator[memoryview]:
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


def _write_all(handle: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(handle, piece) :]


class _HashInThread:
    """A SHA-256 that is worked out beside writing and flushing, where there is more than one piece."""

    def __init__(self, tell: Tell | None) -> None:
        self._hash, self._waiting = hashlib.sha256(), queue.Queue[memoryview | None](SETTINGS.waiting)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._first: memoryview | None = None
        self._tell, self._size, self._whole = tell, 0, False

    def __enter__(self) -> _HashInThread:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.ident is not None:
            self._waiting.put(None)
            self._thread.join()

    def end(self) -> None:
        """Take note that there are no more pieces."""
        self._whole = True
        if self._thread.ident is not None:
            self._waiting.put(None)
            return
        if self._first is not None:
            self._hash.update(self._first)
        self._pass_on()

    def describe(self) -> dict[str, Any]:
        return {"bytes": self._size, "sha256": self._hash.hexdigest()}

    def put(self, piece: memoryview) -> None:
        self._size += len(piece)
        if self._first is None:
            self._first = piece
            return
        if self._thread.ident is None:
            self._waiting.put(self._first)
            self._thread.start()
        self._waiting.put(piece)

    def _work(self) -> None:
        while (piece := self._waiting.get()) is not None:
            self._hash.update(piece)
        if self._whole:
            self._pass_on()

    def _pass_on(self) -> None:
        if self._tell is not None:
            self._tell(self.describe())
