"""The worst mix of groups that is not far from a given one.

    minimize  q . s   over   q >= 0,  sum(q) = 1,  D(q || p) <= radius

s are the groups' safeties, p their shares, all above 0.  Both distances leave one unknown number:

    KL           q_g ~ p_g exp(-beta s_g), where beta >= 0 makes D(q || p) = radius; D rises with beta
    chi-square   q_g ~ p_g max(tau - s_g, 0); for each set of groups below tau, tau has a closed form

and a radius that reaches the groups of least safety leaves only them.  The value's gradient in s is q itself (Danskin
1967), so nothing here needs autograd.  Source: Hu and Hong 2013 (KL); Namkoong and Duchi 2016 (chi-square).

Where the lowest groups are equally safe the value has a kink, and training under it often ends just there.  The
surrogate is therefore the minimum of ``q . s + smoothing D(q || p)`` (chi-square: half of that) over the same ball,
whose q moves steadily, and whose optimum lies at most ``smoothing * radius`` above.  Axes: G groups.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from .._number_checks import is_finite
from ..errors import InvalidInput

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ball(ABC):
    """All mixes of groups within a distance of a mix.

    Attributes:
        radius: How far, above 0 and finite, in units of the distance.
        smoothing: How far apart in safety groups are that count as clearly apart in the surrogate, above 0.

    Raises:
        InvalidInput: One is not above 0 and finite.
    """

    radius: float
    smoothing: float = 0.05

    def __post_init__(self) -> None:
        for what, hint in {"radius": " For the mix itself leave `worst` out.", "smoothing": ""}.items():
            value = getattr(self, what)
            if not (is_finite(value) and value > 0):
                raise InvalidInput(
                    f"`{what}` of {type(self).__name__} is {value!r}; it must be above 0 and finite.{hint}"
                )

    def worst(self, safety_G: npt.ArrayLike, share_G: npt.ArrayLike) -> Floats:
        """Return the mix of least ``q . safety`` in the ball.

        Groups of equal safety keep their proportions.  A safety that is not a number makes every q one.

        Args:
            safety_G: Average safety of each group, (G,).
            share_G: Shares at the center, above 0, sum 1, (G,).

        Returns:
            q, (G,), float64.
        """
        s_G, p_G = np.asarray(safety_G, dtype=np.float64), np.asarray(share_G, dtype=np.float64)
        if not np.all(np.isfinite(s_G) & (p_G > 0)):
            return np.full_like(s_G, np.nan)
        lowest_G = s_G == s_G.min()
        if self._distance_to_groups(float(p_G[lowest_G].sum())) <= self.radius:
            q_G = np.where(lowest_G, p_G, 0.0)
        else:
            q_G = self._solve_on_boundary(s_G - s_G.min(), p_G)
        return np.asarray(q_G / q_G.sum(), dtype=np.float64)

    def surrogate(self, safety_G: npt.ArrayLike, share_G: npt.ArrayLike) -> Floats:
        """Return the mix that training follows in its place, see the top of the file.

        Args:
            safety_G: Average safety of each group, (G,).
            share_G: Shares at the center, above 0, sum 1, (G,).

        Returns:
            q, (G,), float64.
        """
        s_G, p_G = np.asarray(safety_G, dtype=np.float64), np.asarray(share_G, dtype=np.float64)
        if not np.all(np.isfinite(s_G) & (p_G > 0)):
            return np.full_like(s_G, np.nan)
        q_G = self._penalize_gaps(s_G - s_G.min(), p_G)
        q_G = q_G / q_G.sum()
        return q_G if self.distance(q_G, p_G) <= self.radius else self.worst(s_G, p_G)

    @abstractmethod
    def distance(self, q_G: Floats, p_G: Floats) -> float:
        """Return D(q || p).

        Args:
            q_G: Shares, (G,).
            p_G: Shares at the center, above 0, (G,).
        """

    @abstractmethod
    def _penalize_gaps(self, gap_G: Floats, p_G: Floats) -> Floats:
        """Return, up to a factor, the q of least ``q . gap + smoothing D(q || p)``, whatever its distance."""

    @abstractmethod
    def _distance_to_groups(self, share: float) -> float:
        """Return the distance of the nearest mix that holds only groups which have ``share`` in all."""

    @abstractmethod
    def _solve_on_boundary(self, gap_G: Floats, p_G: Floats) -> Floats:
        """Return q up to a factor, where the ball does not reach the groups of gap 0; gaps are at least 0."""


class KLBall(Ball):
    """Mixes q with ``sum q log(q / p) <= radius``.

    Attributes:
        radius: Nats, above 0.
        smoothing: How far apart in safety groups are that count as clearly apart in the surrogate, above 0.

    Source: Hu and Hong 2013.
    """

    def distance(self, q_G: Floats, p_G: Floats) -> float:
        """Return the relative entropy, nats.

        Args:
            q_G: Shares, (G,).
            p_G: Shares at the center, above 0, (G,).
        """
        inside = q_G > 0
        return float(q_G[inside] @ np.log(q_G[inside] / p_G[inside]))

    def _penalize_gaps(self, gap_G: Floats, p_G: Floats) -> Floats:
        return np.asarray(p_G * np.exp(-gap_G / self.smoothing), dtype=np.float64)

    def _distance_to_groups(self, share: float) -> float:
        return -math.log(min(share, 1.0))

    def _solve_on_boundary(self, gap_G: Floats, p_G: Floats) -> Floats:
        gap_G = gap_G / gap_G.max()  # so that beta's size does not depend on the spread of safeties

        def tilt(beta: float) -> tuple[Floats, float]:
            raw_G = p_G * np.exp(-beta * gap_G)
            q_G = raw_G / raw_G.sum()
            return q_G, float(-beta * (q_G @ gap_G) - np.log(raw_G.sum()))

        high = 1.0
        while tilt(high)[1] < self.radius:
            high *= 2
            if high > 1e18:  # the radius misses the lowest groups by less than doubles can tell
                return tilt(high)[0]
        beta = brentq(lambda b: tilt(b)[1] - self.radius, 0.0, high, xtol=1e-300, rtol=1e-14)
        return tilt(float(beta))[0]


class ChiSquareBall(Ball):
    """Mixes q with ``sum (q - p)^2 / p <= radius``.

    Attributes:
        radius: Above 0, in units of Pearson's chi-square of shares.
        smoothing: How far apart in safety groups are that count as clearly apart in the surrogate, above 0.

    Source: Namkoong and Duchi 2016.
    """

    def distance(self, q_G: Floats, p_G: Floats) -> float:
        """Return Pearson's chi-square.

        Args:
            q_G: Shares, (G,).
            p_G: Shares at the center, above 0, (G,).
        """
        return float(((q_G - p_G) ** 2 / p_G).sum())

    def _penalize_gaps(self, gap_G: Floats, p_G: Floats) -> Floats:
        return _fill_to_level(gap_G, p_G, lambda share, mean, variance: mean + self.smoothing / share)

    def _distance_to_groups(self, share: float) -> float:
        return 1 / min(share, 1.0) - 1

    def _solve_on_boundary(self, gap_G: Floats, p_G: Floats) -> Floats:
        def level(share: float, mean: float, variance: float) -> float:
            room = share * (1 + self.radius) - 1 if share < 1 else self.radius
            return mean + math.sqrt(variance / room) if room > 0 and variance > 0 else math.inf

        return _fill_to_level(gap_G, p_G, level)


def _fill_to_level(gap_G: Floats, p_G: Floats, level: Callable[[float, float, float], float]) -> Floats:
    """Return ``p max(tau - gap, 0)`` for the tau that lies between the groups which it leaves in and out.

    level: tau from the share of the groups that are in, and mean and variance of their gaps.
    """
    order = np.argsort(gap_G, kind="stable")
    gap_n, p_n = gap_G[order], p_G[order]
    tau = math.inf
    for n in range(1, len(p_n) + 1):  # the n groups of least safety are in
        share = float(p_n[:n].sum()) if n < len(p_n) else 1.0
        mean = float(p_n[:n] @ gap_n[:n]) / share
        variance = float(p_n[:n] @ (gap_n[:n] - mean) ** 2) / share
        tau = level(share, mean, variance)
        if n < len(p_n) and tau <= gap_n[n]:
            break
    return np.asarray(p_G * np.maximum(tau - gap_G, 0.0), dtype=np.float64)
