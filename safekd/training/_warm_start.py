"""Where a run begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from solvers.primal_dual import PrimalDual
from solvers.short_repr import ShortRepr

from ..errors import InvalidInput
from ._constraint_layout import ConstraintLayout
from ._fit_result import FitResult
from ._parameter_vectors import copy_state
from ._rule_learning import RuleLearning


@dataclass(frozen=True, repr=False)
class WarmStart(ShortRepr):
    """Where a run begins: a student's parameters and the multipliers that belonged to them.

    Attributes:
        parameters: Parameters and buffers of the student, by name.
        multipliers: One a constraint, in their order, at least 0 but for equalities; none, as an unconstrained
            run leaves them, begin at 0.
        rule_state: What a learned weighting rule and its optimizer had come to, ``FitResult.rule_state``, or what
            weighting_rule.safetensors holds; left out, the rule begins as it is.
    """

    parameters: Mapping[str, Tensor]
    multipliers: Sequence[float]
    rule_state: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def from_result(cls, result: FitResult) -> WarmStart:
        """Begin where a run ended.

        Args:
            result: Of that run.
        """
        return cls(copy_state(result.student), list(result.multipliers.values()), result.rule_state)

    def begin(self, student: nn.Module, engine: PrimalDual, layout: ConstraintLayout, learning: RuleLearning) -> None:
        """Put student, multipliers and weighting rule where they were.

        Args:
            student: Changed in place.
            engine: Gets the multipliers.
            layout: Of the problem's constraints.
            learning: Of the weighting rule.

        Raises:
            InvalidInput: The start is one of another problem.
        """
        wanted = len(layout.inequalities) + len(layout.equalities)
        lambda_M = torch.tensor(list(self.multipliers) or [0.0] * wanted, dtype=torch.float64).to(engine.multipliers)
        fits = len(lambda_M) == wanted and bool(torch.isfinite(lambda_M).all())
        if not fits or bool((layout.split_by_kind(lambda_M)[0] < 0).any()):
            raise InvalidInput(
                f"The warm start has multipliers {lambda_M.tolist()}; wanted one for each of the {wanted} constraints, "
                "at least 0 and finite (an equality's may be negative), or none at all, to begin at 0."
            )
        if self.rule_state:
            learning.load(self.rule_state)
        try:
            student.load_state_dict(self.parameters)
        except RuntimeError as error:
            raise InvalidInput(f"The warm start's parameters do not fit the student. {error}") from error
        engine.multipliers, engine.equality_multipliers = layout.split_by_kind(lambda_M)
