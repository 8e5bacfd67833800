"""How the order of the teachers in each row is known, in the forms that the engines ask for.

Axes: B rows, K teachers, R = 1 or B.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# what a kernel is told; CHAIN saves it the sort
FREE, CHAIN, SHARED_TIERS, OWN_TIERS = 0, 1, 2, 3


@dataclass(frozen=True)
class RowOrder:
    """kind: FREE, CHAIN, SHARED_TIERS or OWN_TIERS.  order_K: a permutation that sorts shared tiers, descending.

    tier_RK: ranks, higher above lower, one row for all (R = 1) or one a row (R = B, OWN_TIERS).
    """

    kind: int
    order_K: npt.NDArray[np.int64]
    tier_RK: Tensor

    def tiers_for(self, v_BK: Tensor) -> Tensor | None:
        """Return ranks (B, K) on the device of the scores, or None where nothing is ordered."""
        return None if self.kind == FREE else self.tier_RK.to(v_BK.device).expand(v_BK.shape)


@lru_cache(maxsize=1024)
def shared_order(tiers: tuple[int, ...]) -> RowOrder:
    """Return the order of rows that share their tiers: none, a chain, or tiers with ties."""
    distinct = len(set(tiers))
    kind = FREE if distinct == 1 and len(tiers) > 1 else CHAIN if distinct == len(tiers) else SHARED_TIERS
    order_K = np.argsort(-np.asarray(tiers, dtype=np.int64), kind="stable").astype(np.int64)
    return RowOrder(kind, order_K, torch.tensor([tiers], dtype=torch.float64))


def own_order(tier_BK: Tensor) -> RowOrder:
    """Return the order of rows that have tiers of their own, scores (B, K)."""
    places_K = np.arange(tier_BK.shape[-1], dtype=np.int64)
    return RowOrder(OWN_TIERS, places_K, tier_BK)
