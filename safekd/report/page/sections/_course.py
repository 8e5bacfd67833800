"""How a run went: loss, safety, KKT residuals, multipliers and penalties over its steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .._elements import Element, fold, make, make_table
from .._read_run import ReportedRun
from ..drawing import Curve, CurveChart, draw_curves

_STEPS = "optimizer steps"
_RESIDUALS = ("stationarity", "primal", "dual", "complementarity")


def show_course(run: ReportedRun, key: str) -> Element:
    """Return the section.

    Args:
        run: Whose course is shown.
        key: Of the run on the page.
    """
    figures = [draw_curves(chart, f"{key}-course{n}") for n, chart in enumerate(_list_charts(run))]
    residuals = run.point.residuals
    rows = [[name, f"{getattr(residuals, name):.3g}"] for name in _RESIDUALS]
    multipliers = [[name, f"{value:.4g}"] for name, value in run.multipliers.items()]
    return make(
        "section",
        make("h2", "How it went"),
        make("p", f"{len(run.trace):,} readings of whole splits, {run.point.step:,} steps.", class_="soft"),
        make("div", *figures, class_="grid"),
        make(
            "div",
            make_table(["KKT residual", "at the end"], rows, "KKT residuals of the student"),
            make_table(["constraint", "multiplier, nats a unit"], multipliers, "Multipliers at the end"),
            class_="grid",
        ),
    )


def read_column(run: ReportedRun, name: str) -> NDArray[np.float64]:
    """Return a column of the trace as numbers.

    Args:
        run: Whose trace.
        name: Of the column, which exists.
    """
    return np.asarray(run.trace[name].to_numpy(), dtype=np.float64)


def list_traced_constraints(run: ReportedRun) -> list[str]:
    """Return names of the constraints of a run, as the trace has them.

    Args:
        run: Whose trace.
    """
    names = [reading.name for reading in run.point.readings]
    return [name for name in names if f"safety_{name}" in run.trace and f"lambda_{name}" in run.trace]


def _list_charts(run: ReportedRun) -> list[CurveChart]:
    step, names = read_column(run, "step"), list_traced_constraints(run)

    def curve(label: str, column: str, number: int) -> list[Curve]:
        return [Curve(label, step, read_column(run, column), number)] if column in run.trace else []

    charts = [
        CurveChart(
            "Distillation loss",
            _STEPS,
            "nats",
            [
                *curve("training", "distillation_loss", 0),
                *curve("validation", "validation_distillation_loss", 1),
            ],
            log=True,
        ),
        *[_chart_safety(run, name, curve(f"training: {name}", f"safety_{name}", 0)) for name in names[:6]],
        CurveChart(
            "KKT residuals",
            _STEPS,
            "residual",
            [part for n, name in enumerate(_RESIDUALS) for part in curve(name, f"kkt_{name}", n)],
            log=True,
            level=_find_tolerance(run),
        ),
    ]
    for title, prefix, log in (("Multipliers", "lambda_", False), ("Penalty", "rho_", True)):
        curves = [part for n, name in enumerate(names) for part in curve(name, f"{prefix}{name}", n)]
        if curves:
            charts.append(CurveChart(title, _STEPS, "nats a unit of safety", curves, log=log))
    return charts


def _chart_safety(run: ReportedRun, name: str, posed: Sequence[Curve]) -> CurveChart:
    split = next(reading.split for reading in run.point.readings if reading.name == name)
    column, step = f"validation_safety_{name}", read_column(run, "step")
    required = next(reading.required for reading in run.point.readings if reading.name == name)
    curves = [Curve(f"{split} split", one.x, one.y, 0) for one in posed]
    if column in run.trace:
        curves.append(Curve("validation split", step, read_column(run, column), 1))
    return CurveChart(f"Safety: {name}", _STEPS, "safety", curves, level=[(required, f"required {required:g}")])


def _find_tolerance(run: ReportedRun) -> list[tuple[float, str]]:
    tolerance = run.verdict.evidence.get("tolerance")
    known = isinstance(tolerance, (int, float)) and 0 < tolerance < np.inf
    return [(float(tolerance), f"tolerance {tolerance:g}")] if known else []  # type: ignore[arg-type]


def show_evidence(run: ReportedRun) -> Element:
    """Return the numbers that the verdict rests on, to be opened.

    Args:
        run: Whose evidence.
    """
    rows = [[name, _write_evidence(value)] for name, value in run.verdict.evidence.items()]
    return fold("Evidence of the verdict", make_table(["number", "value"], rows, "Evidence of the verdict"))


def _write_evidence(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_write_evidence(one) for one in value[:20]) or "none"
    return str(value)
