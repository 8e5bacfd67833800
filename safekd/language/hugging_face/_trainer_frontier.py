"""The frontier of loss against safety over runs of the trainer: the same sweep, rows and table as for any student.

``SliceSweep`` says which runs it wants next, as for ``trace_frontier``; here each run is a ``SafeKDTrainer``, in this
process, begun where its neighbor ended.  Students are kept in the memory of the host, and in ``run_dir``, whose folder
is that of any sweep.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from ...errors import InvalidInput, SolverFailure
from ...fingerprints import describe, fingerprint
from ...frontier import Frontier
from ...frontier.store import TABLE, PointStore, RunSpec, TrainedPoint, check_run_dir, write_point
from ...frontier.sweep import (
    LOOSEST,
    RowContext,
    SliceSweep,
    SweepPlan,
    TargetRow,
    build_table,
    build_table_row,
    check_sweep_plan,
    describe_row,
    find_record_changes,
    hash_record,
)
from ...frontier.table import annotate_rows, write_frontier
from ...io.folders import lock_folder
from ...training import list_libraries
from ...weights import load_rule_state, rule_state
from ._safe_kd_trainer import SafeKDTrainer
from ._trainer_verdict import TrainerResult

MakeSafeKDTrainer = Callable[..., SafeKDTrainer]
# beginnings of the names of arguments that decide where things are written and what is said, and no number of a run
_SILENT = ("output_dir", "run_name", "logging", "report", "push", "hub", "save", "disable_tqdm", "eval", "load_best")


def trace_trainer_frontier(
    make_trainer: MakeSafeKDTrainer,
    *,
    targets: int | Sequence[float] = 5,
    highest: float = 0.99,
    budget: int | None = None,
    seeds: Sequence[int] | None = None,
    warm: bool = True,
    run_dir: str | os.PathLike[str] | None = None,
    resume: str | bool | None = None,
    on_point: Callable[[Mapping[str, Any]], None] | None = None,
) -> Frontier:
    """Trace the frontier of distillation loss against safety, one run of the trainer a threshold.

    Statuses and columns are those of ``kd.trace_frontier``; losses and safeties are of the last point of each trace,
    read on its sample of the training data.  A warm run begins with weights and multipliers of its neighbor, and with
    an optimizer of its own.

    Args:
        make_trainer: Threshold to a fresh ``SafeKDTrainer`` with a fresh student, whose first constraint asks for it:
            ``constraint.with_threshold(threshold)``; with ``seeds`` it is called with the seed too.
        targets: How many thresholds, spread from what the student reaches without the first constraint to ``highest``;
            or the thresholds, in (0, 1].
        highest: The tightest threshold where ``targets`` is a count.
        budget: Runs at most; None for those that the targets need and half as many for gaps.
        seeds: Each is swept; None for the one that make_trainer decides.
        warm: Whether a run begins where its neighbor ended.
        run_dir: A folder that keeps a folder for each run, with its trace, verdict and student, and the table; None to
            keep students in memory alone.
        resume: "auto" to go on in ``run_dir``: finished runs are read, damaged ones run again; another sweep is
            refused by what differs.
        on_point: Called with every row, a dictionary by column, as it lands.

    Returns:
        The frontier; ``students`` are models of transformers.

    Raises:
        InvalidInput: An argument is out of range, a trainer is not what was asked for, or the folder is of another
            sweep.
        SolverFailure: The run without the first constraint left no student to begin from.
    """
    first = _make(make_trainer, LOOSEST, seeds[0] if seeds else None)
    plan = check_sweep_plan(
        make_trainer,  # type: ignore[arg-type]  # whose trainers are of another kind: it is looked at as a function
        method="epsilon",
        targets=targets,
        highest=highest,
        budget=budget,
        seeds=seeds,
        held=None,
        warm=warm,
        tolerance=first.tolerance,
    )
    folder, resuming = check_run_dir(run_dir, resume)
    with nullcontext() if folder is None else lock_folder(folder, "a sweep") as lock:
        store = None
        if lock is not None:
            record = _describe_trainer_sweep(plan, first)
            store = PointStore(lock, record, find_record_changes, hash_record, resume=resuming)
        return _TrainerSweep(make_trainer, first, plan, store, on_point).run()


class _TrainerSweep:
    """Trains what the slices of a sweep ask for, one run after the other, and puts the table together."""

    def __init__(
        self,
        make_trainer: MakeSafeKDTrainer,
        first: SafeKDTrainer,
        plan: SweepPlan,
        store: PointStore | None,
        on_point: Callable[[Mapping[str, Any]], None] | None,
    ) -> None:
        self._make_trainer, self._plan, self._store, self._on_point = make_trainer, plan, store, on_point
        self._constraints, self._seed = first.terms.constraints, first.args.seed
        self._run_id = secrets.token_hex(6) if store is None else store.place.run_id
        self._points: dict[str, TrainedPoint] = {}

    def run(self) -> Frontier:
        sweeps = []
        for seed in self._plan.seeds:
            name = f"seed-{seed}-" if len(self._plan.seeds) > 1 else ""
            sweep = SliceSweep(self._plan, seed, {}, name, partial(self._report, seed))
            self._trace(sweep)
            if sweep.anchor is None or not sweep.anchor.finite:
                raise SolverFailure(
                    "The run without the first constraint left no student, so there is nothing to begin from."
                )
            sweeps.append(sweep)
        return self._collect(sweeps)

    def _trace(self, sweep: SliceSweep) -> None:
        requests, answers = sweep.list_run_specs(), None
        while True:
            try:
                wanted = next(requests) if answers is None else requests.send(answers)
            except StopIteration:
                return
            answers = [self._find_point(spec) for spec in wanted]
            self._points |= {point.spec.name: point for point in answers}

    def _find_point(self, spec: RunSpec) -> TrainedPoint:
        kept = None if self._store is None else self._store.read(spec)
        if kept is not None:
            return kept
        point, result = _train_point(self._make_trainer, spec, self._points.get(spec.start or ""))
        if self._store is not None and result is not None:
            write_point(self._store.place, point, result)
        return point

    def _describe_context(self, seed: int | None) -> RowContext:
        name, *others = self._constraints
        held = {constraint.name: constraint.required for constraint in others}
        names, chosen = [c.name for c in self._constraints], self._seed if seed is None else seed
        return RowContext(self._run_id, "epsilon", chosen, held, names, name.split, self._store is None)

    def _report(self, seed: int | None, row: TargetRow) -> None:
        if self._on_point is not None:
            self._on_point(build_table_row(row, self._describe_context(seed)))

    def _collect(self, sweeps: Sequence[SliceSweep]) -> Frontier:
        rows = [(row, self._describe_context(sweep.seed)) for sweep in sweeps for row in sweep.rows]
        name, store = self._constraints[0].name, self._store
        table = annotate_rows(build_table([build_table_row(row, about) for row, about in rows]), name)
        meta = {
            "run_id": self._run_id,
            "method": "epsilon",
            "senses": {"distillation_loss": "min", **{f"safety_{c.name}": "max" for c in self._constraints}},
            "highest": self._plan.highest,
            "runs": sum(sweep.budget.spent for sweep in sweeps),
            "threads": torch.get_num_threads(),
            "data": [],
            "notes": [*self._plan.notes, *([] if store is None else store.notes)],
        }
        kept = {n: row.point for n, (row, _) in enumerate(rows) if row.point is not None and row.point.student}
        if store is not None:
            write_frontier(table, name, meta, store.folder / TABLE)
            names = [kept[n].spec.name if n in kept else None for n in range(len(rows))]
            store.finish(names, [describe_row(row, about) for row, about in rows])
        return Frontier(table, name, meta, TrainerStudents(self._make_trainer, kept))


def _describe_trainer_sweep(plan: SweepPlan, first: SafeKDTrainer) -> dict[str, Any]:
    """Return the record of a sweep, as plain JSON; the trainer is that of its first run, not yet trained."""
    given: dict[str, Any] = first.args.to_dict()  # type: ignore[no-untyped-call]
    arguments = {name: describe(value) for name, value in given.items() if not name.startswith(_SILENT)}
    return {
        "sweep": plan.describe(),
        "trainer": json.loads(json.dumps(first.describe_run())),
        "arguments": arguments,
        "trace_sequences": first.trace_sequences,
        "student_start": fingerprint([*first.student.state_dict().items()]),
        "weighting_rule_start": fingerprint(first.terms.weights),
        "threads": torch.get_num_threads(),
        "libraries": list_libraries(),
    }


class TrainerStudents(Mapping[int, nn.Module]):
    """Students by row of the table, in eval mode, each made when it is asked for.

    Args:
        make_trainer: Gives the model that parameters fill.
        points: The trained points, by row.

    Attributes:
        points: As given.
    """

    def __init__(self, make_trainer: MakeSafeKDTrainer, points: Mapping[int, TrainedPoint]) -> None:
        self._make_trainer, self.points = make_trainer, dict(points)

    def __getitem__(self, row: int) -> nn.Module:
        point = self.points[row]
        student = make_swept_trainer(self._make_trainer, point.spec).student
        student.load_state_dict(point.student)
        return student.eval()

    def __iter__(self) -> Iterator[int]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)


def _make(make_trainer: MakeSafeKDTrainer, threshold: float, seed: int | None) -> SafeKDTrainer:
    trainer = make_trainer(threshold) if seed is None else make_trainer(threshold, seed)
    if not isinstance(trainer, SafeKDTrainer):
        raise InvalidInput(f"make_trainer gave a {type(trainer).__name__}; wanted a fresh SafeKDTrainer.")
    if not trainer.terms.constraints or trainer.terms.constraints[0].is_equality:
        raise InvalidInput("make_trainer(threshold) gave a trainer whose first constraint has no at_least to be swept.")
    first = trainer.terms.constraints[0]
    if abs(first.required - threshold) > 1e-12:
        raise InvalidInput(
            f"make_trainer({threshold:g}) gave a trainer whose first constraint, '{first.name}', asks for "
            f"{first.required:g}; wanted the threshold that it is called with: constraint.with_threshold(threshold)."
        )
    return trainer


def make_swept_trainer(make_trainer: MakeSafeKDTrainer, spec: RunSpec) -> SafeKDTrainer:
    """Return a fresh trainer of one run of a sweep.

    Args:
        make_trainer: As for the sweep.
        spec: The run.

    Raises:
        InvalidInput: It is not what was asked for.
    """
    return _make(make_trainer, max(spec.target, LOOSEST), spec.seed)


def _train_point(
    make_trainer: MakeSafeKDTrainer, spec: RunSpec, start: TrainedPoint | None
) -> tuple[TrainedPoint, TrainerResult | None]:
    """Train once; a run that raises is handed back as failed, unless it is the first."""
    began = time.perf_counter()
    trainer = make_swept_trainer(make_trainer, spec)
    student = trainer.student
    try:
        if start is not None:
            student.load_state_dict(start.student)
            load_rule_state(trainer.terms.weights, start.rule_state)
            trainer.start_multipliers = list(start.multipliers)
        trainer.train()
    except Exception as error:
        if start is None and spec.name.endswith("anchor"):
            raise
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return TrainedPoint(spec, "failed", text, wall_s=time.perf_counter() - began), None
    result = trainer.result()
    point = result.point
    trained = TrainedPoint(
        spec,
        result.status,
        "" if result.status in ("stationary_unverified", "budget_spent") else result.message,
        seed=trainer.args.seed,
        loss=point.loss,
        loss_se=point.loss_se,
        readings=list(point.readings),
        validation=list(point.validation),
        multipliers=list(point.multipliers),
        rho=max(point.rho),
        **vars(point.residuals),
        steps=point.step,
        optimizer_kind=type(trainer.optimizer).__name__,
        wall_s=time.perf_counter() - began,
        sampled=point.sampled,
        student={name: value.detach().cpu().clone() for name, value in student.state_dict().items()},
        rule_state=rule_state(trainer.terms.weights),
    )
    return trained, result
