"""The verdict of a run in a sentence, with cause and next move."""

from __future__ import annotations

import math

from solvers.statuses import STATUS_MEANINGS

from ....training import FEASIBLE
from ....training.trace import ConstraintReading
from .._elements import Element, format_number, format_share, make, state_met
from .._read_run import ReportedRun
from ._safety import list_bounds


def show_verdict(run: ReportedRun) -> Element:
    """Return the section.

    Args:
        run: Whose verdict is shown.
    """
    meaning = STATUS_MEANINGS.get(run.verdict.status, "")
    return make(
        "section",
        make("p", state_verdict(run), class_="verdict"),
        make("p", make("strong", f"{name_status(run).capitalize()}. "), run.verdict.message),
        make("p", make("strong", "Next: "), run.verdict.next_move) if run.verdict.next_move else None,
        make("p", f"“{name_status(run)}” means: {meaning}", class_="soft") if meaning else None,
        make("ul", *_list_shown(run), class_="shown"),
    )


def name_status(run: ReportedRun) -> str:
    """Return the status of a run as a reader says it.

    Args:
        run: The run.
    """
    return str(run.verdict.status).replace("_", " ")


def state_verdict(run: ReportedRun) -> str:
    """Return the verdict in one sentence: how the run ended, what it meets, and what new data show.

    Args:
        run: The run.
    """
    readings, bounds = run.point.readings, [bound for bound in list_bounds(run) if bound.context is None]
    shown = sum(bound.lower_bound is not None and bound.lower_bound >= bound.required for bound in bounds)
    if not readings:
        return f"The run ended {name_status(run)}; no safety was asked of it."
    if len(readings) == 1:
        (one,) = readings
        met = "meets" if is_met(one) else "misses"
        sign = "=" if one.equality else "≥"
        told = (
            f"the student {met} “{one.name}” {sign} {one.required:g} on the {one.split} split ({write_measured(one)})"
        )
    else:
        count = sum(map(is_met, readings))
        told = f"the student meets {count} of {len(readings)} constraints on the splits where they are posed"
    if not bounds:
        new = "nothing was certified on new data"
    elif len(bounds) == 1:
        proved = f"{format_share(bounds[0].confidence)} confidence: lower bound {format_number(bounds[0].lower_bound)}"
        new = f"new data {'show it' if shown else 'do not show it'} ({proved})"
    else:
        new = f"new data show {shown} of {len(bounds)}"
    return f"The run ended {name_status(run)}; {told}; {new}."


def is_met(reading: ConstraintReading) -> bool:
    """Say whether a constraint is met as the verdict counts it.

    Args:
        reading: Of the constraint.
    """
    return reading.violation <= FEASIBLE


def write_measured(reading: ConstraintReading) -> str:
    """Return what was measured, as text.

    Args:
        reading: Of a constraint.
    """
    return f"{reading.measured:.4f}" if math.isfinite(reading.measured) else "no number"


def _list_shown(run: ReportedRun) -> list[Element]:
    items = []
    for reading in [*run.point.readings, *run.point.validation][:12]:
        text = f"{reading.name}, {reading.split}: {write_measured(reading)} of {reading.required:g} "
        items.append(make("li", text, state_met(is_met(reading))))
    for bound in [bound for bound in list_bounds(run) if bound.context is None][:12]:
        text = f"{bound.constraint}, new data, lower bound: {format_number(bound.lower_bound)} of {bound.required:g} "
        items.append(make("li", text, state_met((bound.lower_bound or 0.0) >= bound.required, "shown", "not shown")))
    return items
