"""The distillation problem of one student: targets, losses, and exact readings over whole splits.

Axes: N examples, B batch, ... positions, K teachers, V classes, M constraints, n parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from solvers.kkt import gradients

from .._modes import evaluating
from ..aggregation import arithmetic_pool
from ..data import Batch, Split, SplitCache, logits_of
from ..errors import InvalidInput
from ..safety import SafetyConstraint
from ..teachers import TeacherEnsemble
from ..tracer import ConstraintReading
from ..weights import Evidence, Rule, Signals

Loss = Callable[[Tensor, Tensor], Tensor]
_CHUNK = 4096


@dataclass(frozen=True)
class FullPass:
    """Exact values over whole splits: loss, readings, and, if asked for, gradients of loss and constraints."""

    loss: float
    readings: list[ConstraintReading]
    gradient_n: Tensor
    jacobian_Mn: Tensor


@dataclass
class Objective:
    """``mean over a split of divergence(pool of teachers, student)``, and readings of constraints.

    Rules are functions of what the teachers and the data say, so targets are worked out once a split and kept,
    unless the rule is a module that learns.
    """

    student: nn.Module
    ensemble: TeacherEnsemble
    rule: Rule
    divergence: Loss
    evidence: Evidence | None
    critical_classes: Collection[int]
    critical_contexts: Collection[int]

    def __post_init__(self) -> None:
        self._targets = SplitCache()

    def signals(self, split: Split, index: Tensor) -> Signals:
        """Return what the weighting rule may look at for the examples ``index`` of ``split``."""
        batch = split.batch(index)
        return Signals(
            log_p=self.ensemble.on(split, index),
            labels=batch.labels,
            task=batch.task,
            context=batch.context,
            evidence=None if self.evidence is None else self.evidence.to(batch.labels.device),
            critical_classes=self.critical_classes,
            critical_contexts=self.critical_contexts,
        )

    def target(self, split: Split, index: Tensor) -> Tensor:
        """Return the log of the pooled target for the examples ``index``, (B, ..., V)."""
        if isinstance(self.rule, nn.Module):
            return self._pooled(split, index)
        return self._targets.rows(split, index, lambda some: self._pooled(split, some), _CHUNK)

    def logits(self, batch: Batch) -> Tensor:
        """Return the student's logits, (B, ..., V)."""
        logits_V = logits_of(self.student(batch.inputs), "The student")
        if logits_V.shape[:-1] != batch.labels.shape:
            raise InvalidInput(
                f"The student gives {tuple(logits_V.shape)} for labels of shape {tuple(batch.labels.shape)}; "
                "wanted one row of logits a label."
            )
        return logits_V

    def loss(self, split: Split, index: Tensor, logits_V: Tensor) -> Tensor:
        """Return one distillation loss a position, (B, ...)."""
        log_q_V = self.target(split, index)
        if log_q_V.shape[-1] != logits_V.shape[-1]:
            raise InvalidInput(
                f"The student gives {logits_V.shape[-1]} classes, the teachers give {log_q_V.shape[-1]}; "
                "give the student as many outputs as there are classes."
            )
        loss = self.divergence(log_q_V.to(logits_V), logits_V)
        if loss.shape != logits_V.shape[:-1]:
            raise InvalidInput(
                f"The divergence gives shape {tuple(loss.shape)}; wanted one loss a position, "
                f"{tuple(logits_V.shape[:-1])}: sum over classes only, without averaging over the batch."
            )
        return loss

    def full_pass(
        self,
        train: Split,
        splits: Mapping[str, Split],
        constraints: Sequence[SafetyConstraint],
        *,
        with_gradients: bool,
    ) -> FullPass:
        """Read loss on ``train`` and each constraint on the split it names, exactly, the student in eval mode."""
        sums = _Sums(constraints, [p for p in self.student.parameters() if p.requires_grad])
        with evaluating(self.student), torch.set_grad_enabled(with_gradients):
            for name in sorted({"train"} | {rule.split for rule in constraints}):
                split = train if name == "train" else splits[name]
                for index in split.chunks(_CHUNK):
                    batch = split.batch(index)
                    logits_V = self.logits(batch)
                    loss = None
                    if name == "train":
                        loss = self.loss(split, index, logits_V).sum() / split.labels.numel()
                    sums.add(name, batch, logits_V, loss)
        return sums.finished()

    def _pooled(self, split: Split, index: Tensor) -> Tensor:
        signals = self.signals(split, index)
        return arithmetic_pool(signals.log_p, self.rule(signals))


class _Sums:
    """Adds up losses, constraint values and their gradients over the chunks of a full pass."""

    def __init__(self, constraints: Sequence[SafetyConstraint], variables: list[Tensor]) -> None:
        self.constraints, self.variables = constraints, variables
        size, like = sum(p.numel() for p in variables), variables[0]
        self.loss = 0.0
        self.gradient_n = torch.zeros(size, dtype=torch.float64, device=like.device)
        self.jacobian_Mn = torch.zeros(len(constraints), size, dtype=torch.float64, device=like.device)
        self.smooth = [0.0] * len(constraints)
        self.values: list[list[Tensor]] = [[] for _ in constraints]

    def add(self, name: str, batch: Batch, logits_V: Tensor, loss: Tensor | None) -> None:
        """Add one chunk of the split ``name``; ``loss`` is its share of the mean loss, on the training split."""
        here = [m for m, rule in enumerate(self.constraints) if rule.split == name]
        log_p_V = torch.log_softmax(logits_V, dim=-1)
        scalars = [] if loss is None else [loss]
        for m in here:
            rule = self.constraints[m]
            scalars.append(-rule.sums(log_p_V, batch)[0])
            self.smooth[m] -= float(scalars[-1].detach())
            measured = rule.measure.measured(log_p_V.detach(), batch.labels)
            self.values[m].append(measured[rule.covers(batch)].double().cpu())
        if torch.is_grad_enabled():
            rows = gradients(scalars, self.variables)
            if loss is not None:
                self.gradient_n += rows[0]
            self.jacobian_Mn[here] += rows[0 if loss is None else 1 :]
        if loss is not None:
            self.loss += float(loss.detach())

    def finished(self) -> FullPass:
        """Divide by counts and hand over."""
        readings, counts = [], []
        for rule, smooth, parts in zip(self.constraints, self.smooth, self.values, strict=True):
            values = torch.cat(parts)
            counts.append(values.numel())
            readings.append(_reading(rule, values, smooth))
        self.jacobian_Mn /= torch.tensor(counts).clamp_min(1).to(self.jacobian_Mn).unsqueeze(-1)
        return FullPass(self.loss, readings, self.gradient_n, self.jacobian_Mn)


def on_one_split(constraints: Sequence[SafetyConstraint]) -> list[SafetyConstraint]:
    """Return the constraints as if all were posed on the split that is read as ``train``."""
    return [replace(rule, split="train") for rule in constraints]


def _reading(rule: SafetyConstraint, values: Tensor, smooth_sum: float) -> ConstraintReading:
    count = values.numel()
    nan = float("nan")
    return ConstraintReading(
        name=rule.name,
        split=rule.split,
        measured=float(values.mean()) if count else nan,
        surrogate=smooth_sum / count if count else nan,
        required=rule.at_least,
        count=count,
        standard_error=float(values.std() / count**0.5) if count > 1 else nan,
    )
