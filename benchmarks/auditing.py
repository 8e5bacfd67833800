"""What does an audit cost?  Seconds of the processor, import and compilation of kernels apart.

    python -m benchmarks.auditing [--rows 10 1302] [--teachers 5] [--classes 10] [--out PATH]

A Unified of three scales, `EntropyDecay`, `InverseLoss` and `OrdinalSafety`, judged by all fifteen axioms on random
signals: nothing is violated, so that every line is searched to its end.  Once with the three signals that it reads, and
once with all that there are, critical classes and contexts among them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

import safekd as kd

from ._timing import processor, report_path, today, versions
from .projection._report import table

GOALS = {10: 1.0, 1302: 5.0}
_HEAD = ["rows", "teachers", "signals", "calls of the rule", "processor, s", "goal, s", "quick, s"]


@dataclass(frozen=True)
class AuditCost:
    """What one audit took: calls of the rule and seconds, whole and quick."""

    rows: int
    teachers: int
    signals: str
    calls: int
    seconds: float
    quick: float

    @property
    def goal(self) -> float | None:
        """Seconds allowed; None for a size without a goal."""
        return GOALS.get(self.rows) if self.teachers == 5 else None


class CountedRule:
    """The rule that is judged, with its calls counted."""

    def __init__(self, teachers: int) -> None:
        self.polytope = kd.WeightPolytope(teachers, lower=0.05, upper=0.6)
        self.unified = kd.weights.Unified(
            token=kd.weights.EntropyDecay(rate=1.0),
            task=kd.weights.InverseLoss(),
            context=kd.weights.OrdinalSafety(),
            polytope=self.polytope,
        )
        self.calls = 0

    def __call__(self, signals: kd.weights.Signals) -> torch.Tensor:
        """Return the weights."""
        self.calls += 1
        return self.unified(signals)


def draw_signals(rows: int, teachers: int, classes: int, seed: int = 0) -> kd.weights.Signals:
    """Return random signals of three scales."""
    draw = torch.Generator().manual_seed(seed)
    return kd.weights.Signals(
        log_p=torch.randn(rows, teachers, classes, generator=draw, dtype=torch.float64).log_softmax(-1),
        task_loss=torch.rand(rows, teachers, generator=draw, dtype=torch.float64),
        safety=torch.rand(rows, teachers, generator=draw, dtype=torch.float64),
    )


def draw_all_signals(rows: int, teachers: int, classes: int, seed: int = 0) -> kd.weights.Signals:
    """Return random signals of every kind."""
    draw = torch.Generator().manual_seed(seed)
    names = ("task_loss", "performance", "safety", "distance", "token_safety")
    unit = {name: torch.rand(rows, teachers, generator=draw, dtype=torch.float64) for name in names}

    def log_p(*lead: int) -> torch.Tensor:
        return torch.randn(*lead, classes, generator=draw, dtype=torch.float64).log_softmax(-1)

    return kd.weights.Signals(
        log_p=log_p(rows, teachers),
        log_p_passes=log_p(rows, 4, teachers),
        student_log_p=log_p(rows),
        features=torch.randn(rows, 8, generator=draw, dtype=torch.float64),
        labels=torch.randint(classes, (rows,), generator=draw),
        task=torch.randint(3, (rows,), generator=draw),
        context=torch.randint(4, (rows,), generator=draw),
        critical_classes=[0, 1],
        critical_contexts=[0, 1],
        **unit,
    )


SIGNALS = {"three": draw_signals, "all": draw_all_signals}


def measure_audit(rows: int, teachers: int, classes: int, which: str = "three") -> AuditCost:
    """Time one audit of the Unified, and one that is quick; count the calls of the same rule judged as a whole."""
    signals, counted = SIGNALS[which](rows, teachers, classes), CountedRule(teachers)
    seconds = []
    for quick in (False, True):
        began = time.process_time()
        if not kd.audit(counted.unified, signals, quick=quick).holds():
            raise RuntimeError("The rule of this benchmark keeps all axioms, and the audit says otherwise.")
        seconds.append(time.process_time() - began)
    kd.audit(counted, signals)
    return AuditCost(rows, teachers, which, counted.calls, *seconds)


def write_report(costs: Sequence[AuditCost], classes: int) -> str:
    """Return the report."""
    facts = [["date", today()], ["processor", processor()], ["versions", versions(["torch"])]]
    lines = [
        [
            str(cost.rows),
            str(cost.teachers),
            cost.signals,
            str(cost.calls),
            f"{cost.seconds:.2f}",
            "" if cost.goal is None else f"{cost.goal:g}: {'met' if cost.seconds <= cost.goal else 'missed'}",
            f"{cost.quick:.2f}",
        ]
        for cost in costs
    ]
    parts = [
        "# What does an audit cost?",
        "Written by `python -m benchmarks.auditing`: `kd.audit` of a Unified of three scales on random signals, "
        f"{classes} classes, in seconds of the processor, all threads together, import and compilation of kernels "
        "apart. Signals: the three that it reads, or all that there are. Calls of the rule: of the same weights judged "
        "once, as a whole. Before lines were searched side by "
        "side, it took on one thread some 1.5 seconds for 10 rows and 10 for 1,302, in 4,600 calls, and many times as "
        "much on more threads.",
        table(["", ""], facts),
        table(_HEAD, lines),
    ]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Time, print, write; return 0 where every goal is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.auditing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=list(GOALS), help="positions of the signals")
    parser.add_argument("--teachers", type=int, default=5)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--out", type=report_path, help="write the report here")
    options = parser.parse_args(arguments)
    for draw in SIGNALS.values():
        kd.audit(CountedRule(options.teachers).unified, draw(2, options.teachers, options.classes), tries=1)
    costs = [
        measure_audit(rows, options.teachers, options.classes, which) for which in SIGNALS for rows in options.rows
    ]
    report = write_report(costs, options.classes)
    print(report)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
    return 0 if all(cost.goal is None or cost.seconds <= cost.goal for cost in costs) else 1


if __name__ == "__main__":
    raise SystemExit(main())
