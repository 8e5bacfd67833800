"""Batches of few examples, made batches of many where their parts have equal shapes.  Axes: B batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from .._batch import Batch
from .._inputs import map_inputs, name_inputs


def group_alike(batches: Sequence[Batch]) -> list[list[int]]:
    """Return which batches can be joined: their places, in order, in groups of equal shapes.

    Args:
        batches: Any.
    """
    alike: dict[Any, list[int]] = defaultdict(list)
    for place, batch in enumerate(batches):
        shapes = {name: (value.shape[1:], value.dtype) for name, value in name_inputs(batch.inputs).items()}
        alike[tuple(shapes.items()), batch.labels.shape[1:], batch.numbered].append(place)
    return list(alike.values())


def join_batches(batches: Sequence[Batch]) -> Batch:
    """Return the examples of several batches as one.

    Args:
        batches: Of equal shapes.
    """
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    columns = [[*column] for column in zip(*(name_inputs(batch.inputs).values() for batch in batches), strict=True)]
    joined = map(torch.cat, columns)
    inputs = map_inputs(first.inputs, lambda _: next(joined))
    parts: dict[str, Any] = {
        name: torch.cat([getattr(b, name) for b in batches]) for name in ("labels", "task", "context", "index")
    }
    mask = None
    if any(batch.mask is not None for batch in batches):
        whole = [torch.ones_like(b.labels, dtype=torch.bool) if b.mask is None else b.mask for b in batches]
        mask = torch.cat(whole)
    return replace(first, inputs=inputs, mask=mask, **parts)
