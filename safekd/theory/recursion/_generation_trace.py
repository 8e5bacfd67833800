"""What a recursion found: a row a generation, its factor with a band, and how it ended."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from torch import nn

from solvers.short_repr import ShortRepr

from ...errors import InvalidInput
from ...training import FitResult
from .._rate_fits import RateFit, fit_factor
from ._recursion_plot import draw_generations

Ending = Literal["fixed_point", "contracting", "drifting", "undecided"]


@dataclass(frozen=True)
class RecursionTraceSettings:
    """What counts as moving.

    Attributes:
        least_points: Generations that a factor is fitted to at least: a band needs one more than a line.
        floor: Share of the first movement down to which movements are fitted: what is below is what the training of
            one generation leaves undone (``tests/safekd/theory/test_recursive_distill.py``).
    """

    least_points: int = 3
    floor: float = 1e-3


_TRACE = RecursionTraceSettings()


@dataclass(frozen=True)
class Generation:
    """One generation of a recursion, read over the training split.

    Attributes:
        number: From 0; generation 0 learns from the base teachers alone.
        kl_to_anchor: ``KL(base teachers || student)``, mean over positions, nats.
        capacity_gap: ``KL(target || student)``, what the student could not or did not learn of its target, nats.
        moved: Mean total variation from the student before; NaN for generation 0.
        kl_to_anchor_validation: As ``kl_to_anchor`` on the validation split; NaN without one.
        accuracy: Share of labels that the student finds.
        status: The verdict of its training.
        feasible: Whether it meets every constraint, to 1e-3, where it is posed.
        safety: What each constraint reads, by name.
        steps: Of the optimizer.
    """

    number: int
    kl_to_anchor: float
    capacity_gap: float
    moved: float
    kl_to_anchor_validation: float
    accuracy: float
    status: str
    feasible: bool
    safety: dict[str, float] = field(default_factory=dict)
    steps: int = 0


@dataclass(frozen=True, repr=False)
class RecursiveDistillation(ShortRepr):
    """A finished recursion.

    Attributes:
        generations: A record each.
        student: The last one, in eval mode.
        result: The last generation's FitResult.
        anchors: The base teachers' share in the target of each generation that was trained.
        form: "arithmetic" or "geometric".
        fixed_point: The movement below which the recursion was to stop.
        folder: Where the generations are kept; None for nowhere.
    """

    generations: Sequence[Generation]
    student: nn.Module
    result: FitResult
    anchors: Sequence[float]
    form: str
    fixed_point: float
    folder: Path | None = None

    @property
    def table(self) -> pd.DataFrame:
        """A row a generation; ``safety: NAME`` for each constraint, ``factor``: movement over that before."""
        return tabulate_generations(self.generations)

    @property
    def contraction(self) -> RateFit | None:
        """Factor by which the movement from student to student changes a generation; None with too few of them."""
        moved = [one.moved for one in self.generations[1:]]
        kept = [value for value in moved if value > _TRACE.floor * moved[0]]
        return _fit_steps(kept)

    @property
    def growth(self) -> RateFit | None:
        """Factor by which the divergence from the base teachers changes a generation; None with too few of them."""
        return _fit_steps([one.kl_to_anchor for one in self.generations])

    @property
    def safe(self) -> bool:
        """Whether every generation met every constraint."""
        return all(one.feasible for one in self.generations)

    @property
    def ending(self) -> Ending:
        """How it ended.

        "fixed_point": the last student moved by no more than ``fixed_point``; "drifting": the divergence from the base
        teachers grows, the band of its factor above 1, and the students do not come to rest beside them;
        "contracting": the band of ``contraction`` is below 1; "undecided": neither.
        """
        if len(self.generations) > 1 and self.generations[-1].moved <= self.fixed_point:
            return "fixed_point"
        unanchored = not any(self.anchors[1:])
        if unanchored and self.growth is not None and self.growth.low > 0:
            return "drifting"
        if self.contraction is not None and self.contraction.high < 0:
            return "contracting"
        return "drifting" if self.growth is not None and self.growth.low > 0 else "undecided"

    def __str__(self) -> str:
        """Return the finding in a few lines."""
        last, lines = self.generations[-1], [f"{len(self.generations)} generations, {self.ending.replace('_', ' ')}"]
        lines.append(f"KL(base teachers || student): {self.generations[0].kl_to_anchor:.4g} -> {last.kl_to_anchor:.4g}")
        for name, fit in (("movement", self.contraction), ("divergence", self.growth)):
            if fit is not None:
                low, high = fit.factor_band
                lines.append(
                    f"{name} changes by {fit.factor:.3g} a generation, {fit.level:.0%} band {low:.3g} to {high:.3g}"
                )
        if last.safety:
            lines.append(
                f"{sum(one.feasible for one in self.generations)} of {len(self.generations)} meet every constraint"
            )
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw divergence, movement and safety by generation.

        Args:
            path: File to write; its ending decides the format, .png, .svg or .pdf.

        Raises:
            InvalidInput: matplotlib knows no such format.
        """
        draw_generations({"": self.table}, path)


def tabulate_generations(generations: Sequence[Generation]) -> pd.DataFrame:
    """Return a row a generation.

    Args:
        generations: In order.
    """
    rows: list[dict[str, Any]] = []
    for one in generations:
        row = {name: value for name, value in vars(one).items() if name != "safety"}
        rows.append(row | {f"safety: {name}": value for name, value in one.safety.items()})
    table = pd.DataFrame(rows)
    table["factor"] = table["moved"] / table["moved"].shift()
    return table


def _fit_steps(values: Sequence[float]) -> RateFit | None:
    if len(values) < _TRACE.least_points:
        return None
    try:
        return fit_factor(values)
    except InvalidInput:  # a student that came to rest to the last bit
        return None
