"""One cell, solved: a trainer is made, begun where a neighbour ended, trained, and its student read.

A pure function of what it is given, so that it may run in any process: random numbers follow from the seed, and the
number of torch's threads is pinned where asked.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solvers.kkt import KKTResiduals, kkt_residuals
from solvers.primal_dual import FixedPenalty

from .._threads import threads
from ..data import Split, placed
from ..errors import InvalidInput
from ..training import ConstrainedTrainer, FitResult, WarmStart, read_full_pass
from ..training.trace import Callback, StopTraining, TracePoint
from ._cells import Cell, Parameters, Request, write_cell
from ._plan import MakeTrainer, accepts_seed

LOOSEST = 1e-9  # the loosest threshold that is one: met by every student


@dataclass(frozen=True)
class Job:
    """What all cells of a sweep share.  fit: further arguments of ``fit``.  threads: of torch, None for as they are.

    folder: where cells are kept, None for nowhere.  posed: names and splits of the first trainer's constraints, which
    those of every other must have too; None before there was a first.
    """

    token: str
    make_trainer: MakeTrainer
    train: Split
    validation: Any
    epochs: int
    fit: Mapping[str, Any]
    threads: int | None
    folder: Path | None
    posed: tuple[str, ...] | None = None

    def trainer(self, request: Request) -> ConstrainedTrainer:
        """Return the trainer that ``request`` asks for.  Raises InvalidInput where make_trainer gives another."""
        threshold = max(request.target, LOOSEST)
        if request.seed is not None and accepts_seed(self.make_trainer):
            trainer = self.make_trainer(threshold, seed=request.seed)
        else:
            trainer = self.make_trainer(threshold)
        if not isinstance(trainer, ConstrainedTrainer):
            raise InvalidInput(f"make_trainer gave a {type(trainer).__name__}; wanted a fresh kd.ConstrainedTrainer.")
        if not trainer.constraints:
            raise InvalidInput(
                "make_trainer(threshold) gave a trainer without constraints; its first one is what is swept."
            )
        first, *others = trainer.constraints
        if first.is_equality:
            raise InvalidInput(
                f"Constraint '{first.name}' is to be met exactly, so no student is unconstrained; "
                "sweep one with at_least."
            )
        if abs(first.required - threshold) > 1e-12:
            raise InvalidInput(
                f"make_trainer({threshold:g}) gave a trainer whose first constraint, '{first.name}', asks for "
                f"{first.required:g}; wanted the threshold that it is called with: use constraint.at(threshold)."
            )
        if self.posed is not None and posed(trainer) != self.posed:
            raise InvalidInput(
                f"make_trainer({threshold:g}) gave the constraints {', '.join(posed(trainer))}, and before that "
                f"{', '.join(self.posed)}; wanted the same ones for every threshold, in the same order."
            )
        names = [rule.name for rule in others]
        for name in request.held:
            if name not in names:
                raise InvalidInput(
                    f"`held` names '{name}', which is no further constraint of the trainer; there are {names}, "
                    f"besides '{first.name}', which is swept."
                )
        held = [rule.at(request.held.get(rule.name, rule.required)) for rule in others]
        trainer = trainer.with_constraints([first, *held])
        return trainer if request.weight is None else trainer.with_dual(FixedPenalty(request.weight))

    def splits(self, trainer: ConstrainedTrainer) -> dict[str, Split]:
        """Return the splits besides the training data, on the trainer's device."""
        given = {
            **({} if self.validation is None else {"validation": self.validation}),
            **(self.fit.get("splits") or {}),
        }
        return {name: placed(data, name, trainer.problem.device) for name, data in given.items()}


def posed(trainer: ConstrainedTrainer) -> tuple[str, ...]:
    """Return each constraint's name and the split on which it is posed."""
    return tuple(f"'{rule.name}' ({rule.split} split)" for rule in trainer.constraints)


@dataclass(frozen=True)
class Made:
    """A trainer that was made ahead of its run, to be looked at, and torch's random numbers as they were then."""

    trainer: ConstrainedTrainer
    random: Tensor

    @classmethod
    def of(cls, job: Job, request: Request) -> Made:
        """Make the trainer of ``request`` as its run would."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed or 0)
            return cls(job.trainer(request), torch.get_rng_state())


def solve(job: Job, request: Request, start: Cell | None, before: Cell | None, made: Made | None = None) -> Cell:
    """Train one student and return its cell, kept on disk where the job has a folder.

    A cell that raises is handed back as ``failed``, unless it is one that no other comes before: what is wrong there
    is wrong with the sweep.
    """
    began = time.perf_counter()
    try:
        with threads(job.threads), torch.random.fork_rng(devices=[]):
            made = Made.of(job, request) if made is None else made
            trainer = made.trainer
            torch.set_rng_state(made.random)
            result = _trained(job, request, trainer, start, before)
            cell = replace(_cell(job, request, trainer, result), wall_s=time.perf_counter() - began)
    except Exception as error:
        if start is None and request.name.endswith("anchor"):
            raise
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Cell(request, "failed", text, wall_s=time.perf_counter() - began)
    if job.folder is not None:
        write_cell(job.folder, cell, result)
    return cell


def _trained(
    job: Job, request: Request, trainer: ConstrainedTrainer, start: Cell | None, before: Cell | None
) -> FitResult:
    fit = dict(job.fit)
    if request.trace_every is not None and fit.get("trace_every") is None:
        fit["trace_every"] = request.trace_every
    if request.weight is not None:
        fit["callbacks"] = [*fit.get("callbacks", ()), _Settled(request.tolerance)]
    if start is not None:
        _carry(trainer, start)
        fit["warm_start"] = _beginning(job, request, trainer, start, before)
    return trainer.fit(job.train, job.validation, epochs=job.epochs, tolerance=request.tolerance, **fit)


class _Settled(Callback):
    """Stops a run under a fixed weight once it is stationary in two full passes in a row."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance, self.calm = tolerance, 0

    def on_trace(self, point: TracePoint) -> None:
        self.calm = self.calm + 1 if point.stationarity_bound <= self.tolerance else 0
        if self.calm == 2:
            raise StopTraining("stationary under its weight")


def _beginning(job: Job, request: Request, trainer: ConstrainedTrainer, start: Cell, before: Cell | None) -> WarmStart:
    """Return where a warm run begins: where ``start`` ended, or as much further along the line from ``before`` as the
    target is.  Students of neighbouring targets lie on a smooth path, whose tangent this follows.
    """
    if request.weight is not None:
        return WarmStart(start.student, [request.weight], start.weights)
    begin = start.start
    whole = trainer.problem.batch_size is None or trainer.problem.batch_size >= len(job.train)
    if before is None or not whole:  # the noise of minibatches would be prolonged too
        return begin
    passed = start.request.target - before.request.target
    share = min((request.target - start.request.target) / passed, 1.0) if passed > 0 else 0.0
    moving = {name for name, p in trainer.student.named_parameters() if p.requires_grad}
    parameters = {
        name: value + share * (value - before.student[name]) if name in moving else value
        for name, value in begin.parameters.items()
    }
    prices = [
        max(new + share * (new - old), 0.0) for new, old in zip(begin.multipliers, before.multipliers, strict=True)
    ]
    kinds = [rule.is_equality for rule in trainer.constraints]
    prices = [own if equal else more for own, more, equal in zip(begin.multipliers, prices, kinds, strict=True)]
    return WarmStart(parameters, prices, begin.rule_state)


def _carry(trainer: ConstrainedTrainer, start: Cell) -> None:
    """Go on with the optimizer's moments: begun afresh, Adam's first steps have full length even next to the answer."""
    optimizer = trainer.problem.optimizer
    if not start.optimizer or start.optimizer_kind != type(optimizer).__name__:
        return
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in start.optimizer.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _moments(trainer: ConstrainedTrainer) -> Parameters:
    """Return the optimizer's state as named tensors; nothing where it holds something else, such as a list."""
    state = trainer.problem.optimizer.state_dict()["state"]
    flat = {f"{number}.{name}": value for number, own in state.items() for name, value in own.items()}
    if not all(isinstance(value, Tensor) for value in flat.values()):
        return {}
    return {name: value.detach().clone() for name, value in flat.items()}


def _cell(job: Job, request: Request, trainer: ConstrainedTrainer, result: FitResult) -> Cell:
    """Return the cell of a finished run, about its final student, or a better one where that misses a threshold."""
    point = result.point
    cell = Cell(
        request,
        result.status,
        "" if result.status in ("converged", "budget_spent") else result.message,
        seed=trainer.problem.seed,
        loss=point.loss,
        loss_se=point.loss_se,
        readings=list(point.readings),
        multipliers=[float(price) for price in point.multipliers],
        rho=max(point.rho),
        **vars(point.residuals),
        steps=point.step,
        interval=_interval(result),
        impossible=result.verdict.evidence.get("proof") == "farkas",
        optimizer_kind=type(trainer.problem.optimizer).__name__,
        data=[use.record() for use in result.uses],
        student=_state(result.student),
        weights=dict(result.rule_state),
        optimizer=_moments(trainer),
    )
    if request.weight is not None:
        return _under_weight(cell, request.weight)
    if cell.finite and cell.meets(max(request.target, LOOSEST)):
        return cell
    kept = "most_feasible" if result.best_feasible is None else "best_feasible"
    module = result.most_feasible if result.best_feasible is None else result.best_feasible
    trainer.student.load_state_dict(module.state_dict())
    rule = result.checkpoint_rule_states.get(kept) or {}
    if rule:
        trainer.problem.learning.load(rule)
    read = read_student(job, trainer, cell.multipliers)
    better = replace(
        cell,
        note=f"{cell.note} The student is result.{kept}; the final one missed more.".lstrip(),
        loss=read.loss,
        loss_se=read.loss_se,
        readings=read.readings,
        **vars(read.residuals),
        student=_state(trainer.student),
        weights=dict(rule),
        optimizer={},
    )
    return better if better.misses(request.target) < cell.misses(request.target) else cell


def _under_weight(cell: Cell, weight: float) -> Cell:
    """Return the cell of a run under a fixed weight: it asks for no threshold but the safety that it reached."""
    status = cell.status
    if status != "diverged":
        status = "converged" if cell.stationarity <= cell.request.tolerance else "budget_spent"
    readings = [replace(reading, required=reading.measured) for reading in cell.readings]
    at = replace(cell, status=status, readings=readings, multipliers=[weight])
    return replace(at, primal=0.0, dual=0.0, complementarity=0.0)


def _interval(result: FitResult) -> int | None:
    steps = result.trace["step"].tolist()
    return int(steps[1] - steps[0]) if len(steps) > 1 else None


def _state(module: torch.nn.Module) -> Parameters:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


@dataclass(frozen=True)
class Reading:
    """A student, read on whole splits under given multipliers."""

    loss: float
    loss_se: float
    readings: list[Any]
    residuals: KKTResiduals


def read_student(job: Job, trainer: ConstrainedTrainer, multipliers: list[float] | Any) -> Reading:
    """Read the trainer's student as it stands."""
    rules = trainer.constraints
    trainer.student.eval()
    trainer.problem.learning.eval()
    train, splits = placed(job.train, "train", trainer.problem.device), job.splits(trainer)
    full = read_full_pass(trainer.objective, train, splits, rules, with_gradients=True)
    g_M = torch.tensor([r.required - r.measured for r in full.readings], dtype=torch.float64)
    price_M = torch.tensor(multipliers, dtype=torch.float64)
    equal = torch.tensor([rule.is_equality for rule in rules])
    jacobian_Mn = full.jacobian_Mn.cpu()
    residuals = kkt_residuals(
        full.gradient_n.cpu(),
        jacobian_Mn=jacobian_Mn[~equal],
        g_M=g_M[~equal],
        lambda_M=price_M[~equal],
        jacobian_En=jacobian_Mn[equal],
        h_E=g_M[equal],
        mu_E=price_M[equal],
    )
    return Reading(full.loss, full.loss_se, list(full.readings), residuals)
