"""``trace_frontier``: a plan, its chains, and the table that they make."""

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
from ..safety import Constraint
from ..training import ConstrainedTrainer
from ._cells import TABLE, Request, Store
from ._chain import Chain, Entry
from ._frontier import Frontier
from ._marks import mark
from ._mu import WeightChain
from ._parallel import run_chains
from ._plan import EXACT, MakeTrainer, Plan, checked_plan
from ._record import record_of, run_id
from ._rows import row_of, table_of
from ._solve import LOOSEST, Job, Made, posed
from ._students import Students

OnPoint = Callable[[dict[str, Any]], object]


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
    on_point: OnPoint | None = None,
    **fit: Any,
) -> Frontier:
    """Trace distillation loss against safety, one constrained run a threshold, and check what was found.

    make_trainer: threshold -> a fresh ConstrainedTrainer whose first constraint asks for it (use
    ``constraint.at(threshold)``); with ``seeds`` it is also given ``seed=``.  targets: how many thresholds, spread
    evenly from what the unconstrained student reaches to ``highest``, both ends included; or the thresholds, in (0, 1].
    method: "epsilon", constrained runs, which reach concave parts too; "mu", fixed weights, which say what they miss.
    epochs, fit: passed to ``ConstrainedTrainer.fit`` for every run; a warm run is read oftener, since it is soon over.
    tolerance: of the KKT residuals of every run.  Left out, the unconstrained run is asked for 1e-6, which free logits
    and other small students reach: multipliers are then exact to some 1e-5.  If it does not get there within its
    epochs, the others are asked for the power of ten that it reached, at most 1e-3, and for ten times as much as before
    after a run that falls short.
    budget: training runs at most, of each slice and seed.  Left out, those that the targets need and half as many for
    gaps wider than five average steps and for a reverse pass; given, all of it goes into the widest gaps.
    held: thresholds of further constraints, one or several each: every combination is a slice of its own, with columns
    ``held_<name>``.  seeds: one sweep each.
    warm: whether a run begins where its neighbour ended, which is cheaper; cold runs are independent of each other.
    jobs: processes, by joblib and so on its backends: None for this one, with torch's threads as they are; else every
    run has one thread, or ``threads``, and what it gives is the same to the last bit whatever the number of jobs.
    run_dir: a folder for each run, with trace, verdict, student and all that a warm start needs, each whole or absent.
    resume: "auto" to go on in a folder: finished runs are read, damaged ones run again; a sweep that was asked for
    otherwise is refused, saying what changed.  on_point: called with every row as it lands.

    Every target keeps a row with the status of its run, or ``anchor``; ``redundant``: a looser target's student meets
    it; ``taken``: a tighter target's student meets it for less; ``gap``: nothing was found inside one; ``unreachable``:
    no weight leads there; ``failed``: the run raised what ``note`` says.  So loss rises with the target among feasible
    rows.  Each row's student is in ``Frontier.students``.
    Raises InvalidInput for arguments out of range, for ``tighten``, for a make_trainer whose first constraint does not
    ask for the threshold, and for a folder of another sweep; SolverFailure when no unconstrained student has a finite
    loss and safety to begin from.
    Source: Miettinen 1999, section 3.2; Theorem VIII.5 for "mu".
    """
    _check_fit(fit, on_point)
    plan = checked_plan(
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
    folder, resuming = _where(run_dir, resume)
    threads = _threads(jobs, threads)
    job = Job(secrets.token_hex(8), make_trainer, as_split(train, "train"), validation, epochs, fit, threads, folder)
    sweep = _Sweep(plan, job, on_point, resuming)
    try:
        return sweep.run(jobs)
    except BaseException as error:
        if sweep.store is not None and sweep.store.finished:
            error.add_note(sweep.store.said)
        raise


class _Sweep:
    """One call of ``trace_frontier``."""

    def __init__(self, plan: Plan, job: Job, on_point: OnPoint | None, resume: bool) -> None:
        self.plan, self.on_point = plan, on_point
        # made before anything is trained, so that what is wrong with it is told at once
        self.first = Made.of(job, Request("anchor", plan.seeds[0], LOOSEST, plan.held[0], EXACT))
        first = self.first.trainer
        more = {name: job.fit[name] for name in ("trace_every", "snapshots") if name in job.fit}
        first.check_fit(epochs=job.epochs, tolerance=EXACT if plan.tolerance is None else plan.tolerance, **more)
        self.job = job = replace(job, epochs=int(job.epochs), posed=posed(first))
        self.rules: tuple[Constraint, ...] = first.constraints
        self.seed = first.problem.seed
        if plan.method == "mu" and len(self.rules) > 1:
            raise InvalidInput(
                "method='mu' gives one constraint a fixed weight, and the trainer has further ones: "
                f"{[rule.name for rule in self.rules[1:]]}. Use method='epsilon', which holds them."
            )
        record = record_of(plan, job, first)
        self.run_id = run_id(record)
        self.store = None if job.folder is None else Store(job.folder, record, resume=resume)

    def run(self, jobs: int | None) -> Frontier:
        """Run all chains; put the table together."""
        kind = Chain if self.plan.method == "epsilon" else WeightChain
        chains = []
        for seed in self.plan.seeds:
            for number, held in enumerate(self.plan.held):
                name = f"seed-{seed}-" if len(self.plan.seeds) > 1 else ""
                name += f"held-{number}-" if len(self.plan.held) > 1 else ""
                chains.append(kind(self.plan, seed, held, name, partial(self._tell, seed, held)))
        run_chains(chains, self.job, jobs, self.store, (f"{chains[0].name}anchor", self.first))
        if not any(chain.entries[0].cell is not None and chain.entries[0].cell.finite for chain in chains):
            why = "" if chains[0].anchor is None else chains[0].anchor.note
            raise SolverFailure(f"The unconstrained run, where the frontier begins, failed: {why}")
        return self._table(chains)

    def _table(self, chains: Sequence[Chain]) -> Frontier:
        pairs = [(chain, entry) for chain in chains for entry in chain.entries]
        table = table_of([self._row(entry, chain.seed, chain.held) for chain, entry in pairs])
        cells = [entry.cell for _, entry in pairs]
        name = self.rules[0].name
        meta: dict[str, Any] = {
            "run_id": self.run_id,
            "method": self.plan.method,
            "senses": {"distillation_loss": "min", **{f"safety_{rule.name}": "max" for rule in self.rules}},
            "highest": self.plan.highest,
            "epochs": self.job.epochs,
            "runs": sum(chain.runs for chain in chains),
            "threads": self.job.threads or torch.get_num_threads(),
            "data": next(list(chain.anchor.data) for chain in chains if chain.anchor is not None),
            "notes": self._notes(chains),
        }
        if self.store is not None:
            meta["wall_s"] = [entry.wall_s for _, entry in pairs]
        kept = {row: cell for row, cell in enumerate(cells) if cell is not None and cell.student}
        frontier = Frontier(mark(table, name), name, meta, Students(self.job, kept))
        if self.store is not None:
            frontier.to_csv(self.store.folder / TABLE)
            self.store.finish([cell.request.name if cell is not None and cell.student else None for cell in cells])
        return frontier

    def _notes(self, chains: Sequence[Chain]) -> list[str]:
        notes = [*self.plan.notes, *([] if self.store is None else self.store.damaged)]
        reached = [chain.anchor.safety for chain in chains if chain.anchor is not None]
        if self.plan.targets is None and self.plan.highest <= min(reached):
            notes.append(
                f"`highest` is {self.plan.highest:g}, and the unconstrained student reaches {min(reached):.6g}: "
                "there is nothing to trace below that; raise `highest`."
            )
        return notes

    def _row(self, entry: Entry, seed: int | None, held: Mapping[str, float]) -> dict[str, Any]:
        cell = entry.cell
        return row_of(
            entry,
            run_id=self.run_id,
            method=self.plan.method,
            seed=seed if seed is not None else self.seed if cell is None else cell.seed,
            held={rule.name: held.get(rule.name, rule.required) for rule in self.rules[1:]},
            names=[rule.name for rule in self.rules],
            split=self.rules[0].split,
            timed=self.store is None,
        )

    def _tell(self, seed: int | None, held: Mapping[str, float], entry: Entry) -> None:
        if self.on_point is not None:
            self.on_point(self._row(entry, seed, held))


def _check_fit(fit: Mapping[str, Any], on_point: OnPoint | None) -> None:
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


def _where(run_dir: str | os.PathLike[str] | None, resume: str | bool | None) -> tuple[Path | None, bool]:
    if not (run_dir is None or isinstance(run_dir, (str, os.PathLike))) or run_dir == "":
        raise InvalidInput(f"`run_dir` is {run_dir!r}; wanted a folder for the runs, or None to keep none.")
    if resume not in (None, True, False, "auto"):
        raise InvalidInput(f"`resume` is {resume!r}; wanted 'auto', or None to begin afresh.")
    if resume and run_dir is None:
        raise InvalidInput("`resume` needs the folder to go on in: give `run_dir` too.")
    return (None if run_dir is None else Path(run_dir)), bool(resume)


def _threads(jobs: int | None, threads: int | None) -> int | None:
    for name, value in (("jobs", jobs), ("threads", threads)):
        if value is None or (is_whole(value) and (value >= 1 or (name == "jobs" and value == -1))):
            continue
        raise InvalidInput(f"`{name}` is {value!r}; wanted a whole number from 1, or None.")
    return 1 if threads is None and jobs is not None else threads
