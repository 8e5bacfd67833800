"""Who runs the cells of a sweep: this process, or several by joblib, on whatever backend it is told to use.

Chains ask in rounds.  Each round's requests, of all chains, run side by side; what a run gives depends on its request
alone, so how many workers there are changes nothing but the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from joblib import Parallel, delayed
from joblib.parallel import get_active_backend

from ..errors import InvalidInput
from ._cells import Cell, Request, Store
from ._chain import Chain, Steps
from ._solve import Job, Made, solve

Want = tuple[int, Request]

_HERE: dict[str, Job] = {}  # in a worker: the job as it first came, whose teachers keep what they were asked


def run_chains(
    chains: Sequence[Chain], job: Job, jobs: int | None, store: Store | None, made: tuple[str, Made]
) -> None:
    """Run every chain to its end.  made: a cell's name and its trainer, which this process need not make again."""
    runner = _Runner(job, jobs, store, dict([made]))
    live = {number: _Live(chain, chain.steps()) for number, chain in enumerate(chains)}
    while live:
        for number, one in list(live.items()):
            try:
                one.wanted = next(one.steps) if one.answers is None else one.steps.send(one.answers)
            except StopIteration:
                del live[number]
        wants = [(number, request) for number, one in live.items() for request in one.wanted]
        found: dict[tuple[int, str], Cell] = {}
        for number, request, cell in runner.round(wants, {n: one.cells for n, one in live.items()}):
            found[number, request.name] = cell
            if len(live[number].wanted) > 1:
                live[number].chain.landed(request, cell)
        for number, one in live.items():
            one.answers = [found[number, request.name] for request in one.wanted]
            one.cells |= {cell.request.name: cell for cell in one.answers}


@dataclass
class _Live:
    chain: Chain
    steps: Steps
    wanted: list[Request] = field(default_factory=list)
    answers: list[Cell] | None = None
    cells: dict[str, Cell] = field(default_factory=dict)


class _Runner:
    """Answers requests: from disk where they were answered before, else by training."""

    def __init__(self, job: Job, jobs: int | None, store: Store | None, made: dict[str, Made]) -> None:
        self.job, self.jobs, self.store, self.made = job, jobs, store, made

    def round(self, wants: Sequence[Want], cells: dict[int, dict[str, Cell]]) -> Iterator[tuple[int, Request, Cell]]:
        """Yield the cell of each request as it is done."""
        open_: list[Want] = []
        for number, request in wants:
            kept = None if self.store is None else self.store.read(request)
            if kept is None:
                open_.append((number, request))
            else:
                yield number, request, kept
        tasks = []
        for number, request in open_:
            start, before = (None if name is None else cells[number][name] for name in (request.start, request.before))
            tasks.append((number, request, start, before))
        if self.jobs is None or self.jobs == 1:
            for number, request, start, before in tasks:
                yield number, request, solve(self.job, request, start, before, self.made.pop(request.name, None))
            return
        if not tasks:
            return
        yield from self._pool()(delayed(_remote)(self.job, *task) for task in tasks)

    def _pool(self) -> Parallel:
        """Return joblib's pool on the backend that is set; cells come as they are done where it can do that."""
        backend, _ = get_active_backend()
        if getattr(backend, "supports_sharedmem", False):
            raise InvalidInput(
                "joblib is set to a backend of threads, which share one state of random numbers; "
                "use 'loky', which is its own choice, 'ray' or 'dask'."
            )
        streams = getattr(backend, "supports_return_generator", False)
        return Parallel(n_jobs=self.jobs, return_as="generator_unordered" if streams else "list")


def _remote(
    job: Job, number: int, request: Request, start: Cell | None, before: Cell | None
) -> tuple[int, Request, Cell]:
    if job.token not in _HERE:
        _HERE.clear()
        _HERE[job.token] = job
    return number, request, solve(_HERE[job.token], request, start, before)
