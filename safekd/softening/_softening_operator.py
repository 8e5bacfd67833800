"""Softening operators on probabilities.  Axes: ... positions, V classes, k classes that a table keeps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._number_checks import is_whole
from .._precision import log_softmax, widen
from ..divergences import require_temperature
from ..errors import InvalidInput

Temperature = float | Tensor


class Softening(ABC):
    """A family of operators from distributions to flatter ones, by a temperature T.

    A conforming one keeps ranks, is continuous in T, is the identity at T = 1, has an entropy that never falls as T
    rises, and tends to the uniform distribution as T grows; ``audit_softening`` judges that.

    Attributes:
        least: Smallest temperature for which it is defined.

    Source: axioms of arXiv:2601.03195, read as ``docs/ensembles.md`` says.
    """

    least: ClassVar[float] = 0.0

    def __call__(self, log_p_V: Tensor, temperature: Temperature) -> Tensor:
        """Return softened log-probabilities.

        Args:
            log_p_V: Log-probabilities, (..., V); minus infinity is a probability of zero.
            temperature: T, one number; or a tensor that broadcasts to (...), one a teacher say.

        Returns:
            (..., V), float32 or wider.

        Raises:
            InvalidInput: A temperature is none of this operator's.
        """
        wide_V = widen(log_p_V)
        return self._soften(wide_V, self._read_temperature(temperature, wide_V))

    def soften_table(
        self, log_p_k: Tensor, tail: Tensor, vocabulary: int, temperature: Temperature
    ) -> tuple[Tensor, Tensor]:
        """Return a softened table of the most probable classes: what the dense distribution would be, cut the same way.

        The classes that the table leaves out share its tail alike, before and after.

        Args:
            log_p_k: Log-probabilities of the classes that are kept, (..., k).
            tail: Mass of all others together, (...).
            vocabulary: V, how many classes there are, at least k.
            temperature: As above.

        Returns:
            Log-probabilities (..., k) and tail (...), float32 or wider.

        Raises:
            InvalidInput: Shapes do not fit, the table has more classes than there are, or its mass is not 1.
        """
        log_p_k, tail = widen(log_p_k), widen(tail).to(widen(log_p_k))
        rest = _count_left_out(log_p_k, tail, vocabulary)
        each = (tail / max(rest, 1)).log()
        wide_k1 = torch.cat([log_p_k, each.unsqueeze(-1)], dim=-1)
        count_k1 = torch.ones_like(wide_k1)
        count_k1[..., -1] = rest
        soft_k1 = self._soften_counted(wide_k1, count_k1, self._read_temperature(temperature, log_p_k))
        soft_tail = soft_k1[..., -1].exp() * rest
        return soft_k1[..., :-1], soft_tail

    def _soften(self, log_p_V: Tensor, T: Tensor) -> Tensor:
        """Return the softened distribution, (..., V)."""
        return self._soften_counted(log_p_V, torch.ones_like(log_p_V[..., :1]).expand_as(log_p_V), T)

    @abstractmethod
    def _soften_counted(self, log_p_G: Tensor, count_G: Tensor, T: Tensor) -> Tensor:
        """Return the softened probability of each class of G groups of like classes, as a logarithm, (..., G)."""

    def _read_temperature(self, temperature: Temperature, log_p_V: Tensor) -> Tensor:
        T = torch.as_tensor(temperature, dtype=torch.float64).detach()
        if T.numel() == 0:
            raise InvalidInput("`temperature` is an empty tensor; wanted one number, or one a teacher.")
        for worst in (T.min(), T.max()):
            require_temperature(float(worst), given=None if T.numel() == 1 else T.tolist())
        if float(T.min()) < self.least:
            raise InvalidInput(
                f"`temperature` is {float(T.min()):g}; {type(self).__name__} is defined from {self.least:g} on. Take "
                "PowerSoftening to sharpen."
            )
        T = T.to(log_p_V)
        try:
            fits = T.broadcast_to(log_p_V.shape[:-1]).shape == log_p_V.shape[:-1]
        except RuntimeError:
            fits = False
        if not fits:
            raise InvalidInput(
                f"`temperature` has shape {tuple(T.shape)} for distributions of shape {tuple(log_p_V.shape)}; wanted "
                f"one number, or what broadcasts to {tuple(log_p_V.shape[:-1])}."
            )
        return T.unsqueeze(-1)


@dataclass(frozen=True)
class PowerSoftening(Softening):
    """``p^(1/T) / Z``: the softmax of logits over T, from probabilities alone; sharper below T = 1.

    A class of probability zero stays one, so the limit is uniform over the classes that are there.

    Source: Hinton, Vinyals and Dean 2015.

    >>> PowerSoftening()(torch.tensor([0.8, 0.2]).log(), 2.0).exp()
    tensor([0.6667, 0.3333])
    """

    def _soften(self, log_p_V: Tensor, T: Tensor) -> Tensor:
        return log_softmax(log_p_V / T)

    def _soften_counted(self, log_p_G: Tensor, count_G: Tensor, T: Tensor) -> Tensor:
        power_G = log_p_G / T
        return power_G - torch.logsumexp(power_G + count_G.log(), dim=-1, keepdim=True)


@dataclass(frozen=True)
class UniformMixing(Softening):
    """``(1/T) p + (1 - 1/T) / V``: the distribution, mixed with the uniform one; defined from T = 1 on.

    It gives classes of probability zero some, which a student's divergence can then bear.

    >>> UniformMixing()(torch.tensor([0.8, 0.2]).log(), 2.0).exp()
    tensor([0.6500, 0.3500])
    """

    least: ClassVar[float] = 1.0

    def _soften_counted(self, log_p_G: Tensor, count_G: Tensor, T: Tensor) -> Tensor:
        classes = count_G.sum(-1, keepdim=True)
        mixed_G = log_p_G.exp() / T + (1 - 1 / T) / classes
        return torch.where(T == 1, log_p_G, mixed_G.log())  # its logarithm again, to the last bit


def _count_left_out(log_p_k: Tensor, tail: Tensor, vocabulary: int) -> int:
    """Return how many classes a table leaves out, if it is one."""
    kept = log_p_k.shape[-1]
    if not is_whole(vocabulary) or vocabulary < kept:
        raise InvalidInput(f"`vocabulary` is {vocabulary!r} for a table of {kept} classes; wanted at least that.")
    if tail.shape != log_p_k.shape[:-1]:
        raise InvalidInput(
            f"`tail` has shape {tuple(tail.shape)} for a table of shape {tuple(log_p_k.shape)}; wanted one number a "
            f"row, {tuple(log_p_k.shape[:-1])}."
        )
    mass = log_p_k.double().exp().sum(-1) + tail
    if not bool(((mass - 1).abs() <= _TABLE.sum_error).all() and (tail >= 0).all()):
        worst = float(mass.flatten()[(mass - 1).abs().nan_to_num(math.inf).argmax()])
        raise InvalidInput(
            f"A table and its tail sum to {worst:g}, the smallest tail is {float(tail.min()):g}; wanted log-"
            "probabilities at temperature 1 and a tail of at least 0, together 1."
        )
    rest = int(vocabulary) - kept
    if rest == 0 and bool((tail > _TABLE.sum_error).any()):
        raise InvalidInput(f"A table of all {kept} classes has a tail of {float(tail.max()):g}; wanted none.")
    return rest


@dataclass(frozen=True)
class TableSums:
    """What still counts as a table; ``tests/safekd/softening/test_softening.py`` notices.

    Attributes:
        sum_error: How far a table and its tail may sum beside 1: half types round by this much.
    """

    sum_error: float = 1e-2


_TABLE = TableSums()
