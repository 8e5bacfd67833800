"""The threshold that makes clipped scores sum to one, in tensor operations that never wait for the device.

    euclidean   clip(x - tau, lower, upper)            kl   clip(exp(z - tau), lower, upper)

Rows come in descending order, so the capped ones, which stand on the upper bound, come first, and the held ones, on the
lower bound, last.  Place i is capped if the row sums to less than one at the threshold where i leaves the upper bound,
and held if it sums to more at the threshold where i reaches the lower one.  Bisection over the places finds both
numbers in log2(K) sums of the row, with no temporary larger than it; for the free ones between there is a closed form.

Scores enter as differences to another score of the row, so large ones cost no digits.  The last operation is the clip,
which keeps bounds, ties and the order of scores exactly.

Source: Held, Wolfe and Crowder 1974 (sums at breakpoints).  Axes: B rows, K teachers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_CORRECTIONS = 2  # the first takes away what rounding has left of the sum, the second what it has left of that


def shift_to_sum(x_BK: Tensor, lower: float, upper: float) -> Tensor:
    """Return clip(x - tau, lower, upper) with the tau that makes rows sum to one; rows that do already, as they are.

    x_BK: finite, each row in descending order.  lower, upper: numbers of its dtype.
    """
    K, room = x_BK.shape[-1], upper - lower

    def sum_apart(place_B1: Tensor, least: float, most: float) -> Tensor:
        """Return what rows have beyond the weight of the one at a place, K times, where that just leaves a bound."""
        return (x_BK - x_BK.gather(-1, place_B1)).clamp(least, most).sum(dim=-1, keepdim=True)

    capped_B1 = _count_first(lambda place_B1: sum_apart(place_B1, -room, 0.0) < 1 - K * upper, x_BK)
    above_B1 = _count_first(lambda place_B1: sum_apart(place_B1, 0.0, room) <= 1 - K * lower, x_BK)
    # relative to the first that is not capped, from which no free one is far: further is all the same
    apart_BK = (x_BK - x_BK.gather(-1, capped_B1.clamp_max(K - 1))).clamp(-1.0, 1.0)
    place_K = torch.arange(K, device=x_BK.device)
    free_BK = (place_K >= capped_B1) & (place_K < above_B1)
    count_B1 = above_B1 - capped_B1
    shift_B1 = 1 - K * lower - room * capped_B1 - (apart_BK * free_BK).sum(dim=-1, keepdim=True)
    # none is free: that first one is held, unless all are capped
    shift_B1 = torch.where(count_B1 > 0, shift_B1 / count_B1.clamp_min(1), torch.where(capped_B1 < K, 0.0, room))
    shift_B1 = shift_B1 + lower
    w_BK = (apart_BK + shift_B1).clamp(lower, upper)
    for _ in range(_CORRECTIONS):
        count_B1 = ((w_BK > lower) & (w_BK < upper)).sum(dim=-1, keepdim=True)
        shift_B1 = shift_B1 - (w_BK.sum(dim=-1, keepdim=True) - 1) / count_B1.clamp_min(1)
        w_BK = (apart_BK + shift_B1).clamp(lower, upper)
    excess_B1 = (x_BK.sum(dim=-1, keepdim=True) - 1).abs()
    conforms_B1 = (x_BK[:, :1] <= upper) & (x_BK[:, -1:] >= lower) & (excess_B1 <= K * torch.finfo(x_BK.dtype).eps / 2)
    return torch.where(conforms_B1, x_BK, w_BK)


def scale_to_sum(z_BK: Tensor, lower: float, upper: float) -> Tensor:
    """Return clip(exp(z - tau), lower, upper) with the tau that makes rows sum to one.

    z_BK: finite, each row in descending order.  lower, upper: numbers of its dtype.
    """
    K, least = z_BK.shape[-1], torch.finfo(z_BK.dtype).tiny

    def ratios_to(place_B1: Tensor) -> Tensor:
        return (z_BK - z_BK.gather(-1, place_B1)).exp()

    def sum_at(place_B1: Tensor, bound: float) -> Tensor:
        return (ratios_to(place_B1) * bound).clamp(lower, upper).sum(dim=-1, keepdim=True)

    capped_B1 = _count_first(lambda place_B1: sum_at(place_B1, upper) < 1, z_BK)
    above_B1 = _count_first(lambda place_B1: sum_at(place_B1, lower) <= 1, z_BK) if lower > 0 else K
    y_BK = ratios_to(capped_B1.clamp_max(K - 1))
    place_K = torch.arange(K, device=z_BK.device)
    free_BK = (place_K >= capped_B1) & (place_K < above_B1)
    mass_B1 = torch.where(free_BK, y_BK, 0.0).sum(dim=-1, keepdim=True)
    rest_B1 = 1 - upper * capped_B1 - lower * (K - above_B1)
    whole_B1 = torch.where(capped_B1 < K, lower, upper)
    y_BK = y_BK * torch.where(mass_B1 > 0, rest_B1 / mass_B1.clamp_min(least), whole_B1).clamp_min(least)
    for _ in range(_CORRECTIONS):
        free_BK = (y_BK > lower) & (y_BK < upper)
        rest_B1 = 1 - torch.where(free_BK, 0.0, y_BK.clamp(lower, upper)).sum(dim=-1, keepdim=True)
        mass_B1 = torch.where(free_BK, y_BK, 0.0).sum(dim=-1, keepdim=True)
        usable_B1 = (mass_B1 > 0) & (rest_B1 > 0)
        # nothing is left for the free ones when one weight has rounded up to the whole: then all give way alike
        whole_B1 = y_BK.clamp(lower, upper).sum(dim=-1, keepdim=True)
        scale_B1 = torch.where(usable_B1, rest_B1 / torch.where(usable_B1, mass_B1, 1.0), 1 / whole_B1.clamp_min(1))
        y_BK = y_BK * scale_B1
    return y_BK.clamp(lower, upper)


def _count_first(holds: Callable[[Tensor], Tensor], x_BK: Tensor) -> Tensor:
    """Return for how many of a row's first places a condition holds, (B, 1), which holds for no place after them.

    holds: takes one place of each row, (B, 1), and says whether it holds there.
    """
    B, K = x_BK.shape
    count_B1 = torch.zeros(B, 1, dtype=torch.int64, device=x_BK.device)
    step = 1 << (K.bit_length() - 1)
    while step:
        more_B1 = count_B1 + step
        count_B1 = torch.where(holds((more_B1 - 1).clamp_max(K - 1)) & (more_B1 <= K), more_B1, count_B1)
        step //= 2
    return count_B1
