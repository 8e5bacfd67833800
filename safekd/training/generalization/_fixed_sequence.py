"""Fixed-sequence search: candidates from the safest to the cheapest, tested on one split, until the first failure.

Every candidate is a function of the training data alone, and so is their order.  Each attempt is a test at the full
level alpha.  A wrong claim needs the first candidate in the order that is below what was asked for to clear, which
happens with a probability of at most alpha; so attempts, however many, cost no confidence.

A candidate is a share for each constraint: 0 is the threshold that was asked for, 1 the highest.

Source: Maurer, Hothorn and Lehmacher 1995; for learned models Angelopoulos, Bates, Candes, Jordan and Lei 2021, "Learn
then Test".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

Shares = Mapping[int, float]


@dataclass(frozen=True)
class SequenceSettings:
    """Numbers of the candidates.

    Attributes:
        start: The first candidate's distance in units of what training data alone ask for.  4: in
            ``benchmarks.generalization`` some judging splits of 100 examples could not be passed below it.
        ratio: From one candidate to the next, in (0, 1), so that steps are even in proportion to what is raised; 0.8
            comes down to a tenth in the 12 attempts of ``Tighten`` (``benchmarks.generalization``).
    """

    start: float = 4.0
    ratio: float = 0.8


SETTINGS = SequenceSettings()


def run_fixed_sequence(candidates: Iterable[Shares], attempt: Callable[[Shares], bool]) -> int | None:
    """Try candidates in order and return the number of the last that cleared before the first failure, from 0.

    Args:
        candidates: Shares by constraint, from the safest to the cheapest; fixed before any attempt.
        attempt: Trains the candidate, tests it, and says whether it cleared.

    Returns:
        Which candidate to keep; None where the first one failed.
    """
    last_cleared = None
    for number, shares in enumerate(candidates):
        if not attempt(shares):
            break
        last_cleared = number
    return last_cleared


def descend_shares(
    base: Shares, attempts: int, start: float = SETTINGS.start, ratio: float = SETTINGS.ratio
) -> list[dict[int, float]]:
    """Return candidates on the ray through ``base``, from ``start`` times as far down to what was asked for.

    Args:
        base: The share of each constraint that training data alone ask for; a constraint at 0 stays there.
        attempts: How many candidates at most, at least 1; equal neighbors are one.
        start: The first candidate's distance in units of ``base``; the cap at 1 is per constraint.
        ratio: From one candidate to the next, in (0, 1).

    Returns:
        Shares by constraint, falling in every constraint; the last is what was asked for, where ``attempts`` exceeds 1.
    """
    factors = [start * ratio**k for k in range(max(attempts - 1, 1))] + [0.0] * (attempts > 1)
    candidates: list[dict[int, float]] = []
    for factor in factors:
        shares = {m: min(1.0, factor * share) for m, share in base.items()}
        if not candidates or shares != candidates[-1]:
            candidates.append(shares)
    return candidates
