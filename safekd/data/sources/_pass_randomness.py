"""Random numbers of one pass over a stream, apart from those of everything else.

A loader draws the order of its examples, and a dataset its crops, from Python's, numpy's or torch's global generator.
Here each pass has its own state of all of them, begun from a seed: a pass is the same whenever it is repeated, and
whatever else draws numbers meanwhile; and what is trained draws the same numbers, however many passes read the data.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class PassRandomness:
    """The random state of one pass.

    Args:
        seed: Where it begins, from 0 and below 2**63.
        generators: torch generators that the loader has of its own, and the seeds that they were given.
    """

    def __init__(self, seed: int, generators: Sequence[tuple[torch.Generator, int]] = ()) -> None:
        self._generators = [generator for generator, _ in generators]
        outer = self._read()
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  # what old code draws from
        torch.default_generator.manual_seed(seed)
        for generator, own in generators:
            generator.manual_seed((seed + own) % 2**63)
        self._states = self._read()
        self._install(outer)

    @contextmanager
    def use(self) -> Iterator[None]:
        """Draw from this pass inside the block.

        Yields:
            Nothing.
        """
        outer = self._read()
        self._install(self._states)
        try:
            yield
        finally:
            self._states = self._read()
            self._install(outer)

    def _read(self) -> tuple[Any, ...]:
        own = [generator.get_state() for generator in self._generators]
        return random.getstate(), np.random.get_state(), torch.get_rng_state(), own  # noqa: NPY002

    def _install(self, states: tuple[Any, ...]) -> None:
        python, array, tensor, own = states
        random.setstate(python)
        np.random.set_state(array)  # noqa: NPY002
        torch.set_rng_state(tensor)
        for generator, state in zip(self._generators, own, strict=True):
            generator.set_state(state)
