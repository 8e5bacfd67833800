"""What weighting rules may look at: computed once a batch, on first use, only what is asked for.

Axes: ... positions, K teachers, V classes, M tasks, C contexts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ...data import expand_to_positions
from ...errors import InvalidInput, MissingSignal
from ._signal_checks import (
    fill_signal,
    mark_chosen,
    read_counted,
    read_group_numbers,
    read_signal,
    require_group_numbers,
    require_lead,
    require_log_p,
    require_mask,
    require_same_teachers,
    require_scores_fit,
    require_true_classes,
)
from ._teacher_distributions import average_rows, compute_disagreement, compute_divergence, compute_variance, soften
from ._teacher_evidence import TeacherEvidence, look_up, require_table

OrderedScale = Literal["token", "context"]  # the scales with safety orderings, axioms III.5 and III.22
ORDERED_SCALES: tuple[OrderedScale, OrderedScale] = ("token", "context")


class Signals:
    """The signals of one batch that rules score teachers by, each worked out on first use.

    Any signal may also be given outright.  A rule that needs what is not there raises MissingSignal, which says what
    to give.  Half types are widened, so that rules and weights are worked out in float32.  Positions that do not count,
    such as padding, are in no average, order or audit, whatever was given there: their teachers are all uniform.

    Args:
        log_p: Teachers' log-probabilities, (..., K, V).
        labels: True classes, integers, (...); -100 where a position does not count.
        task: Task of each position, integers from 0, (...), or (B,) for (B, T) positions.
        context: Context of each position, likewise.
        evidence: What was measured of the teachers beforehand.
        critical_classes: S, the classes on which safety orderings apply.
        critical_contexts: C_safe, the contexts in which they apply.
        log_p_passes: Log-probabilities of P perturbed passes or of a window, (..., P, K, V).
        student_log_p: The student's log-probabilities, (..., V).
        features: A representation of each position, (..., D), for rules that learn from it.
        entropy: Entropy of each teacher, nats, (..., K).
        cross_entropy: Cross-entropy of each teacher on the label, nats, (..., K).
        variance: Variance of each teacher over passes, summed over classes, (..., K).
        disagreement: KL divergence of each teacher from the mean of all, nats, (..., K).
        task_loss: Loss of each teacher on the position's task, nats, (..., K).
        performance: Accuracy of each teacher on the position's task, in [0, 1], (..., K).
        safety: Safety of each teacher in the position's context, in [0, 1], (..., K).
        distance: Distance of the position's context from each teacher's domain, at least 0, (..., K).
        token_safety: Safety of each teacher on the position's class, in [0, 1], (..., K).
        critical: Where orderings apply, bool, (...); stands for S and C_safe both.
        index: Number of each position's example, as ``Batch.index`` has it, (...), or (B,) for (B, T) positions.
        split: Name of the split that the examples are from.
        teachers: Names of the K teachers.
        mask: Which positions count, bool, (...), besides those with label -100; None for all.

    Attributes:
        mask: Which positions count, (...); None where all do.
        names_critical: Whether anything says which positions are critical; if not, orderings apply at all of them.

    Raises:
        InvalidInput: Nothing is given, shapes or dtypes do not fit each other, or ``log_p`` holds no log-probabilities.
    """

    def __init__(
        self,
        *,
        log_p: Tensor | None = None,
        labels: Tensor | None = None,
        task: Tensor | None = None,
        context: Tensor | None = None,
        evidence: TeacherEvidence | None = None,
        critical_classes: Collection[int] = (),
        critical_contexts: Collection[int] = (),
        log_p_passes: Tensor | None = None,
        student_log_p: Tensor | None = None,
        features: Tensor | None = None,
        entropy: Tensor | None = None,
        cross_entropy: Tensor | None = None,
        variance: Tensor | None = None,
        disagreement: Tensor | None = None,
        task_loss: Tensor | None = None,
        performance: Tensor | None = None,
        safety: Tensor | None = None,
        distance: Tensor | None = None,
        token_safety: Tensor | None = None,
        critical: Tensor | None = None,
        index: Tensor | None = None,
        split: str | None = None,
        teachers: Sequence[str] | None = None,
        mask: Tensor | None = None,
    ) -> None:
        self.mask, labels = read_counted(mask, labels)
        log_p, log_p_passes, student_log_p = (read_signal(x, self.mask) for x in (log_p, log_p_passes, student_log_p))
        features = fill_signal(features, self.mask, 0.0)
        self._log_p, self.evidence, self.split, self.teachers = log_p, evidence, split, teachers
        self._passes, self._student, self._features = log_p_passes, student_log_p, features
        self.critical_classes = read_group_numbers("critical_classes", critical_classes)
        self.critical_contexts = read_group_numbers("critical_contexts", critical_contexts)
        self.names_critical = bool(self.critical_classes or self.critical_contexts or critical is not None)
        self._critical_given = critical is not None
        scores = {
            "entropy": entropy,
            "cross_entropy": cross_entropy,
            "variance": variance,
            "disagreement": disagreement,
            "task_loss": task_loss,
            "performance": performance,
            "safety": safety,
            "token_safety": token_safety,
            "distance": distance,
        }
        scores = {name: read_signal(value, self.mask, 1.0) for name, value in scores.items()}
        for name, value in {**scores, "critical": fill_signal(critical, self.mask, False)}.items():
            if value is not None:
                self.__dict__[name] = value  # a cached_property reads its value from here
        require_log_p(log_p)
        require_scores_fit(scores, log_p)
        template = next((v for v in (log_p, *scores.values()) if v is not None), None)
        if template is None:
            raise InvalidInput("Signals are empty; give at least `log_p`, the teachers' log-probabilities (..., K, V).")
        self._template = template if log_p is None else template[..., 0]
        lead = self.shape[:-1]
        self.labels = require_group_numbers("labels", labels, lead, spreads=False)
        self.task = require_group_numbers("task", task, lead, spreads=True)
        self.context = require_group_numbers("context", context, lead, spreads=True)
        self.index = require_group_numbers("index", index, lead, spreads=True)
        require_mask("critical", critical, lead)
        require_mask("mask", self.mask, lead)
        require_lead("log_p_passes", log_p_passes, lead, ("passes", "teachers", "classes"))
        require_lead("student_log_p", student_log_p, lead, ("classes",))
        require_lead("features", features, lead, ("features",))
        require_same_teachers(log_p, log_p_passes, student_log_p)
        for name, value in scores.items():
            if value is not None and value.shape != self.shape:
                self.__dict__[name] = value.expand(self.shape)

    @property
    def shape(self) -> torch.Size:
        """Shape of the scores that a rule returns, (..., K)."""
        return self._template.shape

    @property
    def device(self) -> torch.device:
        """Where the signals lie."""
        return self._template.device

    def ones(self) -> Tensor:
        """Return ones of the scores' shape, dtype and device."""
        return torch.ones_like(self._template)

    @property
    def log_p(self) -> Tensor:
        """Teachers' log-probabilities, (..., K, V)."""
        if self._log_p is None:
            raise MissingSignal("This rule needs the teachers' log-probabilities; pass `log_p` of shape (..., K, V).")
        return self._log_p

    @cached_property
    def entropy(self) -> Tensor:
        """Entropy of each teacher, (..., K), nats."""
        p = self.log_p.exp()
        return -torch.where(p == 0, 0.0, p * self.log_p).sum(-1)  # p > 0 would turn NaN into certainty

    @cached_property
    def cross_entropy(self) -> Tensor:
        """Cross-entropy of each teacher on the label, (..., K), nats."""
        chosen = self.true_classes[..., None, None].expand(*self.shape, 1)
        return -self.log_p.gather(-1, chosen).squeeze(-1)

    @cached_property
    def variance(self) -> Tensor:
        """Variance of each teacher's distribution over passes, summed over classes, (..., K)."""
        if self._passes is None:
            raise MissingSignal(
                "This rule needs several passes of each teacher; pass `log_p_passes` of shape (..., P, K, V), "
                "or `variance` of shape (..., K)."
            )
        return compute_variance(self._passes)

    @cached_property
    def disagreement(self) -> Tensor:
        """KL divergence of each teacher from the mean of all, (..., K), nats."""
        return compute_disagreement(self.log_p.unbind(-2))

    @property
    def student_log_p(self) -> Tensor:
        """The student's log-probabilities, (..., V)."""
        if self._student is None:
            raise MissingSignal(
                "This rule looks at the student; pass `student_log_p` of shape (..., V). A trainer does so for rules "
                "whose `needs` name it."
            )
        return self._student

    @property
    def features(self) -> Tensor:
        """A representation of each position, (..., D)."""
        if self._features is None:
            raise MissingSignal(
                "This rule learns from a representation; pass `features` of shape (..., D). A trainer does so for "
                "rules whose `needs` name it."
            )
        return self._features

    @cached_property
    def _divergences(self) -> dict[float, Tensor]:
        """What ``student_divergence`` has worked out, by temperature."""
        return {}

    @cached_property
    def _gradients(self) -> dict[float, Tensor]:
        """What ``student_gradient`` has worked out, by temperature."""
        return {}

    def student_divergence(self, temperature: float = 1.0) -> Tensor:
        """Return the KL divergence of each teacher from the student, ``T^2 KL(p_k^T || p_s^T)``.

        Args:
            temperature: T, above 0; both sides are softened by it.

        Returns:
            Nats, (..., K); kept for the next call.

        Source: Hinton, Vinyals and Dean 2015.
        """
        if temperature not in self._divergences:
            soft = soften(self.log_p, temperature), soften(self.student_log_p, temperature)
            self._divergences[temperature] = temperature**2 * compute_divergence(*soft)
        return self._divergences[temperature]

    def student_gradient(self, temperature: float = 1.0) -> Tensor:
        """Return the gradient of ``student_divergence`` by the student's logits; no backward pass is needed.

        Args:
            temperature: T, above 0.

        Returns:
            ``T (p_s^T - p_k^T)``, (..., K, V); kept for the next call.
        """
        if temperature not in self._gradients:
            p_KV, s_V = soften(self.log_p, temperature).exp(), soften(self.student_log_p, temperature).exp()
            self._gradients[temperature] = temperature * (s_V.unsqueeze(-2) - p_KV)
        return self._gradients[temperature]

    @cached_property
    def true_classes(self) -> Tensor:
        """The true class of each position, (...,)."""
        if self.labels is None:
            raise MissingSignal("This rule needs the true classes; pass `labels` of shape (...,), integers.")
        known = self._student if self._log_p is None else self._log_p
        require_true_classes(self.labels, None if known is None else known.shape[-1])
        return self.labels

    def select_counted(self, value: Tensor) -> Tensor:
        """Return the values of the positions that count, one after the other.

        Args:
            value: Anything a position, (..., *more).

        Returns:
            (P, *more).
        """
        lead = len(self.shape) - 1
        return value.reshape(-1, *value.shape[lead:]) if self.mask is None else value[self.mask]

    def tabulate_by_task(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Average a signal over the positions of each task, those that count.

        Args:
            value: One signal a position, (..., A).

        Returns:
            The averages, (M, A), M being 1 where the signals name no task; and the row of each position in them, (...).

        Raises:
            InvalidInput: A task is below 0.
        """
        lead, flat = self.shape[:-1], self.select_counted(value)
        row = torch.zeros(lead, dtype=torch.long, device=value.device)
        row = row if self.task is None else expand_to_positions(self.task, lead)
        if row.numel() and int(row.min()) < 0:
            raise InvalidInput(f"A position has task {int(row.min())}; wanted numbers from 0.")
        tasks = int(row.max()) + 1 if row.numel() else 1
        return average_rows(flat, self.select_counted(row), tasks), row

    def spread_task_average(self, value: Tensor) -> Tensor:
        """Average a signal over the positions of each task, and give every position what its task has.

        Args:
            value: One signal a position, (..., A).

        Returns:
            Averages, (..., A).
        """
        table, row = self.tabulate_by_task(value)
        return table[row]

    @cached_property
    def task_loss(self) -> Tensor:
        """Loss of each teacher on the task of each position, (..., K), nats."""
        return self._look_up_task("task_loss", "losses a task")

    @cached_property
    def performance(self) -> Tensor:
        """Accuracy of each teacher on the task of each position, (..., K), in [0, 1]."""
        return self._look_up_task("performance", "performance a task")

    @cached_property
    def safety(self) -> Tensor:
        """Safety of each teacher in the context of each position, (..., K), in [0, 1]."""
        return self._look_up_context("safety", "safety")

    @cached_property
    def distance(self) -> Tensor:
        """Distance of the context of each position from each teacher's domain, (..., K), at least 0."""
        return self._look_up_context("distance", "distance from the context")

    @cached_property
    def token_safety(self) -> Tensor:
        """Safety of each teacher on the class of each position, (..., K), in [0, 1]: the token scale's own order."""
        if self.evidence is None or self.evidence.safety_VK is None:
            raise MissingSignal(
                "This needs the teachers' safety by class; pass "
                "`evidence=kd.teachers.measure_teachers(..., by_class=True)` or `token_safety` (..., K)."
            )
        if self.labels is None:
            raise MissingSignal("The teachers' safety by class is known; pass `labels`, the class of each position.")
        return look_up(self.evidence.safety_VK, self.labels, "class", self._template)

    def has_safety(self, scale: OrderedScale) -> bool:
        """Say whether there are safety scores of a scale.

        Args:
            scale: "token" for ``token_safety``, "context" for ``safety``.

        Returns:
            True if they were given or evidence holds them.
        """
        name, table = {"token": ("token_safety", "safety_VK"), "context": ("safety", "safety_CK")}[scale]
        return name in self.__dict__ or getattr(self.evidence, table, None) is not None

    @cached_property
    def critical(self) -> Tensor:
        """Where orderings apply, bool (...,): a critical label (S) or a critical context (C_safe)."""
        return self._critical_by_class | self._critical_by_context

    @cached_property
    def _critical_by_class(self) -> Tensor:
        return self._mark_critical(self.critical_classes, self.labels, "labels", "classes")

    @cached_property
    def _critical_by_context(self) -> Tensor:
        return self._mark_critical(self.critical_contexts, self.context, "context", "contexts")

    def names_critical_on(self, scale: OrderedScale) -> bool:
        """Say whether critical positions of a scale are named: S by classes, C_safe by contexts, both by a mask.

        Args:
            scale: "token" or "context".

        Returns:
            True if they are.
        """
        named = {"token": self.critical_classes, "context": self.critical_contexts}[scale]
        return self._critical_given or bool(named)

    def critical_positions(self, scale: OrderedScale) -> Tensor:
        """Return where the orderings of one scale apply: S or C_safe; a mask given as ``critical`` is both.

        Args:
            scale: "token" or "context".

        Returns:
            Bool, (...).
        """
        if self._critical_given:
            return self.critical
        return self._critical_by_class if scale == "token" else self._critical_by_context

    def group_numbers(self, scale: OrderedScale) -> Tensor:
        """Return the number of the class ("token") or of the context ("context") of each position.

        Args:
            scale: "token" or "context".

        Returns:
            Integers, (...).

        Raises:
            MissingSignal: Labels or contexts were not given.
        """
        what, value = {"token": ("labels", self.labels), "context": ("context", self.context)}[scale]
        if value is None:
            raise MissingSignal(f"The orderings of the {scale} scale differ from one to another; pass `{what}`.")
        return expand_to_positions(value, self.shape[:-1])

    def _mark_critical(self, chosen: frozenset[int], value: Tensor | None, what: str, groups: str) -> Tensor:
        inside = mark_chosen(chosen, value, what, groups, self.shape[:-1], self.device)
        return inside if self.mask is None else inside & self.mask

    def _look_up_task(self, name: str, what: str) -> Tensor:
        return look_up(require_table(self.evidence, f"{name}_MK", name, what), self.task, "task", self._template)

    def _look_up_context(self, name: str, what: str) -> Tensor:
        return look_up(require_table(self.evidence, f"{name}_CK", name, what), self.context, "context", self._template)
