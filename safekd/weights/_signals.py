"""What weighting rules may look at: computed once a batch, on first use, only what is asked for.

Axes: ... positions, K teachers, V classes, M tasks, C contexts.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInput, MissingSignal
from ..safety import PairedSums
from ._scale_orderings import Scale


@dataclass(frozen=True)
class Evidence:
    """What was measured of the teachers beforehand, and on which split.

    task_loss_MK: mean cross-entropy of teacher k on task m, nats.  safety_CK: mean safety of teacher k in context
    c.  count_C: how many critical examples each row of safety_CK averages; a context with none takes the average
    over all contexts and has count 0.  source: name of the split.
    safety_VK, count_V: the same by class instead of context, for the token scale.  paired_context, paired_class: how
    the teachers compare with each other on the same examples, from which orderings follow (``orderings_from``).
    """

    task_loss_MK: Tensor
    safety_CK: Tensor
    count_C: Tensor
    source: str
    safety_VK: Tensor | None = None
    count_V: Tensor | None = None
    paired_context: PairedSums | None = None
    paired_class: PairedSums | None = None

    def to(self, device: torch.device | str) -> Evidence:
        """Return the same evidence on ``device``."""
        kept: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        kept |= {name: value.to(device) for name, value in kept.items() if isinstance(value, Tensor)}
        return Evidence(**kept)


class Signals:
    """The readings of one batch that rules score teachers by.

    log_p: teachers' log-probabilities, (..., K, V).  labels: (...,) true classes.  task, context: integers, shape of
    the leading axes, (B,) for (B, T) positions too.  evidence: losses and safety measured beforehand.
    critical_classes, critical_contexts: S and C_safe, where orderings apply.
    Any reading may also be given outright: entropy, task_loss, safety, token_safety, each (..., K), and critical, bool
    (...,).
    A rule that needs what is not there raises MissingSignal, which says what to give.
    """

    def __init__(
        self,
        *,
        log_p: Tensor | None = None,
        labels: Tensor | None = None,
        task: Tensor | None = None,
        context: Tensor | None = None,
        evidence: Evidence | None = None,
        critical_classes: Collection[int] = (),
        critical_contexts: Collection[int] = (),
        entropy: Tensor | None = None,
        task_loss: Tensor | None = None,
        safety: Tensor | None = None,
        token_safety: Tensor | None = None,
        critical: Tensor | None = None,
    ) -> None:
        self._log_p, self.labels, self.task, self.context, self.evidence = log_p, labels, task, context, evidence
        self.critical_classes, self.critical_contexts = frozenset(critical_classes), frozenset(critical_contexts)
        # whether anything says which positions are critical; if not, orderings apply at all of them
        self.names_critical = bool(self.critical_classes or self.critical_contexts or critical is not None)
        self._critical_given = critical is not None
        given = {
            "entropy": entropy,
            "task_loss": task_loss,
            "safety": safety,
            "token_safety": token_safety,
            "critical": critical,
        }
        for name, value in given.items():
            if value is not None:
                self.__dict__[name] = value  # a cached_property reads its value from here
        template = next((v for v in (log_p, entropy, task_loss, safety, token_safety) if v is not None), None)
        if template is None:
            raise InvalidInput("Signals are empty; give at least `log_p`, the teachers' log-probabilities (..., K, V).")
        self._template = template if log_p is None else template[..., 0]

    @property
    def shape(self) -> torch.Size:
        """Shape of the scores that a rule returns, (..., K)."""
        return self._template.shape

    @property
    def device(self) -> torch.device:
        """Where the readings lie."""
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
    def task_loss(self) -> Tensor:
        """Loss of each teacher on the task of each position, (..., K), nats."""
        if self.evidence is None:
            raise MissingSignal(
                "This rule needs the teachers' losses a task; pass `evidence=kd.teachers.measure(...)` or `task_loss`."
            )
        return self._looked_up(self.evidence.task_loss_MK, self.task, "task")

    @cached_property
    def safety(self) -> Tensor:
        """Safety of each teacher in the context of each position, (..., K), in [0, 1]."""
        if self.evidence is None:
            raise MissingSignal(
                "This rule needs the teachers' safety; pass `evidence=kd.teachers.measure(...)` or `safety` (..., K)."
            )
        return self._looked_up(self.evidence.safety_CK, self.context, "context")

    @cached_property
    def token_safety(self) -> Tensor:
        """Safety of each teacher on the class of each position, (..., K), in [0, 1]: the token scale's own order."""
        if self.evidence is None or self.evidence.safety_VK is None:
            raise MissingSignal(
                "This needs the teachers' safety by class; pass `evidence=kd.teachers.measure(..., by_class=True)` or "
                "`token_safety` (..., K)."
            )
        if self.labels is None:
            raise MissingSignal("The teachers' safety by class is known; pass `labels`, the class of each position.")
        # padding such as -100 is no class and never critical; any row will do for it
        return self._looked_up(self.evidence.safety_VK, self.labels.clamp_min(0), "class")

    def has_safety(self, scale: Scale) -> bool:
        """Say whether there are safety scores of the scale: ``token_safety``, or ``safety`` for contexts."""
        name, table = {"token": ("token_safety", "safety_VK"), "context": ("safety", "safety_CK")}[scale]
        return name in self.__dict__ or getattr(self.evidence, table, None) is not None

    @cached_property
    def critical(self) -> Tensor:
        """Where orderings apply, bool (...,): a critical label (S) or a critical context (C_safe)."""
        return self._inside("token") | self._inside("context")

    def names(self, scale: Scale) -> bool:
        """Say whether critical positions of the scale are named: S by classes, C_safe by contexts, both by a mask."""
        named = {"token": self.critical_classes, "context": self.critical_contexts}[scale]
        return self._critical_given or bool(named)

    def critical_on(self, scale: Scale) -> Tensor:
        """Where the orderings of one scale apply, bool (...,): S or C_safe; a mask given as ``critical`` is both."""
        return self.critical if self._critical_given else self._inside(scale)

    def number_on(self, scale: Scale) -> Tensor:
        """Number of the class ("token") or the context ("context") of each position, (...,)."""
        what, value = {"token": ("labels", self.labels), "context": ("context", self.context)}[scale]
        if value is None:
            raise MissingSignal(f"The orderings of the {scale} scale differ from one to another; pass `{what}`.")
        return _spread(value, self.shape[:-1])

    def _inside(self, scale: Scale) -> Tensor:
        chosen, value, what, of_what = {
            "token": (self.critical_classes, self.labels, "labels", "classes"),
            "context": (self.critical_contexts, self.context, "context", "contexts"),
        }[scale]
        lead = self.shape[:-1]
        if not chosen:
            return torch.zeros(lead, dtype=torch.bool, device=self._template.device)
        if value is None:
            raise MissingSignal(f"Critical {of_what} {sorted(chosen)} are named; pass `{what}` to find them by.")
        return _spread(torch.isin(value, torch.tensor(sorted(chosen), device=value.device)), lead)

    def _looked_up(self, table: Tensor, key: Tensor | None, what: str) -> Tensor:
        lead = self.shape[:-1]
        if key is None and len(table) > 1:
            raise MissingSignal(
                f"The evidence tells {len(table)} {what}s apart; pass `{what}`, the {what} of each position."
            )
        if key is None:
            key = torch.zeros(lead, dtype=torch.long, device=self._template.device)
        if key.numel() and int(key.max()) >= len(table):
            raise InvalidInput(
                f"A position has {what} {int(key.max())}, but the evidence covers {what} 0 to {len(table) - 1} only; "
                f"measure the teachers on data that has every {what}."
            )
        return table.to(self._template)[_spread(key, lead)]


def _spread(value: Tensor, lead: torch.Size) -> Tensor:
    """Repeat one value a sequence over its positions."""
    return value.reshape(value.shape + (1,) * (len(lead) - value.ndim)).expand(lead)
