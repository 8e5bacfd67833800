"""Trace points as columns, small enough for every checkpoint, and back, bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from typing import Any

from solvers.kkt import KKTResiduals

from ...errors import InvalidInput
from ._memory import Memory
from ._trace_points import ConstraintReading, TracePoint

_RECORDS = {kind.__name__: kind for kind in (TracePoint, ConstraintReading, KKTResiduals, Memory)}


def pack_points(points: Sequence[TracePoint]) -> dict[str, Any]:
    """Return points as nested columns of numbers.

    Args:
        points: In order.
    """
    return {"count": len(points), "points": _pack(points)}


def unpack_points(packed: Mapping[str, Any]) -> list[TracePoint]:
    """Return what was packed.

    Args:
        packed: Of ``pack_points``.

    Raises:
        InvalidInput: It is none such.
    """
    try:
        points = _unpack(packed["points"], packed["count"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InvalidInput(f"no trace that was packed: {type(error).__name__}: {error}") from error
    return points


def _pack(values: Sequence[Any]) -> Any:
    first = values[0] if values else None
    if dataclasses.is_dataclass(first):
        columns = {f.name: _pack([getattr(value, f.name) for value in values]) for f in dataclasses.fields(first)}
        return {"record": type(first).__name__, "columns": columns}
    if isinstance(first, (list, tuple)):
        return {"lengths": [len(value) for value in values], "flat": _pack([*chain.from_iterable(values)])}
    if isinstance(first, str):
        words = [*dict.fromkeys(values)]
        number = {word: i for i, word in enumerate(words)}
        return {"words": words, "which": [number[value] for value in values]}
    return list(values)


def _unpack(packed: Any, count: int) -> list[Any]:
    if isinstance(packed, list):
        if len(packed) != count:
            raise ValueError(f"{len(packed)} entries, wanted {count}")
        return packed
    if "words" in packed:
        return [packed["words"][i] for i in _unpack(packed["which"], count)]
    if "lengths" in packed:
        lengths = _unpack(packed["lengths"], count)
        flat = iter(_unpack(packed["flat"], sum(lengths)))
        return [[*islice(flat, length)] for length in lengths]
    columns = {name: _unpack(column, count) for name, column in packed["columns"].items()}
    kind = _RECORDS[packed["record"]]
    return [kind(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
