"""The results of the primal-dual benchmark as Markdown and as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import fields
from io import StringIO

from ..projection._report import table
from ._cells import Cell, best_of
from ._overhead import BY_HAND, PLAIN, TRAINER, Step
from ._peers import PEERS
from ._solvers import SOLVERS
from ._steps import OURS, PENALTIES

FAMILIES = {
    "table": "Problems with answers by hand",
    "frontier": "Points of concave and curved fronts",
    "QP": "Random quadratics",
    "distillation": "Constrained distillation",
}
_HOW = """Written by `python -m benchmarks.primal_dual`. A problem counts as solved when all four KKT residuals are at
most 1e-3, worked out by `solvers.kkt` from the problem's own gradients at the contender's own iterate and multipliers,
and, where the least objective is known, the objective is within 1 % of it. Two problems of the table have no
multipliers to be found: there, a verdict that says so counts, and nothing else.

A step is one evaluation of objective, rows and their gradients; extragradient needs two. Steps are counted up to the
judge's next look, every 20 (50 for the largest quadratics). Seconds are the processor's, one thread, without the
judge's. All that step use Adam at 0.01, for at most 3,000 steps (2,000 in distillation); default is the documented
setting, best the best of a grid, chosen problem by problem after the fact, which flatters those who have one. Bounds of
variables are kept by projection, for everybody."""


def markdown(cells: Sequence[Cell], steps: Sequence[Step], facts: dict[str, str], more: Sequence[str] = ()) -> str:
    """Return the whole report.

    Args:
        cells: What was found on each problem.
        steps: What a step costs.
        facts: What a reader needs to judge the numbers.
        more: Sections of other families, which stand before the participants; alone where there is nothing else.

    Returns:
        Markdown.
    """
    parts = ["# Primal-dual: ours beside its peers"]
    known = table(["", ""], [[name, fact] for name, fact in facts.items()])
    if more and not cells and not steps:
        return "\n\n".join([*parts, known, *more]) + "\n"
    parts += [
        _HOW,
        known,
        "## How many are solved",
        "In brackets: by the best of the grid.",
        counts(cells),
        *(part for family, title in FAMILIES.items() for part in _family(family, title, cells)),
        *([] if not steps else ["## What a constraint costs a step", _OVERHEAD, overhead_table(steps)]),
        *more,
        "## Who takes part, with which settings",
        _participants(cells),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_OVERHEAD = """Milliseconds of the processor, median over turns, and how many times the plain loop, which distils
without a constraint. Same model, batch, target and Adam; batches of 64 and 256 are drawn from 2,048 examples. Wanted:
ConstrainedTrainer at most 1.15 times the penalties by hand, and at most Cooper's."""


_MEASURES = """As above, by measure: by hand the same surrogate with ``relu``, without the values as measured that
ours reads beside, checks for values that are not finite, and a step that is taken back. Wanted: at most 1.15."""


def _names(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.contender for cell in cells))


def counts(cells: Sequence[Cell]) -> str:
    """Return contenders by families: solved at defaults, and by the best of the grid."""
    families = [family for family in FAMILIES if any(cell.family == family for cell in cells)]
    sizes = {family: len({cell.problem for cell in cells if cell.family == family}) for family in families}
    rows = []
    for name in _names(cells):
        mine = [cell for cell in cells if cell.contender == name]
        rows.append([name, *(_count([cell for cell in mine if cell.family == family]) for family in families)])
    return table(["", *(f"{family}, of {sizes[family]}" for family in families)], rows)


def _count(cells: Sequence[Cell]) -> str:
    if not cells:
        return ""
    if all(cell.note.startswith(("not installed", "does not import")) for cell in cells):
        return cells[0].note
    default = len({cell.problem for cell in cells if cell.solved and cell.first})
    best = len({cell.problem for cell in cells if cell.solved})
    return f"{default} ({best})" if any(not cell.first for cell in cells) else str(default)


def _family(family: str, title: str, cells: Sequence[Cell]) -> list[str]:
    here = [cell for cell in cells if cell.family == family]
    if not here:
        return []
    problems = list(dict.fromkeys(cell.problem for cell in here))
    lines = [f"## {title}"]
    if family == "distillation":
        for problem in problems:
            lines += [f"### {problem}", _distilled([cell for cell in here if cell.problem == problem])]
        return [*lines, _FEASIBLE]
    lines.append("Steps, and seconds in brackets, at defaults; where a row is marked best, by the best of the grid.")
    for chunk in range(0, len(problems), 4):
        lines.append(_times(here, problems[chunk : chunk + 4]))
    return lines


_FEASIBLE = """`at end` is after the last step, or where the trainer stopped; `least, feasible` is the least loss that
the judge saw, every few steps, where the constraint was missed by at most 1e-3; a constraint that is met only now and
then shows as a difference between the two."""


def _times(cells: Sequence[Cell], problems: Sequence[str]) -> str:
    rows = []
    for name in _names(cells):
        mine = [cell for cell in cells if cell.contender == name]
        chosen = {problem: [cell for cell in mine if cell.problem == problem] for problem in problems}
        if not any(chosen.values()):
            continue
        rows.append([name, "", *(_time([c for c in chosen[p] if c.first]) for p in problems)])
        if any(not cell.first for cell in mine):
            rows.append(["", "best", *(_time([best_of(chosen[p])] if chosen[p] else []) for p in problems)])
    return table(["", "", *problems], rows)


def _time(cells: Sequence[Cell]) -> str:
    if not cells:
        return ""
    cell = cells[0]
    return f"{cell.steps:,} ({cell.seconds:.2g})" if cell.solved else f"no: {cell.note}"


def _distilled(cells: Sequence[Cell]) -> str:
    rows = []
    for name in _names(cells):
        mine = [cell for cell in cells if cell.contender == name]
        lines = [("", next(cell for cell in mine if cell.first))]
        if len(mine) > 1:
            lines.append(("best", best_of(mine)))
        rows += [[name if not kind else "", kind, *_student(cell)] for kind, cell in lines]
    return table(["", "", "steps (seconds)", "loss at end", "missed by", "least, feasible", "says"], rows)


def _student(cell: Cell) -> list[str]:
    return [_time([cell]), *(_number(v) for v in (cell.objective, cell.violation, cell.feasible)), cell.says]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def overhead_table(steps: Sequence[Step]) -> str:
    """Return contenders by courses: milliseconds, and the ratio to the plain loop."""
    courses = list(dict.fromkeys(step.course for step in steps))
    rows = []
    for name in dict.fromkeys(step.contender for step in steps):
        by_course = {step.course: step for step in steps if step.contender == name}
        rows.append([name, *(_cost(by_course[course]) for course in courses)])
    return table(["", *courses], rows)


def tell_measures(steps: Sequence[Step]) -> list[str]:
    """Return the section on what constraints of each measure cost; nothing where nothing was measured.

    Args:
        steps: Of the plain loop, of penalties by hand and of ours, on the same courses.
    """
    by_course: dict[str, dict[str, Step]] = {}
    for step in steps:
        by_course.setdefault(step.course, {})[step.contender] = step
    rows = [
        [course, *(f"{1e3 * of[name].seconds:.3f}" for name in (PLAIN, BY_HAND, TRAINER)), f"{_compare(of):.2f}"]
        for course, of in by_course.items()
    ]
    head = ["three constraints, MLP 64-48-10", "plain loop, ms", "by hand, ms", "ours, ms", "ours / by hand"]
    return ["## What a measure costs a step", _MEASURES, table(head, rows)] if rows else []


def _compare(of: dict[str, Step]) -> float:
    return of[TRAINER].seconds / of[BY_HAND].seconds


def _cost(step: Step) -> str:
    return step.note or f"{1e3 * step.seconds:.2f} ({step.ratio:.2f})"


def _participants(cells: Sequence[Cell]) -> str:
    here = _names(cells)
    rows = [[who.name, who.settings, who.source] for who in (*OURS, *PEERS, *PENALTIES) if who.name in here]
    rows += [[who.name, who.settings, "default"] for who in SOLVERS if who.name in here]
    return table(["", "settings", "from"], rows)


def as_csv(cells: Sequence[Cell]) -> str:
    """Return all cells, one a line."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Cell)]
    writer.writerow(names)
    writer.writerows([getattr(cell, name) for name in names] for cell in cells)
    return text.getvalue()
