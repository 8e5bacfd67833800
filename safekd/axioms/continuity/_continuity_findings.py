"""Continuity of weights in what they depend on (III.4, III.13, III.21), and assumption (A2).  Axes: B positions.

Labels, tasks, contexts and critical positions stay as they are, and so do safety scores unless they are asked for:
orderings are given, and weights that follow an ordering must jump where two teachers' safety ties.  Everything else
that the signals hold is moved, each reading alone and all together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...errors import InvalidInput
from .._audit_report import Finding, locate_row
from ._jump_search import Line, LineResult, Precision, rows_interact, search_line
from ._movable_signals import MovableSignals
from ._probe_lines import Weights, changes_weights, draw_lines

HELD = ("safety", "token_safety")
_REMEDY = (
    "Take the jump out at its source: a ridge for shortest gradients, a softmax for the best or a threshold. "
    "Projection keeps continuity but cannot create it."
)
_SETTLE = "Bound the slope at its source: a larger eps, ridge or temperature."


@dataclass
class SearchResult:
    """What was found along all lines: the worst jump, the steepest slope, and how much was looked at."""

    lines: int = 0
    refused: int = 0
    refusal: str = ""
    jump: float = 0.0
    jump_line: str = ""
    jump_row: int = 0
    width: float = 0.0
    jumping_B: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    slope: float = 0.0
    slope_line: str = ""
    slope_row: int = 0
    growing: bool = False

    def take(self, line: Line, look: LineResult) -> None:
        """Count one line more."""
        self.lines += 1
        jumping_B = ~(look.jump_B == 0)
        self.jumping_B = jumping_B if not len(self.jumping_B) else self.jumping_B | jumping_B
        row = int(look.jump_B.argmax())  # which points at a NaN before any number
        if bool(jumping_B[row]) and not math.isnan(self.jump) and not float(look.jump_B[row]) <= self.jump:
            self.jump, self.jump_row, self.jump_line = float(look.jump_B[row]), row, line.name
            self.width = float(look.width_B[row])
        row = int(look.slope_B.argmax())
        if float(look.slope_B[row]) > self.slope:
            self.slope, self.slope_row, self.slope_line = float(look.slope_B[row]), row, line.name
            self.growing = bool(look.growing_B[row])


def select_readings(readings: MovableSignals, vary: Sequence[str] | None) -> list[str]:
    """Return which readings to move: those asked for, or all but safety.  Raises InvalidInput for an unknown one."""
    if vary is None:
        return [name for name in readings.sources if name not in HELD]
    vary = [vary] if isinstance(vary, str) else vary
    for name in vary:
        if name not in readings.sources:
            known = ", ".join(readings.sources) or "none"
            raise InvalidInput(f"`vary` names '{name}', which the signals do not hold; they hold {known}.")
    return list(vary)


def search_lines(groups: Iterable[Iterable[Line]]) -> SearchResult:
    """Look along all lines.  Whether rows look at each other is found out once a group."""
    found = SearchResult()
    for lines in groups:
        together: bool | None = None
        for line in lines:
            try:
                together = rows_interact(line) if together is None else together
                look = search_line(line, together, Precision.for_dtype(line.speed_B.dtype))
            except InvalidInput as refusal:
                found.refused, found.refusal = found.refused + 1, str(refusal)
            else:
                found.take(line, look)
    return found


def judge_continuity(
    axiom: str,
    subject: str,
    weights: Weights,
    readings: MovableSignals,
    vary: Sequence[str] | None,
    tries: int,
    seed: int,
) -> tuple[Finding, Finding]:
    """Return the finding on an axiom of continuity and that on (A2)."""
    names = select_readings(readings, vary)
    unsure = _repeats(weights, readings)
    if unsure is not None:
        text = (
            f"The rule answered twice to the same signals, and its weights differ by {unsure:.3g}: it is no function."
        )
        remedy = "Take out what is random, or remember nothing between calls (eval mode)."
        return tuple(Finding(name, subject, "violated", text, unsure, remedy=remedy) for name in (axiom, "A2"))  # type: ignore[return-value]
    if not names or not readings.lead.numel():
        text = (
            "The signals hold no reading that varies continuously." if readings.lead.numel() else "There are no rows."
        )
        return tuple(Finding(name, subject, "not_applicable", text) for name in (axiom, "A2"))  # type: ignore[return-value]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        moving = [name for name in names if changes_weights(name, readings, weights, generator)]
        found = search_lines(draw_lines(readings, moving, weights, tries, generator))
    what = f"{', '.join(moving or names)} moved"
    held = [name for name in readings.sources if name not in names]
    what += f"; held fixed: {', '.join(held)}" if held else ""
    return _continuous(axiom, subject, found, what, readings.lead), _lipschitz(subject, found, readings.lead)


def _repeats(weights: Weights, readings: MovableSignals) -> float | None:
    """Return by how much two answers to the same signals differ, None if they do not."""
    with torch.no_grad():
        one, other = (weights(readings.replace_sources({})) for _ in range(2))
    return None if torch.equal(one.nan_to_num(), other.nan_to_num()) else float((one - other).abs().max())


def _continuous(axiom: str, subject: str, found: SearchResult, moved: str, lead: torch.Size) -> Finding:
    of = lead.numel()
    if found.refused and not found.lines:
        return Finding(axiom, subject, "not_applicable", f"The rule refused to be moved: {found.refusal}")
    refused = f" Along {found.refused} lines the rule refused: {found.refusal}" if found.refused else ""
    if found.jump != 0:
        what = "A weight is no number" if math.isnan(found.jump) else f"A weight jumps by {found.jump:.3g}"
        text = f"{what} between readings {found.width:.1g} apart, on the way of {found.jump_line}.{refused}"
        where, rows = locate_row(found.jump_row, lead), int(found.jumping_B.sum())
        return Finding(axiom, subject, "violated", text, found.jump, where, rows, of, _REMEDY)
    text = f"No jump along {found.lines} lines ({moved}).{refused}"
    if not found.lines:
        text = f"Nothing that was moved changes the weights ({moved})."
    if found.slope == 0:
        return Finding(axiom, subject, "estimated", text, 0.0, None, 0, of)
    text += f" Steepest: a weight moves by {found.slope:.3g} a unit of reading, on the way of {found.slope_line}."
    return Finding(axiom, subject, "estimated", text, found.slope, locate_row(found.slope_row, lead), 0, of)


def _lipschitz(subject: str, found: SearchResult, lead: torch.Size) -> Finding:
    of = lead.numel()
    if found.refused and not found.lines:
        return Finding("A2", subject, "not_applicable", "The rule refused to be moved.")
    if found.jump != 0:
        where, rows = locate_row(found.jump_row, lead), int(found.jumping_B.sum())
        return Finding("A2", subject, "violated", "What jumps is not Lipschitz.", found.jump, where, rows, of, _REMEDY)
    steepest = locate_row(found.slope_row, lead) if found.slope > 0 else None
    if found.growing:  # a search cannot tell steep from unbounded
        text = (
            f"L is at least {found.slope:.3g}, and the slope was still growing where the search ended, on the way of "
            f"{found.slope_line}: perhaps there is no L."
        )
        return Finding("A2", subject, "estimated", text, found.slope, steepest, 0, of, _SETTLE)
    text = f"L is at least {found.slope:.3g}, the steepest that was found."
    return Finding("A2", subject, "estimated", text, found.slope, steepest, 0, of)
