"""The exact projection of one row, written for symbols: ``_lanes`` turns it into code for many rows side by side.

pooling      x_i = min over a <= i of max over e >= i of mean(v_a .. v_e)   (Robertson, Wright and Dykstra 1988, 1.4.4)
threshold    safeguarded Newton on sum(clip(z - tau)) = 1, piecewise linear, so it ends in a step from the right piece

A row counts as settled when its weights sum to one within K / 2 ulp: they are clip(z - tau), so that proves them.  A
row that conforms already comes back as it is, to the last bit.  Differences of scores come before anything else, so
large scores cost no digits.

Axes: lists over K teachers in sorted order; each entry stands for L rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from ..._sorting_network import exchanges
from ._vector_builder import Lanes, Mask, Program, clip, combined, larger, smaller, total, where

BARE = 2  # steps without a record of brackets and rests, which most rows never need
MOST = 64  # steps to the threshold: scores as large as weights take two or three, those of size 1e8 some thirty


def are_falling(x: Sequence[Lanes]) -> Mask:
    """Tell which rows are nonincreasing already."""
    falling = x[0] >= x[0]
    for before, after in pairwise(x):
        falling = falling & (before >= after)
    return falling


def pool(x: Sequence[Lanes]) -> list[Lanes]:
    """Return the nonincreasing regression of each row, nonincreasing to the last bit."""
    K = len(x)
    z: list[Lanes] = []
    for a in range(K):
        means, run = [x[a]], x[a]
        for e in range(a + 1, K):
            run = run + x[e]
            means.append(run * (1.0 / (e - a + 1)))
        best = means[-1]
        for e in range(K - 1, a - 1, -1):
            best = larger(means[e - a], best)
            if a == 0:
                z.insert(0, best)
            else:
                z[e] = smaller(best, z[e])
    for k in range(1, K):
        z[k] = smaller(z[k], z[k - 1])
    falling = are_falling(x)
    return [where(falling, as_is, pooled) for as_is, pooled in zip(x, z, strict=True)]


def are_usable(x: Sequence[Lanes], huge: float) -> Mask:
    """Tell which rows hold finite scores whose sums stay finite too."""
    return total([score.size() for score in x]) < huge


def shift(program: Program, z: Sequence[Lanes], lower: Lanes, upper: Lanes, usable: Mask) -> tuple[list[Lanes], Mask]:
    """Return clip(z - tau, lower, upper) with the tau that makes rows sum to one, and which rows that settled.

    Newton's method between a tau that is too low and one that is too high, halving where it would leave them.  tau is
    known as ``tau + rest``: far from zero, one float could not hold it.
    """
    K = len(z)
    excess = total(z) - 1.0
    none, one = excess.filled(0.0), excess.filled(1.0)
    start = where(_is_none(excess, K), none, excess * (1.0 / K))
    low, high = combined(z, smaller) - upper, combined(z, larger) - lower
    for _ in range(BARE):
        start = _bare_step(z, start, lower, upper, low, high)
    w = [clip(score - start, lower, upper) for score in z]

    def step(tau: Lanes, rest: Lanes, low: Lanes, high: Lanes, *_: Lanes) -> tuple[Mask, list[Lanes]]:
        y = [score - tau - rest for score in z]
        w = [clip(score, lower, upper) for score in y]
        excess = total(w) - 1.0
        free = total([where(weight.same_as(score), one, 0.0) for weight, score in zip(w, y, strict=True)])
        here, move = tau + rest, excess / larger(free, one)
        too_low = excess > 0.0
        low, high = where(too_low, here, low), where(too_low, high, here)
        there = here + move
        inside = ((there > low) & (there < high) | there.same_as(here)) & (free > 0.0)
        next_tau, next_rest = where(inside, here, (low + high) * 0.5), where(inside, (tau - here) + rest + move, none)
        return _is_none(excess, K), [next_tau, next_rest, low, high, *w]

    settled = _is_none(total(w) - 1.0, K)  # most rows are, and need no more than these weights
    finished, state = program.until(~usable | settled, [start, none, low, high, *w], step, MOST)
    return state[4:], finished & usable


def _bare_step(z: Sequence[Lanes], tau: Lanes, lower: Lanes, upper: Lanes, low: Lanes, high: Lanes) -> Lanes:
    """Take one step of Newton's method between low and high, a settled row none."""
    one = tau.filled(1.0)
    y = [score - tau for score in z]
    w = [clip(score, lower, upper) for score in y]
    excess = total(w) - 1.0
    free = total([where(weight.same_as(score), one, 0.0) for weight, score in zip(w, y, strict=True)])
    there = clip(tau + excess / larger(free, one), low, high)
    return where(_is_none(excess, len(z)), tau, there)


def _is_none(excess: Lanes, K: int) -> Mask:
    return excess.size() <= K * 2.0**-53


def sort_by_tier(x: list[Lanes], tier: list[Lanes]) -> list[Lanes]:
    """Sort scores and tiers in place, descending in (tier, score); return the places the scores came from."""
    place = [x[0].filled(k) for k in range(len(x))]
    for i, j in exchanges(len(x)):
        swap = (tier[i] < tier[j]) | (tier[i].same_as(tier[j]) & (x[i] < x[j]))
        for row in (x, tier, place):
            row[i], row[j] = where(swap, row[j], row[i]), where(swap, row[i], row[j])
    return place


def label_blocks(z: Sequence[Lanes], tier: Sequence[Lanes]) -> list[Lanes]:
    """Return for each place the first place of its block: a run of equal values that spans several tiers.

    Equal values within one tier are free of each other, and each is a block of its own.
    """
    first, top = [z[0].filled(0)], [tier[0]]
    joined = [z[k].same_as(z[k - 1]) for k in range(1, len(z))]
    for k, same in enumerate(joined, start=1):
        first.append(where(same, first[-1], z[0].filled(k)))
        top.append(where(same, top[-1], tier[k]))
    one = z[0].filled(1.0)
    spans = [where(tier[k] < top[k], one, 0.0) for k in range(len(z))]
    for k in range(len(z) - 2, -1, -1):  # tiers fall along the run, so its last place knows
        spans[k] = where(joined[k], spans[k + 1], spans[k])
    return [where(spans[k] > 0.0, first[k], z[0].filled(k)) for k in range(len(z))]


Average = Callable[[list[Lanes], list[Lanes], list[Mask]], list[Lanes]]


def pull_back(g: Sequence[Lanes], w: Sequence[Lanes], lower: Lanes, upper: Lanes, average: Average) -> list[Lanes]:
    """Return the transposed Jacobian times g: free entries less their mean, then ``average`` within blocks."""
    one = g[0].filled(1.0)
    free = [(weight > lower) & (weight < upper) for weight in w]
    count = total([where(is_free, one, 0.0) for is_free in free])
    mean = total([where(is_free, slope, 0.0) for is_free, slope in zip(free, g, strict=True)]) / larger(count, one)
    rest = [where(is_free, slope - mean, 0.0) for is_free, slope in zip(free, g, strict=True)]
    return average(rest, list(w), free)


def average_alone(rest: list[Lanes], w: list[Lanes], free: list[Mask]) -> list[Lanes]:
    """Each teacher is a block of its own."""
    return rest


def average_runs(rest: list[Lanes], w: list[Lanes], free: list[Mask]) -> list[Lanes]:
    """Blocks are runs of equal weights; a run is free or not as a whole."""
    one = w[0].filled(1.0)
    sums, counts = [rest[0]], [one]
    joined = [w[k].same_as(w[k - 1]) for k in range(1, len(w))]
    for k, same in enumerate(joined, start=1):
        sums.append(rest[k] + where(same, sums[-1], 0.0))
        counts.append(where(same, counts[-1], 0.0) + one)
    means = [run / count for run, count in zip(sums, counts, strict=True)]
    for k in range(len(w) - 2, -1, -1):
        means[k] = where(joined[k], means[k + 1], means[k])
    return means


def average_labelled(label: Sequence[Lanes]) -> Average:
    """Blocks are the free teachers that share a label."""

    def average(rest: list[Lanes], w: list[Lanes], free: list[Mask]) -> list[Lanes]:
        one = w[0].filled(1.0)
        sums, counts = list(rest), [one] * len(w)
        for i in range(len(w)):
            for j in range(i):
                same = label[i].same_as(label[j])
                sums[i], sums[j] = sums[i] + where(same, rest[j], 0.0), sums[j] + where(same, rest[i], 0.0)
                tie = where(same, one, 0.0)
                counts[i], counts[j] = counts[i] + tie, counts[j] + tie
        return [where(is_free, run / count, 0.0) for is_free, run, count in zip(free, sums, counts, strict=True)]

    return average
