"""How far a trained student moves when the teachers' weights do (Theorem VII.2, Remark VI.4).

Axes: B positions, K teachers, V classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from solvers.polytope import WeightPolytope
from solvers.projection import project
from solvers.short_repr import ShortRepr

from .._number_checks import is_number, is_whole, require_seed
from .._precision import log_softmax
from .._torch_state import ask_module, evaluation_mode
from ..data import Split, move_split
from ..errors import InvalidInput
from ..training import ConstrainedTrainer, FitResult, read_full_pass
from ..weights import Rule, Signals, collect_modules, collect_needs
from ._rate_fits import RateFit, fit_power


@dataclass(frozen=True)
class StabilitySettings:
    """How weights are perturbed where one size is given.

    Attributes:
        shares: Of the largest perturbation, those that are tried: enough points for a rate with a band, over nearly a
            decade.
        tolerance: Of every training where the caller gives none: so small that all take all their epochs, since one
            that stops earlier than another moves by that alone.
        rounding: Movements below this are none, and no rate is fitted to them.
        examples: Examples that a student is asked about at a time.
    """

    shares: tuple[float, ...] = (1 / 8, 1 / 4, 1 / 2, 1.0)
    tolerance: float = 1e-12
    rounding: float = 1e-12
    examples: int = 4096


_STABILITY = StabilitySettings()


@dataclass(frozen=True, repr=False)
class Stability(ShortRepr):
    """What perturbed weights did.

    Attributes:
        table: A row a training under perturbed weights.  Columns: delta (asked for), direction (its number),
            weights_moved (largest maximum-norm distance of a position's weights, after projection), student_moved
            (Euclidean distance of the parameters), predictions_moved (mean total variation on the training split),
            loss_moved (of the loss reached, each under its own weights), excess (of the loss under the unperturbed
            weights), safety_moved (largest change of a constraint's reading).
        student_rate: Power of weights_moved by which student_moved grows, with its band; None where nothing moved.
        loss_rate: The same of loss_moved.
        excess_rate: The same of excess, where it is positive.
        result: Of the training under unperturbed weights.
    """

    table: pd.DataFrame
    student_rate: RateFit | None
    loss_rate: RateFit | None
    excess_rate: RateFit | None
    result: FitResult

    @property
    def constant(self) -> float:
        """C of Theorem VII.2 as measured: the largest student_moved over weights_moved."""
        return _largest_ratio_in(self.table, "student_moved")

    @property
    def predictions_constant(self) -> float:
        """The same of predictions_moved, which does not depend on how the student is parametrized."""
        return _largest_ratio_in(self.table, "predictions_moved")

    @property
    def loss_constant(self) -> float:
        """The same of loss_moved."""
        return _largest_ratio_in(self.table, "loss_moved")

    def __str__(self) -> str:
        """Return the finding in a few lines."""
        lines = [
            f"student moves by at most {self.constant:.4g} times the weights, its predictions by "
            f"{self.predictions_constant:.4g}, the loss by {self.loss_constant:.4g}"
        ]
        for name, fit in (("student", self.student_rate), ("loss", self.loss_rate), ("excess", self.excess_rate)):
            if fit is not None:
                lines.append(f"{name} as delta^{fit.slope:.3g}, {fit.level:.0%} band {fit.low:.3g} to {fit.high:.3g}")
        return "\n".join(lines)


def stability(
    trainer: ConstrainedTrainer,
    train: Any,
    validation: Any = None,
    *,
    delta: float | Sequence[float] = 0.05,
    directions: int = 4,
    epochs: int = 200,
    splits: Mapping[str, Any] | None = None,
    seed: int = 0,
    **fit: Any,
) -> Stability:
    """Train under the weights and under perturbed ones, and fit how far student and loss move.

    All trainings begin where the student is, with the optimizer as it is; both are put back in the end.  A perturbation
    adds ``delta u`` to every position's weights, u random with sum 0 and maximum norm 1, and projects what comes of it
    into the rule's polytope, or the simplex where it has none.

    Args:
        trainer: The problem.  Its weighting rule must not learn.
        train: Training examples, as ``ConstrainedTrainer.fit`` takes them, in memory.
        validation: Examples that judge, or None.
        delta: The largest perturbation, above 0, of which an eighth, a quarter and a half are tried too; or all sizes.
        directions: How many u.
        epochs: Of every training, ``1 + sizes * directions`` of them.
        splits: Further splits by name.
        seed: Which directions.
        fit: Further arguments of ``ConstrainedTrainer.fit``.  Without a ``tolerance`` trainings take all their epochs:
            one that stops earlier than another moves by that alone.

    Returns:
        A row a training, constants and rates.

    Raises:
        InvalidInput: A number is out of range, the rule learns, or no weight could be moved.

    Source: Theorem VII.2 and Remark VI.4.
    """
    deltas, fit = _read_deltas(delta), {"tolerance": _STABILITY.tolerance, **fit}
    if not is_whole(directions) or directions < 1:
        raise InvalidInput(f"`directions` is {directions!r}; wanted a whole number, at least 1.")
    if unknown := [name for name in ("run_dir", "resume", "warm_start", "tighten") if name in fit]:
        raise InvalidInput(f"`{unknown[0]}` was given to stability, which trains many students from one start.")
    problem, rule = trainer.problem, trainer.objective.rule
    if collect_modules(rule):
        raise InvalidInput(
            "The weighting rule learns, so that its weights cannot be held and perturbed; use a fixed one."
        )
    device = problem.device
    placed = {name: move_split(data, name, device) for name, data in (("train", train), *(splits or {}).items())}
    held = None if validation is None else move_split(validation, "validation", device)
    start = _copy_start(trainer)

    def run(own: Rule) -> tuple[FitResult, ConstrainedTrainer]:
        _put_back(trainer, start)
        posed = copy.copy(trainer)
        posed.problem = replace(problem, objective=replace(trainer.objective, rule=own))
        others = {name: split for name, split in placed.items() if name != "train"}
        result = posed.fit(placed["train"], held, epochs=epochs, splits=others, **fit)
        # the student handed back shares its parameters with the trained one, which goes on
        return replace(result, student=copy.deepcopy(result.student)), posed

    try:
        base, posed = run(rule)
        reader = _Reader(posed, placed["train"], base)
        rows = []
        for number, u_K in enumerate(_draw_directions(len(trainer.objective.ensemble), directions, seed)):
            for size in deltas:
                perturbed = PerturbedRule(rule, u_K, size)
                result, own = run(perturbed)
                rows.append({"delta": size, "direction": number, **reader.compare(result, own, perturbed)})
    finally:
        _put_back(trainer, start)
    table = pd.DataFrame(rows)
    if float(table["weights_moved"].max()) <= _STABILITY.rounding:
        raise InvalidInput("No perturbation moved a weight: the polytope leaves one point. Widen its bounds.")
    return Stability(
        table=table,
        student_rate=_fit_column(table, "student_moved"),
        loss_rate=_fit_column(table, "loss_moved"),
        excess_rate=_fit_column(table, "excess"),
        result=base,
    )


@dataclass(frozen=True)
class PerturbedRule:
    """A rule whose weights are moved by ``delta u`` and projected back.

    Attributes:
        rule: From Signals to weights (..., K), sum 1.
        direction: u, (K,), sum 0.
        delta: How far, in the maximum norm.
    """

    rule: Rule
    direction: Tensor
    delta: float

    @property
    def needs(self) -> frozenset[str]:
        """The signals that the rule inside asks for."""
        return collect_needs(self.rule)

    def __call__(self, signals: Signals) -> Tensor:
        """Return weights, (..., K).

        Args:
            signals: The signals of a batch.
        """
        w_K = self.rule(signals)
        polytope = getattr(self.rule, "polytope", None)
        if not isinstance(polytope, WeightPolytope):
            polytope = WeightPolytope(n_teachers=w_K.shape[-1], lower=0.0, upper=1.0)
        return project(w_K + self.delta * self.direction.to(w_K), polytope)


class _Reader:
    """Compares trainings with the one under unperturbed weights."""

    def __init__(self, trainer: ConstrainedTrainer, train: Split, base: FitResult) -> None:
        self._objective, self._train, self._base = trainer.objective, train, base
        self._says = _read_predictions(base.student, train)

    def compare(self, result: FitResult, own: ConstrainedTrainer, rule: Rule) -> dict[str, float]:
        base = self._base
        ideal = read_full_pass(
            replace(self._objective, student=result.student), self._train, {}, [], with_gradients=False
        ).loss
        safety = zip(base.point.readings, result.point.readings, strict=True)
        pairs = zip(base.student.parameters(), result.student.parameters(), strict=True)
        return {
            "weights_moved": self._weights_moved(rule),
            "student_moved": math.sqrt(sum(float((a - b).detach().double().square().sum()) for a, b in pairs)),
            "predictions_moved": float(
                (_read_predictions(result.student, self._train) - self._says).abs().sum(-1).mean()
            )
            / 2,
            "loss_moved": abs(result.point.loss - base.point.loss),
            "excess": ideal - base.point.loss,
            "safety_moved": max((abs(a.measured - b.measured) for a, b in safety), default=0.0),
        }

    def _weights_moved(self, rule: Rule) -> float:
        most = 0.0
        with torch.no_grad():
            for batch in self._train.batches(_STABILITY.examples):
                signals = self._objective.signals(self._train, batch)
                moved = signals.select_counted((rule(signals) - self._objective.rule(signals)).abs())
                most = max(most, float(moved.max()) if moved.numel() else 0.0)
        return most


def _read_predictions(student: nn.Module, train: Split) -> Tensor:
    with torch.no_grad(), evaluation_mode(student):
        parts = [ask_module(student, batch.inputs, "The student") for batch in train.batches(_STABILITY.examples)]
    said = torch.cat([log_softmax(part).double().exp() for part in parts])
    mask = train.batch().mask
    return said if mask is None else said[mask]


def _read_deltas(delta: Any) -> tuple[float, ...]:
    sizes = [share * delta for share in _STABILITY.shares] if is_number(delta) else delta
    if not isinstance(sizes, (list, tuple)) or not sizes or not all(is_number(d) and 0 < d <= 1 for d in sizes):
        raise InvalidInput(f"`delta` is {delta!r}; wanted a perturbation of weights above 0 and at most 1, or several.")
    return tuple(float(d) for d in sizes)


def _draw_directions(teachers: int, directions: int, seed: Any) -> Tensor:
    if teachers < 2:
        raise InvalidInput("One teacher's weight is always 1; a perturbation of weights needs at least two teachers.")
    g = torch.Generator().manual_seed(require_seed(seed))
    u_DK = torch.randn(directions, teachers, generator=g, dtype=torch.float64)
    u_DK = u_DK - u_DK.mean(-1, keepdim=True)
    return u_DK / u_DK.abs().amax(-1, keepdim=True)


def _copy_start(trainer: ConstrainedTrainer) -> dict[str, Any]:
    problem = trainer.problem
    parts: dict[str, Any] = {"student": problem.student, "optimizer": problem.optimizer, "scheduler": problem.scheduler}
    return {name: copy.deepcopy(part.state_dict()) for name, part in parts.items() if part is not None}


def _put_back(trainer: ConstrainedTrainer, start: Mapping[str, Any]) -> None:
    problem = trainer.problem
    problem.student.load_state_dict(start["student"])
    problem.optimizer.load_state_dict(copy.deepcopy(start["optimizer"]))
    if problem.scheduler is not None:
        problem.scheduler.load_state_dict(copy.deepcopy(start["scheduler"]))


def _largest_ratio_in(table: pd.DataFrame, column: str) -> float:
    moved = table[table["weights_moved"] > _STABILITY.rounding]
    return float((moved[column] / moved["weights_moved"]).max())


def _fit_column(table: pd.DataFrame, column: str) -> RateFit | None:
    """Fit a power law whose constant may differ from direction to direction."""
    kept = table[(table["weights_moved"] > _STABILITY.rounding) & (table[column] > _STABILITY.rounding)]
    if kept["weights_moved"].nunique() < 3:
        return None
    log = kept[["weights_moved", column]].apply(np.log)
    own = (log - log.groupby(kept["direction"]).transform("mean")).apply(np.exp)
    return fit_power(own["weights_moved"].to_numpy(), own[column].to_numpy())
