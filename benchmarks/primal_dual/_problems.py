"""Problems with answers that are known: by hand, by a formula of their front, or from a convex solver.

    table      small problems with answers worked out by hand, three of them traps
    frontier   one objective under a bound on another: ZDT2 (its front is concave) and BNH (curved, two more rows)
    QP         random strongly convex quadratics, about half of the rows binding or violated at the free minimizer

Signs: ``solvers.lagrangian``.  Axes: n variables, M inequalities, E equalities.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

Values = tuple[Tensor, Tensor, Tensor]
Evaluate = Callable[[Sequence[Tensor]], Values]
RATE = 0.01


def adam(x: Sequence[Tensor]) -> torch.optim.Optimizer:
    """Return Adam at RATE, what a problem without an optimizer of its own is solved with."""
    return torch.optim.Adam(x, lr=RATE)


@dataclass(frozen=True)
class Sample:
    """What one step sees: the problem on a batch.

    evaluate: parameters to (f, g_M, h_E), with gradients.  present_M: bool, False where the batch says nothing of an
    inequality, whose value is then 0 without a gradient; None where it speaks of all of them.
    """

    evaluate: Evaluate
    present_M: Tensor | None = None


@dataclass(frozen=True)
class Problem:
    """``min f  s.t.  g <= 0 (M), h = 0 (E), lower <= x <= upper``, stated on a list of parameters.

    start: fresh parameters, the same each time.  evaluate: parameters to (f, g_M, h_E), with gradients.
    best: the least f, None where it is not known.  truth: what is to be found: "solution", or a verdict.
    lower, upper: bounds of all variables, None for none.  steps: evaluations that a contender may spend; seconds: of
    the processor, after which a run ends in any case.
    whole: run through all steps even if solved before.  every: steps between two looks of the judge.
    optimizer: parameters to the primal optimizer of everybody; rate: its learning rate, which some dual rates follow.
    samples: a fresh stream of what the steps see, the same each time; None where each step sees the whole problem.
    """

    name: str
    family: str
    start: Callable[[], list[Tensor]]
    evaluate: Evaluate
    M: int
    E: int
    best: float | None = None
    truth: str = "solution"
    lower: Tensor | None = None
    upper: Tensor | None = None
    steps: int = 3000
    seconds: float = 20.0
    whole: bool = False
    every: int = 20
    optimizer: Callable[[Sequence[Tensor]], torch.optim.Optimizer] = adam
    rate: float = RATE
    samples: Callable[[], Iterator[Sample]] | None = None

    def stream(self) -> Iterator[Sample]:
        """Return what the steps of one run see, from the first on; it never ends."""
        return itertools.repeat(Sample(self.evaluate)) if self.samples is None else self.samples()

    def clip(self, x: Sequence[Tensor]) -> None:
        """Put the variables back between their bounds."""
        if self.lower is not None or self.upper is not None:
            with torch.no_grad():
                for part in x:
                    part.clamp_(self.lower, self.upper)


def _stated(
    name: str,
    start: Sequence[float],
    f: Callable[[Tensor], Tensor],
    g: Callable[[Tensor], Tensor] | None = None,
    h: Callable[[Tensor], Tensor] | None = None,
    **more: object,
) -> Problem:
    """State a problem on one vector of float64."""
    first = torch.tensor(start, dtype=torch.float64)

    def evaluate(x: Sequence[Tensor]) -> Values:
        none = x[0].new_zeros(0)
        return f(x[0]), none if g is None else g(x[0]), none if h is None else h(x[0])

    _, g_M, h_E = evaluate([first])
    options = {"family": "table", **more}
    return Problem(
        name, start=lambda: [first.clone().requires_grad_()], evaluate=evaluate, M=len(g_M), E=len(h_E), **options
    )


def table() -> list[Problem]:
    """Return the small problems; traps are those whose truth is a verdict, or whose start or curvature misleads."""
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    A_Mn, b_M = _rows(5, 10)
    least_norm = _convex(2 * np.eye(10), np.zeros(10), A_Mn.numpy(), b_M.numpy())
    e = 0.5
    return [
        _stated("least squares, one equality", [0, 0], lambda x: (x**2).sum(), h=lambda x: x.sum()[None] - 1, best=0.5),
        _stated("circle, from its maximiser", [1, 1], lambda x: x.sum(), h=lambda x: (x**2).sum()[None] - 2, best=-2.0),
        _stated("linear, x >= 1", [0], lambda x: x[0], g=lambda x: 1 - x, best=1.0),
        _stated("least norm, 5 rows", [0] * 10, lambda x: (x**2).sum(), g=lambda x: A_Mn @ x - b_M, best=least_norm),
        _stated(
            "concave, x <= 1/2",
            [0],
            lambda x: -((x[0] + 1) ** 2),
            g=lambda x: x - e,
            best=-((e + 1) ** 2),
            lower=zero,
            upper=one,
        ),
        _stated(
            "no point", [0], lambda x: x[0] ** 2, g=lambda x: torch.stack([1 - x[0], x[0] + 1]), truth="infeasible"
        ),
        _stated("no multiplier", [1], lambda x: x[0], g=lambda x: x**2, best=0.0, truth="no_multiplier"),
    ]


def frontier() -> list[Problem]:
    """Return points of fronts: ZDT2 with 30 variables, BNH on both of its arcs."""
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    made = [
        _stated(
            f"ZDT2, f1 <= {e:g}",
            [0.5] * 30,
            _zdt2,
            g=lambda x, e=e: x[:1] - e,
            best=1 - e**2,
            lower=zero,
            upper=one,
            family="frontier",
        )
        for e in (0.25, 0.5, 0.75)
    ]
    for e in (20.0, 50.0, 100.0):
        best = 2 * (5 - math.sqrt(e / 8)) ** 2 if e <= 72 else 4 + (5 - math.sqrt((e - 36) / 4)) ** 2
        made.append(
            _stated(
                f"BNH, f1 <= {e:g}",
                [1.0, 1.0],
                lambda x: ((x - 5) ** 2).sum(),
                g=lambda x, e=e: _bnh_rows(x, e),
                best=best,
                lower=torch.zeros(2, dtype=torch.float64),
                upper=torch.tensor([5.0, 3.0], dtype=torch.float64),
                family="frontier",
            )
        )
    return made


def _zdt2(x: Tensor) -> Tensor:
    spread = 1 + 9 * x[1:].mean()
    return spread * (1 - (x[0] / spread) ** 2)


def _bnh_rows(x: Tensor, e: float) -> Tensor:
    return torch.stack(
        [
            4 * (x**2).sum() - e,
            (x[0] - 5) ** 2 + x[1] ** 2 - 25,
            7.7 - (x[0] - 8) ** 2 - (x[1] + 3) ** 2,
        ]
    )


QP_SIZES = ((10, 5), (50, 20), (200, 50), (1000, 200))


def quadratics(sizes: Sequence[tuple[int, int]] = QP_SIZES, seeds: Sequence[int] = (0, 1)) -> list[Problem]:
    """Return random quadratics ``x'Px/2 + q'x, Gx <= d``, eigenvalues of P between 0.1 and about 4."""
    return [_quadratic(n, M, seed) for n, M in sizes for seed in (seeds if n < 1000 else seeds[:1])]


def _quadratic(n: int, M: int, seed: int) -> Problem:
    random = np.random.default_rng([seed, n, M])
    root_nn = random.standard_normal((n, n))
    P_nn, q_n = root_nn @ root_nn.T / n + 0.1 * np.eye(n), random.standard_normal(n)
    G_Mn = random.standard_normal((M, n)) / math.sqrt(n)
    d_M = G_Mn @ -np.linalg.solve(P_nn, q_n) + 0.5 * random.standard_normal(M)
    P, q, G, d = (torch.from_numpy(part) for part in (P_nn, q_n, G_Mn, d_M))
    return _stated(
        f"QP {n} x {M}, {seed}",
        [0.0] * n,
        lambda x: 0.5 * x @ (P @ x) + q @ x,
        g=lambda x: G @ x - d,
        best=_convex(P_nn, q_n, G_Mn, d_M),
        family="QP",
        every=20 if n < 1000 else 50,
    )


def _rows(M: int, n: int) -> tuple[Tensor, Tensor]:
    """Return A with singular values between 1.5 and 2.5, and b of length 1."""
    random = np.random.default_rng(0)
    left, _ = np.linalg.qr(random.standard_normal((M, M)))
    right, _ = np.linalg.qr(random.standard_normal((n, n)))
    b_M = random.standard_normal(M)
    A_Mn = left @ np.diag(random.uniform(1.5, 2.5, M)) @ right[:M]
    return torch.from_numpy(A_Mn), torch.from_numpy(b_M / np.linalg.norm(b_M))


def _convex(P_nn: np.ndarray, q_n: np.ndarray, G_Mn: np.ndarray, d_M: np.ndarray) -> float:
    x_n = cp.Variable(len(q_n))
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x_n, cp.psd_wrap(P_nn)) + q_n @ x_n), [G_Mn @ x_n <= d_M])
    return float(problem.solve(solver=cp.CLARABEL))
