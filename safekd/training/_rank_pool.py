"""Targets of a weighting rule that looks at a whole batch, of which each process has a part.

Rules that learn, average over the positions of a task, or remember what earlier batches said, give other weights for a
part than for the whole.  So each process gets what the rule looks at of all of them, runs the rule on the whole batch,
and keeps the weights of its own rows: the rule's numbers, its gradients and its memory are those of one process, the
same on every rank, and need not be added up.  A step then sends (K + 1) V numbers a position besides its inputs.

Axes: B batch, ... positions, K teachers, V classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._precision import find_unusable_rows
from ..data import Batch, ExampleSource
from ..distributed import Ranks
from ..errors import InvalidInput, NotFinite
from ._objective import Objective, PooledTeachers


@dataclass(frozen=True)
class RankPool:
    """The teachers of a whole batch, and which rows of it are this rank's.

    Attributes:
        pool: Of the whole batch.
        batch: The whole batch.
        logits_V: The student's for it, without gradient.
        own: This rank's rows.
    """

    pool: PooledTeachers
    batch: Batch
    logits_V: Tensor
    own: slice

    @property
    def log_target(self) -> Tensor:
        """Log of the target of this rank's rows, without gradient."""
        return self.pool.log_q_V[self.own].detach()


def pool_over_ranks(
    objective: Objective, source: ExampleSource, batch: Batch, logits_V: Tensor, ranks: Ranks, counts: bool = True
) -> RankPool:
    """Weigh and pool the teachers for what all ranks have of a batch.

    Args:
        objective: Holds teachers and rule.
        source: What this rank reads.
        batch: Its part.
        logits_V: The student's for it, (B, ..., V).
        ranks: Who has the rest; all call this at the same time.
        counts: Whether this rank's part belongs to the batch; where it has none, it shows some other examples.

    Raises:
        NotFinite: A teacher or the student gave what is not finite, on whichever rank.
        InvalidInput: Parts differ in shape, so that they are no batch.
    """
    rows, failure = len(batch) if counts else 0, None
    tensors: dict[str, Tensor] = {}
    try:
        if counts and bool(find_unusable_rows(logits_V).any()):
            raise NotFinite("The student's output is not finite", "finite logits")
        tensors = _list_tensors(objective, source, batch, logits_V)
    except NotFinite as error:
        failure = error.source
    shapes = {name: (tuple(value.shape[1:]), str(value.dtype)) for name, value in tensors.items()}
    told = ranks.gather((rows, failure, shapes))
    if said := [source for _, source, _ in told if source is not None]:
        raise NotFinite(said[0], "finite numbers")
    if any(others != shapes for _, _, others in told):
        raise InvalidInput(
            f"The weighting rule looks at whole batches, and ranks have parts of different shapes: "
            f"{[others for _, _, others in told]}; pad inputs to the same length on every rank."
        )
    counts_R = [rows for rows, _, _ in told]
    whole = {name: ranks.gather_rows(value[:rows], counts_R) for name, value in tensors.items()}
    start = sum(counts_R[: ranks.rank])
    everything = _join_batch(batch, whole)
    signals = objective.signals(
        source, everything, whole["logits"], log_p_KV=whole["log_p"], variance_K=whole.get("variance")
    )
    return RankPool(objective.weigh(signals, everything), everything, whole["logits"], slice(start, start + rows))


def find_rank_target(
    objective: Objective, source: ExampleSource, batch: Batch, logits_V: Tensor, counts: bool
) -> Tensor:
    """Return the log of the pooled target for this rank's part of a batch, (B, ..., V), without gradient.

    Args:
        objective: Holds teachers and rule.
        source: Where the examples are from.
        batch: This rank's part.
        logits_V: The student's for it, (B, ..., V).
        counts: Whether the part belongs to the batch.
    """
    if source.ranks.size == 1 or not objective.looks_at_batches:
        return objective.target(source.own, batch, logits_V)
    try:
        with torch.no_grad():
            return pool_over_ranks(objective, source.own, batch, logits_V, source.ranks, counts).log_target
    except NotFinite as error:
        objective.note_non_finite(error.source)
        return torch.full_like(logits_V, torch.nan)


def _list_tensors(objective: Objective, source: ExampleSource, batch: Batch, logits_V: Tensor) -> dict[str, Tensor]:
    tensors = {
        "log_p": objective.ensemble.cached_log_probabilities(source, batch),
        "logits": logits_V.detach(),
        "labels": batch.labels,
        "task": batch.task,
        "context": batch.context,
        "index": batch.index,
    }
    inputs = batch.inputs if isinstance(batch.inputs, Mapping) else {"": batch.inputs}
    tensors |= {f"inputs.{name}": value for name, value in inputs.items()}
    variance_K = objective.variance(source, batch)
    more = {"mask": batch.mask, "variance": variance_K}
    return tensors | {name: value for name, value in more.items() if value is not None}


def _join_batch(batch: Batch, whole: Mapping[str, Tensor]) -> Batch:
    inputs: Any = {name.removeprefix("inputs."): value for name, value in whole.items() if name.startswith("inputs.")}
    if not isinstance(batch.inputs, Mapping):
        inputs = inputs[""]
    parts: dict[str, Any] = {name: whole[name] for name in ("labels", "task", "context", "index")}
    return replace(batch, inputs=inputs, mask=whole.get("mask"), place=None, **parts)
