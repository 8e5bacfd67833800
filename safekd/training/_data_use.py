"""What one run used each of its splits for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..data import Split, SplitUse

if TYPE_CHECKING:
    from ._trainer import ConstrainedTrainer


def data_use(trainer: ConstrainedTrainer, train: Split, splits: Mapping[str, Split]) -> tuple[SplitUse, ...]:
    """Return the use of the training split and of every other split that the run was given, in this order."""
    evidence = trainer.objective.evidence
    found = []
    for name, split in {"train": train, **splits}.items():
        roles = ["gradient steps"] if name == "train" else []
        roles += [f"constraint '{rule.name}'" for rule in trainer.constraints if rule.split == name]
        if evidence is not None and evidence.source == split.name:
            roles.append("measuring the teachers")
        if name == "validation":
            roles.append("readings of the trace")
        if roles:
            found.append(SplitUse(split, tuple(roles)))
    return tuple(found)
