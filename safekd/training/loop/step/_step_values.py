"""Constraints of one step: from sums over its data to multipliers, and to what the student minimizes.

Axes: M constraints, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.primal_dual import MultiplierScales, PrimalDual

from ....safety import GroupSums
from ..._constraint_layout import ConstraintLayout, attainable_threshold
from ..._training_problem import TrainingProblem
from .._fit_inputs import FitData
from ._batch_values import BatchValue

Values = tuple[Tensor, Tensor, Tensor]


class StepValues:
    """What the constraints say in a step, and the multipliers' answer.

    Args:
        problem: What is trained.
        engine: Holds multipliers and penalties.
        data: Of the fit.
    """

    def __init__(self, problem: TrainingProblem, engine: PrimalDual, data: FitData) -> None:
        self.engine, self.device = engine, problem.device
        self.layout = ConstraintLayout(problem.constraints, problem.device)
        self.values = [
            BatchValue(rule, *problem.objective.count_groups([rule], data.by_name[rule.split]))
            for rule in problem.constraints
        ]
        self.others = [BatchValue(value.rule, value.count_G) for value in self.values]  # of batches that are only read
        full = problem.is_full_batch(data.train)
        whole = [rule.split != "train" or full for rule in problem.constraints]
        # what a measure that counts can take lies above the threshold; batches take other values
        self._raised = [
            float(attainable_threshold(rule, value.count_G.sum())) - rule.required if counted else 0.0
            for rule, value, counted in zip(problem.constraints, self.values, whole, strict=True)
        ]

    def state(self) -> dict[str, Any]:
        """Return what a continued run needs: the running sums of each constraint."""
        return {name: [one.state() for one in values] for name, values in self._list_values().items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave.

        Args:
            state: Of the same problem.
        """
        for name, values in self._list_values().items():
            for one, kept in zip(values, state[name], strict=True):
                one.load_state(kept)

    def _list_values(self) -> dict[str, list[BatchValue]]:
        return {"values": self.values, "others": self.others}

    def read(self, sums_M: Sequence[GroupSums], share: float) -> Values:
        """Return g of the surrogates, g as measured, and which constraints this step's data speak of, each (M,).

        Args:
            sums_M: Of each constraint, over this step's data.
            share: Of the training examples that the step holds.
        """
        if not sums_M:
            none = torch.zeros(0, device=self.device)
            return none, none, none.bool()
        rows = [self._read(m, self.values, sums, share) for m, sums in enumerate(sums_M)]
        surrogate, measured, present = zip(*rows, strict=True)
        return torch.stack(surrogate), torch.stack(measured), torch.stack(present)

    def replace_measured(self, values: Values, sums_by_row: dict[int, GroupSums], share: float) -> Values:
        """Return the values with g as measured on other training examples, where both batches say something of it.

        Args:
            values: What ``read`` gave.
            sums_by_row: Of the constraints that are posed on training examples, by number, over those other ones.
            share: Of the training examples that these are.
        """
        surrogate_M, measured_M, present_M = values
        if sums_by_row:
            rows = [self._read(m, self.others, sums, share) for m, sums in sums_by_row.items()]
            _, other, known = zip(*rows, strict=True)
            measured_M, present_M = measured_M.clone(), present_M.clone()
            drawn = [*sums_by_row]
            measured_M[drawn] = torch.stack(other).to(measured_M)
            present_M[drawn] &= torch.stack(known)
        return surrogate_M, measured_M, present_M

    def move_multipliers(
        self,
        loss: Tensor,
        surrogate_M: Tensor,
        measured_M: Tensor | None,
        present_M: Tensor | None,
        scales: Callable[[], MultiplierScales] | None = None,
    ) -> Tensor:
        """Move the multipliers by what was measured; return what to minimize, which has the surrogates' gradients.

        Args:
            loss: Of the step, a scalar.
            surrogate_M: g of the surrogates.
            measured_M: g as measured; None where it is ``surrogate_M``.
            present_M: Which constraints the step speaks of; None where all are.
            scales: See ``PrimalDual.step``.
        """
        layout = self.layout
        if not len(layout.equalities):
            return self.engine.step(loss, surrogate_M, measured=measured_M, present=present_M, scales=scales)
        g_M, h_E = layout.split_by_kind(surrogate_M)
        measured_g_M, measured_h_E = (None, None) if measured_M is None else layout.split_by_kind(measured_M)
        present = None if present_M is None else torch.cat(layout.split_by_kind(present_M))
        return self.engine.step(
            loss,
            g_M,
            h_E,
            measured=measured_g_M,
            measured_equality=measured_h_E,
            present=present,
            scales=scales,
        )

    def _read(self, m: int, values: Sequence[BatchValue], sums: GroupSums, share: float) -> Values:
        value, raised = values[m], self._raised[m]
        surrogate, measured, known = value.read(sums, share if value.rule.split == "train" else 1.0)
        return surrogate, measured + raised if raised else measured, known
