"""Feasibility restoration: leave the loss aside, and bring a student's violation down as far as it goes.

A run stands still at a violated point for many reasons.  Descents tell them apart.  The first follows the mean of
-log(safety), whose gradient survives where the student is sure of a wrong class and probabilities have none left; the
others the squared violation itself, from where the first ended and from the best point so far.
Axes: n parameters, B positions, M constraints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from solvers.infeasibility import violation_gradient_norm
from solvers.kkt import gradients

from ..._precision import log_softmax
from ..._torch_state import evaluation_mode
from ...data import ExampleSource
from ...safety import Constraint
from .._full_pass import FullPass, read_full_pass
from .._objective import Objective
from .._parameter_vectors import LBFGS_VECTORS, Floats, descend_lbfgs, read_vector, write_vector
from ..trace import ConstraintReading
from ._evidence_budget import EvidenceMeter


@dataclass(frozen=True)
class StudentRestoration:
    """Where descents on the violation alone ended.

    Attributes:
        full: Readings at the best point, where the student is left.
        least: Largest violation there.
        gradient_norm: Of the violations' norm in the parameters, at that point.
        log_safety_gradient_norm: Of the mean of -log(safety), where its descent ended.
        zero_gradient_share: Share of the covered positions there whose safety has no gradient at all.
        passes: Over the data.
    """

    full: FullPass
    least: float
    gradient_norm: float
    log_safety_gradient_norm: float
    zero_gradient_share: float
    passes: int


def restore_student_feasibility(
    objective: Objective,
    splits: Mapping[str, ExampleSource],
    constraints: Sequence[Constraint],
    passes: int,
    meter: EvidenceMeter,
) -> StudentRestoration:
    """Lower the violation of the student, in place.

    Args:
        objective: Holds the student.
        splits: By name, the training split among them.
        constraints: M of them.
        passes: About how many passes over the data it may cost.
        meter: Holds it to a budget.

    Raises:
        BeyondBudget: It would take more; the student is left anywhere.
    """
    return _ViolationDescent(objective, splits, constraints, meter).run(passes)


class _ViolationDescent:
    """The student as a function of one vector, and the best vector so far."""

    def __init__(
        self,
        objective: Objective,
        splits: Mapping[str, ExampleSource],
        constraints: Sequence[Constraint],
        meter: EvidenceMeter,
    ) -> None:
        self.objective, self.splits, self.constraints, self.meter = objective, splits, constraints, meter
        self.parameters = [p for p in objective.student.parameters() if p.requires_grad]
        self.passes, self.zero_gradient_share = 0, 0.0
        self.best: tuple[float, Floats] = (np.inf, read_vector(self.parameters))

    def run(self, passes: int) -> StudentRestoration:
        self.meter.require_memory((LBFGS_VECTORS + len(self.constraints)) * len(self.best[1]))
        first_M = _signed_violations(self._read(self.best[1]))
        short_M = first_M.clip(min=0)  # more safety does nothing for an equality that has too much
        share_M = short_M / short_M.sum() if short_M.any() else np.ones_like(short_M)
        each = max(1, passes // 3)
        safest_n, _ = descend_lbfgs(lambda x_n: self._minus_log_safety(x_n, share_M), self.best[1], each)
        log_safety_gradient_norm = float(np.linalg.norm(self._minus_log_safety(safest_n, share_M)[1]))
        zero_gradient_share = self.zero_gradient_share
        self._read(safest_n)
        descend_lbfgs(self._half_squares, safest_n, each)
        descend_lbfgs(self._half_squares, self.best[1], each)
        full = self._read(self.best[1])
        violation_M = _signed_violations(full)
        gradient_norm = violation_gradient_norm(full.require_gradients()[1].cpu().numpy().T @ violation_M, violation_M)
        return StudentRestoration(
            full,
            float(np.abs(violation_M).max()),
            gradient_norm,
            log_safety_gradient_norm,
            zero_gradient_share,
            self.passes,
        )

    def _half_squares(self, x_n: Floats) -> tuple[float, Floats]:
        """Return half the squared violations of the surrogates, and their gradient."""
        full = self._read(x_n)
        g_M = np.array([_signed_violation(reading, reading.surrogate) for reading in full.readings])
        return float(g_M @ g_M) / 2, full.require_gradients()[1].cpu().numpy().T @ g_M

    def _minus_log_safety(self, x_n: Floats, share_M: Floats) -> tuple[float, Floats]:
        """Return the mean of -log(safety), constraints weighed by their shares, and its gradient."""
        write_vector(self.parameters, x_n)
        total, gradient_n, without, covered = 0.0, np.zeros_like(x_n), 0, 0
        with evaluation_mode(self.objective.student), torch.enable_grad():
            for rule, share in zip(self.constraints, share_M, strict=True):
                split = self.splits[rule.split]
                count = int(self.objective.count_covered(rule, split))
                for batch in split.batches(self.meter.most_rows(self.objective, split)):
                    self.meter.require_time()
                    log_p_V = log_softmax(self.objective.logits(batch))
                    safety = torch.cat([part.surrogate_values(log_p_V, batch) for _, part in rule.parts])
                    nothing = torch.finfo(safety.dtype).tiny  # at or below, not even the logarithm has a gradient
                    value = -float(share) * safety.clamp_min(nothing).log().sum() / count
                    total += float(value.detach())
                    gradient_n += gradients([value], self.parameters)[0].cpu().numpy()
                    without, covered = without + int((safety <= nothing).sum()), covered + len(safety)
        self.passes, self.zero_gradient_share = self.passes + 1, without / max(covered, 1)
        return total, gradient_n

    def _read(self, x_n: Floats) -> FullPass:
        """Put the student at a vector, read it there, and remember the vector if it is the best."""
        self.meter.require_time()
        write_vector(self.parameters, x_n)
        train = self.splits["train"]
        full = read_full_pass(self.objective, train, self.splits, self.constraints, with_gradients=True)
        self.passes += 1
        violation = float(np.abs(_signed_violations(full)).max())
        if violation < self.best[0]:
            self.best = (violation, np.array(x_n))
        return full


def _signed_violations(full: FullPass) -> Floats:
    """Return how far each constraint is violated, with its sign where it is to be met from both sides."""
    return np.array([_signed_violation(reading, reading.measured) for reading in full.readings])


def _signed_violation(reading: ConstraintReading, value: float) -> float:
    gap = reading.required - value
    return gap if reading.equality else max(gap, 0.0)
