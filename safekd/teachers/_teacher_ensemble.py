"""K teachers that agree on what they talk about.  Axes: B batch, ... positions, K teachers, V classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data import Batch, Split, SplitCache
from ..errors import InvalidInput, NotFinite
from ._teacher import DISTRIBUTIONS, Teacher


class TeacherEnsemble:
    """Several teachers, asked together.

    Args:
        teachers: At least one, names all different.
        cache_limit: Outputs on a split are kept when they need at most this many bytes (teachers do not change while a
            student learns), else they are asked every batch.

    Raises:
        InvalidInput: There are no teachers, or two of one name.
    """

    def __init__(self, teachers: Sequence[Teacher], cache_limit: int = 2**30) -> None:
        self.teachers = list(teachers)
        self.names = [teacher.name for teacher in self.teachers]
        if not self.teachers:
            raise InvalidInput("There are no teachers; give at least one.")
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise InvalidInput(f"Two teachers are called '{twice}'; give each a name of its own.")
        self._cache = SplitCache(cache_limit)

    def __len__(self) -> int:
        return len(self.teachers)

    def log_probabilities(self, batch: Batch, split: str) -> Tensor:
        """Return log-probabilities of all teachers.

        Args:
            batch: Examples.
            split: Name of the split that the batch is from.

        Returns:
            (B, ..., K, V), on the batch's device.

        Raises:
            InvalidInput: Teachers give different numbers of classes, naming both; or what is no distribution.
        """
        rows = [teacher.log_probabilities(batch, split) for teacher in self.teachers]
        for name, row in zip(self.names, rows, strict=True):
            if row.shape[-1] != rows[0].shape[-1]:
                raise InvalidInput(
                    f"Teacher '{name}' gives {row.shape[-1]} classes, "
                    f"teacher '{self.names[0]}' gives {rows[0].shape[-1]}; "
                    "all teachers must share one list of classes."
                )
            if row.shape[:-1] != batch.labels.shape:
                raise InvalidInput(
                    f"Teacher '{name}' gives distributions of shape {tuple(row.shape)} for labels of shape "
                    f"{tuple(batch.labels.shape)}; wanted one distribution a label."
                )
            _require_distributions(name, row, batch.index)
        top = int(batch.labels.max())
        known = rows[0].shape[-1]
        if top >= known:
            raise InvalidInput(f"A label is {top}, but the teachers know only {known} classes, 0 to {known - 1}.")
        widest = torch.float64 if any(row.dtype == torch.float64 for row in rows) else torch.float32
        return torch.stack([row.to(widest) for row in rows], dim=-2)

    def cached_log_probabilities(self, split: Split, index: Tensor) -> Tensor:
        """Return log-probabilities for some examples of a split, from memory where kept.

        Args:
            split: Where the examples are from.
            index: Their numbers, (B,).

        Returns:
            (B, ..., K, V).
        """
        return self._cache.rows(split, index, lambda some: self.log_probabilities(split.batch(some), split.name))


def _require_distributions(name: str, log_p_V: Tensor, index: Tensor) -> None:
    """Refuse rows whose exponentials do not sum to one, from a teacher of the user's own kind."""
    total = torch.logsumexp(log_p_V.float(), dim=-1).exp()
    wrong = ~((total - 1).abs() <= DISTRIBUTIONS.log_sum_error)
    if bool(wrong.any()):
        where = tuple(int(i) for i in wrong.nonzero()[0])
        what = f"Teacher '{name}' gave values whose exponentials sum to {float(total[where]):g}"
        what += f" for example {int(index[where[0]])}"
        wanted = "log-probabilities, for instance torch.log_softmax(logits, dim=-1)"
        raise (InvalidInput(f"{what}; wanted {wanted}.") if bool(total[where].isfinite()) else NotFinite(what, wanted))
