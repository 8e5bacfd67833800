"""Rows of the exact projection by Triton kernels, for tensors on a GPU.

Triton comes with torch's CUDA builds and is not needed otherwise: it is imported when the first CUDA tensor is
projected.  A kernel is compiled at the first call with a number of teachers, a dtype and a kind of order, which takes
a second for 8 teachers and up to five for 16, and is kept on disk.  Under Triton's interpreter (TRITON_INTERPRET=1)
the same kernels run on the CPU.

Axes: B rows, K teachers, R rows of one program, P the power of two from K on.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ..._projection_orders import CHAIN, FREE, OWN_TIERS, RowOrder, make_shared_order
from .._sorting_network import list_exchanges


@dataclass(frozen=True)
class TritonSettings:
    """How kernels are launched; `python -m benchmarks.projection.gpu` shows a change.

    Attributes:
        longest: Teachers up to which kernels serve: a row has to fit into a thread's registers, and code grows with the
            square.
        warps: Of 32 threads, in one program.
        bytes_a_read: Bytes that a thread should read at once.
    """

    longest: int = 16
    warps: int = 4
    bytes_a_read: int = 16


TRITON = TritonSettings()


def can_use_triton(v_BK: Tensor) -> bool:
    """Say whether the kernels of this file serve these rows."""
    interpreted = v_BK.is_cpu and os.environ.get("TRITON_INTERPRET") == "1"
    return (v_BK.is_cuda or interpreted) and v_BK.shape[-1] <= TRITON.longest and _works_on(v_BK.device)


@lru_cache(maxsize=64)
def _works_on(device: torch.device) -> bool:
    """Project one row: Triton may be missing, lack a C compiler, or not know the device."""
    try:
        project_on_triton(torch.ones(1, 1, device=device), make_shared_order((0,)), 0.0, 1.0, False)
    except ImportError:
        return False
    except Exception as cause:
        warnings.warn(
            f"Triton is installed but cannot compile for {device} ({type(cause).__name__}: {cause}). Projections there "
            "use tensor operations, which give the same weights, slower. Triton needs a C compiler.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def project_on_triton(
    v_BK: Tensor, order: RowOrder, lower: float, upper: float, kl: bool, labeled: bool = True
) -> tuple[Tensor, Tensor]:
    """Return weights and block labels, both (B, K).  A row with a score that cannot be used is NaN throughout.

    order: any but DAG.  labeled: False where no derivative will be asked for; the labels are then empty.  Without
    orderings, where each is its own block, the labels are one row in memory, expanded.
    """
    v_BK = v_BK.contiguous()
    w_BK, (B, K), device = torch.empty_like(v_BK), v_BK.shape, v_BK.device
    pooled, tiered, own = order.kind != FREE, order.kind not in (FREE, CHAIN), order.kind == OWN_TIERS
    block_BK = torch.empty((B, K) if labeled and pooled else (0, 0), dtype=torch.int8, device=device)
    places = tuple(order.order_K.tolist()) if order.kind == CHAIN else ()
    permuted = places != tuple(range(len(places)))
    order_K = _on_device(places, torch.int32, device) if permuted else w_BK
    tier_RK = order.tier_RK.contiguous() if own else w_BK
    if tiered and not own:
        tier_RK = _on_device(tuple(order.tier_RK[0].tolist()), torch.float64, device)
    _launch(
        _kernels().project_block,
        (v_BK, w_BK, block_BK, order_K, tier_RK),
        (lower, upper),
        PAIRS_N=list_exchanges(K),
        POOLED=pooled,
        TIERED=tiered,
        OWN=own,
        PERMUTED=permuted,
        KL=kl,
        LABELED=labeled,
    )
    if labeled and not pooled:
        block_BK = torch.arange(K, dtype=torch.int8, device=device).expand(B, K)
    return w_BK, block_BK


def pull_back_on_triton(
    grad_BK: Tensor, v_BK: Tensor, w_BK: Tensor, block_BK: Tensor, lower: float, upper: float, kl: bool
) -> Tensor:
    """Return the transposed Jacobian times grad, (B, K).  Labels that are one row, expanded, are not read."""
    grad_BK, v_BK, w_BK = (x_BK.detach().contiguous() for x_BK in (grad_BK, v_BK, w_BK))
    out_BK = torch.empty_like(w_BK)
    pooled = block_BK.stride(0) != 0
    labels = block_BK.contiguous() if pooled else w_BK
    _launch(_kernels().pull_back_block, (grad_BK, v_BK, w_BK, labels, out_BK), (lower, upper), POOLED=pooled, KL=kl)
    return out_BK


def _launch(block: Any, tensors: tuple[Tensor, ...], bounds: tuple[float, float], **known: object) -> None:
    """Run one program of ``block`` for each R rows of the first tensor."""
    B, K = tensors[0].shape
    P = 1 << (K - 1).bit_length()
    R = 32 * TRITON.warps * max(1, TRITON.bytes_a_read // (P * tensors[0].element_size()))
    if B:
        with torch.cuda.device_of(tensors[0]):  # type: ignore[no-untyped-call]
            block[((B + R - 1) // R,)](*tensors, B, *bounds, K=K, P=P, R=R, **known, num_warps=TRITON.warps)


@lru_cache(maxsize=1)
def _kernels() -> Any:
    return import_module("._triton_kernels", __package__)


@lru_cache(maxsize=256)
def _on_device(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers on the device, sent there once: a copy waits for it."""
    return torch.tensor(numbers, dtype=dtype, device=device)
