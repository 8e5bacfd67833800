"""The threshold that makes clipped scores sum to one.

    euclidean   clip(x - tau, lower, upper)            kl   clip(exp(z - tau), lower, upper)

Each entry sits at `upper` until tau passes one breakpoint, falls, and sits at `lower` from another on.  The sum
decreases in tau, so its values at the sorted breakpoints give the segment that holds 1, and within the segment tau has
a closed form.  Far from zero, where floats lie further apart than the bounds, breakpoints run into each other; so
scores are first moved, by differences, to the breakpoint just before the root, where they are of the size of weights.

The last operation is the clip, which keeps bounds, ties and the order of scores exactly.  Axes: B rows, K teachers,
N = 2K breakpoints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class _Segment(NamedTuple):
    """Neighbouring breakpoints (B, 1), the entries free between them (B, K), and what these must sum to (B, 1)."""

    low: Tensor
    high: Tensor
    free: Tensor
    rest: Tensor


def shift_to_sum(x_BK: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return clip(x - tau, lower, upper) with the tau that makes rows sum to one.

    x_BK: finite, each row in descending order.  lower, upper: scalars.
    """
    near_BK = _move_to_last_break(x_BK, lower, upper)
    return (near_BK - _euclidean_threshold(near_BK, lower, upper)).clamp(lower, upper)


def scale_to_sum(z_BK: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return clip(exp(z - tau), lower, upper) with the tau that makes rows sum to one.  lower, upper: scalars."""
    y_BK = (z_BK - _kl_threshold(z_BK, lower, upper)).exp()
    for _ in range(2):
        free_BK = (y_BK > lower) & (y_BK < upper)
        rest_B1 = 1 - torch.where(free_BK, 0.0, y_BK.clamp(lower, upper)).sum(dim=-1, keepdim=True)
        mass_B1 = torch.where(free_BK, y_BK, 0.0).sum(dim=-1, keepdim=True)
        usable_B1 = (mass_B1 > 0) & (rest_B1 > 0)
        # nothing is left for the free ones when one weight has rounded up to the whole: then all give way alike
        whole_B1 = y_BK.clamp(lower, upper).sum(dim=-1, keepdim=True)
        scale_B1 = torch.where(usable_B1, rest_B1 / torch.where(usable_B1, mass_B1, 1.0), 1 / whole_B1.clamp_min(1))
        y_BK = y_BK * scale_B1
    return y_BK.clamp(lower, upper)


def _move_to_last_break(x_BK: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return x - t with t the last breakpoint at which rows sum to at least one.  x: rows in descending order."""
    x_B1K, x_BK1 = x_BK[:, None, :], x_BK[:, :, None]
    # differences of scores come first: they are exact where it matters, whatever the size of the scores
    apart_BKK = x_B1K - x_BK1
    moved_BNK = torch.cat([apart_BKK + upper, apart_BKK + lower], dim=1)
    sums_BN = moved_BNK.clamp(lower, upper).sum(dim=-1)
    enough_BN = torch.where(sums_BN >= 1, sums_BN, torch.inf)
    # where the sum stays level above one it next falls at an upper break, and the largest score's comes first here
    place_N = torch.arange(sums_BN.shape[-1], device=x_BK.device)
    least_BN = enough_BN == enough_BN.amin(dim=-1, keepdim=True)
    last_B = torch.where(least_BN, place_N, place_N[-1]).amin(dim=-1)
    near_BK = moved_BNK.gather(1, last_B[:, None, None].expand(-1, 1, x_BK.shape[-1]))[:, 0]
    far = torch.finfo(x_BK.dtype).max / 4
    return near_BK.clamp(-far, far)  # the largest floats may lie infinitely far apart


def _euclidean_threshold(x_BK: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    breaks_BN = torch.cat([x_BK - upper, x_BK - lower], dim=-1).sort(dim=-1).values
    sums_BN = (x_BK[:, None, :] - breaks_BN[:, :, None]).clamp(lower, upper).sum(dim=-1)
    at = _find_segment(breaks_BN, sums_BN, x_BK - upper, x_BK - lower, lower, upper)
    count_B1 = at.free.sum(dim=-1, keepdim=True)
    # relative to `low`, which is of the size of the free scores: their sum then loses no digit
    above_B1 = torch.where(at.free, x_BK - at.low, 0.0).sum(dim=-1, keepdim=True)
    step_B1 = (above_B1 - at.rest) / count_B1.clamp_min(1)
    return torch.where(count_B1 > 0, (at.low + step_B1).clamp(at.low, at.high), at.low)


def _kl_threshold(z_BK: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    # beyond this tau every entry is at most 1/K, so the root is not there; it stands in for log(0) = -inf
    last_B1 = z_BK.amax(dim=-1, keepdim=True) + torch.tensor(float(z_BK.shape[-1])).log() + 1
    at_upper_BK = (z_BK - upper.log()).minimum(last_B1)
    at_lower_BK = (z_BK - lower.log()).minimum(last_B1)
    breaks_BN = torch.cat([at_upper_BK, at_lower_BK], dim=-1).sort(dim=-1).values
    sums_BN = (z_BK[:, None, :] - breaks_BN[:, :, None]).exp().clamp(lower, upper).sum(dim=-1)
    at = _find_segment(breaks_BN, sums_BN, at_upper_BK, at_lower_BK, lower, upper)
    tiny = torch.finfo(z_BK.dtype).tiny
    mass_B1 = torch.where(at.free, (z_BK - at.low).exp(), 0.0).sum(dim=-1, keepdim=True)
    tau_B1 = at.low + mass_B1.clamp_min(tiny).log() - at.rest.clamp_min(tiny).log()
    return torch.where(mass_B1 > 0, tau_B1.clamp(at.low, at.high), at.low)


def _find_segment(
    breaks_BN: Tensor, sums_BN: Tensor, at_upper_BK: Tensor, at_lower_BK: Tensor, lower: Tensor, upper: Tensor
) -> _Segment:
    """Find neighbouring breakpoints whose sums enclose 1; a row whose sum never reaches 1 gets an end, twice."""
    last = breaks_BN.shape[-1] - 1
    index_B1 = (sums_BN >= 1).sum(dim=-1, keepdim=True) - 1
    low_B1 = breaks_BN.gather(-1, index_B1.clamp(0, last))
    high_B1 = torch.where(index_B1 < 0, low_B1, breaks_BN.gather(-1, (index_B1 + 1).clamp(0, last)))
    high_BK, low_BK = high_B1.expand_as(at_upper_BK), low_B1.expand_as(at_upper_BK)
    free_BK = (at_upper_BK <= low_BK) & (at_lower_BK >= high_BK) & (low_BK < high_BK)
    capped_BK = ~free_BK & (at_upper_BK >= high_BK)
    held_BK = torch.where(capped_BK, upper, lower)
    rest_B1 = 1 - torch.where(free_BK, 0.0, held_BK).sum(dim=-1, keepdim=True)
    return _Segment(low_B1, high_B1, free_BK, rest_B1)
