"""What does a trace cost?  The share of training time that full passes take at the default interval.

    python -m benchmarks.tracing [--examples 1024] [--passes 9] [--out PATH]

One run a case, with a full pass every so many steps: the processor's time inside passes, and outside of them.  The
share is that of one pass in one default interval; the first and the last point of a run come on top.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from safekd import ConstrainedTrainer, SafetyConstraint, Split
from safekd.safety import TruthProbability
from safekd.teachers import StoredTeacher
from safekd.training import FullPass, Sampled
from safekd.training.loop import FitLoop
from safekd.training.trace import Callback, RunInfo, StopTraining

from ._timing import processor, report_path, today, versions
from .projection._report import table

FEATURES, CLASSES, TOKENS, LENGTH = 64, 10, 50, 16
GOAL = 0.03
_BETWEEN = 16  # steps from one pass to the next
_HEAD = ["student", "batch", "constraints", "gradients", "step, ms", "evaluation, ms", "interval, steps", "share"]


class Transformer(nn.Module):
    """A small one: token numbers (B, T) to logits (B, T, V)."""

    def __init__(self, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, width)
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(self.blocks(self.embed(tokens)))
        return logits


@dataclass(frozen=True)
class Cost:
    """Seconds of a step and of an evaluation, and the default interval, for one student and batch size."""

    student: str
    batch: int | None
    constraints: int
    sampled: bool
    step: float
    evaluation: float
    interval: int

    @property
    def share(self) -> float:
        """Time in evaluations over time in all."""
        return self.evaluation / (self.evaluation + self.interval * self.step)


class _Interval(Callback):
    """Notes the interval that a run has chosen, and ends it there."""

    def __init__(self) -> None:
        self.steps = 0

    def on_start(self, run: RunInfo) -> None:
        """Note and stop."""
        self.steps = run.trace_every
        raise StopTraining("that was all")


def main(arguments: Sequence[str] | None = None) -> int:
    """Time, print, write; return 0 where every share is within the goal."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--examples", type=int, default=1024, help="of the training split; a quarter for sequences")
    parser.add_argument("--passes", type=int, default=9, help="how many are timed")
    parser.add_argument("--out", type=report_path, help="write the report here")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # students are small: threads would wait for each other
    costs = [
        measure(student, batch, constraints, options.examples, options.passes)
        for student in ("MLP", "transformer")
        for batch in (None, 64)
        for constraints in (1, 3)
    ]
    costs += [measure("MLP", 64, 1, options.examples, options.passes, Sampled(8, 32))]
    report = markdown(costs)
    print(report)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
    return 0 if all(cost.share <= GOAL for cost in costs) else 1


def measure(
    kind: str, batch: int | None, constraints: int, examples: int, count: int, sampled: Sampled | None = None
) -> Cost:
    """Time the full passes of a run, and what is left."""
    examples = examples if kind == "MLP" else examples // 4
    data, teacher, student = _task(kind, examples)
    trainer = ConstrainedTrainer(
        student,
        [teacher],
        constraints=[SafetyConstraint(f"class {c}", TruthProbability(critical=[c]), 0.5) for c in range(constraints)],
        optimizer=torch.optim.Adam(student.parameters(), lr=1e-4),
        batch_size=batch,
    )
    per_epoch = 1 if batch is None else -(-examples // batch)
    interval = _Interval()
    trainer.fit(data, epochs=1_000_000, stationarity=sampled, callbacks=[interval])
    passes: list[float] = []
    whole_pass = FitLoop.evaluate

    def timed(run: FitLoop, epoch: int) -> FullPass:
        began = time.process_time()
        full = whole_pass(run, epoch)
        passes.append(time.process_time() - began)
        return full

    epochs = -(-count * _BETWEEN // per_epoch)
    FitLoop.evaluate = timed
    try:
        began = time.process_time()
        trainer.fit(data, epochs=epochs, tolerance=1e-30, trace_every=_BETWEEN, stationarity=sampled)
        spent = time.process_time() - began
    finally:
        FitLoop.evaluate = whole_pass
    return Cost(
        kind,
        batch,
        constraints,
        sampled is not None,
        (spent - sum(passes)) / (epochs * per_epoch),
        statistics.median(passes[1:]),  # the first one works the targets out
        interval.steps,
    )


def _task(kind: str, examples: int) -> tuple[Split, StoredTeacher, nn.Module]:
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    if kind == "MLP":
        shape: tuple[int, ...] = (examples,)
        inputs = torch.randn(examples, FEATURES, generator=draw)
        layers = [nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, CLASSES)]
        student: nn.Module = nn.Sequential(*layers)
    else:
        shape = (examples, LENGTH)
        inputs = torch.randint(TOKENS, shape, generator=draw)
        student = Transformer()
    labels = torch.randint(CLASSES, shape, generator=draw)
    rows = torch.softmax(torch.randn(*shape, CLASSES, generator=draw), -1)
    return Split("train", inputs, labels), StoredTeacher("random", rows), student


def markdown(costs: Sequence[Cost]) -> str:
    """Return the report."""
    facts = [["date", today()], ["processor", f"{processor()}, one thread"], ["versions", versions(["torch"])]]
    lines = [
        [
            cost.student,
            "all" if cost.batch is None else str(cost.batch),
            str(cost.constraints),
            "sampled" if cost.sampled else "exact",
            f"{1e3 * cost.step:.2f}",
            f"{1e3 * cost.evaluation:.2f}",
            str(cost.interval),
            f"{cost.share:.2%}",
        ]
        for cost in costs
    ]
    worst = max(cost.share for cost in costs)
    parts = [
        "# What does a trace cost?",
        "Written by `python -m benchmarks.tracing`: Adam on synthetic data; the processor's time inside the full "
        "passes of a run, and outside. Share: that of one pass in one default interval.",
        table(["", ""], facts),
        table(_HEAD, lines),
        f"Goal: at most {GOAL:.0%}. Worst: {worst:.2%}, {'met' if worst <= GOAL else 'missed'}.",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
