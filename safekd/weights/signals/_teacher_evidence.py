"""What was measured of teachers before a student is trained.  Axes: K teachers, V classes, M tasks, C contexts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr

from ...data import expand_to_positions
from ...errors import InvalidInput, MissingSignal
from ...safety import PairedSums


@dataclass(frozen=True, repr=False)
class TeacherEvidence(ShortRepr):
    """What was measured of the teachers before a student is trained, and on which split.

    ``kd.teachers.measure_teachers`` makes it; rules and orderings read it through ``Signals``.

    Attributes:
        task_loss_MK: Mean cross-entropy of teacher k on task m, nats, (M, K).
        safety_CK: Mean safety of teacher k in context c, in [0, 1], (C, K).
        count_C: How many critical examples each row of ``safety_CK`` averages, (C,); a context with none takes the
            average over all contexts and has count 0.
        source: Name of the split.
        performance_MK: Accuracy of teacher k on task m, in [0, 1], (M, K).
        distance_CK: How far context c lies from the domain of teacher k, at least 0, (C, K).
        safety_VK: Mean safety of teacher k on class v, for the token scale, (V, K).
        count_V: How many examples each row of ``safety_VK`` averages, (V,).
        paired_context: How teachers compare on the same examples of each context; orderings follow from it.
        paired_class: The same by class.
    """

    task_loss_MK: Tensor
    safety_CK: Tensor
    count_C: Tensor
    source: str
    performance_MK: Tensor | None = None
    distance_CK: Tensor | None = None
    safety_VK: Tensor | None = None
    count_V: Tensor | None = None
    paired_context: PairedSums | None = None
    paired_class: PairedSums | None = None

    def to(self, device: torch.device | str) -> TeacherEvidence:
        """Return the same evidence on another device.

        Args:
            device: Where its tensors go.

        Returns:
            Evidence with equal content.
        """
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        placed: dict[str, Any] = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in values.items()}
        return TeacherEvidence(**placed)


def require_table(evidence: TeacherEvidence | None, field: str, name: str, what: str) -> Tensor:
    """Return a table of evidence, (G, K).

    Args:
        evidence: Where it is looked for.
        field: Its name there.
        name: Name of the signal that it stands for.
        what: What it is about, in words.

    Raises:
        MissingSignal: There is none.
    """
    table: Tensor | None = getattr(evidence, field, None)
    if table is None:
        raise MissingSignal(
            f"This rule needs the teachers' {what}; pass `evidence=kd.teachers.measure_teachers(...)` that holds "
            f"{field}, or `{name}` of shape (..., K)."
        )
    return table


def look_up(table: Tensor, key: Tensor | None, what: str, template: Tensor) -> Tensor:
    """Return the rows of a table of evidence for the positions of a batch.

    Args:
        table: One row a task, context or class, (G, K).
        key: Number of the row of each position, (...), or (B,) for (B, T) positions; None where there is one row.
        what: What rows are about: "task", "context" or "class".
        template: Of the batch's scores, (..., K); its dtype and device are taken on.

    Returns:
        Signals, (..., K).

    Raises:
        MissingSignal: There are several rows and no key.
        InvalidInput: The evidence is about other teachers, or lacks a row.
    """
    lead = template.shape[:-1]
    if key is None and len(table) > 1:
        raise MissingSignal(
            f"The evidence tells {len(table)} {what}s apart; pass `{what}`, the {what} of each position."
        )
    if key is None:
        key = torch.zeros(lead, dtype=torch.long, device=template.device)
    if table.shape[-1] != template.shape[-1]:
        raise InvalidInput(
            f"The evidence is about {table.shape[-1]} teachers, the signals have {template.shape[-1]}; measure these."
        )
    outside = key[(key < 0) | (key >= len(table))]
    if outside.numel():
        raise InvalidInput(
            f"A position has {what} {int(outside[0])}, but the evidence covers {what} 0 to {len(table) - 1} only; "
            f"measure the teachers on data that has every {what}."
        )
    return table.to(template)[expand_to_positions(key, lead)]
