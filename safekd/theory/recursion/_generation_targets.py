"""What generations learn from: the base teachers' pool and the last student, example by example.

Axes: N examples, ... positions, V classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..._precision import log_softmax
from ..._torch_state import ask_module, evaluation_mode
from ...data import Split
from ...errors import InvalidInput
from ...training import ConstrainedTrainer
from ._distribution_recursion import Form, divergence_from, mix_with_anchor

Rows = Mapping[str, Tensor]  # of each split, by its name: probabilities (N, ..., V)
_CHUNK = 4096  # examples that a student or a teacher is asked about at a time


def pool_base_teachers(trainer: ConstrainedTrainer, splits: Mapping[str, Split]) -> dict[str, Tensor]:
    """Return the base teachers' pooled target for every example, float64.

    Args:
        trainer: Of the base teachers, under their weighting rule.
        splits: By name, "train" among them.

    Raises:
        InvalidInput: Targets move with the student or with time, so that there is no distribution to be anchored to.
    """
    objective = trainer.with_names(splits).objective
    if not objective.fixed:
        raise InvalidInput(
            "The base teachers are to be an anchor, and their pool moves: the weighting rule looks at the student or "
            "learns, or a teacher has moving=True. Use a rule that looks at teachers and data alone, such as "
            "EntropyDecay."
        )
    objective.recheck(dict(splits))
    with torch.no_grad():
        return {
            name: torch.cat([objective.pool(split, batch).log_q_V for batch in split.batches(_CHUNK)]).double().exp()
            for name, split in splits.items()
        }


def ask_student(student: nn.Module, splits: Mapping[str, Split]) -> dict[str, Tensor]:
    """Return what a student says of every example, probabilities in float64.

    Args:
        student: Left in the mode in which it is.
        splits: By name.
    """
    with torch.no_grad(), evaluation_mode(student):
        return {
            name: torch.cat(
                [
                    log_softmax(ask_module(student, batch.inputs, "The student")).double().exp()
                    for batch in split.batches(_CHUNK)
                ]
            )
            for name, split in splits.items()
        }


def mix_targets(base: Rows, last: Rows | None, anchor: float, form: Form) -> Rows:
    """Return what a generation learns: the base teachers' pool alone, or mixed with what the last student says.

    Args:
        base: The base teachers' pool.
        last: What the last student says; None for the first generation.
        anchor: The base teachers' share.
        form: "arithmetic" or "geometric".
    """
    if last is None:
        return base
    return {name: mix_with_anchor(last[name], p_V, anchor, form) for name, p_V in base.items()}


def number_examples(split: Split, name: str) -> Split:
    """Return a split under another name whose examples are numbered from 0, as the rows of a target are.

    Args:
        split: Any.
        name: The new name.
    """
    return replace(split, name=name, numbers=torch.arange(len(split), device=split.device))


def average_divergence(p_V: Tensor, q_V: Tensor, split: Split) -> float:
    """Return the average of ``KL(p || q)`` over the positions that count, nats.

    Args:
        p_V: Probabilities, (N, ..., V).
        q_V: Probabilities, (N, ..., V).
        split: Whose examples they are about.
    """
    return _average_counted(divergence_from(p_V, q_V), split)


def average_distance(p_V: Tensor, q_V: Tensor, split: Split) -> float:
    """Return the average total variation over the positions that count.

    Args:
        p_V: Probabilities, (N, ..., V).
        q_V: Probabilities, (N, ..., V).
        split: Whose examples they are about.
    """
    return _average_counted((p_V - q_V).abs().sum(-1) / 2, split)


def _average_counted(value: Tensor, split: Split) -> float:
    mask = split.batch().mask
    return float(value.mean() if mask is None else value[mask].mean())
