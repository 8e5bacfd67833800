"""Multiplier scales of values that no single graph holds: gradients are added up, part by part.

A step of several microbatches, or of several processes, has f and its rows as sums of parts, each with a graph that is
gone when the next one is made.  What ``read_scales`` reads off one graph is then gathered in two sweeps:

    sums = GradientSums(parameters, inequalities=M)
    for f, g_M in parts():                      # that add up to f and g of the step, up to constants
        sums.add(f, g_M)
    scales = sums.read(value_M, (f for f, _ in parts()))

Axes: M inequalities, C rows, n numbers of all parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInput
from ._gradient_parts import (
    differentiate,
    differentiate_twice,
    draw_signs,
    measure_parts,
    multiply_parts,
    read_curvature,
)
from ._multiplier_scale import SETTINGS as SCALE_SETTINGS
from ._multiplier_scale import MultiplierScales, combine_scales, measure_distances


@dataclass(frozen=True)
class GradientSumSettings:
    """What the sums may take.

    Attributes:
        memory: Bytes for the gradients of the rows; where they are more, one mix of the rows stands for all
            (``tests/solvers/primal_dual/test_gradient_sums.py``).
    """

    memory: int = 2**30


SETTINGS = GradientSumSettings()


class GradientSums:
    """Gradients of f and of each row, summed over parts of a step.

    Beyond 32 rows, and where the gradients of the rows would take more than ``memory_bytes``, a mix of the rows with
    random signs stands for all: the gradient of f and one other are then held.

    Args:
        parameters: The variables; those that need no gradient are left out.
        inequalities: How many rows g, M >= 0.
        equalities: How many rows h, E >= 0.
        memory_bytes: For the gradients of the rows; 1 GiB if left out.
        reduce: Adds tensors up over all processes, in place; every process calls it equally often.  None for one
            process.

    Raises:
        InvalidInput: A part holds another number of rows.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        inequalities: int,
        equalities: int = 0,
        *,
        memory_bytes: int | None = None,
        reduce: Callable[[list[Tensor]], None] | None = None,
    ) -> None:
        self._leaves = [x for x in parameters if x.requires_grad]
        self._M, self._C, self._reduce = inequalities, inequalities + equalities, reduce
        # half types would lose what late parts add
        types = [torch.promote_types(x.dtype, torch.float32) for x in self._leaves]
        room = SETTINGS.memory if memory_bytes is None else memory_bytes
        size = sum(x.numel() * dtype.itemsize for x, dtype in zip(self._leaves, types, strict=True))
        self._mixed = SCALE_SETTINGS.one_by_one < self._C or (self._C > 1 and self._C * size > room)
        held = 1 + (1 if self._mixed else self._C)  # f, then the rows
        self._sums = [
            [torch.zeros_like(x, dtype=dtype) for x, dtype in zip(self._leaves, types, strict=True)]
            for _ in range(held)
        ]

    def add(self, objective: Tensor, rows_C: Tensor) -> None:
        """Add the gradients of one part.

        Args:
            objective: The part's share of f, a scalar with its graph, which stays.
            rows_C: Its share of g, then h, shape (C,), with their graphs.
        """
        if rows_C.shape != (self._C,):
            raise InvalidInput(f"A part holds rows of shape {tuple(rows_C.shape)}; wanted ({self._C},).")
        rows = [(rows_C * draw_signs(rows_C)).sum()] if self._mixed else list(rows_C)
        for value, sums in zip([objective, *rows], self._sums, strict=True):
            for total, part in zip(sums, differentiate(value, self._leaves), strict=True):
                if part is not None:
                    total += part

    def read(
        self, value_C: Tensor, objectives: Iterable[Tensor], *, largest_distance: float = math.inf
    ) -> MultiplierScales:
        """Return the scales of the rows, as ``read_scales`` would of the whole step.

        Args:
            value_C: Values of g, then h, of the whole step over all processes, shape (C,).
            objectives: Each part's share of f once more, with its graph, for the curvature.
            largest_distance: How far variables may have to move, in their own units.
        """
        if self._reduce is not None:
            self._reduce([total for sums in self._sums for total in sums])
        f_gradient, *gradients = self._sums
        curvature = value_C.new_zeros(len(gradients), dtype=torch.float64)
        for objective in objectives:
            first = differentiate_twice(objective, self._leaves)
            for total, gradient in zip(curvature, gradients, strict=True):
                total += read_curvature(first, self._leaves, gradient).to(curvature)
        if self._reduce is not None:
            self._reduce([curvature])
        device = value_C.device
        return combine_scales(
            measure_parts(f_gradient).to(device),
            torch.stack([measure_parts(gradient) for gradient in gradients]).to(device),
            curvature,
            torch.stack([multiply_parts(f_gradient, gradient) for gradient in gradients]).to(device),
            measure_distances(value_C, self._M),
            largest_distance=largest_distance,
        )
