"""The audit: a rule and a batch of signals in, fifteen axioms judged.

Normalization, positivity, bounds and orderings are exact over the batch (``_rows``), continuity is searched for jumps
(``_continuity``), Pareto compatibility needs losses of candidate students (``_pareto``), the assumptions on the student
what shows it (``_student``).  Axes: ... positions, B of them, K teachers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from solvers.polytope import WeightPolytope

from .._number_checks import is_whole
from .._torch_state import evaluation_mode, limit_threads
from ..data import Inputs, fill_uncounted
from ..errors import InvalidInput, MissingSignal
from ..weights import Signals, collect_modules, require_rule
from ._audit_progress import show_lines
from ._audit_report import AuditReport, Finding, build_report, locate_row
from ._audit_subjects import Subject, explain_missing_scales, list_subjects
from ._axiom_list import select_axioms
from ._designated_orderings import find_designated_orderings, judge_orderings, select_scores
from ._pareto_compatibility import Losses, judge_pareto
from ._student_assumptions import judge_realizable, judge_smooth
from .continuity import MovableSignals, Weights, judge_continuity
from .rows import RowAudit

_QUICK_ROWS = 128  # of a batch; a rule that jumps does so in many of them


def audit(
    rule: Callable[[Signals], Tensor] | Tensor,
    signals: Signals | None = None,
    *,
    polytope: WeightPolytope | None = None,
    scale: str | None = None,
    as_weights: bool | None = None,
    vary: Sequence[str] | None = None,
    losses: Losses | None = None,
    under: Sequence[Signals] | None = None,
    student: tuple[nn.Module, Inputs] | None = None,
    names: Sequence[str] = (),
    tries: int = 4,
    quick: bool = False,
    seed: int = 0,
) -> AuditReport:
    """Judge weights by the axioms of the paper.

    Args:
        rule: ``Unified``, ``Conforming``, any callable from Signals, or weights (..., K).  A Unified is judged at each
            of its scales, the others left out, repair included, and as a whole in lines U.1 to U.5; anything else at
            one scale.
        signals: The batch to judge it on; float64 lets the search see finer.  Weights alone can go without.
        polytope: What to judge by; by default what the rule carries.  Without one, bounds are estimated.
        scale: "token", "task" or "context" for a rule that has none; "token" by default.
        as_weights: True judges what a callable returns as it is, False divides it by its sum first, as whoever uses
            scores does; by default True for rules that carry a polytope.
        vary: Which signals the search for jumps moves; by default all floats but safety, as an ordering must jump
            where safety ties.
        losses: Losses of candidate students for III.14, (N, K); or a function from weights (B, K) to the losses of the
            students that minimize the sums.
        under: The signals under each candidate student, if the rule looks at the student.
        student: A module and inputs, a tensor or a dictionary of them, to look for kinks (A4).
        names: Of the teachers, for the report.
        tries: How many lines of each sort are searched, at least 1.
        quick: Whether continuity is looked for along few lines, as by ``tries=1``, and at 128 positions at most; all
            else is judged in full.
        seed: Which lines.

    Returns:
        The report.

    Raises:
        InvalidInput: Something does not fit.
        MissingSignal: The rule needs more signals.

    Source: axioms III.1 to III.22 and assumptions (A1) to (A4) of the paper.
    """
    if polytope is not None and not isinstance(polytope, WeightPolytope):
        raise InvalidInput(f"`polytope` is {polytope!r}; wanted a WeightPolytope.")
    if isinstance(rule, Tensor):
        if not rule.ndim:
            raise InvalidInput("Weights have shape (); wanted (..., teachers).")
        subject = Subject("weights", scale or "token", lambda _: rule, polytope)
        return build_report(_judge_subject(subject, signals, losses, None, names), explain_missing_scales(rule))
    require_rule("rule", rule)
    if signals is None:
        raise InvalidInput("`signals` are missing; a rule is judged on a batch of them. Pass Signals(...).")
    _require_options(signals, tries, student)
    subjects = list(list_subjects(rule, polytope, scale, as_weights))
    findings: list[Finding] = []
    with ExitStack() as modes, torch.no_grad(), limit_threads(1), show_lines() as on_lines:
        for module in collect_modules(rule).values():
            modes.enter_context(evaluation_mode(module))
        for subject in subjects:
            last = subject is subjects[-1]
            movable = MovableSignals.finest(signals, subject.weights)
            rows_R = _choose_rows(movable, subject.weights, signals.mask, quick)
            axiom = select_axioms(subject.scale)["continuity"].id
            mine = [f for f in _judge_subject(subject, signals, losses, under, names) if f.axiom != axiom]
            moved = _judge_movable(axiom, subject, movable, rows_R, vary, 1 if quick else tries, seed, on_lines)
            mine += [_count_judged(finding, signals) for finding in moved]
            # assumptions are about the weights that are used
            findings += [f for f in mine if last or f.axiom not in ("A1", "A2", "P")]
        w_BK = signals.select_counted(subjects[-1].weights(signals))
        findings.append(_judge_realizable_signals(w_BK, signals))
    if student is None:
        findings.append(
            Finding("A4", "student", "not_applicable", "No student was given; pass student=(module, inputs).")
        )
    else:
        findings.append(judge_smooth(*student, seed))
    return build_report(findings, explain_missing_scales(rule))


def _require_options(signals: object, tries: Any, student: Any) -> None:
    if not isinstance(signals, Signals):
        raise InvalidInput(f"`signals` are a {type(signals).__name__}; wanted Signals(log_p=..., ...).")
    if not is_whole(tries) or tries < 1:
        raise InvalidInput(
            f"`tries` is {tries!r}; wanted a whole number, at least 1: without lines nothing is searched."
        )
    pair = isinstance(student, tuple) and len(student) == 2
    kinds = (Tensor, Mapping)
    if student is not None and not (pair and isinstance(student[0], nn.Module) and isinstance(student[1], kinds)):
        raise InvalidInput(f"`student` is a {type(student).__name__}; wanted a pair, (module, tensor of inputs).")


def _choose_rows(movable: MovableSignals, weights: Weights, mask: Tensor | None, quick: bool) -> Tensor | None:
    """Return the positions that count, or a few of them, evenly spread; None for all, as where a rule takes no less."""
    rows_R = torch.arange(movable.lead.numel()) if mask is None else mask.reshape(-1).cpu().nonzero().squeeze(-1)
    if quick and len(rows_R) > _QUICK_ROWS:
        rows_R = rows_R[torch.linspace(0, len(rows_R) - 1, _QUICK_ROWS).long()]
    if not 0 < len(rows_R) < movable.lead.numel():
        return None
    try:
        weights(movable.gather_rows(rows_R).replace_sources({}))
    except Exception:  # it holds a table of as many rows, say
        return None
    return rows_R


def _judge_movable(
    axiom: str,
    subject: Subject,
    movable: MovableSignals,
    rows_R: Tensor | None,
    vary: Sequence[str] | None,
    tries: int,
    seed: int,
    on_lines: Callable[[int], object],
) -> list[Finding]:
    """Return the findings on continuity, places named in the whole batch."""
    some = movable if rows_R is None else movable.gather_rows(rows_R)

    def weigh(signals: Signals) -> Tensor:  # where a position does not count, no weight moves
        return fill_uncounted(subject.weights(signals), signals.mask, 1 / signals.shape[-1])

    findings = judge_continuity(axiom, subject.name, weigh, some, vary, tries, seed, on_lines)
    if rows_R is None:
        return list(findings)
    text = f" Looked for at {len(rows_R)} of {movable.lead.numel()} positions."
    return [
        replace(
            finding,
            evidence=finding.evidence + text,
            where=None if finding.where is None else locate_row(int(rows_R[finding.where[0]]), movable.lead),
        )
        for finding in findings
    ]


def _count_judged(finding: Finding, signals: Signals) -> Finding:
    """Return a finding about no more positions than count."""
    return finding if signals.mask is None else replace(finding, judged=min(finding.judged, int(signals.mask.sum())))


def _judge_subject(
    subject: Subject,
    signals: Signals | None,
    losses: Losses | None,
    under: Sequence[Signals] | None,
    names: Sequence[str],
) -> list[Finding]:
    """Return what is exact: the axioms of the subject's scale that rows can tell, (A1), and III.14."""
    w_K = subject.weights(signals)  # type: ignore[arg-type]  # weights that are given need no signals
    lead, K = w_K.shape[:-1], w_K.shape[-1]
    findings = _judge_weights(subject, w_K, signals, names)
    if subject.alone is not None and signals is not None:
        alone = _judge_weights(subject, subject.alone(signals), signals, names)
        findings = [_mention_unrepaired(finding, other) for finding, other in zip(findings, alone, strict=True)]
    axioms = select_axioms(subject.scale)
    if losses is None or "pareto" not in axioms:
        return findings
    others = None if under is None else [subject.weights(s).reshape(-1, K) for s in under]
    row_P = _number_counted(signals, lead)
    for n, other_BK in enumerate(others or ()):
        if len(other_BK) != lead.numel():
            raise InvalidInput(
                f"`under` holds {len(other_BK)} positions for student {n}; wanted {lead.numel()}, as `signals`."
            )
    others = None if others is None else [other_BK[row_P] for other_BK in others]
    pareto = judge_pareto(axioms["pareto"].id, subject.name, w_K.reshape(-1, K)[row_P], losses, others)
    pareto = pareto if pareto.where is None else replace(pareto, where=locate_row(int(row_P[pareto.where[0]]), lead))
    return [pareto if finding.axiom == pareto.axiom else finding for finding in findings]


def _judge_weights(subject: Subject, w_K: Tensor, signals: Signals | None, names: Sequence[str]) -> list[Finding]:
    rows = RowAudit(subject.polytope, subject.scale, subject=subject.name, names=names, lead=w_K.shape[:-1])
    safety, critical = select_scores(signals, subject.polytope, subject.scale)
    counted = None if signals is None else signals.mask
    rows.add(w_K, critical=critical, safety=safety, counted=counted)
    findings = list(rows.findings())
    own = None if signals is None else find_designated_orderings(subject.rule, subject.polytope, signals)
    if own is None or "ordering" not in rows.axioms:
        return findings
    ordering = judge_orderings(own, rows.axioms["ordering"].id, subject.name, w_K, counted)
    return [ordering if finding.axiom == ordering.axiom else finding for finding in findings]


def _mention_unrepaired(finding: Finding, alone: Finding) -> Finding:
    """Add what the rule did before it was repaired."""
    if alone.status != "violated" or finding.status == "violated":
        return finding
    text = f"By itself the rule breaks it in {alone.rows} of {alone.judged}, by {alone.worst:.3g} at worst."
    return replace(finding, evidence=f"{finding.evidence} {text}")


def _judge_realizable_signals(w_BK: Tensor, signals: Signals) -> Finding:
    """Judge (A3) where the signals hold the teachers' distributions and the student's."""
    try:
        log_p_KV, student_V = signals.log_p, signals.student_log_p
    except MissingSignal:
        return judge_realizable(w_BK, None, None)
    finding = judge_realizable(w_BK, signals.select_counted(log_p_KV), signals.select_counted(student_V))
    if finding.where is None:
        return finding
    lead = signals.shape[:-1]
    return replace(finding, where=locate_row(int(_number_counted(signals, lead)[finding.where[0]]), lead))


def _number_counted(signals: Signals | None, lead: torch.Size) -> Tensor:
    """Return the numbers of the positions that count, through all leading axes, (P,)."""
    number = torch.arange(lead.numel()).reshape(lead)
    return number.reshape(-1) if signals is None or signals.mask is None else number[signals.mask.cpu()]
