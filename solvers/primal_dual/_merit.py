"""Whether primal steps still work: the merit function ``f + lambda . e`` at the multipliers of the moment.

A primal step that suits its problem lowers that sum, whatever the multipliers did before it.  Where the step is too
long for so much weight (gradient descent at .1 on a transformer), objective and violations rise together, and a
controller that answers a larger violation with more weight makes it worse, without end.  So changes of the merit
function are summed up, each at the multipliers of its step, old ones forgotten:

    rise  <-  (1 - 1 / memory) rise + (f - f before) + lambda . (e - e before)

Where the rise is a large share of what violations as large as their ranges weigh, no multiplier may grow; each falls
by the share that the integral part takes a step, until the steps work again.  Axes: C rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ._gains import GainSettings


@dataclass(frozen=True)
class MeritCheckSettings:
    """Numbers of the check, the same for every problem.

    ``python -m benchmarks.primal_dual --families cells --draw 2 --only SGD`` notices them.

    Attributes:
        excess: Share of the weighted ranges above which a rise is no noise.  At 1 two of 24 cells diverge as they do
            without the check; at .1 noise holds multipliers back, and thresholds are missed by .01 on the way.
    """

    excess: float = 0.3


MERIT_SETTINGS = MeritCheckSettings()


class MeritState(NamedTuple):
    """What is kept from step to step, float64 scalars: the objective, smoothed as violations are, and the rise."""

    objective: Tensor
    rise: Tensor

    @classmethod
    def fresh(cls, device: torch.device | str) -> MeritState:
        """Return what a run begins with."""
        none = torch.zeros((), dtype=torch.float64, device=device)
        return cls(none, none)

    def updated(
        self, objective: Tensor, multiplier_C: Tensor, change_C: Tensor, keep: float | None, settings: GainSettings
    ) -> MeritState:
        """Return the state after a step at which violations changed by ``change_C``.

        keep: share of the past in the smoothed objective; None at the first step, which changes nothing.
        """
        now = objective.double()
        if keep is None:
            return MeritState(now, self.rise)
        if keep:
            now = torch.lerp(now, self.objective, keep)
        gained = torch.dot(multiplier_C, change_C) + (now - self.objective)
        return MeritState(now, torch.add(gained, self.rise, alpha=1 - 1 / settings.memory))

    def is_excessive(self, size_C: Tensor, range_C: Tensor) -> Tensor:
        """Tell, as a boolean scalar, whether the rise says that primal steps are too long for these multipliers."""
        return self.rise > MERIT_SETTINGS.excess * torch.dot(size_C, range_C)


def hold_back(new_C: Tensor, old_C: Tensor, settings: GainSettings) -> Tensor:
    """Return new multipliers, no larger than the old ones less what the integral part takes in a step."""
    most_C = old_C.abs() * (1 - 1 / settings.integral)
    return torch.maximum(torch.minimum(new_C, most_C), -most_C)
