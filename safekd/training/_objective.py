"""The distillation loss of one student: targets that a weighting rule makes out of teachers, and a divergence.

Axes: N examples, B batch, ... positions, K teachers, V classes, M constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from solvers.short_repr import ShortRepr

from .._precision import find_unusable_rows, log_softmax
from .._torch_state import ask_module, autocast, evaluation_mode
from ..data import Batch, ExampleSource, Group, Split, SplitCache, require_class_count
from ..errors import InvalidInput, NotFinite
from ..pooling import arithmetic_pool
from ..safety import Constraint
from ..teachers import Perturbation, TeacherEnsemble
from ..weights import (
    Rule,
    Signals,
    TeacherEvidence,
    collect_modules,
    collect_needs,
    looks_at_student,
    require_stored_rows,
)
from ._student_checks import warn_of_probabilities

Loss = Callable[[Tensor, Tensor], Tensor]
CHUNK = 4096  # examples that are read at a time where training reads more: memory, not accuracy


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
    """The distillation loss, ``mean over a split of divergence(pool of teachers, student)``, in float32 or wider.

    Weighting rules are functions of what the teachers and the data say, so targets are worked out once a split and
    kept for one fit, unless the rule looks at the student or holds a module, which may learn, or a teacher moves.

    Attributes:
        student: Module from inputs (B, ...) to logits (B, ..., V).
        ensemble: The K teachers.
        rule: Weighting rule, from Signals to weights (B, ..., K).
        divergence: (log target, logits), both (B, ..., V) -> one loss a position, (B, ...), nats.
        evidence: Measured teachers, for rules and orderings; None where none were measured.
        critical_classes: S, classes where orderings apply, numbers or names.
        critical_contexts: C_safe, contexts where orderings apply, the same.
        features: What rules that learn from a representation see of a batch, (B, ..., D); None: its inputs, flattened.
        perturbation: How teachers are asked again where the rule needs their variance.
        pooling: (teachers' log-probabilities, weights), (B, ..., K, V) and (B, ..., K) -> log of the target; one that
            has ``pool_signals`` gets the signals in their place, and one that is ``moving`` is asked anew each step.
        non_finite_source: First teacher whose targets were not finite in the last pass, or who leaves out a class that
            the other side has; None where all was finite.
        looks_at_batches: Whether the rule looks at the student or holds a module, which may look at a batch as a whole.
        fixed: Whether targets never change: the rule neither looks at the student nor holds a module, and no teacher
            or pool moves.
        readers: The student and the modules of the rule: all that has an eval mode.
        rows: Examples that go through a student or a teacher at a time where a whole source is read: no more than in a
            step of training.
        autocast: Half type in which the student computes where torch's autocast lets it; None for its own.

    Raises:
        InvalidInput: The rule needs the variance of a teacher that moves.
    """

    student: nn.Module
    ensemble: TeacherEnsemble
    rule: Rule
    divergence: Loss
    evidence: TeacherEvidence | None
    critical_classes: Collection[Group]
    critical_contexts: Collection[Group]
    features: Callable[[Batch], Tensor] | None = None
    perturbation: Perturbation = field(default_factory=Perturbation)
    pooling: Loss = arithmetic_pool
    rows: int = CHUNK
    autocast: torch.dtype | None = None

    def __post_init__(self) -> None:
        self._targets = SplitCache(self.ensemble.cache_limit)
        self._looked_at = False  # whether what the student gives was looked at
        self._variances: dict[int, tuple[ExampleSource, Tensor]] = {}
        self.non_finite_source: str | None = None
        self._counts: dict[tuple[int, int], tuple[Constraint, ExampleSource, Tensor]] = {}
        self._needs, modules = collect_needs(self.rule), collect_modules(self.rule).values()
        self.looks_at_batches = looks_at_student(self.rule) or bool(modules)
        self._rule_fixed = not self.looks_at_batches
        self.fixed = self._rule_fixed and not self.ensemble.moving and not getattr(self.pooling, "moving", False)
        if "variance" in self._needs and self.ensemble.moving:
            raise InvalidInput(
                f"The weighting rule needs the variance of each teacher, which is measured once, but teacher "
                f"'{self.ensemble.moving[0]}' moves. Use a rule that does not need the variance."
            )
        self.readers = nn.ModuleList([self.student, *modules])

    def recheck(self, splits: Mapping[str, ExampleSource]) -> None:
        """Forget all that rests on data or teachers that may have changed in place; each fit begins with it.

        Args:
            splits: Those on which the loss is read, by name.

        Raises:
            InvalidInput: Stored weights have no row for one of their examples, or none for a teacher.
        """
        require_stored_rows(self.rule, splits, self.ensemble.names)
        self.ensemble.recheck()
        self._targets.forget()
        self._variances.clear()
        self._counts.clear()

    def signals(
        self,
        source: ExampleSource,
        batch: Batch,
        logits_V: Tensor | None = None,
        *,
        log_p_KV: Tensor | None = None,
        variance_K: Tensor | None = None,
    ) -> Signals:
        """Return what the weighting rule may look at for some examples.

        Args:
            source: Where the examples are from.
            batch: The examples.
            logits_V: The student's for them, (B, ..., V); where left out and needed, it is asked in eval mode.
            log_p_KV: The teachers' log-probabilities, (B, ..., K, V); where left out, they are asked.
            variance_K: How unsteady they are, (B, ..., K), likewise.

        Raises:
            InvalidInput: Student and teachers differ in classes, or features have no row for each label.
        """
        if logits_V is None and not self._rule_fixed:
            with evaluation_mode(self.readers), torch.no_grad():
                logits_V = self.logits(batch)
        if log_p_KV is None:
            log_p_KV, variance_K = self.ensemble.cached_log_probabilities(source, batch), self.variance(source, batch)
        require_class_count(source, log_p_KV.shape[-1], "the ensemble")
        if logits_V is not None:
            require_same_classes(log_p_KV, logits_V)
        return Signals(
            log_p=log_p_KV,
            labels=batch.labels,
            task=batch.task,
            context=batch.context,
            evidence=None if self.evidence is None else self.evidence.to(batch.labels.device),
            critical_classes=source.names.numbers("class", self.critical_classes),
            critical_contexts=source.names.numbers("context", self.critical_contexts),
            student_log_p=None if logits_V is None else log_softmax(logits_V.detach()),
            features=self._features(batch),
            variance=variance_K,
            index=batch.index if batch.numbered else None,
            mask=batch.mask,
            split=source.name,
            teachers=self.ensemble.names,
        )

    def pool(self, source: ExampleSource, batch: Batch, logits_V: Tensor | None = None) -> PooledTeachers:
        """Weigh and pool the teachers for some examples, as the rule is now; weights keep their gradient.

        Args:
            source: Where the examples are from.
            batch: The examples.
            logits_V: The student's for them, (B, ..., V); where left out and needed, it is asked in eval mode.
        """
        return self.weigh(self.signals(source, batch, logits_V), batch)

    def weigh(self, signals: Signals, batch: Batch) -> PooledTeachers:
        """Weigh and pool teachers by what the rule looks at.

        Args:
            signals: Of the batch.
            batch: The examples.
        """
        w_K = batch.fill_uncounted(self.rule(signals), 1 / len(self.ensemble))
        pool_signals = getattr(self.pooling, "pool_signals", None)
        log_q_V = self.pooling(signals.log_p, w_K) if pool_signals is None else pool_signals(signals, w_K)
        return PooledTeachers(signals, w_K, log_q_V)

    def target(self, source: ExampleSource, batch: Batch, logits_V: Tensor) -> Tensor:
        """Return the log of the pooled target for some examples, (B, ..., V), without gradient.

        NaN where a teacher gave what is not finite; ``non_finite_source`` then says which.

        Args:
            source: Where the examples are from.
            batch: The examples.
            logits_V: The student's for them, (B, ..., V).
        """
        with torch.no_grad():
            if not self._rule_fixed and bool(find_unusable_rows(logits_V).any()):
                return torch.full_like(logits_V, torch.nan)  # no rule can say anything of such a student
            try:
                if not self.fixed:
                    return self.pool(source, batch, None if self._rule_fixed else logits_V).log_q_V
                return self._targets.rows(source, batch, lambda some: self.pool(source, some).log_q_V)
            except NotFinite as error:
                self.note_non_finite(error.source)
                return torch.full_like(logits_V, torch.nan)

    def note_non_finite(self, source: str | None) -> None:
        """Remember why targets or losses are not finite, if that is known and nothing came before it.

        Args:
            source: In words.
        """
        self.non_finite_source = self.non_finite_source or source

    def clear_non_finite_source(self) -> None:
        """Forget which teacher was not finite: a new pass begins."""
        self.non_finite_source = None

    def holds_targets(self, split: ExampleSource) -> bool:
        """Tell whether the targets of a split are in memory, and will not be asked for again.

        Args:
            split: Any source.
        """
        return self._targets.holds(split)

    def logits(self, batch: Batch, caller: nn.Module | None = None) -> Tensor:
        """Return the student's logits, (B, ..., V), float32 or wider; 0 where a position does not count.

        Args:
            batch: Examples.
            caller: What wraps the student where gradients are to be added up over processes; itself if left out.

        Raises:
            InvalidInput: The student cannot read the inputs, does not give one row of logits a label, or its logits
                have no gradient where one is wanted.
        """
        with autocast(self.autocast, batch.labels.device):
            logits_V = ask_module(self.student if caller is None else caller, batch.inputs, "The student")
        if torch.is_grad_enabled() and not logits_V.requires_grad:
            raise InvalidInput(
                "The student's logits carry no gradient, so nothing can be learned; look for detach(), .data, numpy or "
                "torch.no_grad() in its forward."
            )
        if logits_V.shape[:-1] != batch.labels.shape:
            raise InvalidInput(
                f"The student gives {tuple(logits_V.shape)} for labels of shape {tuple(batch.labels.shape)}; "
                "wanted one row of logits a label."
            )
        if not self._looked_at:
            self._looked_at = True
            counted_V = logits_V if batch.mask is None else logits_V[batch.mask]
            warn_of_probabilities(counted_V, next(self.student.parameters()).dtype)
        return batch.fill_uncounted(logits_V, 0.0)

    def loss(self, log_q_V: Tensor, logits_V: Tensor) -> Tensor:
        """Return one distillation loss a position, (B, ...), nats.

        Args:
            log_q_V: Log of the target, (B, ..., V).
            logits_V: The student's, (B, ..., V).

        Raises:
            InvalidInput: Classes differ, or the divergence gives another shape.
        """
        require_same_classes(log_q_V, logits_V)
        loss = self.divergence(log_q_V.to(logits_V), logits_V)
        if loss.shape != logits_V.shape[:-1]:
            raise InvalidInput(
                f"The divergence gives shape {tuple(loss.shape)}; wanted one loss a position, "
                f"{tuple(logits_V.shape[:-1])}: sum over classes only, without averaging over the batch."
            )
        return loss

    def count_groups(self, rules: Sequence[Constraint], source: ExampleSource) -> list[Tensor]:
        """Return how many examples each group of some constraints has, (G,) each; counted once, in one pass.

        Args:
            rules: The constraints.
            source: Where they are read.
        """
        new = [rule for rule in rules if (id(rule), id(source)) not in self._counts]
        if new:
            sizes = [sum(average.size for _, average in rule.parts) for rule in new]
            counts = [torch.zeros(size, dtype=torch.float64, device=source.device) for size in sizes]

            def add_up() -> Tensor:
                for batch in source.batches(self.rows):
                    for count_G, rule in zip(counts, new, strict=True):
                        count_G += rule.counts(batch)
                return torch.cat(counts)

            total = source.ranks.add_up(add_up, sum(sizes))
            for rule, count_G in zip(new, torch.split(total, sizes), strict=True):  # holding both keeps their ids taken
                self._counts[id(rule), id(source)] = (rule, source, count_G)
        return [self._counts[id(rule), id(source)][2] for rule in rules]

    def count_covered(self, rule: Constraint, split: ExampleSource) -> int:
        """Return how many positions a constraint averages over.

        Args:
            rule: The constraint.
            split: Where it is read.
        """

        def count() -> Tensor:
            covered = sum(int(rule.covers(batch).sum()) for batch in split.batches(CHUNK))
            return torch.tensor([covered], dtype=torch.float64)

        return int(split.ranks.add_up(count, 1))

    def variance(self, split: ExampleSource, batch: Batch) -> Tensor | None:
        """Return how unsteady teachers are, (B, ..., K): asked once a split, since neither they nor the noise change.

        Args:
            split: Where the examples are from.
            batch: The examples.

        Raises:
            InvalidInput: The split is not in memory.
        """
        if "variance" not in self._needs:
            return None
        if not isinstance(split, Split):
            raise InvalidInput(
                f"The weighting rule needs the variance of each teacher, which is measured over a whole split in "
                f"memory; '{split.name}' is read as it is needed. Use a rule that does not need the variance."
            )
        if id(split) not in self._variances:
            asked = self.perturbation.variance(self.ensemble, split)
            self._variances[id(split)] = (split, asked)  # holding the split keeps its id taken
        return self._variances[id(split)][1][batch.place]

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


def require_same_classes(teachers_V: Tensor, student_V: Tensor) -> None:
    """Refuse a student with other classes than the teachers.

    Args:
        teachers_V: What teachers give, (..., V).
        student_V: What the student gives, (..., V).

    Raises:
        InvalidInput: V differs.
    """
    if teachers_V.shape[-1] != student_V.shape[-1]:
        raise InvalidInput(
            f"The student gives {student_V.shape[-1]} classes, the teachers give {teachers_V.shape[-1]}; "
            "give the student as many outputs as there are classes."
        )


def _flat_inputs(batch: Batch) -> Tensor:
    """Return each position's own inputs as one row, (B, ..., D)."""
    lead = batch.labels.shape
    if not isinstance(batch.inputs, Tensor):
        raise InvalidInput(
            "The weighting rule learns from features, and the inputs are a dictionary. Pass features=, a function from "
            "a batch to (B, ..., D)."
        )
    if not batch.inputs.is_floating_point() or batch.inputs.shape[: len(lead)] != lead:
        raise InvalidInput(
            f"The weighting rule learns from features; inputs are {batch.inputs.dtype} of shape "
            f"{tuple(batch.inputs.shape)}, which gives none for labels of shape {tuple(lead)}. "
            "Pass features=, a function from a batch to (B, ..., D)."
        )
    flat: Tensor = batch.inputs.reshape(*lead, -1)
    return flat
