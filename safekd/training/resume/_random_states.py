"""The states of the random generators that a run may draw from: of Python, numpy and torch, on every device."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ...errors import InvalidInput


def read_random_states() -> dict[str, Any]:
    """Return the state of every global generator; what a program draws from generators of its own is its affair."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=True),  # noqa: NPY002  # what data sets and students may draw from
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


@contextmanager
def keep_random_states() -> Iterator[None]:
    """Let every global generator go on after the block as if nothing had been drawn inside.

    Yields:
        Nothing.
    """
    states = read_random_states()
    try:
        yield
    finally:
        set_random_states(states)


def set_random_states(states: Mapping[str, Any]) -> None:
    """Let every global generator go on from where it was.

    Args:
        states: Of ``read_random_states``; those of devices that are not here are left out.

    Raises:
        InvalidInput: They are no such states.
    """
    try:
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])  # noqa: NPY002
        torch.set_rng_state(states["torch"])
        for number, state in enumerate(states.get("cuda", [])[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, number)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise InvalidInput(f"Its random states are none: {type(error).__name__}: {error}.") from error
