"""``trace_frontier``: a plan, its slice sweeps, and the table that they make."""

from __future__ import annotations

import inspect
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .._numbers import is_whole
from ..data import as_split
from ..errors import InvalidInput, SolverFailure
from ..training import ConstrainedTrainer
from ._student_frontier import Frontier
from .store import TABLE, PointStore, RunSpec
from .sweep import (
    LOOSEST,
    MakeTrainer,
    RowContext,
    RowStudents,
    SliceSweep,
    SweepJob,
    SweepPlan,
    TargetRow,
    ToleranceSettings,
    WeightSweep,
    build_table,
    build_table_row,
    check_sweep_plan,
    describe_constraints,
    describe_sweep,
    hash_record,
    prepare_trainer,
    run_slice_sweeps,
)
from .table import annotate_rows

OnRow = Callable[[dict[str, Any]], object]


def trace_frontier(
    make_trainer: MakeTrainer,
    train: Any,
    validation: Any = None,
    *,
    targets: int | Sequence[float] = 11,
    highest: float = 0.99,
    method: str = "epsilon",
    epochs: int,
    tolerance: float | None = None,
    budget: int | None = None,
    held: Mapping[str, float | Sequence[float]] | None = None,
    seeds: Sequence[int] | None = None,
    warm: bool = True,
    jobs: int | None = None,
    threads: int | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: str | bool | None = None,
    on_point: OnRow | None = None,
    **fit: Any,
) -> Frontier:
    """Trace the Pareto frontier of distillation loss against safety, one constrained run a threshold, and check it.

    Every target keeps a row with the status of its run, or ``anchor``; ``redundant``: a looser target's student meets
    it; ``taken``: a tighter target's student meets it for less; ``gap``: a run closed nothing of one; ``unreachable``:
    no weight leads there; ``failed``: the run raised what ``note`` says.  So loss rises with the target among feasible
    rows.

    Args:
        make_trainer: Threshold to a fresh ConstrainedTrainer whose first constraint asks for it (use
            ``constraint.at(threshold)``); with ``seeds`` it is also given ``seed=``.
        train: Training examples, a Split or what ``as_split`` takes.
        validation: Examples that judge, as ``ConstrainedTrainer.fit`` takes them, or None.
        targets: How many thresholds, at least 2, spread evenly from what the unconstrained student reaches to
            ``highest``, both ends included; or the thresholds, in (0, 1].
        highest: The tightest threshold where ``targets`` is a count, in (0, 1].
        method: "epsilon", constrained runs, which reach concave parts too; "mu", fixed weights, which say what they
            miss.
        epochs: Of every run.
        tolerance: Of the KKT residuals of every run.  None: the unconstrained run is asked for 1e-6, which free logits
            and other small students reach: multipliers are then exact to some 1e-5.  If it does not get there within
            its epochs, the others are asked for the power of ten that it reached, at most 1e-3, and for ten times as
            much as before after a run that falls short.
        budget: Training runs at most, of each slice and seed.  None: those that the targets need and half as many for
            gaps wider than five average steps and for a reverse pass; given, all of it goes into the widest gaps.
        held: Thresholds of further constraints by name, one or several each: every combination is a slice of its own,
            with columns ``held_<name>``.
        seeds: Whole numbers from 0; one sweep each.  None: make_trainer decides.
        warm: Whether a run begins where its neighbor ended, which is cheaper; cold runs are independent of each other.
        jobs: Processes, by joblib and so on its backends: None for this one, with torch's threads as they are; else
            every run has one thread, or ``threads``, and what it gives is the same to the last bit whatever the number
            of jobs.
        threads: Of torch in every run.
        run_dir: A folder that keeps a folder for each run, with trace, verdict, student and all that a warm start
            needs, each whole or absent.  None: nothing is kept on disk.
        resume: "auto" to go on in ``run_dir``: finished runs are read, damaged ones run again; a sweep that was asked
            for otherwise is refused, saying what changed.
        on_point: Called with every row, a dictionary by column, as it lands.
        fit: Further arguments of ``ConstrainedTrainer.fit`` for every run; a warm run is evaluated oftener, since it is
            soon over.

    Returns:
        The frontier: its table, and each row's student in ``Frontier.students``.

    Raises:
        InvalidInput: An argument is out of range, ``tighten`` is given, make_trainer's first constraint does not ask
            for the threshold, or the folder holds another sweep.
        SolverFailure: No unconstrained student has a finite loss and safety to begin from.

    Source: Miettinen 1999, section 3.2; Theorem VIII.5 for "mu".
    """
    _check_fit(fit, on_point)
    plan = check_sweep_plan(
        make_trainer,
        method=method,
        targets=targets,
        highest=highest,
        budget=budget,
        seeds=seeds,
        held=held,
        warm=warm,
        tolerance=tolerance,
    )
    folder, resuming = _check_folder(run_dir, resume)
    threads = _check_threads(jobs, threads)
    split = as_split(train, "train")
    job = SweepJob(secrets.token_hex(8), make_trainer, split, validation, epochs, fit, threads, folder)
    sweep = _StudentSweep(plan, job, on_point, resuming)
    try:
        return sweep.run(jobs)
    except BaseException as error:
        if sweep.store is not None and sweep.store.finished_count:
            error.add_note(sweep.store.resume_hint)
        raise


class _StudentSweep:
    """One call of ``trace_frontier``."""

    def __init__(self, plan: SweepPlan, job: SweepJob, on_row: OnRow | None, resume: bool) -> None:
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
        self.seed = trainer.seed
        if plan.method == "mu" and len(self.constraints) > 1:
            raise InvalidInput(
                "method='mu' gives one constraint a fixed weight, and the trainer has further ones: "
                f"{[constraint.name for constraint in self.constraints[1:]]}. Use method='epsilon', which holds them."
            )
        record = describe_sweep(plan, job, trainer)
        self.run_id = hash_record(record)
        self.store = None if job.folder is None else PointStore(job.folder, record, resume=resume)

    def run(self, jobs: int | None) -> Frontier:
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

    def _collect(self, sweeps: Sequence[SliceSweep]) -> Frontier:
        pairs = [(sweep, row) for sweep in sweeps for row in sweep.rows]
        table = build_table([self._build_row(row, sweep.seed, sweep.held) for sweep, row in pairs])
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
        frontier = Frontier(annotate_rows(table, name), name, meta, RowStudents(self.job, kept))
        if self.store is not None:
            frontier.to_csv(self.store.folder / TABLE)
            self.store.finish([kept[row].spec.name if row in kept else None for row in range(len(points))])
        return frontier

    def _collect_notes(self, sweeps: Sequence[SliceSweep]) -> list[str]:
        notes = [*self.plan.notes, *([] if self.store is None else self.store.damaged)]
        reached = [sweep.anchor.safety for sweep in sweeps if sweep.anchor is not None]
        if self.plan.targets is None and self.plan.highest <= min(reached):
            notes.append(
                f"`highest` is {self.plan.highest:g}, and the unconstrained student reaches {min(reached):.6g}: "
                "there is nothing to trace below that; raise `highest`."
            )
        return notes

    def _build_row(self, row: TargetRow, seed: int | None, held: Mapping[str, float]) -> dict[str, Any]:
        first, *others = self.constraints
        context = RowContext(
            run_id=self.run_id,
            method=self.plan.method,
            seed=seed if seed is not None else self.seed if row.point is None else row.point.seed,
            held={constraint.name: held.get(constraint.name, constraint.required) for constraint in others},
            names=[constraint.name for constraint in self.constraints],
            split=first.split,
            timed=self.store is None,
        )
        return build_table_row(row, context)

    def _report(self, seed: int | None, held: Mapping[str, float], row: TargetRow) -> None:
        if self.on_row is not None:
            self.on_row(self._build_row(row, seed, held))


def _check_fit(fit: Mapping[str, Any], on_point: OnRow | None) -> None:
    """Refuse what ``fit`` does not take, and what is the sweep's to decide."""
    if fit.get("tighten") is not None:
        raise InvalidInput(
            "`tighten` was given to a sweep, whose every target would look at the same data again. Choose a target "
            "from the frontier, then fit(..., tighten=...) for that one."
        )
    if fit.get("warm_start") is not None:
        raise InvalidInput("`warm_start` was given to a sweep, which decides where runs begin; see `warm`.")
    known = inspect.signature(ConstrainedTrainer.fit).parameters
    unknown = [name for name in fit if name not in known or name == "self"]
    if unknown:
        raise InvalidInput(
            f"`{unknown[0]}` is no argument of trace_frontier, nor of ConstrainedTrainer.fit, which takes the rest; "
            "check the spelling."
        )
    for name, value in (("on_point", on_point), ("on_trace", fit.get("on_trace"))):
        if value is not None and not callable(value):
            raise InvalidInput(f"`{name}` is a {type(value).__name__}; wanted a function, or None.")
    if not isinstance(fit.get("callbacks", ()), (list, tuple)):
        raise InvalidInput(
            f"`callbacks` is a {type(fit['callbacks']).__name__}; wanted a list of kd.training.trace.Callback."
        )


def _check_folder(run_dir: str | os.PathLike[str] | None, resume: str | bool | None) -> tuple[Path | None, bool]:
    if not (run_dir is None or isinstance(run_dir, (str, os.PathLike))) or run_dir == "":
        raise InvalidInput(f"`run_dir` is {run_dir!r}; wanted a folder for the runs, or None to keep none.")
    if resume not in (None, True, False, "auto"):
        raise InvalidInput(f"`resume` is {resume!r}; wanted 'auto', or None to begin afresh.")
    if resume and run_dir is None:
        raise InvalidInput("`resume` needs the folder to go on in: give `run_dir` too.")
    return (None if run_dir is None else Path(run_dir)), bool(resume)


def _check_threads(jobs: int | None, threads: int | None) -> int | None:
    for name, value in (("jobs", jobs), ("threads", threads)):
        if value is None or (is_whole(value) and (value >= 1 or (name == "jobs" and value == -1))):
            continue
        raise InvalidInput(f"`{name}` is {value!r}; wanted a whole number from 1, or None.")
    return 1 if threads is None and jobs is not None else threads
