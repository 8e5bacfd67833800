"""The distillation loss of one student: targets that a weighting rule makes out of teachers, and a divergence.

Axes: N examples, B batch, ... positions, K teachers, V classes, M constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from solvers.short_repr import ShortRepr

from .._torch_state import evaluation_mode, extract_logits
from ..data import Batch, Split, SplitCache
from ..errors import InvalidInput, NotFinite
from ..pooling import arithmetic_pool
from ..safety import Constraint
from ..teachers import Perturbation, TeacherEnsemble
from ..weights import Rule, Signals, TeacherEvidence, collect_modules, collect_needs, looks_at_student

Loss = Callable[[Tensor, Tensor], Tensor]
CHUNK = (
    4096  # examples that go through a student or a teacher at a time when a whole split is read: memory, not accuracy
)


@dataclass(frozen=True, repr=False)
class PooledTeachers(ShortRepr):
    """The teachers of some examples, weighed and pooled.

    Attributes:
        signals: What the weighting rule looked at.
        weights_K: Weight of each teacher, (B, ..., K), with its gradient.
        log_q_V: Log of the pooled target, (B, ..., V).
    """

    signals: Signals
    weights_K: Tensor
    log_q_V: Tensor


@dataclass(repr=False)
class Objective(ShortRepr):
    """The distillation loss, ``mean over a split of divergence(pool of teachers, student)``.

    Weighting rules are functions of what the teachers and the data say, so targets are worked out once a split and
    kept, unless the rule looks at the student or holds a module, which may learn.

    Attributes:
        student: Module from inputs (B, ...) to logits (B, ..., V).
        ensemble: The K teachers.
        rule: Weighting rule, from Signals to weights (B, ..., K).
        divergence: (log target, logits), both (B, ..., V) -> one loss a position, (B, ...), nats.
        evidence: Measured teachers, for rules and orderings; None where none were measured.
        critical_classes: S, classes where orderings apply.
        critical_contexts: C_safe, contexts where orderings apply.
        features: What rules that learn from a representation see of a batch, (B, ..., D); None: its inputs, flattened.
        perturbation: How teachers are asked again where the rule needs their variance.
        non_finite_source: First teacher whose targets were not finite in the last pass, None where all were.
        fixed: Whether targets never change: the rule neither looks at the student nor holds a module.
        readers: The student and the modules of the rule: all that has an eval mode.
    """

    student: nn.Module
    ensemble: TeacherEnsemble
    rule: Rule
    divergence: Loss
    evidence: TeacherEvidence | None
    critical_classes: Collection[int]
    critical_contexts: Collection[int]
    features: Callable[[Batch], Tensor] | None = None
    perturbation: Perturbation = field(default_factory=Perturbation)

    def __post_init__(self) -> None:
        self._targets = SplitCache()
        self._variances: dict[int, tuple[Split, Tensor]] = {}
        self.non_finite_source: str | None = None
        self._counts: dict[tuple[int, int], tuple[Constraint, Split, Tensor]] = {}
        self._needs, modules = collect_needs(self.rule), collect_modules(self.rule).values()
        self.fixed = not (looks_at_student(self.rule) or modules)
        self.readers = nn.ModuleList([self.student, *modules])

    def signals(self, split: Split, index: Tensor, logits_V: Tensor | None = None) -> Signals:
        """Return what the weighting rule may look at for some examples.

        Args:
            split: Where the examples are from.
            index: Their numbers, (B,).
            logits_V: The student's for them, (B, ..., V); where left out and needed, it is asked in eval mode.

        Raises:
            InvalidInput: Student and teachers differ in classes, or features have no row for each label.
        """
        batch = split.batch(index)
        if logits_V is None and not self.fixed:
            with evaluation_mode(self.readers), torch.no_grad():
                logits_V = self.logits(batch)
        log_p_KV = self.ensemble.cached_log_probabilities(split, index)
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
            student_log_p=None if logits_V is None else _log_probabilities(logits_V.detach()),
            features=self._features(batch),
            variance=self._variance(split, index),
        )

    def pool(self, split: Split, index: Tensor, logits_V: Tensor | None = None) -> PooledTeachers:
        """Weigh and pool the teachers for some examples, as the rule is now; weights keep their gradient.

        Args:
            split: Where the examples are from.
            index: Their numbers, (B,).
            logits_V: The student's for them, (B, ..., V); where left out and needed, it is asked in eval mode.
        """
        signals = self.signals(split, index, logits_V)
        w_K = self.rule(signals)
        return PooledTeachers(signals, w_K, arithmetic_pool(signals.log_p, w_K))

    def target(self, split: Split, index: Tensor, logits_V: Tensor) -> Tensor:
        """Return the log of the pooled target for some examples, (B, ..., V), without gradient.

        NaN where a teacher gave what is not finite; ``non_finite_source`` then says which.

        Args:
            split: Where the examples are from.
            index: Their numbers, (B,).
            logits_V: The student's for them, (B, ..., V).
        """
        with torch.no_grad():
            if not self.fixed and not bool(torch.isfinite(logits_V).all()):
                return torch.full_like(logits_V, torch.nan)  # no rule can say anything of such a student
            try:
                if not self.fixed:
                    return self.pool(split, index, logits_V).log_q_V
                return self._targets.rows(split, index, lambda some: self.pool(split, some).log_q_V, CHUNK)
            except NotFinite as error:
                self.non_finite_source = self.non_finite_source or error.source
                return torch.full_like(logits_V, torch.nan)

    def clear_non_finite_source(self) -> None:
        """Forget which teacher was not finite: a new pass begins."""
        self.non_finite_source = None

    def holds_targets(self, split: Split) -> bool:
        """Tell whether the targets of a split are in memory, and will not be asked for again.

        Args:
            split: Any split.
        """
        return self._targets.holds(split)

    def logits(self, batch: Batch) -> Tensor:
        """Return the student's logits, (B, ..., V).

        Args:
            batch: Examples.

        Raises:
            InvalidInput: The student does not give one row of logits a label.
        """
        logits_V = extract_logits(self.student(batch.inputs), "The student")
        if logits_V.shape[:-1] != batch.labels.shape:
            raise InvalidInput(
                f"The student gives {tuple(logits_V.shape)} for labels of shape {tuple(batch.labels.shape)}; "
                "wanted one row of logits a label."
            )
        return logits_V

    def loss(self, log_q_V: Tensor, logits_V: Tensor) -> Tensor:
        """Return one distillation loss a position, (B, ...), nats.

        Args:
            log_q_V: Log of the target, (B, ..., V).
            logits_V: The student's, (B, ..., V).

        Raises:
            InvalidInput: Classes differ, or the divergence gives another shape.
        """
        _require_same_classes(log_q_V, logits_V)
        loss = self.divergence(log_q_V.to(logits_V), logits_V)
        if loss.shape != logits_V.shape[:-1]:
            raise InvalidInput(
                f"The divergence gives shape {tuple(loss.shape)}; wanted one loss a position, "
                f"{tuple(logits_V.shape[:-1])}: sum over classes only, without averaging over the batch."
            )
        return loss

    def count_groups(self, rule: Constraint, split: Split) -> Tensor:
        """Return how many examples each group of a constraint has, (G,); counted once.

        Args:
            rule: The constraint.
            split: Where it is read.
        """
        key = id(rule), id(split)
        if key not in self._counts:
            count_G = sum(rule.counts(split.batch(index)) for index in split.chunks(CHUNK))
            self._counts[key] = (rule, split, torch.as_tensor(count_G))  # holding both keeps their ids taken
        return self._counts[key][2]

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
        features = _flat_inputs(batch) if self.features is None else self.features(batch).detach()
        if features.shape[:-1] != batch.labels.shape:
            raise InvalidInput(
                f"`features` has shape {tuple(features.shape)} for labels of shape {tuple(batch.labels.shape)}; "
                "wanted one row of features a label."
            )
        return features


def _require_same_classes(teachers_V: Tensor, student_V: Tensor) -> None:
    if teachers_V.shape[-1] != student_V.shape[-1]:
        raise InvalidInput(
            f"The student gives {student_V.shape[-1]} classes, the teachers give {teachers_V.shape[-1]}; "
            "give the student as many outputs as there are classes."
        )


def _log_probabilities(logits_V: Tensor) -> Tensor:
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
