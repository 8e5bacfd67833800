"""The axioms' audit, the ensemble of teachers, and students that were trained beside the one reported."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....saved_students import ReportFacts
from .._elements import Element, format_number, make, make_table
from .._read_run import ReportedRun

_SIGNS = {"holds": "✓ holds", "violated": "✗ violated", "estimated": "≈ estimated", "not_applicable": "– not judged"}


def show_axioms(run: ReportedRun) -> Element | None:
    """Return the section; None where nothing was judged.

    Args:
        run: Whose weights were judged.
    """
    if run.facts is None:
        return None
    broken = [line for line in run.facts.axioms if line.status == "violated"]
    told = f"{len(broken)} of {len(run.facts.axioms)} lines are violated." if broken else "Nothing is violated."
    rows: list[Sequence[Element | str]] = [
        [
            line.axiom,
            line.name,
            line.subject,
            make("span", _SIGNS.get(line.status, line.status), class_=_choose_color(line.status)),
            format_number(line.worst, 3),
            f"{line.rows:,} of {line.judged:,}" if line.judged else "",
            " ".join(text for text in (line.evidence, line.remedy) if text),
        ]
        for line in run.facts.axioms
    ]
    heads = ["axiom", "name", "judged", "status", "worst", "violating", "evidence"]
    return make(
        "section",
        make("h2", "Axioms of the weights"),
        make("p", told if rows else "", f" {run.facts.axioms_note}"),
        make_table(heads, rows, "Audit of the weighting rule") if rows else None,
    )


def show_ensemble(run: ReportedRun) -> Element | None:
    """Return the section; None where nothing is known of the teachers.

    Args:
        run: Whose teachers.
    """
    facts = run.facts
    if facts is None or not facts.teachers:
        return None
    return make(
        "section",
        make("h2", "Ensemble"),
        make(
            "p",
            f"{len(facts.teachers)} teachers, measured on the {facts.measured_on} split before training; safety by "
            "context, with its critical cases.",
            class_="soft",
        ),
        _tabulate_teachers(run, facts),
        *_show_rivals(run, facts),
    )


def _tabulate_teachers(run: ReportedRun, facts: ReportFacts) -> Element:
    means = {}
    if run.weights is not None:
        means = dict(zip(run.weights.teachers, run.weights.conforming.mean(0).tolist(), strict=True))
    heads = ["teacher", "kind", "loss, nats"]
    heads += [f"{name} ({count:,})" for name, count in zip(facts.contexts, facts.cases, strict=False)]
    heads += ["mean weight", "bounds"]
    rows = [
        [
            teacher.name,
            teacher.kind.replace("_", " "),
            format_number(teacher.loss, 3),
            *(format_number(value, 3) for value in teacher.safety),
            format_number(means.get(teacher.name), 3),
            f"{teacher.lower:g} to {teacher.upper:g}",
        ]
        for teacher in facts.teachers
    ]
    return make_table(heads, rows, "Teachers")


def _show_rivals(run: ReportedRun, facts: ReportFacts) -> list[Element]:
    if not facts.rivals:
        return []
    splits = list(dict.fromkeys(name for rival in facts.rivals for name in rival.safety))
    own = {fact.split: fact.measured for fact in facts.safety if fact.context is None}
    accuracy = facts.accuracy.get("test", np.nan)
    rows = [
        [
            "this student",
            run.verdict.status.replace("_", " "),
            format_number(run.point.loss),
            format_number(accuracy, 3),
        ]
        + [format_number(own.get(name), 3) for name in splits],
        *(
            [rival.name, rival.status.replace("_", " "), format_number(rival.loss), format_number(rival.accuracy, 3)]
            + [format_number(rival.safety.get(name), 3) for name in splits]
            for rival in facts.rivals
        ),
    ]
    heads = ["student", "status", "loss, nats", "test accuracy", *(f"safety, {name}" for name in splits)]
    return [
        make("h3", "Trained in other ways"),
        make("p", "On the same data, for comparison; each loss is against its own target.", class_="soft"),
        make_table(heads, rows, "Students that were trained in other ways"),
    ]


def _choose_color(status: str) -> str:
    return {"holds": "good", "violated": "bad"}.get(status, "soft")
