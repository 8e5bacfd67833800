"""Callbacks: called while a run lasts; they may end it."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...errors import InvalidInput
from ._trace_files import format_line
from ._trace_points import TracePoint


@dataclass(frozen=True)
class RunInfo:
    """What a run is going to do.

    Attributes:
        steps: Optimizer steps at most.
        epochs: Passes over the training data at most.
        trace_every: Steps between points.
        tolerance: KKT residuals up to this are none.
        examples: Size of the training split.
        batch_size: Examples a step.
        constraints: Names, in the order of the readings.
        required: Their thresholds.
        splits: Names of all.
        seed: Order of batches.
        device: Where student and data are.
        past: Points of a run that goes on from a checkpoint; callbacks are not called with them again.
    """

    steps: int
    epochs: int
    trace_every: int
    tolerance: float
    examples: int
    batch_size: int
    constraints: Sequence[str]
    required: Sequence[float]
    splits: Sequence[str]
    seed: int
    device: str
    past: Sequence[TracePoint] = ()


class StopTraining(Exception):
    """Raised by a callback to end the run; its text says why, and becomes part of the verdict."""


class Callback(Protocol):
    """Is called while a run lasts.  Derive from it and write the methods you need, or any class that has all three.

    A callback that also has ``state_dict()`` and ``load_state_dict(state)`` goes on with its run from a checkpoint; the
    state is of numbers, texts, tensors, and containers of them.

    on_start and on_trace may raise StopTraining; the run then ends after the point at hand.  Any other exception
    goes through to whoever called ``fit``, with a note that names the callback.
    """

    def on_start(self, run: RunInfo) -> None:
        """Called once, before the first point.

        Args:
            run: What the run is going to do.
        """
        return

    def on_trace(self, point: TracePoint) -> None:
        """Called with every point.

        Args:
            point: What was read.
        """
        return

    def on_end(self, result: Any) -> None:
        """Called once, before anything is saved.

        Args:
            result: The FitResult.
        """
        return


@dataclass(frozen=True)
class OnTrace(Callback):
    """A function of a point as a callback.

    Attributes:
        call: Called with every point.
    """

    call: Callable[[TracePoint], object]

    def on_trace(self, point: TracePoint) -> None:
        """Hand the point on.

        Args:
            point: What was read.
        """
        self.call(point)


class JsonlWriter(Callback):
    """Appends every point to a file as one line of JSON, at once, so that a run that is killed leaves its trace.

    A run that goes on from a checkpoint begins the file anew with the points up to there, so that no line stands twice.
    What a link in the file's place leads to is left as it is.  A line that cannot be written, on a full disk say, is
    warned of and ends the writing, not the run.

    Args:
        path: A .jsonl file; one that is there is begun anew.

    Raises:
        InvalidInput: The file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self._flags = Path(path), 0

    def on_start(self, run: RunInfo) -> None:
        """Make the folder and an empty file.

        Args:
            run: What the run is going to do.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            stream = self.path.exists() and not (self.path.is_file() or self.path.is_dir())  # a pipe, a terminal
            if not stream:
                self.path.unlink(missing_ok=True)
            self._flags = os.O_WRONLY | os.O_APPEND | (0 if stream else os.O_CREAT | getattr(os, "O_NOFOLLOW", 0))
            self._append("".join(format_line(point.as_row()) for point in run.past).encode())
        except OSError as error:
            raise InvalidInput(f"Cannot write {self.path}: {error.strerror}. Choose another place.") from error

    def on_trace(self, point: TracePoint) -> None:
        """Append one line, in one write.

        Args:
            point: What was read.
        """
        if self._flags == 0:
            return
        try:
            self._append(format_line(point.as_row()).encode())
        except OSError as error:
            self._flags = 0
            warnings.warn(
                f"{self.path} ends before step {point.step}: {error.strerror or error}. The run goes on; its result "
                "has the whole trace.",
                stacklevel=2,
            )

    def _append(self, line: bytes) -> None:
        handle = os.open(self.path, self._flags, 0o666)
        try:
            if os.write(handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)


class Callbacks:
    """Several callbacks, called in order, and what they asked for.

    Args:
        callbacks: Objects with all three methods.

    Raises:
        InvalidInput: One lacks a method.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        for callback in callbacks:
            missing = [name for name in ("on_start", "on_trace", "on_end") if not callable(getattr(callback, name, 0))]
            if missing:
                raise InvalidInput(
                    f"Callback {_callback_name(callback)} has no method {missing[0]}; derive it from "
                    "kd.training.trace.Callback, or pass a function as on_trace=."
                )
        self._callbacks = list(callbacks)
        self._stopped: str | None = None

    def stopped(self) -> str | None:
        """Return who ended the run and why, None while nobody did."""
        return self._stopped

    def state(self) -> dict[str, Any]:
        """Return the states of those that have one, by their number among all."""
        with_state = {str(n): one for n, one in enumerate(self._callbacks) if hasattr(one, "load_state_dict")}
        return {number: one.state_dict() for number, one in with_state.items()}  # type: ignore[attr-defined]

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Let those that have a state go on from it.

        Args:
            state: Of ``state``, of the same callbacks.
        """
        for number, one in enumerate(self._callbacks):
            if str(number) in state and hasattr(one, "load_state_dict"):
                one.load_state_dict(state[str(number)])

    def start(self, run: RunInfo) -> None:
        """Call all: the run begins.

        Args:
            run: What the run is going to do.
        """
        for callback in self._callbacks:
            with self._name_errors(callback, "on_start"):
                callback.on_start(run)

    def trace(self, point: TracePoint) -> None:
        """Call all with a point; each gets it, even after one asked to stop.

        Args:
            point: What was read.
        """
        for callback in self._callbacks:
            with self._name_errors(callback, "on_trace"):
                callback.on_trace(point)

    def end(self, result: Any) -> None:
        """Call all: the run is over; it is too late to stop it.

        Args:
            result: The FitResult.
        """
        for callback in self._callbacks:
            with self._name_errors(callback, "on_end"):
                callback.on_end(result)

    @contextmanager
    def _name_errors(self, callback: Callback, method: str) -> Iterator[None]:
        try:
            yield
        except StopTraining as request:
            if self._stopped is None:
                self._stopped = f"{_callback_name(callback)} stopped the run: {str(request) or 'it gave no reason'}"
        except Exception as error:
            error.add_note(f"Raised in {method} of callback {_callback_name(callback)}.")
            raise


def _callback_name(callback: object) -> str:
    inner = getattr(callback, "call", callback)  # the function that was passed, not what it was wrapped in
    return str(getattr(inner, "__qualname__", type(inner).__qualname__))
