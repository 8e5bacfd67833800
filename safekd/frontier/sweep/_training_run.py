"""One trained point: a trainer is made, begun where a neighbor ended, trained, and its student evaluated.

A pure function of what it is given, so that it may run in any process: random numbers follow from the seed, and the
number of torch's threads is pinned where asked.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from solvers.kkt import KKTResiduals, kkt_residuals
from solvers.pareto import measure_extrapolation
from solvers.primal_dual import FixedPenalty
from solvers.short_repr import ShortRepr

from ..._torch_state import limit_threads
from ...data import Split, move_split
from ...errors import InvalidInput
from ...training import ConstrainedTrainer, FitResult, WarmStart, pose_all_on_train, read_full_pass
from ...training.trace import Callback, ConstraintReading, StopTraining, TracePoint
from ..store import Parameters, PlaceOfPoints, RunSpec, TrainedPoint, write_point
from ._sweep_plan import MakeTrainer, accepts_seed

LOOSEST = 1e-9  # the loosest threshold that is one: met by every student


@dataclass(frozen=True)
class SweepJob:
    """What all runs of a sweep share.

    Attributes:
        token: Tells one sweep from another in a worker's memory.
        make_trainer: Threshold to a fresh trainer.
        train: Training split.
        validation: Validation split, as ``fit`` takes it, or None.
        epochs: Of each run.
        fit: Further arguments of ``fit``.
        threads: Of torch, None for as they are.
        place: Where points are kept, None for nowhere.
        constraints: Names and splits of the first trainer's constraints, which those of every other must have too;
            None before there was a first.
    """

    token: str
    make_trainer: MakeTrainer
    train: Split
    validation: Any
    epochs: int
    fit: Mapping[str, Any]
    threads: int | None
    place: PlaceOfPoints | None
    constraints: tuple[str, ...] | None = None

    def make(self, spec: RunSpec) -> ConstrainedTrainer:
        """Return the trainer that ``spec`` asks for.  Raises InvalidInput where make_trainer gives another."""
        threshold = max(spec.target, LOOSEST)
        if spec.seed is not None and accepts_seed(self.make_trainer):
            trainer = self.make_trainer(threshold, seed=spec.seed)
        else:
            trainer = self.make_trainer(threshold)
        if not isinstance(trainer, ConstrainedTrainer):
            raise InvalidInput(f"make_trainer gave a {type(trainer).__name__}; wanted a fresh kd.ConstrainedTrainer.")
        self._check_constraints(trainer, threshold)
        trainer = _hold_thresholds(trainer, spec.held).with_names({**self.place_splits(trainer), "train": self.train})
        return trainer if spec.weight is None else trainer.with_dual(FixedPenalty(spec.weight))

    def _check_constraints(self, trainer: ConstrainedTrainer, threshold: float) -> None:
        if not trainer.constraints:
            raise InvalidInput(
                "make_trainer(threshold) gave a trainer without constraints; its first one is what is swept."
            )
        first = trainer.constraints[0]
        if first.is_equality:
            raise InvalidInput(
                f"Constraint '{first.name}' is to be met exactly, so no student is unconstrained; "
                "sweep one with at_least."
            )
        if abs(first.required - threshold) > 1e-12:
            raise InvalidInput(
                f"make_trainer({threshold:g}) gave a trainer whose first constraint, '{first.name}', asks for "
                f"{first.required:g}; wanted the threshold that it is called with: use "
                "constraint.with_threshold(threshold)."
            )
        names = describe_constraints(trainer)
        if self.constraints is not None and names != self.constraints:
            raise InvalidInput(
                f"make_trainer({threshold:g}) gave the constraints {', '.join(names)}, and before that "
                f"{', '.join(self.constraints)}; wanted the same ones for every threshold, in the same order."
            )

    def place_splits(self, trainer: ConstrainedTrainer) -> dict[str, Split]:
        """Return the splits besides the training data, on the trainer's device."""
        given = {
            **({} if self.validation is None else {"validation": self.validation}),
            **(self.fit.get("splits") or {}),
        }
        return {name: move_split(data, name, trainer.problem.device) for name, data in given.items()}


def _hold_thresholds(trainer: ConstrainedTrainer, held: Mapping[str, float]) -> ConstrainedTrainer:
    """Return the trainer with the constraints after the first at the thresholds held."""
    first, *others = trainer.constraints
    names = [constraint.name for constraint in others]
    for name in held:
        if name not in names:
            raise InvalidInput(
                f"`held` names '{name}', which is no further constraint of the trainer; there are {names}, "
                f"besides '{first.name}', which is swept."
            )
    if not others:
        return trainer
    posed = [other.with_threshold(held.get(other.name, other.required)) for other in others]
    return trainer.with_constraints([first, *posed])


def describe_constraints(trainer: ConstrainedTrainer) -> tuple[str, ...]:
    """Return each constraint's name and the split on which it is posed."""
    return tuple(f"'{constraint.name}' ({constraint.split} split)" for constraint in trainer.constraints)


@dataclass(frozen=True)
class PreparedTrainer:
    """A trainer that was made ahead of its run, to be looked at, and torch's random numbers as they were then."""

    trainer: ConstrainedTrainer
    random: Tensor


def prepare_trainer(job: SweepJob, spec: RunSpec) -> PreparedTrainer:
    """Make the trainer of ``spec`` as its run would."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed or 0)
        return PreparedTrainer(job.make(spec), torch.get_rng_state())


def train_point(
    job: SweepJob,
    spec: RunSpec,
    start: TrainedPoint | None,
    before: TrainedPoint | None,
    prepared: PreparedTrainer | None = None,
) -> TrainedPoint:
    """Train one student and return its point, kept on disk where the job has a folder.

    A run that raises is handed back as ``failed``, unless it is one that no other comes before: what is wrong there
    is wrong with the sweep.
    """
    began = time.perf_counter()
    try:
        with limit_threads(job.threads), torch.random.fork_rng(devices=[]):
            prepared = prepare_trainer(job, spec) if prepared is None else prepared
            trainer = prepared.trainer
            torch.set_rng_state(prepared.random)
            result = _fit(job, spec, trainer, start, before)
            point = replace(_read_result(job, spec, trainer, result), wall_s=time.perf_counter() - began)
    except Exception as error:
        if start is None and spec.name.endswith("anchor"):
            raise
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return TrainedPoint(spec, "failed", text, wall_s=time.perf_counter() - began)
    if job.place is not None:
        write_point(job.place, point, result)
    return point


def _fit(
    job: SweepJob, spec: RunSpec, trainer: ConstrainedTrainer, start: TrainedPoint | None, before: TrainedPoint | None
) -> FitResult:
    fit = dict(job.fit)
    if spec.trace_every is not None and fit.get("trace_every") is None:
        fit["trace_every"] = spec.trace_every
    if spec.weight is not None:
        fit["callbacks"] = [*fit.get("callbacks", ()), _StopWhenStationary(spec.tolerance)]
    if start is not None:
        _load_optimizer_state(trainer, start)
        fit["warm_start"] = _find_start(job, spec, trainer, start, before)
    return trainer.fit(job.train, job.validation, epochs=job.epochs, tolerance=spec.tolerance, **fit)


class _StopWhenStationary(Callback):
    """Stops a run under a fixed weight once it is stationary in two full passes in a row."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance, self.passes = tolerance, 0

    def on_trace(self, point: TracePoint) -> None:
        self.passes = self.passes + 1 if point.stationarity_bound <= self.tolerance else 0
        if self.passes == 2:
            raise StopTraining("stationary under its weight")


def _find_start(
    job: SweepJob, spec: RunSpec, trainer: ConstrainedTrainer, start: TrainedPoint, before: TrainedPoint | None
) -> WarmStart:
    """Return where a warm run begins: where ``start`` ended, or as much further along the line from ``before`` as the
    target is.  Students of neighboring targets lie on a smooth path, whose tangent this follows.
    """
    if spec.weight is not None:
        return WarmStart(start.student, [spec.weight], start.rule_state)
    full_batch = trainer.problem.batch_size is None or trainer.problem.batch_size >= len(job.train)
    if before is None or not full_batch:  # the noise of minibatches would be prolonged too
        return start.warm_start
    ahead = start.spec.target > before.spec.target
    share = min(measure_extrapolation(before.spec.target, start.spec.target, spec.target), 1.0) if ahead else 0.0
    trained = {name for name, p in trainer.student.named_parameters() if p.requires_grad}
    parameters = {
        name: value + share * (value - before.student[name]) if name in trained else value
        for name, value in start.student.items()
    }
    multipliers = [
        new if constraint.is_equality else max(new + share * (new - old), 0.0)
        for new, old, constraint in zip(start.multipliers, before.multipliers, trainer.constraints, strict=True)
    ]
    return WarmStart(parameters, multipliers, start.rule_state)


def _load_optimizer_state(trainer: ConstrainedTrainer, start: TrainedPoint) -> None:
    """Go on with the optimizer's moments: begun afresh, Adam's first steps have full length even next to the answer."""
    optimizer = trainer.problem.optimizer
    if not start.optimizer or start.optimizer_kind != type(optimizer).__name__:
        return
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in start.optimizer.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _read_optimizer_state(trainer: ConstrainedTrainer) -> Parameters:
    """Return the optimizer's state as named tensors; nothing where it holds something else, such as a list."""
    state = trainer.problem.optimizer.state_dict()["state"]
    flat = {f"{number}.{name}": value for number, own in state.items() for name, value in own.items()}
    if not all(isinstance(value, Tensor) for value in flat.values()):
        return {}
    return {name: value.detach().clone() for name, value in flat.items()}


def _read_result(job: SweepJob, spec: RunSpec, trainer: ConstrainedTrainer, result: FitResult) -> TrainedPoint:
    """Return the point of a finished run, about its final student, or a better one where that misses a threshold."""
    traced = result.point
    steps = result.trace["step"].tolist()
    point = TrainedPoint(
        spec,
        result.status,
        "" if result.status in ("converged", "budget_spent") else result.message,
        seed=trainer.problem.seed,
        loss=traced.loss,
        loss_se=traced.loss_se,
        readings=list(traced.readings),
        validation=list(traced.validation),
        multipliers=[float(multiplier) for multiplier in traced.multipliers],
        rho=max(traced.rho),
        **vars(traced.residuals),
        steps=traced.step,
        interval=int(steps[1] - steps[0]) if len(steps) > 1 else None,
        impossible=result.verdict.evidence.get("proof") == "farkas",
        optimizer_kind=type(trainer.problem.optimizer).__name__,
        sampled=traced.sampled,
        data=[use.record() for use in result.uses],
        student=_copy_state(result.student),
        rule_state=dict(result.rule_state),
        optimizer=_read_optimizer_state(trainer),
    )
    if spec.weight is not None:
        return _read_under_weight(point, spec.weight)
    if point.finite and point.meets(max(spec.target, LOOSEST)):
        return point
    return _take_best_iterate(job, trainer, result, point)


def _take_best_iterate(
    job: SweepJob, trainer: ConstrainedTrainer, result: FitResult, point: TrainedPoint
) -> TrainedPoint:
    """Return the point of the best iterate that the run kept, where that misses its thresholds by less."""
    which = "most_feasible" if result.best_feasible is None else "best_feasible"
    module = result.most_feasible if result.best_feasible is None else result.best_feasible
    rule_state = result.checkpoint_rule_states.get(which) or {}
    evaluation = evaluate_student(job, trainer, module.state_dict(), rule_state, point.multipliers)
    better = replace(
        point,
        note=f"{point.note} The student is result.{which}; the final one missed more.".lstrip(),
        loss=evaluation.loss,
        loss_se=evaluation.loss_se,
        readings=evaluation.readings,
        validation=evaluation.validation,
        **vars(evaluation.residuals),
        student=_copy_state(trainer.student),
        rule_state=dict(rule_state),
        optimizer={},
        sampled=False,
    )
    target = point.spec.target
    return better if better.violation(target) < point.violation(target) else point


def _read_under_weight(point: TrainedPoint, weight: float) -> TrainedPoint:
    """Return the point of a run under a fixed weight: it asks for no threshold but the safety that it reached."""
    status = point.status
    if status != "diverged":
        status = "converged" if point.stationarity <= point.spec.tolerance else "budget_spent"
    readings = [replace(reading, required=reading.measured) for reading in point.readings]
    reached = replace(point, status=status, readings=readings, multipliers=[weight])
    return replace(reached, primal=0.0, dual=0.0, complementarity=0.0)


def _copy_state(module: torch.nn.Module) -> Parameters:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


@dataclass(frozen=True, repr=False)
class StudentEvaluation(ShortRepr):
    """A student, evaluated on whole splits under given multipliers.

    Attributes:
        loss: Distillation loss, nats.
        loss_se: Its standard error, nats.
        readings: Of each constraint, the swept one first.
        validation: The same on the validation split; none where there is no such split.
        residuals: KKT residuals.
    """

    loss: float
    loss_se: float
    readings: list[ConstraintReading]
    validation: list[ConstraintReading]
    residuals: KKTResiduals


def evaluate_student(
    job: SweepJob,
    trainer: ConstrainedTrainer,
    parameters: Mapping[str, Tensor],
    rule_state: Mapping[str, Tensor],
    multipliers: Sequence[float],
) -> StudentEvaluation:
    """Load a student, and what a weighting rule had learned, into the trainer; evaluate it on whole splits."""
    trainer.student.load_state_dict(parameters)
    if rule_state:
        trainer.problem.learning.load(rule_state)
    constraints = trainer.constraints
    trainer.student.eval()
    trainer.problem.learning.eval()
    train, splits = move_split(job.train, "train", trainer.problem.device), job.place_splits(trainer)
    full = read_full_pass(trainer.objective, train, splits, constraints, with_gradients=True)
    g_M = torch.tensor([r.required - r.measured for r in full.readings], dtype=torch.float64)
    multiplier_M = torch.tensor(multipliers, dtype=torch.float64)
    equal = torch.tensor([constraint.is_equality for constraint in constraints])
    gradient_n, jacobian_Mn = (value.cpu() for value in full.require_gradients())
    residuals = kkt_residuals(
        gradient_n,
        jacobian_Mn=jacobian_Mn[~equal],
        g_M=g_M[~equal],
        lambda_M=multiplier_M[~equal],
        jacobian_En=jacobian_Mn[equal],
        h_E=g_M[equal],
        mu_E=multiplier_M[equal],
    )
    return StudentEvaluation(full.loss, full.loss_se, list(full.readings), _read_validation(job, trainer), residuals)


def _read_validation(job: SweepJob, trainer: ConstrainedTrainer) -> list[ConstraintReading]:
    """Return the constraints as the trainer's student meets them on the validation split."""
    if job.validation is None:
        return []
    split = move_split(job.validation, "validation", trainer.problem.device)
    posed = pose_all_on_train(trainer.constraints)
    full = read_full_pass(trainer.objective, split, {}, posed, with_gradients=False)
    return [replace(reading, split="validation") for reading in full.readings]
