"""What was measured of teachers before a student is trained.  Axes: K teachers, V classes, M tasks, C contexts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ...safety import PairedSums


@dataclass(frozen=True)
class Evidence:
    """What was measured of the teachers beforehand, and on which split.

    task_loss_MK: mean cross-entropy of teacher k on task m, nats.  safety_CK: mean safety of teacher k in context
    c.  count_C: how many critical examples each row of safety_CK averages; a context with none takes the average
    over all contexts and has count 0.  source: name of the split.  performance_MK: accuracy of teacher k on task m, in
    [0, 1].  distance_CK: how far context c lies from the domain of teacher k, at least 0.
    safety_VK, count_V: the same by class instead of context, for the token scale.  paired_context, paired_class: how
    the teachers compare with each other on the same examples, from which orderings follow (``infer_orderings``).
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

    def to(self, device: torch.device | str) -> Evidence:
        """Return the same evidence on ``device``."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in values.items()}
        return Evidence(**moved)
