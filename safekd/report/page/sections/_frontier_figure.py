"""The frontier of a run folder: what safety costs, on training and validation data, from the unconstrained point on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ....frontier.view import FRONT, KINDS, FrontierLayout, lay_out_frontier
from .._elements import Element, make, make_table, shorten
from .._read_run import ReportedRun
from ..drawing import Curve, CurveChart, draw_curves

_COLUMNS = {
    "target": "target",
    "safety_{}": "safety where posed",
    "validation_safety_{}": "safety, validation",
    "distillation_loss": "loss, nats",
    "lambda_{}": "multiplier",
    "status": "status",
    "nondominated": "on the frontier",
}


def show_frontier_figure(
    frontier: tuple[pd.DataFrame, str] | None, runs: Sequence[ReportedRun], key: str
) -> Element | None:
    """Return the section; None where there is no frontier.

    Args:
        frontier: Its table, and the name of the constraint that was swept.
        runs: Those whose threshold is drawn, where they all have the same one.
        key: Tells its names from those of others on the page.
    """
    if frontier is None:
        return None
    table, constraint = frontier
    layout = lay_out_frontier(table, constraint)
    asked = {reading.required for run in runs for reading in run.point.readings if reading.name == constraint}
    upright = (min(asked), f"required {min(asked):g}") if len(asked) == 1 else None
    cost = CurveChart(
        "What safety costs", "safety", "distillation loss, nats", _list_curves(table, layout), upright=upright
    )
    front = np.flatnonzero(layout.kind_N == FRONT)
    front = front[np.argsort(layout.safety_N[front], kind="stable")]
    texts = [layout.describe_row(int(i)) for i in front]
    slope = Curve("multiplier", layout.safety_N[front], layout.multiplier_N[front], 0, "line", texts)
    multiplier = CurveChart("Multiplier of the threshold", "safety", "nats a unit of safety", [slope], upright=upright)
    return make(
        "section",
        make("h2", "Frontier"),
        make(
            "p",
            f"Distillation loss against safety ({shorten(constraint, 80)}): one student a threshold. The multiplier is "
            "what the next unit of safety costs. The unconstrained student is the loose end. Validation points lie "
            "left of training points by as much as training data flatter.",
            class_="soft",
        ),
        make("div", draw_curves(cost, f"{key}-cost"), draw_curves(multiplier, f"{key}-multiplier"), class_="grid"),
        _tabulate_rows(table, constraint),
    )


def _list_curves(table: pd.DataFrame, layout: FrontierLayout) -> list[Curve]:
    """Return the frontier where it is posed, the same students on validation data, and the unconstrained one."""
    loss_N, safety_N = layout.loss_N, layout.safety_N
    curves = []
    for number, series in enumerate(layout.series[:4]):
        texts = [layout.describe_row(int(i)) for i in series.front]
        name = f"{layout.split} split{f' ({series.label})' if series.label else ''}"
        curves.append(Curve(name, safety_N[series.front], loss_N[series.front], 2 * number, "step", texts))
    column = f"validation_safety_{layout.constraint}"
    front = np.flatnonzero(layout.kind_N == FRONT)
    if column in table:
        seen_N = np.asarray(table[column].to_numpy(), dtype=np.float64)
        texts = [f"row {i}: validation safety {seen_N[i]:.6g}, loss {loss_N[i]:.6g} nats" for i in front]
        curves.append(Curve("the same students, validation split", seen_N[front], loss_N[front], 1, "marks", texts))
    others = np.flatnonzero(~np.isin(layout.kind_N, [FRONT]) & np.isfinite(safety_N) & np.isfinite(loss_N))
    if len(others):
        texts = [layout.describe_row(int(i)) for i in others]
        named = ", ".join(dict.fromkeys(KINDS.get(layout.kind_N[i], str(layout.kind_N[i])) for i in others))
        curves.append(Curve(named, safety_N[others], loss_N[others], 6, "marks", texts))
    anchors = np.flatnonzero((table["status"] == "anchor").to_numpy(bool))
    if len(anchors):
        texts = [f"unconstrained student, {layout.describe_row(int(i))}" for i in anchors]
        curves.append(Curve("unconstrained student", safety_N[anchors], loss_N[anchors], 3, "marks", texts))
    return curves


def _tabulate_rows(table: pd.DataFrame, constraint: str) -> Element:
    columns = {name.format(constraint): head for name, head in _COLUMNS.items()}
    columns = {name: head for name, head in columns.items() if name in table}
    rows = [[_format_cell(row[name]) for name in columns] for row in table.to_dict("records")]
    return make_table(list(columns.values()), rows, "Rows of the frontier")


def _format_cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
