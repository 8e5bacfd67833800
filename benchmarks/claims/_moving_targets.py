"""The fourth open question: weights that follow distributions which move."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from safekd.weights import Signals, Tracking

from ._claim import Claim, Line, Picture, judge, say_tight
from ._teachers import BOX, K


def _follow(targets_NK: Tensor, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the lag behind each target, and what was promised of it, (N,) each."""
    step = iter(targets_NK)
    rule = Tracking(lambda signals: next(step).expand(signals.shape), BOX, beta=beta, by=None, ordered=False)
    signals = Signals(entropy=torch.zeros(1, K, dtype=torch.float64))
    lag, bound = [], []
    for _ in targets_NK:
        rule(signals)
        report = rule.report()
        lag.append(float(report.lag_G[0]))
        bound.append(float(report.bound_G[0]))
    return np.array(lag), np.array(bound)


def tracking(steps: int = 400, beta: float = 0.1, drift: float = 5e-4, seed: int = 0) -> Claim:
    """Lag behind targets that drift steadily, wander at random, or jump."""
    random = np.random.default_rng(seed)
    along = np.array([1.0, -1.0, 0.0]) / np.sqrt(2)
    center = np.full(K, 1 / K)
    half = steps // 2
    steady = center + drift * np.arange(-half, steps - half)[:, None] * along
    walk = center + np.clip(np.cumsum(random.normal(0, 5 * drift, steps)), -0.2, 0.2)[:, None] * along
    jump = np.where(np.arange(steps)[:, None] < 3, center + 0.1 * along, center - 0.1 * along)
    limit = drift * (1 - beta) / beta
    paths = {
        name: _follow(torch.as_tensor(targets), beta)
        for name, targets in (("steady", steady), ("walk", walk), ("jump", jump))
    }
    within = all(bool((lag <= bound + 1e-9).all()) for lag, bound in paths.values())
    reached = float(paths["steady"][0][-1]) / limit
    after = paths["jump"][0][4:24]
    factor = float((after[1:] / after[:-1]).max())
    noise = center + 0.05 * random.standard_normal((20 * steps, 1)) * along
    kept = _track_variance(noise @ along, beta)
    shown = list(range(steps))
    lines = [
        Line("steady drift: lag", shown, paths["steady"][0].tolist()),
        Line("d (1 - beta) / beta", shown, [limit] * steps, "k--"),
        Line("random walk: lag", shown, paths["walk"][0].tolist(), ":"),
        Line("random walk: bound", shown, paths["walk"][1].tolist(), "-."),
    ]
    return Claim(
        number="IX.C, distributions that move",
        statement="Open question: can weight updates track drift while they stay stable?",
        reading="Stated as the claim that w <- P((1 - beta) w + beta u), u what a rule asks for now, follows a target "
        "that moves by d a step at a distance of d (1 - beta) / beta in the end, and forgets a jump like (1 - "
        "beta)^n.",
        ran=f"`kd.weights.Tracking` with beta = {beta} in [0.1, 0.6], {steps} steps: a target that moves by {drift} a "
        "step, one that wanders, and one that jumps.",
        found=f"The lag never exceeds its bound; behind steady drift it ends at {reached:.4f} of d (1 - beta) / beta = "
        f"{limit:.4f}; a jump is forgotten by {factor:.3f} a step.",
        verdict=judge(within and reached <= 1 + 1e-6 and factor <= 1 - beta + 1e-9),
        tightness=f"{say_tight(reached > 0.99)}: steady drift reaches the bound. The price of a small lag is noise: of "
        f"independent noise {kept:.3f} of the variance stays, beta / (2 - beta) = {beta / (2 - beta):.3f}.",
        picture=Picture("moving_targets", "step", "distance from the target", lines, y_log=True),
        numbers={
            "within": float(within),
            "reached": reached,
            "factor": factor,
            "kept": kept,
            "expected": beta / (2 - beta),
        },
    )


def _track_variance(noise_N: np.ndarray, beta: float) -> float:
    """Return the share of the variance of independent targets inside the set that an exponential average keeps."""
    followed, value = [], float(noise_N[0])
    for target in noise_N:
        value = (1 - beta) * value + beta * float(target)
        followed.append(value)
    return float(np.var(followed[len(followed) // 10 :]) / np.var(noise_N))
