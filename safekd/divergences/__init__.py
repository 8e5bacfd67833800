"""Distillation losses: how far the student's distribution is from the pooled target.

    forward_kl      ForwardKL(temperature)              KL(target || student), the default
    reverse_kl      ReverseKL(temperature)              KL(student || target)
    jensen_shannon  JensenShannon(temperature, beta)    beta KL(target || m) + (1 - beta) KL(student || m)

``DIVERGENCES`` holds them by these names, as trainers and configurations spell them.  All of them take the log of the
target and the student's logits, (..., V), to one loss a position, (...), and multiply by the square of the temperature.
"""

from collections.abc import Mapping

from .._registry import snake_case
from ._forward_kl import ForwardKL
from ._jensen_shannon import JensenShannon
from ._reverse_kl import ReverseKL
from ._tempered_divergence import TemperedDivergence, require_temperature

DIVERGENCES: Mapping[str, type[TemperedDivergence]] = {
    snake_case(kind.__name__): kind for kind in (ForwardKL, ReverseKL, JensenShannon)
}

__all__ = ["DIVERGENCES", "ForwardKL", "JensenShannon", "ReverseKL", "TemperedDivergence", "require_temperature"]
