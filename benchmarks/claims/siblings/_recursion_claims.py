"""Recursive meta-distillation (arXiv 2601.13100): contraction, its tightness, drift, and the fixed point."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import safekd as kd
from safekd.safety import TruthProbability
from safekd.theory import divergence_from, fit_factor, recurse_distributions

from .._claim import Claim, Line, Picture, judge, say_tight
from .._teachers import make_digits


def _draw(rows: int, classes: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.softmax(2 * torch.randn(rows, classes, generator=g, dtype=torch.float64), -1)


def contraction(rows: int = 500, anchor: float = 0.3, generations: int = 12, seed: int = 0) -> Claim:
    """KL(p ‖ q_{n+1}) <= (1 - a) KL(p ‖ q_n), for perfect students and for students that sharpen."""
    base, start = _draw(rows, 5, seed), _draw(rows, 5, seed + 1)
    perfect = recurse_distributions(start, base, anchor=anchor, generations=generations)
    above = float((perfect.kl_to_anchor - perfect.bound).max())
    factor = fit_factor(perfect.kl_to_anchor.mean(-1)[-6:].numpy())
    # tightness: an anchor that leaves out a class, q = (s, 1 - s) with s close to 1
    corner = recurse_distributions([1 - 1e-6, 1e-6], [1.0, 0.0], anchor=anchor, generations=3)
    sharpened = recurse_distributions(
        start, base, anchor=anchor, generations=60, student=lambda q: torch.softmax(2 * q.log(), -1)
    )
    stays = float(sharpened.kl_to_anchor[-1].mean())
    worst = float(sharpened.factors.max())
    steps = list(range(generations + 1))
    mean = perfect.kl_to_anchor.mean(-1)
    lines = [
        Line("perfect student", steps, mean.tolist(), "o-"),
        Line("(1 - a)^n", steps, (float(mean[0]) * (1 - anchor) ** np.array(steps)).tolist(), "k--"),
        Line(
            "(1 - a)^2n",
            steps,
            (float(mean[-1]) * (1 - anchor) ** (2 * (np.array(steps) - generations))).tolist(),
            "k:",
        ),
        Line("student that sharpens", steps, sharpened.kl_to_anchor.mean(-1)[: generations + 1].tolist(), "s-."),
    ]
    holds = above <= 1e-12
    return Claim(
        number="2601.13100, contraction",
        statement="Anchored recursion contracts: KL(p ‖ q_{n+1}) <= (1 - a) KL(p ‖ q_n), so that generations converge "
        "to the base "
        "teachers.",
        reading="q_{n+1} = (1 - a) A(q_n) + a p with a > 0; A is what a student makes of its target, which the "
        "abstract leaves open.",
        ran=f"{rows} random starts and base distributions over five classes, a = {anchor}, A the identity (a perfect "
        "student); and A that sharpens with temperature 1/2.",
        found=f"Perfect students: never above (1 - a)^n KL(p ‖ q_0) (largest excess {max(above, 0):.0e}), fitted "
        f"factor {factor.factor:.4f} a generation. Students that sharpen: a generation multiplies the divergence by "
        f"up to {worst:.3g}, and the recursion ends {stays:.3f} nats from the base teachers.",
        verdict=judge(holds and stays < 1e-6, holds),
        condition="A does not carry q away from p (it is the identity, or KL(p ‖ A(q)) <= KL(p ‖ q)).",
        counterexample=f"A that sharpens with temperature 1/2: still {stays:.3f} nats from the anchor after 60 "
        "generations",
        tightness=f"{say_tight(abs(float(corner.factors[0]) - 1 + anchor) < 1e-3)} where the anchor leaves out a "
        f"class: p = (1, 0), q = (1 - 1e-6, 1e-6) gives {float(corner.factors[0]):.6f} = 1 - a. For anchors with "
        f"every class the factor tends to (1 - a)^2 = {(1 - anchor) ** 2:.2f}: the divergence is quadratic there.",
        picture=Picture("recursion", "generation n", "KL(p ‖ q_n), nats", lines, y_log=True),
        numbers={
            "excess": above,
            "factor": factor.factor,
            "corner": float(corner.factors[0]),
            "sharpened": stays,
            "sharpened_worst": worst,
        },
    )


def geometric_form(rows: int = 500, anchor: float = 0.3, seed: int = 2) -> Claim:
    """The geometric recursion contracts log-odds by exactly 1 - a."""
    base, start = _draw(rows, 5, seed), _draw(rows, 5, seed + 1)
    run = recurse_distributions(start, base, anchor=anchor, generations=10, form="geometric")
    odds = run.q.log() - base.log()
    spread = (odds.amax(-1) - odds.amin(-1)).clamp_min(0)  # Hilbert's metric
    factors = (spread[1:] / spread[:-1])[:6]
    off = float((factors - (1 - anchor)).abs().max())
    above = float((run.kl_to_anchor - run.bound).max())
    return Claim(
        number="2601.13100, geometric form",
        statement="Anchored geometric recursion contracts at 1 - a per generation as well.",
        ran=f"{rows} random starts and bases over five classes, a = {anchor}, perfect students; Hilbert's metric and "
        "KL.",
        found=f"Hilbert's distance is multiplied by 1 - a, to {off:.0e}; KL(p ‖ q_n) exceeds (1 - a)^n KL(p ‖ q_0) by "
        f"{max(above, 0):.0e}.",
        verdict=judge(off < 1e-9 and above <= 1e-12),
        tightness="Exact in Hilbert's metric, the range of log q - log p.",
        numbers={"off": off, "above": above},
    )


def drift(samples: int = 50, generations: int = 60, runs: int = 2000, seed: int = 3, anchor: float = 0.3) -> Claim:
    """Unanchored recursion drifts: students that learn from samples of the last generation."""
    random = np.random.default_rng(seed)
    p = np.array([0.4, 0.3, 0.2, 0.1])
    paths = {}
    for name, share in (("free", 0.0), ("anchored", anchor)):
        q = np.tile(p, (runs, 1))
        kept = [q]
        for _ in range(generations):
            target = (1 - share) * q + share * p
            q = random.multinomial(samples, target) / samples
            kept.append(q)
        paths[name] = np.stack(kept)
    diversity = {name: 1 - (path**2).sum(-1).mean(1) for name, path in paths.items()}
    promised = diversity["free"][0] * (1 - 1 / samples) ** np.arange(generations + 1)
    off = float(np.abs(diversity["free"] / promised - 1).max())
    lost = {name: float((path[-1] == 0).any(-1).mean()) for name, path in paths.items()}
    distance = {name: np.square(path - p).sum(-1).mean(1) for name, path in paths.items()}
    grows = float(distance["free"][-1] / distance["free"][1])
    settles = float(distance["anchored"][-1] / distance["anchored"][generations // 2])
    steps = list(range(generations + 1))
    lines = [
        Line("unanchored", steps, diversity["free"].tolist(), "o"),
        Line("(1 - 1/N)^n", steps, promised.tolist(), "k--"),
        Line(f"anchored, a = {anchor}", steps, diversity["anchored"].tolist(), "s"),
    ]
    return Claim(
        number="2601.13100, drift",
        statement="Without an anchor recursion drifts away from the base teachers; with one it stays near them.",
        reading="A student is the frequencies of N samples of its target: the simplest one with an error of its own, "
        "unbiased.",
        ran=f"{runs:,} recursions of {generations} generations, N = {samples}, four classes, unanchored and with a = "
        f"{anchor}.",
        found=f"Unanchored: the squared distance grows {grows:.0f}-fold, {lost['free']:.0%} of the recursions lose a "
        f"class. Anchored: it settles (ratio of the second half {settles:.2f}), {lost['anchored']:.1%} have a class "
        "missing.",
        verdict=judge(off < 0.1 and grows > 10 and abs(settles - 1) < 0.2),
        tightness="Exact: without an anchor diversity 1 - sum q^2 falls by 1 - 1/N a generation, as measured within "
        f"{off:.1%} (Wright 1931).",
        picture=Picture("drift", "generation n", "diversity 1 - sum q^2", lines),
        numbers={
            "off": off,
            "grows": grows,
            "settles": settles,
            "lost_free": lost["free"],
            "lost_anchored": lost["anchored"],
        },
    )


def capacity_gap(anchor: float = 0.3, smoothing: float = 0.2, seed: int = 4) -> Claim:
    """The fixed point with students that fall short: where generations come to rest."""
    base, start = _draw(200, 5, seed), _draw(200, 5, seed + 1)
    uniform = torch.full_like(base, 1 / base.shape[-1])

    def fall_short(q: Tensor) -> Tensor:
        return (1 - smoothing) * q + smoothing * uniform

    run = recurse_distributions(start, base, anchor=anchor, generations=80, student=fall_short)
    # q* = (1 - a) ((1 - e) q* + e u) + a p
    expected = ((1 - anchor) * smoothing * uniform + anchor * base) / (1 - (1 - anchor) * (1 - smoothing))
    off = float((run.q[-1] - expected).abs().max())
    gap = float(divergence_from(base, run.q[-1]).mean())
    once = float(divergence_from(base, fall_short(base)).mean())
    factor = fit_factor(run.moved.mean(-1)[:30].numpy()).factor
    return Claim(
        number="2601.13100, fixed point",
        statement="Anchored recursion converges geometrically to a unique fixed point, the base teachers' "
        "distribution.",
        reading="With students that fall short of their target by a smoothing towards uniform, A(q) = (1 - e) q + e u.",
        ran=f"200 random starts and bases, a = {anchor}, e = {smoothing}, 80 generations, and the fixed point worked "
        "out by hand.",
        found=f"Generations come to rest at the fixed point, to {off:.0e}, by a factor {factor:.4f} a generation ((1 - "
        f"a)(1 - e) = {(1 - anchor) * (1 - smoothing):.4f}); it is {gap:.3f} nats from the base teachers, one student "
        f"alone {once:.3f}.",
        verdict=judge(off < 1e-9 and gap < 1e-6, off < 1e-9 and abs(factor - (1 - anchor) * (1 - smoothing)) < 1e-6),
        condition="Students are perfect. Others have a unique fixed point too, where A moves no two distributions "
        "apart, but it is away from the base teachers, and farther than one student of theirs.",
        counterexample=f"students that smooth by {smoothing}: the fixed point is {gap:.3f} nats from the base teachers",
        tightness="The factor (1 - a)(1 - e) in total variation is exact.",
        numbers={"off": off, "gap": gap, "once": once, "factor": factor},
    )


def students_on_digits(anchor: float = 0.3, generations: int = 12, epochs: int = 200, seed: int = 0) -> Claim:
    """Trained students on digits, with scikit-learn's teachers and a safety constraint in each generation."""
    teachers, train = make_digits(seed, torch.float32)
    rule = kd.SafetyConstraint("eights", TruthProbability(critical=[8]), at_least=0.9)
    runs = {
        name: kd.recursive_distill(
            lambda: nn.Linear(64, 10),
            teachers,
            train,
            anchor=share,
            generations=generations,
            epochs=epochs,
            constraints=[rule],
            optimizer=lambda student: torch.optim.Adam(student.parameters(), lr=0.05),
            fixed_point=0.0,
            seed=seed,
        )
        for name, share in (("anchored", anchor), ("unanchored", 0.0))
    }
    held, free = runs["anchored"], runs["unanchored"]
    assert held.contraction is not None
    assert free.growth is not None
    low, high = held.contraction.factor_band
    kl = {name: [one.kl_to_anchor for one in run.generations] for name, run in runs.items()}
    least = min(one.safety["eights"] for run in runs.values() for one in run.generations)
    within = held.contraction.factor <= 1 - anchor
    return Claim(
        number="2601.13100, students",
        statement="Trained students contract under an anchor and drift without one; safety holds in every generation.",
        reading="A student is trained anew each generation, from the same first parameters; movement is total "
        "variation.",
        ran=f"`kd.recursive_distill` on 600 digits, three teachers of scikit-learn, a linear student, {generations} "
        f"generations of {epochs} epochs, a = {anchor} and a = 0, the true eights' probability at least 0.9 on "
        "average.",
        found=f"Anchored: movement changes by {held.contraction.factor:.3f} a generation, 95 % band {low:.3f} to "
        f"{high:.3f}; KL to the base teachers {kl['anchored'][0]:.4f} -> {kl['anchored'][-1]:.4f}. Unanchored: "
        f"{kl['unanchored'][0]:.4f} -> {kl['unanchored'][-1]:.4f}, by {free.growth.factor:.3f} a generation. Least "
        f"safety of any generation {least:.4f}.",
        verdict=judge(high < 1 and free.growth.low > 0 and held.safe and free.safe),
        tightness=f"The factor is {'at most' if within else 'above'} 1 - a = {1 - anchor:g}: trained students "
        f"{'add a contraction of their own' if within else 'bring movement of their own'}.",
        picture=Picture(
            "students",
            "generation",
            "KL(base teachers ‖ student), nats",
            [Line(name, list(range(len(values))), values, "o-") for name, values in kl.items()],
        ),
        numbers={
            "factor": held.contraction.factor,
            "high": high,
            "growth": free.growth.factor,
            "growth_low": free.growth.factor_band[0],
            "safety": least,
        },
    )
