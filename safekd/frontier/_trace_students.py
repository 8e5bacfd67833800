"""``trace_frontier``: arguments are checked, the sweep is run, and its frontier handed back."""

from __future__ import annotations

import inspect
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from .._number_checks import is_whole
from ..data import as_split
from ..errors import InvalidInput
from ..io.folders import lock_folder
from ..training import ConstrainedTrainer
from ._student_frontier import Frontier
from .store import check_run_dir
from .sweep import MakeTrainer, OnRow, StudentSweep, SweepJob, check_sweep_plan


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
            ``constraint.with_threshold(threshold)``); with ``seeds`` it is also given ``seed=``.
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
            for the threshold, or the folder holds another sweep, cannot be written to, or is in use by another
            process.
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
    folder, resuming = check_run_dir(run_dir, resume)
    threads = _check_threads(jobs, threads)
    fields = fit.pop("fields", None)
    split = as_split(train, "train", fields)
    validation = None if validation is None else as_split(validation, "validation", fields)
    fit["splits"] = {name: as_split(data, name, fields) for name, data in (fit.get("splits") or {}).items()}
    job = SweepJob(secrets.token_hex(8), make_trainer, split, validation, epochs, fit, threads, None)
    with nullcontext() if folder is None else lock_folder(folder, "a sweep") as lock:
        sweep = StudentSweep(plan, job, on_point, lock, resume=resuming)
        try:
            traced = sweep.run(jobs)
        except BaseException as error:
            if sweep.store is not None and sweep.store.finished_count:
                error.add_note(sweep.store.resume_hint)
            raise
    return Frontier(traced.table, traced.constraint, traced.meta, traced.students)


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


def _check_threads(jobs: int | None, threads: int | None) -> int | None:
    for name, value in (("jobs", jobs), ("threads", threads)):
        if value is None or (is_whole(value) and (value >= 1 or (name == "jobs" and value == -1))):
            continue
        raise InvalidInput(f"`{name}` is {value!r}; wanted a whole number from 1, or None.")
    return 1 if threads is None and jobs is not None else threads
