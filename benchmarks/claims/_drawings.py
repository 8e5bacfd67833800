"""Small pictures of claims: SVG files that are the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from ._claim import Claim, Picture

_STYLE = {
    "svg.hashsalt": "claims",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.markersize": 3,
    "lines.linewidth": 1.4,
}


def draw_pictures(claims: Sequence[Claim], folder: Path) -> list[Path]:
    """Write the picture of each claim that has one; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_draw(claim.picture, folder / f"{claim.picture.name}.svg") for claim in claims if claim.picture is not None]


def _draw(picture: Picture, path: Path) -> Path:
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.subplots()
        for line in picture.lines:
            axes.plot(line.x, line.y, line.style, label=line.label)
        axes.set_xscale("log" if picture.x_log else "linear")
        axes.set_yscale("log" if picture.y_log else "linear")
        axes.set_xlabel(picture.x_label)
        axes.set_ylabel(picture.y_label)
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.2)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    return path
