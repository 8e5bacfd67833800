"""What a loss is given, checked: which positions count, who the teachers are, how they are weighed and pooled.

Axes: ... positions, N of them, P that count, K teachers, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..._number_checks import is_finite
from ...data import Batch, expand_to_positions
from ...divergences import TemperedDivergence
from ...errors import InvalidInput
from ...pooling import POOLS
from ._head import Head
from ._teacher_outputs import Hidden, Logits, TeacherOutput, TopK

IGNORED = -100
_SUM_ERROR = 1e-3  # half types round a sum of weights by this much


def require_outputs(teachers: object) -> list[TeacherOutput]:
    """Return the teachers' outputs as a list.

    Args:
        teachers: What was given.

    Raises:
        InvalidInput: There are none, or one is of another kind.
    """
    several = [teachers] if isinstance(teachers, (Hidden, Logits, TopK)) else list(teachers)  # type: ignore[call-overload]
    if not several:
        raise InvalidInput("There are no teachers; give at least one.")
    for k, output in enumerate(several):
        if not isinstance(output, (Hidden, Logits, TopK)):
            raise InvalidInput(
                f"Teacher {k} is {type(output).__name__}; wanted Hidden(hidden, head), Logits(logits) or "
                "TopK(ids, log_p, vocabulary): what it says of these positions."
            )
    return several


def read_vocabulary(
    student: Tensor, head: Head | None, teachers: Sequence[TeacherOutput], names: Sequence[str], given: int | None
) -> int:
    """Return how many tokens are compared.

    Args:
        student: Hidden states, or logits.
        head: The student's head; None for logits.
        teachers: What teachers gave.
        names: Of the teachers.
        given: What the caller says; None where all have the same.

    Raises:
        InvalidInput: Sizes differ and none was given, or one is below what was given.
    """
    own = int(student.shape[-1]) if head is None else head.vocabulary
    sizes: dict[str, int | None] = {"the student": own}
    for name, output in zip(names, teachers, strict=True):
        sizes[name] = _vocabulary_of(output)
    if given is None:
        for name, size in sizes.items():
            if size not in (own, None):
                raise InvalidInput(
                    f"The student scores {own} tokens, {name} {size}. If both are padded beyond the same tokenizer, "
                    "pass vocabulary=len(tokenizer); each is then cut to it. If the tokenizers differ, they cannot be "
                    "compared."
                )
        return own
    for name, size in sizes.items():
        if size is not None and size < given:
            raise InvalidInput(f"`vocabulary` is {given}, and {name} scores {size} tokens only; wanted at most that.")
    if given < 2:
        raise InvalidInput(f"`vocabulary` is {given}; wanted at least 2 tokens.")
    return int(given)


def _vocabulary_of(output: TeacherOutput) -> int | None:
    if isinstance(output, Hidden):
        return output.head.vocabulary
    return int(output.logits.shape[-1]) if isinstance(output, Logits) else output.vocabulary


def read_positions(
    lead: torch.Size, labels: Tensor | None, mask: Tensor | None, vocabulary: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Return the places of the positions that count, None where all do, and the labels of those.

    Args:
        lead: Shape of the positions.
        labels: Class numbers, -100 where one does not count; or None.
        mask: Which count; or None.
        vocabulary: How many tokens there are.
        device: Where to.

    Raises:
        InvalidInput: Shapes do not fit, or a label is no token.
    """
    for name, value in (("labels", labels), ("mask", mask)):
        if value is not None and value.shape != lead:
            raise InvalidInput(
                f"`{name}` has shape {tuple(value.shape)}; wanted one a position, {tuple(lead)}. The label of a "
                "position is the token that follows it: shift_labels(input_ids) puts it there."
            )
    counted = torch.ones(lead, dtype=torch.bool, device=device) if mask is None else mask.to(device).bool()
    if labels is not None:
        labels = labels.to(device).long()
        counted = counted & (labels != IGNORED)
    flat = counted.flatten()
    kept = None if bool(flat.all()) else flat.nonzero()[:, 0]
    if labels is None:
        return kept, None
    chosen = labels.flatten() if kept is None else labels.flatten()[kept]
    outside = (chosen < 0) | (chosen >= vocabulary)
    if bool(outside.any()):
        raise InvalidInput(
            f"A label is {int(chosen[outside][0])}; wanted a token number from 0 to {vocabulary - 1}, or -100 where a "
            "position does not count."
        )
    return kept, chosen


def read_temperatures(
    temperature: float | Sequence[float] | None, divergence: TemperedDivergence, K: int, temper: str
) -> tuple[tuple[float, ...], TemperedDivergence]:
    """Return the temperature of each teacher, and the divergence at that of the student.

    Args:
        temperature: One number for all; one a teacher, the student having the divergence's; None for the divergence's.
        divergence: Of target and student.
        K: How many teachers.
        temper: "teachers" or "pool".

    Raises:
        InvalidInput: They do not fit each other.
    """
    if temper not in ("teachers", "pool"):
        raise InvalidInput(f"`temper` is {temper!r}; wanted 'teachers' (each is softened, then pooled) or 'pool'.")
    own = divergence.temperature
    if temperature is None:
        return (own,) * K, divergence
    values = list(temperature) if isinstance(temperature, Sequence) else [temperature]
    if not all(is_finite(value) and value > 0 for value in values):
        raise InvalidInput(f"`temperature` is {temperature!r}; wanted numbers above 0.")
    if not isinstance(temperature, Sequence):
        if own not in (1.0, values[0]):
            raise InvalidInput(
                f"`temperature` is {temperature!r}, and the divergence has its own, {own:g}; give one of the two."
            )
        return (float(values[0]),) * K, replace(divergence, temperature=float(values[0]))
    if len(values) != K:
        raise InvalidInput(f"`temperature` has {len(values)} numbers for {K} teachers; wanted one a teacher, or one.")
    if temper == "pool":
        raise InvalidInput("A temperature a teacher is for temper='teachers'; a pool is softened by one number.")
    return tuple(float(value) for value in values), divergence


def read_weights(weights: Tensor, lead: torch.Size, K: int) -> Tensor:
    """Return weights as one row a position, (N, K), with their graph.

    Args:
        weights: (K,) or (..., K), at least 0, sum 1.
        lead: Shape of the positions.
        K: How many teachers.

    Raises:
        InvalidInput: Shape or values are wrong.
    """
    if weights.shape not in ((K,), (*lead, K)):
        raise InvalidInput(
            f"`weights` has shape {tuple(weights.shape)}; wanted ({K},), or one row a position, {(*lead, K)}."
        )
    known = weights.detach()
    if not bool(torch.isfinite(known).all()) or bool((known < 0).any()):
        raise InvalidInput("`weights` holds a number that is negative or not finite; wanted at least 0, sum 1.")
    total = known.double().sum(-1)
    if bool(((total - 1).abs() > max(_SUM_ERROR, 4 * torch.finfo(known.dtype).eps)).any()):
        worst = total.flatten()[(total - 1).abs().argmax()]
        raise InvalidInput(f"`weights` sum to {float(worst):g} at one position; wanted 1. Divide each row by its sum.")
    return weights.expand(*lead, K).reshape(-1, K)


def require_pool(pool: str) -> str:
    """Return the name of a pool.

    Args:
        pool: "arithmetic" or "geometric".

    Raises:
        InvalidInput: It is none.
    """
    if pool not in POOLS:
        raise InvalidInput(f"`pool` is {pool!r}; wanted {' or '.join(map(repr, POOLS))}.")
    return pool


def make_label_batch(lead: torch.Size, labels: Tensor | None, task: Any, context: Any, device: torch.device) -> Batch:
    """Return labels, tasks and contexts as a batch without inputs, for constraints and rules.

    Args:
        lead: Shape of the positions.
        labels: Or None.
        task: One an example or a position; None for zeros.
        context: Likewise.
        device: Where to.
    """
    known = torch.zeros(lead, dtype=torch.long, device=device) if labels is None else labels.to(device).long()
    size = lead[0] if lead else 1
    zeros = torch.zeros(size, dtype=torch.long, device=device)
    groups = {}
    for name, value in (("task", task), ("context", context)):
        given = zeros if value is None else torch.as_tensor(value, device=device).long()
        if given.shape not in ((size,), lead):
            raise InvalidInput(
                f"`{name}` has shape {tuple(given.shape)}; wanted one an example, ({size},), or a position, "
                f"{tuple(lead)}."
            )
        groups[name] = given
    numbers = torch.arange(size, device=device)
    return Batch(zeros[:, None], known.clamp_min(0), groups["task"], groups["context"], numbers)


def spread_group(value: Any, lead: torch.Size, kept: Tensor | None, device: torch.device) -> Tensor | None:
    """Return a group number for each position that counts.

    Args:
        value: One an example or a position; or None.
        lead: Shape of the positions.
        kept: Places of the positions that count.
        device: Where to.
    """
    if value is None:
        return None
    flat = expand_to_positions(torch.as_tensor(value, device=device).long(), lead).flatten()
    return flat if kept is None else flat[kept]
