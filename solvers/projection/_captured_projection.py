"""The projection as an opaque operator, for graphs that are captured ahead of running.

``torch.compile(fullgraph=True)`` sees ``safekd::project_rows`` with its shapes and its derivative, and never looks
inside; that is the exact path under uniform bounds.  ``safekd::project_any`` stands for every other polytope: it calls
``project`` again when the graph runs, and once more for the derivative, which cannot be differentiated a second time.
Eager code and torch.func transforms call ``exact`` directly, which costs less a call.
Axes: B rows, K teachers, R = 1 or B, E edges.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from solvers.polytope import WeightPolytope, bounds_within

from ._eager_projection import project_eagerly
from ._projection_orders import OWN_TIERS, RowOrder
from ._projection_plan import find_exact_order
from ._torch_internals import differentiate_inside_operator
from .exact import project_rows_exactly, pull_back_blocks, read_block_labels


@torch.library.custom_op("safekd::project_rows", mutates_args=())
def project_rows(
    v_BK: Tensor, order_K: Tensor, tier_RK: Tensor, edge_E2: Tensor, kind: int, lower: float, upper: float, kl: bool
) -> tuple[Tensor, Tensor]:
    """Return weights (B, K) and block labels (B, K), int64; arguments: ``RowOrder``'s, ``project_rows_exactly``'s."""
    order = RowOrder(kind, order_K.cpu().numpy(), tier_RK, edge_E2.cpu().numpy())
    w_BK, block_BK = project_rows_exactly(v_BK, order, lower, upper, kl)
    return w_BK, read_block_labels(w_BK, block_BK, order).clone()


@project_rows.register_fake
def _(v_BK: Tensor, *order_and_bounds: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(v_BK), torch.empty_like(v_BK, dtype=torch.long)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    v_BK, *_, lower, upper, kl = inputs
    ctx.save_for_backward(v_BK, *output)
    ctx.lower, ctx.upper, ctx.kl = lower, upper, kl


def _backward(ctx: Any, grad_BK: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    with torch.enable_grad():  # tensor operations: a captured backward cannot call kernels
        v_BK, w_BK, block_BK = ctx.saved_tensors
        gradient_BK = pull_back_blocks(grad_BK, v_BK, w_BK, block_BK, ctx.lower, ctx.upper, ctx.kl)
    return gradient_BK, None, None, None, None, None, None, None


project_rows.register_autograd(_backward, setup_context=_keep)


@torch.library.custom_op("safekd::project_any", mutates_args=())
def project_any(
    v: Tensor,
    number: int,
    kl: bool,
    critical: Tensor | None,
    safety: Tensor | None,
    lower: Tensor | None,
    upper: Tensor | None,
) -> Tensor:
    """Return ``project(v, polytope, ...)``, (..., K); number: of the polytope, as ``_number_polytope`` gave it."""
    answer: Tensor = _project_again(v, number, kl, critical, safety, lower, upper)
    return answer.clone()


@project_any.register_fake
def _(v: Tensor, *rules: Any) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


@torch.library.custom_op("safekd::pull_back_any", mutates_args=())
def pull_back_any(
    grad: Tensor,
    v: Tensor,
    number: int,
    kl: bool,
    critical: Tensor | None,
    safety: Tensor | None,
    lower: Tensor | None,
    upper: Tensor | None,
) -> Tensor:
    """Return the transposed Jacobian of ``project_any`` times grad, (..., K)."""
    with differentiate_inside_operator():
        scores = v.detach().requires_grad_()
        answer = _project_again(scores, number, kl, critical, safety, lower, upper)
        return torch.autograd.grad(answer, scores, grad)[0].contiguous()


@pull_back_any.register_fake
def _(grad: Tensor, v: Tensor, *rules: Any) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


def _keep_any(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    v, ctx.number, ctx.kl, *rows = inputs
    ctx.save_for_backward(v, *rows)


def _backward_any(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    v, *rows = ctx.saved_tensors
    return pull_back_any(grad, v, ctx.number, ctx.kl, *rows), None, None, None, None, None, None


project_any.register_autograd(_backward_any, setup_context=_keep_any)


def project_captured(
    v: Tensor,
    polytope: WeightPolytope,
    metric: str,
    critical: Tensor | None,
    safety: Tensor | None,
    lower: Tensor | None,
    upper: Tensor | None,
) -> Tensor:
    """Project inside a captured graph: the same answer; on the exact path values are not looked at, NaN gives NaN."""
    fixed = _read_fixed(polytope, v.dtype)
    if fixed is None or (safety is not None and polytope.margin) or lower is not None or upper is not None:
        opaque: Tensor = project_any(v, _number_polytope(polytope), metric == "kl", critical, safety, lower, upper)
        return opaque
    order_K, tier_1K, edge_E2, kind, lower, upper = fixed
    rows_BK = v.reshape(-1, v.shape[-1])
    wide_BK = rows_BK if v.dtype in (torch.float64, torch.float32) else rows_BK.float()
    tier_RK = tier_1K.to(v.device)
    if safety is not None or critical is not None:
        tier_RK = (tier_RK if safety is None else safety.detach()).expand(v.shape).reshape(rows_BK.shape).double()
        if critical is not None:
            tier_RK = torch.where(critical.expand(v.shape[:-1]).reshape(-1, 1), tier_RK, 0.0)
        kind = OWN_TIERS
    w_BK, _ = project_rows(wide_BK, order_K, tier_RK.contiguous(), edge_E2, kind, lower, upper, metric == "kl")
    projected: Tensor = w_BK.to(v.dtype).reshape(v.shape)
    return projected


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _read_fixed(
    polytope: WeightPolytope, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, int, float, float] | None:
    """Return what does not depend on the scores, worked out while the graph is captured."""
    order = find_exact_order(polytope)
    if order is None:
        return None
    low_K, high_K = bounds_within(polytope, dtype)
    order_K, edge_E2 = torch.from_numpy(order.order_K), torch.from_numpy(order.edge_E2)
    return order_K, order.tier_RK, edge_E2, order.kind, float(low_K[0]), float(high_K[0])


_POLYTOPES: dict[WeightPolytope, int] = {}


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _number_polytope(polytope: WeightPolytope) -> int:
    """Return the number by which an operator, which takes no objects, knows a polytope."""
    return _POLYTOPES.setdefault(polytope, len(_POLYTOPES))


def _project_again(v: Tensor, number: int, kl: bool, *rows: Tensor | None) -> Any:
    critical, safety, lower, upper = rows
    return project_eagerly(v, list(_POLYTOPES)[number], "kl" if kl else "euclidean", critical, safety, lower, upper)
