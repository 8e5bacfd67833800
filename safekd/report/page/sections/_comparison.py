"""Several runs side by side: a table, and their curves in one picture."""

from __future__ import annotations

from collections.abc import Sequence

from .._elements import Element, format_number, make, make_table, state_met
from .._read_run import ReportedRun
from ..drawing import Curve, CurveChart, draw_curves
from ._course import list_traced_constraints, read_column
from ._safety import list_bounds, list_safety
from ._verdict import name_status

_MOST_CONSTRAINTS = 6


def compare_runs(runs: Sequence[ReportedRun]) -> Element:
    """Return the section.

    Args:
        runs: Two or more.
    """
    names = list(dict.fromkeys(name for run in runs for name in list_traced_constraints(run)))
    charts = [
        _overlay(runs, "Distillation loss, training", "distillation_loss", "nats", log=True),
        _overlay(runs, "Stationarity", "kkt_stationarity", "KKT residual", log=True),
        *(
            _overlay(runs, f"{title}: {name}", f"{column}{name}", unit)
            for name in names[:_MOST_CONSTRAINTS]
            for title, column, unit in (
                ("Safety", "safety_", "safety where posed"),
                ("Validation safety", "validation_safety_", "safety"),
                ("Multiplier", "lambda_", "nats a unit of safety"),
            )
        ),
    ]
    drawn = [draw_curves(chart, f"compared{n}") for n, chart in enumerate(charts) if chart.curves]
    return make(
        "section",
        make("h2", f"{len(runs)} runs compared"),
        _tabulate_runs(runs, names),
        make("div", *drawn, class_="grid"),
    )


def _overlay(runs: Sequence[ReportedRun], title: str, column: str, unit: str, *, log: bool = False) -> CurveChart:
    curves = [
        Curve(run.name, read_column(run, "step"), read_column(run, column), number)
        for number, run in enumerate(runs)
        if column in run.trace
    ]
    return CurveChart(title, "optimizer steps", unit, curves, log=log)


def _tabulate_runs(runs: Sequence[ReportedRun], names: Sequence[str]) -> Element:
    """Return a row a question, a column a run."""
    facts = [list_safety(run) for run in runs]
    wholes = [{(f.constraint, f.split): f for f in own if f.context is None} for own in facts]
    bounds = [{b.constraint: b for b in list_bounds(run) if b.context is None} for run in runs]
    rows: list[list[Element | str]] = [
        ["status", *(name_status(run) for run in runs)],
        ["loss, nats", *(format_number(run.point.loss) for run in runs)],
        ["steps", *(f"{run.point.step:,}" for run in runs)],
        ["stationarity", *(f"{run.point.residuals.stationarity:.2g}" for run in runs)],
    ]
    for name in names[:_MOST_CONSTRAINTS]:
        required = [next((r.required for r in run.point.readings if r.name == name), None) for run in runs]
        rows.append([f"{name}: required", *(format_number(value) for value in required)])
        splits = dict.fromkeys(split for own in wholes for constraint, split in own if constraint == name)
        for split in splits:
            found = [own.get((name, split)) for own in wholes]
            cells = [format_number(None if fact is None else fact.measured) for fact in found]
            rows.append([f"{name}: {split}", *cells])
        proved = [own.get(name) for own in bounds]
        rows.append([f"{name}: lower bound", *(format_number(b.lower_bound if b else None) for b in proved)])
        shown = [b is not None and b.lower_bound is not None and b.lower_bound >= b.required for b in proved]
        rows.append([f"{name}: on new data", *(state_met(one, "shown", "not shown") for one in shown)])
        rows.append([f"{name}: multiplier", *(format_number(run.multipliers.get(name)) for run in runs)])
    rows.append(["manifest SHA-256", *(make("code", run.sha256[:12]) for run in runs)])
    return make_table(["", *(run.name for run in runs)], rows, "Runs side by side")
