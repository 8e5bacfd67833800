"""Rows of one call split among threads.

Kernels release the interpreter lock, so plain threads of ``concurrent.futures`` use all cores.  They belong to one
process: a forked child (a DataLoader worker) has none and starts its own at first need.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from ._row_shares import LARGEST, Tally, finish_share, new_tally, take_share, wait_for_rows


@dataclass(frozen=True)
class ThreadSettings:
    """When threads help, and how much each takes at once; `python -m benchmarks.projection` shows a change.

    Attributes:
        worth_a_thread: Numbers, for rows side by side, for which another thread is woken.  That takes some 20 us, and
            so many numbers take about three times as long.
        share: Numbers a share holds: a few microseconds, so that nobody waits long for the last one.
        one_by_one: How many times longer a number takes where rows do not stand side by side.
        together: Rows that kernels take side by side and that fit into a share without rest.
    """

    worth_a_thread: int = 1 << 16
    share: int = 1 << 11
    one_by_one: int = 8
    together: int = 16


THREADS = ThreadSettings()
_pools: dict[int, ThreadPoolExecutor] = {}  # one, by how many threads it may start: at need, where none is idle


def count_helpers(rows: int, columns: int, effort: int = 1) -> int:
    """Return how many threads should help with rows of so many numbers.

    As many as torch uses (``torch.set_num_threads``) less the caller's own, fewer when there is little to do.
    effort: what a number takes, relative to rows side by side.
    """
    most = rows * columns * effort // THREADS.worth_a_thread
    return most and min(torch.get_num_threads() - 1, most)


def run_over_rows(run: Callable[[int, int], int], rows: int, columns: int) -> int:
    """Call ``run(start, stop)`` over shares that cover ``rows``; return the largest answer."""

    def work(tally: Tally, share: int) -> None:
        while (start := take_share(tally, share)) < rows:
            stop = min(start + share, rows)
            finish_share(tally, stop - start, run(start, stop))

    return share_rows(work, rows, columns, THREADS.one_by_one)


def share_rows(work: Callable[[Tally, int], None], rows: int, columns: int, effort: int = 1) -> int:
    """Call ``work(tally, share)`` in several threads; return the largest result in the tally.

    Each thread takes the next share when it is done with one, so a thread that comes late or is kept waiting holds up
    nobody.  What a helper raises is raised here.
    work: takes shares of so many rows from the tally until none is left.  columns, effort: as in ``count_helpers``.
    """
    tally, helpers = new_tally(), count_helpers(rows, columns, effort)
    if helpers <= 0:
        work(tally, rows)
        return int(tally[LARGEST])
    share = max(THREADS.together, THREADS.share // columns // THREADS.together * THREADS.together)
    jobs = [job for _ in range(helpers) if (job := _start_helper(work, tally, share))]
    work(tally, share)  # this thread works too
    if not wait_for_rows(tally, rows):
        for job in jobs:
            job.result()
    return int(tally[LARGEST])


def _start_helper(work: Callable[[Tally, int], None], tally: Tally, share: int) -> Future[None] | None:
    """Start ``work`` in a thread of the pool, or return None while the interpreter shuts down."""
    threads = max(1, torch.get_num_threads() - 1)
    pool = _pools.get(threads)
    if pool is None:
        _pools.clear()
        pool = _pools.setdefault(threads, ThreadPoolExecutor(threads, "safekd-projection"))
    try:
        return pool.submit(work, tally, share)
    except RuntimeError:
        return None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)
