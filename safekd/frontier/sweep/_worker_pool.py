"""Who runs the points of a sweep: this process, or several by joblib, on whatever backend it is told to use.

Slice sweeps ask in rounds.  Each round's runs, of all slices, go side by side; what a run gives depends on its spec
alone, so how many workers there are changes nothing but the time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from joblib import Parallel, delayed
from joblib.parallel import get_active_backend

from ...errors import InvalidInput
from ..store import PointStore, RunSpec, TrainedPoint
from ._slice_sweep import RunRequests, SliceSweep
from ._training_run import PreparedTrainer, SweepJob, train_point

_PATIENCE = 0.5  # seconds between two looks whether the sweep lives
_JOBS: dict[str, SweepJob] = {}  # in a worker: the job as it first came, whose teachers keep what they were asked


@dataclass
class _RunningSlice:
    """A slice sweep under way: what it wants next, what it was given last, and all its points by name."""

    sweep: SliceSweep
    requests: RunRequests
    wanted: list[RunSpec] = field(default_factory=list)
    answers: list[TrainedPoint] | None = None
    points: dict[str, TrainedPoint] = field(default_factory=dict)


@dataclass(frozen=True)
class _Run:
    """A run of slice ``number``, and the points from which it begins."""

    number: int
    spec: RunSpec
    start: TrainedPoint | None
    before: TrainedPoint | None


def run_slice_sweeps(
    sweeps: Sequence[SliceSweep],
    job: SweepJob,
    jobs: int | None,
    store: PointStore | None,
    prepared: dict[str, PreparedTrainer],
) -> None:
    """Run every slice sweep to its end.

    Args:
        sweeps: The slices.
        job: What all their runs share.
        jobs: Processes, None for this one.
        store: Where points are kept, None for nowhere.
        prepared: Trainers by name of their run, which this process need not make again; used up.
    """
    running = {number: _RunningSlice(sweep, sweep.list_run_specs()) for number, sweep in enumerate(sweeps)}
    while running:
        for number, one in list(running.items()):
            try:
                one.wanted = next(one.requests) if one.answers is None else one.requests.send(one.answers)
            except StopIteration:
                del running[number]
        runs = [_specify_run(number, spec, one.points) for number, one in running.items() for spec in one.wanted]
        answers: dict[tuple[int, str], TrainedPoint] = {}
        for run, point in _answer_runs(runs, job, jobs, store, prepared):
            answers[run.number, run.spec.name] = point
            if len(running[run.number].wanted) > 1:
                running[run.number].sweep.report_early(run.spec, point)
        for number, one in running.items():
            one.answers = [answers[number, spec.name] for spec in one.wanted]
            one.points |= {point.spec.name: point for point in one.answers}


def _specify_run(number: int, spec: RunSpec, points: dict[str, TrainedPoint]) -> _Run:
    start, before = (None if name is None else points[name] for name in (spec.start, spec.before))
    return _Run(number, spec, start, before)


def _answer_runs(
    runs: Sequence[_Run],
    job: SweepJob,
    jobs: int | None,
    store: PointStore | None,
    prepared: dict[str, PreparedTrainer],
) -> Iterator[tuple[_Run, TrainedPoint]]:
    """Yield the point of each run as it is done: from disk where it was trained before, else by training."""
    unanswered = []
    for run in runs:
        kept = None if store is None else store.read(run.spec)
        if kept is None:
            unanswered.append(run)
        else:
            yield run, kept
    if jobs is None or jobs == 1:
        for run in unanswered:
            yield run, train_point(job, run.spec, run.start, run.before, prepared.pop(run.spec.name, None))
    elif unanswered:
        yield from _make_pool(jobs)(delayed(_train_remotely)(job, run) for run in unanswered)


def _make_pool(jobs: int) -> Parallel:
    """Return joblib's pool on the backend that is set; points come as they are done where it can do that."""
    backend, _ = get_active_backend()
    if getattr(backend, "supports_sharedmem", False):
        raise InvalidInput(
            "joblib is set to a backend of threads, which share one state of random numbers; "
            "use 'loky', which is its own choice, 'ray' or 'dask'."
        )
    streams = getattr(backend, "supports_return_generator", False)
    # workers of Dask and Ray are not this process's own
    own = type(backend).__name__ in ("LokyBackend", "MultiprocessingBackend")
    more = {"initializer": _end_with, "initargs": (os.getpid(),)} if own else {}
    return Parallel(n_jobs=jobs, return_as="generator_unordered" if streams else "list", **more)


def _train_remotely(job: SweepJob, run: _Run) -> tuple[_Run, TrainedPoint]:
    if job.token not in _JOBS:
        _JOBS.clear()
        _JOBS[job.token] = job
    return run, train_point(_JOBS[job.token], run.spec, run.start, run.before)


def _end_with(owner: int) -> None:
    """Let this worker end when the process that started it does, killed or not: nobody waits for its points then."""
    threading.Thread(target=_watch_owner, args=(owner,), daemon=True).start()


def _watch_owner(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(_PATIENCE)
    os._exit(1)
