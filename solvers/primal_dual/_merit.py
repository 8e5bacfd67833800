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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ._gains import GainSettings
from ._native_arrays import Array, namespace_of


@dataclass(frozen=True)
class MeritCheckSettings:
    """Numbers of the check, the same for every problem.

    ``python -m benchmarks.primal_dual --families cells --draw 2 --only SGD`` notices them.

    Attributes:
        excess: Share of the weighted ranges above which a rise is no noise.  In the cell "transformer, digits, batch
            64, SGD 0.1, far, 5" a run at 1 diverges as it does without the check; at .3 and .1 it ends at losses of
            .242 and .249.
    """

    excess: float = 0.3


MERIT_SETTINGS = MeritCheckSettings()


Scalar = float | Tensor  # a number on the processor, where it costs nothing to look; elsewhere a float64 tensor


class MeritState(NamedTuple):
    """What is kept from step to step: the objective, smoothed as violations are, and the rise."""

    objective: Scalar = 0.0
    rise: Scalar = 0.0

    def advance(self, objective: Tensor, keep: Scalar | None, settings: GainSettings) -> MeritState:
        """Return the state after a step, but for what the rows add to the rise.

        keep: share of the past in the smoothed objective; None at the first step, at which nothing has changed.
        """
        now = _read_scalar(objective)
        if keep is None:
            return MeritState(now, self.rise)
        now = keep * self.objective + (1 - keep) * now
        return MeritState(now, (1 - 1 / settings.memory) * self.rise + (now - self.objective))

    def add_rows(self, multiplier_C: Array, change_C: Array) -> MeritState:
        """Return the state with what changes of the violations add to the rise."""
        return self._replace(rise=self.rise + _multiply(multiplier_C, change_C))

    def is_excessive(self, weight_C: Array, range_C: Array) -> bool | Tensor:
        """Tell whether the rise says that primal steps are too long for these multipliers."""
        return self.rise > MERIT_SETTINGS.excess * _multiply(weight_C, range_C)

    def to_dict(self) -> dict[str, Tensor]:
        """Return it as float64 scalars."""
        return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in self._asdict().items()}

    @classmethod
    def from_dict(cls, state: Mapping[str, Tensor], device: torch.device) -> MeritState:
        """Return what ``to_dict`` gave, for an engine on a device."""
        return cls(*(_read_scalar(state[name].to(device)) for name in cls._fields))


def _read_scalar(value: Tensor) -> Scalar:
    return value.item() if value.is_cpu else value.double()


def _multiply(one_C: Array, other_C: Array) -> Scalar:
    product: Scalar = namespace_of(one_C).dot(one_C, other_C)
    return product if isinstance(product, Tensor) else float(product)


def hold_back(new_C: Array, old_C: Array, settings: GainSettings) -> Array:
    """Return new multipliers, no larger than the old ones less what the integral part takes in a step."""
    xp = namespace_of(new_C)
    most_C = abs(old_C) * (1 - 1 / settings.integral)
    return xp.maximum(xp.minimum(new_C, most_C), -most_C)
