"""One sweep over all its slices: the first trainer is looked at, slices are run, their rows become a table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ...errors import InvalidInput, SolverFailure
from ...io.folders import FolderLock
from ..store import TABLE, PointStore, RunSpec
from ..table import FrontierTable, annotate_rows, write_frontier
from ._row_students import RowStudents
from ._slice_sweep import SliceSweep, TargetRow
from ._sweep_plan import SweepPlan, ToleranceSettings
from ._sweep_record import describe_sweep, find_record_changes, hash_record
from ._target_rows import RowContext, build_table, build_table_row, describe_row
from ._training_run import LOOSEST, SweepJob, describe_constraints, prepare_trainer
from ._weight_sweep import WeightSweep
from ._worker_pool import run_slice_sweeps

OnRow = Callable[[dict[str, Any]], object]


class StudentSweep:
    """A sweep over seeds and held thresholds.

    Args:
        plan: What is asked for.
        job: What all its runs share.
        on_row: Called with every row of the table as it lands, or None.
        lock: Of the folder where points are kept, None where they are not.
        resume: Whether finished runs in that folder may be read.

    Raises:
        InvalidInput: The first trainer does not fit the plan, or the folder holds another sweep.
    """

    def __init__(
        self, plan: SweepPlan, job: SweepJob, on_row: OnRow | None, lock: FolderLock | None, *, resume: bool
    ) -> None:
        self.plan, self.on_row = plan, on_row
        tolerance = ToleranceSettings().first
        # made before anything is trained, so that what is wrong with it is said at once
        self.first = prepare_trainer(job, RunSpec("anchor", plan.seeds[0], LOOSEST, plan.held[0], tolerance))
        trainer = self.first.trainer
        more = {name: job.fit[name] for name in ("trace_every", "snapshots") if name in job.fit}
        tolerance = tolerance if plan.tolerance is None else plan.tolerance
        trainer.check_fit(epochs=job.epochs, tolerance=tolerance, **more)
        self.job = job = replace(job, epochs=int(job.epochs), constraints=describe_constraints(trainer))
        self.constraints = trainer.constraints
        self.seed = trainer.problem.seed
        if plan.method == "mu" and len(self.constraints) > 1:
            raise InvalidInput(
                "method='mu' gives one constraint a fixed weight, and the trainer has further ones: "
                f"{[constraint.name for constraint in self.constraints[1:]]}. Use method='epsilon', which holds them."
            )
        record = describe_sweep(plan, job, trainer)
        self.run_id, self.store = hash_record(record), None
        if lock is not None:
            self.store = PointStore(lock, record, find_record_changes, hash_record, resume=resume)
            self.run_id, self.job = self.store.place.run_id, replace(job, place=self.store.place)

    def run(self, jobs: int | None) -> FrontierTable:
        """Run all slice sweeps; put the table together."""
        kind = SliceSweep if self.plan.method == "epsilon" else WeightSweep
        sweeps = []
        for seed in self.plan.seeds:
            for number, held in enumerate(self.plan.held):
                name = f"seed-{seed}-" if len(self.plan.seeds) > 1 else ""
                name += f"held-{number}-" if len(self.plan.held) > 1 else ""
                sweeps.append(kind(self.plan, seed, held, name, partial(self._report, seed, held)))
        run_slice_sweeps(sweeps, self.job, jobs, self.store, {f"{sweeps[0].name}anchor": self.first})
        if not any(sweep.rows[0].point is not None and sweep.rows[0].point.finite for sweep in sweeps):
            why = "" if sweeps[0].anchor is None else sweeps[0].anchor.note
            raise SolverFailure(f"The unconstrained run, where the frontier begins, failed: {why}")
        return self._collect(sweeps)

    def _collect(self, sweeps: Sequence[SliceSweep]) -> FrontierTable:
        pairs = [(sweep, row) for sweep in sweeps for row in sweep.rows]
        traced = [(row, self._describe_context(row, sweep.seed, sweep.held)) for sweep, row in pairs]
        table = build_table([build_table_row(row, context) for row, context in traced])
        points = [row.point for _, row in pairs]
        name = self.constraints[0].name
        meta: dict[str, Any] = {
            "run_id": self.run_id,
            "method": self.plan.method,
            "senses": {"distillation_loss": "min", **{f"safety_{c.name}": "max" for c in self.constraints}},
            "highest": self.plan.highest,
            "epochs": self.job.epochs,
            "runs": sum(sweep.budget.spent for sweep in sweeps),
            "threads": self.job.threads or torch.get_num_threads(),
            "data": next(list(sweep.anchor.data) for sweep in sweeps if sweep.anchor is not None),
            "notes": self._collect_notes(sweeps),
        }
        if self.store is not None:
            meta["wall_s"] = [row.wall_s for _, row in pairs]
        kept = {row: point for row, point in enumerate(points) if point is not None and point.student}
        table = annotate_rows(table, name)
        if self.store is not None:
            try:
                write_frontier(table, name, meta, self.store.folder / TABLE)
                names = [kept[row].spec.name if row in kept else None for row in range(len(points))]
                self.store.finish(names, [describe_row(row, context) for row, context in traced])
            except InvalidInput as error:  # all runs are done and kept: the frontier is not lost for its table
                note = f"The points are kept, the table is not: {error} {self.store.resume_hint}"
                meta["notes"].append(note)
                warnings.warn(note, stacklevel=2)
        return FrontierTable(table, name, meta, RowStudents(self.job, kept, traced))

    def _collect_notes(self, sweeps: Sequence[SliceSweep]) -> list[str]:
        notes = [*self.plan.notes, *([] if self.store is None else self.store.notes)]
        reached = [sweep.anchor.safety for sweep in sweeps if sweep.anchor is not None]
        if self.plan.targets is None and self.plan.highest <= min(reached):
            notes.append(
                f"`highest` is {self.plan.highest:g}, and the unconstrained student reaches {min(reached):.6g}: "
                "there is nothing to trace below that; raise `highest`."
            )
        return notes

    def _describe_context(self, row: TargetRow, seed: int | None, held: Mapping[str, float]) -> RowContext:
        first, *others = self.constraints
        return RowContext(
            run_id=self.run_id,
            method=self.plan.method,
            seed=seed if seed is not None else self.seed if row.point is None else row.point.seed,
            held={constraint.name: held.get(constraint.name, constraint.required) for constraint in others},
            names=[constraint.name for constraint in self.constraints],
            split=first.split,
            timed=self.store is None,
        )

    def _report(self, seed: int | None, held: Mapping[str, float], row: TargetRow) -> None:
        if self.on_row is not None:
            self.on_row(build_table_row(row, self._describe_context(row, seed, held)))
