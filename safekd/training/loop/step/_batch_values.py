"""Constraint values from batches, on their way to the multipliers.

A batch that holds the share b of a split's examples gives, with sums and counts of its groups,

    measured      offset + factors . m,  m_g = mean of group g in the batch; where it has none of that group, the
                  running mean of the batches before
    surrogate     offset + factors . (sum_g / (b N_g)),  N_g = examples of group g in the split: unbiased, and so is
                  its gradient, also of groups that most batches lack

Factors of the worst mix are those of the running means: a minimum over means of few examples would be too low.
Axes: G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ....errors import InvalidInput
from ....safety import Constraint, GroupSums


@dataclass(frozen=True)
class BatchValueSettings:
    """Numbers of reading constraints from batches.

    Attributes:
        memory: Share of the running sums that stays from batch to batch: about ten batches, which hold some examples
            of a group that is a tenth of a batch's size in the split
            (``tests/safekd/training/test_trainer_groups.py``).
    """

    memory: float = 0.9


SETTINGS = BatchValueSettings()


class BatchValue:
    """One constraint, read from batch after batch of a split.

    Args:
        rule: The constraint.
        count_G: Examples of each of its groups in the split, (G,).
    """

    def __init__(self, rule: Constraint, count_G: Tensor) -> None:
        self.rule, self.count_G = rule, count_G
        # running sums of surrogates, measured values, and counts
        self._running = torch.zeros(3, len(count_G), dtype=torch.float64, device=count_G.device)
        self._fixed_G = (
            None if rule.gradient_depends_on_means else rule.gradient(torch.full_like(count_G, torch.nan), count_G)
        )

    def read(self, sums: GroupSums, share: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return g of the surrogate, which carries the gradient, g as measured, and whether the batch speaks of it.

        A constraint rests until each group was seen once.

        Args:
            sums: Of the batch.
            share: Of the split's examples that the batch holds.
        """
        if self._fixed_G is not None and len(self.count_G) == 1:
            return self._read_one_group(sums, share, self._fixed_G)
        values = sums.detach()
        fresh = torch.stack([values.surrogate_G, values.measured_G, values.count_G])
        if share < 1:
            usable = torch.isfinite(fresh).all(0) & (values.count_G > 0)
            memory = SETTINGS.memory
            self._running = torch.where(usable, memory * self._running + (1 - memory) * fresh, self._running)
        else:
            self._running = fresh
        surrogate_mean_G, measured_mean_G = self._running[:2] / self._running[2].clamp_min(1e-300)
        factor_G = surrogate_factor_G = self._fixed_G
        if factor_G is None or surrogate_factor_G is None:
            factor_G = self.rule.gradient(measured_mean_G, self.count_G)
            surrogate_factor_G = self.rule.gradient(surrogate_mean_G, self.count_G, surrogate=True)
        mean_G = torch.where(values.count_G > 0, values.means(), measured_mean_G)
        surrogate = self.rule.offset + (surrogate_factor_G * sums.surrogate_G / (share * self.count_G)).sum()
        measured = self.rule.offset + factor_G @ mean_G
        present = (values.count_G > 0).any() & (self._running[2] > 0).all()
        return self.rule.required - surrogate, self.rule.required - measured, present

    def state(self) -> Tensor:
        """Return what a continued run needs: the running sums."""
        return self._running

    def load_state(self, state: Tensor) -> None:
        """Go on from what ``state`` gave.

        Args:
            state: Of the same constraint.

        Raises:
            InvalidInput: It has another number of groups.
        """
        if state.shape != self._running.shape:
            raise InvalidInput(
                f"Running sums of '{self.rule.name}' have shape {tuple(state.shape)}; wanted "
                f"{tuple(self._running.shape)}."
            )
        self._running = state.to(self._running)

    def _read_one_group(self, sums: GroupSums, share: float, factor_G: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same for one group alone, which has nothing to remember; few operations, for it is most constraints."""
        needed = self.rule.required - self.rule.offset
        surrogate_G = needed - sums.surrogate_G * (factor_G / (share * self.count_G))
        measured_G = needed - factor_G * sums.measured_G / sums.count_G.clamp_min(1)
        return surrogate_G[0], measured_G[0], sums.count_G[0] > 0
