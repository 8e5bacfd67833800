"""What an ensemble is worth: a record that prints in a screen, is written as JSON, and is drawn."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from solvers.short_repr import ShortRepr

from ..._operator_audit import render_plain
from ...errors import escape_controls
from ._ensemble_figures import PoolFigures, TeacherFigures, VarianceFigures
from ._paired_means import PairedMean
from ._safety_of_pools import SafetyOfPool

_MOST_COLUMNS = 7  # of the matrix of correlations, which would be wider than a screen
_CHANGES = ("loss\nwithout it", "safety\nwithout it")
_BESIDE = ("loss beside\narithmetic", "safety beside\narithmetic")


@dataclass(frozen=True, repr=False)
class EnsembleReport(ShortRepr):
    """What several teachers are worth together, on one split.

    Attributes:
        split: Name of the split.
        examples: How many it has.
        positions: How many labels count.
        cases: How many of them are independent: examples, or the split's clusters.
        pool: How the teachers are pooled.
        weights: How they are weighed, in words.
        level: The probability of a false drop, or a false choice of a pool, that was accepted.
        teachers: One record a teacher.
        pooled: The pool of all of them.
        pools: Several pools of those that are kept.
        correlations: Of the teachers' errors, K lists of K numbers.
        covariances: Likewise.
        variance: Of the pool's error, predicted and measured.
        jensen_gap: By how much the pool's log-loss is below the teachers' weighted mean.
        least_gap: The least of it at any position; at least 0 for arithmetic and geometric pools.
        loss_bound: What the pool's mean log-loss is at most, whatever the truth is; None where nothing is known.
        safety: Of the pool, and what Corollary VIII.7 promises a student; None without critical positions.
        drop: Names of the teachers to leave out, the greatest burden first.
        recommended_pool: Which pool to take of those that are kept.
        advice: Both in words, and what else the numbers say.
    """

    split: str
    examples: int
    positions: int
    cases: int
    pool: str
    weights: str
    level: float
    teachers: tuple[TeacherFigures, ...]
    pooled: PoolFigures
    pools: tuple[PoolFigures, ...]
    correlations: tuple[tuple[float, ...], ...]
    covariances: tuple[tuple[float, ...], ...]
    variance: VarianceFigures
    jensen_gap: PairedMean
    least_gap: float
    loss_bound: float | None
    safety: SafetyOfPool | None
    drop: tuple[str, ...]
    recommended_pool: str
    advice: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON has it; numbers that it has not are None."""
        record: dict[str, Any] = _to_json(self)
        return record

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw teachers, pools and correlations of errors.

        Args:
            path: File to write, whole or not at all; .png, .svg or .pdf by its ending.

        Raises:
            InvalidInput: The ending is none of these, or the file cannot be written.
        """
        from ._draw_ensemble import draw_ensemble  # matplotlib, which a run that draws nothing need not wait for

        named = f"{self.split} split, {self.positions} labels"
        draw_ensemble(path, self.teachers, self.pools, self.correlations, self.variance, named)

    def __rich__(self) -> Group:
        """Return the tables that ``rich.print`` shows, with the verdict beneath."""
        lines = "\n".join([*self._list_facts(), "", *(f"* {line}" for line in self.advice)])
        return Group(self._tabulate_teachers(), self._tabulate_errors(), self._tabulate_pools(), _show_data(lines))

    def __str__(self) -> str:
        """Return the same as plain text."""
        return render_plain(self)

    def _tabulate_teachers(self) -> Table:
        what = "label" if self.positions != self.examples else "example"
        counted = f"{self.positions} {what}{'s' * (self.positions != 1)}"
        several = f"{len(self.teachers)} teachers" if len(self.teachers) > 1 else "One teacher"
        title = f"{several} on the {self.split} split ({counted}, {self.cases} case{'s' * (self.cases != 1)})"
        table = _start_table(title, ("teacher", "loss", "right", "safety", *_CHANGES, ""))
        for number, one in enumerate(self.teachers, 1):
            numbers = map(_format_figure, (one.loss, one.accuracy, one.safety))
            changes = (_format_change(one.loss_without), _format_change(one.safety_without))
            verdict = Text("drop", style="bold red") if one.dropped else Text("keep")
            table.add_row(_show_data(f"{number} {one.name}"), *numbers, *changes, verdict)
        return table

    def _tabulate_errors(self) -> Table:
        numbers = range(1, len(self.teachers) + 1) if len(self.teachers) <= _MOST_COLUMNS else ()
        title = "Their errors" + (", and how these are correlated" if len(numbers) > 1 else "")
        table = _start_table(title, ("teacher", "weight", "variance", "bias", *map(str, numbers)), widest=26)
        for number, (one, row) in enumerate(zip(self.teachers, self.correlations, strict=True), 1):
            found = map(_format_figure, (one.weight, one.variance, one.bias))
            correlations = (f"{value:.2f}" for value in row[: len(numbers)])
            table.add_row(_show_data(f"{number} {one.name}"), *found, *correlations)
        return table

    def _tabulate_pools(self) -> Table:
        kept = "all teachers" if not self.drop else "the teachers to keep"
        table = _start_table(f"Pools of {kept}", ("pool", "loss", "right", "safety", *_BESIDE, ""))
        for one in self.pools:
            numbers = map(_format_figure, (one.loss, one.accuracy, one.safety))
            changes = (_format_change(one.loss_beside), _format_change(one.safety_beside))
            table.add_row(_show_data(one.name), *numbers, *changes, "take" if one.name == self.recommended_pool else "")
        return table

    def _list_facts(self) -> Iterator[str]:
        variance, gap, pooled = self.variance, self.jensen_gap, self.pooled
        yield (
            f"Pool in use: {self.pool}, {self.weights}: loss {pooled.loss:.4g} nats, right {pooled.accuracy:.3f}, "
            f"safety {_format_figure(pooled.safety)}."
        )
        yield (
            f"Variance of its error: {variance.measured:.4g} measured, {variance.correlated:.4g} predicted with "
            f"correlations, {variance.independent:.4g} if errors were independent; bias {variance.bias:.3g}, "
            f"{variance.bias_attenuation:.0%} of its teachers'."
        )
        bound = "no bound is known" if self.loss_bound is None else f"at most {self.loss_bound:.4g} whatever the truth"
        yield (
            f"Brier score: {variance.brier_of_teachers:.4g} of its teachers in the mean, less {variance.ambiguity:.4g} "
            "by which they disagree, of the linear pool."
        )
        yield (
            f"Jensen gap: {_format_change(gap)} nats below its teachers' mean loss (least {self.least_gap:.2g}); "
            f"log-loss guarantee: {bound}."
        )
        if self.safety is None:
            yield "No position is critical, so nothing is known of safety."
            return
        safety = self.safety
        promise = f"a student that reaches the pool is promised {_format_figure(safety.student_bound)} (VIII.7)"
        if safety.student_bound is None:
            promise = "VIII.7 promises a student nothing: the measure is not concave, or the pool not arithmetic"
        yield (
            f"Safety, {safety.measure} on {safety.critical} labels: {safety.pool:.4f} of the pool, "
            f"{safety.weighted:.4f} of its weighted teachers; {promise}. Unsafety is "
            f"{_format_figure(safety.attenuation)} of the least safe teacher's, above it at {safety.exceeding:.1%} of "
            "labels."
        )


def _start_table(title: str, columns: Sequence[str], widest: int = 16) -> Table:
    """Return a table of names and numbers that fits 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, title=_show_data(title), title_justify="left", collapse_padding=True)
    table.add_column(columns[0], no_wrap=True, max_width=widest)
    for name in columns[1:]:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    return table


def _show_data(text: str) -> Text:
    """Return text in which names are data: no markup, no control characters."""
    return Text(escape_controls(text, keep="\n"))


def _format_figure(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3f}" if abs(value) < 100 else f"{value:.3g}"


def _format_change(change: PairedMean | None) -> str:
    if change is None or math.isnan(change.mean):
        return ""
    error = f" ±{change.error:.3f}" if math.isfinite(change.error) else ""
    return f"{change.mean:+.3f}{error}"


def _to_json(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _to_json(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: _to_json(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [_to_json(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
