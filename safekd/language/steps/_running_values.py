"""Constraint values of a step, from sums over its positions.

A step with sums and counts of a constraint's groups gives ``offset + factors . m``, where m_g is the mean of group g in
the step; a group that the step has no position of keeps the running mean of the steps before.  A constraint rests until
each of its groups was seen.  Axes: G groups, M constraints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...safety import Constraint, GroupSums


@dataclass(frozen=True)
class StepValueSettings:
    """Numbers of reading constraints from steps.

    Attributes:
        memory: Share of the running sums that stays from step to step, as in ``safekd.training``.
    """

    memory: float = 0.9


SETTINGS = StepValueSettings()


@dataclass(frozen=True)
class StepValue:
    """What a step says of a constraint.

    Attributes:
        surrogate: g of the surrogate, a float64 scalar: required less what the surrogate gives.
        measured: g as measured.
        present: Whether the step speaks of it.
    """

    surrogate: Tensor
    measured: Tensor
    present: Tensor


class RunningValue:
    """One constraint, read from step after step.

    Args:
        rule: The constraint.
        device: Where sums are.
    """

    def __init__(self, rule: Constraint, device: torch.device) -> None:
        self.rule = rule
        groups = sum(average.size for _, average in rule.parts)
        # running sums of surrogates, measured values, and counts
        self._running = torch.zeros(3, groups, dtype=torch.float64, device=device)

    def read(self, sums: GroupSums) -> StepValue:
        """Return what a step says.

        Args:
            sums: Over all its positions.
        """
        fresh = torch.stack([sums.surrogate_G, sums.measured_G, sums.count_G]).detach()
        usable_G = torch.isfinite(fresh).all(0) & (sums.count_G > 0)
        memory = SETTINGS.memory
        self._running = torch.where(usable_G, memory * self._running + (1 - memory) * fresh, self._running)
        surrogate_G, measured_G = (
            torch.where(sums.count_G > 0, now / sums.count_G.clamp_min(1), before)
            for now, before in ((fresh[0], self._means[0]), (fresh[1], self._means[1]))
        )
        surrogate = self.rule.offset + self.factors(surrogate=True) @ surrogate_G
        measured = self.rule.offset + self.factors() @ measured_G
        present = (sums.count_G > 0).any() & (self._running[2] > 0).all()
        return StepValue(self.rule.required - surrogate, self.rule.required - measured, present)

    def factors(self, *, surrogate: bool = False) -> Tensor:
        """Return what each group's mean counts in the value, (G,): the worst mix's are those of the running means.

        Args:
            surrogate: Whether those that training follows are asked for.
        """
        means_G = self._means[0 if surrogate else 1]
        return self.rule.gradient(means_G, self._running[2].clamp_min(1e-300), surrogate=surrogate)

    def state(self) -> Tensor:
        """Return what a continued run needs: the running sums, (3, G)."""
        return self._running.clone()

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

    @property
    def _means(self) -> Tensor:
        return self._running[:2] / self._running[2].clamp_min(1e-300)
