"""Orderings between teachers that belong to one scale, and what becomes of two scales that disagree.

A pair (i, j) says that teacher i must not count less than teacher j.  The token scale speaks about classes in S
(axiom III.5), the context scale about contexts in C_safe (axiom III.22).  Axes: K teachers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.polytope import Pairs, WeightPolytope, closure, find_cycle, read_orderings
from solvers.short_repr import ShortRepr

from ..._number_checks import is_whole
from ...errors import InvalidInput
from ..signals import ORDERED_SCALES, OrderedScale


@dataclass(frozen=True, init=False, repr=False)
class ScaleOrderings(ShortRepr):
    """Who must not count less than whom, at the critical positions of one scale.

    Equal content is equal and hashes alike.

    Attributes:
        scale: "token" (S, the critical classes) or "context" (C_safe).
        n_teachers: K.
        everywhere: Pairs (i, j), teacher i at least as heavy as teacher j, that hold in every critical class or
            context.
        by_group: Further pairs by the number of the class or context in which they hold; given as a mapping.

    Raises:
        InvalidInput: An index is not there, or pairs go round in a circle, which the message spells out.

    Source: axioms III.5 (token) and III.22 (context).

    >>> ScaleOrderings("context", 3, everywhere=[(0, 2)], by_group={1: [(1, 2)]}).pairs(1)
    ((0, 2), (1, 2))
    """

    scale: OrderedScale
    n_teachers: int
    everywhere: Pairs
    by_group: tuple[tuple[int, Pairs], ...]

    def __init__(
        self,
        scale: OrderedScale,
        n_teachers: int,
        everywhere: Iterable[tuple[int, int]] = (),
        by_group: Mapping[int, Iterable[tuple[int, int]]] | None = None,
    ) -> None:
        if scale not in ORDERED_SCALES:
            raise InvalidInput(f"`scale` of orderings is {scale!r}; wanted 'token' or 'context'.")
        # circles are looked for below, where it is known between whom
        own = {
            _require_group_number(g): read_orderings(pairs, n_teachers, ties=True)
            for g, pairs in dict(by_group or {}).items()
        }
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "n_teachers", n_teachers)
        object.__setattr__(self, "everywhere", read_orderings(everywhere, n_teachers, ties=True))
        object.__setattr__(self, "by_group", tuple(sorted(own.items())))
        for own_named in [[], *([one] for one in self.list_named_pairs())]:
            require_no_cycle([(f"the {scale} scale, everywhere", self.everywhere), *own_named], n_teachers)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The classes or contexts that have pairs of their own, ascending."""
        return tuple(number for number, _ in self.by_group)

    def pairs(self, number: int | None = None) -> Pairs:
        """Return the pairs that hold in one class or context.

        Args:
            number: The class or context; None for those that hold in every one.

        Returns:
            Pairs (i, j), ascending.
        """
        own: Pairs = () if number is None else dict(self.by_group).get(number, ())
        return tuple(sorted({*self.everywhere, *own}))

    def list_named_pairs(self) -> list[tuple[str, Pairs]]:
        """Return the pairs of single classes or contexts with a name for messages."""
        what = "class" if self.scale == "token" else "context"
        return [(f"the {self.scale} scale, {what} {number}", pairs) for number, pairs in self.by_group]


def _require_group_number(value: Any) -> int:
    if not is_whole(value) or value < 0:
        raise InvalidInput(f"`by_group` names {value!r}; wanted the number of a class or context, an integer from 0.")
    return int(value)


def require_no_cycle(named: Sequence[tuple[str, Pairs]], n_teachers: int) -> None:
    """Refuse pairs of several sources that go round in a circle together.

    Args:
        named: Name of each source for the message, and its pairs.
        n_teachers: K.

    Raises:
        InvalidInput: They do; the message names the source of each pair.
    """
    cycle = find_cycle(tuple(sorted({pair for _, pairs in named for pair in pairs})), n_teachers)
    if not cycle:
        return
    steps = []
    for step in pairwise(cycle):
        origin = " and ".join(dict.fromkeys(name for name, pairs in named if step in pairs))
        steps.append(f"teacher {step[0]} >= teacher {step[1]} ({origin})")
    raise InvalidInput(
        f"The orderings contradict each other, they go round in a circle: {', '.join(steps)}. "
        "Take one of these pairs out."
    )


def require_polytope(polytope: object) -> None:
    """Raise InvalidInput unless it is a WeightPolytope."""
    if not isinstance(polytope, WeightPolytope):
        raise InvalidInput(
            f"`polytope` is {polytope!r}; wanted a WeightPolytope: WeightPolytope(n_teachers=..., lower=...)."
        )


def require_compatible_orderings(polytope: WeightPolytope, named: Sequence[tuple[str, ScaleOrderings]]) -> None:
    """Refuse orderings of scales that contradict each other or the polytope from the start.

    What holds everywhere is looked at together, what holds in one class or context with what holds everywhere at its
    own scale: which class meets which context is known only from data.  A polytope with ties takes circles as equal
    weights.

    Args:
        polytope: Bounds and orderings that all weights keep.
        named: Name of each source for the message, and its orderings.

    Raises:
        InvalidInput: They contradict each other, or are for another number of teachers.
        InfeasiblePolytope: Margins or bounds leave no weights.
    """
    require_polytope(polytope)
    for name, orderings in named:
        if orderings.n_teachers != polytope.n_teachers:
            raise InvalidInput(
                f"{name} are for {orderings.n_teachers} teachers, the polytope has {polytope.n_teachers}; wanted equal."
            )
    own = ("the polytope", polytope.orderings)
    together = [[own, *((name, orderings.everywhere) for name, orderings in named)]]
    together += [
        [own, (name, orderings.everywhere), one] for name, orderings in named for one in orderings.list_named_pairs()
    ]
    for sources in together:
        if not polytope.ties:
            require_no_cycle(sources, polytope.n_teachers)
        polytope.with_orderings({pair for _, pairs in sources for pair in pairs})


def merge_orderings(scale: OrderedScale, several: Sequence[ScaleOrderings]) -> ScaleOrderings:
    """Return the orderings of several sources at one scale as one.

    Args:
        scale: "token" or "context".
        several: At least one, all of that scale.

    Returns:
        All their pairs.
    """
    if len(several) == 1:
        return several[0]
    numbers = sorted({number for orderings in several for number in orderings.numbers})
    return ScaleOrderings(
        scale,
        several[0].n_teachers,
        {pair for orderings in several for pair in orderings.everywhere},
        {number: {pair for orderings in several for pair in orderings.pairs(number)} for number in numbers},
    )


def reconcile_orderings(winner: Pairs, loser: Pairs, n_teachers: int) -> tuple[Pairs, bool]:
    """Return the orderings that hold where two scales meet, and whether they disagree.

    The winner's hold whole.  Of the loser's, with all that follows from them, those stay whose opposite does not follow
    from the winner's, and which do not go round in a circle with what is left.  Where both rank all teachers, this is
    the winner's ranking, with its ties decided by the loser.

    Args:
        winner: Pairs (i, j) of the scale that wins.
        loser: Pairs of the other one.
        n_teachers: K.

    Returns:
        The pairs that hold, and True where a pair of the loser's was given up.
    """
    won_KK, lost_KK = closure(winner, n_teachers), closure(loser, n_teachers)
    kept_KK = lost_KK & ~won_KK.T
    reverse_KK = closure(_list_pairs(won_KK | kept_KK), n_teachers).T  # [i, j]: j stands above i
    kept_KK &= ~reverse_KK | won_KK  # every circle has a pair of the loser's, and loses it
    return _list_pairs(won_KK | kept_KK), bool((lost_KK & ~kept_KK).any())


def _list_pairs(above_KK: npt.NDArray[np.bool_]) -> Pairs:
    return tuple((int(i), int(j)) for i, j in np.argwhere(above_KK) if i != j)
