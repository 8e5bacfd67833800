"""One row of the exact projection with bounds of each teacher's own and margins, compiled.

A row is a chain of places (tier by tier, values falling inside a tier) in which each place must stand above the next,
by ``margin`` where a tier ends.  Weights less their offsets, ``u_k = w_k - margin * (tiers below k)``, need only fall
along the chain, and bounds become bounds of each place.  For a threshold t each place has a convex cost of its own,

    euclidean  (u_k + t - (v_k - offset_k))^2 / 2        kl  cost whose slope is  log(u_k + offset_k) - log v_k + t

inside its bounds.  The pool-adjacent-violators algorithm finds the best falling sequence for any convex costs (Best,
Chakravarti and Ubhaya 2000): a block takes the value that is best for its members together, and joins the block before
it where that one is lower.  The value is the unbounded one clipped to [largest lower, least upper] of the members.
Bounds that fall along the chain make these the first lower and the last upper one, and never cross in a block: a block
joins only what is above its last upper bound from below the first lower one.

What a row adds up to falls in t, and between two breakpoints it is linear (kl: exponential), so Newton's method inside
a bracket ends on it (Cominetti, Mascarenhas and Silva 2014).  Scores enter as differences to the threshold found so
far, hence large scores cost no digits.

Axes: K places; blocks are kept in arrays of length K, of which the first `count` entries count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ._kernel_compiler import cpu_kernel

Array = Any  # numpy arrays of float64 or int64

_NOTHING = -700.0  # exp of less is taken for 0: reciprocals of weights must stay finite


@dataclass(frozen=True)
class ThresholdSearchSettings:
    """When the search for the threshold ends; tests of bounds that differ, at scores of every size, notice a change.

    Attributes:
        near: Distance from their reference, in units of weights, up to which thresholds are rounded less than weights.
        close: Part of a weight that a step of Newton's method may still move: the next would move its square.
        most_steps: Steps; a handful is usual, this many only if all breakpoints crowd together.
        most_moves: Moves of the reference; one is usual, the largest floats take 16 digits a move.
    """

    near: float = 2.0
    close: float = 1e-9
    most_steps: int = 200
    most_moves: int = 40


THRESHOLD_SEARCH = ThresholdSearchSettings()
# kernels read plain numbers
_NEAR, _CLOSE = THRESHOLD_SEARCH.near, THRESHOLD_SEARCH.close
_STEPS, _MOVES = THRESHOLD_SEARCH.most_steps, THRESHOLD_SEARCH.most_moves


class PlaceChain(NamedTuple):
    """The places of a row: scores, scores less the reference, offsets, bounds of u, logarithms of the bounds of w."""

    score: Array
    x: Array
    offset: Array
    lower: Array
    upper: Array
    log_lower: Array
    log_upper: Array


class PlaceBlocks(NamedTuple):
    """The blocks of a row: first place, sums of x and offset, value of u, weight of a member in the slope (0: held)."""

    first: Array
    total: Array
    offset: Array
    value: Array
    mass: Array


@cpu_kernel
def set_chain_bounds(
    low_K: Array,
    high_K: Array,
    tier_K: Array,
    order_K: Array,
    margin: float,
    chained: bool,
    kl: bool,
    chain: PlaceChain,
) -> None:
    """Set offsets and bounds of the places from bounds of the teachers, made to fall along the chain."""
    K = order_K.shape[0]
    steps = 0
    for k in range(K - 1, -1, -1):
        place = order_K[k]
        if chained and k + 1 < K and tier_K[place] != tier_K[order_K[k + 1]]:
            steps += 1
        chain.offset[k] = margin * steps
        chain.lower[k] = low_K[place] - chain.offset[k]
        chain.upper[k] = high_K[place] - chain.offset[k]
        if chained and k + 1 < K:
            chain.lower[k] = max(chain.lower[k], chain.lower[k + 1])
    for k in range(K):
        if chained and k > 0:
            chain.upper[k] = min(chain.upper[k], chain.upper[k - 1])
        if kl:
            chain.log_lower[k] = log_weight(chain.lower[k] + chain.offset[k])
            chain.log_upper[k] = log_weight(chain.upper[k] + chain.offset[k])


@cpu_kernel
def log_weight(weight: float) -> float:
    """Return the logarithm, of nothing a number that is low enough."""
    return max(math.log(weight), _NOTHING) if weight > 0.0 else _NOTHING


@cpu_kernel
def clip_euclidean(value: float, low: float, high: float) -> tuple[float, float]:
    """Return the value of a block, and how fast a member falls with t: 0 if a bound holds the block."""
    if value >= high:
        return high, 0.0
    return (low, 0.0) if value <= low else (value, 1.0)


@cpu_kernel
def clip_kl(log: float, offset: float, low: float, high: float, log_low: float, log_high: float) -> tuple[float, float]:
    """Do the same for a block whose weights, value + offset, are exp(log) if no bound holds it."""
    if log >= log_high:
        return high, 0.0
    if log <= log_low:
        return low, 0.0
    weight = math.exp(log)
    return min(max(weight - offset, low), high), weight


@cpu_kernel
def staircase_value(offset_N: Array, goal: float, offset: float, low: float, high: float) -> tuple[float, float]:
    """Return c with  mean(log(c + offset)) = goal, clipped to [low, high], and the harmonic mean of  c + offset.

    The left side is concave in c, so Newton's method rises to the root from any point on its left: the arithmetic mean
    of  c + offset  is the larger one.  offset: the mean of offset_N, which falls.
    """
    N = offset_N.shape[0]
    bottom, middle = offset_N[N - 1], math.exp(goal)
    c = max(low, middle - offset)
    if c + bottom < middle / 8:  # far off: leave to the last member what the others, at their largest, do not take
        rest = N * goal
        for i in range(N - 1):
            rest -= math.log(middle - bottom + offset_N[i])
        c = max(c, math.exp(rest) - bottom)
    if c <= low and not c + bottom > 0.0:
        return low, 0.0
    inverse = 1.0
    for _ in range(_STEPS):
        if c >= high:
            return high, 0.0
        gap, inverse = N * goal, 0.0
        for i in range(N):
            gap -= math.log(c + offset_N[i])
            inverse += 1.0 / (c + offset_N[i])
        if c <= low and gap <= 0.0:
            return low, 0.0
        step = gap / inverse
        c += step
        if not abs(step) > _CLOSE * (c + bottom):
            break
    return min(max(c, low), high), N / inverse


@cpu_kernel
def pool_at_threshold(
    chain: PlaceChain, kl: bool, chained: bool, base: float, t: float, blocks: PlaceBlocks
) -> tuple[int, float, float]:
    """Pool the places at threshold base + t; return how many blocks there are, their sum, and how fast it falls."""
    x, offset, lower, upper = chain.x, chain.offset, chain.lower, chain.upper
    log_lower, log_upper = chain.log_lower, chain.log_upper
    firsts, totals, offsets, values, masses = blocks.first, blocks.total, blocks.offset, blocks.value, blocks.mass
    count, weight, slope = 0, 0.0, 0.0
    for k in range(x.shape[0]):
        first, size, total, step = k, 1, x[k], offset[k]
        if kl:
            value, mass = clip_kl(total - base - t, step, lower[k], upper[k], log_lower[k], log_upper[k])
        else:
            value, mass = clip_euclidean(total - base - t - step, lower[k], upper[k])
        while chained and count > 0 and values[count - 1] < value:
            count -= 1
            first = firsts[count]
            size = k + 1 - first
            total += totals[count]
            step += offsets[count]
            mean = total / size - base - t
            if not kl:
                value, mass = clip_euclidean(mean - step / size, lower[first], upper[k])
            elif offset[first] == offset[k]:
                value, mass = clip_kl(mean, offset[k], lower[first], upper[k], log_lower[first], log_upper[k])
            else:
                value, mass = staircase_value(offset[first : k + 1], mean, step / size, lower[first], upper[k])
        firsts[count], totals[count], offsets[count] = first, total, step
        values[count], masses[count] = value, mass
        count += 1
    for j in range(count):
        size = (firsts[j + 1] if j + 1 < count else x.shape[0]) - firsts[j]
        weight += size * values[j]
        slope += size * masses[j]
    return count, weight, slope


@cpu_kernel
def find_middle_threshold(
    chain: PlaceChain, kl: bool, base: float, blocks: PlaceBlocks, count: int, left: float, right: float
) -> float:
    """Return a threshold in (left, right) that sets the middle one of the held blocks free, NaN if there is none.

    PlaceBlocks come by falling value, so this halves how many remain.
    """
    K = chain.x.shape[0]
    wanted = -1
    for _ in range(2):
        seen = 0
        for j in range(count):
            last = (blocks.first[j + 1] if j + 1 < count else K) - 1
            low, high = chain.lower[blocks.first[j]], chain.upper[last]
            if blocks.mass[j] == 0.0 and low < high:
                size = last + 1 - blocks.first[j]
                inside = (low + high) / 2 + blocks.offset[j] / size
                t: float = blocks.total[j] / size - base - (log_weight(inside) if kl else inside)
                if left < t < right:
                    if seen == wanted:
                        return t
                    seen += 1
        wanted = seen // 2
    return math.nan


@cpu_kernel
def find_threshold(chain: PlaceChain, kl: bool, chained: bool, blocks: PlaceBlocks) -> int:
    """Pool the places at the threshold at which the weights add up to one; return how many blocks there are."""
    K = chain.x.shape[0]
    target = 1.0
    for k in range(K):
        target -= chain.offset[k]
    reference, base = guess_threshold(chain, kl, target), 0.0
    count, left, right = 0, 0.0, 0.0
    for move in range(_MOVES):
        for k in range(K):
            chain.x[k] = chain.score[k] - reference
        count, t, left, right = search_threshold(chain, kl, chained, base, target, blocks)
        if abs(t) <= _NEAR or move + 1 == _MOVES:
            break
        if move < _MOVES // 2 and reference + t != reference:
            reference += t
        else:  # a mean of huge scores, which no reference comes closer to
            base += t
    return mix_sides_of_jump(chain, kl, chained, base, left, right, target, blocks) if left < right else count


@cpu_kernel
def guess_threshold(chain: PlaceChain, kl: bool, target: float) -> float:
    """Return the threshold at which weights would add up to one if nothing ordered or bounded them."""
    K = chain.x.shape[0]
    reference: float = chain.score[0]
    if kl:
        for k in range(K):
            reference = max(reference, chain.score[k])
        total = 0.0
        for k in range(K):
            total += math.exp(chain.score[k] - reference)
        return reference + math.log(total)
    excess = -target
    for k in range(K):
        excess += (chain.score[k] - reference) - chain.offset[k]
    start: float = reference + excess / K
    return start


@cpu_kernel
def search_threshold(
    chain: PlaceChain, kl: bool, chained: bool, base: float, target: float, blocks: PlaceBlocks
) -> tuple[int, float, float, float]:
    """Pool the places at the t that makes u add up to ``target``; return how many blocks there are, and t.

    Where there is no such t, because the sum jumps, its two sides follow; else t twice.
    """
    K = chain.x.shape[0]
    # outside of these all places are on their upper, on their lower bounds
    left, right = math.inf, -math.inf
    for k in range(K):
        left = min(left, chain.x[k] - base - (chain.log_upper[k] if kl else chain.upper[k] + chain.offset[k]))
        right = max(right, chain.x[k] - base - (chain.log_lower[k] if kl else chain.lower[k] + chain.offset[k]))
    t = min(max(0.0, left), right)
    width = right - left
    count = 0
    for step in range(_STEPS):
        count, weight, slope = pool_at_threshold(chain, kl, chained, base, t, blocks)
        excess = weight - target
        if abs(excess) <= K * 2.0**-54:
            return count, t, t, t
        if excess > 0.0:
            left = t
        else:
            right = t
        guess = math.nan
        if slope > 0.0 and not kl:
            guess = t + excess / slope
        elif slope > max(excess, 0.0):
            guess = t - math.log(1.0 - excess / slope)
        if guess == t and abs(excess) <= K * 2.0**-52:  # as near as t gets; a huge t may be nowhere near
            return count, t, t, t
        if step % 4 == 3:
            if right - left > width / 2:
                guess = math.nan  # Newton creeps
            width = right - left
        if not left < guess < right:
            guess = find_middle_threshold(chain, kl, base, blocks, count, left, right)
        if not left < guess < right:
            guess = math.sinh((math.asinh(left) + math.asinh(right)) / 2)  # a bracket may span all magnitudes
        if not left < guess < right:
            guess = left + (right - left) / 2
        if not left < guess < right:
            break
        t = guess
    return count, t, left, right


@cpu_kernel
def mix_sides_of_jump(
    chain: PlaceChain,
    kl: bool,
    chained: bool,
    base: float,
    left: float,
    right: float,
    target: float,
    blocks: PlaceBlocks,
) -> int:
    """Mix what the two sides of a jump say so that u adds up to ``target``; return how many blocks there are.

    Means of huge scores are rounded, so a block may jump as it joins another.  Both sides obey the rules, hence so does
    what lies between them.
    """
    K = chain.x.shape[0]
    value_2K, mass, starts = np.empty((2, K)), np.empty(K), np.zeros(K, np.bool_)
    weight_2 = np.empty(2)
    for side in range(2):
        count, weight_2[side], _ = pool_at_threshold(chain, kl, chained, base, right if side else left, blocks)
        for j in range(count):
            starts[blocks.first[j]] = True
            for k in range(blocks.first[j], blocks.first[j + 1] if j + 1 < count else K):
                value_2K[side, k], mass[k] = blocks.value[j], blocks.mass[j]
    gap = weight_2[0] - weight_2[1]
    share = min(max((target - weight_2[1]) / gap, 0.0), 1.0) if gap > 0.0 else 0.0
    count, above = 0, math.inf
    for k in range(K):
        if starts[k]:
            high, low = value_2K[0, k], value_2K[1, k]
            value = min(max(low + share * (high - low), low), high)
            above = min(value, above) if chained else value
            blocks.first[count], blocks.value[count], blocks.mass[count] = k, above, mass[k]
            count += 1
    return count
