"""Pools of teachers (arXiv 2601.09165): convexity and temperature, variance, Jensen's gap, unsafe mass."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from safekd.pooling import arithmetic_pool, geometric_pool

from .._claim import Claim, judge, say_tight


def _draw(rows: int, teachers: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (B, K, V) and weights (B, K)."""
    g = torch.Generator().manual_seed(seed)
    log_p = torch.log_softmax(2 * torch.randn(rows, teachers, classes, generator=g, dtype=torch.float64), -1)
    return log_p, torch.softmax(torch.randn(rows, teachers, generator=g, dtype=torch.float64), -1)


def convexity_and_temperature(rows: int = 2000, seed: int = 0) -> Claim:
    """Can one pool be in the convex hull and commute with temperature?"""
    log_p, w = _draw(rows, 2, 5, seed)
    p = log_p.exp()
    softened = torch.log_softmax(log_p / 2, -1)
    gaps, outside = {}, {}
    for name, pool in (("arithmetic", arithmetic_pool), ("geometric", geometric_pool)):
        before, after = torch.log_softmax(pool(log_p, w) / 2, -1).exp(), pool(softened, w).exp()
        gaps[name] = float((before - after).abs().max())
        outside[name] = float(_distance_to_segment(pool(log_p, w).exp(), p).max())
    # a pool with both lies on the segment (convexity) and on the geometric curve (all temperatures): do they meet?
    share = torch.linspace(0.05, 0.95, 91, dtype=torch.float64)
    curve = geometric_pool(
        log_p[:, None].expand(-1, 91, -1, -1), torch.stack([share, 1 - share], -1).expand(rows, -1, -1)
    ).exp()
    apart = _distance_to_segment(curve, p[:, None].expand(-1, 91, -1, -1)).amin(-1)
    both = [name for name in gaps if gaps[name] < 1e-12 and outside[name] < 1e-12]
    return Claim(
        number="2601.09165, convexity and temperature coherence",
        statement="The axioms of ensemble operators, convexity and temperature coherence among them, admit operators.",
        reading="Convexity: the pool lies in the teachers' convex hull. Temperature coherence: pooling softened "
        "teachers is softening the pool, for every T. Both are taken strictly; the abstract does not say.",
        ran=f"{rows:,} pairs of teachers over five classes, both pools, T = 2; and the distance of the geometric curve "
        "from the segment of the teachers, for shares from 0.05 to 0.95.",
        found=f"Arithmetic: {outside['arithmetic']:.0e} outside the hull, commutes up to {gaps['arithmetic']:.2f}. "
        f"Geometric: up to {outside['geometric']:.2f} outside, commutes up to {gaps['geometric']:.0e}. Curve and "
        f"segment meet (within 1e-6) in {float((apart < 1e-6).double().mean()):.1%} of the pairs.",
        verdict=judge(bool(both)),
        counterexample="no pool with weight on two teachers has both: one that has is on the segment and on the "
        "geometric curve, which do not meet between the teachers",
        numbers={
            **{f"{n}_gap": x for n, x in gaps.items()},
            **{f"{n}_outside": x for n, x in outside.items()},
            "median_apart": float(apart.median()),
        },
    )


def _distance_to_segment(q: Tensor, p: Tensor) -> Tensor:
    """Return the distance of q (..., V) from the segment between p (..., 2, V)."""
    along = p[..., 1, :] - p[..., 0, :]
    t = (((q - p[..., 0, :]) * along).sum(-1) / (along**2).sum(-1)).clamp(0, 1)
    return (q - p[..., 0, :] - t[..., None] * along).norm(dim=-1)


def variance_reduction(draws: int = 20_000, seed: int = 1) -> Claim:
    """Var(sum_k w_k e_k) = w^T Sigma w: what uniform weights gain, and where they lose."""
    random = np.random.default_rng(seed)
    k = 4
    measured, predicted = [], []
    for correlation in (0.0, 0.5, 0.9):
        sigma = correlation * np.ones((k, k)) + (1 - correlation) * np.eye(k)
        e = random.multivariate_normal(np.zeros(k), sigma, draws)
        measured.append(float(e.mean(1).var()))
        predicted.append(float(sigma.mean()))
    agrees = bool(np.allclose(measured, predicted, rtol=0.05))
    spread = np.array([1.0, 9.0, 9.0, 9.0])  # one good teacher
    pooled, best = _pool_errors(random, spread, draws)
    return Claim(
        number="2601.09165, variance reduction",
        statement="The pool of teachers has less variance than its teachers.",
        reading="Less than every teacher alone, errors unbiased.",
        ran=f"{draws:,} draws of the errors of four teachers, equal variances with correlation 0, 0.5 and 0.9, and "
        "independent ones with variances 1, 9, 9, 9; uniform weights.",
        found="Variance of the pool: "
        + ", ".join(f"{m:.3f} (w'Sw = {p:.3f})" for m, p in zip(measured, predicted, strict=True))
        + f". With unequal teachers the pool has {pooled:.2f}, the best teacher {best:.2f}.",
        verdict=judge(agrees and max(measured) < 1 and pooled < best, agrees and max(measured) < 1),
        condition="The teachers' variances are alike (or the weights follow them), and their errors are not fully "
        "correlated: correlation r leaves r of the variance whatever K is.",
        counterexample=f"variances 1, 9, 9, 9: uniform pool {pooled:.2f}, best teacher {best:.2f}",
        tightness="w' Sigma w is exact.",
        numbers={"independent": measured[0], "half": measured[1], "high": measured[2], "pooled": pooled, "best": best},
    )


def _pool_errors(random: np.random.Generator, spread: np.ndarray, draws: int) -> tuple[float, float]:
    e = random.standard_normal((draws, len(spread))) * np.sqrt(spread)
    return float(e.mean(1).var()), float(e.var(0).min())


def jensen_gap(rows: int = 5000, seed: int = 2) -> Claim:
    """The pool's divergence from the truth is at most the teachers' on average."""
    log_p, w = _draw(rows, 4, 5, seed)
    g = torch.Generator().manual_seed(seed + 1)
    y = torch.softmax(torch.randn(rows, 5, generator=g, dtype=torch.float64), -1)
    alone = (w * _kl(y[:, None], log_p)).sum(-1)
    gaps = {
        name: alone - _kl(y, pool(log_p, w))
        for name, pool in (("arithmetic", arithmetic_pool), ("geometric", geometric_pool))
    }
    least = {name: float(gap.min()) for name, gap in gaps.items()}
    same = log_p[:, :1].expand(-1, 4, -1)
    equal = float(((w * _kl(y[:, None], same)).sum(-1) - _kl(y, arithmetic_pool(same, w))).abs().max())
    return Claim(
        number="2601.09165, Jensen",
        statement="sum_k w_k KL(y ‖ p_k) - KL(y ‖ pool) >= 0.",
        ran=f"{rows:,} random truths, weights and ensembles of four teachers over five classes, both pools.",
        found="Least gap: "
        + ", ".join(f"{name} {value:.2e}" for name, value in least.items())
        + ". For the geometric pool it is -log Z, whatever the truth is.",
        verdict=judge(min(least.values()) >= -1e-12),
        tightness=f"{say_tight(equal < 1e-12)}: equality for teachers that agree ({equal:.0e}).",
        numbers={**least, "equal": equal},
    )


def _kl(y: Tensor, log_p: Tensor) -> Tensor:
    return (torch.xlogy(y, y) - y * log_p).sum(-1)


def unsafe_mass(rows: int = 5000, seed: int = 3) -> Claim:
    """The pool's unsafe mass is at most the largest teacher's: of which pool?"""
    log_p, w = _draw(rows, 3, 5, seed)
    excess = {}
    for name, pool in (("arithmetic", arithmetic_pool), ("geometric", geometric_pool)):
        excess[name] = float((pool(log_p, w).exp()[:, :2].sum(-1) - log_p.exp()[..., :2].sum(-1).amax(-1)).max())
    p = torch.tensor([[0.4, 0.59, 0.01], [0.4, 0.01, 0.59]], dtype=torch.float64)  # unsafe, safe, safe
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    pooled = {
        name: float(pool(p.log(), half).exp()[0])
        for name, pool in (("arithmetic", arithmetic_pool), ("geometric", geometric_pool))
    }
    linear = excess["arithmetic"] <= 1e-12
    return Claim(
        number="2601.09165, safety attenuation",
        statement="The pool's mass on unsafe tokens is at most the largest of its teachers'.",
        ran=f"{rows:,} random ensembles of three teachers over two unsafe and three safe tokens, both pools.",
        found=f"The arithmetic pool is above the largest teacher by {max(excess['arithmetic'], 0):.0e} at most, the "
        f"geometric one by {excess['geometric']:.3f}.",
        verdict=judge(linear and excess["geometric"] <= 1e-12, linear),
        condition="The pool is arithmetic, or any other in the teachers' convex hull.",
        counterexample="teachers (.40, .59, .01) and (.40, .01, .59), first token unsafe: the geometric pool puts "
        f"{pooled['geometric']:.2f} on it, the arithmetic one {pooled['arithmetic']:.2f}",
        tightness=f"{say_tight(abs(pooled['arithmetic'] - 0.4) < 1e-12)}: equality for teachers of equal unsafe mass.",
        numbers={**excess, "pooled_geometric": pooled["geometric"], "pooled_arithmetic": pooled["arithmetic"]},
    )
