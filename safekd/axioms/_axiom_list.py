"""The fifteen axioms, what is asked of composed weights, and the four assumptions, as data.

Five kinds recur at three scales: weights sum to one, are positive, bounded, continuous, and a fifth that differs: at
token and context scale a safety ordering, at task scale compatibility with Pareto optima.  Numbers III.x and (A1) to
(A4) are those of the paper (arXiv 2601.17910); U.1 to U.5 are ours and ask the same of the weights that are used in
the end, because Theorem IV.2 promises only some of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import InvalidInput

Kind = Literal["normalization", "positivity", "bounds", "continuity", "ordering", "pareto", "linear", "assumption"]


@dataclass(frozen=True)
class Axiom:
    """One line of a report.

    Attributes:
        id: "III.5", "U.2" or "A1".
        scale: "token", "task", "context", "unified" (the composed and repaired weights) or "all".
        kind: What sort of condition it is.
        name: Two or three words.
        statement: The condition in words.
    """

    id: str
    scale: str
    kind: Kind
    name: str
    statement: str


AXIOMS: tuple[Axiom, ...] = (
    Axiom("III.1", "token", "normalization", "normalization", "For each input, token and context weights sum to 1."),
    Axiom("III.2", "token", "positivity", "positivity", "Every weight is above 0."),
    Axiom("III.3", "token", "bounds", "bounded influence", "Every weight lies between w_min and w_max."),
    Axiom("III.4", "token", "continuity", "regularity", "Weights are continuous in input, token and context."),
    Axiom(
        "III.5",
        "token",
        "ordering",
        "ordinal safety",
        "On critical tokens a teacher that is safer than another weighs at least as much.",
    ),
    Axiom("III.10", "task", "normalization", "normalization", "For each task the weights sum to 1."),
    Axiom("III.11", "task", "positivity", "positivity", "Every weight is above 0."),
    Axiom("III.12", "task", "bounds", "boundedness", "Every weight lies between w_min > 0 and w_max."),
    Axiom("III.13", "task", "continuity", "continuity", "Weights are continuous in what is measured of the task."),
    Axiom(
        "III.14",
        "task",
        "pareto",
        "Pareto compatibility",
        "Whoever minimizes the weighted sum of the losses is a Pareto optimum: nobody beats it in one loss without "
        "losing in another.",
    ),
    Axiom("III.18", "context", "normalization", "normalization", "For almost every context the weights sum to 1."),
    Axiom("III.19", "context", "positivity", "positivity", "Almost everywhere every weight is above 0."),
    Axiom("III.20", "context", "bounds", "boundedness", "Every weight lies between w_min > 0 and w_max."),
    Axiom("III.21", "context", "continuity", "continuity", "Weights are measurable, and continuous in the context."),
    Axiom(
        "III.22",
        "context",
        "ordering",
        "safety prioritisation",
        "In critical contexts a teacher that is safer than another weighs at least as much.",
    ),
)

UNIFIED: tuple[Axiom, ...] = (
    Axiom("U.1", "unified", "normalization", "normalization", "The weights that are used sum to 1."),
    Axiom("U.2", "unified", "positivity", "positivity", "Every weight that is used is above 0."),
    Axiom("U.3", "unified", "bounds", "bounds", "Every weight that is used lies within the bounds of the polytope."),
    Axiom("U.4", "unified", "continuity", "continuity", "The weights that are used are continuous."),
    Axiom(
        "U.5",
        "unified",
        "ordering",
        "safety ordering",
        "At critical positions a teacher that is safer than another weighs at least as much in the end.",
    ),
)

ASSUMPTIONS: tuple[Axiom, ...] = (
    Axiom("A1", "all", "assumption", "bounded weights", "There is a w_min > 0 below every weight."),
    Axiom("A2", "all", "assumption", "Lipschitz", "Weights move at most L times as far as what they depend on."),
    Axiom("A3", "all", "assumption", "realizable", "Some student equals the mixture of the teachers."),
    Axiom("A4", "all", "assumption", "smooth student", "The student's log-probabilities are twice differentiable."),
)

LINEAR = Axiom("P", "all", "linear", "linear rows", "The linear rows of the polytope hold, A w <= b and C w = d.")

_BY_ID = {axiom.id: axiom for axiom in (*AXIOMS, *UNIFIED, LINEAR, *ASSUMPTIONS)}


def find_axiom(name: str) -> Axiom:
    """Return the axiom, the line or the assumption of that name.

    Args:
        name: "III.1" to "III.22", "U.1" to "U.5", "P", or "A1" to "A4".

    Raises:
        InvalidInput: There is none.
    """
    if name not in _BY_ID:
        raise InvalidInput(f"There is no axiom '{name}'; there are {', '.join(_BY_ID)}.")
    return _BY_ID[name]


def select_axioms(scale: str) -> dict[Kind, Axiom]:
    """Return the five axioms of a scale by their kind.

    Args:
        scale: "token", "task", "context" or "unified".

    Raises:
        InvalidInput: There is no such scale.
    """
    axioms = {axiom.kind: axiom for axiom in (*AXIOMS, *UNIFIED) if axiom.scale == scale}
    if not axioms:
        raise InvalidInput(f"`scale` is {scale!r}; wanted 'token', 'task', 'context' or 'unified'.")
    return axioms
