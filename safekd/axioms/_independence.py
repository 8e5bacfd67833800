"""Which axioms could be left out?  For each one, weights that break it and keep the other four of their scale.

Such weights show that the axiom does not follow from the others (the first open question of the paper).  They are found
guilty by the audit itself, on a small batch of signals; ``independence_table`` runs it and says what follows from what.
Axes: B positions, K = 3 teachers, N candidate students.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from solvers.polytope import WeightPolytope

from ..weights import Signals
from ._audit_report import AuditReport
from ._audit_rule import audit
from ._axiom_list import AXIOMS, Kind, find_axiom

_SIGNAL = {"token": "entropy", "task": "task_loss", "context": "distance"}
_SAFETY_K = (0.9, 0.6, 0.3)
_READING_BK = ((0.2, 1.1, 0.7), (0.9, 0.4, 1.3), (1.5, 0.8, 0.3), (0.6, 0.5, 1.0), (1.2, 1.4, 0.1), (0.3, 0.9, 1.6))
# what four students lose on what each teacher teaches; the first beats the second in everything
_LOSSES_NK = ((1.0, 1.0, 1.2), (1.01, 1.01, 1.5), (0.8, 1.4, 1.3), (1.4, 0.8, 1.3))
_TRIES = 3


@dataclass(frozen=True)
class Counterexample:
    """Weights that break one axiom and keep the other four of its scale.

    Attributes:
        axiom: Its id.
        formula: The weights of three teachers; x_k is what the scale reads of teacher k, u a smooth number between 0
            and 1, sigmoid of the mean of x.
        weights: From x (..., K) to weights (..., K).
        lower: The bound w_min that they are asked to keep, with w_max = 0.6.
    """

    axiom: str
    formula: str
    weights: Callable[[Tensor], Tensor]
    lower: float = 0.1

    def __call__(self, signals: Signals) -> Tensor:
        """Return the weights, (..., K).

        Args:
            signals: Signals of three teachers.
        """
        return self.weights(getattr(signals, _SIGNAL[find_axiom(self.axiom).scale]))

    def audit(self) -> AuditReport:
        """Return what the audit says of these weights."""
        scale = find_axiom(self.axiom).scale
        signal, safety = _SIGNAL[scale], torch.tensor(_SAFETY_K, dtype=torch.float64)
        x_BK = torch.tensor(_READING_BK, dtype=torch.float64)
        given: dict[str, Any] = {signal: x_BK, "safety": safety.expand_as(x_BK)}
        signals = Signals(**given)
        losses_NK = torch.tensor(_LOSSES_NK, dtype=torch.float64)
        students = [Signals(task_loss=loss_K.expand_as(x_BK)) for loss_K in losses_NK] if scale == "task" else None
        return audit(
            self,
            signals,
            polytope=WeightPolytope(3, self.lower, 0.6),
            scale=scale,
            as_weights=True,
            losses=losses_NK if scale == "task" else None,
            under=students,
            tries=_TRIES,
        )


def _stack_weights(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    return torch.stack([first, second, third], dim=-1)


def _squash_mean(x_K: Tensor) -> Tensor:
    return x_K.mean(-1).sigmoid()


def _weigh_conforming(x_K: Tensor) -> Tensor:
    u = _squash_mean(x_K)
    return _stack_weights(0.4 + 0.1 * u, torch.full_like(u, 0.3), 0.3 - 0.1 * u)


def _break_normalization(x_K: Tensor) -> Tensor:
    return 0.9 * _weigh_conforming(x_K)


def _break_positivity(x_K: Tensor) -> Tensor:
    u = _squash_mean(x_K)
    return _stack_weights(0.5 + 0.1 * u, 0.5 - 0.1 * u, torch.zeros_like(u))


def _break_bounds(x_K: Tensor) -> Tensor:
    u = _squash_mean(x_K)
    return _stack_weights(0.7 + 0.05 * u, 0.2 - 0.05 * u, torch.full_like(u, 0.1))


def _break_continuity(x_K: Tensor) -> Tensor:
    ahead = x_K[..., 0] > x_K[..., 1]
    return torch.where(ahead.unsqueeze(-1), x_K.new_tensor([0.5, 0.3, 0.2]), x_K.new_tensor([0.4, 0.35, 0.25]))


def _break_ordering(x_K: Tensor) -> Tensor:
    return _weigh_conforming(x_K).flip(-1)


def _break_pareto(x_K: Tensor) -> Tensor:
    third = 0.1 + 0.4 * (16 * (1.25 - x_K[..., 2])).sigmoid()
    return _stack_weights((1 - third) / 2, (1 - third) / 2, third)


_FAMILIES: dict[Kind, tuple[str, Callable[[Tensor], Tensor], float]] = {
    "normalization": ("0.9 (0.4 + 0.1 u, 0.3, 0.3 - 0.1 u)", _break_normalization, 0.1),
    "positivity": ("(0.5 + 0.1 u, 0.5 - 0.1 u, 0), with w_min = 0", _break_positivity, 0.0),
    "bounds": ("(0.7 + 0.05 u, 0.2 - 0.05 u, 0.1)", _break_bounds, 0.1),
    "continuity": ("(0.5, 0.3, 0.2) where x_0 > x_1, (0.4, 0.35, 0.25) elsewhere", _break_continuity, 0.1),
    "ordering": ("(0.3 - 0.1 u, 0.3, 0.4 + 0.1 u)", _break_ordering, 0.1),
    "pareto": (
        "((1 - v)/2, (1 - v)/2, v), v = 0.1 + 0.4 sigmoid(16 (1.25 - x_2)), x the losses of the student",
        _break_pareto,
        0.1,
    ),
}
_FOLLOWS: dict[Kind, str] = {
    "normalization": "nothing",
    "positivity": "bounds, if w_min > 0; nothing, if w_min = 0",
    "bounds": "nothing, for bounds that are given; that some w_min > 0 exists follows from positivity and continuity "
    "on a compact set of inputs, and w_max = 1 - (K - 1) w_min from normalization and w_min",
    "continuity": "nothing",
    "ordering": "nothing",
    "pareto": "positivity, for weights that do not look at the student; nothing, for those that do",
}


def counterexamples() -> tuple[Counterexample, ...]:
    """Return weights for each of the fifteen axioms that break it and keep the other four of its scale."""
    return tuple(Counterexample(axiom.id, *_FAMILIES[axiom.kind]) for axiom in AXIOMS)


def independence_table() -> pd.DataFrame:
    """Audit every counterexample and return a row an axiom.

    Columns: axiom, scale, name, counterexample (formula), violated (the axioms of the scale that the audit found
    broken), by (the worst violation), follows_from (what the axiom follows from, in words).
    """
    rows = []
    for example in counterexamples():
        axiom, report = find_axiom(example.axiom), example.audit()
        broken = [finding.axiom for finding in report.violated if finding.scale == axiom.scale]
        rows.append(
            {
                "axiom": axiom.id,
                "scale": axiom.scale,
                "name": axiom.name,
                "counterexample": example.formula,
                "violated": ", ".join(broken),
                "by": report[axiom.id].worst,
                "follows_from": _FOLLOWS[axiom.kind],
            }
        )
    return pd.DataFrame(rows)
