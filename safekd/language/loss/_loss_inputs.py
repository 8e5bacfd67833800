"""What a loss is given, checked: which positions count, who the teachers are, how they are weighed and pooled.

Axes: ... positions, N of them, P that count, K teachers, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..._number_checks import is_finite, is_whole
from ...data import Batch, expand_to_positions
from ...divergences import ForwardKL, TemperedDivergence, require_temperature
from ...errors import InvalidInput
from ...pooling import POOLS, LogLinearPool, PowerPool, SoftenedPool, arithmetic_pool, geometric_pool
from ...weights import learned_rules
from ._chunk_divergences import require_divergence
from ._head import Head
from ._memory_budget import read_bytes
from ._teacher_outputs import Hidden, Logits, TeacherOutput, TopK
from ._teacher_rows import Pool

IGNORED = -100
_SUM_ERROR = 1e-3  # half types round a sum of weights by this much
_LEAST_POWER = 0.05  # the sum of powers is near 1 then, and float32 keeps 1e-7 of it, over the exponent


def require_loss_settings(settings: Mapping[str, Any], K: int) -> None:
    """Refuse settings of a loss before any data are there.

    Args:
        settings: Keyword arguments of ``distillation_loss``, its defaults filled in.
        K: How many teachers.

    Raises:
        InvalidInput: One is out of range, or does not fit the teachers or another.
    """
    divergence = require_divergence(ForwardKL() if settings["divergence"] is None else settings["divergence"])
    read_temperatures(settings["temperature"], divergence, K, settings["temper"])
    read_pool(settings["pool"], K)
    require_share(settings["cross_entropy"])
    read_bytes(settings["budget"])
    if settings["vocabulary"] is not None:
        require_vocabulary(settings["vocabulary"])
    weights = settings["weights"]
    if isinstance(weights, Tensor):
        if weights.shape != (K,):
            raise InvalidInput(
                f"`weights` has shape {tuple(weights.shape)}; wanted ({K},), one a teacher; what changes from position "
                "to position is a rule."
            )
        read_weights(weights, torch.Size(()), K, None)
    elif weights is not None:
        require_weights_kind(weights, K)
        require_taught_by_distillation(weights)


def require_weights_kind(weights: object, K: int) -> None:
    """Refuse weights that are neither numbers nor a rule.

    Args:
        weights: What was given.
        K: How many teachers.

    Raises:
        InvalidInput: They are neither.
    """
    if not callable(weights) or isinstance(weights, type):
        raise InvalidInput(
            f"`weights` is {weights!r}; wanted a tensor of shape ({K},) or (..., {K}), or a rule such as "
            "kd.weights.Conforming(kd.weights.EntropyDecay(), polytope)."
        )


def require_taught_by_distillation(weights: object) -> None:
    """Refuse weighting rules that learn from a loss of their own.

    Args:
        weights: A rule, or numbers.

    Raises:
        InvalidInput: One does: its loss needs all distributions at once, and the fused loss never holds them.
    """
    for learner in [] if weights is None or isinstance(weights, Tensor) else learned_rules(weights):
        learn = getattr(learner.module, "learn", None)
        if learn is not None and inspect.signature(learn).return_annotation not in (None, "None"):
            raise InvalidInput(
                f"{learner.name} learns from a loss of its own, which needs all teachers' distributions at once; "
                "the loss over a vocabulary never holds them. Give a rule that learns from the distillation loss, a "
                "module without `learn` or whose `learn` returns None; or keep what it has learned: "
                "requires_grad_(False)."
            )


def require_share(cross_entropy: object) -> None:
    """Refuse a share of the cross-entropy that is none.

    Args:
        cross_entropy: What was given.

    Raises:
        InvalidInput: It is not within [0, 1].
    """
    if not (is_finite(cross_entropy) and 0 <= cross_entropy <= 1):  # type: ignore[operator]
        raise InvalidInput(f"`cross_entropy` is {cross_entropy!r}; wanted its share in the loss, from 0 to 1.")


def require_vocabulary(given: object) -> None:
    """Refuse a number of tokens that is none.

    Args:
        given: What was given.

    Raises:
        InvalidInput: It is no whole number, or below 2.
    """
    if not is_whole(given):
        raise InvalidInput(f"`vocabulary` is {given!r}; wanted how many tokens are compared, such as len(tokenizer).")
    if given < 2:  # type: ignore[operator]
        raise InvalidInput(f"`vocabulary` is {given}; wanted at least 2 tokens.")


def require_outputs(teachers: object) -> list[TeacherOutput]:
    """Return the teachers' outputs as a list.

    Args:
        teachers: What was given.

    Raises:
        InvalidInput: There are none, or one is of another kind.
    """
    several: list[Any] = list(teachers) if isinstance(teachers, Iterable) else [teachers]
    if not several:
        raise InvalidInput("There are no teachers; give at least one.")
    for k, output in enumerate(several):
        if not isinstance(output, (Hidden, Logits, TopK)):
            asked = "; it answers a batch, so pass teacher(batch)" if hasattr(output, "manifest") else ""
            raise InvalidInput(
                f"Teacher {k} is {type(output).__name__}{asked}; wanted Hidden(hidden, head), Logits(logits) or "
                "TopK(ids, log_p, tail): what it says of these positions."
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
    require_vocabulary(given)
    for name, size in sizes.items():
        if size is not None and size < given:
            raise InvalidInput(f"`vocabulary` is {given}, and {name} scores {size} tokens only; wanted at most that.")
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
    temperature: float | Sequence[float] | Tensor | None, divergence: TemperedDivergence, K: int, temper: str
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
    temperature = temperature.tolist() if isinstance(temperature, Tensor) else temperature
    if temperature is None:
        return (own,) * K, divergence
    values = list(temperature) if isinstance(temperature, Sequence) else [temperature]
    for value in values:
        require_temperature(value, given=temperature)
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


def read_weights(weights: Tensor, lead: torch.Size, K: int, kept: Tensor | None) -> Tensor:
    """Return weights as one row a position that counts, (P, K), with their graph.

    Args:
        weights: (K,) or (..., K), at least 0, sum 1.
        lead: Shape of the positions.
        K: How many teachers.
        kept: Places of the positions that count; None where all do.

    Raises:
        InvalidInput: Shape or values are wrong.
    """
    if weights.shape not in ((K,), (*lead, K)):
        raise InvalidInput(
            f"`weights` has shape {tuple(weights.shape)}; wanted ({K},), or one row a position, {(*lead, K)}."
        )
    weights = weights if weights.is_floating_point() else weights.float()
    rows_NK = weights.expand(*lead, K).reshape(-1, K)
    rows_PK = rows_NK if kept is None else rows_NK[kept]
    known = rows_PK.detach()
    if not bool(torch.isfinite(known).all()) or bool((known < 0).any()):
        raise InvalidInput("`weights` holds a number that is negative or not finite; wanted at least 0, sum 1.")
    off_P = known.double().sum(-1) - 1
    if bool((off_P.abs() > max(_SUM_ERROR, 4 * torch.finfo(known.dtype).eps)).any()):
        worst = float(1 + off_P[off_P.abs().argmax()])
        raise InvalidInput(f"`weights` sum to {worst:g} at one position; wanted 1. Divide each row by its sum.")
    return rows_PK


def read_pool(pool: object, teachers: int, *, in_logs: bool = False) -> Pool:
    """Return how teachers are pooled one after the other.

    Args:
        pool: A name of ``kd.pooling.POOLS``, or one of what stands there.
        teachers: K.
        in_logs: Whether arithmetic pools are added up as logarithms.

    Raises:
        InvalidInput: It is none of these, or a power so small that float32 loses it.
    """
    found: object = POOLS.get(pool) if isinstance(pool, str) else pool
    if found is geometric_pool:
        found = LogLinearPool()
    if isinstance(found, LogLinearPool):
        return Pool("geometric", teachers, in_logs, temperature=found.temperature)
    r = 1.0 if found is arithmetic_pool else found.exponent if isinstance(found, PowerPool) else None
    if isinstance(found, SoftenedPool):
        raise InvalidInput(
            "`pool` is a SoftenedPool; over a vocabulary teachers are softened as they are read: pass "
            "temperature=[...], one a teacher, and its pool as pool=."
        )
    if r is None:
        raise InvalidInput(
            f"`pool` is {pool!r}; wanted {', '.join(map(repr, POOLS))}, a PowerPool or a LogLinearPool. Over a "
            "vocabulary teachers are added up one after the other, so a function of all of them cannot be used."
        )
    if r != 0 and abs(r) < _LEAST_POWER:
        raise InvalidInput(
            f"`pool` is {pool!r}; over a vocabulary an exponent is at least {_LEAST_POWER:g} in size, below which "
            "float32 loses the sum. Take 'geometric', its limit."
        )
    kind = {0.0: "geometric", 1.0: "arithmetic"}.get(r, "power")
    return Pool(kind, teachers, in_logs, exponent=float(r))


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
    groups = {
        name: zeros if value is None else read_group(name, value, lead, device)
        for name, value in (("task", task), ("context", context))
    }
    numbers = torch.arange(size, device=device)
    return Batch(zeros[:, None], known.clamp_min(0), groups["task"], groups["context"], numbers)


def read_group(name: str, value: Any, lead: torch.Size, device: torch.device) -> Tensor:
    """Return group numbers, one an example or a position.

    Args:
        name: What messages call them.
        value: What was given.
        lead: Shape of the positions.
        device: Where to.

    Raises:
        InvalidInput: They are no numbers, or do not fit the positions.
    """
    try:
        given = torch.as_tensor(value, device=device).long()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"`{name}` is {value!r}; wanted whole numbers. The contexts and tasks of a split are numbered in the order "
            "of its names."
        ) from error
    if given.shape not in ((lead[0] if lead else 1,), lead):
        raise InvalidInput(
            f"`{name}` has shape {tuple(given.shape)}; wanted one an example, ({lead[0] if lead else 1},), or a "
            f"position, {tuple(lead)}."
        )
    return given


def read_per_group(name: str, given: Sequence[Any], like: Sequence[Tensor]) -> list[Tensor]:
    """Return numbers that are given for each group of each measure.

    Args:
        name: What messages call them.
        given: (G,) a measure.
        like: Tensors of the same shapes.

    Raises:
        InvalidInput: There are more or fewer.
    """
    sizes = [len(x) for x in like]
    if len(given) != len(like):
        raise InvalidInput(f"`{name}` is for {len(given)} measures; wanted one tensor a measure, {len(like)} of them.")
    read = [torch.as_tensor(x).to(y) for x, y in zip(given, like, strict=True)]
    if [tuple(x.shape) for x in read] != [(size,) for size in sizes]:
        raise InvalidInput(
            f"`{name}` has shapes {[tuple(x.shape) for x in read]}; wanted one number a group, {[(n,) for n in sizes]}."
        )
    return read


def spread_group(name: str, value: Any, lead: torch.Size, kept: Tensor | None, device: torch.device) -> Tensor | None:
    """Return a group number for each position that counts.

    Args:
        name: What messages call it.
        value: One an example or a position; or None.
        lead: Shape of the positions.
        kept: Places of the positions that count.
        device: Where to.
    """
    if value is None:
        return None
    flat = expand_to_positions(read_group(name, value, lead, device), lead).flatten()
    return flat if kept is None else flat[kept]
