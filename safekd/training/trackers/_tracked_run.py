"""A tracker as a callback: told of all that is read, and kept from doing harm."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from ...errors import InvalidInput, SafekdWarning
from ..resume import keep_random_states
from ..trace import Callback, RunInfo, TracePoint
from ._tracker_adapters import TRACKERS, Tracker


class TrackedRun(Callback):
    """Tells a tracker of a run: its settings, the numbers of every trace point, and the verdict.

    The tracker cannot change the run: the random generators go on as if it had drawn nothing, and what it raises is
    warned of once, after which it is told nothing more until it is asked to finish.  Ctrl-C goes through.  On several
    processes the first one tracks.  A run that goes on from a checkpoint begins a run of the tracker that holds the
    points up to there as well; the second training within one ``fit`` (``tighten=``) is tracked as ``NAME-2``, and so
    on.

    Args:
        tracker: An object with the methods of ``Tracker``, or "tensorboard", "wandb" or "mlflow".
        name: Of the run.
        config: Your settings, which stand beside those of the run.

    Raises:
        InvalidInput: The name is none, a method is missing, or the tracker's package is not installed.
    """

    def __init__(self, tracker: Tracker | str, name: str = "run", config: Mapping[str, Any] | None = None) -> None:
        if isinstance(tracker, str):
            if tracker not in TRACKERS:
                raise InvalidInput(
                    f"No tracker is called '{tracker}'; wanted one of {', '.join(TRACKERS)}, or an object."
                )
            tracker = TRACKERS[tracker]()
        missing = [method for method in ("start", "log", "finish") if not callable(getattr(tracker, method, None))]
        if missing:
            raise InvalidInput(
                f"Tracker {type(tracker).__qualname__} has no method {missing[0]}; wanted an object with "
                "start(run_name, config), log(step, numbers) and finish(status, message)."
            )
        self._tracker, self._name, self._config = tracker, name, dict(config or {})
        self._runs, self._started, self._failed = 0, False, False

    def on_start(self, run: RunInfo) -> None:
        """Begin a run of the tracker.

        Args:
            run: What the run is going to do.
        """
        self._runs += 1
        name = self._name if self._runs == 1 else f"{self._name}-{self._runs}"
        self._started = self._call("start", lambda: self._tracker.start(name, self._list_settings(run)))
        for point in run.past:
            self.on_trace(point)

    def on_trace(self, point: TracePoint) -> None:
        """Log the numbers of a point.

        Args:
            point: What was read.
        """
        row = {name: cell for name, cell in point.as_row().items() if not isinstance(cell, str)}
        numbers = {name: float(cell) for name, cell in row.items() if cell is not None and not math.isnan(cell)}
        self._call("log", lambda: self._tracker.log(point.step, numbers))

    def on_end(self, result: Any) -> None:
        """Hand the verdict on, to a tracker that failed on the way too, so that it can close what it opened.

        Args:
            result: The FitResult.
        """
        if self._started:
            self._call("finish", lambda: self._tracker.finish(result.status, result.message), after_failure=True)

    def _list_settings(self, run: RunInfo) -> dict[str, Any]:
        thresholds = {name: float(required) for name, required in zip(run.constraints, run.required, strict=True)}
        known = {name: value for name, value in vars(run).items() if name not in ("past", "constraints", "required")}
        return {**known, "splits": list(run.splits), "constraints": thresholds, **deepcopy(self._config)}

    def _call(self, method: str, call: Callable[[], None], *, after_failure: bool = False) -> bool:
        """Return whether the tracker did as it was asked."""
        if self._failed and not after_failure:
            return False
        try:
            with keep_random_states():
                call()
        except Exception as error:  # whatever it is, the training is worth more
            if not self._failed:
                self._failed = True
                warnings.warn(
                    f"Tracker {type(self._tracker).__qualname__} failed in {method}: {type(error).__name__}: {error}. "
                    "It is told nothing more; the training goes on, and its result has the whole trace.",
                    SafekdWarning,
                    stacklevel=2,
                )
            return False
        return True
