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

_WORTH_A_THREAD = 1 << 18  # numbers a thread should have to do: half a millisecond; handing over takes a tenth
_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def over_rows(run: Callable[[int, int], int], rows: int, columns: int) -> int:
    """Call ``run(start, stop)`` over ranges that cover ``rows``; return the largest answer.

    As many threads as torch uses (``torch.set_num_threads``), fewer when there is little to do.
    """
    threads = max(1, min(torch.get_num_threads(), rows * columns // _WORTH_A_THREAD))
    if threads == 1:
        return run(0, rows)
    edges = [rows * part // threads for part in range(threads + 1)]
    parts = [_pool(threads).submit(run, edges[part], edges[part + 1]) for part in range(1, threads)]
    first = run(edges[0], edges[1])  # this thread takes a share too
    return max(first, *(part.result() for part in parts))


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
