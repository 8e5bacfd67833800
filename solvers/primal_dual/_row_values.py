"""What a caller hands to a step, checked and put in one row: inequalities first, then equalities.

Axes: M inequalities, E equalities, C = M + E rows, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInput

Evaluate = Callable[[], Mapping[str, Any] | tuple[Any, ...]]


def name_values(values: Mapping[str, Any] | tuple[Any, ...]) -> dict[str, Any]:
    """Return what an evaluation gave as arguments of ``step``."""
    if isinstance(values, Mapping):
        return dict(values)
    if not isinstance(values, tuple) or not 1 <= len(values) <= 3:
        raise InvalidInput(
            f"`evaluate` returned {type(values).__name__}; wanted (f, g), (f, g, h) or a dictionary of what step takes."
        )
    return dict(zip(("objective", "inequality", "equality"), values, strict=False))


def join_rows(objective: Tensor, *rows: tuple[str, Tensor | None, int]) -> Tensor:
    """Return rows of values as one, each checked against how many the engine holds; rows: (name, values, number)."""
    parts = []
    for name, values, size in rows:
        if values is None and size:
            raise InvalidInput(f"`{name}` is missing: this engine holds {size} multipliers for it.")
        if values is not None and values.shape != (size,):
            raise InvalidInput(f"`{name}` has shape {tuple(values.shape)}; this engine was made for {(size,)}.")
        if values is not None and size:
            parts.append(values)
    if not parts:
        return objective.new_zeros(0)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def complete_presence(present: Tensor | None, C: int, E: int) -> Tensor | None:
    """Return which rows a batch speaks of, (C,): equalities always, where nothing was said of them."""
    if present is None or present.shape == (C,):
        return present
    if present.shape != (C - E,):
        raise InvalidInput(f"`present` has shape {tuple(present.shape)}; wanted ({C - E},) or ({C},).")
    return torch.cat([present, present.new_ones(E)])


def index_rows(index: Tensor, M: int, E: int) -> Tensor:
    """Return the places of a batch's rows in the state: those of ``index``, then all equalities."""
    # on a GPU nothing is looked at: it would wait for the device
    if index.is_cpu and len(index):
        distinct = len(torch.unique(index)) == len(index)
        if not (distinct and 0 <= index.min() <= index.max() < M):
            raise InvalidInput(f"`index` must hold distinct numbers from 0 to {M - 1}; found {index.tolist()[:10]}.")
    return torch.cat([index, torch.arange(M, M + E, device=index.device)])
