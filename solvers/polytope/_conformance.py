"""Check weights against a polytope, rule by rule.

A rule's amount is how far the worst row is outside, 0 if no row is.  NaN weights give NaN amounts, and every comparison
is written so that NaN fails.  Axes: N rows (all leading axes in one), K teachers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from solvers.errors import InvalidInput

from ..short_repr import ShortRepr
from ._bounds_in_dtype import nearest_bounds
from ._polytope_fields import PolytopeFields
from ._polytope_rules import Rule


@dataclass(frozen=True)
class ConformanceSettings:
    """What rounding may cost weights that conform; the tests of ``WeightPolytope.check`` hold weights to it.

    Attributes:
        linear_tolerance: Excess of a linear row, in units of its largest coefficient: what a solver leaves.
        margin_ulps: Excess of a margin, in eps of the weights' dtype: a difference and a sum are rounded.
    """

    linear_tolerance: float = 1e-9
    margin_ulps: int = 2


_SETTINGS = ConformanceSettings()


@dataclass(frozen=True)
class RuleViolation:
    """How far one rule is broken.

    Attributes:
        name: The rule, as a user would say it.
        amount: The worst row's excess, in units of the rule; 0 if none, NaN if a weight is.
        allowed: What rounding may cost, in the same units.
        rows: How many rows exceed ``allowed``.
        worst_row: Index of the worst row in the leading axes, () for a single vector, None if there are no rows.
    """

    name: str
    amount: float
    allowed: float
    rows: int
    worst_row: tuple[int, ...] | None

    def holds(self, tolerance: float | None = None) -> bool:
        """Tell whether the amount is within a tolerance.

        Args:
            tolerance: In units of the rule; None: what rounding may cost.

        Returns:
            False for NaN.
        """
        return self.amount <= (self.allowed if tolerance is None else tolerance)


@dataclass(frozen=True, repr=False)
class Conformance(ShortRepr):
    """What ``WeightPolytope.check`` says of weights; ``str()`` is a table.

    Attributes:
        rules: One entry a rule, in the order of the polytope.
    """

    rules: tuple[RuleViolation, ...]

    def holds(self, tolerance: float | None = None) -> bool:
        """Tell whether every rule holds.

        Args:
            tolerance: In units of the rules; None: what rounding may cost each.

        Returns:
            False if a weight is NaN.
        """
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


def check_weights(
    polytope: PolytopeFields, rules: Sequence[Rule], w: object, safety: object, critical: object
) -> Conformance:
    """Return the conformance of weights w, shape (..., K)."""
    w_any = _read_weights("w", w)
    K = polytope.n_teachers
    if w_any.ndim == 0 or w_any.shape[-1] != K:
        raise InvalidInput(
            f"`w` must have {K} weights in its last axis, one a teacher; found shape {tuple(w_any.shape)}."
        )
    if safety is not None and polytope.orderings:
        raise InvalidInput("`safety` was given, but the polytope has its own orderings. Use one of the two.")
    leading = w_any.shape[:-1]
    w_NK = w_any.reshape(-1, K).double()
    critical_N = (
        _broadcast_to_weights("critical", critical, leading).reshape(-1).bool() if critical is not None else None
    )
    safety_NK = (
        _broadcast_to_weights("safety", safety, w_any.shape).reshape(-1, K).double() if safety is not None else None
    )
    measured = list(_measure_bounds_and_sum(polytope, w_NK, w_any.dtype))
    measured += _measure_orderings(polytope, w_NK, w_any.dtype, safety_NK, critical_N)
    measured += _measure_linear_rows(rules, w_NK, w_any.dtype)
    return Conformance(tuple(_summarize_rule(name, excess_N, allowed, leading) for name, excess_N, allowed in measured))


_Excess = tuple[str, Tensor, float]


def _measure_bounds_and_sum(polytope: PolytopeFields, w_NK: Tensor, dtype: torch.dtype) -> Iterator[_Excess]:
    low_K, high_K = (bound_K.double().to(w_NK.device) for bound_K in nearest_bounds(polytope, dtype))
    yield _name_bounds("lower", polytope.lower), (low_K - w_NK).amax(dim=-1), 0.0
    yield _name_bounds("upper", polytope.upper), (w_NK - high_K).amax(dim=-1), 0.0
    yield "weights sum to 1", (w_NK.sum(dim=-1) - 1).abs(), polytope.n_teachers * torch.finfo(dtype).eps


def _name_bounds(name: str, bounds: tuple[float, ...]) -> str:
    return f"{name}={bounds[0]:g}" if len(set(bounds)) == 1 else f"{name} of each teacher"


def _measure_orderings(
    polytope: PolytopeFields, w_NK: Tensor, dtype: torch.dtype, safety_NK: Tensor | None, critical_N: Tensor | None
) -> Iterator[_Excess]:
    by = f" by margin {polytope.margin:g}" if polytope.margin else ""
    allowed = _SETTINGS.margin_ulps * torch.finfo(dtype).eps if polytope.margin else 0.0
    for i, j in polytope.orderings:
        excess_N = w_NK[:, j] + polytope.margin - w_NK[:, i]
        yield f"{polytope.describe(i)} >= {polytope.describe(j)}{by}", _mask_excess(excess_N, critical_N), allowed
    if safety_NK is not None:
        safer_NKK = safety_NK[:, :, None] > safety_NK[:, None, :]
        # NaN weights must show even where no pair is ordered
        gap_NKK = w_NK[:, None, :] + polytope.margin - w_NK[:, :, None]
        excess_N = torch.where(safer_NKK | gap_NKK.isnan(), gap_NKK, 0.0).amax(dim=(1, 2))
        yield f"the order of `safety`{by}", _mask_excess(excess_N, critical_N), allowed


def _mask_excess(excess_N: Tensor, critical_N: Tensor | None) -> Tensor:
    return excess_N if critical_N is None else torch.where(critical_N | excess_N.isnan(), excess_N, 0.0)


def _measure_linear_rows(rules: Sequence[Rule], w_NK: Tensor, dtype: torch.dtype) -> Iterator[_Excess]:
    eps = torch.finfo(dtype).eps
    for rule in rules:
        if rule.kind in ("linear", "equal"):
            row_K = torch.tensor(rule.row, dtype=torch.float64, device=w_NK.device)
            excess_N = (w_NK * row_K).sum(dim=-1) - rule.bound
            # weights of a short type cannot meet a row more closely than they are rounded
            allowed = max(_SETTINGS.linear_tolerance, w_NK.shape[-1] * eps) * max(1.0, float(row_K.abs().max()))
            yield rule.name, excess_N.abs() if rule.equality else excess_N, allowed


def _summarize_rule(name: str, excess_N: Tensor, allowed: float, leading: torch.Size) -> RuleViolation:
    if excess_N.numel() == 0:
        return RuleViolation(name, 0.0, allowed, 0, None)
    worst = int(excess_N.argmax())  # argmax points at NaN before any number
    place = tuple(int(i) for i in np.unravel_index(worst, tuple(leading))) if leading else ()
    amount = excess_N[worst].item()
    return RuleViolation(name, 0.0 if amount <= 0 else amount, allowed, int((~(excess_N <= allowed)).sum()), place)


def _read_weights(name: str, value: object) -> Tensor:
    tensor = value.detach() if isinstance(value, Tensor) else _read_weight_array(name, value)
    if not tensor.is_floating_point():
        raise InvalidInput(f"`{name}` must hold real numbers in a floating dtype; found {tensor.dtype}.")
    return tensor


def _read_weight_array(name: str, value: object) -> Tensor:
    try:
        array: npt.NDArray[np.float64] = np.asarray(value)
        array = array if array.dtype.kind == "f" else array.astype(np.float64)
        return torch.from_numpy(np.ascontiguousarray(array))
    except (TypeError, ValueError) as cause:
        raise InvalidInput(f"`{name}` must hold real numbers; found {value!r}.") from cause


def _broadcast_to_weights(name: str, value: object, shape: torch.Size) -> Tensor:
    tensor = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    try:
        return tensor.broadcast_to(shape)
    except RuntimeError as cause:
        raise InvalidInput(
            f"`{name}` has shape {tuple(tensor.shape)}; wanted {tuple(shape)}, to fit the weights."
        ) from cause
