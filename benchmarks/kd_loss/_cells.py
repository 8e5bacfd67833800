"""One size in a process of its own: contenders take turns, and each call is timed with its peak of memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .._timing import PeakMemory, available_memory
from ._contenders import STACKED, STRAIGHT, Problem, Size, list_contenders

SHARE_OF_MEMORY = 0.8  # of what the machine can still give: beyond it a call is skipped, not killed
WARM_ROWS = 32  # a first call, at the size's vocabulary, loads code and the buffers of the matrix library


@dataclass(frozen=True)
class Cost:
    """One call, forward and backward.

    seconds: wall.  busy: processor seconds of all threads.  bytes: resident peak beyond the start and the gradients;
    None where the system does not tell.  loss: its value.  note: why it was not measured.
    """

    size: Size
    way: str
    seconds: float
    busy: float
    bytes: int | None
    loss: float
    note: str = ""


def count_matrices(size: Size, way: str) -> int:
    """Return how many matrices (N, V) a contender that holds whole ones takes at its peak, about; 0 for the others."""
    if way == STACKED:
        return 5 + 3 * size.K
    return 6 + size.learned * (size.K + 1) if way == STRAIGHT else 0


def measure(size: Size, rounds: int, threads: int | None, with_rule: bool) -> Iterator[Cost]:
    """Yield one cost a contender and round, in turns."""
    if threads is not None:
        torch.set_num_threads(threads)
    contenders = list_contenders(size.learned, with_rule)
    problem = Problem(size)
    small = Problem(Size(size.K, size.V, min(size.N, WARM_ROWS), size.H, size.learned))
    for way in dict(contenders):
        needed = 4 * size.N * size.V * count_matrices(size, way)
        if needed > SHARE_OF_MEMORY * available_memory():
            nothing = float("nan")
            yield Cost(size, way, nothing, nothing, None, nothing, f"needs some {needed / 2**30:.0f} GiB")
            del contenders[way]
            continue
        contenders[way](small).backward()
    del small
    for _ in range(rounds):
        for way, compute in contenders.items():
            problem.clear()
            gc.collect()
            memory = PeakMemory()
            busy, wall = time.process_time(), time.perf_counter()
            loss = compute(problem)
            loss.backward()
            wall, busy = time.perf_counter() - wall, time.process_time() - busy
            peak = memory.bytes()
            beyond = None if peak is None else max(0, peak - problem.gradient_bytes)
            yield Cost(size, way, wall, busy, beyond, float(loss.detach()))
            del loss
