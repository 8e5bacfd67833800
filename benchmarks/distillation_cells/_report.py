"""The cells' part of the report, as Markdown: goals first, then where we lose, verdicts, and every cell."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from ..projection._report import table
from ._contenders import CONTENDERS, NAMES, TRAINER
from ._figures import Row
from ._summary import CLOSE, FEASIBLE, OPPONENTS, OURS, Ratio, Result, choose_best, compare, group_by_cell, tally

_HOW = """Students (linear, MLP, small transformer) learn from stored pooled teachers on four tasks, under one or
five constraints on the average probability of the truth. Twelve cells are fixed and twelve drawn by a seed from the
other 372 combinations, so that nobody can be tuned to them: draw others with `--draw`. Thresholds come from two
reference runs before any contender runs, near or far from what distillation gives alone; a known student meets all of
them at once.
Everybody gets the same initial student, batches, optimizer and steps (2,000; 1,000 for transformers), and is read over
the whole split a hundred times.

The feasible loss is the least loss (mean KL divergence to the target) at a look whose largest violation is at most
1e-3. Choosing the least of a hundred looks favors contenders whose iterates swing across the boundary: they get many
draws. That holds for all alike; the last iterate and its swing stand beside it. Peers, the penalty and the multiplier
moved by hand get, cell by cell, the best setting of their grid, chosen after the fact on this very figure, which
flatters them; ours has one setting everywhere. The trainer's looks are at its student of the moment, the last one at
the student that it hands back; its best feasible student counts as one more. Where it ends early, it stands still
from then on, and its swing is that of a student at rest. KL divergences are small where the student can follow its
teachers, so a ratio can be large where the difference is not: the losses stand beside it."""

_VERDICTS = """`converged` is true where the judge's residuals at the student handed back, with the multipliers handed
back, are all at most three times the tolerance of 1e-3; `infeasible` and `no_multiplier` are false everywhere, since a
known student meets all thresholds strictly; `budget_spent` is true unless the residuals pass."""


def report_sections(rows: Sequence[Row]) -> list[str]:
    """Return the sections, none if there are no rows.

    Args:
        rows: Of all runs.

    Returns:
        Headings, texts and tables.
    """
    if not rows:
        return []
    seeds = len({row.seed for row in rows})
    parts = ["## Distillation in many cells", _HOW, f"Cells: {len(group_by_cell(rows))}; seeds: {seeds}."]
    parts += ["### Goals: feasible loss of ours, divided by that of others", goals(rows)]
    parts += [_STRICT, goals(rows, "feasible_strict")]
    parts += ["### Goals: steadiness in the last quarter", _SWING, swing(rows)]
    parts += ["### The student at the end", _ENDS, ends(rows)]
    parts += ["### Where we lose", losses(rows)]
    parts += ["### Verdicts against what is true", _VERDICTS, verdicts(rows)]
    if false := false_verdicts(rows):
        parts += ["Said, but not so:", false]
    for cell, here in group_by_cell(rows).items():
        parts += [f"### {cell}", cell_table(here)]
    parts += ["### Who takes part in the cells", participants(rows)]
    return parts


_STRICT = """The same at violations of at most 1e-4. A miss of 1e-3 is worth a thousandth of the multiplier in loss: one
or two hundredths of it in some cells, which those get who stop short of the boundary, and those who end on it do not.
Others' settings are chosen anew, on this figure."""


def goals(rows: Sequence[Row], figure: str = FEASIBLE) -> str:
    """Return how ours compare with each kind of opponent over all cells.

    Args:
        rows: Of all runs.
        figure: The column of ``Row`` that is compared.

    Returns:
        A table.
    """
    lines = []
    for ours in OURS:
        for against, (names, documented) in OPPONENTS.items():
            ratios = tally(compare(rows, ours, names, documented, figure))
            if ratios.cells:
                share = f"{ratios.close} of {ratios.cells} ({ratios.close / ratios.cells:.0%})"
                lines.append([ours, against, share, _ratio(ratios.median), f"{_ratio(ratios.worst)}: {ratios.where}"])
    return table(["", "against", f"at most {CLOSE:g}", "median", "worst"], lines)


_SWING = """Standard deviation of the worst constraint's safety, and of the loss, over the looks of the last quarter,
mean over seeds; the best peer is the one of least feasible loss in the cell. Medians over cells, and in how many cells
the trainer swings no more."""


def swing(rows: Sequence[Row]) -> str:
    """Return how much runs move at their end.

    Args:
        rows: Of all runs.

    Returns:
        A table.
    """
    kinds = {name: ((name,), False) for name in OURS}
    kinds |= {name: OPPONENTS[name] for name in ("best peer, best setting", "by hand, best setting")}
    picked: dict[str, dict[str, Result]] = {}
    for kind, (names, documented) in kinds.items():
        for cell, here in group_by_cell(rows).items():
            result = choose_best(here, names, documented)
            if result is not None and math.isfinite(result.mean("margin_sd")):
                picked.setdefault(kind, {})[cell] = result
    lines = []
    for kind, cells in picked.items():
        medians = [
            statistics.median(result.mean(name) for result in cells.values()) for name in ("margin_sd", "loss_sd")
        ]
        both = [cell for cell in cells if cell in picked.get(TRAINER, {})]
        calm = sum(picked[TRAINER][cell].mean("margin_sd") <= cells[cell].mean("margin_sd") for cell in both)
        beside = "" if kind == TRAINER else f"{calm} of {len(both)}"
        lines.append([kind, *(f"{value:.1e}" for value in medians), beside])
    return table(["", "safety", "loss", "trainer no more"], lines)


_ENDS = """Over all cells and seeds, at the documented setting and at each cell's best: runs whose very last student
misses no constraint by more than 1e-3, runs in which all four residuals passed at a look, and the median of the steps
to there, as a share of the run."""


def ends(rows: Sequence[Row]) -> str:
    """Return what is true of the last students of each contender.

    Args:
        rows: Of all runs.

    Returns:
        A table.
    """
    lines = []
    for name in _present(rows):
        for kind, documented in (("documented", True), ("best", False)):
            results = [choose_best(here, [name], documented) for here in group_by_cell(rows).values()]
            runs = [row for result in results if result is not None for row in result.rows]
            if runs and (documented or any(not row.documented for row in rows if row.contender == name)):
                met = sum(row.last_violation <= 1e-3 for row in runs)
                shares = [row.steps_to_kkt / row.steps for row in runs]
                solved = sum(map(math.isfinite, shares))
                median = statistics.median(shares)
                to = f"{median:.0%}" if math.isfinite(median) else "-"
                lines.append([name, kind, f"{met} of {len(runs)}", f"{solved} of {len(runs)}", to])
    return table(["", "setting", "last student feasible", "residuals passed", "median steps"], lines)


def losses(rows: Sequence[Row]) -> str:
    """Return the cells in which the trainer is worse than the best peer at its best setting.

    Args:
        rows: Of all runs.

    Returns:
        A table, worst first, or a sentence where there are none.
    """
    names, documented = OPPONENTS["best of all these"]
    worse = [ratio for ratio in compare(rows, TRAINER, names, documented) if ratio.value > CLOSE]
    if not worse:
        return "Nowhere."
    lines = [_loss_line(ratio) for ratio in sorted(worse, key=lambda ratio: -ratio.value)]
    return table(["cell", "ratio", "ours", "theirs", "who", "setting"], lines)


def _loss_line(ratio: Ratio) -> list[str]:
    other = ratio.other
    assert other is not None  # a ratio that is a number has one
    numbers = _ratio(ratio.value), *map(_number, ratio.losses)
    return [ratio.cell, *numbers, other.contender, other.setting]


def verdicts(rows: Sequence[Row]) -> str:
    """Return how often each verdict was given, and how often it was true.

    Args:
        rows: Of all runs.

    Returns:
        A table.
    """
    said = [row for row in rows if row.says]
    lines = []
    for word in dict.fromkeys(row.says for row in said):
        truths = [row.said_truly for row in said if row.says == word]
        lines.append([word, str(len(truths)), str(truths.count(True)), str(truths.count(False))])
    return table(["verdict", "runs", "true", "false"], lines)


def false_verdicts(rows: Sequence[Row]) -> str:
    """Return the runs whose verdict is false, with the judge's residuals.

    Args:
        rows: Of all runs.

    Returns:
        A table, empty if all are true.
    """
    names = ("stationarity", "primal", "dual", "complementarity")
    lines = [
        [row.cell, str(row.seed), row.says, *(f"{getattr(row, name):.0e}" for name in names)]
        for row in rows
        if row.said_truly is False
    ]
    return table(["cell", "seed", "says", *names], lines) if lines else ""


def cell_table(here: Sequence[Row]) -> str:
    """Return a cell's contenders at their documented and best settings.

    Args:
        here: Rows of one cell.

    Returns:
        A table.
    """
    lines = []
    for name in _present(here):
        documented, best = choose_best(here, [name], True), choose_best(here, [name])
        if documented is None or best is None:
            notes = [row.note for row in here if row.contender == name]
            lines.append([name, notes[0], *[""] * 7])
            continue
        lines.append(_result_line(name, documented))
        if best.setting != documented.setting:
            lines.append(_result_line("", best))
    head = [
        "",
        "setting",
        "feasible at 25 %",
        "50 %",
        "100 %",
        "last loss",
        "missed by",
        "to KKT",
        "safety over threshold",
    ]
    return table(head, lines)


def _result_line(name: str, result: Result) -> list[str]:
    feasible = [_number(result.mean(part)) for part in ("feasible_25", "feasible_50", "feasible")]
    last = [_number(result.mean("last_loss")), f"{result.mean('last_violation'):.1e}"]
    steps = result.mean("steps_to_kkt")
    margin = f"{result.mean('margin_mean'):+.4f} ± {result.mean('margin_sd'):.4f}"
    return [name, result.setting, *feasible, *last, f"{steps:.0f}" if math.isfinite(steps) else "-", margin]


def participants(rows: Sequence[Row]) -> str:
    """Return who takes part, with which settings.

    Args:
        rows: Of all runs.

    Returns:
        A table.
    """
    here = _present(rows)
    lines = [[who.name, who.settings, who.source] for who in CONTENDERS if who.name in here]
    if TRAINER in here:
        lines.insert(0, [TRAINER, "data, constraints, optimizer, batch size, seed; all else at defaults", "default"])
    return table(["", "settings", "from"], lines)


def _present(rows: Sequence[Row]) -> list[str]:
    held = {row.contender for row in rows}
    return [name for name in NAMES if name in held]


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"


def _ratio(value: float) -> str:
    if math.isinf(value):
        return "others alone"
    return f"{value:.3f}" if value else "ours alone"
