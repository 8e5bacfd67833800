"""Registries of classes by name, filled by a decorator where a class stands, read by configurations and lists."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from .errors import InvalidInput


def snake_case(name: str) -> str:
    """Return a class name as configurations spell it.

    Args:
        name: Name of a class, such as ``TopK``.

    Returns:
        The same in lower case with underscores, ``top_k``.
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def find_named(given: object, registry: Mapping[str, Any], argument: str) -> Any:
    """Return what a name in a registry stands for, and what is no name as it is.

    Args:
        given: A name, or a function.
        registry: Functions or classes by name.
        argument: What messages call it.

    Returns:
        The function or class.

    Raises:
        InvalidInput: There is no such name, or it cannot be called.
    """
    found = registry.get(given) if isinstance(given, str) else given
    if not callable(found):
        known = "', '".join(registry)
        raise InvalidInput(f"`{argument}` is {given!r}; wanted '{known}', or a function of your own.")
    return found


def find_operator(given: object, registry: Mapping[str, Any], argument: str) -> Any:
    """Return what a name stands for, as ``find_named``; a class stands for one of its kind at its defaults.

    Args:
        given: A name, a class, or a function.
        registry: Functions, classes or objects by name.
        argument: What messages call it.

    Returns:
        A function, or an object that can be called like one.

    Raises:
        InvalidInput: There is no such name, or it cannot be called.
    """
    found = find_named(given, registry, argument)
    return find_named(found(), registry, argument) if isinstance(found, type) else found


def summarize_classes(registry: Mapping[str, object]) -> dict[str, str]:
    """Return the first line of each entry's docstring.

    Args:
        registry: Classes or functions by name.

    Returns:
        One line each, by the same names.
    """
    return {name: (inspect.getdoc(entry) or "").partition("\n")[0] for name, entry in registry.items()}
