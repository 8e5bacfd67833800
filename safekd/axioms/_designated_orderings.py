"""Which orderings the weights of a batch must keep (III.5, III.22): what is designated, not what a rule believes.

Orderings that the polytope names come first.  Orderings of a scale that came with a rule (``ScaleOrderings``) hold as
the rule says, two scales that contradict each other included, since they were designated with it.  Otherwise the order
of safety scores holds, whether the rule follows it or not: of the scale that is judged, where both scales have scores.
Axes: ... positions, K teachers.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from solvers.polytope import WeightPolytope

from ..data import fill_uncounted
from ..weights import Conforming, PositionOrderings, Signals, Unified
from ._audit_report import Finding, locate_row
from .rows import suggest_remedy

_SCORED: tuple[Literal["token", "context"], ...] = ("token", "context")
_SCORES = {"token": "token_safety", "context": "safety"}


def find_designated_orderings(
    rule: object, polytope: WeightPolytope | None, signals: Signals
) -> PositionOrderings | None:
    """Return the orderings that were designated with a rule; None if those of the polytope or of scores hold."""
    if isinstance(rule, Unified):
        parts = [part for part in (rule.token, rule.context) if part is not None]
        inside = [getattr(part, "polytope", None) for part in parts]
        given = [rule.token_orderings, rule.context_orderings, *(getattr(part, "orderings", None) for part in parts)]
        designated = any(one is not None for one in given) or any(P is not None and P.orderings for P in inside)
        return rule.orders(signals) if designated or all(signals.has_safety(scale) for scale in _SCORED) else None
    orderings = getattr(rule, "orderings", None)
    if polytope is None or orderings is None:
        return None
    return Conforming(lambda s: s.ones(), polytope, orderings=orderings).orders(signals)


def select_scores(
    signals: Signals | None, polytope: WeightPolytope | None, scale: str
) -> tuple[Tensor | None, Tensor | None]:
    """Return safety (..., K) whose order holds, None for none; and where it does, bool (...), None for all rows."""
    if signals is None:
        return None, None
    critical = signals.critical if signals.names_critical else None
    if polytope is not None and polytope.orderings:
        return None, critical
    present = [one for one in _SCORED if signals.has_safety(one)]
    if not present:
        return None, critical
    if len(present) == 1:
        return getattr(signals, _SCORES[present[0]]), critical
    of_scale: Literal["token", "context"] = "token" if scale == "token" else "context"
    where = signals.critical_positions(of_scale) if signals.names_critical else None
    return getattr(signals, _SCORES[of_scale]), where


def judge_orderings(
    orders: PositionOrderings, axiom: str, subject: str, w_K: Tensor, counted: Tensor | None = None
) -> Finding:
    """Judge orderings that differ from position to position, by how far the nearest weights are that keep them.

    counted: positions that are judged, bool (...); None for all.
    """
    w_K = fill_uncounted(w_K, counted, 1 / w_K.shape[-1])
    broken_B, w_BK = orders.find_violations(w_K).reshape(-1), w_K.reshape(-1, w_K.shape[-1])
    lost_B = w_BK.isnan().any(-1)
    broken_B = broken_B | lost_B
    judged = len(w_BK)
    if counted is not None:
        broken_B, judged = broken_B & counted.reshape(-1), int(counted.sum())
    rows = int(broken_B.sum())
    if not judged:
        return Finding(axiom, subject, "not_applicable", "There are no rows.")
    if not rows:
        return Finding(axiom, subject, "holds", f"In all {judged} rows.", 0.0, None, 0, judged)
    if bool(lost_B.any()):
        where = locate_row(int(lost_B.to(torch.uint8).argmax()), w_K.shape[:-1])
        text = f"A weight at {where} is not a number."
        return Finding(axiom, subject, "violated", text, math.nan, where, rows, judged, suggest_remedy("ordering"))
    kept_BK = orders.project(w_K, "euclidean").reshape(w_BK.shape)
    off_B = torch.where(broken_B, (w_BK - kept_BK).abs().amax(-1), -torch.inf)
    worst = int(off_B.argmax())
    where = locate_row(worst, w_K.shape[:-1])
    shown, nearest = ([float(f"{w:.4g}") for w in row_K.tolist()] for row_K in (w_BK[worst], kept_BK[worst]))
    text = f"Weights {shown} at {where} break an ordering that holds there; the nearest that keep it are {nearest}."
    return Finding(
        axiom, subject, "violated", text, float(off_B[worst]), where, rows, judged, suggest_remedy("ordering")
    )
