"""Judge weights row by row, any number of rows in constant memory.

    rows = RowAudit(polytope)                                  # scale="token" | "task" | "context" | "unified"
    for first, w_BK in chunks:                                 # tensors or arrays; read from a file, say
        rows.add(w_BK, critical=..., safety=..., first_row=first)
    report = build_report(rows.findings())                        # a table, JSON, CSV; report.holds()

Every rule is exact over the rows given.  A row breaks

    normalization   if its sum misses 1 by more than K ulp, K times the dtype's eps, as a projection keeps it;
    positivity      if a weight is not above 0;
    bounds          if a weight is outside, without a tolerance; 0.6 means the number nearest to it in w's dtype;
    orderings       if on a critical row a teacher that should weigh at least as much weighs less, without a tolerance
                    (2 ulp where the polytope has a margin);
    all of them     if a weight is not a number, wherever the row is.

Continuity and Pareto compatibility cannot be told from weights alone; ``kd.audit`` looks at the rule.  What is wrong in
each row is computed by torch, on the device of the weights.  Axes: B rows, K teachers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from solvers.polytope import WeightPolytope, nearest_bounds

from ...errors import InvalidInput
from .._audit_report import Finding
from .._axiom_list import Axiom, Kind, select_axioms
from ._row_messages import write_row_findings
from ._violation_tally import RowCounts, Tally

_BLOCK = 1 << 15  # rows whose columns stay in the cache of a processor
_MARGIN_ULPS = 2  # as WeightPolytope.check allows


class RowAudit:
    """Counts violations of normalization, positivity, bounds and orderings over chunks of rows.

    Args:
        polytope: Bounds, orderings and linear rows; None if nothing is promised, then weights show the bounds that they
            have.
        scale: Whose axioms the findings are about, "token", "task", "context" or "unified".
        subject: What to call the weights in the report.
        names: Of the teachers, likewise.
        lead: Shape of the positions, where rows are positions of a batch; they are then reported by their index in it.
    """

    def __init__(
        self,
        polytope: WeightPolytope | None,
        scale: str = "token",
        *,
        subject: str = "weights",
        names: Sequence[str] = (),
        lead: Sequence[int] | None = None,
    ) -> None:
        self.polytope, self.teachers = polytope, None if polytope is None else polytope.n_teachers
        lead = None if lead is None else tuple(lead)
        self._counts = RowCounts(select_axioms(scale), polytope, subject, tuple(names), lead)

    @property
    def axioms(self) -> dict[Kind, Axiom]:
        """The five axioms of the scale, by kind."""
        return self._counts.axioms

    @property
    def tallies(self) -> dict[Kind, Tally]:
        """How often each kind of condition was broken so far, and where worst."""
        return self._counts.tallies

    def add(
        self,
        w_BK: Tensor | ArrayLike,
        *,
        critical: Tensor | ArrayLike | None = None,
        safety: Tensor | ArrayLike | None = None,
        first_row: int = 0,
        counted: Tensor | ArrayLike | None = None,
    ) -> None:
        """Judge more rows.

        Args:
            w_BK: Weights, (..., K), judged in their own floating dtype.
            critical: Rows where orderings apply, bool, (...); None for all.
            safety: Scores, (..., K) or (K,), whose order critical rows must follow, besides the polytope's own.
            first_row: Number of the first row, for the report.
            counted: Rows that are judged, bool, (...); None for all.

        Raises:
            InvalidInput: Shapes do not fit, weights are no floats, or scores are NaN.
        """
        w_BK = self._read_weights(w_BK)
        critical_B = None if critical is None else _broadcast_rows("critical", critical, w_BK.shape[:-1]).reshape(-1)
        if critical_B is not None and critical_B.dtype != torch.bool:
            raise InvalidInput(f"`critical` has dtype {critical_B.dtype}; wanted booleans, one a row.")
        scores = None if safety is None else _broadcast_rows("safety", safety, w_BK.shape).reshape(-1, w_BK.shape[-1])
        lead, w_BK = w_BK.shape[:-1], w_BK.reshape(-1, w_BK.shape[-1])
        number_B = torch.arange(first_row, first_row + len(w_BK), device=w_BK.device)
        if counted is not None:
            here = _broadcast_rows("counted", counted, lead).reshape(-1)
            number_B, w_BK = number_B[here], w_BK[here]
            critical_B, scores = (None if x is None else x[here] for x in (critical_B, scores))
        if scores is not None and bool(scores.isnan().any()):
            row = int(number_B[scores.isnan().any(-1)][0])
            raise InvalidInput(
                f"`safety` holds NaN in row {row}; an unknown score cannot rank teachers. Give it a number."
            )
        if not len(w_BK):
            return
        self._counts.rows += len(w_BK)
        self._judge_linear(w_BK, number_B)
        for start in range(0, len(w_BK), _BLOCK):
            part = slice(start, start + _BLOCK)
            # teachers first: each then is one run of memory, and a look at all rows a plain loop
            w_KB = w_BK[part].detach().double().t().contiguous()
            self._judge_values(w_KB, w_BK.dtype, number_B[part])
            mask_B, score_BK = (None if x is None else x[part] for x in (critical_B, scores))
            self._judge_orderings(w_KB, w_BK.dtype, mask_B, score_BK, number_B[part])

    def findings(self) -> tuple[Finding, ...]:
        """Return what was found: five axioms of the scale and assumption (A1), and the linear rows if there are any."""
        return write_row_findings(self._counts)

    def _read_weights(self, w: Tensor | ArrayLike) -> Tensor:
        tensor = w if isinstance(w, Tensor) else torch.as_tensor(np.asarray(w))
        if tensor.ndim == 0 or not tensor.is_floating_point() or tensor.shape[-1] == 0:
            raise InvalidInput(f"Weights must be floats of shape (..., teachers); found {_describe_tensor(tensor)}.")
        if tensor.shape[-1] != (self.teachers or tensor.shape[-1]):
            raise InvalidInput(f"Weights of {self.teachers} teachers are judged; found {_describe_tensor(tensor)}.")
        self.teachers = tensor.shape[-1]
        return tensor

    def _judge_values(self, w_KB: Tensor, dtype: torch.dtype, number_B: Tensor) -> None:
        light_B, heavy_B = w_KB.amin(0), w_KB.amax(0)  # NaN where a weight is
        self._extend_range(light_B, heavy_B)
        miss_B = (_sum_teachers(w_KB) - 1).abs()
        allowed = len(w_KB) * torch.finfo(dtype).eps
        self.tallies["normalization"].count_rows(miss_B, miss_B <= allowed, w_KB, number_B)
        self.tallies["positivity"].count_rows(0 - light_B, light_B > 0, w_KB, number_B)
        if self.polytope is None:  # some w_min > 0 and w_max < inf are asked for, whatever they are
            self.tallies["bounds"].count_rows(0 - light_B, (light_B > 0) & (heavy_B < torch.inf), w_KB, number_B)
            return
        low_K, high_K = (bound_K.double().to(w_KB.device) for bound_K in nearest_bounds(self.polytope, dtype))
        if self.polytope.uniform_bounds is None:
            low_B, high_B = (low_K[:, None] - w_KB).amax(0), (w_KB - high_K[:, None]).amax(0)
        else:
            low_B, high_B = low_K[0] - light_B, heavy_B - high_K[0]
        outside_B = torch.maximum(low_B, high_B)
        self.tallies["bounds"].count_rows(outside_B, outside_B <= 0, w_KB, number_B)

    def _extend_range(self, light_B: Tensor, heavy_B: Tensor) -> None:
        low, high = float(light_B.min()), float(heavy_B.max())
        if low != low:  # NaN somewhere: the others still have a range
            numbers = ~light_B.isnan()
            if not bool(numbers.any()):
                return
            low, high = float(light_B[numbers].min()), float(heavy_B[numbers].max())
        self._counts.lightest, self._counts.heaviest = min(self._counts.lightest, low), max(self._counts.heaviest, high)

    def _judge_orderings(
        self, w_KB: Tensor, dtype: torch.dtype, critical_B: Tensor | None, safety_BK: Tensor | None, number_B: Tensor
    ) -> None:
        pairs = () if self.polytope is None else self.polytope.orderings
        if not pairs and safety_BK is None:
            return
        if critical_B is not None:
            rows_B = (critical_B.to(w_KB.device) | w_KB.sum(0).isnan()).nonzero().squeeze(-1)
            w_KB, number_B = w_KB[:, rows_B], number_B[rows_B]
            safety_BK = None if safety_BK is None else safety_BK.to(w_KB.device)[rows_B]
        margin = 0.0 if self.polytope is None else self.polytope.margin
        allowed = _MARGIN_ULPS * torch.finfo(dtype).eps if margin else 0.0
        safety_KB = None if safety_BK is None else safety_BK.to(w_KB).t().contiguous()
        self._counts.has_orderings = True
        self._counts.ordered += w_KB.shape[1]
        # gaps are worked out for rows that look wrong only
        wrong_B = _flag_suspect_rows(w_KB, pairs, safety_KB, margin, allowed).nonzero().squeeze(-1)
        if not len(wrong_B):
            return
        w_KB, safety_KB = w_KB[:, wrong_B], None if safety_KB is None else safety_KB[:, wrong_B]
        gap_B = _find_widest_gap(w_KB, pairs, safety_KB, margin)
        self.tallies["ordering"].count_rows(gap_B, gap_B <= allowed, w_KB, number_B[wrong_B], safety_KB)

    def _judge_linear(self, w_BK: Tensor, number_B: Tensor) -> None:
        if self.polytope is None or not self.polytope.linear:
            return
        for rule in self.polytope.without_orderings().check(w_BK).rules:
            if rule.name.startswith("linear row"):
                row = rule.worst_row[0] if rule.worst_row else 0
                weights_K = tuple(w_BK[row].tolist())
                self.tallies["linear"].add(rule.amount, rule.rows, int(number_B[row]), weights_K, rule.name)


def _sum_teachers(w_KB: Tensor) -> Tensor:
    """Return the sums, teacher after teacher: the same to the last bit however rows come in chunks."""
    total_B = w_KB[0].clone()
    for w_B in w_KB[1:]:
        total_B += w_B
    return total_B


def _flag_suspect_rows(
    w_KB: Tensor, pairs: Sequence[tuple[int, int]], safety_KB: Tensor | None, margin: float, allowed: float
) -> Tensor:
    """Say which rows miss an ordering or hold a NaN, bool (B,)."""
    wrong_B = _sum_teachers(w_KB).isnan()
    lifted_KB = w_KB + (margin - allowed / 2) if margin else w_KB  # rather one too many
    for i, j in pairs:
        wrong_B |= lifted_KB[j] > w_KB[i]
    if safety_KB is not None:
        for i in range(len(w_KB)):
            wrong_B |= ((safety_KB < safety_KB[i]) & (lifted_KB > w_KB[i])).any(0)
    return wrong_B


def _find_widest_gap(w_KB: Tensor, pairs: Sequence[tuple[int, int]], safety_KB: Tensor | None, margin: float) -> Tensor:
    """Return by how much the worst ordering of each row is missed, (B,); NaN where a weight is NaN."""
    gap_B = torch.full_like(w_KB[0], -torch.inf) + 0 * w_KB.sum(0)  # NaN must show even where no pair is ordered
    for i, j in pairs:
        gap_B = torch.maximum(gap_B, w_KB[j] + margin - w_KB[i])
    if safety_KB is not None:
        for i in range(len(w_KB)):
            ahead_KB = torch.where(safety_KB[i] > safety_KB, w_KB + margin - w_KB[i], -torch.inf)
            gap_B = torch.maximum(gap_B, ahead_KB.amax(0))
    return gap_B


def _broadcast_rows(name: str, value: Tensor | ArrayLike, shape: torch.Size) -> Tensor:
    tensor = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    try:
        return tensor.broadcast_to(shape)
    except RuntimeError as cause:
        raise InvalidInput(
            f"`{name}` has shape {tuple(tensor.shape)}; wanted {tuple(shape)}, to fit the weights."
        ) from cause


def _describe_tensor(tensor: Any) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
