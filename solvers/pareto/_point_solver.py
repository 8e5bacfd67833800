"""The problem behind a frontier, one solve at a time, each counted against the budget.

    minimize  f(x) + mu c(x)   subject to   c(x) <= target,  g(x) <= 0,  h(x) = 0,  bounds

An epsilon sweep moves the target, a mu sweep the weight.  Axes: n variables, M inequalities and E equalities besides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput
from ..kkt import KKTResiduals
from ..minimization import Solution, StartNotFinite, minimize
from ..short_repr import ShortRepr
from ._sweep_planner import RunBudget

Function = Callable[[Tensor], Tensor]
Bounds = tuple[Tensor | float | None, Tensor | float | None] | None

_GOLDEN = (5**0.5 - 1) / 2  # the sequence of its multiples covers an interval evenly (Weyl)
_NO_RESIDUALS = KKTResiduals(math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class StartSettings:
    """Where solves begin.  tests/solvers/pareto/test_pareto.py would notice, and benchmarks/frontier.py the cost.

    Attributes:
        inward: Parts of the way to the middle by which a start without finite gradients is moved: a root has none at 0,
            and the least move that helps keeps most of a warm start.
        penalty_cap: A warm start keeps at most this penalty: a larger one slows a neighbor more than it helps.
        spread: Seeded starts lie within so many times 1 + |x0| of x0 where there are no bounds: beyond its valley.
    """

    inward: tuple[float, ...] = (1e-3, 0.1, 0.5)
    penalty_cap: float = 1e3
    spread: float = 2.0


@dataclass(frozen=True, repr=False)
class SolvedPoint(ShortRepr):
    """A point that a solve ended in.

    Attributes:
        x: The variables, of x0's shape.
        f: Objective at x.
        c: Constrained value at x.
        violation: The largest of the rows besides the target.
        multiplier: Of the target.
        other_multipliers: Those of the inequalities (M,) and equalities (E,) besides, to start from.
        penalty: Of the augmented Lagrangian at the end.
        residuals: KKT residuals of the solve.
        status: That of ``minimize``.
        message: What speaks for the status.
        target: The target of the solve, infinite where there was none.
        origin: The target that its start had answered.
    """

    x: Tensor
    f: float
    c: float
    violation: float
    multiplier: float
    other_multipliers: tuple[Tensor, Tensor]
    penalty: float
    residuals: KKTResiduals
    status: str
    message: str
    target: float
    origin: float = math.nan

    @property
    def converged(self) -> bool:
        """Whether residuals speak for it."""
        return self.status == "converged"

    def violation_with(self, target: float) -> float:
        """Return the largest violation with the target among the rows."""
        return max(self.violation, self.c - target, 0.0)


@dataclass
class PointSolver:
    """The problem, and what its solves cost.

    Attributes:
        objective: x to one number, to be minimized.
        constrained: x to one number, which targets bound.
        x0: Where to start.
        inequality: x to a row of values <= 0, or None.
        equality: x to a row of values = 0, or None.
        bounds: (lower, upper) of x, or None.
        tolerance: Of the KKT residuals of each solve.
        steps: Outer steps of each solve at most.
        seed: Of seeded starts.
        budget: Solves at most, and so far.
        evaluations: Points at which the functions were called.
        feasible: Violation of the rows besides the target that counts as none.
        row_count: How many inequalities there are besides the target.
        settings: Where solves begin.
    """

    objective: Function
    constrained: Function
    x0: Tensor
    inequality: Function | None
    equality: Function | None
    bounds: Bounds
    tolerance: float
    steps: int
    seed: int
    budget: RunBudget
    evaluations: int = 0
    feasible: float = 1e-6
    row_count: int = 0
    settings: StartSettings = StartSettings()
    dtype: torch.dtype = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.x0, Tensor) or not self.x0.is_floating_point() or self.x0.numel() == 0:
            given = self.x0.dtype if isinstance(self.x0, Tensor) else type(self.x0).__name__
            raise InvalidInput(f"`x0` is {given}; wanted a tensor of at least one float, e.g. torch.zeros(3).")
        self.x0 = self.x0.detach()
        if not bool(torch.isfinite(self.x0).all()):
            raise InvalidInput("`x0` has entries that are not finite; start from finite numbers.")
        self.dtype = self._dtype()

    def _dtype(self) -> torch.dtype:
        """Return float64, or x0's dtype where the functions refuse that."""
        try:
            self.evaluate_rows(self.x0.double())
        except RuntimeError:
            if self.x0.dtype == torch.float64:
                raise
            self.evaluate_rows(self.x0)
            return self.x0.dtype
        return torch.float64

    def evaluate_rows(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return f, c, g (M,) and h (E,)."""
        f, c = _require_number("objective", self.objective(x)), _require_number("constrained", self.constrained(x))
        g_M = _require_row("inequality", self.inequality, x)
        self.row_count = len(g_M)
        return f, c, g_M, _require_row("equality", self.equality, x)

    def evaluate(self, x: Tensor) -> tuple[float, float, float]:
        """Return f, c and the largest violation of the rows besides the target."""
        self.evaluations += 1
        with torch.no_grad():
            f, c, g_M, h_E = self.evaluate_rows(x)
        missed = torch.cat([g_M.clamp_min(0), h_E.abs()]).double()
        return float(f), float(c), float(missed.max()) if missed.numel() else 0.0

    def solve(
        self,
        start: SolvedPoint | Tensor,
        *,
        target: float = math.inf,
        weight: float = 0.0,
        swapped: bool = False,
        guess: Tensor | None = None,
        floor: float | None = None,
    ) -> SolvedPoint:
        """Minimize f + weight c subject to c <= target, from a start.  Raises BudgetSpent where no solve is left.

        Args:
            start: Where to begin; a solved point also gives its multipliers.
            target: Bound of c, infinite for none.
            weight: Of the second function.
            swapped: Minimize c + weight f subject to f <= target instead; the answer is one to the c that it reached.
            guess: x to begin from with the multipliers of ``start``.
            floor: Keep c at least there, instead of a target.
        """
        self.budget.spend()
        first, second = (self.constrained, self.objective) if swapped else (self.objective, self.constrained)
        loss = first if weight == 0 else (lambda x: first(x) + weight * second(x))
        rows = self.inequality
        if math.isfinite(target):
            rows = lambda z: torch.cat([_require_number("constrained", second(z)) - target, *self._other_rows(z)])  # noqa: E731
        if floor is not None:
            rows = lambda z: torch.cat(  # noqa: E731
                [floor - _require_number("constrained", self.constrained(z)), *self._other_rows(z)]
            )
        x = guess if guess is not None else start.x if isinstance(start, SolvedPoint) else start
        warm = start if isinstance(start, SolvedPoint) and math.isfinite(target) and not swapped else None
        solution = self._minimize_from_inside(loss, x.to(self.dtype), rows, warm)
        if solution is None:
            return self._point_without_solution(x, target)
        self.evaluations += solution.evaluations
        point = self._point(solution, target)
        if swapped and math.isfinite(target):
            multiplier = 1 / point.multiplier if point.multiplier > 0 else math.inf
            point = replace(point, multiplier=multiplier, target=point.c, penalty=self.settings.penalty_cap)
        return replace(point, origin=start.target) if isinstance(start, SolvedPoint) else point

    def limit_steps(self, most: int) -> None:
        """Let the solves from here on take at most so many outer steps: they only look for something better."""
        self.steps = min(self.steps, most)

    def _minimize(self, loss: Function, x: Tensor, rows: Function | None, warm: SolvedPoint | None) -> Solution:
        multipliers = equality_multipliers = None
        penalty = 10.0
        if warm is not None:
            multiplier = warm.multiplier if math.isfinite(warm.multiplier) else 0.0
            multipliers = torch.cat([torch.tensor([multiplier], dtype=torch.float64), warm.other_multipliers[0]])
            equality_multipliers = warm.other_multipliers[1]
            penalty = min(warm.penalty, self.settings.penalty_cap)
        return minimize(
            loss,
            x,
            inequality=rows,
            equality=self.equality,
            bounds=self.bounds,
            multipliers=multipliers,
            equality_multipliers=equality_multipliers,
            penalty=penalty,
            tolerance=self.tolerance,
            steps=self.steps,
        )

    def _other_rows(self, x: Tensor) -> list[Tensor]:
        return [] if self.inequality is None else [_require_row("inequality", self.inequality, x)]

    def _minimize_from_inside(
        self, loss: Function, x: Tensor, rows: Function | None, warm: SolvedPoint | None
    ) -> Solution | None:
        """Start at x, or on the way from there to the middle where gradients are finite: a root has none at 0."""
        middle = self.middle().to(x)
        for part in (0.0, *self.settings.inward):
            try:
                return self._minimize(loss, x + part * (middle - x) if part else x, rows, warm)
            except StartNotFinite:
                warm = None
        return None

    def _point(self, solution: Solution, target: float) -> SolvedPoint:
        f, c, violation = self.evaluate(solution.x)
        multipliers = solution.multipliers
        before = len(multipliers) - self.row_count  # the row of the target, or of a floor
        return SolvedPoint(
            solution.x,
            f,
            c,
            violation,
            float(multipliers[0]) if math.isfinite(target) else 0.0,
            (multipliers[before:].double().cpu(), solution.equality_multipliers.double().cpu()),
            solution.penalty,
            solution.residuals,
            solution.status,
            solution.message,
            target,
        )

    def _point_without_solution(self, x: Tensor, target: float) -> SolvedPoint:
        f, c, violation = self.evaluate(x)
        none = (torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
        message = "Values or gradients are not finite at the start and on the way inwards from it. Start elsewhere."
        return SolvedPoint(x, f, c, violation, math.nan, none, 10.0, _NO_RESIDUALS, "diverged", message, target)

    def bound_sides(self) -> tuple[Tensor, Tensor]:
        """Return lower and upper bounds of x0's shape, float64, infinite where there are none."""
        low, high = self.bounds if self.bounds is not None else (None, None)
        parts = [
            torch.as_tensor(default if side is None else side).detach().double().cpu()
            for side, default in ((low, -math.inf), (high, math.inf))
        ]
        return parts[0].broadcast_to(self.x0.shape), parts[1].broadcast_to(self.x0.shape)

    def middle(self) -> Tensor:
        """Return the middle of the bounds; where a variable has not both, a point off its bound or beyond x0."""
        low, high = self.bound_sides()
        x0 = self.x0.double().cpu()
        reach = 1 + x0.abs()
        inside = torch.where(low.isfinite(), low + reach, torch.where(high.isfinite(), high - reach, x0 + reach))
        return torch.where(low.isfinite() & high.isfinite(), (low + high) / 2, inside)

    def seed_start(self, number: int, near: Tensor) -> Tensor:
        """Return a seeded start: anywhere within bounds, or around x0 where there are none.

        Every other one keeps half of the entries of ``near``, or all but one: where variables act apart, part of a good
        answer is good.
        """
        draw = np.random.default_rng([self.seed, number])
        low, high = self.bound_sides()
        x0 = self.x0.double().cpu()
        reach = self.settings.spread * (1 + float(x0.abs().max()))
        low = torch.where(low.isfinite(), low, torch.minimum(x0, high) - reach)
        high = torch.where(high.isfinite(), high, torch.maximum(x0, low) + reach)
        first = np.random.default_rng(self.seed).uniform(0.0, 1.0, tuple(x0.shape))
        part = torch.from_numpy((first + number * _GOLDEN) % 1.0)  # each variable is covered evenly
        x = low + part * (high - low)
        if number % 2 == 0:
            chance = draw.uniform(0.0, 1.0, tuple(x0.shape))
            kept = torch.from_numpy(chance < (0.5 if number % 4 == 0 else float(chance.max())))
            x = torch.where(kept, near.double().cpu(), x)
        return x.to(self.x0.device)


def _require_number(name: str, value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise InvalidInput(f"`{name}` gave {given}; wanted a tensor with one number.")
    return value.reshape(1)


def _require_row(name: str, function: Function | None, x: Tensor) -> Tensor:
    if function is None:
        return x.new_zeros(0)
    row = function(x)
    if not isinstance(row, Tensor) or row.ndim > 1:
        given = tuple(row.shape) if isinstance(row, Tensor) else type(row).__name__
        raise InvalidInput(f"`{name}` gave {given}; wanted a tensor of one row of values.")
    return row.reshape(-1)
