"""Code as data: what decides how a function or a class behaves, apart from its name, its comments and its place."""

from __future__ import annotations

import dis
import functools
import inspect
import sys
import sysconfig
import types
from collections.abc import Iterator
from typing import Any

_INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_HAS_DOCSTRING = 0x4000000  # inspect.CO_HAS_DOCSTRING, from Python 3.13 on
_OWN = ("safekd", "solvers")  # told apart by their version
_UNTOLD = {"__module__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__"}
_UNTOLD |= {"__annotations__", "__annotate__", "__abstractmethods__", "_abc_impl", "__qualname__", "__parameters__"}
_UNTOLD |= {"__dataclass_fields__", "__dataclass_params__", "__match_args__", "__orig_bases__", "__slotnames__"}


def is_library(value: Any) -> bool:
    """Say whether a function, class or module came with Python, a package, or this library: its name says what it is.

    Args:
        value: With a ``__module__``.
    """
    module = getattr(value, "__module__", None) or getattr(value, "__name__", "")
    root = str(module).partition(".")[0]
    if root in _OWN or root in sys.builtin_module_names:
        return True
    code = getattr(value, "__code__", None)
    file = code.co_filename if code is not None else getattr(sys.modules.get(str(module)), "__file__", None)
    return isinstance(file, str) and (file.startswith(_INSTALLED) or file.startswith("<frozen"))


def list_function_parts(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what decides what a function does: code, defaults, closure, and the globals that its code reads.

    Args:
        function: Of Python.
    """
    yield "code", function.__code__
    yield "defaults", function.__defaults__
    yield "keyword defaults", function.__kwdefaults__
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"closure {name}", _read_variable(cell.cell_contents)
        except ValueError:  # not yet filled
            yield f"closure {name}", None
    for name in sorted(_read_globals(function.__code__)):
        if name in function.__globals__:
            yield f"global {name}", _read_variable(function.__globals__[name])


def list_code_parts(code: types.CodeType) -> Iterator[Any]:
    """Yield what a code object does: instructions, constants and names; not where it stands.

    Args:
        code: Of a function.
    """
    yield from (code.co_code, code.co_names, code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    yield from (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & ~_HAS_DOCSTRING)
    # of a function that has a name the first constant is its docstring, or None; from 3.13 on a flag says so
    named = not code.co_name.startswith("<") and (sys.version_info < (3, 13) or bool(code.co_flags & _HAS_DOCSTRING))
    untold = named and isinstance(next(iter(code.co_consts), None), str)
    yield from (None, *code.co_consts[1:]) if untold else code.co_consts


def list_class_parts(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the methods and attributes of a class and of those that it derives from, up to installed ones.

    Args:
        kind: Any class.
    """
    for base in kind.__mro__:
        if is_library(base):
            yield "base", f"{base.__module__}.{base.__qualname__}"
            continue
        for name, value in sorted(vars(base).items()):
            if name not in _UNTOLD:
                yield name, unwrap(value)


def unwrap(value: Any) -> Any:
    """Return the function inside a static method, a class method or a property.

    Args:
        value: An attribute of a class.
    """
    if isinstance(value, (staticmethod, classmethod)):
        return value.__func__
    if isinstance(value, property):
        return (value.fget, value.fset)
    return value.func if isinstance(value, functools.cached_property) else value


def _read_variable(value: Any) -> Any:
    """Return what a variable holds; of a list, a set or a dictionary its kind, unless it is one of floats.

    Those are where functions count their calls and keep what they saw, which decides nothing.
    """
    if not isinstance(value, (list, set, dict)):
        return value
    entries = value.values() if isinstance(value, dict) else value
    return value if entries and all(isinstance(entry, float) for entry in entries) else type(value)


def _read_globals(code: types.CodeType) -> set[str]:
    names = {str(step.argval) for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if inspect.iscode(constant):
            names |= _read_globals(constant)
    return names
