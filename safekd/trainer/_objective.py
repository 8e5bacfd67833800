"""The distillation problem of one student: targets, losses, and exact readings over whole splits.

Axes: N examples, B batch, ... positions, K teachers, V classes, M constraints, n parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from solvers.kkt import gradients

from .._modes import evaluating
from ..aggregation import arithmetic_pool
from ..data import Batch, Split, SplitCache, logits_of
from ..errors import InvalidInput, NotFinite
from ..safety import SafetyConstraint
from ..teachers import Perturbation, TeacherEnsemble
from ..tracer import ConstraintReading
from ..weights import Evidence, Rule, Signals, looks_at_student, modules_of, needs_of

Loss = Callable[[Tensor, Tensor], Tensor]
_CHUNK = 4096


@dataclass(frozen=True)
class FullPass:
    """Exact values over whole splits: loss, readings, and, if asked for, gradients of loss and constraints.

    loss_se: standard error of the loss, from the spread over positions.
    """

    loss: float
    loss_se: float
    readings: list[ConstraintReading]
    gradient_n: Tensor
    jacobian_Mn: Tensor


@dataclass(frozen=True)
class Pool:
    """The teachers of some examples, weighed and pooled: readings, weights (B, ..., K), log target (B, ..., V)."""

    signals: Signals
    weights_K: Tensor
    log_q_V: Tensor


@dataclass
class Objective:
    """``mean over a split of divergence(pool of teachers, student)``, and readings of constraints.

    Rules are functions of what the teachers and the data say, so targets are worked out once a split and kept, unless
    the rule looks at the student or holds a module, which may learn.
    features: what rules that learn from a representation see of a batch, (B, ..., D); None: its inputs, flattened.
    perturbation: how teachers are asked again where the rule needs their variance.
    """

    student: nn.Module
    ensemble: TeacherEnsemble
    rule: Rule
    divergence: Loss
    evidence: Evidence | None
    critical_classes: Collection[int]
    critical_contexts: Collection[int]
    features: Callable[[Batch], Tensor] | None = None
    perturbation: Perturbation = field(default_factory=Perturbation)

    def __post_init__(self) -> None:
        self._targets = SplitCache()
        self._variances: dict[int, tuple[Split, Tensor]] = {}
        self.complaint: str | None = None  # of a teacher, in the last pass: its targets are no numbers then
        self._needs, modules = needs_of(self.rule), modules_of(self.rule).values()
        self.fixed = not (looks_at_student(self.rule) or modules)
        self.readers = nn.ModuleList([self.student, *modules])  # all that has an eval mode

    def signals(self, split: Split, index: Tensor, logits_V: Tensor | None = None) -> Signals:
        """Return what the weighting rule may look at for the examples ``index`` of ``split``.

        logits_V: the student's for them; where left out and needed, it is asked in eval mode.
        """
        batch = split.batch(index)
        if logits_V is None and not self.fixed:
            with evaluating(self.readers), torch.no_grad():
                logits_V = self.logits(batch)
        log_p_KV = self.ensemble.on(split, index)
        if logits_V is not None:
            _require_same_classes(log_p_KV, logits_V)
        return Signals(
            log_p=log_p_KV,
            labels=batch.labels,
            task=batch.task,
            context=batch.context,
            evidence=None if self.evidence is None else self.evidence.to(batch.labels.device),
            critical_classes=self.critical_classes,
            critical_contexts=self.critical_contexts,
            student_log_p=None if logits_V is None else _log_p(logits_V.detach()),
            features=self._features(batch),
            variance=self._variance(split, index),
        )

    def pool(self, split: Split, index: Tensor, logits_V: Tensor | None = None) -> Pool:
        """Weigh and pool the teachers for the examples ``index`` as the rule is now; weights keep their gradient."""
        signals = self.signals(split, index, logits_V)
        w_K = self.rule(signals)
        return Pool(signals, w_K, arithmetic_pool(signals.log_p, w_K))

    def target(self, split: Split, index: Tensor, logits_V: Tensor) -> Tensor:
        """Return the log of the pooled target for the examples ``index``, (B, ..., V), without gradient."""
        with torch.no_grad():
            if not self.fixed and not bool(torch.isfinite(logits_V).all()):
                return torch.full_like(logits_V, torch.nan)  # no rule can say anything of such a student
            try:
                if not self.fixed:
                    return self.pool(split, index, logits_V).log_q_V
                return self._targets.rows(split, index, lambda some: self.pool(split, some).log_q_V, _CHUNK)
            except NotFinite as error:
                self.complaint = self.complaint or error.culprit
                return torch.full_like(logits_V, torch.nan)

    def logits(self, batch: Batch) -> Tensor:
        """Return the student's logits, (B, ..., V)."""
        logits_V = logits_of(self.student(batch.inputs), "The student")
        if logits_V.shape[:-1] != batch.labels.shape:
            raise InvalidInput(
                f"The student gives {tuple(logits_V.shape)} for labels of shape {tuple(batch.labels.shape)}; "
                "wanted one row of logits a label."
            )
        return logits_V

    def loss(self, log_q_V: Tensor, logits_V: Tensor) -> Tensor:
        """Return one distillation loss a position, (B, ...)."""
        _require_same_classes(log_q_V, logits_V)
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
        """Read loss on ``train`` and each constraint on the split it names, exactly, student and rule in eval mode."""
        sums = _Sums(constraints, [p for p in self.student.parameters() if p.requires_grad])
        self.complaint = None
        with evaluating(self.readers), torch.set_grad_enabled(with_gradients):
            for name in sorted({"train"} | {rule.split for rule in constraints}):
                split = train if name == "train" else splits[name]
                for index in split.chunks(_CHUNK):
                    batch = split.batch(index)
                    logits_V = self.logits(batch)
                    loss = None
                    if name == "train":
                        log_q_V = self.target(split, index, logits_V)
                        losses = self.loss(log_q_V, logits_V)
                        sums.losses.append(losses.detach().double().reshape(-1).cpu())
                        loss = losses.sum() / split.labels.numel()
                    sums.add(name, batch, logits_V, loss)
        return sums.finished()

    def _variance(self, split: Split, index: Tensor) -> Tensor | None:
        """How unsteady teachers are, (B, ..., K): asked once a split, since neither they nor the noise change."""
        if "variance" not in self._needs:
            return None
        if id(split) not in self._variances:
            asked = self.perturbation.variance(self.ensemble, split)
            self._variances[id(split)] = (split, asked)  # holding the split keeps its id taken
        return self._variances[id(split)][1][index]

    def _features(self, batch: Batch) -> Tensor | None:
        if self.features is None and "features" not in self._needs:
            return None
        found = _flat_inputs(batch) if self.features is None else self.features(batch).detach()
        if found.shape[:-1] != batch.labels.shape:
            raise InvalidInput(
                f"`features` has shape {tuple(found.shape)} for labels of shape {tuple(batch.labels.shape)}; "
                "wanted one row of features a label."
            )
        return found


class _Sums:
    """Adds up losses, constraint values and their gradients over the chunks of a full pass."""

    def __init__(self, constraints: Sequence[SafetyConstraint], variables: list[Tensor]) -> None:
        self.constraints, self.variables = constraints, variables
        size, like = sum(p.numel() for p in variables), variables[0]
        self.loss = 0.0
        self.losses: list[Tensor] = []
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
        return FullPass(self.loss, _standard_error(torch.cat(self.losses)), readings, self.gradient_n, self.jacobian_Mn)


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
        standard_error=_standard_error(values),
    )


def _standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of independent values, no number below two."""
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")


def _require_same_classes(teachers_V: Tensor, student_V: Tensor) -> None:
    if teachers_V.shape[-1] != student_V.shape[-1]:
        raise InvalidInput(
            f"The student gives {student_V.shape[-1]} classes, the teachers give {teachers_V.shape[-1]}; "
            "give the student as many outputs as there are classes."
        )


def _log_p(logits_V: Tensor) -> Tensor:
    """Return log-probabilities, half types widened."""
    return torch.log_softmax(logits_V.float() if logits_V.dtype.itemsize < 4 else logits_V, dim=-1)


def _flat_inputs(batch: Batch) -> Tensor:
    """Return each position's own inputs as one row, (B, ..., D)."""
    lead = batch.labels.shape
    if not batch.inputs.is_floating_point() or batch.inputs.shape[: len(lead)] != lead:
        raise InvalidInput(
            f"The weighting rule learns from features; inputs are {batch.inputs.dtype} of shape "
            f"{tuple(batch.inputs.shape)}, which gives none for labels of shape {tuple(lead)}. "
            "Pass features=, a function from a batch to (B, ..., D)."
        )
    return batch.inputs.reshape(*lead, -1)
