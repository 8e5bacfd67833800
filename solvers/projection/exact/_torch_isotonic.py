"""Isotonic regression of sorted tiers in tensor operations that never wait for the device.

    minimize |x - v|^2   subject to   x_0 >= x_1 >= ... >= x_(K-1)

Scores ranked into tiers become such a chain once sorted by (tier, value), both descending.  Runs of up to 8 places are
pooled by the formula

    x_i = min over a <= i of max over e >= i of mean(v_a .. v_e)   (Robertson, Wright and Dykstra 1988, 1.4.4),

column by column.  Then runs are put together two by two.  Where falling halves l and r meet in the wrong order, one
block joins them.  Its value c lowers what is above it in r by as much as it raises what is below it in l, hence place i
of l belongs to it just if

    sum over l of max(l_i - l_k, 0) < sum over r of max(r_k - l_i, 0),

a place of r if the sums compare the other way, and bisection over the places finds where it begins and ends.  No
temporary is larger than the rows, and log2(K) rounds do the whole.  Sums are of differences, or of one block's scores
alone, so a large score does not cost the digits of others.

Axes: B rows, K teachers in sorted order, S runs, or pairs of halves, H places of one.
"""

from __future__ import annotations

import torch
from torch import Tensor

_RUN = 8  # places pooled column by column, three operations for each pair of them


def sort_rows_by_tier(v_BK: Tensor, tier_BK: Tensor | None) -> Tensor:
    """Return, for each row, the places of its scores in descending (tier, value)."""
    by_value_BK = v_BK.argsort(dim=-1, descending=True, stable=True)
    if tier_BK is None:
        return by_value_BK
    by_tier_BK = tier_BK.gather(-1, by_value_BK).argsort(dim=-1, descending=True, stable=True)
    return by_value_BK.gather(-1, by_tier_BK)


def regress_nonincreasing(v_BK: Tensor) -> Tensor:
    """Return the nonincreasing sequence nearest to each row of ``v_BK``, nonincreasing to the last bit."""
    B, K = v_BK.shape
    half = min(K, _RUN)
    P = half if half == K else 1 << (K - 1).bit_length()
    shrink = 0.5 ** P.bit_length()  # a power of two changes no digit, and keeps sums of the largest floats finite
    x_BP = v_BK * shrink
    if P > K:
        x_BP = torch.cat([x_BP, x_BP.amin(dim=-1, keepdim=True).expand(B, P - K)], dim=-1)
    x_BSH = _pool_columns(x_BP.reshape(-1, half)).reshape(B, -1, half)
    while half < P:
        left_BSH, right_BSH = _join_halves(x_BSH[:, ::2], x_BSH[:, 1::2])
        half *= 2
        x_BSH = torch.cat([left_BSH, right_BSH], dim=-1)
    return x_BSH.reshape(B, P)[:, :K] / shrink


def _pool_columns(x_SH: Tensor) -> Tensor:
    """Return the regression of short runs: from place to place the minimum is over more, the maximum over less."""
    columns = x_SH.T.contiguous().unbind(0)
    pooled: list[Tensor] = []
    for a in range(len(columns)):
        total, means = columns[a], [columns[a]]
        for e in range(a + 1, len(columns)):
            total = total + columns[e]
            means.append(total / (e - a + 1))
        best = means[-1]
        for e in range(len(columns) - 1, a - 1, -1):
            best = best.maximum(means[e - a])
            if a == 0:
                pooled.insert(0, best)
            else:
                pooled[e] = pooled[e].minimum(best)
    return torch.stack(pooled, dim=-1)


def _join_halves(left_BSH: Tensor, right_BSH: Tensor) -> tuple[Tensor, Tensor]:
    """Return falling halves of falling rows, given halves that fall each for itself."""
    H = left_BSH.shape[-1]
    first_BS1 = torch.full_like(left_BSH[..., :1], H - 1, dtype=torch.int64)  # of l, and the last of r, in the block
    last_BS1 = torch.zeros_like(first_BS1)
    step = H // 2
    while step:
        at_BS1 = left_BSH.gather(-1, first_BS1 - step)
        first_BS1 = first_BS1 - step * (_push_up(left_BSH, right_BSH, at_BS1) < 0)
        at_BS1 = right_BSH.gather(-1, last_BS1 + step)
        last_BS1 = last_BS1 + step * (_push_up(left_BSH, right_BSH, at_BS1) > 0)
        step //= 2
    place_H = torch.arange(H, device=left_BSH.device)
    in_left_BSH, in_right_BSH = place_H >= first_BS1, place_H <= last_BS1
    total_BSH = torch.where(in_left_BSH, left_BSH, 0.0) + torch.where(in_right_BSH, right_BSH, 0.0)
    mean_BS1 = total_BSH.sum(dim=-1, keepdim=True) / (H - first_BS1 + last_BS1 + 1)
    wrong_BS1 = left_BSH[..., -1:] < right_BSH[..., :1]
    raised_BSH = torch.where(in_left_BSH, mean_BS1, left_BSH.maximum(mean_BS1))
    lowered_BSH = torch.where(in_right_BSH, mean_BS1, right_BSH.minimum(mean_BS1))
    return torch.where(wrong_BS1, raised_BSH, left_BSH), torch.where(wrong_BS1, lowered_BSH, right_BSH)


def _push_up(left_BSH: Tensor, right_BSH: Tensor, at_BS1: Tensor) -> Tensor:
    """Return by how much a block of value ``at`` would raise l more than it lowers r, in all."""
    raised_BS1 = (at_BS1 - left_BSH).clamp_min(0).sum(dim=-1, keepdim=True)
    return raised_BS1 - (right_BSH - at_BS1).clamp_min(0).sum(dim=-1, keepdim=True)


def find_blocks(x_BK: Tensor, tier_BK: Tensor | None) -> Tensor:
    """Return for each sorted place the first place of its block.

    A block is a run of equal values that spans several tiers: its members were pooled, and move together.  Equal
    values within one tier are free of each other, and each is a block of its own.
    """
    place_BK = torch.arange(x_BK.shape[-1], device=x_BK.device).expand(x_BK.shape)
    if tier_BK is None:
        return place_BK
    first_BK = find_run_starts(x_BK)
    other_tier_BK = tier_BK != tier_BK.gather(-1, first_BK)
    spans_BK = torch.zeros_like(place_BK).scatter_add(-1, first_BK, other_tier_BK.to(place_BK.dtype))
    return torch.where(spans_BK.gather(-1, first_BK) > 0, first_BK, place_BK)


def find_run_starts(x_BK: Tensor) -> Tensor:
    """Return for each place the first place of the run of equal values around it."""
    place_BK = torch.arange(x_BK.shape[-1], device=x_BK.device).expand(x_BK.shape)
    starts_BK = torch.ones_like(x_BK, dtype=torch.bool)
    starts_BK[:, 1:] = x_BK[:, 1:] != x_BK[:, :-1]
    return (place_BK * starts_BK).cummax(dim=-1).values


def average_within_blocks(x_BK: Tensor, block_BK: Tensor) -> Tensor:
    """Return each entry replaced by the mean of its block; differentiable, and symmetric as a matrix."""
    zero_BK = torch.zeros_like(x_BK)
    sums_BK = zero_BK.scatter_add(-1, block_BK, x_BK)
    counts_BK = zero_BK.scatter_add(-1, block_BK, torch.ones_like(x_BK))
    return (sums_BK / counts_BK.clamp_min(1)).gather(-1, block_BK)
