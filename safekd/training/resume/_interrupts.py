"""Requests to stop, by Ctrl-C or by a machine that is taken away: the step at hand is finished first."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM")


class Interrupts:
    """Signals that arrive while a run lasts.

    The first one is noted, so that the run can finish its step and write a checkpoint; a second one stops at once.
    Either then does what it would have done without this: SIGINT raises KeyboardInterrupt, SIGTERM ends the process
    with code 143, and a handler of the program's own is called.

    Attributes:
        noted: The signal that arrived, None while none did.
    """

    def __init__(self) -> None:
        self.noted: int | None = None
        self._before: dict[int, Any] = {}

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Take note of signals for a while; in other threads than the main one they are none of its business.

        Yields:
            Nothing.
        """
        if threading.current_thread() is threading.main_thread():
            self._install()
        try:
            yield
        finally:
            before = self._put_back()
        if self.noted is not None:  # it came when no step was left to be finished
            _deliver(self.noted, before.get(self.noted), None)

    def stop(self) -> None:
        """Let the signal that was noted do what it would have done."""
        if self.noted is not None:
            self._deliver_through(self.noted, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted is None:
            self.noted = number
        else:
            self._deliver_through(number, frame)

    def _deliver_through(self, number: int, frame: FrameType | None) -> None:
        """Call what the program had set for a signal; where that returns, the run goes on, and takes note again."""
        self.noted, before = None, self._put_back()
        _deliver(number, before.get(number), frame)
        self._install()

    def _install(self) -> None:
        for name in _SIGNALS:
            number = getattr(signal, name)
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # ignored on purpose, by nohup say; or not Python's
                self._before[number] = handler
                signal.signal(number, self._note)

    def _put_back(self) -> dict[int, Any]:
        before, self._before = self._before, {}
        for number, handler in before.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
        return before


def _deliver(number: int, handler: Any, frame: FrameType | None) -> None:
    if callable(handler):
        handler(number, frame)
    elif number == signal.SIGINT:
        raise KeyboardInterrupt
    else:  # unwinds, where the signal itself would end the process on the spot
        sys.exit(128 + number)
