"""One run as a row of numbers."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from io import StringIO

from ._judge import STRICT, TOLERANCE, Look
from ._problem import Setup
from ._run import Course
from ._trainer import is_true

QUARTERS = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Row:
    """One contender with one setting on one cell from one seed.

    Args:
        cell: The cell's name.
        contender: Who.
        setting: Which of its grid.
        documented: Whether that is its documented setting.
        seed: Of student and batches.
        steps: Of the run.
        seconds: Of the processor, without the judge.
        feasible_25: Least loss at a look without a violation above the tolerance, in the first quarter of the steps;
            infinite if there was none.
        feasible_50: The same in the first half.
        feasible: The same in all steps.
        feasible_strict: The same in all steps, at violations of at most STRICT.
        last_loss: Of the student at the end.
        last_violation: Its largest violation.
        stationarity: Residual at the end, as the next three.
        primal: The same.
        dual: The same.
        complementarity: The same.
        steps_to_kkt: At the first look whose residuals all pass; infinite if none did.
        margin_mean: Safety minus threshold of the worst constraint, mean over the looks of the last quarter.
        margin_sd: Its standard deviation there.
        loss_mean: Mean loss there.
        loss_sd: Its standard deviation there.
        says: The contender's own verdict.
        said_truly: Whether the judge agrees; empty where nothing was said.
        note: Why it did not run, or stopped.
    """

    cell: str
    contender: str
    setting: str
    documented: bool
    seed: int
    steps: int
    seconds: float = math.nan
    feasible_25: float = math.inf
    feasible_50: float = math.inf
    feasible: float = math.inf
    feasible_strict: float = math.inf
    last_loss: float = math.nan
    last_violation: float = math.nan
    stationarity: float = math.nan
    primal: float = math.nan
    dual: float = math.nan
    complementarity: float = math.nan
    steps_to_kkt: float = math.inf
    margin_mean: float = math.nan
    margin_sd: float = math.nan
    loss_mean: float = math.nan
    loss_sd: float = math.nan
    says: str = ""
    said_truly: bool | None = None
    note: str = ""


def make_row(setup: Setup, contender: str, setting: str, documented: bool, course: Course) -> Row:
    """Return the numbers of a run.

    Args:
        setup: Cell and seed.
        contender: Who.
        setting: Its setting in words.
        documented: Whether that is its documented one.
        course: What was seen.

    Returns:
        The row.
    """
    head = Row(setup.cell.name, contender, setting, documented, setup.seed, setup.steps, note=course.note)
    if not course.looks:
        return head
    last = course.looks[-1]
    quarter, half, least = (least_feasible(course.looks, share * setup.steps) for share in QUARTERS)
    strict = least_feasible(course.looks, setup.steps, STRICT)
    if course.best is not None:
        least = min(least, least_feasible([course.best], setup.steps))
        strict = min(strict, least_feasible([course.best], setup.steps, STRICT))
    late = [look for look in course.looks if look.step > 0.75 * setup.steps]
    margins, losses = [look.margin for look in late], [look.loss for look in late]
    known = {field.name: getattr(head, field.name) for field in fields(Row)}
    numbers = {
        "seconds": course.seconds,
        "feasible_25": quarter,
        "feasible_50": half,
        "feasible": least,
        "feasible_strict": strict,
        "last_loss": last.loss,
        "last_violation": last.violation,
        **{name: getattr(last.residuals, name) for name in ("stationarity", "primal", "dual", "complementarity")},
        "steps_to_kkt": min((look.step for look in course.looks if look.solved), default=math.inf),
        "margin_mean": _mean(margins),
        "margin_sd": _spread(margins),
        "loss_mean": _mean(losses),
        "loss_sd": _spread(losses),
        "says": course.says,
        "said_truly": is_true(course.says, last) if course.says else None,
    }
    return Row(**{**known, **numbers})


def least_feasible(looks: Sequence[Look], step: float, tolerance: float = TOLERANCE) -> float:
    """Return the least loss of a feasible look up to a step, infinite if there is none.

    Args:
        looks: Of a run.
        step: The last step that counts.
        tolerance: The largest violation of a feasible look.

    Returns:
        The loss.
    """
    return min((look.loss for look in looks if look.step <= step and look.meets(tolerance)), default=math.inf)


def as_csv(rows: Sequence[Row]) -> str:
    """Return all rows, one a line, under a line of names.

    Args:
        rows: Of all runs.

    Returns:
        The table as CSV.
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    return text.getvalue()


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values and all(map(math.isfinite, values)) else math.nan


def _spread(values: Sequence[float]) -> float:
    return statistics.pstdev(values) if values and all(map(math.isfinite, values)) else math.nan
