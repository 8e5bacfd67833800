"""Texts of records that fit a screen: tensors by type and shape, tables by size, long lists by their first entries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ReprSettings:
    """How much of a record is shown.  tests/solvers/test_short_repr.py would notice.

    Attributes:
        width: Characters a line: less than most terminals have.
        lines: Fields at most, one a line.
        entries: Of a list or a dictionary.
        depth: Of records inside records.
    """

    width: int = 110
    lines: int = 22
    entries: int = 4
    depth: int = 3


SETTINGS = ReprSettings()


class ShortRepr:
    """Gives a dataclass, made with ``repr=False``, a text that fits a screen."""

    def __repr__(self) -> str:
        fields = [f for f in dataclasses.fields(self) if f.repr]  # type: ignore[arg-type]  # of dataclasses alone
        shown = [f"{f.name}={shorten_repr(getattr(self, f.name), SETTINGS.width - len(f.name) - 6)}" for f in fields]
        return lay_out(type(self).__name__, shown)


def lay_out(name: str, parts: list[str]) -> str:
    """Return ``name(parts)``: on one line where it fits, else a line a part, at most a screen of them.

    Args:
        name: Of the record's class.
        parts: Texts of one line each.
    """
    line = f"{name}({', '.join(parts)})"
    if len(line) <= SETTINGS.width:
        return line
    cut = [part if len(part) <= SETTINGS.width - 6 else f"{part[: SETTINGS.width - 9]}..." for part in parts]
    if len(cut) > SETTINGS.lines:
        cut = [*cut[: SETTINGS.lines], f"... {len(cut) - SETTINGS.lines} more"]
    return "\n".join([f"{name}(", *(f"  {part}," for part in cut), ")"])


def shorten_repr(value: Any, width: int = SETTINGS.width, depth: int = 0) -> str:
    """Return what a value is, on one line of at most ``width`` characters.

    Args:
        value: Anything.
        width: Characters, at least 10.
        depth: How many records it lies inside of.
    """
    text = " ".join(_describe_value(value, width, depth).split())
    return text if len(text) <= width else f"{text[: max(width, 10) - 3]}..."


def _describe_value(value: Any, width: int, depth: int) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= width else value[:width])
    if value is None or isinstance(value, (bool, int, float, complex, bytes)):
        return repr(value)
    kind, shape = type(value).__name__, getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):  # a tensor or an array
        return repr(value.item()) if tuple(shape) == () else f"{kind}({value.dtype}, {tuple(shape)})"
    if shape is not None and hasattr(value, "columns"):
        return f"{kind}({shape[0]} rows, {shape[1]} columns)"
    if hasattr(value, "state_dict") and hasattr(value, "parameters"):
        return f"{kind}({sum(p.numel() for p in value.parameters()):,} parameters)"
    if depth >= SETTINGS.depth:
        return f"{kind}(...)"
    if isinstance(value, Mapping):
        pairs = list(value.items())[: SETTINGS.entries]
        shown = [f"{shorten_repr(k, width, depth + 1)}: {shorten_repr(v, width, depth + 1)}" for k, v in pairs]
        return f"{{{', '.join([*shown, *_count_rest(value)])}}}"
    if isinstance(value, (list, tuple, set, frozenset)):
        shown = [shorten_repr(one, width, depth + 1) for one in list(value)[: SETTINGS.entries]]
        frame = "[{}]" if isinstance(value, list) else "({})" if isinstance(value, tuple) else "{{{}}}"
        return frame.format(", ".join([*shown, *_count_rest(value)]))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f for f in dataclasses.fields(value) if f.repr]
        return (
            f"{kind}({', '.join(f'{f.name}={shorten_repr(getattr(value, f.name), width, depth + 1)}' for f in fields)})"
        )
    if callable(value):
        return str(getattr(value, "__qualname__", kind))
    return repr(value)


def _count_rest(values: Any) -> list[str]:
    return [f"... {len(values) - SETTINGS.entries} more"] if len(values) > SETTINGS.entries else []
