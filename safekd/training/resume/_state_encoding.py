"""Nested state, such as an optimizer's ``state_dict()``, as JSON beside named tensors, and back, exact to the last bit.

What JSON has no word for is an object with the key ``$`` that says what it is:

    {"$": "tensor", "file": "optimizer", "name": "state.0.exp_avg", "dtype": "bfloat16", "shape": [3, 4]}
    {"$": "tuple", "items": [0.9, 0.999]}                     {"$": "float", "bits": "7ff8000000000000"}

Nothing is pickled: a value of any other kind is refused by its place.  A tensor that stands in several places is
written once, and is one tensor again when it is read.
"""

from __future__ import annotations

import math
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import InvalidInput

Tensors = dict[str, dict[str, Tensor]]
_KIND = "$"


@dataclass(frozen=True)
class StateEncodingSettings:
    """Limits of encoded state; ``tests/safekd/training/resume/test_state_encoding.py`` notices.

    Attributes:
        deepest: Containers inside containers; a state that holds itself has no end.
        long_list: A list of so many numbers of one kind is written as a tensor.
    """

    deepest: int = 64
    long_list: int = 32


SETTINGS = StateEncodingSettings()


@dataclass(frozen=True)
class EncodedState:
    """State as it is written.

    Attributes:
        record: What JSON can hold.
        tensors: What it refers to, by part of the state and name.
    """

    record: dict[str, Any]
    tensors: Tensors


def encode_state(state: Mapping[str, Any]) -> EncodedState:
    """Return nested state as JSON and tensors, which are not copied.

    Args:
        state: Parts by name: dictionaries, lists, tuples, sets, numbers, texts, None, tensors and arrays, in any depth.

    Raises:
        InvalidInput: Something else stands in it, which the message names.
    """
    encoder = _Encoder()
    return EncodedState({part: encoder.encode(value, part, ()) for part, value in state.items()}, encoder.tensors)


def decode_state(record: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Return what was encoded; tensors are on the processor.

    Args:
        record: As ``EncodedState`` has it.
        tensors: The same.

    Raises:
        InvalidInput: It is no such record, or a tensor is missing or of another kind.
    """
    decoder = _Decoder(tensors)
    try:
        return {part: decoder.decode(value) for part, value in record.items()}
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, struct.error, RecursionError) as error:
        raise InvalidInput(f"no state that was encoded: {type(error).__name__}: {error}") from error


def store_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor as its bytes are written: on the processor, in one piece, without a graph.

    Args:
        tensor: Dense.
    """
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


@dataclass
class _Encoder:
    tensors: Tensors = field(default_factory=dict)
    _known: dict[Any, dict[str, Any]] = field(default_factory=dict)
    _held: list[Tensor] = field(default_factory=list)  # what lives keeps its address

    def encode(self, value: Any, part: str, path: tuple[str, ...]) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {_KIND: "float", "bits": struct.pack(">d", value).hex()}
        if kind in (Tensor, nn.Parameter, nn.Buffer):
            return self._encode_tensor(value, part, path)
        if len(path) > SETTINGS.deepest:
            raise InvalidInput(f"{_name_place(part, path[:4])} ... is nested too deeply to be kept, or holds itself.")
        if kind in _CONTAINERS:
            return self._encode_container(kind, value, part, path)
        if kind is np.ndarray and value.dtype.kind in "biufc":
            given = {"dtype": value.dtype.str, "shape": list(value.shape)}
            raw = torch.from_numpy(np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8).copy())
            return {_KIND: "array", **given, "bytes": self._encode_tensor(raw, part, path)}
        if kind in _WRITE:
            name, write = _WRITE[kind]
            return {_KIND: name, "value": write(value)}
        if isinstance(value, np.generic) and value.dtype.kind in "biufc":
            return {_KIND: "scalar", "dtype": value.dtype.str, "value": value.tobytes().hex()}
        raise InvalidInput(
            f"{_name_place(part, path)} is a {kind.__module__}.{kind.__qualname__}, which no checkpoint can hold; "
            "wanted numbers, texts, tensors, arrays, and lists, tuples, sets and dictionaries of them."
        )

    def _encode_container(self, kind: type, value: Any, part: str, path: tuple[str, ...]) -> Any:
        if kind is dict and all(type(key) is str for key in value) and _KIND not in value:
            return {key: self.encode(one, part, (*path, key)) for key, one in value.items()}
        if kind in (dict, OrderedDict, Counter):
            items = [[self._encode_key(k, part, path), self.encode(v, part, (*path, str(k)))] for k, v in value.items()]
            return {_KIND: _CONTAINERS[kind], "items": items}
        if kind is list and len(value) >= SETTINGS.long_list and (numbers := _as_numbers(value)) is not None:
            return {_KIND: "numbers", "numbers": self._encode_tensor(numbers, part, path)}
        ordered = sorted(value, key=repr) if kind in (set, frozenset) else value
        items = [self.encode(one, part, (*path, str(i))) for i, one in enumerate(ordered)]
        return items if kind is list else {_KIND: _CONTAINERS[kind], "items": items}

    def _encode_key(self, key: Any, part: str, path: tuple[str, ...]) -> Any:
        if isinstance(key, (Tensor, np.ndarray)):
            raise InvalidInput(
                f"{_name_place(part, path)} has a {type(key).__name__} for a key; wanted texts or numbers."
            )
        return self.encode(key, part, (*path, "key"))

    def _encode_tensor(self, tensor: Tensor, part: str, path: tuple[str, ...]) -> dict[str, Any]:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            what = "without numbers" if tensor.is_meta else f"of layout {tensor.layout}"
            what = "that is quantized" if tensor.is_quantized else what
            raise InvalidInput(f"{_name_place(part, path)} is a tensor {what}, which no checkpoint can hold.")
        same = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device, tensor.is_conj())
        if tensor.numel() and same in self._known:
            return self._known[same]
        held = self.tensors.setdefault(part, {})
        stem = (
            ".".join(path) if path not in ((), ("__metadata__",)) else "tensor"
        )  # the format keeps that name for itself
        name = next(n for i in range(len(held) + 1) if (n := f"{stem}#{i}" if i else stem) not in held)
        held[name] = tensor
        self._held.append(tensor)
        dtype = str(tensor.dtype).removeprefix("torch.")
        self._known[same] = {_KIND: "tensor", "file": part, "name": name, "dtype": dtype, "shape": list(tensor.shape)}
        return self._known[same]


class _Decoder:
    def __init__(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._tensors = tensors

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(one) for one in value]
        if not isinstance(value, dict):
            return value
        if _KIND not in value:
            return {key: self.decode(one) for key, one in value.items()}
        kind = value[_KIND]
        if kind == "tensor":
            return self._find_tensor(value)
        if kind == "numbers":
            return self._find_tensor(value["numbers"]).tolist()
        if kind == "array":
            raw = self._find_tensor(value["bytes"]).numpy().tobytes()
            return np.frombuffer(raw, _plain_dtype(value["dtype"])).reshape(value["shape"]).copy()
        if kind == "scalar":
            return np.frombuffer(bytes.fromhex(value["value"]), _plain_dtype(value["dtype"]))[0]
        if kind == "float":
            return struct.unpack(">d", bytes.fromhex(value["bits"]))[0]
        if kind in ("dict", "ordered", "counter"):
            pairs = [(self.decode(key), self.decode(one)) for key, one in value["items"]]
            return _MAKE[kind](dict(pairs))
        if kind in _MAKE:
            return _MAKE[kind]([self.decode(one) for one in value["items"]])
        return _READ[kind](value["value"])

    def _find_tensor(self, value: Mapping[str, Any]) -> Tensor:
        tensor = self._tensors[value["file"]][value["name"]]
        if str(tensor.dtype) != f"torch.{value['dtype']}" or list(tensor.shape) != value["shape"]:
            raise ValueError(f"tensor '{value['name']}' is {tensor.dtype} of shape {list(tensor.shape)}")
        return tensor


def _as_numbers(values: list[Any]) -> Tensor | None:
    """Return a list of numbers of one kind as a tensor, None for any other list."""
    kinds = set(map(type, values))
    dtype = {float: torch.float64, int: torch.int64, bool: torch.bool}.get(kinds.pop()) if len(kinds) == 1 else None
    if dtype is None or (dtype == torch.int64 and not -(2**63) <= min(values) <= max(values) < 2**63):
        return None
    return torch.tensor(values, dtype=dtype)


_CONTAINERS: dict[type, str] = {
    dict: "dict",
    OrderedDict: "ordered",
    Counter: "counter",
    list: "list",
    tuple: "tuple",
    set: "set",
    frozenset: "frozenset",
    torch.Size: "size",
}
_MAKE: dict[str, Callable[[Any], Any]] = {name: kind for kind, name in _CONTAINERS.items()}
_WRITE: dict[type, tuple[str, Callable[[Any], Any]]] = {
    complex: ("complex", lambda x: struct.pack(">dd", x.real, x.imag).hex()),
    bytes: ("bytes", lambda x: x.hex()),
    torch.dtype: ("dtype", lambda x: str(x).removeprefix("torch.")),
    torch.device: ("device", str),
}
_READ: dict[str, Callable[[Any], Any]] = {
    "complex": lambda x: complex(*struct.unpack(">dd", bytes.fromhex(x))),
    "bytes": bytes.fromhex,
    "dtype": lambda x: find_dtype(x),
    "device": torch.device,
}


def find_dtype(name: str) -> torch.dtype:
    """Return a type of numbers by its name.

    Args:
        name: Such as "bfloat16".

    Raises:
        ValueError: There is none of that name.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"no type of numbers is called {name!r}")
    return dtype


def _plain_dtype(text: str) -> np.dtype[Any]:
    dtype = np.dtype(str(text))
    if dtype.kind not in "biufc":
        raise ValueError(f"arrays of {text!r} hold no numbers")
    return dtype


def _name_place(part: str, path: tuple[str, ...]) -> str:
    return f"`{'.'.join([part, *path])}`"
