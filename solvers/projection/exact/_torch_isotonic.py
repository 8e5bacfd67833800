"""Isotonic regression of sorted tiers, without a loop.

    minimise |x - v|^2   subject to   x_0 >= x_1 >= ... >= x_(K-1)

has the answer  x_i = min over a <= i of max over b >= i of mean(v_a .. v_b)  (Robertson, Wright and Dykstra 1988,
theorem 1.4.4).  Scores ranked into tiers become such a chain once sorted by (tier, value), both descending.
Sums start afresh at every a, so a large score does not cost the digits of the small ones after it.

Axes: B rows, K teachers in sorted order, (A, E) first and last place of an interval.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sort_rows_by_tier(v_BK: Tensor, tier_BK: Tensor | None) -> Tensor:
    """Return, for each row, the places of its scores in descending (tier, value)."""
    by_value_BK = v_BK.argsort(dim=-1, descending=True, stable=True)
    if tier_BK is None:
        return by_value_BK
    by_tier_BK = tier_BK.gather(-1, by_value_BK).argsort(dim=-1, descending=True, stable=True)
    return by_value_BK.gather(-1, by_tier_BK)


def regress_nonincreasing(v_BK: Tensor) -> Tensor:
    """Return the nonincreasing sequence nearest to each row of ``v_BK``, nonincreasing to the last bit."""
    K = v_BK.shape[-1]
    # a power of two changes no digit, and keeps sums of the largest floats finite
    shrink = 2.0 ** -math.ceil(math.log2(K))
    place_K = torch.arange(K, device=v_BK.device)
    inside_AE = place_K[:, None] <= place_K[None, :]
    length_AE = (place_K[None, :] - place_K[:, None] + 1).clamp_min(1).to(v_BK.dtype)
    zero = v_BK.new_zeros(())
    sums_BAE = torch.where(inside_AE, (v_BK * shrink)[:, None, :], zero).cumsum(dim=-1)
    means_BAE = torch.where(inside_AE, sums_BAE / (length_AE * shrink), -torch.inf)
    best_end_BAI = means_BAE.flip(-1).cummax(dim=-1).values.flip(-1)
    return torch.where(inside_AE, best_end_BAI, torch.inf).amin(dim=1).cummin(dim=-1).values


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
    return torch.where(starts_BK, place_BK, 0).cummax(dim=-1).values


def average_within_blocks(x_BK: Tensor, block_BK: Tensor) -> Tensor:
    """Return each entry replaced by the mean of its block; differentiable, and symmetric as a matrix."""
    zero_BK = torch.zeros_like(x_BK)
    sums_BK = zero_BK.scatter_add(-1, block_BK, x_BK)
    counts_BK = zero_BK.scatter_add(-1, block_BK, torch.ones_like(x_BK))
    return (sums_BK / counts_BK.clamp_min(1)).gather(-1, block_BK)
