"""The picture of an ensemble: losses of teachers and pools, correlations of errors, variance predicted and measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._picture_file import COLOURS, INK, write_picture
from ...errors import escape_controls
from ._ensemble_figures import PoolFigures, TeacherFigures, VarianceFigures


@dataclass(frozen=True)
class EnsembleFigureSettings:
    """Sizes of the picture; ``tests/safekd/theory/ensembles/test_ensemble_picture.py`` (long and odd names) notices.

    Attributes:
        width: Inches.
        least_height: Inches, with few teachers.
        row_height: Inches a teacher or pool beyond.
        most_letters: Of a name.
        most_numbers: Teachers up to which each correlation is written out.
    """

    width: float = 11.0
    least_height: float = 3.2
    row_height: float = 0.28
    most_letters: int = 24
    most_numbers: int = 10


SETTINGS = EnsembleFigureSettings()


def draw_ensemble(
    path: str | os.PathLike[str],
    teachers: Sequence[TeacherFigures],
    pools: Sequence[PoolFigures],
    correlations: Sequence[Sequence[float]],
    variance: VarianceFigures,
    where: str,
) -> None:
    """Write the picture, whole or not at all.

    Args:
        path: File to write; .png, .svg or .pdf.
        teachers: In their order.
        pools: Of those that are kept.
        correlations: Of the teachers' errors.
        variance: Of the pool's error.
        where: What was measured on.

    Raises:
        InvalidInput: The ending is none of these, or the file cannot be written.
    """
    write_picture(path, lambda: _build(teachers, pools, correlations, variance, where), ".png, .svg or .pdf")


def _build(
    teachers: Sequence[TeacherFigures],
    pools: Sequence[PoolFigures],
    correlations: Sequence[Sequence[float]],
    variance: VarianceFigures,
    where: str,
) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(teachers) + len(pools)
    height = max(SETTINGS.least_height, 1.6 + SETTINGS.row_height * rows)
    figure = Figure(figsize=(SETTINGS.width, height), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.5, 1.2, 1])
    _draw_losses(left, teachers, pools)
    _draw_correlations(middle, [one.name for one in teachers], correlations)
    _draw_variance(right, variance)
    figure.suptitle(f"What the ensemble is worth: {_shorten_name(where, 80)}", fontsize="medium", parse_math=False)
    return figure


def _draw_losses(axes: Any, teachers: Sequence[TeacherFigures], pools: Sequence[PoolFigures]) -> None:
    labels, colours = [], []
    for one in teachers:
        labels.append(_shorten_name(one.name) + (" (leave out)" if one.dropped else ""))
        colours.append(COLOURS[1] if one.dropped else COLOURS[0])
    labels += [f"{_shorten_name(one.name)} pool" for one in pools]
    colours += [COLOURS[2]] * len(pools)
    loss = np.array([*(one.loss for one in teachers), *(one.loss for one in pools)])
    place = np.arange(len(loss))
    axes.barh(place, np.where(np.isfinite(loss), loss, 0.0), color=colours, height=0.65)
    for y, value in zip(place, loss, strict=True):
        axes.annotate(f" {value:.3g}", (value if np.isfinite(value) else 0.0, y), va="center", fontsize="small")
    axes.set_yticks(place, labels, parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("log-loss (nats)")


def _draw_correlations(axes: Any, names: Sequence[str], correlations: Sequence[Sequence[float]]) -> None:
    axes.imshow(np.array(correlations), vmin=-1, vmax=1, cmap="RdBu_r")
    place = range(len(names))
    axes.set_xticks(place, [_shorten_name(name) for name in names], rotation=45, ha="right", parse_math=False)
    axes.set_yticks(place, [_shorten_name(name) for name in names], parse_math=False)
    axes.set_title("correlation of errors", fontsize="medium")
    if len(names) <= SETTINGS.most_numbers:
        for i, row in enumerate(correlations):
            for j, value in enumerate(row):
                colour = "white" if abs(value) > 0.6 else INK
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize="small")


def _draw_variance(axes: Any, variance: VarianceFigures) -> None:
    values = [variance.independent, variance.correlated, variance.measured]
    axes.bar(range(3), values, color=[COLOURS[5], COLOURS[0], INK], width=0.65)
    axes.set_xticks(range(3), ["if errors were\nindependent", "with\ncorrelations", "measured"], fontsize="small")
    axes.set_title("variance of the pool's error", fontsize="medium")
    count = min(variance.effective_teachers, 1e6)
    axes.set_xlabel(f"as {count:.2g} independent teachers")


def _shorten_name(text: str, most: int | None = None) -> str:
    text, most = escape_controls(text), most or SETTINGS.most_letters
    return text if len(text) <= most else f"{text[: most - 1]}…"
