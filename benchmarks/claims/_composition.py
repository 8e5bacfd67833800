"""Sections II to V: bounds, composition of scales, existence and non-uniqueness, and which axioms are independent."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import torch
from torch import Tensor

import safekd as kd
from safekd import WeightPolytope, project
from safekd.axioms import independence_table
from safekd.weights import Signals, Unified, bound_product, family_a, family_b, family_c

from ._claim import Claim, judge
from ._teachers import BOX, K, make_signals


def _compose(*scales: Tensor) -> Tensor:
    """Return product and normalization, Definition IV.1, by hand."""
    whole = torch.stack(scales).prod(0)
    return whole / whole.sum(-1, keepdim=True)


def _draw(rows: int, polytope: WeightPolytope, generator: torch.Generator) -> Tensor:
    return project(torch.randn(rows, K, generator=generator, dtype=torch.float64), polytope)


def orderings(rows: int = 20_000, seed: int = 0) -> Claim:
    """III.5 and III.22: does an ordering of both safety-aware scales survive composition?"""
    g = torch.Generator().manual_seed(seed)
    ordered = WeightPolytope(n_teachers=K, lower=0.1, upper=0.6, orderings=[(0, 1), (1, 2)])
    token, context = _draw(rows, ordered, g), _draw(rows, ordered, g)
    task, ordered_task = _draw(rows, BOX, g), _draw(rows, ordered, g)

    def share_broken(w: Tensor) -> float:
        return float(((w[:, 1:] > w[:, :-1] + 1e-12).any(-1)).double().mean())

    free, kept = share_broken(_compose(token, task, context)), share_broken(_compose(token, ordered_task, context))
    repaired = share_broken(project(_compose(token, task, context), ordered))
    one = torch.tensor([0.40, 0.35, 0.25], dtype=torch.float64)
    example = _compose(one, torch.tensor([0.20, 0.50, 0.30], dtype=torch.float64), one)
    rule = Unified(
        polytope=BOX,
        token=lambda signals: one.expand(signals.shape),
        task=lambda signals: torch.tensor([0.20, 0.50, 0.30], dtype=torch.float64).expand(signals.shape),
        token_orderings=[(0, 1)],
        context=lambda signals: one.expand(signals.shape),
    )
    mended = rule(Signals(log_p=torch.zeros(1, K, 2, dtype=torch.float64) - np.log(2)))[0]
    mends = repaired == 0.0 and bool(mended[0] >= mended[1])
    return Claim(
        number="III.5, III.22 under IV.1",
        statement="The unified weights inherit the axioms of their components (Figure 1), the safety orderings among "
        "them.",
        reading="Theorem IV.2 promises normalization, boundedness and convexity; the caption of Figure 1 says that "
        "the unified operator inherits the axioms of its components. The orderings were tested as if promised.",
        ran=f"{rows:,} random weights in [0.1, 0.6], token and context scale ordered alike, task scale free or "
        "ordered; the product, and the product projected.",
        found=f"{free:.1%} of the products break an ordering that both safety-aware scales keep; {kept:.1%} where the "
        f"task scale keeps it too; {repaired:.1%} after projection.",
        verdict=judge(free == 0, kept == 0 and mends),
        condition="The task scale keeps the ordering too, or the product is projected into the polytope with the "
        "orderings (`kd.weights.Unified` does).",
        counterexample="token = context = (.40, .35, .25), task = (.20, .50, .30) give "
        f"({', '.join(f'{x:.3f}' for x in example.tolist())}); repaired: "
        f"({', '.join(f'{x:.3f}' for x in mended.tolist())})",
        numbers={
            "free": free,
            "kept": kept,
            "repaired": repaired,
            "first": float(example[0]),
            "second": float(example[1]),
        },
    )


def product_composition(rows: int = 20_000, seed: int = 1) -> Claim:
    """IV.2: normalization, convexity, and boundedness in two readings, with the exact range."""
    g = torch.Generator().manual_seed(seed)
    scales = [_draw(rows, BOX, g) for _ in range(3)]
    w = _compose(*scales)
    normalized = float((w.sum(-1) - 1).abs().max())
    p = torch.softmax(torch.randn(rows, K, 4, generator=g, dtype=torch.float64), -1)
    pooled = (w[..., None] * p).sum(-2)
    inside = float(torch.maximum(pooled - p.amax(-2), p.amin(-2) - pooled).max())
    lower, upper = bound_product([(BOX.lower, BOX.upper)] * 3)
    corners = torch.tensor(_vertices(BOX), dtype=torch.float64)
    all_three = torch.tensor(list(product(range(len(corners)), repeat=3)))
    extreme = _compose(*(corners[all_three[:, s]] for s in range(3)))
    least, most = float(extreme.min()), float(extreme.max())
    own = float(((w < BOX.lower[0] - 1e-12) | (w > BOX.upper[0] + 1e-12)).any(-1).double().mean())
    decomposes = float((sum(s.log() for s in scales) - torch.stack(scales).prod(0).log()).abs().max())
    valid = normalized < 1e-12 and inside < 1e-12 and decomposes < 1e-12
    within_derived = bool(w.min() >= lower[0]) and bool(w.max() <= upper[0]) and least >= lower[0] and most <= upper[0]
    return Claim(
        number="IV.2, IV.3",
        statement="Product and normalization give valid, bounded weights and convex combinations, additive in "
        "logarithms.",
        reading='"Bounded influence constraints" is read in two ways: some bounds, and the bounds '
        "[w_min, w_max] of the components.",
        ran=f"{rows:,} products of three random weights in [0.1, 0.6], pools of random teachers, and all products of "
        f"the {len(corners)} vertices, among which the extremes lie.",
        found=f"Sums are 1 to {normalized:.0e}, pools leave the teachers' range by {max(inside, 0):.0e}, logs add up "
        f"to {decomposes:.0e}. {own:.1%} of the products leave [0.1, 0.6].",
        verdict=judge(valid and within_derived and own == 0, valid and within_derived),
        condition="The bounds of the product are wider ones, from a^3 / (a^3 + (K - 1) b^3) on; to have those of the "
        "components, project.",
        counterexample=f"components in [0.1, 0.6], product up to {most:.3f} and down to {least:.4f}",
        tightness=f"The derived bounds {lower[0]:.4f} and {upper[0]:.3f} are not reached: the exact range is "
        f"{least:.4f} to {most:.3f}, since weights sum to 1 at each scale.",
        numbers={
            "normalized": normalized,
            "outside": own,
            "least": least,
            "most": most,
            "lower": lower[0],
            "upper": upper[0],
        },
    )


def _vertices(box: WeightPolytope) -> list[tuple[float, ...]]:
    """Return the vertices of {sum w = 1, a <= w <= b}: all but one weight at a bound."""
    a, b = box.lower[0], box.upper[0]
    found = set()
    for free in range(K):
        for others in product((a, b), repeat=K - 1):
            rest = 1 - sum(others)
            if a - 1e-12 <= rest <= b + 1e-12:
                weights = [*others[:free], rest, *others[free:]]
                found.add(tuple(round(x, 12) for x in weights))
    return sorted(found)


def families(rows: int = 64, seed: int = 2) -> Claim:
    """V.1 and V.2 (III.8, III.9, III.16, III.24): three families conform, and differ."""
    signals = make_signals(rows, seed)
    rules = {"A": family_a(BOX), "B": family_b(BOX), "C": family_c(BOX)}
    reports = {name: kd.audit(rule, signals, quick=True) for name, rule in rules.items()}
    broken = {name: [finding.axiom for finding in report.violated] for name, report in reports.items()}
    weights = {name: rule(signals) for name, rule in rules.items()}
    apart = {f"{a}{b}": float((weights[a] - weights[b]).abs().amax(-1).min()) for a, b in combinations(weights, 2)}
    typical = {f"{a}{b}": float((weights[a] - weights[b]).abs().amax(-1).median()) for a, b in combinations(weights, 2)}
    conform = not any(broken.values())
    return Claim(
        number="V.1, V.2",
        statement="Operators that satisfy all axioms exist, and the axioms do not determine them.",
        ran=f"Families A, B and C of the proof, each made conforming, audited by `kd.audit` at {rows} random "
        "positions, and their weights compared.",
        found=f"Axioms broken: {sum(map(len, broken.values()))}. Median distance of the weights of two families: "
        + ", ".join(f"{pair} {value:.2f}" for pair, value in typical.items())
        + ". Continuity is searched, not proved.",
        verdict=judge(conform and min(typical.values()) > 0.01),
        tightness="As they stand in the proof, without a projection, none of the three has bounds of its own.",
        numbers={"broken": sum(map(len, broken.values())), "closest": min(typical.values()), **apart},
    )


def minimality() -> Claim:
    """IX.C, first question: does any axiom follow from the others?"""
    table = independence_table()
    alone = table["violated"] == table["axiom"]
    follows = {
        source: table[table["follows_from"].str.startswith(source)]["axiom"].tolist()
        for source in ("bounds", "positivity")
    }
    return Claim(
        number="IX.C, axiom minimality",
        statement="Open question: is each of the fifteen axioms independent of the other four of its scale?",
        reading="Stated as the claim that each is. Positivity is taken with w_min = 0 allowed; with w_min > 0 it is "
        "part of boundedness.",
        ran="`kd.axioms.independence_table`: for each axiom weights that break it, judged by the audit.",
        found=f"{int(alone.sum())} of {len(table)} counterexamples break their axiom and no other of their scale.",
        verdict=judge(bool(alone.all()) and not any(follows.values()), bool(alone.all())),
        condition="Boundedness allows w_min = 0, with the w_min > 0 of (A1) positivity "
        f"({', '.join(follows['bounds'])}) follows from it; and weights may look at the student, else Pareto "
        f"compatibility ({', '.join(follows['positivity'])}) follows from positivity.",
        numbers={"alone": int(alone.sum()), "axioms": len(table), "follow": sum(map(len, follows.values()))},
    )


def bounded_weights(steps: int = 10_000) -> Claim:
    """Example II.1: without a floor the pool collapses onto one teacher."""
    wrong, right = 0.95, 0.9
    n = np.arange(1, steps + 1)
    free = (1 - 1 / n) * (1 - wrong) + 1 / n * right  # mass on the right label
    w = torch.tensor(np.stack([1 - 1 / n, 1 / n], -1))
    floored = project(w, WeightPolytope(n_teachers=2, lower=0.2, upper=0.8)).numpy()
    kept = floored @ np.array([1 - wrong, right])
    return Claim(
        number="II.1",
        statement="Without a lower bound weights can collapse onto a wrong teacher; with w_min = 0.2 the other one "
        "keeps its say.",
        ran="The example's weights 1 - 1/n and 1/n, a teacher with 0.95 on the wrong label and one with 0.9 on the "
        "right one.",
        found=f"Mass on the right label at n = {steps:,}: {free[-1]:.4f} without a floor, {kept[-1]:.3f} with it.",
        verdict=judge(abs(free[-1] - 0.05) < 1e-3 and kept.min() >= 0.2 * right - 1e-12),
        tightness="The floor secures w_min times the good teacher's mass, and no more: the pool still prefers the "
        "wrong label.",
        numbers={"free": float(free[-1]), "kept": float(kept[-1])},
    )


def pareto_compatibility(weights: int = 21) -> Claim:
    """III.14: minimizers of scalarized task losses, with weights above 0 and at 0."""
    x = np.linspace(-4, 4, 2001)  # the student's logit for task 1, and its logit for task 2
    first, second = _binary_divergence(0.8, x), _binary_divergence(0.3, x)
    shares = np.linspace(0, 1, weights)
    # one logit for both tasks, which are in conflict
    shared = [int((a * first + (1 - a) * second).argmin()) for a in shares]
    beaten = [
        bool(((first < first[i]) & (second <= second[i]) | (first <= first[i]) & (second < second[i])).any())
        for i in shared
    ]
    # a logit for each task: with weight 0 its logit is left wherever it is, here at 0
    start = int(np.abs(x).argmin())
    apart = [(int(first.argmin()) if a > 0 else start, int(second.argmin()) if a < 1 else start) for a in shares]
    lost = [bool(second[j] > second.min() + 1e-12 or first[i] > first.min() + 1e-12) for i, j in apart]
    inside = not any(beaten) and not any(lost[1:-1])
    return Claim(
        number="III.14",
        statement="For task weights that are at least 0 and sum to 1, minimizers of the weighted loss are "
        "Pareto-optimal.",
        ran=f"Two binary tasks with targets 0.8 and 0.3, {weights} weights from (0, 1) to (1, 0): a student with one "
        "logit for both, and one with a logit for each.",
        found=f"With weights above 0 no minimizer is dominated, of {2 * (weights - 2)}. With a weight of 0, "
        f"{int(lost[0]) + int(lost[-1])} of 2 minimizers of the student with two logits are.",
        verdict=judge(inside and not any(lost), inside),
        condition="All weights are above 0, or the minimizer is unique.",
        counterexample="weights (1, 0), a logit for each task: the second logit may stay anywhere, at 0 its loss is "
        f"{second[start]:.3f}, and nothing of the first task would be lost by lowering it",
        numbers={"beaten": sum(beaten), "lost_inside": sum(lost[1:-1]), "lost_at_zero": sum(lost) - sum(lost[1:-1])},
    )


def _binary_divergence(q: float, logit: np.ndarray) -> np.ndarray:
    p = 1 / (1 + np.exp(-logit))
    return q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
