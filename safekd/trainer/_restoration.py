"""Before a student is called unable: leave the loss aside, and bring its violation down as far as it goes.

A run stands still at a violated point for many reasons.  Two descents tell them apart.  The first follows the mean of
-log(safety), whose slope survives where the student is sure of a wrong class and probabilities have none left; the
second the squared violation itself.  Axes: n parameters, B positions, M constraints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize as scipy_minimize
from torch import Tensor

from .._modes import evaluating
from ..data import Split
from ..safety import SafetyConstraint
from ._objective import FullPass, Objective

Floats = npt.NDArray[np.float64]
_CHUNK = 4096
_SURE = 0.01  # safety below this has next to no slope of its own


@dataclass(frozen=True)
class Restoration:
    """full: readings at the best point found, where the student is left.  least: largest violation there.

    slope: of the violations' norm in the parameters.  sure: the part of the worst constraint's missing safety at
    positions where the student is sure of something else, so that the slope says nothing of them.  passes: over data.
    """

    full: FullPass
    least: float
    slope: float
    sure: float
    passes: int


def restore(
    objective: Objective, splits: Mapping[str, Split], rules: Sequence[SafetyConstraint], passes: int
) -> Restoration:
    """Lower the violation of the student, in place, by at most about ``passes`` passes over the data."""
    return _Descent(objective, splits, rules).run(passes)


class _Descent:
    """The student as a function of one vector, and the best vector seen."""

    def __init__(self, objective: Objective, splits: Mapping[str, Split], rules: Sequence[SafetyConstraint]) -> None:
        self.objective, self.splits, self.rules = objective, splits, rules
        self.parameters = [p for p in objective.student.parameters() if p.requires_grad]
        self.passes, self.best = 0, (np.inf, self._vector())

    def run(self, passes: int) -> Restoration:
        start_n = self.best[1]
        first = self._violations(self._full(start_n))
        share_M = first.clip(min=0) / first.clip(min=0).sum() if first.max() > 0 else np.ones_like(first)
        limits = {"maxfun": max(1, passes // 2), "maxiter": max(1, passes // 2), "ftol": 0.0, "gtol": 1e-9}
        for see in (lambda x_n: self._log_pull(x_n, share_M), self._squared):
            scipy_minimize(see, self.best[1], jac=True, method="L-BFGS-B", options=limits)
        full = self._full(self.best[1])
        violation_M = self._violations(full).clip(min=0)
        size = float(np.linalg.norm(violation_M))
        slope = float(np.linalg.norm(full.jacobian_Mn.cpu().numpy().T @ violation_M)) / size if size > 0 else 0.0
        worst = int(violation_M.argmax())
        return Restoration(full, float(violation_M.max()), slope, self._sure(self.rules[worst]), self.passes)

    def _squared(self, x_n: Floats) -> tuple[float, Floats]:
        """Return half the squared violations of the surrogates, and their slope."""
        full = self._full(x_n)
        g_M = np.array([reading.required - reading.surrogate for reading in full.readings]).clip(min=0)
        return float(g_M @ g_M) / 2, full.jacobian_Mn.cpu().numpy().T @ g_M

    def _log_pull(self, x_n: Floats, share_M: Floats) -> tuple[float, Floats]:
        """Return the mean of -log(safety), constraints weighed by their shares, and its slope."""
        self._full(x_n)
        total, slope_n = 0.0, np.zeros_like(x_n)
        with evaluating(self.objective.student), torch.enable_grad():
            for rule, share in zip(self.rules, share_M, strict=True):
                split = self.splits[rule.split]
                count = int(rule.covers(split.batch()).sum())
                for index in split.chunks(_CHUNK) if share > 0 else ():
                    batch = split.batch(index)
                    log_p_V = torch.log_softmax(self.objective.logits(batch), -1)
                    safety = rule.measure.surrogate(log_p_V, batch.labels)[rule.covers(batch)]
                    value = -float(share) * safety.clamp_min(1e-30).log().sum() / count
                    total += float(value.detach())
                    slopes = torch.autograd.grad(value, self.parameters, allow_unused=True)
                    slope_n += _flat(
                        [torch.zeros_like(p) if s is None else s for s, p in zip(slopes, self.parameters, strict=True)]
                    )
        self.passes += 1
        return total, slope_n

    def _full(self, x_n: Floats) -> FullPass:
        """Put the student at a vector and read it there."""
        parts = torch.split(torch.from_numpy(np.array(x_n)), [p.numel() for p in self.parameters])
        with torch.no_grad():
            for p, part in zip(self.parameters, parts, strict=True):
                p.copy_(part.view_as(p))
        full = self.objective.full_pass(self.splits["train"], self.splits, self.rules, with_gradients=True)
        self.passes += 1
        violation = float(self._violations(full).max())
        if violation < self.best[0]:
            self.best = (violation, np.array(x_n))
        return full

    def _sure(self, rule: SafetyConstraint) -> float:
        split, missing, count = self.splits[rule.split], 0.0, 0
        with evaluating(self.objective.student), torch.no_grad():
            for index in split.chunks(_CHUNK):
                batch = split.batch(index)
                log_p_V = torch.log_softmax(self.objective.logits(batch), -1)
                safety = rule.measure.surrogate(log_p_V, batch.labels)[rule.covers(batch)].double()
                missing, count = missing + float((1 - safety)[safety < _SURE].sum()), count + safety.numel()
        return missing / max(count, 1)

    def _violations(self, full: FullPass) -> Floats:
        return np.array([reading.required - reading.measured for reading in full.readings])

    def _vector(self) -> Floats:
        return _flat([p.detach() for p in self.parameters])


def _flat(parts: Sequence[Tensor]) -> Floats:
    flat: Floats = torch.cat([part.reshape(-1).double().cpu() for part in parts]).numpy()
    return flat
