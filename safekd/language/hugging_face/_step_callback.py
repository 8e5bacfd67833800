"""When a run of transformers begins, moves and ends, for what happens beside its own loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

Hook = Callable[[], None]


class StepCallback(TrainerCallback):
    """Calls one function at each of four moments.

    Args:
        begin: Once weights, optimizer and schedule are in place, before the first step.
        finish: After each step of the optimizer.
        counted: After it is counted, before anything is logged, evaluated or saved.
        end: After the last step.
    """

    def __init__(self, begin: Hook, finish: Hook, counted: Hook, end: Hook) -> None:
        self._begin, self._finish, self._counted, self._end = begin, finish, counted, end

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by transformers."""
        self._begin()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by transformers."""
        self._finish()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called by transformers."""
        self._counted()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by transformers."""
        self._end()
