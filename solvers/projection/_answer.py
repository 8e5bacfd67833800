"""Reads scores and rules, finds the way that each row goes, and gathers the answers.  Axes: B rows, K teachers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from solvers.polytope import WeightPolytope, bounds_within

from ._bounds import read_bounds
from ._exact import project_exact, transformed
from ._general import project_general
from ._inputs import ENGINES, METRICS, Scores, read_choice, read_mask, read_safety, read_scores, require_values
from ._order import BoundedOrder
from ._route import Part, Rules, plan
from ._ties import share_scores, share_weights

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
    parts = _read_rules(scores, polytope, critical, safety, lower, upper, engine)
    check_finite = check_finite and not transformed()
    on_kernels = scores.v.is_cpu and all(part.order is not None for part in parts)
    if check_finite and not on_kernels:
        require_values(scores, metric)
    if scores.v.numel() == 0:
        return scores.answer(scores.v.clone())
    w_BK = _gather_parts(scores.v, parts, metric)
    if check_finite and on_kernels and _has_nan(w_BK):
        require_values(scores, metric)  # kernels look at every score and mark the whole row: now name what they found
    return scores.answer(w_BK)


def _read_rules(
    scores: Scores,
    polytope: WeightPolytope,
    critical: RowsOf,
    safety: RowsOf,
    lower: RowsOf,
    upper: RowsOf,
    engine: str,
) -> list[Part]:
    if critical is None and safety is None and lower is None and upper is None:
        return plan(scores.v, Rules(polytope, None, None, None, scores.shape[:-1]), engine)
    with torch._C._DisableFuncTorch():  # rules are constants: ordinary tensors, also inside torch.func transforms
        critical_B = read_mask(critical, scores.shape, scores.v.device)
        safety_BK = read_safety(safety, scores.shape, polytope, scores.v.device)
        bounds = read_bounds(lower, upper, scores.shape, polytope, scores.v.device)
        return plan(scores.v, Rules(polytope, critical_B, safety_BK, bounds, scores.shape[:-1]), engine)


def _has_nan(w_BK: Tensor) -> bool:
    """Ask numpy, which stays on this thread: torch's own threads would wait in the way of ours."""
    wide_BK = w_BK.detach() if w_BK.dtype in (torch.float64, torch.float32) else w_BK.detach().float()
    return math.isnan(wide_BK.numpy()[:, 0].sum())


def _gather_parts(v_BK: Tensor, parts: list[Part], metric: str) -> Tensor:
    if len(parts) == 1 and parts[0].rows is None:
        return _project_part(v_BK, parts[0], metric)
    rows = [part.rows for part in parts if part.rows is not None]
    w_BK = torch.cat([_project_part(v_BK[part.rows], part, metric) for part in parts])
    return w_BK[torch.cat(rows).argsort()]


def _project_part(v_BK: Tensor, part: Part, metric: str) -> Tensor:
    if not len(v_BK):
        return v_BK
    if part.polytope.tied:
        alike = replace(part, polytope=part.polytope.untied)
        return share_weights(
            _project_part(share_scores(v_BK, part.polytope.tied, metric), alike, metric), part.polytope.tied
        )
    if part.order is None:
        return project_general(v_BK, part.polytope, metric)
    if isinstance(part.order, BoundedOrder):
        lower, upper = 0.0, 1.0  # its own bounds count
    else:
        lower, upper = _uniform_bounds_within(part.polytope, v_BK.dtype)
    wide_BK = v_BK if v_BK.dtype in (torch.float64, torch.float32) else v_BK.float()
    w_BK = project_exact(wide_BK, part.order, lower, upper, metric)
    # the bounds are numbers of the short type, and rounding is monotone: both bounds and order survive
    return w_BK if w_BK.dtype == v_BK.dtype else w_BK.to(v_BK.dtype)


@lru_cache(maxsize=256)
def _uniform_bounds_within(polytope: WeightPolytope, dtype: torch.dtype) -> tuple[float, float]:
    low_K, high_K = bounds_within(polytope, dtype)
    return float(low_K[0]), float(high_K[0])
