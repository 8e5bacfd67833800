"""What moves while a run lasts, as parts of its state: how each is read, and how it is put back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...distributed import TrainedStudent
from ...errors import InvalidInput
from ._training_state import load_module_state, load_optimizer_state, load_scheduler_state, read_module_state


@dataclass(frozen=True)
class StatePart:
    """One part of a run's state.

    Attributes:
        read: Returns it.
        load: Puts it back.
    """

    read: Callable[[], Any]
    load: Callable[[Any], object]

    @classmethod
    def of_attributes(cls, holder: object, names: Sequence[str]) -> StatePart:
        """Return the part that some attributes of an object are.

        Args:
            holder: Has them.
            names: Of the attributes.
        """

        def load(state: Mapping[str, Any]) -> None:
            for name in names:
                setattr(holder, name, state[name])

        return cls(lambda: {name: getattr(holder, name) for name in names}, load)


def list_training_parts(
    trained: TrainedStudent,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
    scaler: torch.amp.GradScaler | None,
    changed: Sequence[str] = (),
) -> dict[str, StatePart]:
    """Return the parts that student, optimizer, schedule and loss scaling are.

    Args:
        trained: What is trained; the state is that of one process, whatever shards it has.
        optimizer: Of it.
        scheduler: Of its rate; None for none.
        scaler: Of the loss; None for none.
        changed: Keys of the run's record that may differ: settings that stay as they are here.
    """
    settings = [key.removeprefix("optimizer.") for key in changed if key.startswith("optimizer.")]

    def read_student() -> dict[str, Any]:
        trained.refresh()
        return read_module_state(trained.module)

    def load_student(state: Mapping[str, Any]) -> None:
        load_module_state(trained.module, state)
        trained.write_back()

    parts = {
        "student": StatePart(read_student, load_student),
        "optimizer": StatePart(
            lambda: trained.read_optimizer_state(optimizer),
            lambda state: load_optimizer_state(optimizer, trained.cut_optimizer_state(optimizer, state), settings),
        ),
    }
    if scheduler is not None and "scheduler" not in changed:
        parts["scheduler"] = StatePart(
            scheduler.state_dict, lambda state: load_scheduler_state(scheduler, state, settings)
        )
    if scaler is not None:
        parts["scaler"] = StatePart(scaler.state_dict, scaler.load_state_dict)
    return parts


def load_parts(parts: Mapping[str, StatePart], state: Mapping[str, Any]) -> None:
    """Put all parts back.

    Args:
        parts: By name.
        state: What they were, by name.

    Raises:
        InvalidInput: One does not fit; the message names it.
    """
    for name, part in parts.items():
        try:
            part.load(state[name])
        except (InvalidInput, KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
            reason = str(error) if isinstance(error, InvalidInput) else f"{type(error).__name__}: {error}."
            raise InvalidInput(
                f"The checkpoint does not fit this run: its `{name}` cannot be put back. {reason} Begin anew with "
                "resume='never', or choose another folder."
            ) from error
