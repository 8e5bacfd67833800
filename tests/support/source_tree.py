"""The packages as text: modules, what they import (for types alone too), names, docstrings.  Nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from . import ROOT

PACKAGES = ("solvers", "safekd")


@cache
def modules() -> dict[str, Path]:
    """Return dotted names and files of all modules; a stub beside a door stands for the door."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {module_name(path): path for path in files if "__pycache__" not in path.parts}


def module_name(path: Path) -> str:
    """Return the dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports() -> dict[str, set[str]]:
    """Return the modules of ours that each module imports, anywhere in it, under ``TYPE_CHECKING`` too."""
    return {name: set(_imported(name, path)) - {name} for name, path in modules().items()}


def _imported(name: str, path: Path) -> Iterator[str]:
    known = modules()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    stub = path.with_suffix(".pyi")
    for node in [*ast.walk(tree(path)), *(ast.walk(tree(stub)) if stub.exists() else ())]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        if not isinstance(node, ast.ImportFrom):
            continue
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            inside = f"{base}.{alias.name}"
            if inside in known:
                yield inside
            elif base in known:
                yield base


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the sets of modules that import each other, directly or by way of others; largest first."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            place = stack.index(name)
            groups.append(sorted(stack[place:]))
            del stack[place:]

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return sorted((group for group in groups if len(group) > 1), key=len, reverse=True)


def definitions(path: Path) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Yield the functions and classes at the top level of a file, without overloads."""
    for node in tree(path).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not any(
            isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list
        ):
            yield node


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """Yield all functions and methods of a file."""
    yield from (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef))


def exported() -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Yield where each public name is defined, ``module.name``, and its definition.

    Public is what the doors of the packages, of their rooms and of the trace export.
    """
    done = set()
    for door in modules():
        if modules()[door].name != "__init__.py" or (door.count(".") > 1 and door != "safekd.training.trace"):
            continue
        for base, name in _exports(door):
            place = _defining(base, name)
            if place is None or place in done:
                continue
            done.add(place)
            yield ".".join(place), next(d for d in definitions(modules()[place[0]]) if d.name == place[1])


def _exports(door: str) -> Iterator[tuple[str, str]]:
    """Yield the modules of ours that a door imports from, and the public names."""
    path = modules()[door]
    stub = path.with_suffix(".pyi")
    for node in (tree(stub) if stub.exists() else tree(path)).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            above = door.split(".")[: len(door.split(".")) - node.level + 1]
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((base, alias.name) for alias in node.names if not alias.name.startswith("_"))


def _defining(base: str, name: str) -> tuple[str, str] | None:
    """Return the module that defines a name which ``base`` has, by way of doors; None where none of ours does."""
    if base not in modules():
        return None
    if any(definition.name == name for definition in definitions(modules()[base])):
        return base, name
    further = [other for other, exported_name in _exports(base) if exported_name == name and other != base]
    return next((place for other in further if (place := _defining(other, name)) is not None), None)
