"""The signals of one chunk, for rules that weigh teachers position by position.

Axes: C positions of a chunk, K teachers, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...weights import Signals, compute_disagreement


class ChunkSignals(Signals):
    """Signals of some positions, whose distributions lie in one buffer a teacher and are stacked only if asked for.

    Args:
        log_p: Log-probabilities of each teacher at temperature 1, (C, V).
        entropy: Of each teacher, (C, K).
        **others: As ``Signals`` takes them.
    """

    def __init__(self, log_p: Sequence[Tensor], entropy: Tensor, **others: Any) -> None:
        super().__init__(entropy=entropy, **others)
        self._buffers = log_p

    @property
    def log_p(self) -> Tensor:
        """Teachers' log-probabilities, (C, K, V): a copy that is made when a rule asks for it."""
        if self._log_p is None:
            self._log_p = torch.stack(list(self._buffers), dim=-2)
        return self._log_p

    @cached_property
    def disagreement(self) -> Tensor:
        """KL divergence of each teacher from the mean of all, (C, K), without a copy of all of them."""
        return compute_disagreement(self._buffers)
