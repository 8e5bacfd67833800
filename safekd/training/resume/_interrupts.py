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
            for name in _SIGNALS:
                number = getattr(signal, name)
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):  # ignored on purpose, by nohup say; or not Python's
                    self._before[number] = handler
                    signal.signal(number, self._note)
        try:
            yield
        finally:
            self._put_back()
        if self.noted is not None:  # it came when no step was left to be finished
            self.stop()

    def stop(self) -> None:
        """Let the signal that was noted do what it would have done."""
        number, self.noted = self.noted, None
        handler = self._before.get(number or 0)
        self._put_back()
        if number is not None:
            _deliver(number, handler, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted is not None:
            self.noted = None
            handler = self._before.get(number)
            self._put_back()
            _deliver(number, handler, frame)
            return
        self.noted = number

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)


def _deliver(number: int, handler: Any, frame: FrameType | None) -> None:
    if callable(handler):
        handler(number, frame)
    elif number == signal.SIGINT:
        raise KeyboardInterrupt
    else:  # unwinds, where the signal itself would end the process on the spot
        sys.exit(128 + number)
