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
    Complaint,
    Scores,
    read_choice,
    read_mask,
    read_safety,
    read_scores,
    require_values,
)
from ._projection_plan import Part, Rules, plan, plan_alike
from ._row_bounds import read_bounds
from ._tied_teachers import share_scores, share_weights
from .exact._projection_autograd import project_exact, transformed
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
        parts: Sequence[Part] = plan_alike(polytope, scores.v.dtype, engine)
    else:
        parts = _read_rules(scores, polytope, critical, safety, lower, upper, engine)
    complain = partial(require_values, scores, metric) if check_finite and not transformed() else None
    if complain and not (scores.v.is_cpu and all(part.order is not None for part in parts)):
        complain()  # kernels of the processor look at every score themselves, and name one only when they found it
    if scores.v.numel() == 0:
        return scores.answer(scores.v.clone())
    return scores.answer(_gather_parts(scores.v, parts, metric, complain))


def _read_rules(
    scores: Scores,
    polytope: WeightPolytope,
    critical: RowsOf,
    safety: RowsOf,
    lower: RowsOf,
    upper: RowsOf,
    engine: str,
) -> list[Part]:
    with torch._C._DisableFuncTorch():  # rules are constants: ordinary tensors, also inside torch.func transforms
        critical_B = read_mask(critical, scores.shape, scores.v.device)
        safety_BK = read_safety(safety, scores.shape, polytope, scores.v.device)
        bounds = read_bounds(lower, upper, scores.shape, polytope, scores.v.device)
        return plan(scores.v, Rules(polytope, critical_B, safety_BK, bounds, scores.shape[:-1]), engine)


def _gather_parts(v_BK: Tensor, parts: Sequence[Part], metric: str, complain: Complaint | None) -> Tensor:
    if len(parts) == 1 and parts[0].rows is None:
        return _project_part(v_BK, parts[0], metric, complain)
    taken = [(part.rows, part) for part in parts if part.rows is not None and len(part.rows)]
    w_BK = torch.cat([_project_part(v_BK[rows], part, metric, complain) for rows, part in taken])
    return w_BK[torch.cat([rows for rows, _ in taken]).argsort()]


def _project_part(v_BK: Tensor, part: Part, metric: str, complain: Complaint | None) -> Tensor:
    polytope = part.polytope
    if polytope.tied:
        alike, shared_BK = part._replace(polytope=polytope.untied), share_scores(v_BK, polytope.tied, metric)
        return share_weights(_project_part(shared_BK, alike, metric, complain), polytope.tied)
    if part.order is None:
        return project_general(v_BK, polytope, metric)
    wide_BK = v_BK if v_BK.dtype in (torch.float64, torch.float32) else v_BK.float()
    w_BK = project_exact(wide_BK, part.order, *part.bounds, metric, complain)
    # the bounds are numbers of the short type, and rounding is monotone: both bounds and order survive
    return w_BK if w_BK.dtype == v_BK.dtype else w_BK.to(v_BK.dtype)
