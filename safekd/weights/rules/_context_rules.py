"""Rules of the context scale: how safe each teacher is there, and how far from what it knows.

Axes: ... positions, K teachers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...errors import InvalidInput
from ..signals import Signals
from ._weight_rule import register_rule, require_number


@register_rule
@dataclass(frozen=True)
class OrdinalSafety:
    """``rank_k ^ power`` by safety in the position's context: 1 for the least safe, ties alike.

    The rank of teacher k is the number of distinct safety values up to its own, so only the order counts: the rule is
    constant while no two teachers change places, and jumps where they do.

    Attributes:
        power: At least 0: 0 ignores safety, larger ones favor the safest more.

    Source: Family A of Theorem V.2.
    """

    power: float = 1.0
    scale: ClassVar[str] = "context"
    needs: ClassVar[frozenset[str]] = frozenset({"safety"})
    continuous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_number(self, "power", self.power, least=0)

    def __call__(self, signals: Signals) -> Tensor:
        """Return raw scores, (..., K).

        Args:
            signals: The signals of a batch.
        """
        sorted_K, order_K = signals.safety.sort(dim=-1)
        new_K = torch.ones_like(sorted_K)
        new_K[..., 1:] = (sorted_K.diff(dim=-1) > 0).to(sorted_K)
        rank_K = torch.empty_like(sorted_K).scatter(-1, order_K, new_K.cumsum(-1))
        # sorting takes an unknown score for the highest
        return torch.where(signals.safety.isnan(), torch.nan, rank_K**self.power)


@register_rule
@dataclass(frozen=True)
class DomainDistance:
    """``exp(-rate d(c, domain_k))``: the nearer a context to what teacher k was trained on, the heavier.

    Scores are given relative to the nearest teacher's, so that no rate makes all of them vanish.  A distance below 0
    raises InvalidInput.

    Attributes:
        rate: At least 0, one over the unit of the distance.

    Source: Families B and C of Theorem V.2.
    """

    rate: float = 1.0
    scale: ClassVar[str] = "context"
    needs: ClassVar[frozenset[str]] = frozenset({"distance"})
    continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_number(self, "rate", self.rate, least=0)

    def __call__(self, signals: Signals) -> Tensor:
        """Return raw scores, (..., K).

        Args:
            signals: The signals of a batch.
        """
        below = signals.distance < 0
        if bool(below.any()):
            where = tuple(int(i) for i in below.nonzero()[0])
            raise InvalidInput(
                f"`distance` of teacher {where[-1]} at position {where[:-1]} is {float(signals.distance[where]):g}; "
                "wanted at least 0. Turn a similarity s into a distance first, 1 - s say."
            )
        return torch.exp(-self.rate * (signals.distance - signals.distance.amin(-1, keepdim=True)))
