"""Constraint values from batches, on their way to the multipliers.

A batch that holds the share b of a split's examples gives, with sums and counts of its groups,

    value as measured     offset + slopes . m,  m_g = mean of group g in the batch; where it has none of that group,
                          the running mean of the batches before
    value to follow       offset + slopes . (sum_g / (b N_g)),  N_g = examples of group g in the split: unbiased, and
                          so is its gradient, also of groups that most batches lack

Slopes of the worst mix are those of the running means: a minimum over means of few examples would be too low.
Axes: G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..safety import Constraint, GroupSums

_KEEP = 0.9  # of the running sums, from batch to batch


class BatchValue:
    """One constraint, read from batch after batch of a split with ``count_G`` examples in each group."""

    def __init__(self, rule: Constraint, count_G: Tensor) -> None:
        self.rule, self.count_G = rule, count_G
        self._kept = torch.zeros(3, len(count_G), dtype=torch.float64, device=count_G.device)  # smooth, exact, count
        self._fixed_G = (
            None if rule.gradient_depends_on_means else rule.gradient(torch.full_like(count_G, torch.nan), count_G)
        )

    def read(self, sums: GroupSums, share: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return g to follow, which carries the gradient, g as measured, and whether the batch says anything of it.

        share: of the split's examples that the batch holds.  A constraint rests until each group was seen once.
        """
        if self._fixed_G is not None and len(self.count_G) == 1:
            return self._of_one(sums, share, self._fixed_G)
        found = sums.detach()
        fresh = torch.stack([found.surrogate_G, found.measured_G, found.count_G])
        if share < 1:
            usable = torch.isfinite(fresh).all(0) & (found.count_G > 0)
            self._kept = torch.where(usable, _KEEP * self._kept + (1 - _KEEP) * fresh, self._kept)
        else:
            self._kept = fresh
        smooth_mean_G, exact_mean_G = self._kept[:2] / self._kept[2].clamp_min(1e-300)
        slope_G = followed_G = self._fixed_G
        if slope_G is None or followed_G is None:
            slope_G = self.rule.gradient(exact_mean_G, self.count_G)
            followed_G = self.rule.gradient(smooth_mean_G, self.count_G, surrogate=True)
        mean_G = torch.where(found.count_G > 0, found.means(), exact_mean_G)
        smooth = self.rule.offset + (followed_G * sums.surrogate_G / (share * self.count_G)).sum()
        exact = self.rule.offset + slope_G @ mean_G
        present = (found.count_G > 0).any() & (self._kept[2] > 0).all()
        return self.rule.required - smooth, self.rule.required - exact, present

    def _of_one(self, sums: GroupSums, share: float, slope_G: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same for one group alone, which has nothing to remember; few operations, for it is most constraints."""
        needed = self.rule.required - self.rule.offset
        surrogate_G = needed - sums.surrogate_G * (slope_G / (share * self.count_G))
        measured_G = needed - slope_G * sums.measured_G / sums.count_G.clamp_min(1)
        return surrogate_G[0], measured_G[0], sums.count_G[0] > 0
