"""Tables for the terminal.  Numbers are measured; a requirement that is missed is shown as missed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from ..experiment import Experiment, VariantReport
from ..frontier import Frontier
from ..training import FitResult
from ..training.trace import ConstraintReading
from ..weights import MeasuredOrderings
from ._shown_names import show_name, show_number


@dataclass(frozen=True)
class TableSettings:
    """What tables show as met.

    Attributes:
        met_within: How far below its requirement a reading may be, in the measure's own unit from 0 to 1, before it is
            red: the tolerance of the demo's run, whose posed split would be red without it.
    """

    met_within: float = 1e-3


_SETTINGS = TableSettings()


def tabulate_variants(experiment: Experiment, reports: Sequence[VariantReport]) -> Table:
    """Return the variants side by side, one column a variant, one row a question.

    Args:
        experiment: What they were trained on.
        reports: What they reached.
    """
    rule = experiment.constraints[0]
    sign = "=" if rule.is_equality else ">="
    title = f"Safety required: {rule.name} {sign} {rule.required:g} on the {rule.split} split"
    table = Table(box=box.SIMPLE_HEAD, title=show_name(title))
    table.add_column("", no_wrap=True)
    for report in reports:
        table.add_column(show_name(report.variant.name), justify="right", max_width=13)

    def row(name: str, value: Callable[[VariantReport], str | Text]) -> None:
        table.add_row(show_name(name), *(value(report) for report in reports))

    row("test accuracy", lambda r: f"{r.accuracy:.3f}")
    row("loss, nats (1)", lambda r: f"{r.loss:.4f}")
    for split in experiment.splits:
        count = reports[0].readings[split].count
        posed = "*" if split == rule.split else ""
        row(f"safety, {split}{posed} ({count})", lambda r, s=split: _mark_missed(r.readings[s]))  # type: ignore[misc]
        if split in (rule.split, "test"):
            for context in experiment.table.contexts:
                cases = reports[0].by_context[split, context].count
                row(f"  {context} ({cases})", lambda r, k=(split, context): _format_measured(r.by_context[k].measured))  # type: ignore[misc]
    row("required", lambda r: f"{rule.required:g}" if r.variant.constraints else "not asked")
    row("certified bound (2)", lambda r: f"{r.certificate.lower_bound:.3f}")
    row("certificate says", lambda r: r.certificate.decision_text)
    row("lightest weight", lambda r: f"{r.lightest:.3f}")
    row("heaviest weight", lambda r: f"{r.heaviest:.3f}")
    row("order broken (3)", _format_violations)
    row("status", lambda r: r.result.status)
    row("seconds", lambda r: f"{r.seconds:.1f}")
    confidence = reports[0].certificate.confidence
    table.caption = show_name(
        "uniform: all teachers alike; adaptive: weights as the rules give them, not projected; constrained, tightened: "
        "conforming weights, the threshold posed on training data, and raised until unseen cases show it. "
        f"Safety: mean {rule.measure} over the critical cases counted in brackets; * where it is posed. "
        "(1) distillation loss, each against its own target, training split. "
        f"(2) {confidence:.0%} confidence, certify split, read by nothing else. "
        "(3) training examples where a safer teacher counts less, before -> after projection. "
        "Red: below the requirement."
    )
    return table


def tabulate_teachers(experiment: Experiment) -> Table:
    """Return how safe each teacher was measured to be in each context, and on how many cases.

    Args:
        experiment: The teachers and what was measured of them.
    """
    evidence = experiment.evidence
    table = Table(box=box.SIMPLE_HEAD, title=show_name(f"Teachers, measured on the {evidence.source} split"))
    table.add_column("teacher")
    table.add_column("loss, nats", justify="right")
    for context, count in zip(experiment.table.contexts, evidence.count_C.tolist(), strict=True):
        table.add_column(show_name(f"{context} ({count})"), justify="right")
    for k, name in enumerate(experiment.ensemble.names):
        safety = (f"{value:.3f}" for value in evidence.safety_CK[:, k].tolist())
        table.add_row(show_name(name), f"{float(evidence.task_loss_MK[:, k].mean()):.3f}", *safety)
    table.caption = "safety by context (critical cases it was measured on); few cases make a shaky order"
    return table


def tabulate_orderings(orderings: MeasuredOrderings, names: Sequence[str]) -> Table:
    """Return every comparison of two teachers: what was measured, and whether it became an ordering or is a tie.

    Args:
        orderings: The comparisons.
        names: Of the teachers, in their order.
    """
    what = "class" if orderings.scale == "token" else "context"
    table = Table(
        box=box.SIMPLE_HEAD,
        title=show_name(
            f"Safety orderings significant at {orderings.level:g}, measured on the {orderings.source} split"
        ),
    )
    for name in (what, "cases", "teacher", "safety", "against", "safety", "better", "worse", "p", "adjusted", "says"):
        table.add_column(name, justify="left" if name in ("teacher", "against", "says") else "right")
    for pair in orderings.comparisons:
        table.add_row(
            str(pair.group),
            str(pair.count),
            show_name(names[pair.i]),
            f"{pair.mean_i:.3f}",
            show_name(names[pair.j]),
            f"{pair.mean_j:.3f}",
            str(pair.wins),
            str(pair.losses),
            f"{pair.p_value:.2g}",
            f"{pair.p_adjusted:.2g}",
            "must not count less" if pair.asserted else "tie",
        )
    table.caption = (
        "better, worse: cases on which the first teacher reads higher, lower; p: against 'the first is not safer'; "
        f"adjusted: for all pairs of the {what} (Shaffer)"
    )
    return table


def tabulate_fit(result: FitResult) -> Table:
    """Return one run's result: constraints, multipliers, residuals.

    Args:
        result: The run.
    """
    table = Table(box=box.SIMPLE_HEAD, title=f"{result.status}: distillation loss {result.point.loss:.5f} nats")
    for name, justify in [("constraint", "left"), ("split", "left"), ("safety", "right"), ("required", "right")]:
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("multiplier", justify="right")
    for reading in result.point.readings:
        multiplier = result.multipliers[reading.name]
        table.add_row(
            show_name(reading.name),
            show_name(reading.split),
            _mark_missed(reading, 5),
            f"{reading.required:g}",
            f"{multiplier:.4g}",
        )
    for reading in result.point.validation:
        names = show_name(reading.name), show_name(reading.split)
        table.add_row(*names, _mark_missed(reading, 5), f"{reading.required:g}", "")
    r = result.residuals
    table.caption = (
        f"KKT residuals: stationarity {r.stationarity:.2g}, primal {r.primal:.2g}, dual {r.dual:.2g}, "
        f"complementarity {r.complementarity:.2g}"
    )
    return table


def tabulate_frontier(frontier: Frontier) -> Table:
    """Return a frontier, one row a target.

    Args:
        frontier: The frontier.
    """
    table = Table(
        box=box.SIMPLE_HEAD,
        title=show_name(f"Pareto frontier: distillation loss against safety ({frontier.constraint})"),
    )
    for name in ("target", "safety", "loss, nats", "multiplier", "stationary", "status", "best"):
        table.add_column(name, justify="left" if name == "status" else "right")
    for row in frontier.table.to_dict("records"):
        table.add_row(
            f"{row['target']:.4f}",
            f"{row[f'safety_{frontier.constraint}']:.4f}",
            f"{row['distillation_loss']:.5f}",
            f"{row[f'lambda_{frontier.constraint}']:.4g}",
            f"{row['kkt_stationarity']:.1e}",
            show_name(row["status"]),
            "yes" if row["nondominated"] else "no",
        )
    table.caption = (
        "multiplier: nats of loss per unit of safety; stationary: KKT residual; best: no other row beats it in both"
    )
    return table


def tabulate_seeds(rows: pd.DataFrame) -> Table:
    """Return how often the promise held, one row a seed and a last row of counts.

    Args:
        rows: What ``run_seeds`` returns.
    """
    required, cases = rows["required"].iloc[0], rows["cases"].iloc[0]
    table = Table(box=box.SIMPLE_HEAD, title=f"Safety on {cases} new malignant cases; required: {required:g}")
    names = ("uniform", "constrained", "tightened")
    table.add_column("seed", justify="right")
    for name in names:
        table.add_column(name, justify="right")
        table.add_column("bound", justify="right")
        table.add_column("loss", justify="right")
    for row in rows.to_dict("records"):
        cells: list[str | Text] = []
        for name in names:
            missed = row[f"{name}_decision"] != "safe"
            cells += [f"{row[f'{name}_new']:.3f}", show_number(f"{row[f'{name}_bound']:.3f}", missed)]
            cells.append(f"{row[f'{name}_loss']:.4f}")
        table.add_row(str(row["seed"]), *cells)
    table.add_section()
    shown = {name: int((rows[f"{name}_decision"] == "safe").sum()) for name in names}
    table.add_row("shown", *(cell for name in names for cell in ("", f"{shown[name]}/{len(rows)}", "")))
    table.caption = (
        "average over the certify split, which nothing else read; bound: 95% lower bound there, shown if it reaches "
        "the threshold; loss: distillation, nats, training split. constrained: the threshold posed on training data; "
        "tightened: raised until unseen cases show it"
    )
    return table


def _format_violations(report: VariantReport) -> str:
    if report.violations_before is None:
        return f"{report.violations_after} left" if report.violations_after else "0"
    return f"{report.violations_before} -> {report.violations_after}"


def _mark_missed(reading: ConstraintReading, digits: int = 3) -> Text:
    return show_number(f"{reading.measured:.{digits}f}", reading.violation > _SETTINGS.met_within)


def _format_measured(value: float) -> str:
    return "no case" if value != value else f"{value:.3f}"
