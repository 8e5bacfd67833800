"""The frontier of loss against safety over runs of the trainer: the same sweep, rows and table as for any student.

``SliceSweep`` says which runs it wants next, as for ``trace_frontier``; here each run is a ``SafeKDTrainer``, in this
process, begun where its neighbor ended.  Students are kept in the memory of the host.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...errors import InvalidInput, SolverFailure
from ...frontier import Frontier
from ...frontier.store import RunSpec, TrainedPoint
from ...frontier.sweep import LOOSEST, RowContext, SliceSweep, build_table, build_table_row, check_sweep_plan
from ...frontier.table import annotate_rows
from ...weights import load_rule_state, rule_state
from ._safe_kd_trainer import SafeKDTrainer

MakeSafeKDTrainer = Callable[[float], SafeKDTrainer]


def trace_trainer_frontier(
    make_trainer: MakeSafeKDTrainer,
    *,
    targets: int | Sequence[float] = 5,
    highest: float = 0.99,
    budget: int | None = None,
    warm: bool = True,
    on_point: Callable[[Mapping[str, Any]], None] | None = None,
) -> Frontier:
    """Trace the frontier of distillation loss against safety, one run of the trainer a threshold.

    Statuses and columns are those of ``kd.trace_frontier``; losses and safeties are of the last point of each trace,
    read on its sample of the training data.  A warm run begins with weights and multipliers of its neighbor, and with
    an optimizer of its own.

    Args:
        make_trainer: Threshold to a fresh ``SafeKDTrainer`` with a fresh student, whose first constraint asks for it:
            ``constraint.with_threshold(threshold)``.
        targets: How many thresholds, spread from what the student reaches without the first constraint to ``highest``;
            or the thresholds, in (0, 1].
        highest: The tightest threshold where ``targets`` is a count.
        budget: Runs at most; None for those that the targets need and half as many for gaps.
        warm: Whether a run begins where its neighbor ended.
        on_point: Called with every row, a dictionary by column, as it lands.

    Returns:
        The frontier; ``students`` are models of transformers.

    Raises:
        InvalidInput: An argument is out of range, or a trainer is not what was asked for.
        SolverFailure: The run without the first constraint left no student to begin from.
    """
    first = _make(make_trainer, LOOSEST)
    plan = check_sweep_plan(
        make_trainer,  # type: ignore[arg-type]  # whose trainers are of another kind: it is looked at as a function
        method="epsilon",
        targets=targets,
        highest=highest,
        budget=budget,
        seeds=None,
        held=None,
        warm=warm,
        tolerance=first.tolerance,
    )
    run_id = secrets.token_hex(6)

    def context(seed: int) -> RowContext:
        name, *others = first.terms.constraints
        held = {constraint.name: constraint.required for constraint in others}
        return RowContext(run_id, "epsilon", seed, held, [c.name for c in first.terms.constraints], name.split, True)

    def report(row: Any) -> None:
        if on_point is not None:
            on_point(build_table_row(row, context(first.args.seed)))

    sweep = SliceSweep(plan, None, {}, "", report)
    points: dict[str, TrainedPoint] = {}
    requests, answers = sweep.list_run_specs(), None
    while True:
        try:
            wanted = next(requests) if answers is None else requests.send(answers)
        except StopIteration:
            break
        answers = [_train_point(make_trainer, spec, points.get(spec.start or "")) for spec in wanted]
        points |= {point.spec.name: point for point in answers}
    if sweep.anchor is None or not sweep.anchor.finite:
        raise SolverFailure("The run without the first constraint left no student, so there is nothing to begin from.")
    rows = [(row, context(first.args.seed)) for row in sweep.rows]
    name = first.terms.constraints[0].name
    table = annotate_rows(build_table([build_table_row(row, about) for row, about in rows]), name)
    meta = {
        "run_id": run_id,
        "method": "epsilon",
        "senses": {"distillation_loss": "min", **{f"safety_{c.name}": "max" for c in first.terms.constraints}},
        "highest": plan.highest,
        "runs": sweep.budget.spent,
        "threads": torch.get_num_threads(),
        "data": [],
        "notes": list(plan.notes),
    }
    kept = {number: row.point for number, (row, _) in enumerate(rows) if row.point is not None and row.point.student}
    return Frontier(table, name, meta, TrainerStudents(make_trainer, kept))


class TrainerStudents(Mapping[int, nn.Module]):
    """Students by row of the table, in eval mode, each made when it is asked for.

    Args:
        make_trainer: Gives the model that parameters fill.
        points: The trained points, by row.
    """

    def __init__(self, make_trainer: MakeSafeKDTrainer, points: Mapping[int, TrainedPoint]) -> None:
        self._make_trainer, self._points = make_trainer, dict(points)

    def __getitem__(self, row: int) -> nn.Module:
        point = self._points[row]
        student = _make(self._make_trainer, max(point.spec.target, LOOSEST)).student
        student.load_state_dict(point.student)
        return student.eval()

    def __iter__(self) -> Iterator[int]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)


def _make(make_trainer: MakeSafeKDTrainer, threshold: float) -> SafeKDTrainer:
    trainer = make_trainer(threshold)
    if not isinstance(trainer, SafeKDTrainer):
        raise InvalidInput(f"make_trainer gave a {type(trainer).__name__}; wanted a fresh SafeKDTrainer.")
    if not trainer.terms.constraints or trainer.terms.constraints[0].is_equality:
        raise InvalidInput("make_trainer(threshold) gave a trainer whose first constraint has no at_least to be swept.")
    first = trainer.terms.constraints[0]
    if abs(first.required - threshold) > 1e-12:
        raise InvalidInput(
            f"make_trainer({threshold:g}) gave a trainer whose first constraint, '{first.name}', asks for "
            f"{first.required:g}; wanted the threshold that it is called with: constraint.with_threshold(threshold)."
        )
    return trainer


def _train_point(make_trainer: MakeSafeKDTrainer, spec: RunSpec, start: TrainedPoint | None) -> TrainedPoint:
    """Train once; a run that raises is handed back as failed, unless it is the first."""
    began = time.perf_counter()
    trainer = _make(make_trainer, max(spec.target, LOOSEST))
    student = trainer.student
    try:
        if start is not None:
            student.load_state_dict(start.student)
            load_rule_state(trainer.terms.weights, start.rule_state)
            trainer.start_multipliers = list(start.multipliers)
        trainer.train()
    except Exception as error:
        if start is None and spec.name.endswith("anchor"):
            raise
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return TrainedPoint(spec, "failed", text, wall_s=time.perf_counter() - began)
    result = trainer.result()
    point = result.point
    return TrainedPoint(
        spec,
        result.status,
        "" if result.status in ("stationary_unverified", "budget_spent") else result.message,
        seed=trainer.args.seed,
        loss=point.loss,
        loss_se=point.loss_se,
        readings=list(point.readings),
        validation=list(point.validation),
        multipliers=list(point.multipliers),
        rho=max(point.rho),
        **vars(point.residuals),
        steps=point.step,
        optimizer_kind=type(trainer.optimizer).__name__,
        wall_s=time.perf_counter() - began,
        sampled=point.sampled,
        student={name: value.detach().cpu().clone() for name, value in student.state_dict().items()},
        rule_state=rule_state(trainer.terms.weights),
    )
