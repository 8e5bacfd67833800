"""Reads scores and rules once, plans the way of each row, and projects.  Axes: B rows, K teachers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from solvers.polytope import WeightPolytope

from ._projection_inputs import COMPUTED, RaiseUnusable, Scores, read_mask, read_safety, read_scores, require_values
from ._projection_plan import ProjectionPlan, RowPart, plan_rows, plan_shared_rows, require_words
from ._row_bounds import read_row_bounds
from ._row_rules import RowRules
from ._tied_teachers import share_scores, share_weights
from ._torch_internals import are_transforms_active, leave_transforms
from .exact import project_exact
from .general import project_general

RowValues = Tensor | npt.ArrayLike | None


def project_eagerly(
    v: Tensor | npt.NDArray[Any] | Sequence[Any],
    polytope: WeightPolytope,
    metric: str,
    critical: RowValues,
    safety: RowValues,
    lower: RowValues,
    upper: RowValues,
    engine: str = "auto",
    check_finite: bool = True,
) -> Tensor | npt.NDArray[Any]:
    """Return what ``project`` returns, outside of captured graphs."""
    scores = read_scores(v, polytope.n_teachers)
    v_BK = scores.v
    if critical is None and safety is None and lower is None and upper is None:
        try:
            plan = plan_shared_rows(polytope, v_BK.dtype, metric, engine)
        except TypeError:  # what cannot be looked up is no word
            require_words(metric, engine)
            raise
    else:
        plan = _plan_own_rules(scores, polytope, metric, critical, safety, lower, upper, engine)
    raise_unusable = partial(require_values, scores, metric) if check_finite and not are_transforms_active() else None
    if raise_unusable and not (plan.exact and v_BK.is_cpu):
        raise_unusable()  # the processor's kernels look at every score themselves, and name one only where they saw it
    if v_BK.numel() == 0:
        return scores.answer(v_BK.clone())
    part = plan.alone
    if part is None or part.order is None:
        return scores.answer(_project_parts(v_BK, plan, metric, raise_unusable))
    return scores.answer(project_exact(v_BK, part.order, *part.bounds, plan.kl, raise_unusable))


def _plan_own_rules(
    scores: Scores,
    polytope: WeightPolytope,
    metric: str,
    critical: RowValues,
    safety: RowValues,
    lower: RowValues,
    upper: RowValues,
    engine: str,
) -> ProjectionPlan:
    device = scores.v.device
    with leave_transforms():  # rules are constants: ordinary tensors, also inside torch.func transforms
        critical_B = read_mask(critical, scores.shape, device)
        safety_BK = read_safety(safety, scores.shape, polytope, device)
        bounds = read_row_bounds(lower, upper, scores.shape, polytope, device)
        rules = RowRules(polytope, critical_B, safety_BK, bounds, scores.shape[:-1])
        return plan_rows(scores.v, rules, metric, engine)


def _project_parts(v_BK: Tensor, plan: ProjectionPlan, metric: str, raise_unusable: RaiseUnusable | None) -> Tensor:
    if len(plan.parts) == 1 and plan.parts[0].rows is None:
        return _project_part(v_BK, plan.parts[0], metric, raise_unusable)
    taken = [(part.rows, part) for part in plan.parts if part.rows is not None and len(part.rows)]
    w_BK = torch.cat([_project_part(v_BK[rows], part, metric, raise_unusable) for rows, part in taken])
    return w_BK[torch.cat([rows for rows, _ in taken]).argsort()]


def _project_part(v_BK: Tensor, part: RowPart, metric: str, raise_unusable: RaiseUnusable | None) -> Tensor:
    polytope = part.polytope
    if polytope.tied:
        alike, shared_BK = part._replace(polytope=polytope.untied), share_scores(v_BK, polytope.tied, metric)
        return share_weights(_project_part(shared_BK, alike, metric, raise_unusable), polytope.tied)
    if part.order is None:
        return project_general(v_BK, polytope, metric)
    wide_BK = v_BK if v_BK.dtype in COMPUTED else v_BK.float()
    w_BK = project_exact(wide_BK, part.order, *part.bounds, metric == "kl", raise_unusable)
    # the bounds are numbers of the short type, and rounding is monotone: both bounds and order survive
    return w_BK if w_BK.dtype == v_BK.dtype else w_BK.to(v_BK.dtype)
