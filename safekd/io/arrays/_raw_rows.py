"""Rows that stand one after the other in a file: .npy, and a tensor of a .safetensors file.

Both formats are a short header and numbers.  The header is read here, and checked against the size of the file, so that
nothing is taken on trust and no code in a file is ever run.
"""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from ...errors import InvalidInput
from ._bound_file import BoundFile

_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
_WHOLE = {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "U16": torch.uint16}
_NPY_DTYPES = {"f2": torch.float16, "f4": torch.float32, "f8": torch.float64}
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # how torch.save and pickle begin
_SHOWN = 8  # names of tensors in a message
_Entry = tuple[str, tuple[int, ...], int, int]  # type, shape, begin and end of a tensor


@dataclass(frozen=True)
class RawRowSettings:
    """How headers and rows are read; ``tests/safekd/io/test_arrays.py`` would notice.

    Attributes:
        npy_header_bytes: Of the header of a .npy file: a dtype, an order and a shape.
        safetensors_header_bytes: Of the header of a .safetensors file: some hundred thousand tensors.
        row_bytes: Of one row, which is read as a whole: a few thousand positions of a hundred thousand classes.
        axes: Of a table.
        gap_bytes: Rows that lie nearer to each other are read in one go: a page comes from a disk as a whole anyway.
    """

    npy_header_bytes: int = 10_000
    safetensors_header_bytes: int = 16 << 20
    row_bytes: int = 1 << 30
    axes: int = 8
    gap_bytes: int = 4096


RAW_ROWS = RawRowSettings()


class RawRows:
    """Rows of floats in a file, in their order.

    Args:
        file: The file, open.
        start: Where the first row begins.
        dtype: Of the numbers.
        shape: Of the table, (N, ..., V).
        big_endian: Whether the numbers' bytes are in the other order.

    Attributes:
        name: What messages call the table.
        dtype: Of the numbers.
        shape: Of the table, (N, ..., V).

    Raises:
        InvalidInput: The table has no rows of numbers, or is larger than the file.
    """

    def __init__(
        self, file: BoundFile, start: int, dtype: torch.dtype, shape: tuple[int, ...], big_endian: bool = False
    ) -> None:
        self.name = str(file.path)
        if not 2 <= len(shape) <= RAW_ROWS.axes or not all(shape):
            raise InvalidInput(
                f"{self.name} holds a table of shape {str(shape)[:80]}; wanted rows of classes, (N, ..., V)."
            )
        self.file, self.dtype, self.shape = file, dtype, shape
        self._start, self._row_bytes = start, math.prod(shape[1:]) * dtype.itemsize
        self._swapped = big_endian
        if start + shape[0] * self._row_bytes > file.size:
            raise InvalidInput(
                f"{self.name} was cut off or is damaged: its header speaks of {shape[0]:,} rows of {self._row_bytes:,} "
                f"bytes, and the file has {file.size:,} bytes in all. Write it again."
            )
        if self._row_bytes > RAW_ROWS.row_bytes:
            raise InvalidInput(
                f"{self.name} has rows of {self._row_bytes:,} bytes, each read as a whole; wanted at most "
                f"{RAW_ROWS.row_bytes:,}."
            )

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, place: Tensor) -> Tensor:
        """Return some rows, read from the file now: neighbours in one go.

        Args:
            place: Their numbers, (B,), from 0 to N - 1.

        Returns:
            (B, ..., V), on the processor.

        Raises:
            InvalidInput: The file was changed since it was opened.
        """
        self.file.require_unchanged()
        place_B = place.cpu().numpy()
        wanted, back_B = np.unique(place_B, return_inverse=True)
        data = np.empty((len(wanted), self._row_bytes), np.uint8)
        gap = max(1, RAW_ROWS.gap_bytes // self._row_bytes)
        edges = [0, *(np.flatnonzero(np.diff(wanted) > gap) + 1).tolist(), len(wanted)]
        for begin, end in pairwise(edges if len(wanted) else []):
            first, last = int(wanted[begin]), int(wanted[end - 1])
            read = self.file.read_at(self._start + first * self._row_bytes, (last - first + 1) * self._row_bytes)
            data[begin:end] = np.frombuffer(read, np.uint8).reshape(-1, self._row_bytes)[wanted[begin:end] - first]
        data = data[back_B.reshape(-1)]
        if self._swapped:
            data = np.ascontiguousarray(data.reshape(len(data), -1, self.dtype.itemsize)[..., ::-1])
        numbers = torch.from_numpy(data.reshape(-1)).view(self.dtype)
        return numbers.reshape(len(place_B), *self.shape[1:])

    def fingerprint(self) -> str:
        """Return what changes with the content of the file."""
        return f"{tuple(self.shape)} {self.dtype} {self._start} {self.file.hash_content()}"


def read_npy_header(file: BoundFile) -> RawRows:
    """Return the rows of a .npy file.

    Args:
        file: The file, open.

    Raises:
        InvalidInput: It is none, was cut off, or holds something else than floats in C order.
    """
    head = file.read_at(0, min(file.size, RAW_ROWS.npy_header_bytes + 12))
    _refuse_pickle(head, file)
    try:
        stream = BytesIO(head)
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape, is_fortran, dtype = read(stream, max_header_size=RAW_ROWS.npy_header_bytes)
        start = stream.tell()
    except Exception as error:  # numpy's parser is that of Python's literals, and fails in all its ways
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        raise InvalidInput(f"{file.path} is not a .npy file, or its header is damaged: {detail}.") from error
    if dtype.hasobject:
        raise InvalidInput(
            f"{file.path} holds objects of Python, which only a pickle can bring back, and a pickle can run any code; "
            "nothing of it was read. Store an array of floats."
        )
    if dtype.kind != "f" or dtype.str[1:] not in _NPY_DTYPES:
        raise InvalidInput(f"{file.path} holds numbers of type {dtype}; wanted float16, float32 or float64.")
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape):
        raise InvalidInput(f"{file.path} states the shape {str(shape)[:80]}; wanted whole numbers.")
    if is_fortran and len(shape) > 1:
        raise InvalidInput(
            f"{file.path} is stored column after column, so that no row can be read alone; store "
            "numpy.ascontiguousarray(table)."
        )
    rows = RawRows(file, start, _NPY_DTYPES[dtype.str[1:]], shape, big_endian=dtype.str[0] == ">")
    _require_end(file, start + math.prod(shape) * dtype.itemsize)
    return rows


def read_safetensors_header(file: BoundFile, tensor: str | None) -> RawRows:
    """Return the rows of a tensor in a .safetensors file.

    Args:
        file: The file, open.
        tensor: Its name; None where the file holds one.

    Raises:
        InvalidInput: It is no such file, was cut off, or has no such tensor of floats.
    """
    held, begin = _read_entries(file)
    if tensor is None and len(held) == 1:
        (tensor,) = held
    if tensor is None or tensor not in held:
        names = ", ".join(f"'{name[:80]}'" for name in sorted(held)[:_SHOWN]) + ", ..." * (len(held) > _SHOWN)
        what = f"has no tensor '{tensor}'" if tensor is not None else f"holds {len(held)} tensors"
        raise InvalidInput(f"{file.path} {what}; it holds: {names or 'none'}. Name one: tensor='...'.")
    return _open_entry(file, tensor, held[tensor], begin, _DTYPES)


def open_tensors(file: BoundFile) -> dict[str, RawRows]:
    """Return all tensors of a .safetensors file, floats or whole numbers, by name; each is rows of two axes or more.

    Args:
        file: The file, open.

    Raises:
        InvalidInput: It is no such file, was cut off, or holds something else.
    """
    held, begin = _read_entries(file)
    return {name: _open_entry(file, name, entry, begin, _DTYPES | _WHOLE) for name, entry in held.items()}


def _read_entries(file: BoundFile) -> tuple[dict[str, _Entry], int]:
    """Return type, shape, begin and end of each tensor of a .safetensors file, and where the header ends."""
    head = file.read_at(0, min(file.size, 8))
    _refuse_pickle(head, file)
    size = int.from_bytes(head, "little")
    if len(head) < 8 or size > min(file.size - 8, RAW_ROWS.safetensors_header_bytes):
        raise InvalidInput(
            f"{file.path} is not a .safetensors file, or was cut off: it has {file.size:,} bytes, and its first eight "
            f"speak of a header of {size:,}; wanted at most {RAW_ROWS.safetensors_header_bytes:,}."
        )
    held = _parse_header(file.read_at(8, size), file)
    if held:
        _require_end(file, 8 + size + max(end for _, _, _, end in held.values()))
    return held, 8 + size


def _open_entry(file: BoundFile, name: str, entry: _Entry, begin: int, dtypes: dict[str, torch.dtype]) -> RawRows:
    kind, shape, start, end = entry
    if kind not in dtypes:
        raise InvalidInput(f"{file.path}: tensor '{name}' is of type {kind}; wanted {', '.join(dtypes)}.")
    if end - start != math.prod(shape) * dtypes[kind].itemsize:
        raise InvalidInput(f"{file.path} is damaged: tensor '{name}' does not have the size of its shape {shape}.")
    return RawRows(file, begin + start, dtypes[kind], shape)


def _parse_header(text: bytes, file: BoundFile) -> dict[str, _Entry]:
    """Return type, shape, begin and end of each tensor, by name."""
    try:
        entries = json.loads(text.decode(), object_pairs_hook=_require_distinct)
        if not isinstance(entries, dict):
            raise ValueError("it is no object")
        held = {}
        for name, entry in entries.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                shape = tuple(entry["shape"])
                if not all(type(size) is int and 0 <= size < 2**63 for size in (*shape, begin, end)) or begin > end:
                    raise ValueError(f"a size of '{name[:80]}' is none")
                held[name] = (str(entry["dtype"])[:20], shape, begin, end)
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        detail = " ".join(str(error).split())[:120]
        raise InvalidInput(f"{file.path} is not a .safetensors file, or its header is damaged: {detail}.") from error
    return held


def _require_distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name stands there twice")
    return names


def _require_end(file: BoundFile, end: int) -> None:
    if file.size != end:
        raise InvalidInput(
            f"{file.path} was cut off or added to: its header speaks of {end:,} bytes, and the file has "
            f"{file.size:,}. Write it again."
        )


def _refuse_pickle(head: bytes, file: BoundFile) -> None:
    if head.startswith(_PICKLES):
        raise InvalidInput(
            f"{file.path} is what torch.save or pickle writes, whatever its name says. Such a file can run any code; "
            "nothing of it was read. Store the table by numpy.save or safetensors."
        )
