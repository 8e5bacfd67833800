"""Exact projections under uniform bounds and tiers, as differentiable functions.

euclidean   w = clip(iso(v) - tau, lower, upper)
kl          w = clip(exp(iso(log v) - tau), lower, upper)

with iso the isotonic regression on the tiers: it commutes with shifts, and bounding it by constants is clipping.

Gradients.  Let F be the entries strictly between the bounds, A the averaging within blocks, D = diag(w).
euclidean: dw = P A dv on F, P removing the mean over F.  kl: dw = D (a - <w, a>_F / <w, 1>_F) on F, a = A (dv / v).
Where the projection has a kink, an entry on a bound counts as clipped and scores that only just tie count as pooled:
this is the derivative on one of the sides, an element of the generalized Jacobian.

Rows on the CPU go to compiled kernels (``_cpu_rows``), rows on a device to Triton's kernels, or tensor operations where
it is missing, neither of which waits for the device (``_torch_rows``); all give the same weights and blocks.  A
backward that will be differentiated again is written in tensor operations.  Bounds that differ, and margins, are those
of ``_bounded_projection``.  Axes: B rows, K teachers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._projection_inputs import RaiseUnusable
from .._projection_orders import CHAIN, FREE, BoundedOrder, RowOrder
from .._torch_internals import are_transforms_active
from ._bounded_projection import project_bounded, pull_back_bounded
from ._torch_isotonic import average_within_blocks, find_run_starts
from ._torch_rows import project_on_device
from .cpu_kernels._cpu_rows import project_on_cpu, pull_back_on_cpu
from .gpu._triton_launch import can_use_triton, pull_back_on_triton


def project_exact(
    v_BK: Tensor,
    order: RowOrder | BoundedOrder,
    lower: float,
    upper: float,
    kl: bool,
    raise_unusable: RaiseUnusable | None = None,
) -> Tensor:
    """Return the projection of each row, differentiable.

    Args:
        v_BK: Scores, shape (B, K), float32 or float64, positive if ``kl``; a row that holds something else gives NaN.
        order: How the tiers of each row are known.
        lower: Lower bound, a number of v's dtype with K lower <= 1; not looked at for a BoundedOrder, which brings its
            own.
        upper: Upper bound, with K upper >= 1; likewise.
        kl: Whether the metric is "kl"; else it is "euclidean".
        raise_unusable: Called where scores cannot be used, on the processor, whose kernels look at every score.

    Returns:
        Weights, shape (B, K), of v's dtype and device.

    Source: Best, Chakravarti and Ubhaya 2000 (bounded isotonic regression); Condat 2016 (thresholds).
    """
    if are_transforms_active():
        projected: Tensor = _Projection.apply(v_BK, order, lower, upper, kl)[0]  # type: ignore[no-untyped-call]
        return projected
    if v_BK.requires_grad and torch.is_grad_enabled():
        eager: Tensor = _EagerProjection.apply(v_BK, (order, lower, upper, kl), raise_unusable)  # type: ignore[no-untyped-call]
        return eager
    if v_BK.is_cpu and isinstance(order, RowOrder):
        return project_on_cpu(v_BK, order, lower, upper, kl, False, raise_unusable)[0]
    return project_rows_exactly(v_BK, order, lower, upper, kl, False, raise_unusable)[0]


def project_rows_exactly(
    v_BK: Tensor,
    order: RowOrder | BoundedOrder,
    lower: float,
    upper: float,
    kl: bool,
    labeled: bool = True,
    raise_unusable: RaiseUnusable | None = None,
) -> tuple[Tensor, Tensor]:
    """Return weights (B, K) and block labels (B, K): teachers of one block share a number.

    On the processor labels are left out, (0, K), where the weights tell them (``read_block_labels``).
    Other arguments: those of ``project_exact`` and ``project_on_cpu``.
    """
    if isinstance(order, BoundedOrder):
        return project_bounded(v_BK, order, kl, labeled, raise_unusable)
    if v_BK.is_cpu:
        return project_on_cpu(v_BK, order, lower, upper, kl, labeled, raise_unusable)
    return project_on_device(v_BK.detach(), order, lower, upper, kl, labeled)


class _Projection(Function):
    @staticmethod
    def forward(
        v_BK: Tensor, order: RowOrder | BoundedOrder, lower: float, upper: float, kl: bool
    ) -> tuple[Tensor, Tensor]:
        w_BK, block_BK = project_rows_exactly(v_BK, order, lower, upper, kl)
        return w_BK, block_BK.clone()  # labels that are left out are one tensor for all calls

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        v_BK, ctx.order, ctx.lower, ctx.upper, ctx.kl = inputs
        w_BK, block_BK = output
        ctx.mark_non_differentiable(block_BK)
        # v and w are saved as input and output: the second derivative of kl flows through both
        ctx.save_for_backward(v_BK, w_BK, block_BK)

    @staticmethod
    def backward(ctx: Any, grad_BK: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        v_BK, w_BK, block_BK = ctx.saved_tensors
        gradient_BK = pull_back_exact(grad_BK, v_BK, w_BK, block_BK, ctx.order, ctx.lower, ctx.upper, ctx.kl)
        return gradient_BK, None, None, None, None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[Any, ...],
        v_BK: Tensor,
        order: RowOrder | BoundedOrder,
        lower: float,
        upper: float,
        kl: bool,
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Rows are independent: the mapped axis becomes more of them."""
        v_NBK = v_BK.movedim(in_dims[0], 0)
        rows_BK, repeated = v_NBK.reshape(-1, v_NBK.shape[-1]), order.repeat_rows(info.batch_size)
        flat = _Projection.apply(rows_BK, repeated, lower, upper, kl)  # type: ignore[no-untyped-call]
        N, _, K = v_NBK.shape
        w_NBK, block_NBK = (x_BK.reshape(N, len(x_BK) // max(N, 1), K) for x_BK in flat)
        return (w_NBK, block_NBK), (0, 0)


class _EagerProjection(Function):
    """The same outside transforms, in the older form: the newer one reads its signature anew at each call, 50 us.

    Block labels are no output here: nobody but the backward looks at them.  rules: order, lower, upper and kl, in one,
    as torch looks at each argument several times.
    """

    @staticmethod
    def forward(
        ctx: Any,
        v_BK: Tensor,
        rules: tuple[RowOrder | BoundedOrder, float, float, bool],
        raise_unusable: RaiseUnusable | None,
    ) -> Tensor:
        w_BK, ctx.block_BK = project_rows_exactly(v_BK, *rules, True, raise_unusable)
        ctx.rules = rules
        ctx.save_for_backward(v_BK, w_BK)
        return w_BK

    @staticmethod
    def backward(ctx: Any, grad_BK: Tensor) -> tuple[Tensor | None, ...]:
        v_BK, w_BK = ctx.saved_tensors
        return pull_back_exact(grad_BK, v_BK, w_BK, ctx.block_BK, *ctx.rules), None, None


def pull_back_exact(
    grad_BK: Tensor,
    v_BK: Tensor,
    w_BK: Tensor,
    block_BK: Tensor,
    order: RowOrder | BoundedOrder,
    lower: float,
    upper: float,
    kl: bool,
) -> Tensor:
    """Return the transposed Jacobian times grad, (B, K)."""
    plain = not (torch.is_grad_enabled() or are_transforms_active())
    if isinstance(order, BoundedOrder):
        return pull_back_bounded(grad_BK, v_BK, w_BK, block_BK, kl, plain and grad_BK.is_cpu)
    if plain and grad_BK.is_cpu:
        return pull_back_on_cpu(grad_BK, v_BK, w_BK, block_BK, order, lower, upper, kl)
    if plain and can_use_triton(grad_BK):
        return pull_back_on_triton(grad_BK, v_BK, w_BK, block_BK, lower, upper, kl)
    return pull_back_blocks(grad_BK, v_BK, w_BK, read_block_labels(w_BK, block_BK, order), lower, upper, kl)


def read_block_labels(w_BK: Tensor, block_BK: Tensor, order: RowOrder) -> Tensor:
    """Return block labels (B, K), int64: those kept, or where none need be, what the weights tell.

    On a chain a block is a run of equal weights; without orderings each teacher is its own.
    """
    if order.kind not in (FREE, CHAIN):
        return block_BK.long()
    place_K = torch.from_numpy(order.order_K).to(w_BK.device)
    if order.kind == FREE:
        return place_K.expand(w_BK.shape)
    return find_run_starts(w_BK.detach()[:, place_K])[:, place_K.argsort()]


def pull_back_blocks(
    grad_BK: Tensor, v_BK: Tensor, w_BK: Tensor, block_BK: Tensor, lower: float, upper: float, kl: bool
) -> Tensor:
    """Return the transposed Jacobian times grad, (B, K), in tensor operations; it can be differentiated."""
    free_BK = (w_BK > lower) & (w_BK < upper)
    if not kl:
        pooled_BK = torch.where(free_BK, average_within_blocks(grad_BK, block_BK), 0.0)
        mean_B1 = pooled_BK.sum(dim=-1, keepdim=True) / free_BK.sum(dim=-1, keepdim=True).clamp_min(1)
        return torch.where(free_BK, pooled_BK - mean_B1, 0.0)
    mass_BK = torch.where(free_BK, w_BK, 0.0)
    total_B1 = mass_BK.sum(dim=-1, keepdim=True)
    total_B1 = torch.where(total_B1 > 0, total_B1, 1.0)
    mean_B1 = (mass_BK * grad_BK).sum(dim=-1, keepdim=True) / total_B1
    return average_within_blocks(mass_BK * (grad_BK - mean_B1), block_BK) / v_BK
