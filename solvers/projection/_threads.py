"""Rows split among threads of our own.

Kernels release the interpreter lock, so plain threads use all cores.  The pool belongs to one process: a forked child
(a DataLoader worker) has no threads and starts its own at first need.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

_SHARE = 1 << 14  # numbers a share holds at least: some fifty microseconds of work, half of what waking a thread takes
_WORTH_A_THREAD = 6  # shares for which another thread is woken
_SHARES = 16  # most shares a thread: more would only be handed out
_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def over_rows(run: Callable[[int, int], int], rows: int, columns: int) -> int:
    """Call ``run(start, stop)`` over shares that cover ``rows``; return the largest answer.

    As many threads as torch uses (``torch.set_num_threads``), fewer when there is little to do.  Each takes the next
    share when it is done with one, so a thread that comes late or is kept waiting holds up nobody.
    """
    shares = rows * columns // _SHARE
    threads = max(1, min(torch.get_num_threads(), 1 + shares // _WORTH_A_THREAD))
    if threads == 1:
        return run(0, rows)
    shares = min(shares, _SHARES * threads)
    edges = [rows * share // shares for share in range(shares + 1)]
    left = iter(range(shares))  # handing out the next one is atomic

    def work() -> int:
        return max((run(edges[share], edges[share + 1]) for share in left), default=0)

    others = [_pool(threads).submit(work) for _ in range(threads - 1)]
    return max(work(), *(other.result() for other in others))  # this thread works too


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads - 1, thread_name_prefix="safekd-projection")
        return _pools[threads]


def _forget() -> None:
    global _lock
    _lock = threading.Lock()  # the parent may have held it while forking
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
