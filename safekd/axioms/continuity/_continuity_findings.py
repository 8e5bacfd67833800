"""Continuity of weights in what they depend on (III.4, III.13, III.21), and assumption (A2).  Axes: B positions.

Labels, tasks, contexts and critical positions stay as they are, and so do safety scores unless they are asked for:
orderings are given, and weights that follow an ordering must jump where two teachers' safety ties.  Everything else
that the signals hold is moved, each signal alone and all together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...errors import InvalidInput
from .._audit_report import Finding, locate_row
from ._jump_search import JumpSearchSettings, Line, LineResult, rows_interact, search_line
from ._movable_signals import MovableSignals
from ._probe_lines import SignalLine, Weights, changes_weights, draw_lines, stack_lines

HELD = ("safety", "token_safety")
_REMEDY = (
    "Take the jump out at its source: a ridge for shortest gradients, a softmax for the best or a threshold. "
    "Projection keeps continuity but cannot create it."
)
_SETTLE = "Bound the slope at its source: a larger eps, ridge or temperature."


@dataclass(frozen=True)
class PackSettings:
    """How many lines are searched at once; ``benchmarks.auditing`` notices.

    Attributes:
        numbers: Of signals in all lines of a pack, at most: 8 megabytes, beyond which memory is waited for.
    """

    numbers: int = 2**20


_PACKS = PackSettings()
OnLines = Callable[[int], object]


@dataclass
class SearchResult:
    """What was seen along all lines.

    Attributes:
        lines: How many were searched.
        refused: Along how many the rule refused its inputs.
        refusal: What it said.
        jump: The worst jump, in units of weight.
        jump_line: On the way of which line.
        jump_row: In which row.
        width: Over which distance of inputs.
        jumping_B: Which rows jump, bool, (B,).
        slope: The steepest slope.
        slope_line: On the way of which line.
        slope_row: In which row.
        growing: Whether the steepest slope was still growing where the search ended.
    """

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

    def add_line(self, line: Line, look: LineResult) -> None:
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


def select_signals(movable: MovableSignals, vary: Sequence[str] | None) -> list[str]:
    """Return which signals to move: those asked for, or all but safety.  Raises InvalidInput for an unknown one."""
    if vary is None:
        return [name for name in movable.sources if name not in HELD]
    vary = [vary] if isinstance(vary, str) else vary
    for name in vary:
        if name not in movable.sources:
            known = ", ".join(movable.sources) or "none"
            raise InvalidInput(f"`vary` names '{name}', which the signals do not hold; they hold {known}.")
    return list(vary)


def search_lines(groups: Iterable[Iterable[SignalLine]], numbers: int, on_lines: OnLines) -> SearchResult:
    """Look along all lines, along many at once where rows do not look at each other.

    Args:
        groups: Lines that move the same signals; what rows look at is found out once a group.
        numbers: How many numbers the signals hold of which the weights make something, all rows together.
        on_lines: Told how many lines more were searched.
    """
    result = SearchResult()
    for lines in groups:
        together: bool | None = None
        for pack in _pack_lines(lines, numbers):
            if together is None:
                together = _rows_interact_along(pack)
            looks = None if together or together is None else search_lines_at_once(pack)
            for n, line in enumerate(pack):
                try:
                    result.add_line(line, _search_alone(line, together) if looks is None else looks[n])
                except InvalidInput as refusal:
                    result.refused, result.refusal = result.refused + 1, str(refusal)
            on_lines(len(pack))
    return result


def _pack_lines(lines: Iterable[SignalLine], numbers: int) -> Iterator[list[SignalLine]]:
    """Yield lines in packs whose numbers, so many a line, stay in the cache of a processor."""
    pack: list[SignalLine] = []
    for line in lines:
        pack.append(line)
        if (len(pack) + 1) * numbers > _PACKS.numbers:
            yield pack
            pack = []
    if pack:
        yield pack


def _rows_interact_along(lines: Sequence[Line]) -> bool | None:
    """Tell whether rows look at each other, by the first line along which the rule does not refuse."""
    for line in lines:
        try:
            return rows_interact(line)
        except InvalidInput:
            continue
    return None


def _search_alone(line: SignalLine, together: bool | None) -> LineResult:
    whole = Line(line.name, line.evaluate, line.speed_B)  # whose rows are not to be taken apart
    return search_line(whole, bool(together), JumpSearchSettings.for_dtype(line.speed_B.dtype))


def search_lines_at_once(lines: Sequence[SignalLine]) -> list[LineResult] | None:
    """Search the rows of all lines side by side; None where that gives other weights than each line by itself.

    A rule may refuse one of the lines, or hold a table of as many rows as its signals have.

    Args:
        lines: Of one start, moving the same sources; rows do not look at each other.
    """
    B, settings = len(lines[0].speed_B), JumpSearchSettings.for_dtype(lines[0].speed_B.dtype)
    place_B = torch.linspace(0.1, 0.9, B).to(lines[0].speed_B)
    some = torch.tensor(sorted({0, B - 1}), device=place_B.device)
    try:
        stack = stack_lines(lines)
        stacked_BK = torch.split(stack.evaluate(place_B.repeat(len(lines))), B)
        for n in {0, len(lines) - 1}:
            alone_BK = lines[n].evaluate(place_B)
            parts = (stacked_BK[n], alone_BK), (lines[n].select(some).evaluate(place_B[some]), alone_BK[some])
            if not all(settings.agrees(*pair) for pair in parts):
                return None
        look = search_line(stack, False, settings)
    except Exception:  # a rule says in its own way what it cannot do; line by line that is heard
        return None
    fields = [torch.split(getattr(look, name), B) for name in LineResult.__dataclass_fields__]
    return [LineResult(*parts) for parts in zip(*fields, strict=True)]


def judge_continuity(
    axiom: str,
    subject: str,
    weights: Weights,
    movable: MovableSignals,
    vary: Sequence[str] | None,
    tries: int,
    seed: int,
    on_lines: OnLines,
) -> tuple[Finding, Finding]:
    """Return the finding on an axiom of continuity and that on (A2).

    Args:
        axiom: Id of the axiom.
        subject: What the report calls the weights.
        weights: From signals to weights, (..., K).
        movable: What can be moved.
        vary: Which signals are; None for all but safety.
        tries: How many lines of each sort.
        seed: Which lines.
        on_lines: Told how many lines more were searched.

    Raises:
        InvalidInput: ``vary`` names a signal that was not given.
    """
    names = select_signals(movable, vary)
    difference = _compare_answers(weights, movable)
    if difference is not None:
        text = f"Two answers of the rule to the same signals differ by {difference:.3g}: it is no function."
        remedy = "Take out what is random, or remember nothing between calls (eval mode)."
        return tuple(Finding(name, subject, "violated", text, difference, remedy=remedy) for name in (axiom, "A2"))  # type: ignore[return-value]
    if not names or not movable.lead.numel():
        text = "No signal varies continuously." if movable.lead.numel() else "There are no rows."
        return tuple(Finding(name, subject, "not_applicable", text) for name in (axiom, "A2"))  # type: ignore[return-value]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        moving = [name for name in names if changes_weights(name, movable, weights, generator)]
        read = {*moving, *(name for name in movable.sources if name not in names)}  # what is held may be read
        numbers = sum(movable.sources[name].numel() for name in read)
        result = search_lines(draw_lines(movable, moving, weights, tries, generator), numbers, on_lines)
    what = f"{', '.join(moving or names)} moved"
    held = [name for name in movable.sources if name not in names]
    what += f"; held fixed: {', '.join(held)}" if held else ""
    return _judge_axiom(axiom, subject, result, what, movable.lead), _judge_lipschitz(subject, result, movable.lead)


def _compare_answers(weights: Weights, movable: MovableSignals) -> float | None:
    """Return by how much two answers to the same signals differ, None if they do not."""
    with torch.no_grad():
        one, other = (weights(movable.replace_sources({})) for _ in range(2))
    return None if torch.equal(one.nan_to_num(), other.nan_to_num()) else float((one - other).abs().max())


def _judge_axiom(axiom: str, subject: str, result: SearchResult, scope: str, lead: torch.Size) -> Finding:
    judged = lead.numel()
    if result.refused and not result.lines:
        return Finding(axiom, subject, "not_applicable", f"The rule refused to be moved: {result.refusal}")
    refused = f" Along {result.refused} lines the rule refused: {result.refusal}" if result.refused else ""
    if result.jump != 0:
        what = "A weight is no number" if math.isnan(result.jump) else f"A weight jumps by {result.jump:.3g}"
        text = f"{what} between signals {result.width:.1g} apart, on the way of {result.jump_line}.{refused}"
        where, rows = locate_row(result.jump_row, lead), int(result.jumping_B.sum())
        return Finding(axiom, subject, "violated", text, result.jump, where, rows, judged, _REMEDY)
    text = f"No jump along {result.lines} lines ({scope}).{refused}"
    if not result.lines:
        text = f"Nothing that was moved changes the weights ({scope})."
    if result.slope == 0:
        return Finding(axiom, subject, "estimated", text, 0.0, None, 0, judged)
    text += f" Steepest: a weight moves by {result.slope:.3g} a unit of signal, on the way of {result.slope_line}."
    return Finding(axiom, subject, "estimated", text, result.slope, locate_row(result.slope_row, lead), 0, judged)


def _judge_lipschitz(subject: str, result: SearchResult, lead: torch.Size) -> Finding:
    judged = lead.numel()
    if result.refused and not result.lines:
        return Finding("A2", subject, "not_applicable", "The rule refused to be moved.")
    if result.jump != 0:
        where, rows = locate_row(result.jump_row, lead), int(result.jumping_B.sum())
        return Finding(
            "A2", subject, "violated", "What jumps is not Lipschitz.", result.jump, where, rows, judged, _REMEDY
        )
    steepest = locate_row(result.slope_row, lead) if result.slope > 0 else None
    if result.growing:  # a search cannot tell steep from unbounded
        text = (
            f"L is at least {result.slope:.3g}, and the slope was still growing where the search ended, on the way of "
            f"{result.slope_line}: perhaps there is no L."
        )
        return Finding("A2", subject, "estimated", text, result.slope, steepest, 0, judged, _SETTLE)
    text = f"L is at least {result.slope:.3g}, the steepest that was found."
    return Finding("A2", subject, "estimated", text, result.slope, steepest, 0, judged)
