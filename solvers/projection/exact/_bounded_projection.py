"""Exact projection with bounds that differ between teachers or rows, and with margins between tiers.

Rows go to compiled kernels (``_bounded_batch_kernels``), those of a device by way of the processor.

Gradients.  A block moves as one, or not at all where a bound holds it, be it another member's: labels say which.  Let
F be the entries of free blocks, A the averaging within blocks, u = v, for kl u = log v.  Members of a block differ by
their offsets, so one dw serves all.  euclidean: the block's value is a mean, H = 1.  kl: the sum of log w - u + tau
over the block is zero, hence H is the harmonic mean of its weights, their common value where no margin lies inside.

    dw = H (A du - <H, A du>_F / <H, 1>_F) on F

Axes: B rows, K teachers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._projection_inputs import RaiseUnusable
from .._projection_orders import BoundedOrder
from ._torch_isotonic import average_within_blocks
from .cpu_kernels._bounded_batch_kernels import project_bounded_rows, pull_back_bounded_rows
from .cpu_kernels._row_threads import run_over_rows


def project_bounded(
    v_BK: Tensor, order: BoundedOrder, kl: bool, labeled: bool = True, raise_unusable: RaiseUnusable | None = None
) -> tuple[Tensor, Tensor]:
    """Return weights and block labels, both (B, K), on v's device.  A row with a score that cannot be used is NaN.

    Labels: teachers of one block share a number n >= 0, or ~n where a bound holds the block.  labeled: False where
    no derivative will be asked for; the labels are then empty.  raise_unusable: called if there are such rows.
    Source: Best, Chakravarti and Ubhaya 2000 (pooling convex costs); Cominetti, Mascarenhas and Silva 2014 (Newton).
    """
    scores_BK = v_BK.detach().cpu().contiguous()
    w_BK = torch.empty_like(scores_BK)
    block_BK = torch.empty(v_BK.shape if labeled else (0, 0), dtype=torch.int16)
    scores, w, block = scores_BK.numpy(), w_BK.numpy(), block_BK.numpy()

    def run(start: int, stop: int) -> int:
        return project_bounded_rows(scores, *order.arrays, order.margin, kl, w, block, labeled, start, stop)

    if run_over_rows(run, *scores_BK.shape) and raise_unusable:
        raise_unusable()
    return w_BK.to(v_BK.device), block_BK.to(v_BK.device)


def pull_back_bounded(
    grad_BK: Tensor, v_BK: Tensor, w_BK: Tensor, block_BK: Tensor, kl: bool, compiled: bool
) -> Tensor:
    """Return the transposed Jacobian times grad, (B, K).

    compiled: by a kernel; else by tensor operations, which can be differentiated again.
    """
    if compiled:
        return _pull_back_compiled(grad_BK, v_BK, w_BK, block_BK, kl)
    free_BK, block_BK = block_BK >= 0, torch.where(block_BK >= 0, block_BK, ~block_BK).long()
    mass_BK = free_BK.to(grad_BK.dtype)
    if kl:
        mass_BK = mass_BK / average_within_blocks(1 / torch.where(free_BK, w_BK, 1.0), block_BK)
    total_B1 = mass_BK.sum(dim=-1, keepdim=True)
    mean_BK = average_within_blocks(grad_BK, block_BK)
    mean_B1 = (mass_BK * mean_BK).sum(dim=-1, keepdim=True) / torch.where(total_B1 > 0, total_B1, 1.0)
    gradient_BK = mass_BK * (mean_BK - mean_B1)
    return gradient_BK / v_BK if kl else gradient_BK


def _pull_back_compiled(grad_BK: Tensor, v_BK: Tensor, w_BK: Tensor, block_BK: Tensor, kl: bool) -> Tensor:
    out_BK = torch.empty_like(w_BK, memory_format=torch.contiguous_format)
    tensors = (grad_BK.detach(), v_BK.detach(), w_BK.detach(), block_BK, out_BK)
    grad, v, w, block, out = (x.contiguous().numpy() for x in tensors)

    def run(start: int, stop: int) -> int:
        pull_back_bounded_rows(grad, v, w, block, kl, out, start, stop)
        return 0

    run_over_rows(run, *grad_BK.shape)
    return out_BK
