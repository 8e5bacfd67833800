"""The averaged iterate: what a run in minibatches is judged by, and hands back.

Steps of one batch each leave student and multipliers in motion for ever, round a point that none of them stays at.  The
mean over the last part of the way is that point, but for a fraction of the noise.  After step t

    average <- average + (now - average) (1 + DECAY) / (t + DECAY)

which weighs step s like (s / t)^DECAY: a window that grows with the run, about the last tenth of it, so that nothing is
to be tuned to its length.  Source: polynomial-decay averaging, Shamir and Zhang 2013.  Axes: M constraints.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from solvers.primal_dual import PrimalDual

DECAY = 9.0


class AveragedIterate:
    """Mean of a student's parameters and floating-point buffers, and of the multipliers that went with them.

    Args:
        student: Followed in place; what is frozen is left alone.
        engine: Holds the multipliers.
    """

    def __init__(self, student: nn.Module, engine: PrimalDual) -> None:
        self._engine = engine
        self._live = [p.data for p in student.parameters() if p.requires_grad]
        self._live += [b for b in student.buffers() if b.is_floating_point()]
        self._mean = [x.clone() for x in self._live]
        self._taken = 0
        self.multipliers, self.equality_multipliers = engine.multipliers.clone(), engine.equality_multipliers.clone()

    @torch.no_grad()
    def add(self) -> None:
        """Take the iterate after one more step into the mean."""
        self._taken += 1
        share = (1 + DECAY) / (self._taken + DECAY)
        torch._foreach_lerp_(self._mean, self._live, share)
        self.multipliers = torch.lerp(self.multipliers, self._engine.multipliers, share)
        self.equality_multipliers = torch.lerp(self.equality_multipliers, self._engine.equality_multipliers, share)

    @torch.no_grad()
    def install(self) -> None:
        """Leave the student at the mean."""
        for x, mean in zip(self._live, self._mean, strict=True):
            x.copy_(mean)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Put the student at the mean for a while, and back, bit for bit."""
        held = [x.clone() for x in self._live]
        self.install()
        try:
            yield
        finally:
            with torch.no_grad():
                for x, value in zip(self._live, held, strict=True):
                    x.copy_(value)
