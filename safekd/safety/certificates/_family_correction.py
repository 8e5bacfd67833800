"""Several constraints decided together, so that with the stated confidence no "safe" among them is wrong.

Each constraint i of k has bounds L_i at every error; ``d`` stands for the part alpha / d of the error alpha = 1 -
confidence.

    None         d = 1: each by itself
    bonferroni   d = k: all k bounds hold at once
    holm         the constraints whose bound at d = k reaches what is required are safe; then those of the others at
                 d = how many are left; and so on until none is added.  At least as many are safe as with Bonferroni

Holm's is the closed test of Bonferroni's, and all bounds that are stated with it hold at once too: of those not shown
at the d that was left; of those safe, while others are not, no more than what is required of them; where all are safe,
the one at d = k if it is higher.  A smaller error may give a higher bound by chance, where bets depend on it; so the
lowest bound of all larger parts is taken, without which Holm's steps would not be those of a closed test.
Source: Holm 1979; Strassburger and Bretz 2008 (bounds that go with Holm's test).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from ...errors import InvalidInput

Correction = Literal["holm", "bonferroni"] | None
BoundAt = Callable[[int], float]


class Decision(NamedTuple):
    """What is stated of one constraint.

    Attributes:
        safe: Whether the bound reaches what is required.
        bound: Stated together with those of the others.
        divisor: d, the part of the error at which it was decided.
    """

    safe: bool
    bound: float
    divisor: int


def require_correction(correction: object) -> None:
    """Refuse a correction that is none.

    Args:
        correction: "holm", "bonferroni" or None.

    Raises:
        InvalidInput: It is neither.
    """
    if correction is not None and not (isinstance(correction, str) and correction in ("holm", "bonferroni")):
        raise InvalidInput(
            f"`correction` is {correction!r}; wanted 'holm', 'bonferroni', or None where each constraint is to be read "
            "by itself."
        )


def decide_together(bounds: Sequence[BoundAt], required: Sequence[float], correction: Correction) -> list[Decision]:
    """Return what is decided of each constraint.

    Args:
        bounds: Of each constraint its lower bound at the part alpha / d of the error, by d.
        required: Its threshold.
        correction: For how many there are.
    """
    count = len(bounds)
    if correction != "holm" or count == 1:
        divisor = 1 if correction is None else count
        found = [bound(divisor) for bound in bounds]
        return [Decision(low >= least, low, divisor) for low, least in zip(found, required, strict=True)]
    nested = [_keep_lowest(bound) for bound in bounds]
    divisor_of: dict[int, int] = {}
    while len(divisor_of) < count:
        left = [i for i in range(count) if i not in divisor_of]
        added = [i for i in left if nested[i](len(left)) >= required[i]]
        if not added:
            break
        divisor_of |= dict.fromkeys(added, len(left))
    if len(divisor_of) == count:
        return [Decision(True, max(required[i], nested[i](count)), divisor_of[i]) for i in range(count)]
    left_over = count - len(divisor_of)
    return [
        Decision(True, required[i], divisor_of[i])
        if i in divisor_of
        else Decision(False, nested[i](left_over), left_over)
        for i in range(count)
    ]


def _keep_lowest(bound: BoundAt) -> BoundAt:
    known: dict[int, float] = {}

    def lowest(divisor: int) -> float:
        for d in range(1, divisor + 1):
            if d not in known:
                known[d] = min(bound(d), known.get(d - 1, float("inf")))
        return known[divisor]

    return lowest
