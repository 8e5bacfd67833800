"""The problem behind a frontier, one solve at a time, each counted against the budget.

    minimise  f(x) + mu c(x)   subject to   c(x) <= target,  g(x) <= 0,  h(x) = 0,  bounds

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

Function = Callable[[Tensor], Tensor]
Bounds = tuple[Tensor | float | None, Tensor | float | None] | None

_INSIDE = (1e-3, 0.1, 0.5)  # how far a start whose gradients are not finite is moved inwards
_GOLDEN = (5**0.5 - 1) / 2
_STIFF = 1e3  # a penalty beyond this slows a neighbour more than it helps
_SPREAD = 2.0  # how far seeded starts lie where there are no bounds, in units of 1 + |x0|
_NOTHING = KKTResiduals(math.nan, math.nan, math.nan, math.nan)


class BudgetSpent(Exception):
    """No solve is left."""


@dataclass(frozen=True)
class Answer:
    """A point that a solve ended in.  f, c: at x.  violation: of the rows besides the target, the largest.

    price: multiplier of the target; others: those of g and h, to start from.  asked: the target of the solve,
    infinite where there was none.  origin: the target that its start had answered.
    """

    x: Tensor
    f: float
    c: float
    violation: float
    price: float
    others: tuple[Tensor, Tensor]
    penalty: float
    residuals: KKTResiduals
    status: str
    message: str
    asked: float
    origin: float = math.nan

    @property
    def sound(self) -> bool:
        """Whether residuals speak for it."""
        return self.status == "converged"

    def missed(self, target: float) -> float:
        """Return the largest violation with the target among the rows."""
        return max(self.violation, self.c - target, 0.0)


@dataclass
class Task:
    """What is asked, and what was spent.  feasible: the violation of rows besides the target that counts as none."""

    objective: Function
    constrained: Function
    x0: Tensor
    inequality: Function | None
    equality: Function | None
    bounds: Bounds
    tolerance: float
    steps: int
    seed: int
    budget: int
    solves: int = 0
    evaluations: int = 0
    feasible: float = 1e-6
    rows: int = 0
    dtype: torch.dtype = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.x0, Tensor) or not self.x0.is_floating_point() or self.x0.numel() == 0:
            found = self.x0.dtype if isinstance(self.x0, Tensor) else type(self.x0).__name__
            raise InvalidInput(f"`x0` is {found}; wanted a tensor of at least one float, e.g. torch.zeros(3).")
        self.x0 = self.x0.detach()
        if not bool(torch.isfinite(self.x0).all()):
            raise InvalidInput("`x0` has entries that are not finite; start from finite numbers.")
        self.dtype = self._dtype()

    def _dtype(self) -> torch.dtype:
        """Return float64, or x0's dtype where the functions refuse that."""
        try:
            self._values(self.x0.double())
        except RuntimeError:
            if self.x0.dtype == torch.float64:
                raise
            self._values(self.x0)
            return self.x0.dtype
        return torch.float64

    def _values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return f, c, g (M,) and h (E,)."""
        f, c = _number("objective", self.objective(x)), _number("constrained", self.constrained(x))
        g_M = _row("inequality", self.inequality, x)
        self.rows = len(g_M)
        return f, c, g_M, _row("equality", self.equality, x)

    def at(self, x: Tensor) -> tuple[float, float, float]:
        """Return f, c and the largest violation of the rows besides the target."""
        self.evaluations += 1
        with torch.no_grad():
            f, c, g_M, h_E = self._values(x)
        missed = torch.cat([g_M.clamp_min(0), h_E.abs()]).double()
        return float(f), float(c), float(missed.max()) if missed.numel() else 0.0

    def solve(
        self,
        start: Answer | Tensor,
        *,
        target: float = math.inf,
        weight: float = 0.0,
        swapped: bool = False,
        guess: Tensor | None = None,
        floor: float | None = None,
    ) -> Answer:
        """Minimise f + weight c subject to c <= target, from a start; an answer also gives its multipliers.

        swapped: minimise c + weight f subject to f <= target instead; the answer is one to the c that it reached.
        guess: x to begin from with the multipliers of ``start``.  floor: keep c at least there, instead of a target.
        Raises BudgetSpent where no solve is left.
        """
        if self.solves >= self.budget:
            raise BudgetSpent
        self.solves += 1
        first, second = (self.constrained, self.objective) if swapped else (self.objective, self.constrained)
        loss = first if weight == 0 else (lambda x: first(x) + weight * second(x))
        held = self.inequality
        if math.isfinite(target):
            held = lambda z: torch.cat([_number("constrained", second(z)) - target, *self._besides(z)])  # noqa: E731
        if floor is not None:
            held = lambda z: torch.cat([floor - _number("constrained", self.constrained(z)), *self._besides(z)])  # noqa: E731
        x = guess if guess is not None else start.x if isinstance(start, Answer) else start
        warm = start if isinstance(start, Answer) and math.isfinite(target) and not swapped else None
        found = self._from_inside(loss, x.to(self.dtype), held, warm)
        if found is None:
            return self._nothing(x, target)
        self.evaluations += found.evaluations
        answer = self._answer(found, target)
        if swapped and math.isfinite(target):
            price = 1 / answer.price if answer.price > 0 else math.inf
            answer = replace(answer, price=price, asked=answer.c, penalty=_STIFF)
        return replace(answer, origin=start.asked) if isinstance(start, Answer) else answer

    def _minimize(self, loss: Function, x: Tensor, rows: Function | None, warm: Answer | None) -> Solution:
        multipliers = equality_multipliers = None
        penalty = 10.0
        if warm is not None:
            price = warm.price if math.isfinite(warm.price) else 0.0
            multipliers = torch.cat([torch.tensor([price], dtype=torch.float64), warm.others[0]])
            equality_multipliers, penalty = warm.others[1], min(warm.penalty, _STIFF)
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

    def _besides(self, x: Tensor) -> list[Tensor]:
        return [] if self.inequality is None else [_row("inequality", self.inequality, x)]

    def _from_inside(self, loss: Function, x: Tensor, rows: Function | None, warm: Answer | None) -> Solution | None:
        """Start at x, or on the way from there to the middle where gradients are finite: a root has none at 0."""
        middle = self.middle().to(x)
        for part in (0.0, *_INSIDE):
            try:
                return self._minimize(loss, x + part * (middle - x) if part else x, rows, warm)
            except StartNotFinite:
                warm = None
        return None

    def _answer(self, found: Solution, target: float) -> Answer:
        f, c, violation = self.at(found.x)
        held = found.multipliers
        beside = len(held) - self.rows  # the row of the target, or of a floor
        price = float(held[0]) if math.isfinite(target) else 0.0
        others = held[beside:]
        return Answer(
            found.x,
            f,
            c,
            violation,
            price,
            (others.double().cpu(), found.equality_multipliers.double().cpu()),
            found.penalty,
            found.residuals,
            found.status,
            found.message,
            target,
        )

    def _nothing(self, x: Tensor, target: float) -> Answer:
        f, c, violation = self.at(x)
        none = (torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
        message = "Values or gradients are not finite at the start and on the way inwards from it. Start elsewhere."
        return Answer(x, f, c, violation, math.nan, none, 10.0, _NOTHING, "diverged", message, target)

    def sides(self) -> tuple[Tensor, Tensor]:
        """Return lower and upper bounds of x0's shape, float64, infinite where there are none."""
        low, high = self.bounds if self.bounds is not None else (None, None)
        parts = [
            torch.as_tensor(default if side is None else side).detach().double().cpu()
            for side, default in ((low, -math.inf), (high, math.inf))
        ]
        return parts[0].broadcast_to(self.x0.shape), parts[1].broadcast_to(self.x0.shape)

    def middle(self) -> Tensor:
        """Return the middle of the bounds; where a variable has not both, a point off its bound or beyond x0."""
        low, high = self.sides()
        x0 = self.x0.double().cpu()
        reach = 1 + x0.abs()
        inside = torch.where(low.isfinite(), low + reach, torch.where(high.isfinite(), high - reach, x0 + reach))
        return torch.where(low.isfinite() & high.isfinite(), (low + high) / 2, inside)

    def start(self, number: int, near: Tensor) -> Tensor:
        """Return a seeded start: anywhere within bounds, or around x0 where there are none.

        Every other one keeps half of the entries of ``near``, or all but one: where variables act apart, part of a good
        point is good.
        """
        draw = np.random.default_rng([self.seed, number])
        low, high = self.sides()
        x0 = self.x0.double().cpu()
        reach = _SPREAD * (1 + float(x0.abs().max()))
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


def _number(name: str, value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise InvalidInput(f"`{name}` gave {found}; wanted a tensor with one number.")
    return value.reshape(1)


def _row(name: str, function: Function | None, x: Tensor) -> Tensor:
    if function is None:
        return x.new_zeros(0)
    row = function(x)
    if not isinstance(row, Tensor) or row.ndim > 1:
        found = tuple(row.shape) if isinstance(row, Tensor) else type(row).__name__
        raise InvalidInput(f"`{name}` gave {found}; wanted a tensor of one row of values.")
    return row.reshape(-1)
