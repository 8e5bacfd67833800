"""Weights of teachers as distributions over training examples, before and after projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._elements import Element, make, make_table
from .._read_run import ReportedRun, WeightRows
from ..drawing import Curve, CurveChart, LegendEntry, Strip, StripRow, draw_curves, draw_strips


@dataclass(frozen=True)
class WeightFigureSettings:
    """How weights are drawn; ``tests/safekd/report/test_report_page.py`` (many teachers) would notice.

    Attributes:
        teachers: Drawn at most.
        bins: Of the histogram of how far projection moved weights.
        moved: From here on weights count as moved: rounding alone stays below.
    """

    teachers: int = 24
    bins: int = 24
    moved: float = 1e-9


SETTINGS = WeightFigureSettings()
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def show_weights(run: ReportedRun, key: str) -> Element | None:
    """Return the section; None where the run left no weights.

    Args:
        run: Whose weights.
        key: Of the run on the page.
    """
    weights = run.weights
    if weights is None:
        return None
    share = float((weights.moved > SETTINGS.moved).mean())
    far = float(weights.moved.max())
    text = (
        f"{len(weights.moved):,} training examples. Boxes hold the middle half, lines 5 to 95 %, the upright bar "
        f"is the median; dashed lines are the bounds. Projection moved {share:.1%} of the rows, by "
        f"{weights.moved.mean():.4g} on average and {far:.4g} at most (Euclidean)."
    )
    hidden = len(weights.teachers) - SETTINGS.teachers
    return make(
        "section",
        make("h2", "Weights of the teachers"),
        make("p", text + (f" {hidden} more teachers are not drawn." if hidden > 0 else ""), class_="soft"),
        make(
            "div", _draw_boxes(run, weights, key), _draw_moves(weights, key), _tabulate_contexts(weights), class_="grid"
        ),
    )


def _draw_boxes(run: ReportedRun, weights: WeightRows, key: str) -> Element:
    facts = run.facts.teachers if run.facts is not None and len(run.facts.teachers) == len(weights.teachers) else None
    strips, rows = [], []
    for k, name in enumerate(weights.teachers[: SETTINGS.teachers]):
        own = []
        for number, (what, w_N) in enumerate(
            (("as composed", weights.raw[:, k]), ("conforming", weights.conforming[:, k]))
        ):
            low, left, middle, right, high = np.quantile(w_N, _QUANTILES).tolist()
            text = f"{name}, {what}: median {middle:.4f}, 5 to 95 % {low:.4f} to {high:.4f}, mean {w_N.mean():.4f}"
            own.append(StripRow(text, number, "", middle, (low, high), (left, right)))
            rows.append([name, what, *(f"{v:.4f}" for v in (w_N.min(), low, left, middle, right, high, w_N.max()))])
        strips.append(Strip(name, own, [] if facts is None else [facts[k].lower, facts[k].upper]))
    legend = [
        LegendEntry("as composed by the rules", 0, "square"),
        LegendEntry("conforming, as trained with", 1, "square"),
    ]
    heads = ["teacher", "weights", "least", "5 %", "25 %", "median", "75 %", "95 %", "most"]
    return draw_strips(f"{key}-weights", "Weights per teacher", "weight", strips, legend, (heads, rows))


def _draw_moves(weights: WeightRows, key: str) -> Element:
    count_B, edge_B = np.histogram(
        weights.moved, bins=SETTINGS.bins, range=(0.0, max(float(weights.moved.max()), 1e-12))
    )
    middle_B = (edge_B[:-1] + edge_B[1:]) / 2
    texts = [
        f"{count:,} examples moved by {low:.4g} to {high:.4g}"
        for count, low, high in zip(count_B.tolist(), edge_B[:-1].tolist(), edge_B[1:].tolist(), strict=True)
    ]
    curve = Curve("examples", middle_B, count_B.astype(np.float64), 1, "bars", texts)
    chart = CurveChart("How far projection moved the weights", "Euclidean distance", "examples", [curve])
    return draw_curves(chart, f"{key}-moved")


def _tabulate_contexts(weights: WeightRows) -> Element:
    names = list(dict.fromkeys(weights.contexts))
    contexts = np.array(weights.contexts, dtype=object)
    rows = [_describe_moves(name, weights.moved[contexts == name]) for name in names]
    heads = ["context", "examples", "moved", "mean distance", "largest"]
    return make("div", make_table(heads, rows, "How far projection moved weights, by context"))


def _describe_moves(name: str, moved: NDArray[np.float64]) -> Sequence[str]:
    share = (moved > SETTINGS.moved).mean()
    return [name, f"{len(moved):,}", f"{share:.1%}", f"{moved.mean():.4g}", f"{moved.max():.4g}"]
