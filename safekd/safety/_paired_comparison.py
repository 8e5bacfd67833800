"""Which of two teachers is safer, read on the same examples: what to keep of them, and tests.

Teachers i and j are read on the same examples, so their differences d = x_i - x_j in [-1, 1] are what counts; most of
what makes an example hard cancels.  Against "i is not safer than j", that is E[d] <= 0:

    0/1 values          exact unconditional test: of all shares of examples on which teachers differ, the one under
                        which wins lead by so many standard errors, (wins - losses) / sqrt(wins + losses), most often
    other values,       a gambler bets the share b of the capital on each d, which becomes prod(1 + b d); its
    fewer than 40       expectation is at most 1, also of the average over several b, so 1 / capital is a p-value
    other values,       Student's t, corrected for a tail to the left, guarded against cases that nobody saw: a share q
    40 or more          of them at which d = -u would show in none of n examples with probability (1 - q)^n, and take
                        q u / (1 - q) off the mean of the others.  The p-value is the largest product over q,
                            (1 - q)^n  P(t_{n-1} >= (mean - u q / (1 - q)) / (s / sqrt(n)), corrected)

The first two hold at every count.  The third is approximate: a plain t test finds differences that are not there where
d is nearly always the same and rarely far below, the more the rarer; the guard stops that at the price of differences
smaller than some 4 / n, which no test can show whatever else might happen.  ``benchmarks.orderings`` measures its error
there, and its power beside the t test.

Values that belong together, such as the positions of a sequence or the rows of a patient, are one case: with S_k the
sum of its values, i is safer per value where ``E[S_i - S_j] > 0``, a mean of independent terms.  The last two tests see
these sums as shares of the most values that a case can have.

Source: Suissa and Shuster 1991; Waudby-Smith and Ramdas 2024, section 4 (capital processes); Johnson 1978, Hall 1992
(correction for skewness).
Axes: N examples, or cases of several; G groups, K teachers, b bets, m discordant examples, q shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, stdtr
from scipy.stats import binom

from ..errors import InvalidInput

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairedTestSettings:
    """Numbers of the tests; ``tests/safekd/safety/test_paired.py`` and ``benchmarks.orderings`` notice.

    Attributes:
        largest_bet: Share of the capital that the boldest bet stakes, below 1.
        bets: How many bets there are, each half of the one before.  The best bet is about mean / variance of the
            differences; as neighbors differ by a factor of 2, some bet grows at 8/9 of the best rate or more.
        least_cases: Examples from which on the corrected t test is used; with fewer, skewness is not known well enough.
        unseen: u, how far below 0 a case lies that nobody saw.  The worst is 1; but it lowers i against all others at
            once, and never j against i as well, so that .85 keeps a whole family of comparisons at its level.
        caution: Factor on these p-values, for what the correction leaves out: it keeps errors below the level and not
            about it, and costs two pairs of a hundred.
        shares: How many q are tried, up to 1.5 times the one that takes off the whole mean.
        most_exact: Examples up to which the exact test is unconditional; of more, the sign test loses nothing.
        nuisances: How many shares of discordant examples are tried.
    """

    largest_bet: float = 0.95
    bets: int = 7
    least_cases: int = 40
    unseen: float = 0.85
    caution: float = 1.2
    shares: int = 49
    most_exact: int = 2000
    nuisances: int = 101

    @property
    def stakes(self) -> Floats:
        """The shares of the capital that are bet, (b,)."""
        return np.asarray(self.largest_bet * 0.5 ** np.arange(self.bets), dtype=np.float64)


SETTINGS = PairedTestSettings()
BETS = SETTINGS.stakes


@dataclass(frozen=True, eq=False)
class PairedSums:
    """How K teachers compare on the same examples, group by group: all that the tests need, without the examples.

    Attributes:
        groups: Numbers of the contexts or classes, G of them.
        count_G: Examples, or cases, that the tests see, (G,).
        mean_GK: Averages of all values, (G, K).
        sum_GK: Sums of what the tests see, (G, K): values, or sums of a case as shares of the most that it can be.
        wins_GKK: On how many examples teacher i reads higher than teacher j, (G, K, K).
        spread_GKK: Standard deviations of the differences, (G, K, K); None for values of 0 and 1.
        skew_GKK: Their skewness, (G, K, K); None likewise.
        log_capital_GKKb: Log capital of each bet that i reads higher than j, (G, K, K, b), 0 where there are enough
            examples for the t test; None likewise.
    """

    groups: tuple[int, ...]
    count_G: npt.NDArray[np.int64]
    mean_GK: Floats
    sum_GK: Floats
    wins_GKK: npt.NDArray[np.int64]
    spread_GKK: Floats | None
    skew_GKK: Floats | None
    log_capital_GKKb: Floats | None

    @classmethod
    def from_values(
        cls,
        value_NK: npt.ArrayLike,
        group_N: npt.ArrayLike,
        *,
        binary: bool,
        cluster_N: npt.ArrayLike | None = None,
    ) -> PairedSums:
        """Add up values over the groups that are present.

        Where cases of a group differ in size, nobody knows how large they can be.  The largest here says it: tests are
        about cases up to that size, for which that one is no evidence and is left out.

        Args:
            value_NK: Values in [0, 1], (N, K); the N must be independent, but for clusters.
            group_N: Number of the group of each example, (N,).
            binary: Whether values are 0 and 1, which allows the exact test where no case has several in a group.
            cluster_N: Number of the case of each example, (N,): cases are independent, examples of one are not; None
                for a case each.

        Returns:
            The sums.

        Raises:
            InvalidInput: Shapes do not fit, or values are outside [0, 1] or not binary.
        """
        x_NK, group = np.asarray(value_NK, dtype=np.float64), np.asarray(group_N)
        cluster = np.arange(len(group)) if cluster_N is None else np.asarray(cluster_N)
        if x_NK.ndim != 2 or not x_NK.shape[:1] == group.shape == cluster.shape:
            clusters = "" if cluster_N is None else f", clusters {cluster.shape}"
            raise InvalidInput(
                f"Values have shape {x_NK.shape}, groups {group.shape}{clusters}; wanted (examples, teachers) and "
                "(examples,)."
            )
        if not np.all((x_NK >= 0) & (x_NK <= 1)):
            raise InvalidInput(
                f"Values lie between {x_NK.min():g} and {x_NK.max():g}; teachers are compared by values in [0, 1]."
            )
        if binary and not np.all((x_NK == 0) | (x_NK == 1)):
            raise InvalidInput("Values hold other values than 0 and 1, but are called binary; pass binary=False.")
        groups, K = np.unique(group), x_NK.shape[1]
        wholes = [x_NK[group == g] for g in groups]
        sizes = [np.unique(cluster[group == g], return_inverse=True, return_counts=True)[1:] for g in groups]
        parts = [_add_up_cases(whole, *size) for whole, size in zip(wholes, sizes, strict=True)]
        binary = binary and all(count.max() == 1 for _, count in sizes)
        shapes = [_describe_differences(part) for part in parts]
        capital = [_compute_log_capital(part) for part in parts]
        return cls(
            groups=tuple(int(g) for g in groups),
            count_G=np.array([len(part) for part in parts], dtype=np.int64),
            mean_GK=np.array([whole.mean(0) for whole in wholes]).reshape(-1, K),
            sum_GK=np.array([part.sum(0) for part in parts]).reshape(-1, K),
            wins_GKK=np.array([_count_wins(part) for part in parts], dtype=np.int64).reshape(-1, K, K),
            spread_GKK=None if binary else np.array([spread for spread, _ in shapes]).reshape(-1, K, K),
            skew_GKK=None if binary else np.array([skew for _, skew in shapes]).reshape(-1, K, K),
            log_capital_GKKb=None if binary else np.array(capital).reshape(-1, K, K, len(BETS)),
        )

    def means(self) -> Floats:
        """Return average values, (G, K)."""
        return self.mean_GK

    def p_values(self) -> Floats:
        """Return each group's p-value against "teacher i is not safer than teacher j", 1 on the diagonal.

        Below one half only where the sum of what the tests see is higher of i than of j: so pairs below one half never
        go round in a circle.

        Returns:
            P-values, (G, K, K).

        Source: Suissa and Shuster 1991 for binary values; Waudby-Smith and Ramdas 2024, section 4, for few others;
        Johnson 1978 for many.
        """
        p_GKK = np.ones_like(self.wins_GKK, dtype=np.float64)
        for g, n in enumerate(self.count_G.tolist()):
            if self.spread_GKK is None or self.skew_GKK is None or self.log_capital_GKKb is None:
                p_GKK[g] = _test_wins(self.wins_GKK[g], n)
            elif n < SETTINGS.least_cases:
                capital_KK = logsumexp(self.log_capital_GKKb[g], axis=-1) - np.log(len(BETS))
                p_GKK[g] = np.exp(np.minimum(0.0, -capital_KK))
            else:
                mean_K = self.sum_GK[g] / n
                p_GKK[g] = _test_means(mean_K[:, None] - mean_K, self.spread_GKK[g], self.skew_GKK[g], n)
        diagonal_K = np.arange(p_GKK.shape[-1])
        p_GKK[:, diagonal_K, diagonal_K] = 1.0
        return p_GKK


def _add_up_cases(x_NK: Floats, case_N: npt.NDArray[np.int64], count_C: npt.NDArray[np.int64]) -> Floats:
    """Return sums of cases, (C, K), as shares of the most that one can be, without the largest where they differ."""
    most = int(count_C.max())
    if most == 1:
        return x_NK
    total_CK = np.zeros((len(count_C), x_NK.shape[1]))
    np.add.at(total_CK, case_N, x_NK)
    if int(count_C.min()) < most:
        total_CK = np.delete(total_CK, int(count_C.argmax()), axis=0)
    return np.minimum(total_CK / most, 1.0)


def _test_wins(wins_KK: npt.NDArray[np.int64], n: int) -> Floats:
    """Return exact p-values of n pairs of 0 and 1, (K, K)."""
    losses_KK = wins_KK.T
    p_KK = np.asarray(binom.sf(wins_KK - 1, wins_KK + losses_KK, 0.5), dtype=np.float64)
    if n > SETTINGS.most_exact:
        return p_KK
    for i, j in np.argwhere(wins_KK > losses_KK):
        p_KK[i, j] = _test_lead(int(wins_KK[i, j]), int(losses_KK[i, j]), n)
    return p_KK


@lru_cache(maxsize=4096)
def _test_lead(wins: int, losses: int, n: int) -> float:
    """Return the largest probability, over shares of discordant pairs, of a lead of as many standard errors or more."""
    lead, m = (wins - losses) / (wins + losses) ** 0.5, np.arange(1, n + 1)
    least_wins_m = np.ceil((m + lead * np.sqrt(m) - 1e-9) / 2)  # rounding may not lose the lead that was seen
    return float((_discordant_chances(n) @ binom.sf(least_wins_m - 1, m, 0.5)).max())


@lru_cache(maxsize=16)
def _discordant_chances(n: int) -> Floats:
    """Return how probable each count of discordant pairs from 1 to n is, a row a share of them."""
    evenly = np.linspace(0, 1, SETTINGS.nuisances)
    share = np.unique(np.concatenate([evenly, np.geomspace(0.25 / n, 1, SETTINGS.nuisances)]))
    return np.asarray(binom.pmf(np.arange(1, n + 1), n, share[:, None]), dtype=np.float64)


def _test_means(mean_KK: Floats, spread_KK: Floats, skew_KK: Floats, n: int) -> Floats:
    """Return p-values of the corrected and guarded t test, (K, K)."""
    error_KK = np.maximum(spread_KK / n**0.5, 1e-12)
    tail_KK = np.minimum(skew_KK, 0.0) / n**0.5  # a tail to the right only makes the plain test cautious
    whole_KK = np.maximum(mean_KK, 0) / (SETTINGS.unseen + np.maximum(mean_KK, 0))  # takes off the whole mean
    p_KK = np.zeros_like(mean_KK)
    for part in np.linspace(0, 1.5, SETTINGS.shares):
        q_KK = np.minimum(part * whole_KK, 0.99)
        t_KK = (mean_KK - SETTINGS.unseen * q_KK / (1 - q_KK)) / error_KK
        up_KK = np.maximum(t_KK, 0)
        bent_KK = t_KK + tail_KK / 6 + tail_KK * up_KK**2 / 3 + tail_KK**2 * up_KK**3 / 27
        chance_KK = stdtr(n - 1, -np.minimum(bent_KK, t_KK))
        p_KK = np.maximum(p_KK, (1 - q_KK) ** n * chance_KK)
    return np.minimum(1.0, SETTINGS.caution * p_KK)


def _describe_differences(x_NK: Floats) -> tuple[Floats, Floats]:
    """Return standard deviations and skewness of the differences of all pairs, (K, K) each."""
    spreads, skews, n = [], [], len(x_NK)
    for i in range(x_NK.shape[1]):
        d_NK = x_NK[:, [i]] - x_NK
        d_NK = d_NK - d_NK.mean(0)
        variance_K = (d_NK**2).mean(0)
        flat_K = variance_K < 1e-24  # rounding
        cube_K = np.where(flat_K, 1.0, variance_K) ** 1.5
        skews.append(np.where(flat_K, 0.0, (d_NK**3).mean(0) / cube_K))
        spreads.append(np.sqrt(np.where(flat_K, 0.0, variance_K * n / max(n - 1, 1))))
    return np.stack(spreads), np.stack(skews)


def _count_wins(x_NK: Floats) -> npt.NDArray[np.int64]:
    return np.stack([(x_NK[:, [i]] > x_NK).sum(0) for i in range(x_NK.shape[1])])


def _compute_log_capital(x_NK: Floats) -> Floats:
    """Return the log capital of each bet on each pair, (K, K, b), zeros where examples suffice for the t test."""
    rows, K = [], x_NK.shape[1]
    if len(x_NK) >= SETTINGS.least_cases:
        return np.zeros((K, K, len(BETS)))
    for i in range(x_NK.shape[1]):
        d_NK = x_NK[:, [i]] - x_NK
        rows.append(np.stack([np.log1p(bet * d_NK).sum(0) for bet in BETS], axis=-1))
    return np.stack(rows)


def adjust_p_values(p_values: npt.ArrayLike) -> Floats:
    """Return p-values adjusted for looking at all of them, by Holm's correction.

    Rejecting those of at most ``level`` makes the probability of even one false rejection at most ``level``, however
    the tests depend on each other.

    Args:
        p_values: In [0, 1], any shape.

    Returns:
        Adjusted p-values, same shape.

    Source: Holm 1979.

    >>> adjust_p_values([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    flat = p.ravel()
    order = np.argsort(flat, kind="stable")
    stepped = np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1))
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.reshape(p.shape)


def adjust_pair_p_values(p_KK: npt.ArrayLike) -> Floats:
    """Return p-values of all comparisons of K means, adjusted for looking at all of them, by Shaffer's procedure.

    Two statements belong to each pair, "i is safer" and "j is safer", so p-values count twice.  As in Holm's correction
    the smallest is multiplied by the number of pairs; but once two means differ, fewer pairs can still be equal than
    are left: of 5 teachers with one that differs, 6 pairs of 10 and not 9.

    Args:
        p_KK: Against "i is not safer than j", (K, K); the diagonal is left out.

    Returns:
        Adjusted p-values, (K, K), 1 on the diagonal and for the direction that is less likely.

    Source: Shaffer 1986, procedure S1.

    >>> adjust_pair_p_values([[1, 0.001, 0.004], [0.9, 1, 0.03], [0.9, 0.9, 1]]).round(3).tolist()
    [[1.0, 0.006, 0.008], [1.0, 1.0, 0.06], [1.0, 1.0, 1.0]]
    """
    p = np.asarray(p_KK, dtype=np.float64)
    K, adjusted = len(p), np.ones_like(p)
    pairs = [(i, j) if p[i, j] <= p[j, i] else (j, i) for i in range(K) for j in range(i + 1, K)]
    reached = 0.0
    for rejected, (i, j) in enumerate(sorted(pairs, key=lambda pair: p[pair])):
        left = max(count for count in _count_equal_pairs(K) if count <= len(pairs) - rejected)
        reached = min(1.0, max(reached, 2 * max(left, 1) * p[i, j]))
        adjusted[i, j] = reached
    return adjusted


@lru_cache(maxsize=64)
def _count_equal_pairs(K: int) -> frozenset[int]:
    """Return how many pairs of K means can be equal: all sums of n (n - 1) / 2 over groups of n alike."""
    if K == 0:
        return frozenset({0})
    return frozenset(n * (n - 1) // 2 + rest for n in range(1, K + 1) for rest in _count_equal_pairs(K - n))
