"""One size at a time, in a process of its own: what steps and evaluations of a student take.

Axes: n parameters, M constraints, N examples, B batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

import torch
from torch import Tensor, nn

from safekd import ConstrainedTrainer, SafetyConstraint
from safekd.data import StreamSource
from safekd.safety import TruthProbability
from safekd.teachers import CallableTeacher
from safekd.training import EvidenceBudget
from safekd.training.loop import FitData, FitLoop, FitOptions

from .._timing import PeakMemory, resident_peak

FEATURES, CLASSES, ASKED = 64, 100, 0.4
BUDGET = 2**30  # bytes that an evaluation may hold for its evidence: beyond it norms are read, and no Jacobian
WAYS = ("ours", "plain loop", "Cooper")


@dataclass(frozen=True)
class Size:
    """One cell.

    n: parameters, about.  M: constraints.  N: examples of the stream.  B: examples a step.
    """

    n: int
    M: int
    N: int
    B: int


@dataclass(frozen=True)
class Cost:
    """What one way takes at one size: seconds, and bytes beyond those of the student and its optimizer.

    beyond_step_bytes: by how much the resident peak of an evaluation is above that of a step, 0 where it is below.
    """

    size: Size
    way: str
    parameters: int
    step_s: float
    step_bytes: int | None
    evaluation_s: float = float("nan")
    evaluation_bytes: int | None = None
    beyond_step_bytes: int | None = None
    interval: int | None = None

    @property
    def share(self) -> float:
        """Share of the time that evaluations take at the default interval."""
        if self.interval is None:
            return float("nan")
        return self.evaluation_s / (self.evaluation_s + self.interval * self.step_s)


class SyntheticStream:
    """Examples that are drawn as they are read, each batch from a seed of its own: the same in every pass."""

    def __init__(self, examples: int, batch: int) -> None:
        self.examples, self.batch = examples, batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self.examples, self.batch):
            generator = torch.Generator().manual_seed(start)
            rows = min(self.batch, self.examples - start)
            yield (
                torch.randn(rows, FEATURES, generator=generator),
                torch.randint(CLASSES, (rows,), generator=generator),
            )


def make_student(n: int) -> nn.Sequential:
    """Return a student of about n parameters: two hidden layers of one width."""
    width = max(8, round(((FEATURES + CLASSES) ** 2 / 4 + n) ** 0.5 - (FEATURES + CLASSES) / 2))
    torch.manual_seed(0)
    sizes = [FEATURES, width, width, CLASSES]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def answer(inputs: Tensor) -> Tensor:
    """Return a teacher's logits: the first features, so many as there are classes."""
    return torch.cat([inputs, inputs[:, : CLASSES - FEATURES]], dim=-1)


def measure(size: Size, way: str, steps: int, budget: int = BUDGET) -> Iterator[Cost]:
    """Yield what a way takes; run in a process of its own."""
    torch.set_num_threads(1)
    student = make_student(size.n)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-4)
    parameters = sum(p.numel() for p in student.parameters())
    if way == "ours":
        yield _measure_ours(size, student, optimizer, parameters, steps, budget)
        return
    step = _make_plain(size, student, optimizer) if way == "plain loop" else _make_cooper(size, student, optimizer)
    batches = iter(SyntheticStream((steps + 2) * size.B, size.B))
    step(*next(batches))  # the optimizer's moments are there from here on
    memory = PeakMemory()
    seconds = [_time(lambda: step(*next(batches))) for _ in range(steps)]
    yield Cost(size, way, parameters, sorted(seconds)[len(seconds) // 2], memory.bytes())


def _measure_ours(
    size: Size, student: nn.Module, optimizer: torch.optim.Optimizer, parameters: int, steps: int, budget: int
) -> Cost:
    rules = [SafetyConstraint(f"class {c}", TruthProbability(critical=[c]), ASKED) for c in range(size.M)]
    trainer = ConstrainedTrainer(
        student,
        [CallableTeacher("fixed", answer, gives="logits")],
        constraints=rules,
        optimizer=optimizer,
        evidence_budget=EvidenceBudget(memory_bytes=budget),
    )
    train = StreamSource("train", SyntheticStream(size.N, size.B), fields=("inputs", "labels"))
    options = FitOptions(epochs=1_000_000)  # so many that the interval is that of a long run
    loop = FitLoop(trainer.problem, FitData.place(train, None, {}, torch.device("cpu")), options, None)
    batches = (batch for batch, _ in loop._batches(1, 0))
    first = [next(batches) for _ in range(3)]
    for batch in first[:2]:  # steps 1 and 2 read multiplier scales as well
        loop.stepper.step(batch)
    loop.stepper.step(first[2])
    memory = PeakMemory()
    seconds = [_time(lambda batch=batch: loop.stepper.step(batch)) for batch in islice(batches, steps)]
    step_bytes, step_peak = memory.bytes(), resident_peak()
    memory = PeakMemory()
    evaluation = _time(lambda: loop.reader.read(steps, 1))
    evaluation_bytes, evaluation_peak = memory.bytes(), resident_peak()
    told = evaluation_bytes is not None and step_peak is not None and evaluation_peak is not None
    return Cost(
        size,
        "ours",
        parameters,
        sorted(seconds)[len(seconds) // 2],
        step_bytes,
        evaluation,
        evaluation_bytes,
        max(0, (evaluation_peak or 0) - (step_peak or 0)) if told else None,
        loop.trace_every,
    )


def _make_plain(size: Size, student: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Tensor, Tensor], None]:
    """Return a step by hand: the loss, and multipliers that follow the violations."""
    multiplier_M = torch.zeros(size.M)

    def step(inputs: Tensor, labels: Tensor) -> None:
        loss, g_M = _read(size, student, inputs, labels)
        with torch.no_grad():
            multiplier_M.add_(0.01 * g_M).clamp_(min=0)
        optimizer.zero_grad()
        (loss + (multiplier_M * g_M).sum()).backward()
        optimizer.step()

    return step


def _make_cooper(size: Size, student: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Tensor, Tensor], None]:
    import cooper

    from ..primal_dual._peers import cooper_problem

    held: list[tuple[Tensor, Tensor]] = []
    problem = cooper_problem(lambda: (*_read(size, student, *held[-1]), None), size.M, 0, torch.float32, False)
    dual = torch.optim.SGD(problem.dual_parameters(), lr=1e-2, maximize=True)
    roller = cooper.optim.AlternatingDualPrimalOptimizer(problem, optimizer, dual)

    def step(inputs: Tensor, labels: Tensor) -> None:
        held[:] = [(inputs, labels)]
        roller.roll()

    return step


def _read(size: Size, student: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss and g of each constraint, (M,), on one batch."""
    log_p_V = torch.log_softmax(student(inputs), dim=-1)
    q_V = torch.softmax(answer(inputs), dim=-1)
    loss = (q_V * (q_V.log() - log_p_V)).sum(-1).mean()
    truth = log_p_V.gather(-1, labels[:, None])[:, 0].exp()
    inside_MB = labels[None] == torch.arange(size.M)[:, None]
    return loss, ASKED - torch.where(inside_MB, truth, 0.0).sum(-1) / inside_MB.sum(-1).clamp_min(1)


def _time(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
