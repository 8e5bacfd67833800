"""What does a constraint cost a step?  Ours, Cooper's and humancompatible-train's beside plain distillation.

One constraint, or three, each the truth of examples in one class; the same model, batch, targets and Adam for all;
the target is worked out beforehand.  Contenders take turns of a few steps each, in one thread, on the clock of the
processor: what else the machine does slows all of them, and counts little.

    plain loop          forward, divergence, backward, Adam: the unconstrained step that everything is compared to
    penalties by hand   the same with ``relu`` of each constraint added, at a weight of 1, as one writes it
    PrimalDual          the same loop with ``solvers.PrimalDual.step`` in it
    ConstrainedTrainer  a step of ours as ``fit`` takes it: readings, checks for values that are not finite, undo

Axes: N examples, T positions, V classes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from safekd import ConstrainedTrainer
from safekd.data import Split
from safekd.experiment import build_mlp
from safekd.safety import SafetyConstraint
from safekd.teachers import StoredTeacher
from safekd.training.loop import FitData
from safekd.training.loop._averaged_iterate import AveragedIterate
from safekd.training.loop.step import PrimalDualStep
from solvers.primal_dual import AugmentedLagrangian, PrimalDual

from ._cells import missing
from ._peers import cooper_problem
from ._penalties_by_hand import BY_NAME, TRUTH

PLAIN, BY_HAND, MLP = "plain loop, no constraint", "plain loop, penalties by hand", "MLP 64-48-10"
TRAINER = "ours, ConstrainedTrainer"
_TURN = 5  # calls: enough for the clock, few enough for the machine to be the same for all
_ASKED = 0.9


@dataclass(frozen=True)
class Course:
    """A student and its data.

    student: makes it.  train: the split.  batch: examples of a step, None for all.  constraints: one a class, from
    class 0 on.  measure: what each reads, a key of BY_NAME.
    """

    name: str
    student: Callable[[], nn.Module]
    train: Split
    batch: int | None = None
    constraints: int = 1
    measure: str = TRUTH

    def batches(self) -> Iterator[Tensor]:
        """Yield the places of the examples of one step after another."""
        N, generator = len(self.train), torch.Generator().manual_seed(2)
        while self.batch is None:
            yield torch.arange(N)
        while True:
            yield from torch.randperm(N, generator=generator)[: N // self.batch * self.batch].split(self.batch)


@dataclass(frozen=True)
class Step:
    """What a contender's step takes.  seconds: median.  ratio: to the plain loop's."""

    course: str
    contender: str
    seconds: float
    ratio: float
    note: str = ""


class Transformer(nn.Module):
    """A small causal transformer: tokens (B, T) to logits (B, T, V)."""

    def __init__(self, classes: int = 200, width: int = 64, positions: int = 32) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(classes, width), nn.Parameter(0.02 * torch.randn(positions, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.body, self.out = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(width, classes)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(positions), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.body(self.token(tokens) + self.place, mask=self.mask, is_causal=True))


def _make_mlp() -> nn.Module:
    return build_mlp(64, [48], 10, 0)


def courses() -> list[Course]:
    """Return the digits student on a whole split and on minibatches, and a transformer."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(200, (16, 32), generator=generator)
    return [
        Course(f"{MLP}, batch 808", _make_mlp, _draw_split(808)),
        *(Course(f"{MLP}, batch {size}", _make_mlp, _draw_split(2048), size) for size in (64,)),
        *(Course(f"{MLP}, batch {size}, 3 constraints", _make_mlp, _draw_split(2048), size, 3) for size in (64, 256)),
        Course("transformer, 2 layers of 64, 16 x 32 tokens", Transformer, Split("train", tokens, tokens.roll(-1, 1))),
    ]


def list_measure_courses() -> list[Course]:
    """Return three constraints on small batches of the digits student, once a measure."""
    train = _draw_split(2048)
    return [Course(f"{name}, batch {size}", _make_mlp, train, size, 3, name) for name in BY_NAME for size in (64, 256)]


def _draw_split(examples: int) -> Split:
    inputs_ND = torch.randn(examples, 64, generator=torch.Generator().manual_seed(examples))
    return Split("train", inputs_ND, torch.arange(examples) % 10)  # no class is without examples


class _Loop:
    """Plain distillation with room for a constraint: ``lagrangian(loss, g)`` is what is minimized."""

    def __init__(self, course: Course, lagrangian: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        torch.manual_seed(0)
        self.student, self.train, self.lagrangian = course.student(), course.train, lagrangian
        self.optimizer = torch.optim.Adam(self.student.parameters(), lr=1e-3)
        self.log_q_NV = _target(course)
        self.batches = course.batches()
        self.read = BY_NAME[course.measure][1]
        self.inside_MN = [(course.train.labels == k).float() for k in range(course.constraints)]

    def values(self, constrained: bool) -> tuple[Tensor, Tensor]:
        """Return the loss and g (M,); without constraints g is empty."""
        index = next(self.batches)
        log_p_V = torch.log_softmax(self.student(self.train.inputs[index]), dim=-1)
        log_q_V = self.log_q_NV[index]
        positions = log_q_V.numel() // log_q_V.shape[-1]
        loss = nn.functional.kl_div(log_p_V, log_q_V, log_target=True, reduction="sum") / positions
        if not constrained:
            return loss, log_p_V.new_zeros(0)
        safety = self.read(log_p_V, self.train.labels[index])
        inside_M = [inside_N[index] for inside_N in self.inside_MN]
        g_M = [_ASKED - (safety * inside).sum() / inside.sum().clamp_min(1) for inside in inside_M]
        return loss, g_M[0].reshape(1) if len(g_M) == 1 else torch.stack(g_M)

    def __call__(self) -> None:
        loss, g_M = self.values(self.lagrangian is not None)
        total = loss if self.lagrangian is None else self.lagrangian(loss, g_M)
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()


def _target(course: Course) -> Tensor:
    classes = int(course.train.labels.max()) + 1 if course.train.labels.ndim > 1 else 10
    shape = (*course.train.labels.shape, max(classes, 10) if course.train.labels.ndim == 1 else 200)
    return torch.log_softmax(torch.randn(shape, generator=torch.Generator().manual_seed(1)), dim=-1)


def _trainer(course: Course, constrained: bool) -> Callable[[], object]:
    torch.manual_seed(0)
    student, log_q_NV = course.student(), _target(course)
    names = range(course.constraints if constrained else 0)
    constraints = [SafetyConstraint(f"class {k}", BY_NAME[course.measure][0](k), _ASKED) for k in names]
    trainer = ConstrainedTrainer(
        student,
        [StoredTeacher("fixed", log_q_NV.exp())],
        constraints=constraints,
        optimizer=torch.optim.Adam(student.parameters(), lr=1e-3),
        batch_size=course.batch,
    )
    engine = PrimalDual(len(constraints), method=trainer.problem.choose_dual(course.train))
    stepper = PrimalDualStep(trainer.problem, engine, FitData(course.train, {}))
    if course.batch is None:
        batch = course.train.batch()
        return lambda: stepper.step(batch)
    average, batches = AveragedIterate(student, engine), course.batches()

    def step() -> None:
        stepper.step(course.train.batch(next(batches)))
        average.add()

    return step


def _bare(course: Course) -> Callable[[], object]:
    engine = PrimalDual(course.constraints, method=AugmentedLagrangian())
    return _Loop(course, lambda loss, g_M: engine.step(loss, inequality=g_M))


def _cooper(course: Course, augmented: bool) -> Callable[[], object]:
    import cooper

    loop = _Loop(course)
    cmp = cooper_problem(lambda: (*loop.values(True), None), course.constraints, 0, torch.float32, augmented)
    dual = torch.optim.SGD(cmp.dual_parameters(), lr=1e-2, maximize=True)
    roller = cooper.optim.AlternatingDualPrimalOptimizer(cmp, loop.optimizer, dual)
    if not augmented:
        return roller.roll
    updater = cooper.penalty_coefficients.MultiplicativePenaltyCoefficientUpdater(growth_factor=1.001)
    return lambda: updater.step(roller.roll().cmp_state.observed_constraints)


def _humancompatible(course: Course) -> Callable[[], object]:
    from humancompatible.train.dual_optim import ALM

    dual = ALM(m=course.constraints, lr=0.01, penalty=1.0, is_ineq=True)
    return _Loop(course, dual.forward_update)


CONTENDERS: dict[str, tuple[Callable[[Course], Callable[[], object]], str]] = {
    PLAIN: (_Loop, ""),
    BY_HAND: (lambda course: _Loop(course, lambda loss, g_M: loss + torch.relu(g_M).sum()), ""),
    "ours, PrimalDual in the plain loop": (_bare, ""),
    "ours, ConstrainedTrainer, no constraint": (lambda course: _trainer(course, False), ""),
    TRAINER: (lambda course: _trainer(course, True), ""),
    "Cooper, Lagrangian": (lambda course: _cooper(course, False), "cooper-optim"),
    "Cooper, augmented": (lambda course: _cooper(course, True), "cooper-optim"),
    "humancompatible, ALM": (_humancompatible, "humancompatible-train"),
}


def overhead(chosen: Sequence[Course], budget: float, contenders: Sequence[str] = tuple(CONTENDERS)) -> Iterator[Step]:
    """Yield what each contender's step takes on each course; ``budget``: seconds a course, two turns at least."""
    for course in chosen:
        calls, absent = {}, {}
        for name in contenders:
            build, package = CONTENDERS[name]
            try:
                calls[name] = build(course)
            except ImportError as cause:
                absent[name] = missing(package, cause)
        seconds_of = dict(zip(calls, _take_turns(list(calls.values()), budget), strict=True))
        for name in contenders:
            if name in absent:
                yield Step(course.name, name, float("nan"), float("nan"), absent[name])
            else:
                yield Step(course.name, name, seconds_of[name], seconds_of[name] / seconds_of[PLAIN])


def _take_turns(calls: Sequence[Callable[[], object]], budget: float) -> list[float]:
    """Return the median seconds of the processor that a call takes, in turns of ``_TURN`` calls."""
    for call in calls:
        call()
        call()
    turns: list[list[float]] = [[] for _ in calls]
    start = time.process_time()
    while time.process_time() - start < budget or len(turns[0]) < 2:
        for call, times in zip(calls, turns, strict=True):
            before = time.process_time()
            for _ in range(_TURN):
                call()
            times.append((time.process_time() - before) / _TURN)
    return [statistics.median(times) for times in turns]
