"""What a row audit found, in words.  Axes: K teachers."""

from __future__ import annotations

import math
from functools import partial

from .._audit_report import Finding, locate_row
from .._axiom_list import Kind
from ._violation_tally import RowCounts, Tally

_NEXT: dict[Kind, str] = {
    "normalization": "Divide each row by its sum, or project it: kd.project(w, polytope).",
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


def judge_rows(counts: RowCounts) -> tuple[Finding, ...]:
    """Return a finding for each axiom of the scale and for (A1), and for the linear rows if there are any."""
    found = [_finding(counts, kind, axiom.id) for kind, axiom in counts.axioms.items()]
    if counts.polytope is not None and counts.polytope.linear:
        found.append(_finding(counts, "linear", "P"))
    return (*found, _bounded_away(counts))


def _finding(counts: RowCounts, kind: Kind, axiom: str) -> Finding:
    tally, of = counts.tallies.get(kind, Tally()), counts.ordered if kind == "ordering" else counts.rows
    told = partial(Finding, axiom, counts.subject, of=of)
    why_not = _BLIND.get(kind) or _nothing_to_judge(counts, kind)
    if why_not:
        return told("not_applicable", why_not)
    if tally.rows:
        text = f"{_what(counts, kind, tally)} in {_at(counts, tally.row)}{_weighing(tally)}."
        if tally.first != tally.row:
            text += f" The first is {_at(counts, tally.first)}."
        return told(
            "violated",
            text,
            tally.worst,
            locate_row(tally.row, counts.lead),
            tally.rows,
            remedy=suggest_remedy("positivity" if kind == "bounds" and counts.polytope is None else kind),
        )
    if kind == "bounds" and counts.polytope is None:
        text = f"No bounds were given; the weights seen lie between {counts.lightest:.4g} and {counts.heaviest:.4g}."
        return told("estimated", text, remedy="Pass `polytope` to judge given bounds.")
    return told("holds", f"In all {of} rows.", 0.0)


def _nothing_to_judge(counts: RowCounts, kind: Kind) -> str:
    if not counts.rows:
        return "There are no rows."
    if kind == "ordering" and not counts.has_orderings:
        return "No ordering was given; pass `safety`, or a polytope with orderings."
    if kind == "ordering" and not counts.ordered:
        return "No row is critical."
    return ""


def suggest_remedy(kind: Kind) -> str:
    """Return how to mend what breaks a rule of this kind."""
    return _NEXT[kind]


def _what(counts: RowCounts, kind: Kind, tally: Tally) -> str:
    w_K = tally.weights_K
    broken = [k for k, w in enumerate(w_K) if not math.isfinite(w)]
    if broken:
        return f"{_name(counts, broken[0])} weighs {w_K[broken[0]]}"
    if kind == "normalization":
        return f"Weights sum to {math.fsum(w_K):.17g}"
    if kind == "linear":
        return f"{tally.rule} is missed by {tally.worst:.3g}"
    if kind == "ordering":
        return _inverted(counts, tally)
    lightest = min(range(len(w_K)), key=w_K.__getitem__)
    if kind == "positivity" or counts.polytope is None:
        return f"{_name(counts, lightest)} weighs {w_K[lightest]:.4g}"
    low_K, high_K = counts.polytope.lower, counts.polytope.upper
    k = max(range(len(w_K)), key=lambda k: max(low_K[k] - w_K[k], w_K[k] - high_K[k]))
    side = f"above upper={high_K[k]:g}" if w_K[k] > high_K[k] else f"below lower={low_K[k]:g}"
    return f"{_name(counts, k)} weighs {w_K[k]:.17g}, {side},"


def _inverted(counts: RowCounts, tally: Tally) -> str:
    w_K, s_K = tally.weights_K, tally.safety_K
    pairs = [] if counts.polytope is None else [*counts.polytope.orderings]
    margin = 0.0 if counts.polytope is None else counts.polytope.margin
    if s_K:
        pairs += [(i, j) for i in range(len(s_K)) for j in range(len(s_K)) if s_K[i] > s_K[j]]
    i, j = max(pairs, key=lambda pair: w_K[pair[1]] - w_K[pair[0]])
    by = f" plus the margin {margin:g}" if margin else ""
    why = f" though its safety is {s_K[i]:.4g} against {s_K[j]:.4g}" if s_K and s_K[i] > s_K[j] else ""
    return f"{_name(counts, i)} weighs less than {_name(counts, j)}{by}, {w_K[i]:.17g} against {w_K[j]:.17g},{why}"


def _at(counts: RowCounts, row: int) -> str:
    place = locate_row(row, counts.lead)
    return f"position {place}" if len(place) > 1 else f"row {row}"


def _name(counts: RowCounts, k: int) -> str:
    return f"'{counts.names[k]}'" if k < len(counts.names) else f"Teacher {k}"


def _weighing(tally: Tally) -> str:
    if len(tally.weights_K) > _SHOWN:
        return ""
    return f", ({', '.join(f'{w:.4g}' for w in tally.weights_K)})"


def _bounded_away(counts: RowCounts) -> Finding:
    """Judge (A1): a w_min > 0 below every weight, promised by the polytope or at least seen."""
    positive = counts.tallies["positivity"]
    told = partial(Finding, "A1", counts.subject, of=counts.rows)
    if not counts.rows:
        return told("not_applicable", _nothing_to_judge(counts, "assumption"))
    if positive.rows:
        text = f"{_what(counts, 'positivity', positive)} in {_at(counts, positive.row)}."
        where = locate_row(positive.row, counts.lead)
        return told("violated", text, positive.worst, where, positive.rows, remedy=suggest_remedy("positivity"))
    floor = 0.0 if counts.polytope is None else min(counts.polytope.lower)
    if floor > 0 and not counts.tallies["bounds"].rows:
        return told("holds", f"In all {counts.rows} rows, w_min = {floor:g}.", 0.0)
    text = (
        f"The lightest weight seen is {counts.lightest:.4g}; no floor above 0 is kept to, so other rows may go lower."
    )
    return told("estimated", text, remedy="Give the polytope lower > 0.")
