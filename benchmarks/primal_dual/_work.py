"""Pieces of work, and processes that do them side by side.

Nothing here may stand in ``__main__``: a process that is spawned does not find it there.
"""

from __future__ import annotations

import functools
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch

from ._cells import Cell, call, train, walk
from ._peers import PEERS
from ._problems import QP_SIZES, Problem, frontier, quadratics, table
from ._report import FAMILIES
from ._solvers import SOLVERS
from ._steps import OURS, PENALTIES
from ._students import StudentTask, breast_cancer, digits

STEPPERS = [*OURS, *PEERS, *PENALTIES]
_TRAINER = "ours, ConstrainedTrainer"
P = TypeVar("P")
R = TypeVar("R")


def measure(families: Sequence[str], quick: bool, defaults: bool, jobs: int) -> Iterator[Cell]:
    """Yield all cells, problem by problem; each contender on a problem is one piece of work for a process."""
    work = [
        (family, quick, defaults, number, name)
        for family in FAMILIES
        if family in families
        for number, name in _pairs(family, quick)
    ]
    if jobs == 1:
        for piece in work:
            yield from measure_one(*piece)
        return
    for done, cells in enumerate(run_side_by_side(_measure_apart, work, jobs), start=1):
        first = cells[0]
        said = f"{first.steps} steps" if first.solved else first.note
        say(f"{done} of {len(work)}: {first.problem}: {first.contender}: {said}")
        yield from cells


def run_side_by_side(measured: Callable[[P], list[R]], work: Sequence[P], jobs: int) -> Iterator[list[R]]:
    """Yield what each piece of work gives, in order, from processes of one thread each."""
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_begin) as pool:
        yield from pool.map(measured, work)


def _begin() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # a peer's advice is not a result


def _measure_apart(piece: tuple[str, bool, bool, int, str]) -> list[Cell]:
    return list(measure_one(*piece))


def measure_one(family: str, quick: bool, defaults: bool, number: int, name: str) -> Iterator[Cell]:
    """Yield the cells of one contender on one problem, its documented setting first."""
    task = _students(quick)[number] if family == "distillation" else None
    problem = problems(family, quick)[number] if task is None else task.problem
    if name == _TRAINER and task is not None:
        yield train(task)
    for who in SOLVERS:
        if who.name == name:
            yield call(problem, who)
    for who in STEPPERS:
        if who.name == name:
            alone = defaults or not who.grid or problem.truth != "solution"
            yield from (walk(problem, who, scale) for scale in (who.scales[:1] if alone else who.scales))


def _pairs(family: str, quick: bool) -> Iterator[tuple[int, str]]:
    listed = [task.problem for task in _students(quick)] if family == "distillation" else problems(family, quick)
    for number, problem in enumerate(listed):
        names = [_TRAINER] if family == "distillation" else [who.name for who in SOLVERS]
        yield from ((number, name) for name in names)
        yield from ((number, who.name) for who in STEPPERS if who.takes(problem))


@functools.cache
def problems(family: str, quick: bool) -> list[Problem]:
    """Return the problems of a family; quick ones are fewer, with fewer steps."""
    made = {"table": table, "frontier": frontier, "QP": lambda: quadratics([(6, 3)] if quick else QP_SIZES)}
    whole = made[family]()
    if not quick:
        return whole
    few = {"table": (0, 5), "frontier": (3,), "QP": (0,)}[family]
    return [replace(whole[number], steps=60) for number in few]


@functools.cache
def _students(quick: bool) -> list[StudentTask]:
    return [breast_cancer(40)] if quick else [breast_cancer(), digits()]


def say(text: str) -> None:
    """Print how far a long run is."""
    print(text, file=sys.stderr, flush=True)
