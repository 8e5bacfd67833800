"""Judge weights against a polytope, rule by rule.

A rule's amount is how far the worst row is outside, 0 if no row is.  NaN weights give NaN amounts, and every comparison
is written so that NaN fails.  Axes: N rows (all leading axes in one), K teachers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from solvers.errors import InvalidInput

from ._bounds_in_dtype import nearest_bounds

if TYPE_CHECKING:
    from ._weight_polytope import WeightPolytope

_LINEAR_TOLERANCE = 1e-9
_MARGIN_ULPS = 2


@dataclass(frozen=True)
class RuleViolation:
    """How far one rule is broken.

    amount: the worst row's excess, 0 if none, NaN if a weight is.  allowed: what rounding may cost.  rows: how many
    rows exceed ``allowed``.  worst_row: index of the worst row in the leading axes, () for a single vector, None if
    there are no rows.
    """

    name: str
    amount: float
    allowed: float
    rows: int
    worst_row: tuple[int, ...] | None

    def holds(self, tolerance: float | None = None) -> bool:
        """Tell whether the amount is within ``tolerance``, by default within what rounding may cost."""
        return self.amount <= (self.allowed if tolerance is None else tolerance)


@dataclass(frozen=True)
class Conformance:
    """What ``WeightPolytope.check`` found: one entry a rule, and a table in ``str()``."""

    rules: tuple[RuleViolation, ...]

    def holds(self, tolerance: float | None = None) -> bool:
        """Tell whether every rule holds; NaN does not."""
        return all(rule.holds(tolerance) for rule in self.rules)

    @property
    def violations(self) -> tuple[RuleViolation, ...]:
        """The rules that do not hold."""
        return tuple(rule for rule in self.rules if not rule.holds())

    def __str__(self) -> str:
        """Return a table with a line for each rule."""
        width = max(len(rule.name) for rule in self.rules)
        lines = [f"{'rule':<{width}}  holds  worst by   rows  worst row"]
        for rule in self.rules:
            word = "yes" if rule.holds() else "NO"
            lines.append(f"{rule.name:<{width}}  {word:<5}  {rule.amount:<9.3g}  {rule.rows:<4}  {rule.worst_row}")
        return "\n".join(lines)


def judge(polytope: WeightPolytope, w: object, safety: object, critical: object) -> Conformance:
    """Return the conformance of weights w, shape (..., K)."""
    w_any = _as_tensor("w", w)
    K = polytope.n_teachers
    if w_any.ndim == 0 or w_any.shape[-1] != K:
        raise InvalidInput(
            f"`w` must have {K} weights in its last axis, one a teacher; found shape {tuple(w_any.shape)}."
        )
    if safety is not None and polytope.orderings:
        raise InvalidInput("`safety` was given, but the polytope has its own orderings. Use one of the two.")
    leading = w_any.shape[:-1]
    w_NK = w_any.reshape(-1, K).double()
    critical_N = _broadcast("critical", critical, leading).reshape(-1).bool() if critical is not None else None
    safety_NK = _broadcast("safety", safety, w_any.shape).reshape(-1, K).double() if safety is not None else None
    found = list(_bounds_and_sum(polytope, w_NK, w_any.dtype))
    found += _orderings(polytope, w_NK, w_any.dtype, safety_NK, critical_N)
    found += _linear(polytope, w_NK, w_any.dtype)
    return Conformance(tuple(_summarise(name, excess_N, allowed, leading) for name, excess_N, allowed in found))


_Found = tuple[str, Tensor, float]


def _bounds_and_sum(polytope: WeightPolytope, w_NK: Tensor, dtype: torch.dtype) -> Iterator[_Found]:
    low_K, high_K = (bound_K.double().to(w_NK.device) for bound_K in nearest_bounds(polytope, dtype))
    yield _name_bound("lower", polytope.lower), (low_K - w_NK).amax(dim=-1), 0.0
    yield _name_bound("upper", polytope.upper), (w_NK - high_K).amax(dim=-1), 0.0
    yield "weights sum to 1", (w_NK.sum(dim=-1) - 1).abs(), polytope.n_teachers * torch.finfo(dtype).eps


def _name_bound(name: str, bounds: tuple[float, ...]) -> str:
    return f"{name}={bounds[0]:g}" if len(set(bounds)) == 1 else f"{name} of each teacher"


def _orderings(
    polytope: WeightPolytope, w_NK: Tensor, dtype: torch.dtype, safety_NK: Tensor | None, critical_N: Tensor | None
) -> Iterator[_Found]:
    by = f" by margin {polytope.margin:g}" if polytope.margin else ""
    allowed = _MARGIN_ULPS * torch.finfo(dtype).eps if polytope.margin else 0.0
    for i, j in polytope.orderings:
        excess_N = w_NK[:, j] + polytope.margin - w_NK[:, i]
        yield f"teacher {i} >= teacher {j}{by}", _only(excess_N, critical_N), allowed
    if safety_NK is not None:
        safer_NKK = safety_NK[:, :, None] > safety_NK[:, None, :]
        # NaN weights must show even where no pair is ordered
        gap_NKK = w_NK[:, None, :] + polytope.margin - w_NK[:, :, None]
        excess_N = torch.where(safer_NKK | gap_NKK.isnan(), gap_NKK, 0.0).amax(dim=(1, 2))
        yield f"the order of `safety`{by}", _only(excess_N, critical_N), allowed


def _only(excess_N: Tensor, critical_N: Tensor | None) -> Tensor:
    return excess_N if critical_N is None else torch.where(critical_N | excess_N.isnan(), excess_N, 0.0)


def _linear(polytope: WeightPolytope, w_NK: Tensor, dtype: torch.dtype) -> Iterator[_Found]:
    eps = torch.finfo(dtype).eps
    for rule in polytope.rules:
        if rule.kind in ("linear", "equal"):
            row_K = torch.tensor(rule.row, dtype=torch.float64, device=w_NK.device)
            excess_N = (w_NK * row_K).sum(dim=-1) - rule.bound
            # weights of a short type cannot meet a row more closely than they are rounded
            allowed = max(_LINEAR_TOLERANCE, polytope.n_teachers * eps) * max(1.0, float(row_K.abs().max()))
            yield rule.name, excess_N.abs() if rule.equality else excess_N, allowed


def _summarise(name: str, excess_N: Tensor, allowed: float, leading: torch.Size) -> RuleViolation:
    if excess_N.numel() == 0:
        return RuleViolation(name, 0.0, allowed, 0, None)
    worst = int(excess_N.argmax())  # argmax points at NaN before any number
    place = tuple(int(i) for i in np.unravel_index(worst, tuple(leading))) if leading else ()
    amount = excess_N[worst].item()
    return RuleViolation(name, 0.0 if amount <= 0 else amount, allowed, int((~(excess_N <= allowed)).sum()), place)


def _as_tensor(name: str, value: object) -> Tensor:
    tensor = value.detach() if isinstance(value, Tensor) else _from_array(name, value)
    if not tensor.is_floating_point():
        raise InvalidInput(f"`{name}` must hold real numbers in a floating dtype; found {tensor.dtype}.")
    return tensor


def _from_array(name: str, value: object) -> Tensor:
    try:
        array: npt.NDArray[np.float64] = np.asarray(value)
        array = array if array.dtype.kind == "f" else array.astype(np.float64)
        return torch.from_numpy(np.ascontiguousarray(array))
    except (TypeError, ValueError) as cause:
        raise InvalidInput(f"`{name}` must hold real numbers; found {value!r}.") from cause


def _broadcast(name: str, value: object, shape: torch.Size) -> Tensor:
    tensor = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    try:
        return tensor.broadcast_to(shape)
    except RuntimeError as cause:
        raise InvalidInput(
            f"`{name}` has shape {tuple(tensor.shape)}; wanted {tuple(shape)}, to fit the weights."
        ) from cause
