"""Generalized Jensen-Shannon divergence.  Axes: ... positions, V classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._number_checks import is_number
from ..errors import InvalidInput
from ._tempered_divergence import Softened, TemperedDivergence


@dataclass(frozen=True)
class JensenShannon(TemperedDivergence):
    """``temperature^2 (beta KL(q || m) + (1 - beta) KL(p || m))`` with ``m = beta q + (1 - beta) p``; never infinite.

    q is the target, p the student, both softened.  ``beta`` is the target's share of the mixture: 0.5 is the symmetric
    divergence, at most log 2.  Divided by beta it tends to the forward divergence as beta goes to 0, divided by
    1 - beta to the reverse one as beta goes to 1; there, take ``ForwardKL`` or ``ReverseKL``.

    Attributes:
        temperature: T, above 0 and finite.
        beta: Share of the target in the mixture, above 0 and below 1.

    Raises:
        InvalidInput: A number is out of range.

    Source: generalized knowledge distillation, Agarwal et al. 2024.
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.beta) and 0 < self.beta < 1):
            raise InvalidInput(
                f"`beta` of JensenShannon is {self.beta!r}; wanted a share above 0 and below 1, such as 0.5. At 0 take "
                "ForwardKL, at 1 ReverseKL."
            )

    def _compare(self, target: Softened, student: Softened) -> Tensor:
        from_mixture = _divergence_from_mixture
        of_target = from_mixture(target, student, self.beta)
        return self.beta * of_target + (1 - self.beta) * from_mixture(student, target, 1 - self.beta)


def _divergence_from_mixture(own: Softened, other: Softened, share: float) -> Tensor:
    """Return ``KL(own || share own + (1 - share) other) = -E_own log(share + (1 - share) other / own)``, (...)."""
    gap_V, shift = own.log_ratio(other)
    log_ratio_V = -gap_V - shift.to(gap_V).unsqueeze(-1)
    share_V = torch.full_like(log_ratio_V, math.log(share))
    log_mixture_V = torch.logaddexp(share_V, log_ratio_V + math.log1p(-share))
    return -own.average(torch.where(own.is_zero, 0.0, log_mixture_V))
