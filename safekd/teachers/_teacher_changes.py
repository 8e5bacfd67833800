"""Whether a teacher is as it was: what its answers depend on, as far as that can be found from outside.

Modules and tensors are found in a teacher's attributes and in what its function refers to; they are compared by
fingerprints of their content, so that a step of an optimizer or an average that moves is noticed to the last bit.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Hashable, Iterator
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._fingerprint import Fingerprint, fingerprint_tensors
from ..weights import collect_modules

State = dict[str, Fingerprint]


def read_state(teacher: object) -> State:
    """Return a fingerprint of each tensor that a teacher's answers rest on, by its place.

    Parameters and buffers of modules, and tensors and arrays that it or its function refers to by name.  What lists and
    dictionaries hold besides modules is left out: they may be records of calls.

    Args:
        teacher: Any teacher.
    """
    tensors: dict[str, Tensor] = {}
    for place, part in _list_references(teacher):
        if isinstance(part, np.ndarray) and part.dtype != object:
            tensors[place] = torch.as_tensor(np.ascontiguousarray(part).view(np.uint8))
        elif isinstance(part, Tensor):
            tensors[place] = part
        for inner, module in collect_modules(part).items():
            named = [*module.named_parameters(), *module.named_buffers()]
            tensors |= {".".join(filter(None, (place, inner, name))): value for name, value in named}
    return dict(zip(tensors, fingerprint_tensors(tensors.values()), strict=True))


def describe_module(module: nn.Module) -> Hashable:
    """Return the numbers, flags and texts that a module and its parts hold besides tensors.

    Args:
        module: Any; the mode it is in does not count.
    """
    return tuple(
        (place, name, value)
        for place, part in module.named_modules()
        for name, value in vars(part).items()
        if name != "training" and (value is None or isinstance(value, (bool, int, float, str)))
    )


def find_change(before: State, now: State) -> str | None:
    """Return the place of the first tensor that differs, or None.

    Args:
        before: As ``read_state`` gave it.
        now: The same, later.
    """
    return next((place for place in {**before, **now} if before.get(place) != now.get(place)), None)


def _list_references(teacher: object) -> Iterator[tuple[str, Any]]:
    """Yield what a teacher refers to by name: attributes, and what functions among them use from outside."""
    waiting = list(getattr(teacher, "__dict__", {}).items())
    seen: set[int] = set()
    while waiting:
        place, part = waiting.pop(0)
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, functools.partial):
            waiting += [(place, part.func), *((f"{place}.{i}", one) for i, one in enumerate(part.args))]
            waiting += part.keywords.items()
        elif isinstance(part, MethodType):
            waiting += [(place, part.__func__), (place, part.__self__)]
        elif isinstance(part, FunctionType):
            used = inspect.getclosurevars(part)
            own = {**used.globals, **used.nonlocals}
            # a function of another library is taken as it is
            waiting += [
                (n, x) for n, x in own.items() if getattr(x, "__module__", None) == part.__module__ or _holds(x)
            ]
        else:
            yield place, part
            if callable(part) and not isinstance(part, (type, nn.Module)) and hasattr(part, "__dict__"):
                waiting += [(f"{place}.{name}", value) for name, value in vars(part).items()]
                waiting.append((place, part.__call__))


def _holds(value: object) -> bool:
    return isinstance(value, (Tensor, np.ndarray, nn.Module, functools.partial, MethodType, list, tuple, dict)) or (
        callable(value) and not isinstance(value, (type, FunctionType)) and hasattr(value, "__dict__")
    )
