"""How the order of the teachers in each row is known, in the forms that the engines ask for.

Axes: B rows, K teachers, R, Q = 1 or B.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from solvers.polytope import interval_within

# what a kernel is told; CHAIN saves it the sort
FREE, CHAIN, SHARED_TIERS, OWN_TIERS, DAG = 0, 1, 2, 3, 4
FALLING = 5  # a chain from the first teacher to the last, for kernels that gain by knowing it


@dataclass(frozen=True)
class RowOrder:
    """How the teachers of each row are ordered, under uniform bounds.

    Attributes:
        kind: FREE, CHAIN, SHARED_TIERS, OWN_TIERS or DAG.
        order_K: A permutation that sorts shared tiers, descending.
        tier_RK: Ranks, higher above lower, one row for all (R = 1) or one a row (R = B, OWN_TIERS).
        edge_E2: For DAG, pairs (above, below) that imply all others, those nearer the top first.
    """

    kind: int
    order_K: npt.NDArray[np.int64]
    tier_RK: Tensor
    edge_E2: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))

    @cached_property
    def tiers(self) -> npt.NDArray[np.float64]:
        """The ranks as kernels read them."""
        return self.tier_RK.contiguous().numpy()

    @cached_property
    def side_by_side(self) -> int:
        """The kind, for kernels that take many rows at once."""
        falls = self.kind == CHAIN and bool((np.diff(self.order_K) == 1).all())
        return FALLING if falls else self.kind

    def repeat_rows(self, times: int) -> RowOrder:
        """Return the order of as many copies of the rows, one after the other."""
        return replace(self, tier_RK=self.tier_RK.repeat(times, 1)) if self.kind == OWN_TIERS else self

    def tiers_for(self, v_BK: Tensor) -> Tensor | None:
        """Return ranks (B, K) on the device of the scores, or None where nothing is ordered."""
        return None if self.kind == FREE else self.tier_RK.to(v_BK.device).expand(v_BK.shape)


@lru_cache(maxsize=1024)
def make_shared_order(tiers: tuple[int, ...]) -> RowOrder:
    """Return the order of rows that share their tiers: none, a chain, or tiers with ties."""
    distinct = len(set(tiers))
    kind = FREE if distinct == 1 and len(tiers) > 1 else CHAIN if distinct == len(tiers) else SHARED_TIERS
    order_K = np.argsort(-np.asarray(tiers, dtype=np.int64), kind="stable").astype(np.int64)
    return RowOrder(kind, order_K, torch.tensor([tiers], dtype=torch.float64))


@lru_cache(maxsize=1024)
def make_partial_order(edges: tuple[tuple[int, int], ...], n_teachers: int) -> RowOrder:
    """Return the order of rows that share a partial order, given by pairs (above, below) without needless ones."""
    places_K = np.arange(n_teachers, dtype=np.int64)
    edge_E2 = np.array(edges, dtype=np.int64).reshape(-1, 2)
    return RowOrder(DAG, places_K, torch.zeros(1, n_teachers, dtype=torch.float64), edge_E2)


def make_own_order(tier_BK: Tensor) -> RowOrder:
    """Return the order of rows that have tiers of their own, scores (B, K)."""
    places_K = np.arange(tier_BK.shape[-1], dtype=np.int64)
    return RowOrder(OWN_TIERS, places_K, tier_BK)


@dataclass(frozen=True)
class BoundedOrder:
    """Tiers together with bounds that differ between teachers or rows, or with a margin; float64, not on a device.

    Attributes:
        tier_RK: Ranks, higher above lower; a row of equal ranks has no order.
        low_QK: Lower bounds, equal inside a tier where a row has several.
        high_QK: Upper bounds, likewise.
        margin: Between neighboring tiers, in units of weights.
    """

    tier_RK: Tensor
    low_QK: Tensor
    high_QK: Tensor
    margin: float

    def repeat_rows(self, times: int) -> BoundedOrder:
        """Return the order of as many copies of the rows, one after the other."""
        return self._map_rows(lambda rows: rows.repeat(times, 1))

    def take_rows(self, rows_N: Tensor) -> BoundedOrder:
        """Return the order of some of the rows."""
        return self._map_rows(lambda rows: rows[rows_N])

    def round_bounds(self, dtype: torch.dtype) -> BoundedOrder:
        """Return the order with bounds that are numbers of ``dtype``, rounded inward."""
        if dtype == torch.float64:
            return self
        low_QK, high_QK = interval_within(*self._tighten(), dtype)
        return replace(self, low_QK=low_QK.double(), high_QK=high_QK.double())

    def _tighten(self) -> tuple[Tensor, Tensor]:
        """Return bounds that fall with the tiers, so that they do after rounding; those of margins are left alone."""
        tier_RK, order_RK = self.tier_RK.sort(dim=-1, descending=True)
        several_R1 = tier_RK[:, :1] != tier_RK[:, -1:]  # of a single tier, which orders nothing, each keeps its own
        if self.margin or not bool(several_R1.any()):
            return self.low_QK, self.high_QK
        order_QK = order_RK.expand(max(len(self.low_QK), len(order_RK)), -1)
        low_QK, high_QK = (x.expand(order_QK.shape) for x in (self.low_QK, self.high_QK))
        falling_QK = low_QK.gather(-1, order_QK).flip(-1).cummax(dim=-1).values.flip(-1)
        below_QK = high_QK.gather(-1, order_QK).cummin(dim=-1).values
        low_QK = torch.where(several_R1, torch.empty_like(low_QK).scatter(-1, order_QK, falling_QK), low_QK)
        high_QK = torch.where(several_R1, torch.empty_like(high_QK).scatter(-1, order_QK, below_QK), high_QK)
        return low_QK, high_QK

    def _map_rows(self, change: Callable[[Tensor], Tensor]) -> BoundedOrder:
        def change_rows(rows: Tensor) -> Tensor:
            return rows if len(rows) == 1 else change(rows)

        return BoundedOrder(change_rows(self.tier_RK), change_rows(self.low_QK), change_rows(self.high_QK), self.margin)

    @cached_property
    def arrays(self) -> tuple[Any, Any, Any, Any]:
        """As kernels take them: the teachers by falling tier of the first row, tier_RK, low_QK and high_QK."""
        order_K = np.argsort(-self.tier_RK[0].numpy(), kind="stable").astype(np.int64)
        tier_RK, low_QK, high_QK = (x.contiguous().numpy() for x in (self.tier_RK, self.low_QK, self.high_QK))
        return order_K, tier_RK, low_QK, high_QK
