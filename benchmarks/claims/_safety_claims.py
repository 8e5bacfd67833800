"""Section VIII: Pareto points and multipliers, KKT conditions, and safety that students inherit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import safekd as kd
from safekd.safety import Margin, OneMinusBrier, Recall, SafetyMeasure, TruthProbability
from safekd.teachers import StoredTeacher

from ._claim import Claim, Line, Picture, judge, say_tight

Q = (0.3, 0.5, 0.2)  # the teachers' pool; class 0 is the critical one
_LOWEST, _HIGHEST = Q[0], 0.9


def _least_loss(s: np.ndarray) -> np.ndarray:
    """Return KL(q ‖ p) of the best distribution with p_0 = s, a student of free logits."""
    return Q[0] * np.log(Q[0] / s) + (1 - Q[0]) * np.log((1 - Q[0]) / (1 - s))


def _curved_loss(s: np.ndarray) -> np.ndarray:
    """Return the loss of a student with one parameter s = p_0, whose p_1 : p_2 is off so that it is concave."""
    return 1.2 * _least_loss(np.array(_HIGHEST)) * np.sqrt((s - _LOWEST) / (_HIGHEST - _LOWEST))


def is_realizable(s: np.ndarray) -> bool:
    """Say whether distributions with p_0 = s and ``_curved_loss`` exist."""
    left = (_curved_loss(s) - _least_loss(s)) / (1 - Q[0])  # any value from 0 on is taken by some p_1 : p_2
    return bool((left >= -1e-12).all())


def pareto(multipliers: int = 400) -> Claim:
    """VIII.5: which Pareto points a grid of multipliers reaches, on a convex and on a concave frontier."""
    s = np.linspace(_LOWEST, _HIGHEST, 2001)[1:-1]
    fronts = {"convex": _least_loss(s), "concave": _curved_loss(s)}
    weight = np.concatenate([[0.0], np.geomspace(1e-3, 30, multipliers)])
    reached = {name: np.unique((f[None] - weight[:, None] * s[None]).argmin(1)) for name, f in fronts.items()}
    widest = {name: float(np.diff(s[places]).max(initial=0.0)) for name, places in reached.items()}
    pareto_only = all(
        bool((np.diff(f) > 0).all()) for f in fronts.values()
    )  # loss rises with safety: all points are Pareto
    # constraints instead: the least loss with safety of at least each threshold is the point itself
    by_constraint = {
        name: len({int(np.flatnonzero(s >= at)[f[s >= at].argmin()]) for at in s[::20]}) for name, f in fronts.items()
    }
    fine = {name: widest[name] < 0.05 for name in fronts}
    lines = [Line(f"{name} frontier", s.tolist(), f.tolist(), "-") for name, f in fronts.items()]
    lines += [
        Line(f"reached by multipliers, {name}", s[places].tolist(), fronts[name][places].tolist(), "o")
        for name, places in reached.items()
    ]
    return Claim(
        number="VIII.5",
        statement="The Pareto-optimal solutions of loss and safety are characterized by the Lagrangian, one for each "
        "mu >= 0.",
        ran=f"{multipliers + 1} multipliers from 0 to 30 on the frontier of a student of free logits, which is convex, "
        "and on that of a student with one parameter, which is concave; and constrained problems on both.",
        found=f"Convex: {len(reached['convex'])} points, no gap wider than {widest['convex']:.3f} in safety. Concave: "
        f"{len(reached['concave'])} points, a gap of {widest['concave']:.2f}. Thresholds as constraints reach "
        f"{by_constraint['convex']} and {by_constraint['concave']} of {len(s[::20])}.",
        verdict=judge(pareto_only and all(fine.values()), pareto_only and fine["convex"]),
        condition="The frontier is convex (strong duality, as the proof assumes). Each minimizer for mu > 0 is a "
        "Pareto point on any frontier; that all are found needs convexity. Constraints find all on both.",
        counterexample=f"a concave frontier: {multipliers + 1} multipliers find its {len(reached['concave'])} ends and "
        "nothing between",
        picture=Picture("pareto", "safety", "loss, nats", lines),
        numbers={
            "convex_points": len(reached["convex"]),
            "concave_points": len(reached["concave"]),
            "convex_gap": widest["convex"],
            "concave_gap": widest["concave"],
            "constrained": by_constraint["concave"] / len(s[::20]),
            "realizable": float(is_realizable(s)),
        },
    )


class _OneRow(nn.Module):
    """One row of free logits, whatever the input."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, len(Q), dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.logits.expand(len(inputs), -1)


def multiplier(epochs: int = 1500, threshold: float = 0.6) -> Claim:
    """VIII.6: a multiplier exists and is found; where no constraint qualification holds there is none."""
    student = _OneRow()
    split = kd.Split("train", torch.zeros(3, 1, dtype=torch.float64), torch.arange(3))
    rule = kd.SafetyConstraint("class 0", TruthProbability(critical=[0]), at_least=threshold)
    trainer = kd.ConstrainedTrainer(
        student,
        [StoredTeacher("pool", torch.tensor([Q] * 3, dtype=torch.float64))],
        constraints=[rule],
        optimizer=torch.optim.Adam(student.parameters(), lr=0.05),
    )
    result = trainer.fit(split, epochs=epochs, tolerance=1e-5)
    optimal = (1 - Q[0]) / (1 - threshold) - Q[0] / threshold
    residual = max(vars(result.residuals).values())
    reached = result.multipliers["class 0"]
    # one parameter: p_0 = 0.6 - theta^2 is at its most where theta = 0, the only feasible point; p_1 moves with theta
    step = 1e-5
    slopes = [(f(step) - f(-step)) / (2 * step) for f in (_degenerate_loss, lambda x: 0.6 - x * x)]
    least = abs(slopes[0]) if abs(slopes[1]) < 1e-9 else 0.0  # min over mu of |dL - mu dS|
    exists = residual < 1e-3 and abs(reached - optimal) < 1e-2 * optimal
    return Claim(
        number="VIII.6",
        statement="At every solution of the safety-constrained problem there is a multiplier that satisfies the KKT "
        "conditions.",
        ran=f"`kd.ConstrainedTrainer` on a student of free logits with safety of at least {threshold}, whose "
        "multiplier is known; and a student p_0 = 0.6 - theta^2, p_1 = 0.3 + theta/10, asked for 0.6, so that theta "
        "= 0 alone is feasible.",
        found=f"The trainer ends with multiplier {reached:.4f}, the optimal one is {optimal:.4f}; KKT residuals are "
        f"{residual:.1e} at most.",
        verdict=judge(exists and least < 1e-6, exists),
        condition="A constraint qualification holds at the solution, Slater's in the convex case, or a gradient of "
        "the safety that is not zero.",
        counterexample="p_0 = 0.6 - theta^2 >= 0.6: at theta = 0 the safety's gradient is zero, the loss's is "
        f"{slopes[0]:.3f}; no multiplier brings the residual below {least:.3f}",
        numbers={"reached": reached, "optimal": optimal, "residual": residual, "no_multiplier": least},
    )


def _degenerate_loss(theta: float) -> float:
    p = (0.6 - theta**2, 0.3 + theta / 10, 0.1 - theta / 10 + theta**2)
    return sum(q * math.log(q / x) for q, x in zip(Q, p, strict=True))


def inherited_safety(draws: int = 3000, seed: int = 0) -> Claim:
    """VIII.7 with concave measures: Jensen's inequality, and a student that cannot match its target."""
    gaps = {m.__class__.__name__: _jensen_gaps(m, draws, seed) for m in (TruthProbability(), OneMinusBrier(), Margin())}
    least = {name: float(gap.min()) for name, gap in gaps.items()}
    # two inputs with labels 0 and 1, the teachers' pool 0.9 right on both; a student with one row of logits for both
    # ends at the minimizer of its cross-entropy, their average
    pool, labels, measure = (
        torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64),
        torch.tensor([0, 1]),
        OneMinusBrier(),
    )
    matched = float(measure.measured(pool.log(), labels).mean())
    limited = float(measure.measured(pool.mean(0).expand(2, -1).log(), labels).mean())
    concave = min(least.values()) >= -1e-9
    return Claim(
        number="VIII.7",
        statement="With a concave measure the student's expected safety is at least that of the weighted teachers.",
        reading="The ensemble's expected safety is read as sum_k w_k Safety(p_k). Read as the safety of the pool, a "
        "student that matches the pool has just that, and concavity plays no part.",
        ran=f"{draws:,} random teachers, labels and conforming weights, three concave measures, the student at its "
        "target; and a student with one row of logits for two inputs of different label.",
        found="Least margin of pool over teachers: "
        + ", ".join(f"{name} {value:.1e}" for name, value in least.items())
        + ".",
        verdict=judge(concave and limited >= matched, concave),
        condition="The student matches the weighted ensemble, which VI.2 (ii) gives only under conditions of its own "
        "and in the realizable case (A3).",
        counterexample=f"a student that cannot tell inputs apart: safety {limited:.2f}, its teachers' {matched:.2f}",
        tightness=f"{say_tight(abs(least['TruthProbability']) < 1e-9)}: linear measures such as the probability of the "
        "truth give equality.",
        numbers={**least, "limited": limited, "matched": matched},
    )


def not_concave(draws: int = 3000, seed: int = 1) -> Claim:
    """VIII.7 without concavity."""
    gap = _jensen_gaps(Recall(critical=[0, 1, 2]), draws, seed)
    p = torch.tensor([[0.51, 0.49], [0.0, 1.0]], dtype=torch.float64)
    pool = p.mean(0)
    right = [float(row.argmax() == 0) for row in p]
    return Claim(
        number="VIII.7, any measure",
        statement="The same for a safety measure that is not concave, such as recall (whether the largest probability "
        "is right).",
        ran=f"{draws:,} random teachers, labels and conforming weights, the student at its target.",
        found=f"In {float((gap < 0).double().mean()):.1%} of the draws the pool is less safe than its teachers on "
        f"average, by up to {-float(gap.min()):.2f}.",
        verdict=judge(bool((gap >= 0).all())),
        counterexample="teachers (.51, .49) and (0, 1), weights 1/2, label 0: the teachers' recall is "
        f"{np.mean(right):.1f}, the pool ({pool[0]:.3f}, {pool[1]:.3f}) has {float(pool.argmax() == 0):.0f}",
        numbers={
            "worst": float(gap.min()),
            "share": float((gap < 0).double().mean()),
            "teachers": float(np.mean(right)),
            "pool": float(pool.argmax() == 0),
        },
    )


def _jensen_gaps(measure: SafetyMeasure, draws: int, seed: int) -> Tensor:
    """Return Safety(sum_k w_k p_k) - sum_k w_k Safety(p_k) for random teachers, labels and weights, (draws,)."""
    g = torch.Generator().manual_seed(seed)
    p_BKV = torch.softmax(2 * torch.randn(draws, 3, 3, generator=g, dtype=torch.float64), -1)
    w_BK = kd.project(
        torch.randn(draws, 3, generator=g, dtype=torch.float64), kd.WeightPolytope(n_teachers=3, lower=0.1, upper=0.6)
    )
    label_B = torch.randint(0, 3, (draws,), generator=g)
    read: Callable[[Tensor], Tensor] = lambda p: measure.measured(p.log(), label_B)  # noqa: E731
    pooled = read((w_BK[..., None] * p_BKV).sum(1))
    return pooled - sum(w_BK[:, k] * read(p_BKV[:, k]) for k in range(3))
