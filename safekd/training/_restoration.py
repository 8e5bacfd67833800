"""Before a student is called unable: leave the loss aside, and bring its violation down as far as it goes.

A run stands still at a violated point for many reasons.  Descents tell them apart.  The first follows the mean of
-log(safety), whose slope survives where the student is sure of a wrong class and probabilities have none left; the
others the squared violation itself, from where the first ended and from the best place seen.
Axes: n parameters, B positions, M constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize as scipy_minimize

from solvers.infeasibility import violation_gradient_norm
from solvers.kkt import gradients

from .._torch_state import evaluating
from ..data import Split
from ..safety import Constraint
from ._merit import Floats, parted
from ._objective import FullPass, Objective
from .trace import ConstraintReading

_CHUNK = 4096


@dataclass(frozen=True)
class Restoration:
    """full: readings at the best point found, where the student is left.  least: largest violation there.

    slope: of the violations' norm in the parameters, at that point.  pull: slope of the mean of -log(safety) where its
    descent ended.  dead: share of the covered positions there whose safety has no slope at all.  passes: over the data.
    """

    full: FullPass
    least: float
    slope: float
    pull: float
    dead: float
    passes: int


def restore(objective: Objective, splits: Mapping[str, Split], rules: Sequence[Constraint], passes: int) -> Restoration:
    """Lower the violation of the student, in place, by at most about ``passes`` passes over the data."""
    return _Descent(objective, splits, rules).run(passes)


class _Descent:
    """The student as a function of one vector, and the best vector seen."""

    def __init__(self, objective: Objective, splits: Mapping[str, Split], rules: Sequence[Constraint]) -> None:
        self.objective, self.splits, self.rules = objective, splits, rules
        self.parameters = [p for p in objective.student.parameters() if p.requires_grad]
        start_n: Floats = torch.cat([p.detach().reshape(-1).double().cpu() for p in self.parameters]).numpy()
        self.passes, self.dead, self.best = 0, 0.0, (np.inf, start_n)

    def run(self, passes: int) -> Restoration:
        first_M = _violations(self._full(self.best[1]))
        short_M = first_M.clip(min=0)  # more safety does nothing for an equality that has too much
        share_M = short_M / short_M.sum() if short_M.any() else np.ones_like(short_M)
        each = max(1, passes // 3)
        pulled = self._descend(lambda x_n: self._log_pull(x_n, share_M), self.best[1], each)
        pull = float(np.linalg.norm(self._log_pull(pulled, share_M)[1]))
        dead = self.dead
        self._full(pulled)
        self._descend(self._squared, pulled, each)
        self._descend(self._squared, self.best[1], each)
        full = self._full(self.best[1])
        violation_M = _violations(full)
        slope = violation_gradient_norm(full.jacobian_Mn.cpu().numpy().T @ violation_M, violation_M)
        return Restoration(full, float(np.abs(violation_M).max()), slope, pull, dead, self.passes)

    def _descend(self, value: Callable[[Floats], tuple[float, Floats]], start_n: Floats, passes: int) -> Floats:
        limits = {"maxfun": passes, "maxiter": passes, "ftol": 0.0, "gtol": 1e-9}
        found = scipy_minimize(value, start_n, jac=True, method="L-BFGS-B", options=limits)
        end_n: Floats = found.x
        return end_n

    def _squared(self, x_n: Floats) -> tuple[float, Floats]:
        """Return half the squared violations of the surrogates, and their slope."""
        full = self._full(x_n)
        g_M = np.array([_missed(reading, reading.surrogate) for reading in full.readings])
        return float(g_M @ g_M) / 2, full.jacobian_Mn.cpu().numpy().T @ g_M

    def _log_pull(self, x_n: Floats, share_M: Floats) -> tuple[float, Floats]:
        """Return the mean of -log(safety), constraints weighed by their shares, and its slope."""
        self._put(x_n)
        total, slope_n, dead, seen = 0.0, np.zeros_like(x_n), 0, 0
        with evaluating(self.objective.student), torch.enable_grad():
            for rule, share in zip(self.rules, share_M, strict=True):
                split = self.splits[rule.split]
                count = int(rule.covers(split.batch()).sum())
                for index in split.chunks(_CHUNK):
                    batch = split.batch(index)
                    log_p_V = torch.log_softmax(self.objective.logits(batch), -1)
                    safety = torch.cat([part.surrogate_values(log_p_V, batch) for _, part in rule.parts])
                    nothing = torch.finfo(safety.dtype).tiny  # at or below, not even the logarithm has a slope
                    value = -float(share) * safety.clamp_min(nothing).log().sum() / count
                    total += float(value.detach())
                    slope_n += gradients([value], self.parameters)[0].cpu().numpy()
                    dead, seen = dead + int((safety <= nothing).sum()), seen + len(safety)
        self.passes, self.dead = self.passes + 1, dead / max(seen, 1)
        return total, slope_n

    def _full(self, x_n: Floats) -> FullPass:
        """Put the student at a vector and read it there."""
        self._put(x_n)
        full = self.objective.full_pass(self.splits["train"], self.splits, self.rules, with_gradients=True)
        self.passes += 1
        self._see(x_n, float(np.abs(_violations(full)).max()))
        return full

    def _see(self, x_n: Floats, violation: float) -> None:
        if violation < self.best[0]:
            self.best = (violation, np.array(x_n))

    @torch.no_grad()
    def _put(self, x_n: Floats) -> None:
        for p, part in zip(self.parameters, parted(torch.from_numpy(np.array(x_n)), self.parameters), strict=True):
            p.copy_(part)


def _violations(full: FullPass) -> Floats:
    """Return how far each constraint is missed, with its sign where it is to be met from both sides."""
    return np.array([_missed(reading, reading.measured) for reading in full.readings])


def _missed(reading: ConstraintReading, value: float) -> float:
    gap = reading.required - value
    return gap if reading.equality else max(gap, 0.0)
