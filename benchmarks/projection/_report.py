"""The results of the projection benchmark as Markdown and as CSV.  Axes: B rows, K teachers."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from io import StringIO

from .._timing import exponent
from ._cells import MODES, Cell
from ._headline import Verdict
from ._peers import CONTENDERS, OURS, Contender

_CASES = {
    "chain": "Chain order and bounds",
    "bounds": "Bounds, no order",
    "order": "Chain order where no bound binds",
    "dag": "Random partial order and bounds",
}


def markdown(cells: Sequence[Cell], verdicts: Sequence[Verdict], facts: dict[str, str]) -> str:
    """Return the whole report; without cells, the goals alone."""
    parts = [
        "# Projection: ours beside its peers",
        "Written by `python -m benchmarks.projection`. float64 on the CPU, chain, bounds and scores as "
        "`benchmarks/projection/_cases.py` states them. Medians after warm-up.",
        table(["", ""], [[name, fact] for name, fact in facts.items()]),
        "## Goals",
        "Rivals take turns on the same rows, in one process.",
        headline(verdicts),
        *(_measured(cells) if cells else ()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _measured(cells: Sequence[Cell]) -> list[str]:
    return [
        "## Microseconds a row",
        f"In brackets: how many times the time of `{OURS}`, which is beside it in the same run. `!=`: its answers are "
        "not ours, see Agreement. Cells that would take longer than the budget are skipped.",
        *_times(cells),
        "## Peak memory, K = 8, MB beyond the data",
        _by_size(cells, lambda cell: "" if cell.peak is None else f"{cell.peak / 1e6:.1f}"),
        "## Growth of the time",
        "Exponents fitted by least squares on logarithms: in B at K = 8 (from 1,000 rows on, where a contender has two "
        "such sizes), in K at 1,000 rows. In brackets: points.",
        growth(cells),
        "## Agreement with ours",
        f"Largest difference from `{OURS}` over all cells, first 256 rows of each.",
        agreement(cells),
        "## Who takes part, with which settings",
        _participants(cells),
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def headline(verdicts: Sequence[Verdict]) -> str:
    """Return goal, measured, verdict, one line each."""
    rows = []
    for verdict in verdicts:
        goal = verdict.goal
        sign = ">=" if goal.value == "ratio" else "<="
        spread = f" ({number(min(verdict.values))} to {number(max(verdict.values))})" if len(verdict.values) > 1 else ""
        place = f"{goal.case}, K={goal.K}, B={goal.sizes[-1]:,}, {goal.mode}"
        measured = "-" if math.isnan(verdict.measured) else f"{number(verdict.measured)}{spread}"
        rows.append([goal.what, place, f"{sign} {goal.goal:g}", measured, verdict.word, verdict.note])
    return table(["what", "where", "goal", "measured", "", "note"], rows)


def number(value: float) -> str:
    """Return three digits, without an exponent where a reader would rather have none."""
    return f"{value:,.0f}" if 100 <= value < 1e9 else f"{value:.3g}"


def _times(cells: Sequence[Cell]) -> Iterator[str]:
    for case, title in _CASES.items():
        here = [cell for cell in cells if cell.case == case]
        for mode in MODES:
            for B in sorted({cell.B for cell in here}):
                yield f"### {title}: {mode}, B = {B:,}"
                yield times_table([cell for cell in here if cell.mode == mode and cell.B == B])


def times_table(cells: Sequence[Cell]) -> str:
    """Return contenders by K for cells of one case, mode and B."""
    classes = sorted({cell.K for cell in cells})
    by_place = {(cell.contender, cell.K): cell for cell in cells}
    rows = [
        [name, *(_time(by_place.get((name, K)), by_place.get((OURS, K))) for K in classes)]
        for name in dict.fromkeys(cell.contender for cell in cells)
    ]
    return table(["", *(f"K = {K}" for K in classes)], rows)


def _time(cell: Cell | None, ours: Cell | None) -> str:
    if cell is None:
        return ""
    if math.isnan(cell.seconds):
        return cell.note.split(":")[0]
    ratio = ratio_to_ours(cell, ours)
    times = "" if math.isnan(ratio) or cell.contender == OURS else f" ({number(ratio)}x)"
    return f"{number(cell.seconds / cell.B * 1e6)}{times}{'' if cell.agrees else ' !='}"


def ratio_to_ours(cell: Cell, ours: Cell | None) -> float:
    """Return the contender's time over ours, NaN if either was not measured."""
    return math.nan if ours is None else cell.seconds / ours.seconds


def _by_size(cells: Sequence[Cell], shown: Callable[[Cell], str]) -> str:
    here = [cell for cell in cells if cell.case == "chain" and cell.K == 8]
    sizes = sorted({cell.B for cell in here})
    by_place = {(cell.contender, cell.mode, cell.B): cell for cell in here}
    rows = []
    for name, mode in dict.fromkeys((cell.contender, cell.mode) for cell in here):
        found = [by_place.get((name, mode, B)) for B in sizes]
        rows.append([name, mode, *("" if cell is None else shown(cell) for cell in found)])
    return table(["", "", *(f"B = {B:,}" for B in sizes)], rows)


def growth(cells: Sequence[Cell]) -> str:
    """Return fitted exponents in B and in K."""
    rows = []
    measured = [cell for cell in cells if not math.isnan(cell.seconds)]
    for case, name, mode in dict.fromkeys((cell.case, cell.contender, cell.mode) for cell in measured):
        here = [cell for cell in measured if (cell.case, cell.contender, cell.mode) == (case, name, mode)]
        in_B = [cell for cell in here if cell.K == 8]
        large = [cell for cell in in_B if cell.B >= 1000]
        in_B = large if len(large) > 1 else in_B
        in_K = [cell for cell in here if cell.B == 1000]
        rows.append([case, name, mode, _slope([c.B for c in in_B], in_B), _slope([c.K for c in in_K], in_K)])
    return table(["case", "", "", "in B", "in K"], rows)


def _slope(sizes: Sequence[int], cells: Sequence[Cell]) -> str:
    slope = exponent(sizes, [cell.seconds for cell in cells])
    return "" if slope is None else f"{slope:.2f} ({len(cells)})"


def agreement(cells: Sequence[Cell]) -> str:
    """Return the largest differences and whether the contender is a peer."""
    rows = []
    for who in CONTENDERS:
        for case in _CASES:
            here = [c for c in cells if (c.contender, c.case) == (who.name, case) and c.difference is not None]
            if not here or who.tolerance is None:
                continue
            gap, slope_gap = (_largest([getattr(c, field) for c in here]) for field in _GAPS)
            rows.append([who.name, case, _gap(gap), _gap(slope_gap), _tolerances(who), _verdict(who, gap, slope_gap)])
    return table(["", "case", "answers", "gradients", "tolerated", ""], rows)


_GAPS = ("difference", "gradient_difference")


def _largest(gaps: Sequence[float | None]) -> float | None:
    present = [gap for gap in gaps if gap is not None]
    return math.nan if any(math.isnan(gap) for gap in present) else max(present, default=None)


def _gap(gap: float | None) -> str:
    return "-" if gap is None else f"{gap:.1e}"


def _tolerances(who: Contender) -> str:
    return " / ".join(f"{tolerance:g}" for tolerance in (who.tolerance, who.gradient_tolerance) if tolerance)


def _verdict(who: Contender, gap: float | None, slope_gap: float | None) -> str:
    if who.tolerance is None or gap is None or not gap <= who.tolerance:
        return "NOT A PEER: it answers something else"
    if slope_gap is not None and not (who.gradient_tolerance is not None and slope_gap <= who.gradient_tolerance):
        return "forward agrees; its GRADIENTS DIFFER"
    return "agrees"


def _participants(cells: Sequence[Cell]) -> str:
    rows = []
    for who in CONTENDERS:
        here = [cell for cell in cells if cell.contender == who.name]
        broken = [f"{cell.case}: {cell.note}" for cell in here if cell.note.startswith(("not ", "does "))]
        state = "; ".join(dict.fromkeys(broken)) or ("runs" if here else "not asked")
        busy = max((cell.cores for cell in here if not math.isnan(cell.cores)), default=math.nan)
        cores = "" if math.isnan(busy) else f"{busy:.1f}"
        rows.append([who.name, who.settings, who.threads, cores, ", ".join(who.cases), state])
    return table(["", "settings", "threads", "cores busy at most", "cases", ""], rows)


def as_csv(cells: Sequence[Cell]) -> str:
    """Return all cells, one a line, with microseconds a row and the ratio to ours."""
    ours = {(cell.case, cell.K, cell.B, cell.mode): cell for cell in cells if cell.contender == OURS}
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Cell)]
    writer.writerow([*names, "us_per_row", "ratio_to_ours"])
    for cell in cells:
        ratio = ratio_to_ours(cell, ours.get((cell.case, cell.K, cell.B, cell.mode)))
        writer.writerow([*(getattr(cell, name) for name in names), cell.seconds / cell.B * 1e6, ratio])
    return text.getvalue()
