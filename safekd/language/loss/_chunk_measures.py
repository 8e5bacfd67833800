"""Safety measures over the positions of a chunk: their sums, and their gradient in the student's logits.

Multipliers do not change within an optimizer step and label counts are known before it, so what each position counts is
known in the forward pass.  A measure f(log p) with gradient g in log p has the gradient ``g - p sum(g)`` in the logits:

    measures of the label's probability, and of some columns    a few numbers of g a position
    all others                                                  a row of g a critical position, some positions at a time

Axes: P positions that count, C positions of a chunk, R positions that a measure reads, G groups, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...data import Batch
from ...errors import InvalidInput
from ...safety import Average, Constraint, GroupSums

Function = Callable[[Tensor, Tensor], Tensor]

_ROWS = 64  # positions of which a measure without a closed form sees whole rows at once


@dataclass
class LogitGradient:
    """A gradient in the student's logits at temperature 1: ``scale_C * p`` and what is added to it.

    Attributes:
        scale_C: Factor of the student's distribution, (C,).
        entries: Positions (R,), columns (R, c) and values (R, c) that are added.
        rows: Positions (R,) and whole rows (R, V) that are added.
    """

    scale_C: Tensor
    entries: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    rows: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add_to(self, gradient_CV: Tensor, unit: float) -> None:
        """Add entries and rows to a gradient, in place.

        Args:
            gradient_CV: In the logits.
            unit: What the gradient is measured in.
        """
        for place_R, column_Rc, value_Rc in self.entries:
            gradient_CV.index_put_(
                (place_R[:, None].expand_as(column_Rc), column_Rc), value_Rc.to(gradient_CV) / unit, accumulate=True
            )
        for place_R, value_RV in self.rows:
            gradient_CV.index_add_(0, place_R, value_RV.to(gradient_CV), alpha=1 / unit)


class PartReader:
    """One average of a constraint, over the positions that count.

    Args:
        average: What is read.
        batch: Labels, contexts and tasks of all positions.
        kept_P: Places of the positions that count among all, or None where all do.

    Attributes:
        coefficient_G: What one unit of each group's sum adds to the objective, (G,), float64; None without gradient.
        sums: Sums so far; counts are known from the labels.
    """

    def __init__(self, average: Average, batch: Batch, kept_P: Tensor | None) -> None:
        self._measure = average.measure
        self.coefficient_G: Tensor | None = None
        members_GN = average.members(batch).flatten(1)
        critical_N = self._measure.is_critical(batch.labels).flatten()
        self._members_GP = members_GN if kept_P is None else members_GN[:, kept_P]
        self._critical_P = critical_N if kept_P is None else critical_N[kept_P]
        zero_G = torch.zeros(len(members_GN), dtype=torch.float64, device=members_GN.device)
        self.sums = GroupSums(zero_G, zero_G, zero_G, self._members_GP.sum(-1).double())

    def read(self, rows: slice, log_p_CV: Tensor, label_C: Tensor, gradient: LogitGradient | None) -> None:
        """Add a chunk's sums to ``sums``, and its gradient to ``gradient``.

        Args:
            rows: Which positions the chunk has.
            log_p_CV: The student's log-probabilities at temperature 1.
            label_C: Labels.
            gradient: What to add to; None where no gradient is asked for.
        """
        members_GC = self._members_GP[:, rows]
        covered_C = members_GC.any(0)
        self._require_tokens(self._measure.critical or (), log_p_CV.shape[-1])
        surrogate_C = torch.ones_like(covered_C, dtype=torch.float64)
        measured_C = torch.ones_like(surrogate_C)
        place_R = (covered_C & self._critical_P[rows]).nonzero()[:, 0]
        coefficient_R = None
        if gradient is not None and self.coefficient_G is not None:
            coefficient_R = (self.coefficient_G[:, None] * members_GC[:, place_R]).sum(0)
        if len(place_R):
            surrogate_R, measured_R = self._differentiate(log_p_CV, place_R, label_C[place_R], coefficient_R, gradient)
            surrogate_C[place_R], measured_C[place_R] = surrogate_R.double(), measured_R.double()
        of_group = members_GC.double()
        none_G = torch.zeros_like(of_group[:, 0])  # counts are known from the labels
        self.sums += GroupSums(of_group @ surrogate_C, of_group @ measured_C, of_group @ measured_C.square(), none_G)

    def _differentiate(
        self,
        log_p_CV: Tensor,
        place_R: Tensor,
        label_R: Tensor,
        coefficient_R: Tensor | None,
        gradient: LogitGradient | None,
    ) -> tuple[Tensor, Tensor]:
        measure, columns = self._measure, self._measure.columns
        if measure.truth_only or columns is not None:
            surrogate: Function = measure.surrogate_everywhere
            measured: Function = measure.measured_everywhere
            column_Rc, known_R = label_R[:, None], torch.zeros_like(label_R)
            if columns is not None:
                self._require_tokens(columns, log_p_CV.shape[-1])
                column_Rc, known_R = torch.tensor(columns, device=label_R.device).expand(len(label_R), -1), label_R
                surrogate = measured = measure.measured_columns
            value_Rc = log_p_CV[place_R[:, None], column_Rc]
            surrogate_R, g_Rc = _differentiate(surrogate, value_Rc, known_R, coefficient_R)
            if gradient is not None and g_Rc is not None:
                gradient.scale_C.index_add_(0, place_R, -g_Rc.sum(-1).to(gradient.scale_C))
                gradient.entries.append((place_R, column_Rc, g_Rc))
            return surrogate_R, measured(value_Rc, known_R)
        surrogates, measures = [], []
        for start in range(0, len(place_R), _ROWS):
            some = slice(start, start + _ROWS)
            label_r, value_rV = label_R[some], log_p_CV[place_R[some]]
            part = None if coefficient_R is None else coefficient_R[some]
            surrogate_r, g_rV = _differentiate(measure.surrogate_everywhere, value_rV, label_r, part)
            surrogates.append(surrogate_r)
            measures.append(measure.measured_everywhere(value_rV, label_r))
            if gradient is not None and g_rV is not None:
                gradient.scale_C.index_add_(0, place_R[some], -g_rV.sum(-1).to(gradient.scale_C))
                gradient.rows.append((place_R[some], g_rV))
        return torch.cat(surrogates), torch.cat(measures)

    def _require_tokens(self, tokens: Collection[int], vocabulary: int) -> None:
        if tokens and max(tokens) >= vocabulary:
            raise InvalidInput(
                f"{self._measure!r} names token {max(tokens)}; wanted token numbers from 0 to {vocabulary - 1}, those "
                "that are compared."
            )


def _open_reader(average: Average, batch: Batch, kept_P: Tensor | None) -> PartReader:
    """Return what reads an average: its own reader where it knows more of the batch than labels and groups say."""
    own: Callable[[Batch, Tensor | None], PartReader] | None = getattr(average, "open_reader", None)
    return PartReader(average, batch, kept_P) if own is None else own(batch, kept_P)


class ConstraintReader:
    """Reads the averages of one constraint.

    Args:
        constraint: The constraint.
        batch: Labels, contexts and tasks of all positions.
        kept_P: Places of the positions that count among all, or None where all do.
    """

    def __init__(self, constraint: Constraint, batch: Batch, kept_P: Tensor | None) -> None:
        self._sizes = [average.size for _, average in constraint.parts]
        self._parts = [_open_reader(average, batch, kept_P) for _, average in constraint.parts]

    def weigh(self, coefficient_G: Tensor) -> None:
        """Say what one unit of each group's sum adds to the objective.

        Args:
            coefficient_G: (G,), float64.
        """
        for part, own_G in zip(self._parts, torch.split(coefficient_G, self._sizes), strict=True):
            part.coefficient_G = own_G

    @property
    def value(self) -> Tensor:
        """What the sums of the surrogate add to the objective, a scalar."""
        added = torch.zeros((), dtype=torch.float64, device=self.sums.count_G.device)
        for part in self._parts:
            if part.coefficient_G is not None:
                added = added + part.coefficient_G @ part.sums.surrogate_G
        return added

    def read(self, rows: slice, log_p_CV: Tensor, label_C: Tensor, gradient: LogitGradient | None) -> None:
        """Add a chunk's sums and gradient.

        Args:
            rows: Which positions the chunk has.
            log_p_CV: The student's log-probabilities at temperature 1.
            label_C: Labels.
            gradient: What to add to; None where no gradient is asked for.
        """
        for part in self._parts:
            part.read(rows, log_p_CV, label_C, gradient)

    @property
    def sums(self) -> GroupSums:
        """Sums of all groups so far."""
        return GroupSums.concatenate(part.sums for part in self._parts)


def _differentiate(
    function: Function, value: Tensor, label_R: Tensor, coefficient_R: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return a function's values, and the gradient of their sum weighed by coefficients."""
    if coefficient_R is None:
        return function(value, label_R), None
    with torch.enable_grad():
        leaf = value.detach().requires_grad_()
        result_R = function(leaf, label_R)
        if not result_R.requires_grad:
            return result_R, None
        (gradient,) = torch.autograd.grad(result_R, leaf, coefficient_R.to(result_R), allow_unused=True)
    return result_R.detach(), None if gradient is None else gradient.nan_to_num_(nan=0.0)
