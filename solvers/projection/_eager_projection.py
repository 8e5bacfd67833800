"""Reads scores and rules, finds the way that each row goes, and gathers the answers.  Axes: B rows, K teachers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from solvers.polytope import WeightPolytope

from ._projection_inputs import (
    ENGINES,
    METRICS,
    RaiseUnusable,
    Scores,
    read_choice,
    read_mask,
    read_safety,
    read_scores,
    require_values,
)
from ._projection_plan import RowPart, RowRules, plan_rows, plan_shared_rows
from ._row_bounds import read_row_bounds
from ._tied_teachers import share_scores, share_weights
from .exact._projection_autograd import is_transformed, project_exact
from .general._general_projection import project_general

RowsOf = Tensor | npt.ArrayLike | None


def answer(
    v: Tensor | npt.NDArray[Any] | Sequence[Any],
    polytope: WeightPolytope,
    metric: str,
    critical: RowsOf,
    safety: RowsOf,
    lower: RowsOf,
    upper: RowsOf,
    engine: str = "auto",
    check_finite: bool = True,
) -> Tensor | npt.NDArray[Any]:
    """Return what ``project`` returns, outside of captured graphs."""
    read_choice("metric", metric, METRICS)
    read_choice("engine", engine, ENGINES)
    scores = read_scores(v, polytope.n_teachers)
    if critical is None and safety is None and lower is None and upper is None:
        parts: Sequence[RowPart] = plan_shared_rows(polytope, scores.v.dtype, engine)
    else:
        parts = _read_rules(scores, polytope, critical, safety, lower, upper, engine)
    raise_unusable = partial(require_values, scores, metric) if check_finite and not is_transformed() else None
    if raise_unusable and not (scores.v.is_cpu and all(part.order is not None for part in parts)):
        raise_unusable()  # the processor's kernels look at every score themselves
    if scores.v.numel() == 0:
        return scores.answer(scores.v.clone())
    return scores.answer(_gather_parts(scores.v, parts, metric, raise_unusable))


def _read_rules(
    scores: Scores,
    polytope: WeightPolytope,
    critical: RowsOf,
    safety: RowsOf,
    lower: RowsOf,
    upper: RowsOf,
    engine: str,
) -> list[RowPart]:
    with torch._C._DisableFuncTorch():  # rules are constants: ordinary tensors, also inside torch.func transforms
        critical_B = read_mask(critical, scores.shape, scores.v.device)
        safety_BK = read_safety(safety, scores.shape, polytope, scores.v.device)
        bounds = read_row_bounds(lower, upper, scores.shape, polytope, scores.v.device)
        return plan_rows(scores.v, RowRules(polytope, critical_B, safety_BK, bounds, scores.shape[:-1]), engine)


def _gather_parts(v_BK: Tensor, parts: Sequence[RowPart], metric: str, raise_unusable: RaiseUnusable | None) -> Tensor:
    if len(parts) == 1 and parts[0].rows is None:
        return _project_part(v_BK, parts[0], metric, raise_unusable)
    taken = [(part.rows, part) for part in parts if part.rows is not None and len(part.rows)]
    w_BK = torch.cat([_project_part(v_BK[rows], part, metric, raise_unusable) for rows, part in taken])
    return w_BK[torch.cat([rows for rows, _ in taken]).argsort()]


def _project_part(v_BK: Tensor, part: RowPart, metric: str, raise_unusable: RaiseUnusable | None) -> Tensor:
    polytope = part.polytope
    if polytope.tied:
        alike, shared_BK = part._replace(polytope=polytope.untied), share_scores(v_BK, polytope.tied, metric)
        return share_weights(_project_part(shared_BK, alike, metric, raise_unusable), polytope.tied)
    if part.order is None:
        return project_general(v_BK, polytope, metric)
    wide_BK = v_BK if v_BK.dtype in (torch.float64, torch.float32) else v_BK.float()
    w_BK = project_exact(wide_BK, part.order, *part.bounds, metric, raise_unusable)
    # the bounds are numbers of the short type, and rounding is monotone: both bounds and order survive
    return w_BK if w_BK.dtype == v_BK.dtype else w_BK.to(v_BK.dtype)
