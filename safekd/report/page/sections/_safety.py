"""Safety against thresholds: training, validation and new data side by side, with what is certified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....saved_students import BoundFact, SafetyFact
from ....training import FEASIBLE
from ....training.trace import ConstraintReading
from .._elements import Element, format_number, format_share, make, make_table, state_met
from .._read_run import ReportedRun
from ..drawing import BOUND, SHAPES, LegendEntry, Strip, StripRow, draw_strips


@dataclass(frozen=True)
class SafetySectionSettings:
    """How much is shown; ``tests/safekd/report/test_report_page.py`` (many constraints) would notice.

    Attributes:
        strips: Of the figure: constraints, and contexts of each.
    """

    strips: int = 24


SETTINGS = SafetySectionSettings()
_NEW = "held out"


def list_safety(run: ReportedRun) -> list[SafetyFact]:
    """Return what was measured of a run's student, by constraint, context and split.

    Args:
        run: Where it has no facts of its own, its last trace point says what it can.
    """
    if run.facts is not None:
        return list(run.facts.safety)
    facts = [_take_reading(reading) for reading in (*run.point.readings, *run.point.validation)]
    return facts + [
        SafetyFact(
            constraint=one.constraint,
            context=None,
            split=_NEW,
            measured=_take_number(one.estimate),
            standard_error=None,
            required=one.required,
            count=max(one.count, 0),
        )
        for one in run.certificates
    ]


def list_bounds(run: ReportedRun) -> list[BoundFact]:
    """Return what held-out data prove, constraints as a whole first.

    Args:
        run: With or without facts of its own.
    """
    known = list(run.facts.bounds) if run.facts is not None else []
    proved = {(bound.constraint, bound.context) for bound in known}
    mine = [
        BoundFact(
            constraint=one.constraint,
            context=None,
            split=_NEW,
            lower_bound=_take_number(one.lower_bound),
            confidence=one.confidence,
            count=max(one.count, 0),
            required=one.required,
            note=one.method,
        )
        for one in run.certificates
        if (one.constraint, None) not in proved
    ]
    return mine + known


def show_safety(run: ReportedRun, key: str) -> Element | None:
    """Return the section.

    Args:
        run: Whose safety is shown.
        key: Of the run on the page.
    """
    facts, bounds = list_safety(run), list_bounds(run)
    if not facts:
        return None
    posed = {reading.name: reading for reading in run.point.readings}
    proved = {(bound.constraint, bound.context): bound for bound in bounds}
    splits = list(dict.fromkeys(fact.split for fact in facts))
    groups = list(dict.fromkeys((fact.constraint, fact.context) for fact in facts))
    strips = [_lay_out_strip(group, facts, proved.get(group), splits) for group in groups[: SETTINGS.strips]]
    strips = [strip for strip in strips if strip.rows]
    rows = [_tabulate_fact(fact, posed.get(fact.constraint)) for fact in facts]
    heads = ["constraint", "context", "data", "measured", "threshold", "required", "± 2 SE", "cases"]
    legend = [LegendEntry(_name_split(name), n, SHAPES[n % 4]) for n, name in enumerate(splits)]
    if any(row.bound is not None for strip in strips for row in strip.rows):
        legend.append(LegendEntry("certified: safety is at least this", splits.index(_find_new(splits, bounds)), BOUND))
    title = "Safety against the threshold"
    figure = draw_strips(f"{key}-safety", title, "safety", strips, legend, _list_numbers(facts)) if strips else None
    hidden = len(groups) - min(len(groups), SETTINGS.strips)
    return make(
        "section",
        make("h2", "Safety"),
        make("p", _EXPLAINED + (f" {hidden} more groups are in the table only." if hidden else ""), class_="soft"),
        make("div", figure, _show_bounds(bounds), class_="pair"),
        make("h3", "All readings"),
        make_table(heads, rows, "Safety on every split, by constraint and context"),
    )


_EXPLAINED = (
    "Points are averages, lines two standard errors to each side, the dashed line is the threshold. A split on which "
    "the constraint was posed flatters the student; only new data, which neither trained nor chose it, show safety. "
    "Contexts with few cases say little."
)


def _take_reading(reading: ConstraintReading) -> SafetyFact:
    return SafetyFact(
        constraint=reading.name,
        context=None,
        split=reading.split,
        measured=_take_number(reading.measured),
        standard_error=_take_number(reading.standard_error),
        required=reading.required,
        count=max(reading.count, 0),
    )


def _take_number(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _find_new(splits: Sequence[str], bounds: Sequence[BoundFact]) -> str:
    """Return the split that bounds were read on, the last one where the figure does not have it."""
    named = [bound.split for bound in bounds if bound.split in splits]
    return named[0] if named else splits[-1]


def _name_split(name: str) -> str:
    told = {
        "train": "training data",
        "validation": "validation data",
        "certify": "new data (certify split)",
        "test": "new data (test split)",
        _NEW: "new data (held out)",
    }
    return told.get(name, f"{name} split")


def _lay_out_strip(
    group: tuple[str, str | None], facts: Sequence[SafetyFact], bound: BoundFact | None, splits: Sequence[str]
) -> Strip:
    constraint, context = group
    own = [fact for fact in facts if (fact.constraint, fact.context) == group]
    rows = []
    for fact in own:
        if fact.measured is None:
            continue
        spread = None
        if fact.standard_error is not None:
            spread = (fact.measured - 2 * fact.standard_error, fact.measured + 2 * fact.standard_error)
        shown = bound.lower_bound if bound is not None and bound.split == fact.split else None
        text = f"{_name_split(fact.split)}: {fact.measured:.4f} over {fact.count} cases"
        text += "" if shown is None else f", lower bound {shown:.4f}"
        number = splits.index(fact.split)
        rows.append(StripRow(text, number, SHAPES[number % 4], fact.measured, spread, bound=shown))
    name = constraint if context is None else f"{constraint}, {context} only"
    return Strip(f"{name} (required {own[0].required:g})", rows, [own[0].required])


def _tabulate_fact(fact: SafetyFact, posed: ConstraintReading | None) -> list[Element | str]:
    here = posed is not None and posed.split == fact.split and fact.context is None
    error = "–" if fact.standard_error is None else f"{2 * fact.standard_error:.3f}"
    reads: Element | str = "no case"
    if fact.measured is not None:
        miss = fact.required - fact.measured
        miss = abs(miss) if posed is not None and posed.equality else miss
        reads = state_met(miss <= FEASIBLE, "reached", "missed")
    return [
        fact.constraint,
        fact.context or "all",
        fact.split + " (posed here)" * here,
        format_number(fact.measured),
        reads,
        f"{fact.required:g}",
        error,
        f"{fact.count:,}",
    ]


def _list_numbers(facts: Sequence[SafetyFact]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [f.constraint, f.context or "all", f.split, format_number(f.measured, 6), format_number(f.standard_error, 3)]
        for f in facts
    ]
    return ["constraint", "context", "data", "measured", "standard error"], rows


def _show_bounds(bounds: Sequence[BoundFact]) -> Element:
    """Return what new data prove, in words and numbers."""
    if not bounds:
        return make("div", make("h3", "Certified on new data"), make("p", "Nothing was certified."))
    rows: list[list[Element | str]] = [
        [
            bound.constraint,
            bound.context or "all",
            state_met((bound.lower_bound or 0.0) >= bound.required, "shown", "not shown"),
            format_number(bound.lower_bound),
            f"{bound.required:g}",
            format_share(bound.confidence),
            f"{bound.count:,}",
            bound.note,
        ]
        for bound in bounds
    ]
    heads = ["constraint", "context", "safety", "lower bound", "required", "confidence", "cases", "how"]
    note = (
        "“Not shown” is not the same as unsafe: fewer cases prove less. Bounds of the contexts of one constraint hold "
        "together at the confidence of the constraint as a whole."
    )
    return make(
        "div",
        make("h3", "Certified on new data"),
        make_table(heads, rows, "Lower bounds on safety from held-out data"),
        make("p", note, class_="soft"),
    )
