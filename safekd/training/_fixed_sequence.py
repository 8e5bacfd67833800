"""Fixed-sequence search: candidates from the safest to the cheapest, tested on one split, until the first failure.

Every candidate is a function of the training data alone, and so is their order.  Each attempt is a test at the full
level alpha.  A wrong claim needs the first candidate in the order that is below what was asked for to clear, which
happens with a probability of at most alpha; so attempts, however many, cost no confidence (Maurer, Hothorn and
Lehmacher 1995; for learned models: Angelopoulos, Bates, Candes, Jordan and Lei 2021, "Learn then Test").

A candidate is a place for each constraint: 0 is the threshold that was asked for, 1 the highest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

Places = Mapping[int, float]


def fixed_sequence(candidates: Iterable[Places], attempt: Callable[[Places], bool]) -> int | None:
    """Try candidates in order and return the number of the last that cleared before the first failure, from 0.

    Args:
        candidates: Places by constraint, from the safest to the cheapest; fixed before any attempt.
        attempt: Trains the candidate, tests it, and says whether it cleared.

    Returns:
        Which candidate to keep; None where the first one failed.
    """
    kept = None
    for number, places in enumerate(candidates):
        if not attempt(places):
            break
        kept = number
    return kept


def descending(base: Places, attempts: int, start: float = 4.0, ratio: float = 0.8) -> list[dict[int, float]]:
    """Return candidates on the ray through ``base``, from ``start`` times as far down to what was asked for.

    Args:
        base: The place of each constraint that training data alone ask for; a constraint at 0 stays there.
        attempts: How many candidates at most, at least 1; equal neighbors are one.
        start: The first candidate's distance in units of ``base``; the cap at 1 is per constraint.  4: in
            ``benchmarks.generalization`` some judging splits of 100 examples could not be passed below it.
        ratio: From one candidate to the next, in (0, 1), so that steps are even in proportion to what is raised.

    Returns:
        Places by constraint, falling in every constraint; the last is what was asked for, where ``attempts`` exceeds 1.
    """
    factors = [start * ratio**k for k in range(max(attempts - 1, 1))] + [0.0] * (attempts > 1)
    found: list[dict[int, float]] = []
    for factor in factors:
        here = {m: min(1.0, factor * place) for m, place in base.items()}
        if not found or here != found[-1]:
            found.append(here)
    return found
