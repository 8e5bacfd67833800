"""Hashes of content: of tensors, modules, functions and objects, the same in every process."""

from __future__ import annotations

import copyreg
import dataclasses
import functools
import hashlib
import re
import struct
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ._user_code import is_library, list_class_parts, list_code_parts, list_function_parts

_SHOWN = 60  # characters of a description before its fingerprint
_MODULE_PARTS = ("_parameters", "_buffers", "_modules")
_UNTOLD_SETTINGS = {"training", "gradient_checkpointing", "name_or_path"}  # how it is trained, and where it came from
_UNTOLD_STATE = {"_is_full_backward_hook", "call_super_init", "_backward_pre_hooks", "_compiled_call_impl"}


def describe(value: Any, *, with_state: bool = True) -> Any:
    """Return a value as JSON has it, or its text, shortened, and its fingerprint.

    Args:
        value: Anything.
        with_state: See ``fingerprint``.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    name = getattr(value, "__qualname__", None) if callable(value) else None
    text = " ".join(re.sub(r" at 0x[0-9a-f]+", "", str(name or repr(value))).split())
    return f"{text if len(text) <= _SHOWN else f'{text[:_SHOWN]}...'} [{fingerprint(value, with_state=with_state)}]"


def fingerprint(value: Any, *, with_state: bool = True) -> str:
    """Return twelve characters that two values share where they behave alike, as far as can be seen.

    Args:
        value: Anything: numbers, containers, tensors, modules, functions, objects.
        with_state: Whether parameters, buffers and modes of modules count, which move while they learn.
    """
    try:
        return _Hasher(with_state).hash(value).hex()[:12]
    except RecursionError:  # thousands of objects, each inside the other
        return hashlib.sha256(f"deep {type(value).__qualname__}".encode()).hexdigest()[:12]


def fingerprint_structure(module: nn.Module) -> str:
    """Return what two modules share that compute the same function of their parameters and buffers.

    Args:
        module: Its parameters, buffers and modes are not looked at.
    """
    hasher = _Hasher()
    parts = [(name, type(part), hasher.list_attributes(part)) for name, part in module.named_modules()]
    return hasher.hash(parts).hex()[:12]


def hash_model(module: nn.Module) -> str:
    """Return the SHA-256 of what a module computes with: kinds and settings of its parts, parameters and buffers.

    The same in another process, on another device, in another mode, after saving and loading, and whatever of it is
    being trained.  Settings are plain attributes: numbers, texts, truth values, and tuples of them.

    Args:
        module: Any.
    """
    parts = [(name, type(part), _list_settings(part)) for name, part in module.named_modules()]
    state = {
        name: value.detach() if isinstance(value, Tensor) else value for name, value in module.state_dict().items()
    }
    return _Hasher().hash([parts, state]).hex()


def _list_settings(module: nn.Module) -> dict[str, Any]:
    """Return what decides what one module computes: not how it is trained, and no object that may hold paths."""
    plain = {name: value for name, value in vars(module).items() if not name.startswith("_") and _is_plain(value)}
    return {name: value for name, value in plain.items() if name not in _UNTOLD_SETTINGS}


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str)) or (isinstance(value, tuple) and all(map(_is_plain, value)))


class _Hasher:
    """Hashes one value with all that it holds; what holds itself is told by its place."""

    def __init__(self, with_state: bool = True) -> None:
        self._with_state = with_state
        self._seen: dict[int, tuple[int, Any]] = {}  # holding what was seen keeps its id taken
        self._known: dict[int, bytes] = {}

    def hash(self, value: Any) -> bytes:
        """Return the SHA-256 of a value."""
        plain = self._hash_plain(value)
        if plain is not None:
            return plain
        if id(value) in self._known:
            return self._known[id(value)]
        if id(value) in self._seen:  # it is being hashed: a circle
            return self._join("circle", struct.pack("<q", self._seen[id(value)][0]))
        self._seen[id(value)] = (len(self._seen), value)
        self._known[id(value)] = result = self._hash_structure(value)
        return result

    def _join(self, kind: str, *parts: bytes) -> bytes:
        digest = hashlib.sha256(kind.encode())
        for part in parts:
            digest.update(struct.pack("<q", len(part)))
            digest.update(part)
        return digest.digest()

    def _all(self, kind: str, *values: Any) -> bytes:
        return self._join(kind, *map(self.hash, values))

    def _hash_plain(self, value: Any) -> bytes | None:
        """Return the hash of what holds nothing else, None for the rest."""
        if isinstance(value, float):
            return self._join("float", struct.pack("<d", value))
        if value is None or value is Ellipsis or isinstance(value, (bool, int, complex, torch.dtype, torch.device)):
            return self._join(type(value).__name__, repr(value).encode())
        if isinstance(value, str):
            return self._join("str", value.encode("utf-8", "surrogatepass"))
        if isinstance(value, (bytes, bytearray)):
            return self._join("bytes", bytes(value))
        return None

    def _hash_structure(self, value: Any) -> bytes:
        if isinstance(value, Tensor):
            return self._hash_tensor(value)
        if isinstance(value, np.ndarray) and value.dtype != object:
            return self._join(f"array {value.dtype} {value.shape}", np.ascontiguousarray(value).tobytes())
        if isinstance(value, nn.Module):
            return self._hash_module(value)
        if isinstance(value, types.CodeType):
            return self._all("code", *list_code_parts(value))
        if isinstance(value, types.ModuleType):
            return self._join("module", value.__name__.encode())
        if isinstance(value, type):
            return self._hash_class(value)
        if isinstance(value, types.FunctionType):
            return self._hash_function(value)
        if isinstance(value, types.MethodType):
            return self._all("method", value.__func__, value.__self__)
        if isinstance(value, functools.partial):
            return self._all("partial", value.func, value.args, value.keywords)
        return self._hash_container(value)

    def _hash_container(self, value: Any) -> bytes:
        if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
            return self._all("sequence", *value)
        if isinstance(value, (set, frozenset)):
            return self._join("set", *sorted(map(self.hash, value)))
        if isinstance(value, Mapping) and type(value) in (dict, types.MappingProxyType):
            return self._join("mapping", *sorted(self._all("entry", name, one) for name, one in value.items()))
        return self._hash_object(value)

    def _hash_tensor(self, value: Tensor) -> bytes:
        kind = f"tensor {value.dtype} {tuple(value.shape)} {value.requires_grad and value.is_leaf}"
        if value.is_meta:
            return self._join(f"{kind} without numbers")
        plain = value.detach().cpu()
        plain = plain.dequantize() if plain.is_quantized else plain
        plain = (plain if plain.layout == torch.strided else plain.to_dense()).resolve_conj().resolve_neg().contiguous()
        return self._join(kind, plain.reshape(-1).view(torch.uint8).numpy().tobytes())

    def _hash_module(self, module: nn.Module) -> bytes:
        if not self._with_state:
            return self._all("structure", type(module), dict(module.named_children()), self.list_attributes(module))
        state = {name: dict(vars(module)[name]) for name in _MODULE_PARTS}
        return self._all("module", type(module), state, module.training, self.list_attributes(module))

    def list_attributes(self, module: nn.Module) -> dict[str, Any]:
        """Return what one module holds besides parameters, buffers, parts and its mode: settings and hooks."""
        attributes = {}
        for name, value in vars(module).items():
            if name in _MODULE_PARTS or name == "training" or name in _UNTOLD_STATE:
                continue
            if name.startswith("_") and "hook" in name and isinstance(value, Mapping):
                value = list(value.values())  # the keys count all hooks of the process
            if not (name.startswith("_") and hasattr(value, "__len__") and len(value) == 0):
                attributes[name] = value
        return attributes

    def _hash_class(self, kind: type) -> bytes:
        if is_library(kind):
            return self._join("class", f"{kind.__module__}.{kind.__qualname__}".encode())
        return self._join("class", *(self._all(name, part) for name, part in list_class_parts(kind)))

    def _hash_function(self, function: types.FunctionType) -> bytes:
        if is_library(function) and not function.__closure__:
            return self._join("function", f"{function.__module__}.{function.__qualname__}".encode())
        return self._join("function", *(self._all(name, part) for name, part in list_function_parts(function)))

    def _hash_object(self, value: Any) -> bytes:
        """Hash an object by its class and its state: the fields of a dataclass, or what it would pickle."""
        kind = type(value)
        if "__dataclass_fields__" in vars(kind):
            fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
            return self._all("record", kind, fields)
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:  # a lock, an open file: no content that could be told
            return self._join("opaque", f"{kind.__module__}.{kind.__qualname__}".encode())
        if isinstance(reduced, str):
            return self._join("named", f"{kind.__module__}.{reduced}".encode())
        make, arguments, *rest = reduced
        items = [list(part) if part is not None and number in (1, 2) else part for number, part in enumerate(rest)]
        if make is copyreg.__newobj__:  # type: ignore[attr-defined]  # public, and not in the stubs
            make = "new"
        return self._all("object", kind, make, arguments, *items)
