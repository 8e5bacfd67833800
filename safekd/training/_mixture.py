"""The best mixture of students: one is drawn at random for each request.

    min sum_s q_s loss_s   subject to   sum_s q_s g_s,m <= 0 for every m,   q >= 0,   sum q = 1

Loss and safety of the mixture are averages, so this is a linear program, and one of its solutions uses at most M + 1
students (Cotter, Jiang and Sridharan 2019, "Two-player games for efficient non-convex constrained optimization").
Where a problem is not convex, a mixture can do what no student can.

Axes: S snapshots, M constraints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from solvers.short_repr import ShortRepr

from ..errors import SolverFailure

if TYPE_CHECKING:
    import cvxpy as cp  # where it is used, it is imported there: it takes a second

Floats = NDArray[np.float64]
_CLOSE = 1e-6  # HiGHS keeps its rows to 1e-7


@dataclass(frozen=True, repr=False)
class Mixture(ShortRepr):
    """Students, and how often to ask each.

    Attributes:
        weights: Shares, above 0, sum 1, at most one more than there are constraints.
        steps: Optimizer steps after which each student was read.
        students: Themselves, in eval mode.
        loss: Distillation loss on average over draws, nats.
        safety: Measured safety on average over draws, by constraint, each on the split on which it is posed.
        multipliers: Multiplier of each constraint among mixtures of these snapshots.
    """

    weights: Sequence[float]
    steps: Sequence[int]
    students: Sequence[nn.Module]
    loss: float
    safety: Mapping[str, float]
    multipliers: Mapping[str, float]

    def draw(self, generator: torch.Generator | None = None) -> nn.Module:
        """Return one student by chance, for one request.

        Args:
            generator: The source of chance; torch's own if left out.
        """
        chosen = torch.multinomial(torch.tensor(self.weights, dtype=torch.float64), 1, generator=generator)
        return self.students[int(chosen)]


@dataclass(frozen=True)
class LowestMixture:
    """A solution of the program.

    Attributes:
        weights: Shares, (S,).
        multipliers: Of the constraints, (M,).
        excess: The least that the most violated constraint can be below its threshold, 0 where a mixture meets all.
        worst: Number of the constraint that is most violated, or nearest to it.
    """

    weights: list[float]
    multipliers: list[float]
    excess: float
    worst: int


def find_lowest_mixture(
    loss_S: Sequence[float], g_SM: Sequence[Sequence[float]], allowed: float = 0.0
) -> LowestMixture:
    """Return the mixture of lowest loss among those that meet every constraint; where none does, the least violation.

    Args:
        loss_S: Distillation loss of each snapshot, (S,).
        g_SM: How far each is below each threshold, (S, M).
        allowed: A least violation up to this is granted, and the loss made lowest under it.

    Raises:
        SolverFailure: The solver's answer does not hold.
    """
    loss, g = np.asarray(loss_S, dtype=np.float64), np.asarray(g_SM, dtype=np.float64).reshape(len(loss_S), -1)
    if not g.shape[1]:
        return LowestMixture(np.eye(len(loss))[loss.argmin()].tolist(), [], 0.0, 0)
    answer, excess = _lowest_loss(loss, g, 0.0), 0.0
    if answer is None:
        q, excess = _least_violation(g)
        answer = (_lowest_loss(loss, g, excess) if excess <= allowed else None) or (q, np.zeros(g.shape[1]))
    q, multipliers = answer
    return LowestMixture(q.tolist(), multipliers.tolist(), excess, int((q @ g).argmax()))


def _lowest_loss(loss: Floats, g: Floats, slack: float) -> tuple[Floats, Floats] | None:
    """Return weights and multipliers of the program with ``slack`` in place of 0, None where it has no solution."""
    import cvxpy as cp

    low, scale = loss.min(), max(float(np.ptp(loss)), 1e-300)
    q = cp.Variable(len(loss), nonneg=True)
    met = q @ g <= slack
    if not _solve_program(cp.Problem(cp.Minimize(((loss - low) / scale) @ q), [np.ones(len(loss)) @ q == 1, met])):
        return None
    weights, multipliers = _clean_shares(q), np.maximum(np.asarray(met.dual_value, dtype=np.float64), 0.0)
    bound = float(((loss - low) / scale + g @ multipliers).min() - slack * multipliers.sum())  # of the dual program
    gap = float(weights @ ((loss - low) / scale)) - bound
    if not (gap <= _CLOSE * (1 + multipliers.sum()) and float((weights @ g).max()) <= slack + _CLOSE):
        raise SolverFailure(
            f"The mixture that HiGHS found does not hold: it violates {float((weights @ g).max()) - slack:.2g}, and is "
            f"{gap:.2g} of the losses' range above the bound. Ask for other snapshots."
        )
    return weights, multipliers * scale


def _least_violation(g: Floats) -> tuple[Floats, float]:
    """Return the weights whose largest violation is least, and that violation."""
    import cvxpy as cp

    q, most = cp.Variable(len(g), nonneg=True), cp.Variable()
    if not _solve_program(cp.Problem(cp.Minimize(most), [np.ones(len(g)) @ q == 1, q @ g <= most])):
        raise SolverFailure(
            "HiGHS found no least violation of a mixture, though there is one. Ask for other snapshots."
        )
    weights = _clean_shares(q)
    return weights, max(float((weights @ g).max()), 0.0)


def _solve_program(problem: cp.Problem) -> bool:
    """Solve by the dual simplex, whose answers are vertices: few weights are not zero."""
    import cvxpy as cp

    problem.solve(solver=cp.SCIPY, scipy_options={"method": "highs-ds"})  # type: ignore[no-untyped-call]
    return bool(problem.status == cp.OPTIMAL)


def _clean_shares(q: cp.Variable) -> Floats:
    raw = np.asarray(q.value, dtype=np.float64)
    positive: Floats = np.where(raw > 1e-9, raw, 0.0)  # the solver's rounding
    shares: Floats = positive / positive.sum()
    return shares
