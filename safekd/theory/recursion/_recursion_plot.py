"""The picture of recursions: divergence from the base teachers, movement and safety, by generation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from ..._picture_file import write_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_generations(runs: Mapping[str, pd.DataFrame], path: str | os.PathLike[str]) -> None:
    """Draw one or several recursions, whole or not at all; the same numbers give the same bytes.

    Args:
        runs: ``RecursiveDistillation.table`` of each recursion, by what to call it, "" for one alone.
        path: File to write; its ending decides the format.

    Raises:
        InvalidInput: matplotlib knows no such format.
    """
    write_picture(path, lambda: _build_recursion_figure(runs), ".png, .svg or .pdf")


def _build_recursion_figure(runs: Mapping[str, pd.DataFrame]) -> Figure:
    from matplotlib.figure import Figure

    safety = {
        name: [str(column) for column in table if str(column).startswith("safety: ")] for name, table in runs.items()
    }
    many = 3 if any(safety.values()) else 2
    figure = Figure(figsize=(3.2 * many, 2.8), layout="constrained")
    panels = list(figure.subplots(1, many))
    for name, table in runs.items():
        label = f", {name}" if name else ""
        panels[0].plot(table["number"], table["kl_to_anchor"], "o-", ms=3, label=f"KL{label}")
        panels[1].plot(table["number"], table["moved"], "o-", ms=3, label=f"moved{label}")
        for column in safety[name]:
            panels[2].plot(table["number"], table[column], "o-", ms=3, label=f"{column[8:]}{label}")
    panels[0].set_ylabel("KL(base teachers ‖ student), nats")
    panels[1].set_ylabel("total variation from the student before")
    panels[1].set_yscale("log")
    if many == 3:
        panels[2].set_ylabel("safety")
    for panel in panels:
        panel.set_xlabel("generation")
        panel.legend(frameon=False, fontsize=8)
    return figure
