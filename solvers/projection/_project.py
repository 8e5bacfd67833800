"""The front door of projection.  Axes: B rows, K teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy.typing as npt
import torch
from torch import Tensor

from solvers.errors import InvalidInput
from solvers.polytope import WeightPolytope

from ._captured_projection import project_captured
from ._eager_projection import RowValues, project_eagerly


@overload
def project(
    v: npt.NDArray[Any],
    polytope: WeightPolytope,
    *,
    metric: str = ...,
    critical: RowValues = ...,
    safety: RowValues = ...,
    lower: RowValues = ...,
    upper: RowValues = ...,
    engine: str = ...,
    check_finite: bool = ...,
) -> npt.NDArray[Any]: ...


@overload
def project(
    v: Tensor | Sequence[Any],
    polytope: WeightPolytope,
    *,
    metric: str = ...,
    critical: RowValues = ...,
    safety: RowValues = ...,
    lower: RowValues = ...,
    upper: RowValues = ...,
    engine: str = ...,
    check_finite: bool = ...,
) -> Tensor: ...


def project(
    v: Tensor | npt.NDArray[Any] | Sequence[Any],
    polytope: WeightPolytope,
    *,
    metric: str = "euclidean",
    critical: RowValues = None,
    safety: RowValues = None,
    lower: RowValues = None,
    upper: RowValues = None,
    engine: str = "auto",
    check_finite: bool = True,
) -> Tensor | npt.NDArray[Any]:
    """Return the conforming weights nearest to each row of scores.

    Differentiable twice; on a kink the derivative is that of one of the sides.

    Args:
        v: Scores, shape (..., K), float64, float32, bfloat16 or float16, on any device; a tensor, an array or lists.
        polytope: The rules that the weights of K teachers obey.
        metric: "euclidean", or "kl" for the I-projection, which keeps ratios where it can and needs v > 0.
        critical: Booleans, shape (...,), True on rows where orderings apply; the other rows keep bounds, sum and linear
            rows.  None: they apply everywhere.
        safety: Scores, shape (..., K) or (K,); each row's order follows its own, equal scores being free of each other.
            Only for a polytope without orderings.
        lower: Numbers that fit v's shape and replace the polytope's lower bounds row by row; constants for the
            gradient.
        upper: The same for the upper bounds.
        engine: "auto", "exact" or "cvxpy"; the answer is the same within 1e-7.
        check_finite: False skips the look at the values, the one place that waits for a GPU; NaN then gives NaN.

    Returns:
        Weights of v's shape, dtype and device (an array for an array, a float64 tensor for lists).  Bounds and
        margin-free orderings hold to the last bit; sums within K ulp of one.  Half types are computed in float32.

    Raises:
        InvalidInput: A shape, dtype, value or option cannot be used; the message names row and teacher.
        InfeasiblePolytope: A row's safety order or its bounds leave no weights.
        SolverFailure: No back end solves a row.

    Source: bounded isotonic regression, Best, Chakravarti and Ubhaya 2000; I-projection, Csiszar 1975.

    >>> project([0.9, 0.3, -1.0], WeightPolytope(3, lower=0.1, upper=0.6))
    tensor([0.6000, 0.3000, 0.1000], dtype=torch.float64)
    """
    if not isinstance(polytope, WeightPolytope):
        raise InvalidInput(f"`polytope` must be a WeightPolytope; found {type(polytope).__name__}.")
    if isinstance(v, Tensor) and torch.compiler.is_compiling():
        mask = None if critical is None else torch.as_tensor(critical)
        rows = [
            row if row is None or isinstance(row, Tensor) else torch.as_tensor(row, dtype=torch.float64)
            for row in (safety, lower, upper)
        ]
        return project_captured(v, polytope, metric, mask, *rows)
    return project_eagerly(v, polytope, metric, critical, safety, lower, upper, engine, check_finite)
