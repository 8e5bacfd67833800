"""The picture of a frontier: what each step of safety costs, and its price below."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import InvalidInput
from ..files import written_whole

if TYPE_CHECKING:
    from ._frontier import Frontier

_BLUE, _GREY, _RED = "#1f5fa8", "#9a9a9a", "#b3261e"


def draw(frontier: Frontier, path: str | os.PathLike[str], required: float | None) -> None:
    """Write the picture; the format follows the file's ending.  No global state of matplotlib is touched."""
    name, table = frontier.constraint, frontier.table
    safety = f"safety_{name}"
    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    best = frontier.nondominated().sort_values(safety)
    rest = table[~table["nondominated"].astype(bool)]
    above.step(best[safety], best["distillation_loss"], where="pre", color=_BLUE, linewidth=1, alpha=0.5)
    above.errorbar(
        best[safety],
        best["distillation_loss"],
        xerr=best[f"se_{name}"],
        fmt="o",
        color=_BLUE,
        ecolor="#b8cde6",
        markersize=5,
        label="frontier (bars: standard error of safety)",
    )
    if len(rest):
        above.plot(
            rest[safety], rest["distillation_loss"], "x", color=_GREY, label="dominated, redundant or infeasible"
        )
    below.plot(best[safety], best[f"lambda_{name}"], "o-", color=_BLUE, markersize=4, linewidth=1)
    if required is not None:
        for axes in (above, below):
            axes.axvline(required, color=_RED, linestyle="--", linewidth=1)
        above.plot([], [], color=_RED, linestyle="--", linewidth=1, label=f"required: {required:g}")
    above.set_ylabel("distillation loss (nats)")
    above.set_title(f"What safety costs: {name}")
    above.legend(frameon=False)
    below.set_ylabel("multiplier\n(nats per unit)")
    below.set_xlabel(f"safety, {name} ({table['split'].iloc[0]} split)")
    for axes in (above, below):
        axes.grid(alpha=0.25)
    with written_whole(path) as temporary:
        try:
            figure.savefig(temporary, dpi=150)
        except ValueError as error:
            raise InvalidInput(f"Cannot draw {os.fspath(path)}: {error}. Choose a name that ends in .png.") from error
