"""Forward Kullback-Leibler divergence.  Axes: ... positions, V classes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .._precision import shift_logits
from ._tempered_divergence import Softened, TemperedDivergence


@dataclass(frozen=True)
class ForwardKL(TemperedDivergence):
    """``temperature^2 KL(q^T || p^T)``, the distillation loss up to the target's constant entropy; mean-seeking.

    Infinite where the student leaves out a class that the target has.

    Attributes:
        temperature: T, above 0 and finite.

    Raises:
        InvalidInput: It is not.

    Source: Definition VI.1.
    """

    def _compare(self, target: Softened, student: Softened) -> Tensor:
        return target.divergence_from(student)

    def soften(self, log_q_V: Tensor) -> Tensor:
        """Return the softened target.

        Args:
            log_q_V: Log of the target, (..., V).

        Returns:
            Probabilities, (..., V), float32 or wider.
        """
        shifted_V, total = shift_logits(log_q_V / self.temperature)
        return shifted_V.exp() / total.to(shifted_V).unsqueeze(-1)

    def shares(self, q_V: Tensor, positions: int) -> Tensor:
        """Return how much each softened log-probability of the student counts in the mean loss.

        The sum of their products is the mean loss less what depends on the target alone: it has the same gradient.

        Args:
            q_V: The softened target, as ``soften`` gives it, (..., V).
            positions: Over how many positions the mean is.

        Returns:
            Factors, (..., V), at most 0.
        """
        return q_V * (-(self.temperature**2) * q_V.shape[-1] / (q_V.shape[-1] * positions))
