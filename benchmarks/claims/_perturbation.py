"""Sections VI.4 and VII: weights that are estimated, perturbed or fed back, and the noise of gradients."""

from __future__ import annotations

import math

import numpy as np
import torch

import safekd as kd
from safekd import project
from safekd.theory import fit_power, measure_contraction
from safekd.weights import Conforming, EntropyDecay

from ._claim import Claim, Line, Picture, judge, say_tight
from ._descent import TabularProblem, softmax
from ._teachers import BOX, WIDE, K, make_digits, pool_targets, teachers, weigh

DELTAS = np.geomspace(1e-3, 3e-2, 8)
RIDGE = 0.05


def _perturb(weights_NK: np.ndarray, delta: float, random: np.random.Generator) -> np.ndarray:
    """Return weights that sum to 1 and lie exactly ``delta`` from the given ones in the maximum norm."""
    direction = random.standard_normal(weights_NK.shape)
    direction -= direction.mean(-1, keepdims=True)
    return weights_NK + delta * direction / np.abs(direction).max(-1, keepdims=True)


def estimated_weights(directions: int = 40, seed: int = 0) -> Claim:
    """VI.4: weights off by delta put the loss off by O(delta), in two readings."""
    random, weights = np.random.default_rng(seed), weigh("inverse entropy")
    ideal = TabularProblem(pool_targets(weights), RIDGE)
    best = float(ideal.loss(ideal.optimum))
    excess, reached = np.zeros((directions, len(DELTAS))), np.zeros((directions, len(DELTAS)))
    for r in range(directions):
        away = _perturb(weights, 1.0, random) - weights
        for d, delta in enumerate(DELTAS):
            noisy = TabularProblem(pool_targets(weights + delta * away), RIDGE)
            excess[r, d] = ideal.loss(noisy.optimum) - best
            reached[r, d] = abs(float(noisy.loss(noisy.optimum)) - best)
    under_ideal, own = fit_power(DELTAS, excess), fit_power(DELTAS, reached)
    constant = float((reached / DELTAS).max())
    # the loss is linear in the weights: its derivative by w_k is the student's cross-entropy against teacher k
    ce_NK = -(teachers() * np.log(softmax(ideal.optimum))[:, None]).sum(-1)
    promised = float(np.abs(ce_NK - ce_NK.mean(-1, keepdims=True)).sum(-1).mean())
    within = constant <= 1.02 * promised and own.low > 0.9 and under_ideal.low > 0.9
    lines = [
        Line("loss reached, under the noisy weights", DELTAS.tolist(), reached.mean(0).tolist(), "o-"),
        Line("loss under the ideal weights", DELTAS.tolist(), excess.mean(0).tolist(), "s-"),
        Line("bound", DELTAS.tolist(), (promised * DELTAS).tolist(), "k--"),
    ]
    return Claim(
        number="VI.4",
        statement="Weights off by at most delta put the loss that is reached off by O(delta).",
        reading="The remark does not say under which weights the loss is read: under the ideal ones, as a user would, "
        "and under the noisy ones, which is what training reports; both were measured.",
        ran=f"Minimizers under weights perturbed by exactly delta in {directions} directions, delta from 0.001 to "
        f"0.03, all within the bounds, ridge {RIDGE}.",
        found=f"The loss reached moves as delta^{own.slope:.2f} [{own.low:.2f}, {own.high:.2f}], by {constant:.2f} "
        f"delta at most, of the {promised:.2f} that the teachers' cross-entropies allow; the excess under the ideal "
        f"weights as delta^{under_ideal.slope:.2f} [{under_ideal.low:.2f}, {under_ideal.high:.2f}].",
        verdict=judge(within),
        tightness=f"{say_tight(own.low < 1.05)} for the loss reached. {say_tight(under_ideal.low < 1.05)} for the "
        "excess under the ideal weights, which is O(delta^2): the minimum is flat.",
        picture=Picture("estimated_weights", "delta", "change of loss, nats", lines, x_log=True, y_log=True),
        numbers={
            "reached_slope": own.slope,
            "excess_slope": under_ideal.slope,
            "excess_low": under_ideal.low,
            "constant": constant,
            "promised": promised,
        },
    )


def fixed_point(iterations: int = 200, seed: int = 0) -> Claim:
    """VII.1: beta L < 1 makes the update of weights a contraction, in two readings."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(K, K, generator=generator, dtype=torch.float64))[0]  # an isometry: L = 1

    def replace_by(beta: float) -> object:
        return lambda w: project(torch.full_like(w, 1 / K) + beta * (w - 1 / K) @ turn, BOX)

    def feed_back(beta: float) -> object:  # who is heard more is heard still more: F(w) = w - 1/K, L = 1
        return lambda w: project(w + beta * (w - 1 / K), BOX)

    def look(update: object) -> object:
        return measure_contraction(update, BOX, iterations=iterations, seed=seed)  # type: ignore[arg-type]

    half, edge = look(replace_by(0.5)), look(replace_by(1.0))
    reinforced = look(feed_back(0.5))
    rate = half.rate.factor if half.rate is not None else math.nan
    in_max_norm = _expand_in_max_norm(0.8)
    contracts = half.factor <= 0.5 + 1e-9 and half.fixed_point is not None and rate <= 0.5 + 1e-6
    steps = list(range(len(half.distances)))
    lines = [
        Line("T(w) = P(1/K + F(w)/2)", steps[:25], half.distances.tolist()[:25], "o-"),
        Line("2^-n", steps[:25], [float(half.distances[0]) * 0.5**n for n in steps[:25]], "k--"),
    ]
    return Claim(
        number="VII.1",
        statement="With steps beta < 1/L the update of weights is a contraction with constant rho = beta L in the "
        "maximum norm, has one fixed point, and converges geometrically.",
        reading="The update is not given. First reading: T(w) = P(w_0 + beta F(w)), P the projection into the bounds, "
        "F L-Lipschitz. Second: T(w) = P(w + beta F(w)), which adds feedback to the weights, as training does.",
        ran="64 starts over the polytope and a neighbor of each: F an isometry (L = 1), beta = 0.5 and 1; feedback "
        "that hears more of whom it heard, F(w) = w - 1/K; and F(w) = (w_1, w_2, w_2), L = 1 in the maximum norm, "
        "beta = 0.8.",
        found=f"First reading: factor {half.factor:.3f} in the Euclidean norm at beta L = 0.5, one fixed point, "
        f"distances fall by {rate:.3f} an iteration; factor {edge.factor:.3f} at beta L = 1; factor {in_max_norm:.3f} "
        f"in the maximum norm at beta L = 0.8. Second reading at beta L = 0.5: factor {reinforced.factor:.3f}, ends "
        f"of the starts {reinforced.spread:.2f} apart.",
        verdict=judge(contracts and in_max_norm <= 0.8 and reinforced.factor < 1, contracts),
        condition="The update is P(w_0 + beta F(w)), and norm and L are Euclidean: projection moves no two points "
        "apart in that norm, in the maximum norm it may.",
        counterexample=f"w + beta (w - 1/K) at beta L = 0.5: factor {reinforced.factor:.2f} and several fixed points; "
        f"in the maximum norm beta L = 0.8 gives {in_max_norm:.3f} > 1",
        tightness=f"{say_tight(edge.factor > 0.99)}: at beta L = 1 an isometry does not contract.",
        picture=Picture("fixed_point", "iteration n", "distance to the fixed point", lines, y_log=True),
        numbers={
            "factor": half.factor,
            "max_norm": in_max_norm,
            "rate": rate,
            "edge": edge.factor,
            "reinforced": reinforced.factor,
            "spread": reinforced.spread,
        },
    )


def moved_student(directions: int = 40, seed: int = 1) -> Claim:
    """VII.2: the optimal student moves by at most C delta."""
    random, weights = np.random.default_rng(seed), weigh("inverse entropy")
    ideal = TabularProblem(pool_targets(weights), RIDGE)
    moved = np.zeros((directions, len(DELTAS)))
    gradients = []
    for r in range(directions):
        away = _perturb(weights, 1.0, random) - weights
        change = pool_targets(weights + DELTAS[0] * away) - pool_targets(weights)  # linear in delta
        gradients.append(np.linalg.norm(change) / DELTAS[0] / len(weights))
        for d, delta in enumerate(DELTAS):
            noisy = TabularProblem(pool_targets(weights + delta * away), RIDGE)
            moved[r, d] = np.linalg.norm(noisy.optimum - ideal.optimum)
    fit = fit_power(DELTAS, moved)
    largest, promised = float((moved / DELTAS).max()), max(gradients) / ideal.curvature
    # logit theta^3, target 1/2 + delta: the optimum is the cube root of its logit
    flat = np.cbrt(np.log((0.5 + DELTAS) / (0.5 - DELTAS)))
    flat_fit = fit_power(DELTAS, flat)
    lipschitz = fit.low > 0.95 and largest <= promised * 1.05
    lines = [
        Line("strongly convex", DELTAS.tolist(), moved.mean(0).tolist(), "o-"),
        Line("bound", DELTAS.tolist(), (promised * DELTAS).tolist(), "k--"),
        Line("logit theta^3", DELTAS.tolist(), flat.tolist(), "s-."),
    ]
    return Claim(
        number="VII.2",
        statement="Weights that differ by delta have optimal students that differ by at most C delta.",
        ran=f"Minimizers under weights perturbed by exactly delta in {directions} directions, ridge {RIDGE}; and a "
        "student with logits (theta^3, 0) whose target moves from 1/2 to 1/2 + delta.",
        found=f"The student moves as delta^{fit.slope:.3f} [{fit.low:.3f}, {fit.high:.3f}], by {largest:.2f} delta at "
        f"most; the theory's constant, change of gradient over curvature, is {promised:.2f}.",
        verdict=judge(lipschitz and flat_fit.low > 0.95, lipschitz),
        condition="The loss is strongly convex in the parameters, as the proof says and the statement does not.",
        counterexample=f"logits (theta^3, 0): the optimum moves as delta^{flat_fit.slope:.3f}, faster than any C delta",
        tightness=f"{say_tight(fit.low < 1.05)} in delta (the slope is 1), and the constant within a factor of "
        f"{promised / largest:.1f}.",
        picture=Picture("moved_student", "delta", "distance of the students", lines, x_log=True, y_log=True),
        numbers={"slope": fit.slope, "low": fit.low, "largest": largest, "promised": promised, "flat": flat_fit.slope},
    )


def gradient_variance(draws: int = 4000, seed: int = 2) -> Claim:
    """VII.4: the variance of the gradient against that under uniform weights."""
    random = np.random.default_rng(seed)
    lower, upper = BOX.lower[0], BOX.upper[0]
    bound = (upper / lower) ** 2
    worst = {"independent": 0.0, "non-negative": 0.0, "any": 0.0}
    sharp = 0.0
    for _ in range(draws):
        scale = random.gamma(0.5, size=K) + 1e-3
        factor = random.standard_normal((K, K))
        free = factor @ factor.T + 1e-6 * np.eye(K)
        for name, cov in (
            ("independent", np.diag(scale)),
            ("non-negative", np.abs(factor) @ np.abs(factor).T),
            ("any", free),
        ):
            w = project(torch.as_tensor(random.dirichlet(np.full(K, 0.5))), BOX).numpy()
            ratio = float(w @ cov @ w) / float(np.ones(K) @ cov @ np.ones(K) / K**2)
            worst[name] = max(worst[name], ratio)
            if name == "independent":
                sharp = max(sharp, ratio / (K * upper) ** 2)
    # two teachers with opposite noise, sigma = 1
    noise = random.standard_normal(20_000)
    gradients = np.stack([noise, -noise])
    uniform, adaptive = (float(np.var(np.array(w) @ gradients)) for w in ((0.5, 0.5), (0.8, 0.2)))
    holds_free = worst["independent"] <= bound and worst["non-negative"] <= bound
    return Claim(
        number="VII.4",
        statement="The variance of the stochastic gradient is at most (w_max / w_min)^2 times that under uniform "
        "weights.",
        ran=f"{draws:,} random covariances of three teachers' gradients, independent, non-negatively correlated and "
        f"any, with random weights in [{lower:g}, {upper:g}]; and two teachers with opposite noise, 20,000 draws.",
        found=f"Largest ratio {worst['independent']:.2f} for independent and {worst['non-negative']:.2f} for "
        f"non-negatively correlated noise, of the {bound:.0f} that the lemma allows; {worst['any']:.3g} for any "
        "covariance.",
        verdict=judge(holds_free and worst["any"] <= bound and adaptive <= bound * uniform, holds_free),
        condition="The teachers' gradient noises are independent, or at least none is negatively correlated with "
        "another.",
        counterexample=f"opposite noise, sigma = 1: variance {uniform:.1e} under (0.5, 0.5), {adaptive:.3f} under "
        "(0.8, 0.2)",
        tightness=f"{say_tight(worst['independent'] > 0.9 * bound)}: the proof gives (K w_max)^2 = "
        f"{(K * upper) ** 2:.2f}, of which {sharp:.0%} are reached; it equals the lemma's bound only where w_min = "
        "1/K.",
        numbers={**worst, "bound": bound, "uniform": uniform, "adaptive": adaptive, "sharp": sharp},
    )


def _expand_in_max_norm(beta: float) -> float:
    """Return the maximum-norm factor of P(1/K + beta (F(w) - F(1/K))), F(w) = (w_1, w_2, w_2), for two points."""
    center = torch.full((3,), 1 / 3, dtype=torch.float64)
    away = torch.tensor([0.05, -0.05, 0.0], dtype=torch.float64)
    images = [project(center + beta * (w - center)[[0, 1, 1]], BOX) for w in (center, center + away)]
    return float((images[1] - images[0]).abs().max() / away.abs().max())


def trained_students(epochs: int = 300, directions: int = 4, delta: float = 0.05, seed: int = 0) -> Claim:
    """VII.2 with trained students: the movement that ``kd.stability`` measures on digits."""
    made, train = make_digits(seed, torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = torch.nn.Linear(64, 10, dtype=torch.float64)
    trainer = kd.ConstrainedTrainer(
        student,
        made,
        weights=Conforming(EntropyDecay(), WIDE),
        optimizer=torch.optim.SGD(student.parameters(), lr=0.3),
    )
    found = kd.stability(trainer, train, delta=delta, directions=directions, epochs=epochs, seed=seed)
    rate, predictions = found.student_rate, found.predictions_constant
    assert rate is not None
    table = found.table.sort_values("weights_moved")
    lines = [
        Line("parameters", table["weights_moved"].tolist(), table["student_moved"].tolist(), "o"),
        Line("predictions", table["weights_moved"].tolist(), table["predictions_moved"].tolist(), "s"),
        Line("C delta", table["weights_moved"].tolist(), (found.constant * table["weights_moved"]).tolist(), "k--"),
    ]
    return Claim(
        number="VII.2, trained students",
        statement="Trained students move by at most C delta as well.",
        ran="`kd.stability` on 600 digits: three teachers of scikit-learn, weights by entropy in [0.02, 0.96], a "
        f"linear student, {epochs} epochs of plain descent; weights moved by up to {delta} in {directions} directions.",
        found=f"Parameters move as delta^{rate.slope:.2f} [{rate.low:.2f}, {rate.high:.2f}], by {found.constant:.3g} "
        f"delta at most; predictions by {predictions:.3g} delta in total variation, the loss reached by "
        f"{found.loss_constant:.3g} delta.",
        verdict=judge(rate.low > 0.9),
        picture=Picture("trained_students", "delta", "movement", lines, x_log=True, y_log=True),
        numbers={"slope": rate.slope, "constant": found.constant, "predictions": predictions},
    )
