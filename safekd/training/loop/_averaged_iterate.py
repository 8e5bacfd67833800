"""The averaged iterate: what a run in minibatches is judged by, and hands back.

Steps of one batch each leave student and multipliers in motion for ever, round a point that none of them stays at.  The
mean over the last part of the way is that point, but for a fraction of the noise.  After step t

    average <- average + (now - average) (1 + decay) / (t + decay)

which weighs step s like (s / t)^decay: a window that grows with the run, about the last tenth of it, so that nothing is
to be tuned to its length.  Source: polynomial-decay averaging, Shamir and Zhang 2013.
Axes: M inequalities, E equalities, C = M + E rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from solvers.primal_dual import PrimalDual

from ..._precision import widen
from ...distributed import cut_shard, read_whole, take_own_shard


@dataclass(frozen=True)
class AveragingSettings:
    """Numbers of the average.

    Attributes:
        decay: Exponent of a step's weight, (s / t)^decay: 9 weighs about the last tenth of the run
            (``tests/safekd/training/loop/test_averaged_iterate.py``).
    """

    decay: float = 9.0


SETTINGS = AveragingSettings()


class AveragedIterate:
    """Mean of a student's parameters and floating-point buffers, and of the multipliers that went with them.

    The mean is kept in float32 or wider: in half types the small shares of late steps would round to nothing.

    Args:
        student: Read in place; what is frozen is left alone.
        engine: Holds the multipliers.
        ema: Share of the past that stays from step to step, for an exponential moving average, in which the first
            value counts for nothing beside what came after it; None for the average of the last part of the way.
    """

    def __init__(self, student: nn.Module, engine: PrimalDual, ema: float | None = None) -> None:
        self._engine, self._ema = engine, ema
        self._current = [p.data for p in student.parameters() if p.requires_grad]
        self._current += [b for b in student.buffers() if b.is_floating_point()]
        self._mean = [widen(x).clone() for x in self._current]
        self._wide = all(mean.dtype == x.dtype for mean, x in zip(self._mean, self._current, strict=True))
        self._all_finite = all(bool(torch.isfinite(take_own_shard(x)).all()) for x in self._mean)
        self._steps = 0
        self._multiplier_C = engine.copy_multipliers()

    @property
    def multipliers(self) -> Tensor:
        """Mean multipliers of the inequalities, (M,)."""
        return self._multiplier_C[: self._engine.M]

    @property
    def equality_multipliers(self) -> Tensor:
        """Mean multipliers of the equalities, (E,)."""
        return self._multiplier_C[self._engine.M :]

    def add(self) -> None:
        """Take the iterate after one more step into the mean."""
        self._steps += 1
        if self._ema is None:
            share = (1 + SETTINGS.decay) / (self._steps + SETTINGS.decay)
        else:
            share = (1 - self._ema) / (1 - self._ema**self._steps)
        current = self._current if self._wide else [widen(x) for x in self._current]
        if self._all_finite:
            torch._foreach_lerp_(self._mean, current, share)
        else:  # what stays at minus infinity, a mask say, has itself for its mean
            self._mean = [
                torch.where(x == mean, x, mean.lerp(x, share)) for x, mean in zip(current, self._mean, strict=True)
            ]
        self._multiplier_C = torch.lerp(self._multiplier_C, self._engine.copy_multipliers(), share)

    def state(self) -> dict[str, Any]:
        """Return what a continued run needs."""
        return {
            "mean": [read_whole(mean) for mean in self._mean],
            "all_finite": self._all_finite,
            "steps": self._steps,
            "multipliers": self._multiplier_C,
        }

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave.

        Args:
            state: Of an average of the same student.
        """
        for mean, kept in zip(self._mean, state["mean"], strict=True):
            mean.copy_(cut_shard(kept, mean))
        self._all_finite, self._steps = state["all_finite"], state["steps"]
        self._multiplier_C = state["multipliers"].to(self._multiplier_C)

    @torch.no_grad()
    def install(self) -> None:
        """Leave the student at the mean."""
        for x, mean in zip(self._current, self._mean, strict=True):
            x.copy_(mean)

    @contextmanager
    def install_temporarily(self) -> Iterator[None]:
        """Put the student at the mean for a while, and back, bit for bit."""
        # the two change places, so that no third copy is held; in half types the mean would lose its digits there
        held = [x.clone() if x.dtype != mean.dtype else None for x, mean in zip(self._current, self._mean, strict=True)]
        self._change_places(held)
        try:
            yield
        finally:
            self._change_places(held, back=True)

    @torch.no_grad()
    def _change_places(self, held: Sequence[Tensor | None], back: bool = False) -> None:
        for x, mean, value in zip(self._current, self._mean, held, strict=True):
            if value is None:
                own = x.clone()
                x.copy_(mean)
                mean.copy_(own)
            else:
                x.copy_(value if back else mean)
