"""Section VI: does stochastic gradient descent converge, to what, and how fast?  (VI.2, VI.6, VI.7)"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from safekd import ConstrainedTrainer, Split, WeightPolytope
from safekd.teachers import StoredTeacher
from safekd.weights import Rule, Unified, Uniform

from ._claim import Claim, Line, Picture, judge, say_tight
from ._descent import Descent, TabularProblem, count_frequencies, descend, descend_scalar, softmax
from ._teachers import pool_targets, teachers, weigh

RIDGE = 0.05
O_OF_1_OVER_T = -0.9  # a band that ends above this slope is slower than 1/t


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _binary_kl(q: float, p: float) -> float:
    return max(q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p)), 0.0)


def almost_sure(steps: int = 20_000, runs: int = 100, seed: int = 0) -> Claim:
    """VI.2 (i), and a student that meets (A1) to (A4) and diverges."""
    problem = TabularProblem(pool_targets(weigh("entropy decay")), RIDGE)
    run = descend(problem, 1 / problem.curvature, steps, runs, seed)
    early, late = run.marks <= steps / 10, run.marks > steps / 10
    # from the last tenth of the logarithm on, the farthest that each path is from the optimum
    worst_early, worst_late = run.excess[:, early].max(1), run.excess[:, late].max(1)
    settled = float((worst_late < worst_early).mean())
    # logits (theta^3, 0), target 1/2: realizable at theta = 0, smooth, weights play no part
    path = descend_scalar(lambda x: (_sigmoid(min(x**3, 700.0)) - 0.5) * 3 * x**2, 1.0, 10.0, 50)
    diverged = not np.isfinite(path[-1])
    converged = settled == 1.0 and float(worst_late.max()) < 0.05
    return Claim(
        number="VI.2 (i)",
        statement="With eta_t = eta_0 / (1 + t) the loss converges almost surely, for every conforming operator.",
        reading='"Standard stochastic approximation assumptions" stay unnamed in the paper; (A1) to (A4) are '
        "taken alone first, then with a gradient that is Lipschitz where the path runs.",
        ran=f"SGD on cross-entropy with ridge {RIDGE} towards targets of conforming weights, {runs} runs of {steps:,} "
        "steps; and gradient descent on a student with logits (theta^3, 0), target (1/2, 1/2), theta_0 = 10, eta_0 = "
        "1.",
        found=f"{settled:.0%} of the paths are closer to the optimal loss over the last nine tenths of their steps "
        f"than before, the farthest of all within {worst_late.max():.2g} nats.",
        verdict=judge(converged and not diverged, converged),
        condition="The gradient is Lipschitz on the way (the usual assumption; (A4) asks for two derivatives only).",
        counterexample=f"logits (theta^3, 0) meet (A1) to (A4); |theta| overflows after {len(path) - 1} steps"
        if diverged
        else "",
        numbers={
            "settled": settled,
            "farthest": float(worst_late.max()),
            "steps_to_overflow": len(path) - 1 if diverged else 0,
        },
    )


def accumulation(steps: int = 20_000, ridge: float = RIDGE) -> Claim:
    """VI.2 (ii): the divergence from the target vanishes at every accumulation point."""
    targets = pool_targets(weigh("entropy decay"))
    theta, kl = np.zeros_like(targets), np.inf
    for t in range(steps):  # exact gradients of the mean over inputs; 12 / 1 is above 1 / (2 mu)
        theta -= 12 / (1 + t) * (softmax(theta) - targets) / len(targets)
    kl = float((targets * (np.log(targets) - np.log(softmax(theta)))).sum(-1).mean())
    stuck = descend_scalar(lambda x: (_sigmoid(x * x) - 0.75) * 2 * x, 1.0, 0.0, 1000)[-1]
    freed = descend_scalar(lambda x: (_sigmoid(x * x) - 0.75) * 2 * x, 8.0, 0.1, steps)[-1]
    kl_stuck, kl_freed = (_binary_kl(0.75, _sigmoid(x * x)) for x in (stuck, freed))
    regularized = softmax(TabularProblem(targets, ridge).optimum)
    kl_ridge = float((targets * (np.log(targets) - np.log(regularized))).sum(-1).mean())
    convex = kl < 1e-6
    return Claim(
        number="VI.2 (ii)",
        statement="At every accumulation point of the parameters the student's divergence from the target is zero.",
        ran=f"Gradient descent, {steps:,} steps: a student with free logits (convex); a student sigmoid(theta^2) with "
        f"target 0.75 from theta_0 = 0 and from 0.1; the minimizer under a ridge of {ridge}.",
        found=f"Free logits reach KL {kl:.1e}. The student sigmoid(theta^2) that begins at 0 keeps KL {kl_stuck:.4f} "
        f"for ever, the one that begins at 0.1 reaches {kl_freed:.1e}. Under the ridge that (iii) suggests the "
        f"optimum itself has KL {kl_ridge:.4f}.",
        verdict=judge(convex and kl_stuck < 1e-6 and kl_ridge < 1e-6, convex),
        condition="The loss is realizable without a regularizer, and strongly convex or Polyak-Lojasiewicz along the "
        "path.",
        counterexample=f"sigmoid(theta^2), target 0.75, theta_0 = 0: the gradient is zero, KL stays {kl_stuck:.4f}",
        tightness="(ii) and (iii) exclude each other where strong convexity comes from a ridge: its optimum has KL > "
        "0.",
        numbers={"kl_convex": kl, "kl_stuck": kl_stuck, "kl_freed": kl_freed, "kl_ridge": kl_ridge},
    )


def rate(steps: int = 60_000, runs: int = 300, seed: int = 1) -> Claim:
    """VI.2 (iii): the rate, above and below 1 / (2 mu), without strong convexity, and the lower bound."""
    targets = pool_targets(weigh("entropy decay"))
    problem, free = TabularProblem(targets, RIDGE), TabularProblem(targets)
    fast = descend(problem, 1 / problem.curvature, steps, runs, seed)
    slow = descend(problem, 0.2 / problem.curvature, steps, runs, seed + 1)
    counted = count_frequencies(free, steps, 10 * runs, seed + 2)
    flat = descend_scalar(lambda x: (_sigmoid(x**3) - 0.5) * 3 * x**2, 1.0, 0.8, steps)
    flat_kl = np.array([_binary_kl(0.5, _sigmoid(x**3)) for x in flat[fast.marks]])
    fits = {"fast": fast.rate(), "slow": slow.rate(), "counted": counted.rate()}
    flat_slope = float(np.polyfit(np.log(fast.marks[-8:]), np.log(flat_kl[-8:]), 1)[0])
    limit, bound = problem.constant(1 / problem.curvature), targets.shape[0] * (targets.shape[1] - 1) / 2
    tight = abs(fits["counted"].slope + 1) < 0.1 and abs(counted.mean[-1] * steps / bound - 1) < 0.15
    strongly = fits["fast"].high <= O_OF_1_OVER_T
    as_stated = strongly and fits["slow"].high <= O_OF_1_OVER_T
    lines = [
        _line("eta_0 = 1 / mu", fast),
        _line("eta_0 = 0.2 / mu", slow),
        Line("not strongly convex", fast.marks.tolist(), flat_kl.tolist(), "-."),
        _line("frequencies of t samples", counted, ":"),
        Line("N (V - 1) / 2t, no ridge", fast.marks.tolist(), (bound / fast.marks).tolist(), "k--"),
    ]
    return Claim(
        number="VI.2 (iii)",
        statement="Under strong convexity the expected excess loss is at most C / t, with eta_t = eta_0 / (1 + t).",
        ran=f"SGD with ridge {RIDGE}, {runs} runs of {steps:,} steps, eta_0 mu = 1 and 0.2; a student with logits "
        "(theta^3, 0), flat at its optimum; and the observed frequencies of t samples, which no estimator beats in "
        "the limit. Slope of log excess against log t over the last thirtieth to the end, 95 % band between 20 "
        "groups of runs.",
        found=f"Slope {_slope(fits['fast'])} with eta_0 mu = 1, {_slope(fits['slow'])} with eta_0 mu = 0.2 (theory: "
        f"-0.4 from the flattest direction), {flat_slope:.3f} where the loss is flat at the optimum.",
        verdict=judge(as_stated, strongly),
        condition="eta_0 > 1 / (2 mu), mu the curvature at the optimum; below it the rate is t^(-2 eta_0 mu).",
        counterexample=f"eta_0 = 0.2 / mu: slope {_slope(fits['slow'])}; without strong convexity: {flat_slope:.3f}",
        tightness=f"{say_tight(tight)}. t times excess ends at {fast.mean[-1] * steps:.2f}, theory says {limit:.2f} "
        f"for this eta_0; the Cramer-Rao bound for t samples is N (V - 1) / 2 = {bound:.0f}, frequencies give "
        f"{counted.mean[-1] * steps:.2f} with slope {_slope(fits['counted'])}: no method has a faster rate than 1 / t.",
        picture=Picture("rate", "steps t", "excess loss, nats", lines, x_log=True, y_log=True),
        numbers={
            **{f"{name}_{end}": getattr(fit, end) for name, fit in fits.items() for end in ("slope", "low", "high")},
            "flat_slope": flat_slope,
            "constant": float(fast.mean[-1] * steps),
            "constant_theory": limit,
            "lower_bound": float(counted.mean[-1] * steps) / bound,
        },
    )


def no_degradation(steps: int = 60_000, runs: int = 300, seed: int = 5) -> Claim:
    """VI.7: adaptive weights do not slow the rate down, and the rate eta_0 that makes it so."""
    fits, lines, constants = {}, [], {}
    for name in ("uniform", "entropy decay", "inverse entropy"):
        problem = TabularProblem(pool_targets(weigh(name)), RIDGE)
        run = descend(problem, 1 / problem.curvature, steps, runs, seed)
        fits[name], constants[name] = run.rate(), problem.constant(1 / problem.curvature)
        lines.append(_line(name, run))
    uniform = TabularProblem(pool_targets(weigh("uniform")))
    sharp = TabularProblem(pool_targets(weigh("entropy decay, wide bounds")))
    shared = 0.75 / uniform.curvature
    slow = descend(sharp, shared, steps, runs, seed)
    fits["shared"] = slow.rate()
    lines += [_line("sharp targets, eta_0 of uniform", slow, "-.")]
    own = all(fits[name].high <= O_OF_1_OVER_T for name in ("uniform", "entropy decay", "inverse entropy"))
    return Claim(
        number="VI.7",
        statement="Adaptive weighting does not degrade the rate O(1/t) of uniform weighting.",
        ran=f"SGD with ridge {RIDGE}, {runs} runs of {steps:,} steps, three conforming operators, eta_0 = 1 / mu of "
        "each; then without a ridge one that makes sharp targets, with an eta_0 that is large enough for uniform "
        "weights (eta_0 mu = 0.75).",
        found="Slopes "
        + ", ".join(f"{name} {_slope(fits[name])}" for name in constants)
        + "; constants C differ: "
        + ", ".join(f"{name} {value:.2f}" for name, value in constants.items())
        + ".",
        verdict=judge(own and fits["shared"].high <= O_OF_1_OVER_T, own),
        condition="eta_0 is chosen for the operator: sharper targets have less curvature, so that an eta_0 above 1 / "
        "(2 mu) for uniform weights may be below it for adaptive ones.",
        counterexample=f"eta_0 mu = 0.75 under uniform weights is {shared * sharp.curvature:.2f} under weights that "
        f"follow confident teachers: slope {_slope(fits['shared'])}, in the limit {-2 * shared * sharp.curvature:.2f}",
        picture=Picture("operators", "steps t", "excess loss, nats", lines, x_log=True, y_log=True),
        numbers={
            **{f"{name}_{end}": getattr(fit, end) for name, fit in fits.items() for end in ("slope", "low", "high")},
            "shared_theory": -2 * shared * sharp.curvature,
        },
    )


class _Rows(nn.Module):
    """A row of free logits an input."""

    def __init__(self, rows: int, classes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(rows, classes, dtype=torch.float64))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.logits[inputs[:, 0].long()]


def special_case(epochs: int = 40) -> Claim:
    """VI.6: uniform weights at all scales are classical distillation."""
    p_NKV = torch.as_tensor(teachers())
    n, k, v = p_NKV.shape
    split = Split(
        "train",
        torch.arange(n, dtype=torch.float64)[:, None],
        torch.zeros(n, dtype=torch.long),
        numbers=torch.arange(n),
    )
    box = WeightPolytope(n_teachers=k, lower=0.1, upper=0.6)

    def train(rows: list[torch.Tensor], rule: Rule | None) -> torch.Tensor:
        student = _Rows(n, v)
        stored = [StoredTeacher(f"teacher {i}", table) for i, table in enumerate(rows)]
        optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
        result = ConstrainedTrainer(student, stored, weights=rule, optimizer=optimizer).fit(split, epochs=epochs)
        return result.student.logits.detach()

    three = train(list(p_NKV.unbind(1)), Unified(token=Uniform(), task=Uniform(), context=Uniform(), polytope=box))
    classical = train([p_NKV.mean(1)], None)
    apart = float((three - classical).abs().max())
    return Claim(
        number="VI.6",
        statement="Uniform weights at all three scales recover classical distillation from the average teacher.",
        ran=f"Two students, {epochs} steps of Adam: one from three teachers under the unified operator of three "
        "uniform scales, one from their average.",
        found=f"Their logits differ by {apart:.1e} at most.",
        verdict=judge(apart < 1e-9),
        tightness="Exact, to rounding.",
        numbers={"apart": apart},
    )


def _line(label: str, run: Descent, style: str = "-") -> Line:
    return Line(label, run.marks.tolist(), run.mean.tolist(), style)


def _slope(fit: object) -> str:
    return f"{fit.slope:.3f} [{fit.low:.3f}, {fit.high:.3f}]"  # type: ignore[attr-defined]
