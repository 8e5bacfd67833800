"""Who is told of a run while it lasts, and may end it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...errors import InvalidInput
from ._trace_files import as_line
from ._trace_points import TracePoint


@dataclass(frozen=True)
class RunInfo:
    """What a run is going to do.

    steps: most optimizer steps; trace_every: steps between points; constraints: names, in the order of the readings;
    required: their thresholds; examples: size of the training split; batch_size: of a step; splits: names of all.
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


class StopTraining(Exception):
    """Raised by a callback to end the run; its text says why, and becomes part of the verdict."""


class Callback(Protocol):
    """Is told of a run.  Derive from it and write the methods you need, or write any class that has all three.

    on_start and on_trace may raise StopTraining; the run then ends after the point at hand.  Any other exception
    goes through to whoever called ``fit``, with a note that names the callback.
    """

    def on_start(self, run: RunInfo) -> None:
        """Called once, before the first point."""
        return

    def on_trace(self, point: TracePoint) -> None:
        """Called with every point."""
        return

    def on_end(self, result: Any) -> None:
        """Called once with the FitResult, before anything is saved."""
        return


@dataclass(frozen=True)
class OnTrace(Callback):
    """A function of a point as a callback."""

    call: Callable[[TracePoint], object]

    def on_trace(self, point: TracePoint) -> None:
        """Hand the point on."""
        self.call(point)


class JsonlWriter(Callback):
    """Appends every point to a file as one line of JSON, at once, so that a run that is killed leaves its trace.

    A file that is there is begun anew.  Raises InvalidInput when it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_start(self, run: RunInfo) -> None:
        """Make the folder and an empty file."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(b"")
        except OSError as error:
            raise InvalidInput(f"Cannot write {self.path}: {error.strerror}. Choose another place.") from error

    def on_trace(self, point: TracePoint) -> None:
        """Append one line, in one write."""
        with self.path.open("ab", buffering=0) as stream:
            stream.write(as_line(point.flat()).encode())


class Callbacks:
    """Several callbacks, told in order, and what they asked for."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        for callback in callbacks:
            missing = [name for name in ("on_start", "on_trace", "on_end") if not callable(getattr(callback, name, 0))]
            if missing:
                raise InvalidInput(
                    f"Callback {_name(callback)} has no method {missing[0]}; derive it from "
                    "kd.training.trace.Callback, or pass a function as on_trace=."
                )
        self._callbacks = list(callbacks)
        self._stopped: str | None = None

    def stopped(self) -> str | None:
        """Return who ended the run and why, None while nobody did."""
        return self._stopped

    def start(self, run: RunInfo) -> None:
        """Tell all that the run begins."""
        for callback in self._callbacks:
            with self._named(callback, "on_start"):
                callback.on_start(run)

    def trace(self, point: TracePoint) -> None:
        """Tell all of a point; each hears of it, even after one asked to stop."""
        for callback in self._callbacks:
            with self._named(callback, "on_trace"):
                callback.on_trace(point)

    def end(self, result: Any) -> None:
        """Tell all that the run is over; it is too late to stop it."""
        for callback in self._callbacks:
            with self._named(callback, "on_end"):
                callback.on_end(result)

    @contextmanager
    def _named(self, callback: Callback, method: str) -> Iterator[None]:
        try:
            yield
        except StopTraining as request:
            if self._stopped is None:
                self._stopped = f"{_name(callback)} stopped the run: {str(request) or 'it gave no reason'}"
        except Exception as error:
            error.add_note(f"Raised in {method} of callback {_name(callback)}.")
            raise


def _name(callback: object) -> str:
    inner = getattr(callback, "call", callback)  # the function that was passed, not what it was wrapped in
    return str(getattr(inner, "__qualname__", type(inner).__qualname__))
