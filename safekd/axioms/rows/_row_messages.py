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
_NOT_IN_ROWS: dict[Kind, str] = {
    "continuity": "Weights alone do not tell; pass the rule and its signals to kd.audit.",
    "pareto": "No losses of candidate students were given; pass `losses` to kd.audit.",
}
_SHOWN = 8  # weights of a row that a message spells out


def write_row_findings(counts: RowCounts) -> tuple[Finding, ...]:
    """Return a finding for each axiom of the scale and for (A1), and for the linear rows if there are any."""
    findings = [_judge_kind(counts, kind, axiom.id) for kind, axiom in counts.axioms.items()]
    if counts.polytope is not None and counts.polytope.linear:
        findings.append(_judge_kind(counts, "linear", "P"))
    return (*findings, _judge_bounded_away(counts))


def _judge_kind(counts: RowCounts, kind: Kind, axiom: str) -> Finding:
    tally, judged = counts.tallies.get(kind, Tally()), counts.ordered if kind == "ordering" else counts.rows
    finding = partial(Finding, axiom, counts.subject, judged=judged)
    why_not = _NOT_IN_ROWS.get(kind) or _explain_nothing_judged(counts, kind)
    if why_not:
        return finding("not_applicable", why_not)
    if tally.rows:
        text = (
            f"{_describe_violation(counts, kind, tally)} in {_describe_row(counts, tally.row)}{_list_weights(tally)}."
        )
        if tally.first != tally.row:
            text += f" The first is {_describe_row(counts, tally.first)}."
        return finding(
            "violated",
            text,
            tally.worst,
            locate_row(tally.row, counts.lead),
            tally.rows,
            remedy=suggest_remedy("positivity" if kind == "bounds" and counts.polytope is None else kind),
        )
    if kind == "bounds" and counts.polytope is None:
        text = f"No bounds were given; the weights seen lie between {counts.lightest:.4g} and {counts.heaviest:.4g}."
        return finding("estimated", text, remedy="Pass `polytope` to judge given bounds.")
    return finding("holds", f"In all {judged} rows.", 0.0)


def _explain_nothing_judged(counts: RowCounts, kind: Kind) -> str:
    if not counts.rows:
        return "There are no rows."
    if kind == "ordering" and not counts.has_orderings:
        return "No ordering was given; pass `safety`, or a polytope with orderings."
    if kind == "ordering" and not counts.ordered:
        return "No row is critical."
    return ""


def suggest_remedy(kind: Kind) -> str:
    """Return the next move where a condition of this kind is broken."""
    return _NEXT[kind]


def _describe_violation(counts: RowCounts, kind: Kind, tally: Tally) -> str:
    w_K = tally.weights_K
    broken = [k for k, w in enumerate(w_K) if not math.isfinite(w)]
    if broken:
        return f"{_name_teacher(counts, broken[0])} weighs {w_K[broken[0]]}"
    if kind == "normalization":
        return f"Weights sum to {math.fsum(w_K):.17g}"
    if kind == "linear":
        return f"{tally.condition} is missed by {tally.worst:.3g}"
    if kind == "ordering":
        return _describe_inversion(counts, tally)
    lightest = min(range(len(w_K)), key=w_K.__getitem__)
    if kind == "positivity" or counts.polytope is None:
        return f"{_name_teacher(counts, lightest)} weighs {w_K[lightest]:.4g}"
    low_K, high_K = counts.polytope.lower, counts.polytope.upper
    k = max(range(len(w_K)), key=lambda k: max(low_K[k] - w_K[k], w_K[k] - high_K[k]))
    side = f"above upper={high_K[k]:g}" if w_K[k] > high_K[k] else f"below lower={low_K[k]:g}"
    return f"{_name_teacher(counts, k)} weighs {w_K[k]:.17g}, {side},"


def _describe_inversion(counts: RowCounts, tally: Tally) -> str:
    w_K, s_K = tally.weights_K, tally.safety_K
    pairs = [] if counts.polytope is None else [*counts.polytope.orderings]
    margin = 0.0 if counts.polytope is None else counts.polytope.margin
    if s_K:
        pairs += [(i, j) for i in range(len(s_K)) for j in range(len(s_K)) if s_K[i] > s_K[j]]
    i, j = max(pairs, key=lambda pair: w_K[pair[1]] - w_K[pair[0]])
    by = f" plus the margin {margin:g}" if margin else ""
    why = f" though its safety is {s_K[i]:.4g} against {s_K[j]:.4g}" if s_K and s_K[i] > s_K[j] else ""
    names = f"{_name_teacher(counts, i)} weighs less than {_name_teacher(counts, j)}"
    return f"{names}{by}, {w_K[i]:.17g} against {w_K[j]:.17g},{why}"


def _describe_row(counts: RowCounts, row: int) -> str:
    place = locate_row(row, counts.lead)
    return f"position {place}" if len(place) > 1 else f"row {row}"


def _name_teacher(counts: RowCounts, k: int) -> str:
    return f"'{counts.names[k]}'" if k < len(counts.names) else f"Teacher {k}"


def _list_weights(tally: Tally) -> str:
    if len(tally.weights_K) > _SHOWN:
        return ""
    return f", ({', '.join(f'{w:.4g}' for w in tally.weights_K)})"


def _judge_bounded_away(counts: RowCounts) -> Finding:
    """Judge (A1): a w_min > 0 below every weight, promised by the polytope or at least seen."""
    positive = counts.tallies["positivity"]
    finding = partial(Finding, "A1", counts.subject, judged=counts.rows)
    if not counts.rows:
        return finding("not_applicable", _explain_nothing_judged(counts, "assumption"))
    if positive.rows:
        text = f"{_describe_violation(counts, 'positivity', positive)} in {_describe_row(counts, positive.row)}."
        where = locate_row(positive.row, counts.lead)
        return finding("violated", text, positive.worst, where, positive.rows, remedy=suggest_remedy("positivity"))
    floor = 0.0 if counts.polytope is None else min(counts.polytope.lower)
    if floor > 0 and not counts.tallies["bounds"].rows:
        return finding("holds", f"In all {counts.rows} rows, w_min = {floor:g}.", 0.0)
    text = (
        f"The lightest weight seen is {counts.lightest:.4g}; no floor above 0 is kept to, so other rows may go lower."
    )
    return finding("estimated", text, remedy="Give the polytope lower > 0.")
