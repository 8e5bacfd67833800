"""Rows split among threads of our own.

Kernels release the interpreter lock, so plain threads use all cores.  They belong to one process: a forked child (a
DataLoader worker) has none and starts its own at first need.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ._row_shares import LARGEST, Tally, finish_share, new_tally, take_share, wait_for_rows

_WORTH_A_THREAD = 1 << 15  # numbers, side by side, for which another thread is woken: they take ten times as long
_SHARE = 1 << 11  # numbers a share holds
_ONE_BY_ONE = 8  # how many times longer a number takes where rows do not stand side by side
_TOGETHER = 16  # rows that kernels take side by side fit into a share without rest
_idle: list[_Worker] = []
_lock = threading.Lock()
_started = 0  # threads of ours in this process


def run_over_rows(run: Callable[[int, int], int], rows: int, columns: int) -> int:
    """Call ``run(start, stop)`` over shares that cover ``rows``; return the largest answer."""

    def work(tally: Tally, share: int) -> None:
        while (start := take_share(tally, share)) < rows:
            stop = min(start + share, rows)
            finish_share(tally, stop - start, run(start, stop))

    return share_rows(work, rows, columns, _ONE_BY_ONE)


def share_rows(work: Callable[[Tally, int], None], rows: int, columns: int, effort: int = 1) -> int:
    """Call ``work(tally, share)`` in several threads; return the largest result in the tally.

    As many threads as torch uses (``torch.set_num_threads``), fewer when there is little to do.  Each takes the next
    share when it is done with one, so a thread that comes late or is kept waiting holds up nobody.
    work: takes shares of so many rows from the tally until none is left.  effort: what a number takes, relative to
    rows side by side.
    """
    tally = new_tally()
    helpers = min(torch.get_num_threads() - 1, rows * columns * effort // _WORTH_A_THREAD)
    if helpers <= 0:
        work(tally, rows)
        return int(tally[LARGEST])
    share = max(_TOGETHER, _SHARE // columns // _TOGETHER * _TOGETHER)
    jobs = [worker.begin(work, tally, share) for worker in _free_workers(helpers)]
    work(tally, share)  # this thread works too
    if not wait_for_rows(tally, rows):
        for job in jobs:
            job.wait()
    return int(tally[LARGEST])


class _Job:
    """What one helper does for one call."""

    __slots__ = ("_ended", "_failure", "_parts")

    def __init__(self, *parts: Any) -> None:
        self._parts, self._ended = parts, threading.Lock()
        self._failure: BaseException | None = None
        self._ended.acquire()

    def run(self) -> None:
        work, tally, share = self._parts
        try:
            work(tally, share)
        except BaseException as cause:
            self._failure = cause
        finally:
            self._ended.release()

    def wait(self) -> None:
        """Return when it is done; raise what it raised."""
        with self._ended:
            if self._failure is not None:
                raise self._failure


class _Worker:
    """A thread that sleeps until there is a job."""

    def __init__(self) -> None:
        self._wake = threading.Lock()
        self._wake.acquire()
        self._job: _Job | None = None
        threading.Thread(target=self._serve, name="safekd-projection", daemon=True).start()

    def begin(self, work: Callable[[Tally, int], None], tally: Tally, share: int) -> _Job:
        """Start a job, which nobody else may have given to this thread."""
        job = self._job = _Job(work, tally, share)
        self._wake.release()
        return job

    def _serve(self) -> None:
        while True:
            self._wake.acquire()
            if self._job is not None:
                self._job.run()
            self._job = None  # scores and weights live no longer than their call
            _idle.append(self)


def _free_workers(wanted: int) -> Iterator[_Worker]:
    """Yield threads that have nothing to do, at most so many; there are no more in all than one call has asked for."""
    global _started
    for _ in range(wanted):
        try:
            yield _idle.pop()
        except IndexError:
            with _lock:
                if _started >= wanted:
                    return
                _started += 1
            yield _Worker()


def _forget() -> None:
    global _lock, _started
    _lock, _started = threading.Lock(), 0  # the parent may have held it while forking
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
