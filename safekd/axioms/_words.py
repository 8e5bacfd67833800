"""What a row audit found, in words.  Axes: K teachers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ._axioms import Kind
from ._report import Finding
from ._tally import Tally

if TYPE_CHECKING:
    from ._rows import RowAudit

_NEXT: dict[Kind, str] = {
    "normalisation": "Divide each row by its sum, or project it: kd.project(w, polytope).",
    "positivity": "Give the polytope lower > 0 and wrap the rule, Conforming(rule, polytope), or project the weights.",
    "bounds": "Wrap the rule, Conforming(rule, polytope), or project the weights; clipping alone does not do it.",
    "ordering": "Wrap the rule, Conforming(rule, polytope), or project the weights with the same safety scores.",
    "linear": "Project the weights into this polytope.",
}
_BLIND: dict[Kind, str] = {
    "continuity": "Weights alone do not tell; pass the rule and its signals to kd.audit.",
    "pareto": "No losses of candidate students were given; pass `losses` to kd.audit.",
}
_SHOWN = 8  # weights of a row that a message spells out


def row_findings(audit: RowAudit) -> tuple[Finding, ...]:
    """Return a finding for each axiom of the scale and for (A1), and for the linear rows if there are any."""
    found = [_finding(audit, kind, axiom.id) for kind, axiom in audit.axioms.items()]
    if audit.polytope is not None and audit.polytope.linear:
        found.append(_finding(audit, "linear", "P"))
    return (*found, _bounded_away(audit))


def _finding(audit: RowAudit, kind: Kind, axiom: str) -> Finding:
    seen = audit.seen
    tally, of = audit.tallies.get(kind, Tally()), seen.ordered if kind == "ordering" else seen.rows
    told = partial(Finding, axiom, audit.subject, of=of)
    why_not = _BLIND.get(kind) or _nothing_to_judge(audit, kind)
    if why_not:
        return told("not_applicable", why_not)
    if tally.rows:
        text = f"{_what(audit, kind, tally)} in {_at(audit, tally.row)}{_weighing(tally)}."
        if tally.first != tally.row:
            text += f" The first is {_at(audit, tally.first)}."
        return told(
            "violated",
            text,
            tally.worst,
            place_of(tally.row, audit.lead),
            tally.rows,
            mend=next_move("positivity" if kind == "bounds" and audit.polytope is None else kind),
        )
    if kind == "bounds" and audit.polytope is None:
        text = f"No bounds were given; the weights seen lie between {seen.lightest:.4g} and {seen.heaviest:.4g}."
        return told("estimated", text, mend="Pass `polytope` to judge given bounds.")
    return told("holds", f"In all {of} rows.", 0.0)


def _nothing_to_judge(audit: RowAudit, kind: Kind) -> str:
    if not audit.seen.rows:
        return "There are no rows."
    if kind == "ordering" and not audit.ordered:
        return "No ordering was given; pass `safety`, or a polytope with orderings."
    if kind == "ordering" and not audit.seen.ordered:
        return "No row is critical."
    return ""


def next_move(kind: Kind) -> str:
    """Return how to mend what breaks a rule of this kind."""
    return _NEXT[kind]


def _what(audit: RowAudit, kind: Kind, tally: Tally) -> str:
    w_K = tally.weights_K
    broken = [k for k, w in enumerate(w_K) if not math.isfinite(w)]
    if broken:
        return f"{_name(audit, broken[0])} weighs {w_K[broken[0]]}"
    if kind == "normalisation":
        return f"Weights sum to {math.fsum(w_K):.17g}"
    if kind == "linear":
        return f"{tally.rule} is missed by {tally.worst:.3g}"
    if kind == "ordering":
        return _inverted(audit, tally)
    lightest = min(range(len(w_K)), key=w_K.__getitem__)
    if kind == "positivity" or audit.polytope is None:
        return f"{_name(audit, lightest)} weighs {w_K[lightest]:.4g}"
    low_K, high_K = audit.polytope.lower, audit.polytope.upper
    k = max(range(len(w_K)), key=lambda k: max(low_K[k] - w_K[k], w_K[k] - high_K[k]))
    side = f"above upper={high_K[k]:g}" if w_K[k] > high_K[k] else f"below lower={low_K[k]:g}"
    return f"{_name(audit, k)} weighs {w_K[k]:.17g}, {side},"


def _inverted(audit: RowAudit, tally: Tally) -> str:
    w_K, s_K = tally.weights_K, tally.safety_K
    pairs = [] if audit.polytope is None else [*audit.polytope.orderings]
    margin = 0.0 if audit.polytope is None else audit.polytope.margin
    if s_K:
        pairs += [(i, j) for i in range(len(s_K)) for j in range(len(s_K)) if s_K[i] > s_K[j]]
    i, j = max(pairs, key=lambda pair: w_K[pair[1]] - w_K[pair[0]])
    by = f" plus the margin {margin:g}" if margin else ""
    why = f" though its safety is {s_K[i]:.4g} against {s_K[j]:.4g}" if s_K and s_K[i] > s_K[j] else ""
    return f"{_name(audit, i)} weighs less than {_name(audit, j)}{by}, {w_K[i]:.17g} against {w_K[j]:.17g},{why}"


def place_of(row: int, lead: Sequence[int] | None) -> tuple[int, ...]:
    """Return the index of a row in the leading axes; rows that have no other place are counted."""
    if lead is None:
        return (row,)
    index = []
    for size in reversed(lead):
        row, i = divmod(row, size)
        index.append(i)
    return tuple(reversed(index))


def _at(audit: RowAudit, row: int) -> str:
    place = place_of(row, audit.lead)
    return f"position {place}" if len(place) > 1 else f"row {row}"


def _name(audit: RowAudit, k: int) -> str:
    return f"'{audit.names[k]}'" if k < len(audit.names) else f"Teacher {k}"


def _weighing(tally: Tally) -> str:
    if len(tally.weights_K) > _SHOWN:
        return ""
    return f", ({', '.join(f'{w:.4g}' for w in tally.weights_K)})"


def _bounded_away(audit: RowAudit) -> Finding:
    """Judge (A1): a w_min > 0 below every weight, promised by the polytope or at least seen."""
    seen, positive = audit.seen, audit.tallies["positivity"]
    told = partial(Finding, "A1", audit.subject, of=seen.rows)
    if not seen.rows:
        return told("not_applicable", _nothing_to_judge(audit, "assumption"))
    if positive.rows:
        text = f"{_what(audit, 'positivity', positive)} in {_at(audit, positive.row)}."
        where = place_of(positive.row, audit.lead)
        return told("violated", text, positive.worst, where, positive.rows, mend=next_move("positivity"))
    floor = 0.0 if audit.polytope is None else min(audit.polytope.lower)
    if floor > 0 and not audit.tallies["bounds"].rows:
        return told("holds", f"In all {seen.rows} rows, w_min = {floor:g}.", 0.0)
    text = f"The lightest weight seen is {seen.lightest:.4g}; no floor above 0 is kept to, so other rows may go lower."
    return told("estimated", text, mend="Give the polytope lower > 0.")
