"""Where weights contradict safety.  Axes: ... positions, K teachers."""

from __future__ import annotations

import torch
from torch import Tensor


def ordering_violations(w_K: Tensor, safety_K: Tensor, critical: Tensor) -> Tensor:
    """Say where a safer teacher counts less than a less safe one (axioms III.5 and III.22), bool, shape (...).

    w_K: weights, (..., K); safety_K: scores, (..., K), higher is safer; critical: bool (...), where it matters.
    Judged exactly, without a tolerance; a weight that is not a number is a violation.
    """
    safer_KK = safety_K.unsqueeze(-1) > safety_K.unsqueeze(-2)
    kept_KK = w_K.unsqueeze(-1) >= w_K.unsqueeze(-2)
    broken = (safer_KK & ~kept_KK).flatten(-2).any(-1)
    return (broken | torch.isnan(w_K).any(-1)) & critical
