"""The exact projection of one row, written for symbols: ``_vector_builder`` turns it into code for many rows side by
side.

pooling      x_i = min over a <= i of max over e >= i of mean(v_a .. v_e)   (Robertson, Wright and Dykstra 1988, 1.4.4)
threshold    safeguarded Newton on sum(clip(z - tau)) = 1, piecewise linear, so it ends in a step from the right
piece

A row counts as converged when its weights sum to one within K / 2 ulp: they are clip(z - tau), so that proves
them.  A
row that conforms already comes back as it is, to the last bit.  Differences of scores come before anything else, so
large scores cost no digits.

Axes: lists over K teachers in sorted order; each entry stands for L rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..._sorting_network import list_exchanges
from ._vector_builder import (
    Vector,
    VectorBuilder,
    VectorMask,
    clip_vector,
    reduce_pairwise,
    select,
    sum_pairwise,
    vector_maximum,
    vector_minimum,
)


@dataclass(frozen=True)
class VectorNewtonSettings:
    """How many steps of Newton's method; tests of scores of every size, and the benchmark's rows, notice a change.

    Attributes:
        bare: Steps without a record of brackets and rests, which most rows never need.
        most: Steps to the threshold: scores as large as weights take two or three, those of size 1e8 some thirty.
    """

    bare: int = 2
    most: int = 64


NEWTON = VectorNewtonSettings()


def are_nonincreasing(x: Sequence[Vector]) -> VectorMask:
    """Tell which rows are nonincreasing already."""
    falling = x[0] >= x[0]
    for before, after in pairwise(x):
        falling = falling & (before >= after)
    return falling


def pool_vectors(x: Sequence[Vector]) -> list[Vector]:
    """Return the nonincreasing regression of each row, nonincreasing to the last bit."""
    K = len(x)
    z: list[Vector] = []
    for a in range(K):
        means, run = [x[a]], x[a]
        for e in range(a + 1, K):
            run = run + x[e]
            means.append(run * (1.0 / (e - a + 1)))
        best = means[-1]
        for e in range(K - 1, a - 1, -1):
            best = vector_maximum(means[e - a], best)
            if a == 0:
                z.insert(0, best)
            else:
                z[e] = vector_minimum(best, z[e])
    for k in range(1, K):
        z[k] = vector_minimum(z[k], z[k - 1])
    falling = are_nonincreasing(x)
    return [select(falling, as_is, pooled) for as_is, pooled in zip(x, z, strict=True)]


def are_usable(x: Sequence[Vector], huge: float) -> VectorMask:
    """Tell which rows hold finite scores whose sums stay finite too."""
    return sum_pairwise([score.absolute() for score in x]) < huge


def shift_to_unit_sum(
    builder: VectorBuilder, z: Sequence[Vector], lower: Vector, upper: Vector, usable: VectorMask
) -> tuple[list[Vector], VectorMask]:
    """Return clip(z - tau, lower, upper) with the tau that makes rows sum to one, and which rows that converged.

    Newton's method between a tau that is too low and one that is too high, halving where it would leave them.  tau is
    known as ``tau + rest``: far from zero, one float could not hold it.
    """
    K = len(z)
    excess = sum_pairwise(z) - 1.0
    none, one = excess.fill(0.0), excess.fill(1.0)
    start = select(_is_negligible(excess, K), none, excess * (1.0 / K))
    low, high = reduce_pairwise(z, vector_minimum) - upper, reduce_pairwise(z, vector_maximum) - lower
    for _ in range(NEWTON.bare):
        start = _bare_step(z, start, lower, upper, low, high)
    w = [clip_vector(score - start, lower, upper) for score in z]

    def step(tau: Vector, rest: Vector, low: Vector, high: Vector, *_: Vector) -> tuple[VectorMask, list[Vector]]:
        y = [score - tau - rest for score in z]
        w = [clip_vector(score, lower, upper) for score in y]
        excess = sum_pairwise(w) - 1.0
        free = sum_pairwise([select(weight.equals(score), one, 0.0) for weight, score in zip(w, y, strict=True)])
        here, move = tau + rest, excess / vector_maximum(free, one)
        too_low = excess > 0.0
        low, high = select(too_low, here, low), select(too_low, high, here)
        there = here + move
        inside = ((there > low) & (there < high) | there.equals(here)) & (free > 0.0)
        next_tau, next_rest = select(inside, here, (low + high) * 0.5), select(inside, (tau - here) + rest + move, none)
        return _is_negligible(excess, K), [next_tau, next_rest, low, high, *w]

    converged = _is_negligible(sum_pairwise(w) - 1.0, K)  # most rows are, and need no more than these weights
    finished, state = builder.repeat_until(~usable | converged, [start, none, low, high, *w], step, NEWTON.most)
    return state[4:], finished & usable


def _bare_step(z: Sequence[Vector], tau: Vector, lower: Vector, upper: Vector, low: Vector, high: Vector) -> Vector:
    """Take one step of Newton's method between low and high, a converged row none."""
    one = tau.fill(1.0)
    y = [score - tau for score in z]
    w = [clip_vector(score, lower, upper) for score in y]
    excess = sum_pairwise(w) - 1.0
    free = sum_pairwise([select(weight.equals(score), one, 0.0) for weight, score in zip(w, y, strict=True)])
    there = clip_vector(tau + excess / vector_maximum(free, one), low, high)
    return select(_is_negligible(excess, len(z)), tau, there)


def _is_negligible(excess: Vector, K: int) -> VectorMask:
    return excess.absolute() <= K * 2.0**-53


def sort_vectors_by_tier(x: list[Vector], tier: list[Vector]) -> list[Vector]:
    """Sort scores and tiers in place, descending in (tier, score); return the places the scores came from."""
    place = [x[0].fill(k) for k in range(len(x))]
    for i, j in list_exchanges(len(x)):
        swap = (tier[i] < tier[j]) | (tier[i].equals(tier[j]) & (x[i] < x[j]))
        for row in (x, tier, place):
            row[i], row[j] = select(swap, row[j], row[i]), select(swap, row[i], row[j])
    return place


def label_vector_blocks(z: Sequence[Vector], tier: Sequence[Vector]) -> list[Vector]:
    """Return for each place the first place of its block: a run of equal values that spans several tiers.

    Equal values within one tier are free of each other, and each is a block of its own.
    """
    first, top = [z[0].fill(0)], [tier[0]]
    joined = [z[k].equals(z[k - 1]) for k in range(1, len(z))]
    for k, same in enumerate(joined, start=1):
        first.append(select(same, first[-1], z[0].fill(k)))
        top.append(select(same, top[-1], tier[k]))
    one = z[0].fill(1.0)
    spans = [select(tier[k] < top[k], one, 0.0) for k in range(len(z))]
    for k in range(len(z) - 2, -1, -1):  # tiers fall along the run, so its last place knows
        spans[k] = select(joined[k], spans[k + 1], spans[k])
    return [select(spans[k] > 0.0, first[k], z[0].fill(k)) for k in range(len(z))]


Average = Callable[[list[Vector], list[Vector], list[VectorMask]], list[Vector]]


def pull_back_vectors(
    g: Sequence[Vector], w: Sequence[Vector], lower: Vector, upper: Vector, average: Average
) -> list[Vector]:
    """Return the transposed Jacobian times g: free entries less their mean, then ``average`` within blocks."""
    one = g[0].fill(1.0)
    free = [(weight > lower) & (weight < upper) for weight in w]
    count = sum_pairwise([select(is_free, one, 0.0) for is_free in free])
    mean = sum_pairwise(
        [select(is_free, gradient, 0.0) for is_free, gradient in zip(free, g, strict=True)]
    ) / vector_maximum(count, one)
    rest = [select(is_free, gradient - mean, 0.0) for is_free, gradient in zip(free, g, strict=True)]
    return average(rest, list(w), free)


def average_alone(rest: list[Vector], w: list[Vector], free: list[VectorMask]) -> list[Vector]:
    """Each teacher is a block of its own."""
    return rest


def average_runs(rest: list[Vector], w: list[Vector], free: list[VectorMask]) -> list[Vector]:
    """Blocks are runs of equal weights; a run is free or not as a whole."""
    one = w[0].fill(1.0)
    sums, counts = [rest[0]], [one]
    joined = [w[k].equals(w[k - 1]) for k in range(1, len(w))]
    for k, same in enumerate(joined, start=1):
        sums.append(rest[k] + select(same, sums[-1], 0.0))
        counts.append(select(same, counts[-1], 0.0) + one)
    means = [run / count for run, count in zip(sums, counts, strict=True)]
    for k in range(len(w) - 2, -1, -1):
        means[k] = select(joined[k], means[k + 1], means[k])
    return means


def average_labeled(label: Sequence[Vector]) -> Average:
    """Blocks are the free teachers that share a label."""

    def average(rest: list[Vector], w: list[Vector], free: list[VectorMask]) -> list[Vector]:
        one = w[0].fill(1.0)
        sums, counts = list(rest), [one] * len(w)
        for i in range(len(w)):
            for j in range(i):
                same = label[i].equals(label[j])
                sums[i], sums[j] = sums[i] + select(same, rest[j], 0.0), sums[j] + select(same, rest[i], 0.0)
                tie = select(same, one, 0.0)
                counts[i], counts[j] = counts[i] + tie, counts[j] + tie
        return [select(is_free, run / count, 0.0) for is_free, run, count in zip(free, sums, counts, strict=True)]

    return average
