"""Where a run begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from solvers.primal_dual import PrimalDual

from ..errors import InvalidInput
from ._learning import RuleLearning
from ._result import FitResult
from ._rows import Rows


@dataclass(frozen=True)
class WarmStart:
    """Where a run begins: a student's parameters and the multipliers that belonged to them.

    weights: what a learned weighting rule and its optimizer had come to, ``FitResult.weights``, or what
    weights.safetensors holds; left out, the rule begins as it is.
    """

    parameters: Mapping[str, Tensor]
    multipliers: Sequence[float]
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, result: FitResult) -> WarmStart:
        """Begin where ``result`` ended."""
        state = {name: value.detach().clone() for name, value in result.student.state_dict().items()}
        return cls(state, list(result.multipliers.values()), result.weights)

    def begin(self, student: nn.Module, engine: PrimalDual, rows: Rows, learning: RuleLearning) -> None:
        """Put student, multipliers and rule where they were.  Raises InvalidInput for a start of another problem."""
        prices = torch.tensor(list(self.multipliers), dtype=torch.float64).to(engine.multipliers)
        wanted = len(rows.inequalities) + len(rows.equalities)
        fits = len(prices) == wanted and bool(torch.isfinite(prices).all())
        if not fits or bool((rows.apart(prices)[0] < 0).any()):
            raise InvalidInput(
                f"The warm start has multipliers {prices.tolist()}; wanted one for each of the {wanted} constraints, "
                "at least 0 and finite (an equality's may be negative)."
            )
        if self.weights:
            learning.load(self.weights)
        try:
            student.load_state_dict(self.parameters)
        except RuntimeError as error:
            raise InvalidInput(f"The warm start's parameters do not fit the student. {error}") from error
        engine.multipliers, engine.equality_multipliers = rows.apart(prices)
