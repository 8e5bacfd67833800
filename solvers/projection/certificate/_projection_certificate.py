"""Proof that given weights are the projection of given scores, whoever computed them.

>>> from solvers.polytope import WeightPolytope
>>> polytope = WeightPolytope(3, lower=0.1, upper=0.6)
>>> certify_projection([0.9, 0.3, -1.0], [0.6, 0.3, 0.1], polytope).holds()
True
>>> print(certify_projection([0.9, 0.3, -1.0], [0.5, 0.3, 0.2], polytope))
condition        worst     row       where
stationarity     0.933     ()        teacher 2
primal           0         ()        -
dual             0         ()        -
complementarity  0         ()        -
distance bound   0.99      ()        from the true projection, at most

Axes: B rows (all leading axes in one), N rows of them, K teachers, M rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from solvers.errors import InvalidInput
from solvers.polytope import WeightPolytope

from ...short_repr import ShortRepr
from .._projection_inputs import METRICS, read_choice, read_mask, read_safety, read_scores, require_values
from .._projection_plan import plan_rows
from .._row_rules import RowRules
from ._kkt_residuals import Residuals, compute_residuals
from ._scaled_rules import scale_rules

Floats = npt.NDArray[np.float64]
_Rows = Tensor | npt.ArrayLike | None

CONDITIONS = ("stationarity", "primal", "dual", "complementarity")


@dataclass(frozen=True)
class WorstResidual:
    """The worst row of one condition.

    Attributes:
        condition: Its name, in words.
        value: The residual, in units of weights.
        row: Its place in the leading axes, () for a single vector.
        where: The teacher or the rule at fault, "-" if none is.
    """

    condition: str
    value: float
    row: tuple[int, ...]
    where: str


@dataclass(frozen=True, eq=False, repr=False)
class ProjectionCertificate(ShortRepr):
    """The four KKT residuals of each row, and a bound on the distance to the true projection.

    All in units of weights (stationarity of KL: of log weights); linear rows are divided by their largest coefficient.

    Attributes:
        stationarity: Shape (...,), largest ``|w - v + A^T y|``, or ``|log w - log v + A^T y + const|`` where weights
            can be positive, less ``4 K eps max(1, |v - w|)``, which is what rounding makes of large scores.
        primal: Shape (...,), largest violation of a rule, ``max(A w - b, 0)`` and ``|C w - d|``.
        dual: Shape (...,), largest negative multiplier, ``max(-y, 0)``.
        complementarity: Shape (...,), ``max |min(y, b - A w)|``: a rule is either tight or free of charge.
        distance_bound: Shape (...,); no point further than this from w is the projection: Euclidean norm, proof in
            ``_kkt_residuals``; wide for KL answers whose error exceeds the weights that decide the multipliers.
        worst: The worst row of each condition.
        multipliers: Of the rules that carry any, for the row with the largest residual, by rule name, in units of the
            polytope's own rows: ``v - w = A^T y``, for KL ``log v - log w = A^T y``.

    Source: Nocedal and Wright 2006, theorem 12.1.
    """

    stationarity: Floats
    primal: Floats
    dual: Floats
    complementarity: Floats
    distance_bound: Floats
    worst: tuple[WorstResidual, ...]
    multipliers: Mapping[str, float]

    def holds(self, tolerance: float = 1e-9) -> bool:
        """Tell whether every residual of every row is small enough.

        Args:
            tolerance: The most that a residual may be, in units of weights; weights in float32 meet about 1e-6.

        Returns:
            False where a residual is NaN.
        """
        return all(bool((getattr(self, name) <= tolerance).all()) for name in CONDITIONS)

    def __str__(self) -> str:
        """Return a table with the worst row of each condition."""
        lines = [f"{'condition':<16} {'worst':<9} {'row':<9} where"]
        lines += [f"{at.condition:<16} {at.value:<9.3g} {at.row!s:<9} {at.where}" for at in self.worst]
        return "\n".join(lines)


def certify_projection(
    v: Tensor | npt.NDArray[Any] | Sequence[Any],
    w: Tensor | npt.NDArray[Any] | Sequence[Any],
    polytope: WeightPolytope,
    *,
    metric: str = "euclidean",
    critical: _Rows = None,
    safety: _Rows = None,
) -> ProjectionCertificate:
    """Return a proof of how close the weights w are to the projection of the scores v.

    Multipliers are recovered from v, w and the rules that are tight at w, by nonnegative least squares; no solver is
    asked.  Rows with NaN or infinite weights get NaN residuals, which hold at no tolerance.  Computed in float64 on
    the CPU.

    Args:
        v: Finite scores, shape (..., K).
        w: Weights, shape (..., K), from ``project`` or anyone else.
        polytope: The rules that the weights of K teachers obey.
        metric: "euclidean" or "kl", as in ``project``.
        critical: Booleans, shape (...,), True on rows where orderings apply; None: they apply everywhere.
        safety: Scores, shape (..., K) or (K,), whose order the weights of a row follow; or None.

    Returns:
        Residuals of each row, shape (...,), the worst of them, and the multipliers of the worst row.

    Raises:
        InvalidInput: A shape, dtype, score or option cannot be used.
        InfeasiblePolytope: A row's safety order leaves no weights.

    Source: Nocedal and Wright 2006, theorem 12.1; Lawson and Hanson 1974 for the multipliers.
    """
    if not isinstance(polytope, WeightPolytope):
        raise InvalidInput(f"`polytope` must be a WeightPolytope; found {type(polytope).__name__}.")
    read_choice("metric", metric, METRICS)
    scores = read_scores(v, polytope.n_teachers)
    require_values(scores, metric)
    v_BK = scores.v.detach().to("cpu", torch.float64)
    w_BK, eps = _read_certified_weights(w, scores.shape)
    critical_B = read_mask(critical, scores.shape, scores.v.device)
    safety_BK = read_safety(safety, scores.shape, polytope, scores.v.device)
    critical_B, safety_BK = (None if x is None else x.cpu() for x in (critical_B, safety_BK))
    question = _Question(v_BK, w_BK, polytope, metric, critical_B, safety_BK, eps)
    return _summarize(question, scores.shape[:-1])


def _read_certified_weights(w: object, shape: torch.Size) -> tuple[Tensor, float]:
    """Return weights as rows of float64, and the eps of the dtype that they came in."""
    try:
        tensor = w.detach() if isinstance(w, Tensor) else torch.from_numpy(np.array(w, dtype=_float_type(w)))
    except (TypeError, ValueError) as cause:
        raise InvalidInput(f"`w` must hold real weights; found {type(w).__name__}: {cause}.") from cause
    if not tensor.is_floating_point():
        raise InvalidInput(f"`w` has dtype {tensor.dtype}; wanted a floating dtype. Convert it, as in w.double().")
    if tensor.shape != shape:
        raise InvalidInput(
            f"`w` has shape {tuple(tensor.shape)}, but `v` has shape {tuple(shape)}; wanted weights for each score."
        )
    return tensor.to("cpu", torch.float64).reshape(-1, shape[-1]), torch.finfo(tensor.dtype).eps


def _float_type(w: object) -> npt.DTypeLike:
    return w.dtype if isinstance(w, np.ndarray) and w.dtype.kind == "f" else np.float64


@dataclass(frozen=True)
class _Question:
    """Scores and weights as rows, (B, K), and the rules of each row."""

    v: Tensor
    w: Tensor
    polytope: WeightPolytope
    metric: str
    critical: Tensor | None
    safety: Tensor | None
    eps: float

    def residuals(self) -> dict[str, Floats]:
        """Return each condition's residual and the bound, (B,)."""
        collected = {name: np.full(len(self.v), np.nan) for name in (*CONDITIONS, "distance_bound")}
        v_BK, w_BK, safety_BK = self._sort_teachers()
        for part in plan_rows(v_BK, RowRules(self.polytope, self.critical, safety_BK), self.metric, "cvxpy").parts:
            rows = torch.arange(len(v_BK)) if part.rows is None else part.rows
            residuals = compute_residuals(v_BK[rows].numpy(), w_BK[rows].numpy(), part.polytope, self.metric, self.eps)
            for name, values_B in collected.items():
                values_B[rows.numpy()] = getattr(residuals, name)
        return collected

    def _sort_teachers(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Relabel the teachers of each row by safety, where labels do not matter: fewer distinct orders remain."""
        polytope = self.polytope
        if self.safety is None or polytope.linear or polytope.uniform_bounds is None:
            return self.v, self.w, self.safety
        order_BK = self.safety.argsort(dim=-1, descending=True, stable=True)
        return self.v.gather(-1, order_BK), self.w.gather(-1, order_BK), self.safety.gather(-1, order_BK)

    def judge_alone(self, row: int) -> tuple[Residuals, WeightPolytope]:
        """Return the judgement of one row, with the teachers in their own order, and its polytope."""
        polytope = self.polytope
        if self.critical is not None and not bool(self.critical[row]):
            polytope = polytope.without_orderings()
        elif self.safety is not None:
            polytope = polytope.ordered_by(self.safety[row].tolist())
        v_1K, w_1K = self.v[row : row + 1].numpy(), self.w[row : row + 1].numpy()
        return compute_residuals(v_1K, w_1K, polytope, self.metric, self.eps), polytope


def _summarize(question: _Question, leading: torch.Size) -> ProjectionCertificate:
    collected = question.residuals()
    arrays = {name: values_B.reshape(tuple(leading)) for name, values_B in collected.items()}
    if not len(question.v):
        return ProjectionCertificate(**arrays, worst=(), multipliers=MappingProxyType({}))
    # argmax points at NaN before any number
    rows = {name: int(values_B.argmax()) for name, values_B in collected.items()}
    worst = int(np.max([collected[name] for name in CONDITIONS], axis=0).argmax())
    places = [
        WorstResidual(name.replace("_", " "), float(collected[name][row]), _unravel_row(row, leading), fault)
        for name, row in rows.items()
        if (fault := _name_fault(name, row, question))
    ]
    residuals, polytope = question.judge_alone(worst)
    scaled = scale_rules(polytope)
    carried = {
        name: float(y / size)
        for name, y, size in zip(scaled.names, residuals.y[0], scaled.scale, strict=True)
        if y != 0  # NaN shows
    }
    return ProjectionCertificate(**arrays, worst=tuple(places), multipliers=MappingProxyType(carried))


def _unravel_row(row: int, leading: torch.Size) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(row, tuple(leading))) if leading else ()


def _name_fault(condition: str, row: int, question: _Question) -> str:
    """Return the teacher or the rule that a condition fails at, or that nothing does."""
    residuals, polytope = question.judge_alone(row)
    scaled, w_1K = scale_rules(polytope), question.w[row : row + 1].numpy()
    if not np.isfinite(w_1K).all():
        teacher = int((~np.isfinite(w_1K[0])).argmax())
        return f"teacher {teacher} weighs {w_1K[0, teacher]:g}"
    if condition == "distance_bound":
        return "from the true projection, at most"
    if getattr(residuals, condition)[0] == 0:
        return "-"
    if condition == "stationarity":
        return f"teacher {int(np.abs(residuals.gap[0]).argmax())}"
    excess_M = scaled.measure_excess(w_1K)[0]
    by_rule = {
        "primal": excess_M,
        "dual": np.where(scaled.equal, 0.0, -residuals.y[0]),
        "complementarity": np.where(scaled.equal, 0.0, np.abs(np.minimum(residuals.y[0], -excess_M))),
    }
    return scaled.names[int(by_rule[condition].argmax())]
