"""Which values a counted measure can take.

The average of ``count`` zeros and ones is a multiple of 1/count, so asking for 0.75 of ten examples is asking for 0.8.
Posed so, the multiplier has a value at which it rests; posed at 0.75 it would rise below and fall above for ever.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..safety import SafetyConstraint


def attainable(rule: SafetyConstraint, count: Tensor) -> Tensor:
    """Return the least value at or above the threshold that ``count`` examples can average to, a float64 scalar.

    The threshold itself where the measure is not counted.
    """
    wanted = torch.full_like(count, rule.at_least, dtype=torch.float64)
    if not rule.measure.binary:
        return wanted
    return torch.ceil(wanted * count - 1e-9) / count.clamp_min(1)
