"""Projection onto any polytope, row by row, with its derivative.

The answer comes from Moreau or cvxpy and the active-set method.  The derivative comes from the rules A that are active
there (the implicit function theorem on the KKT conditions):

    euclidean   dw = (I - A^+ A) dv
    kl          dw = W (dv / v - A^T dnu),    (A W A^T) dnu = A W (dv / v),    W = diag(w)

A holds independent rows.  Where an active rule has multiplier zero the projection has a kink, and the derivative is
that of the side on which the rule stays active.  Both backwards can be differentiated again.

Computed in float64 on the CPU; the result goes back to v's dtype and device.  Axes: B rows, K teachers; A_BKK holds at
most K independent rows, filled up with zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd import Function

from solvers.polytope import WeightPolytope

from ._canonical_form import find_canonical_form
from ._general_solve import solve_rows
from ._snap_to_polytope import snap_to_polytope

Floats = npt.NDArray[np.float64]


def project_general(v_BK: Tensor, polytope: WeightPolytope, metric: str) -> Tensor:
    """Return the projection of each row, in v's dtype.  Raises SolverFailure if no back end solves a row."""
    projected: Tensor = _General.apply(v_BK, polytope, metric)  # type: ignore[no-untyped-call]
    return projected


class _General(Function):
    @staticmethod
    def forward(ctx: Any, v_BK: Tensor, polytope: WeightPolytope, metric: str) -> Tensor:
        form = find_canonical_form(polytope, metric)
        scores_BK = v_BK.detach().to("cpu", torch.float64).numpy()
        answers = solve_rows(scores_BK, form)
        active_BKK = _stack_active(form.rows * form.support, answers.active)
        snapped_BK = snap_to_polytope(torch.from_numpy(answers.w), polytope, v_BK.dtype).to(v_BK.device)
        ctx.metric = metric
        # v and w are saved as input and output: the second derivative flows through both
        ctx.save_for_backward(v_BK, snapped_BK, torch.from_numpy(active_BKK).to(v_BK.device))
        return snapped_BK

    @staticmethod
    def backward(ctx: Any, grad_BK: Tensor) -> tuple[Tensor | None, ...]:
        v_BK, w_BK, active_BKK = ctx.saved_tensors
        wide_BK = grad_BK.double()
        if ctx.metric == "euclidean":
            ones_BK = torch.ones_like(w_BK, dtype=torch.float64)
            gradient_BK = _off_active(wide_BK, ones_BK, active_BKK)
        else:
            gradient_BK = _off_active(wide_BK, w_BK.double(), active_BKK) / v_BK.double()
        return gradient_BK.to(grad_BK.dtype), None, None


def _stack_active(rows_MK: Floats, active_BM: npt.NDArray[np.bool_]) -> Floats:
    """Return each row's active rules first, zeros after them; there are K at most, because they are independent."""
    K = rows_MK.shape[1]
    place_BK = np.argsort(~active_BM, axis=1, kind="stable")[:, :K]
    taken_BK = np.take_along_axis(active_BM, place_BK, axis=1)
    stacked_BKK: Floats = rows_MK[place_BK] * taken_BK[:, :, None]
    return stacked_BKK


def _off_active(grad_BK: Tensor, mass_BK: Tensor, active_BKK: Tensor) -> Tensor:
    """Return (W - W A^T (A W A^T)^-1 A W) grad with W = diag(mass); rows of zeros in A are no rows."""
    weighted_BKK = active_BKK * mass_BK[:, None, :]
    empty_BK = (active_BKK == 0).all(dim=-1)
    normal_BKK = weighted_BKK @ active_BKK.mT + torch.diag_embed(empty_BK.double())
    nu_BK1 = torch.linalg.solve(normal_BKK, weighted_BKK @ grad_BK[:, :, None])
    gradient_BK: Tensor = mass_BK * grad_BK - (weighted_BKK.mT @ nu_BK1)[:, :, 0]
    return gradient_BK
