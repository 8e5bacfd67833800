"""Whether a teacher is as it was: what its answers depend on, as far as that can be found from outside.

Modules, tensors, numbers and texts are found in a teacher's attributes and in what its function refers to; tensors are
compared by fingerprints of their content, so that a step of an optimizer or an average that moves is noticed to the
last bit.  What is added counts for nothing: it is a record of calls.  Files and services cannot be seen.
"""

from __future__ import annotations

import functools
import inspect
from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._fingerprint import fingerprint_tensors

Content = dict[str, Hashable]


@dataclass(frozen=True)
class TeacherContentSettings:
    """Where the search for what a teacher rests on ends; ``tests/safekd/teachers/test_teacher_changes.py`` notices.

    Attributes:
        largest_container: Lists, dictionaries and objects of more entries are tables or records, and are not looked
            into: each evaluation looks.
        most_parts: So many parts are looked at in all, some ten milliseconds.
    """

    largest_container: int = 100
    most_parts: int = 10_000


SETTINGS = TeacherContentSettings()


def list_tensors(teacher: object) -> list[tuple[str, Tensor]]:
    """Return the tensors that a teacher's answers rest on, themselves, with their places.

    Args:
        teacher: Any teacher.
    """
    return [(place, part) for place, part in _list_content(teacher) if isinstance(part, Tensor)]


def read_tensors(teacher: object) -> Content:
    """Return a fingerprint of each tensor that a teacher's answers rest on, by its place.

    Args:
        teacher: Any teacher.
    """
    tensors = {place: part for place, part in _list_content(teacher) if isinstance(part, Tensor)}
    return dict(zip(tensors, fingerprint_tensors(tensors.values()), strict=True))


def read_content(teacher: object) -> Content:
    """Return the same, and all numbers, flags and texts, and what ``fingerprint()`` says where a teacher has it.

    Args:
        teacher: Any teacher.
    """
    values: Content = {place: part for place, part in _list_content(teacher) if not isinstance(part, Tensor)}
    fingerprint = getattr(teacher, "fingerprint", None)
    return {**values, **read_tensors(teacher), "fingerprint()": None if fingerprint is None else fingerprint()}


def find_change(before: Content, now: Content) -> str | None:
    """Return the first place that was there before and differs, or None.

    Args:
        before: As it was read.
        now: The same, later.
    """
    return next((place for place, value in before.items() if place in now and now[place] != value), None)


def _list_content(teacher: object) -> Iterator[tuple[str, Any]]:
    """Yield tensors, numbers and texts, and their places, from attributes inwards."""
    waiting = deque(getattr(teacher, "__dict__", {}).items())
    seen: set[int] = set()
    while waiting and len(seen) < SETTINGS.most_parts:
        place, part = waiting.popleft()
        if part is None or isinstance(part, (bool, int, float, str, Tensor)):
            yield place, part
        elif id(part) in seen:
            continue
        elif isinstance(part, np.ndarray):
            if part.dtype != object:
                yield place, torch.as_tensor(np.ascontiguousarray(part).view(np.uint8))
        elif isinstance(part, nn.Module):
            yield from ((f"{place}.{name}", value) for name, value in _list_module(part))
        else:
            waiting.extend((name or place, value) for name, value in _list_parts(place, part))
        seen.add(id(part))


def _list_module(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield parameters, buffers and what else is a number or a text; the mode does not count."""
    yield from (*module.named_parameters(), *module.named_buffers())
    for place, part in module.named_modules():
        for name, value in vars(part).items():
            if name != "training" and (value is None or isinstance(value, (bool, int, float, str))):
                yield f"{place}.{name}", value


def _list_parts(place: str, part: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a part refers to, by place; nothing of what refers to nothing, or to too much."""
    if isinstance(part, functools.partial):
        yield from [("", part.func), *((f"{place}.{i}", one) for i, one in enumerate(part.args))]
        yield from part.keywords.items()
    elif isinstance(part, MethodType):
        yield from (("", part.__func__), ("", part.__self__))
    elif isinstance(part, FunctionType):
        yield from _list_variables(part)
    elif isinstance(part, (Mapping, list, tuple)) or not isinstance(part, (type, ModuleType)):
        held = part if isinstance(part, (Mapping, list, tuple)) else getattr(part, "__dict__", {})
        if len(held) <= SETTINGS.largest_container:
            items = held.items() if isinstance(held, Mapping) else enumerate(held)
            yield from ((f"{place}.{key}", value) for key, value in items)
        if callable(part):
            yield "", getattr(part.__call__, "__func__", None)


def _list_variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function uses from outside; other functions only where they stand in the same file."""
    try:
        used = inspect.getclosurevars(function)
    except ValueError:  # a variable that has no value yet
        return
    defaults = {f"default {i}": value for i, value in enumerate(function.__defaults__ or ())}
    for name, value in {**used.globals, **used.nonlocals, **defaults, **(function.__kwdefaults__ or {})}.items():
        if not isinstance(value, FunctionType) or value.__module__ == function.__module__:
            yield name, value
