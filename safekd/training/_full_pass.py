"""Full passes: loss, constraints and their gradients, read exactly over whole splits, chunk by chunk.

Axes: B batch, V classes, G groups of a constraint, M constraints, n parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.kkt import gradients
from solvers.short_repr import ShortRepr

from .._precision import log_softmax
from .._torch_state import evaluation_mode
from ..data import Batch, Split
from ..safety import Constraint, GroupSums
from ._constraint_layout import attainable_threshold, is_single_average
from ._objective import CHUNK, Objective, explain_infinite_loss
from .trace import ConstraintReading


@dataclass(frozen=True, repr=False)
class FullPass(ShortRepr):
    """Exact values over whole splits: loss, readings, and, if asked for, gradients of loss and constraints.

    Attributes:
        loss: Distillation loss on the training split, nats.
        loss_se: Its standard error, from the spread over positions.
        readings: One a constraint, on the split on which it is posed.
        gradient_n: Gradient of the loss, (n,), zeros where none was asked for.
        jacobian_Mn: Gradients of ``g = required - surrogate``, (M, n), zeros where none were asked for.
    """

    loss: float
    loss_se: float
    readings: list[ConstraintReading]
    gradient_n: Tensor
    jacobian_Mn: Tensor


def read_full_pass(
    objective: Objective,
    train: Split,
    splits: Mapping[str, Split],
    constraints: Sequence[Constraint],
    *,
    with_gradients: bool,
) -> FullPass:
    """Read the loss and each constraint on the split it names, exactly, student and rule in eval mode.

    Args:
        objective: Holds student and targets.
        train: Where the loss is read, and constraints posed on "train".
        splits: The others, by name.
        constraints: M of them.
        with_gradients: Whether gradients are wanted; they cost a backward pass each.
    """
    variables: list[Tensor] = [p for p in objective.student.parameters() if p.requires_grad]
    names = sorted({"train"} | {rule.split for rule in constraints})
    move_split = {name: train if name == "train" else splits[name] for name in names}
    objective.clear_non_finite_source()
    with evaluation_mode(objective.readers):
        factors = read_surrogate_factors(objective, move_split, constraints) if with_gradients else None
        sums = _FullPassSums(constraints, factors, variables)
        with torch.set_grad_enabled(with_gradients):
            for name, split in move_split.items():
                for index in split.chunks(CHUNK):
                    batch = split.batch(index)
                    logits_V = objective.logits(batch)
                    loss = None
                    if name == "train":
                        log_q_V = objective.target(split, index, logits_V)
                        losses = objective.loss(log_q_V, logits_V)
                        if not bool(torch.isfinite(losses).all()):
                            objective.note_non_finite(explain_infinite_loss(log_q_V, logits_V, losses, batch.index))
                        sums.losses.append(losses.detach().double().reshape(-1).cpu())
                        loss = losses.sum() / split.labels.numel()
                    sums.add(name, batch, logits_V, loss)
    return sums.total()


def read_surrogate_factors(
    objective: Objective, move_split: Mapping[str, Split], constraints: Sequence[Constraint]
) -> list[Tensor]:
    """Return by how much each group's sum of surrogates counts in each constraint's value, (G,) each.

    Where that depends on the means themselves, those are read in a pass of their own.

    Args:
        objective: Holds the student.
        move_split: Splits on which constraints are posed, by name.
        constraints: M of them.
    """
    factors = []
    for rule in constraints:
        split = move_split[rule.split]
        count_G = objective.count_groups(rule, split)
        mean_G = torch.full_like(count_G, torch.nan)
        if rule.gradient_depends_on_means:
            mean_G = _surrogate_means(objective, rule, split, count_G)
        factors.append(torch.where(count_G > 0, rule.gradient(mean_G, count_G, surrogate=True) / count_G, 0.0))
    return factors


def measure_gaps(constraints: Sequence[Constraint], full: FullPass) -> Tensor:
    """Return threshold less measured value of each constraint, (M,); of one that counts, to what it can attain.

    Args:
        constraints: In the order of the readings.
        full: What was read.
    """
    pairs = zip(constraints, full.readings, strict=True)
    gaps = [float(attainable_threshold(rule, torch.tensor(r.count))) - r.measured for rule, r in pairs]
    return torch.tensor(gaps, dtype=torch.float64, device=full.gradient_n.device)


def pose_all_on_train(constraints: Sequence[Constraint]) -> list[Constraint]:
    """Return the constraints as if all were posed on the split that is read as ``train``.

    Args:
        constraints: Any.
    """
    return [rule.with_split("train") for rule in constraints]


@torch.no_grad()
def _surrogate_means(objective: Objective, rule: Constraint, split: Split, count_G: Tensor) -> Tensor:
    total_G = torch.zeros_like(count_G)
    for index in split.chunks(CHUNK):
        batch = split.batch(index)
        total_G += rule.sums(log_softmax(objective.logits(batch)), batch).surrogate_G
    return total_G / count_G


class _FullPassSums:
    """Adds up losses, constraint values and their gradients over the chunks of a full pass.

    factors: see ``read_surrogate_factors``; None where no gradient is wanted.
    """

    def __init__(
        self, constraints: Sequence[Constraint], factors: Sequence[Tensor] | None, variables: list[Tensor]
    ) -> None:
        self.constraints, self.factors, self.variables = constraints, factors, variables
        size, like = sum(p.numel() for p in variables), variables[0]
        self.loss = 0.0
        self.losses: list[Tensor] = []
        self.gradient_n = torch.zeros(size, dtype=torch.float64, device=like.device)
        self.jacobian_Mn = torch.zeros(len(constraints), size, dtype=torch.float64, device=like.device)
        self.sums: list[GroupSums | None] = [None] * len(constraints)

    def add(self, name: str, batch: Batch, logits_V: Tensor, loss: Tensor | None) -> None:
        """Add one chunk of the split ``name``; ``loss`` is its share of the mean loss, on the training split."""
        here = [m for m, rule in enumerate(self.constraints) if rule.split == name]
        log_p_V = log_softmax(logits_V)
        scalars = [] if loss is None else [loss]
        for m in here:
            sums = self.constraints[m].sums(log_p_V, batch)
            if self.factors is not None:
                scalars.append(-(self.factors[m] * sums.surrogate_G).sum())
            before, sums = self.sums[m], sums.detach()
            self.sums[m] = sums if before is None else before + sums
        if self.factors is not None:
            rows = gradients(scalars, self.variables)
            if loss is not None:
                self.gradient_n += rows[0]
            self.jacobian_Mn[here] += rows[0 if loss is None else 1 :]
        if loss is not None:
            self.loss += float(loss.detach())

    def total(self) -> FullPass:
        """Divide by counts and hand over."""
        readings = [
            _constraint_reading(rule, sums)
            for rule, sums in zip(self.constraints, self.sums, strict=True)
            if sums is not None
        ]
        losses = torch.cat(self.losses)
        return FullPass(self.loss, _standard_error(losses), readings, self.gradient_n, self.jacobian_Mn)


def _constraint_reading(rule: Constraint, sums: GroupSums) -> ConstraintReading:
    mean_G, surrogate_G = sums.means(), sums.surrogate_G / sums.count_G
    factor_G = rule.gradient(mean_G, sums.count_G)
    surrogate_factor_G = (
        rule.gradient(surrogate_G, sums.count_G, surrogate=True) if rule.gradient_depends_on_means else factor_G
    )
    return ConstraintReading(
        name=rule.name,
        split=rule.split,
        measured=rule.offset + float(factor_G @ mean_G),
        surrogate=rule.offset + float(surrogate_factor_G @ surrogate_G),
        required=rule.required,
        count=int(sums.count_G.sum()),
        standard_error=float((factor_G.square() * sums.variances()).sum().sqrt()),
        equality=rule.is_equality,
        # a single average is posed at a value that it can attain
        resolution=0.0 if is_single_average(rule) else rule.resolution(factor_G, sums.count_G),
    )


def _standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of independent values, no number below two."""
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")
