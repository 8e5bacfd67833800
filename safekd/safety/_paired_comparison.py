"""Which of two teachers is safer, read on the same examples: sums to keep, and tests that are valid at every count.

Teachers i and j are read on the same examples, so their differences d = x_i - x_j in [-1, 1] are what counts; most of
what makes an example hard cancels.  Against "i is not safer than j", that is E[d] <= 0:

    0/1 values    exact sign test (McNemar's, exactly): of the examples on which they differ, i wins at most half in
                    expectation, so at least this many wins has probability sum_{s >= wins} C(n, s) / 2^n
    other values  a gambler bets the share b of the capital on each d, which becomes prod(1 + b d); its expectation
                    is at most 1, also of the average over several b, so 1 / capital is a p-value (Markov)

A t test would be wrong where it matters: on few examples, skewed ones above all, it finds differences that are not
there.  The bets of the second test are fixed beforehand, so that the order of examples does not matter and the
logarithms of capitals add up.  Source: McNemar 1947; Waudby-Smith and Ramdas 2024, section 4 (capital processes).
Axes: N examples, G groups, K teachers, b bets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from scipy.stats import binom

from ..errors import InvalidInput

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairedTestSettings:
    """The bets of the betting test, fixed beforehand; ``tests/safekd/safety/test_paired.py`` notices.

    Attributes:
        largest_bet: Share of the capital that the boldest bet stakes, below 1.
        bets: How many bets there are, each half of the one before.  The best bet is about mean / variance of the
            differences; as neighbors differ by a factor of 2, some bet grows at 8/9 of the best rate or more.
    """

    largest_bet: float = 0.95
    bets: int = 7

    @property
    def shares(self) -> Floats:
        """The shares of the capital that are bet, (b,)."""
        return np.asarray(self.largest_bet * 0.5 ** np.arange(self.bets), dtype=np.float64)


BETS = PairedTestSettings().shares


@dataclass(frozen=True, eq=False)
class PairedSums:
    """How K teachers compare on the same examples, group by group: all that the tests need, without the examples.

    Attributes:
        groups: Numbers of the contexts or classes, G of them.
        count_G: Examples, (G,).
        sum_GK: Sums of values, (G, K).
        wins_GKK: On how many examples teacher i reads higher than teacher j, (G, K, K).
        log_capital_GKKb: Log capital of each bet that i reads higher than j, (G, K, K, b); None for values of 0 and
            1.
    """

    groups: tuple[int, ...]
    count_G: npt.NDArray[np.int64]
    sum_GK: Floats
    wins_GKK: npt.NDArray[np.int64]
    log_capital_GKKb: Floats | None

    @classmethod
    def from_values(cls, value_NK: npt.ArrayLike, group_N: npt.ArrayLike, *, binary: bool) -> PairedSums:
        """Add up values over the groups that are present.

        Args:
            value_NK: Values in [0, 1], (N, K); the N must be independent.
            group_N: Number of the group of each example, (N,).
            binary: Whether values are 0 and 1, which allows the exact test.

        Returns:
            The sums.

        Raises:
            InvalidInput: Shapes do not fit, or values are outside [0, 1] or not binary.
        """
        x_NK, group = np.asarray(value_NK, dtype=np.float64), np.asarray(group_N)
        if x_NK.ndim != 2 or group.shape != x_NK.shape[:1]:
            raise InvalidInput(
                f"Values have shape {x_NK.shape}, groups {group.shape}; wanted (examples, teachers) and (examples,)."
            )
        if not np.all((x_NK >= 0) & (x_NK <= 1)):
            raise InvalidInput(
                f"Values lie between {x_NK.min():g} and {x_NK.max():g}; teachers are compared by values in [0, 1]."
            )
        if binary and not np.all((x_NK == 0) | (x_NK == 1)):
            raise InvalidInput("Values hold other values than 0 and 1, but are called binary; pass binary=False.")
        groups = np.unique(group)
        parts = [x_NK[group == g] for g in groups]
        K = x_NK.shape[1]
        return cls(
            groups=tuple(int(g) for g in groups),
            count_G=np.array([len(part) for part in parts], dtype=np.int64),
            sum_GK=np.array([part.sum(0) for part in parts]).reshape(-1, K),
            wins_GKK=np.array([_count_wins(part) for part in parts], dtype=np.int64).reshape(-1, K, K),
            log_capital_GKKb=(
                None
                if binary
                else np.array([_compute_log_capital(part) for part in parts]).reshape(-1, K, K, len(BETS))
            ),
        )

    def means(self) -> Floats:
        """Return average values, (G, K)."""
        return self.sum_GK / self.count_G[:, None]

    def p_values(self) -> Floats:
        """Return each group's p-value against "teacher i is not safer than teacher j", 1 on the diagonal.

        Below one half only where i's average is above j's: so pairs below one half never go round in a circle.

        Returns:
            P-values, (G, K, K).

        Source: McNemar 1947 for binary values; Waudby-Smith and Ramdas 2024, section 4, for others.
        """
        if self.log_capital_GKKb is None:
            losses_GKK = self.wins_GKK.swapaxes(1, 2)
            p_GKK = binom.sf(self.wins_GKK - 1, self.wins_GKK + losses_GKK, 0.5)
        else:
            p_GKK = np.exp(np.minimum(0.0, np.log(len(BETS)) - logsumexp(self.log_capital_GKKb, axis=-1)))
        diagonal_K = np.arange(p_GKK.shape[-1])
        p_GKK[:, diagonal_K, diagonal_K] = 1.0
        return np.asarray(p_GKK, dtype=np.float64)


def _count_wins(x_NK: Floats) -> npt.NDArray[np.int64]:
    return np.stack([(x_NK[:, [i]] > x_NK).sum(0) for i in range(x_NK.shape[1])])


def _compute_log_capital(x_NK: Floats) -> Floats:
    """Return the log capital of each bet on each pair, (K, K, b); one teacher at a time, to need memory for (N, K)."""
    rows = []
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
