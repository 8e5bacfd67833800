"""Clocks, memory, child processes and facts of a run that the benchmarks share.

A call is warmed up, then timed in blocks long enough for the clock; the median block counts.  Two calls that are to be
compared take turns, so that a slow minute of the machine slows both.  Memory is the resident peak of the process, reset
before the call where the system can do so (Linux), because libraries allocate behind Python's back.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import gc
import math
import multiprocessing
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_BLOCK = 2e-2  # seconds: one much shorter would time the clock, or caches that another call has emptied
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Timing:
    """seconds: median of one call.  repeats: how many timed blocks that is the median of.

    cores: processor time of all threads over wall time; NaN where it was not looked at.
    """

    seconds: float
    repeats: int
    cores: float = math.nan


def time_calls(call: Callable[[], object], budget: float, expected: float = 0.0, most: int = 9) -> Timing:
    """Time ``call`` within about ``budget`` seconds; a call expected to fill it is timed once, without warm-up."""
    if expected <= budget / 4:
        call()
    wall, busy = time.perf_counter(), time.process_time()
    first = _seconds(call, 1)
    calls = max(1, round(_BLOCK / max(first, 1e-7)))
    blocks = int(min(most, (budget - 2 * first) // max(first * calls, 1e-9)))
    times = [_seconds(call, calls) for _ in range(blocks)] if blocks > 1 else [first]
    cores = (time.process_time() - busy) / (time.perf_counter() - wall)
    return Timing(statistics.median(times), len(times), cores)


def take_turns(calls: Sequence[Callable[[], object]], budget: float, least: int = 3, most: int = 15) -> list[Timing]:
    """Time several calls in turns, one block each a round, and return their medians in order."""
    firsts = []
    for call in calls:
        call()
        firsts.append(_seconds(call, 1))
    counts = [max(1, round(_BLOCK / max(first, 1e-7))) for first in firsts]
    round_costs = sum(first * count for first, count in zip(firsts, counts, strict=True))
    rounds = max(least, min(most, int(budget / max(round_costs, 1e-9))))
    blocks = [[_seconds(call, count) for call, count in zip(calls, counts, strict=True)] for _ in range(rounds)]
    return [Timing(statistics.median(column), rounds) for column in zip(*blocks, strict=True)]


def _seconds(call: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


class PeakMemory:
    """Counts resident bytes at the peak beyond those at the start; None where the system does not tell."""

    def __init__(self) -> None:
        self._start: int | None = None
        _give_back()
        try:
            Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
            self._start = _resident("VmRSS")
        except OSError:
            pass

    def bytes(self) -> int | None:
        """Return the bytes so far."""
        peak = _resident("VmHWM")
        return None if self._start is None or peak is None else max(0, peak - self._start)


def _give_back() -> None:
    """Return freed memory to the system, or a call would seem to need only what it takes beyond its predecessor's."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def _resident(field: str) -> int | None:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None


def reset_peak() -> int | None:
    """Set the resident peak back to what is resident now, where the system can, and return that, bytes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return resident_peak()


def resident_peak() -> int | None:
    """Return the most resident bytes that this process ever had, None where the system does not tell."""
    return _resident("VmHWM") if _STATUS.exists() else None


def available_memory() -> float:
    """Return the bytes this machine can still give, infinity where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    found = [int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else math.inf


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Return the slope of log(seconds) over log(size) by least squares; None for fewer than two sizes."""
    if len(set(sizes)) < 2:
        return None
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in seconds]
    return statistics.linear_regression(x, y).slope


def in_child(produce: Callable[..., Iterator[Any]], *args: object, patience: float) -> Iterator[Any]:
    """Run a generator in a fresh process and yield what it yields.

    produce: importable by name, as its arguments and results must be picklable.  patience: seconds between results
    after which the child is stopped.  Raises ChildDied if it ends early or is stopped; earlier results were yielded.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_run_child, args=(theirs, produce, args), daemon=True)
    child.start()
    theirs.close()
    try:
        while True:
            if not ours.poll(patience):
                raise ChildDied(f"no answer for {patience:.0f} s, stopped")
            kind, value = ours.recv()
            if kind == "end":
                return
            if kind == "error":
                raise ChildDied(value)
            yield value
    except EOFError as cause:
        child.join(5)
        raise ChildDied(f"its process ended with code {child.exitcode}, most likely for lack of memory") from cause
    finally:
        child.terminate()
        child.join()


class ChildDied(RuntimeError):
    """A child process did not finish; the text says why."""


def _run_child(pipe: Connection, produce: Callable[..., Iterator[Any]], args: tuple[object, ...]) -> None:
    warnings.simplefilter("ignore")  # a peer's advice is not a result
    try:
        for value in produce(*args):
            pipe.send(("value", value))
        pipe.send(("end", None))
    except Exception as cause:
        pipe.send(("error", f"{type(cause).__name__}: {cause}"))
    finally:
        pipe.close()


def processor() -> str:
    """Return the CPU model and how many cores this process may use; no host name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {cores} cores"


def versions(packages: Sequence[str]) -> str:
    """Return the version of each package, or how to install it."""
    return ", ".join(f"{name} {_version(name)}" for name in packages)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"missing (pip install {name})"


def today() -> str:
    """Return the date, universal time."""
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def report_path(text: str) -> Path:
    """Return where a report goes, asked before an hour of measuring and not after it: argparse's ``type=``."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; wanted a file, such as {path / 'report.md'}")
    return path
