"""Signals that do not fit each other, refused before torch broadcasts them or fails in its own words.

Shapes and dtypes are looked at, which costs nothing, and of the values only those of one position.
Axes: ... positions, K teachers, V classes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..._precision import widen
from ...data import IGNORED, expand_to_positions, fill_uncounted, mark_groups, show_groups
from ...errors import InvalidInput, MissingSignal


@dataclass(frozen=True)
class SignalCheckSettings:
    """How far signals may be off; ``tests/safekd/weights/test_weights_refusals.py`` notices.

    Attributes:
        sum_error: How far probabilities may sum beside 1: no dtype rounds as much, and logits, or probabilities that
            were passed as their logarithms, miss it by more.
    """

    sum_error: float = 0.1


_CHECKS = SignalCheckSettings()


def read_counted(mask: Tensor | None, labels: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Return which positions count, None where all do, and labels with 0 where they do not.

    Args:
        mask: As it was given, bool (...), or None.
        labels: Class numbers, (...); -100 where a position does not count.
    """
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        return mask, labels
    ignored = labels.long() == IGNORED
    if mask is None:
        mask = ~ignored if bool(ignored.any()) else None
    elif _is_mask(mask) and mask.shape == labels.shape:
        mask = mask & ~ignored
    return mask, fill_signal(labels, mask, 0)


def read_signal(value: Tensor | None, mask: Tensor | None, filling: float | None = None) -> Tensor | None:
    """Return half types as float32, filled in as by ``fill_signal``; what is no tensor is left to the checks."""
    return fill_signal(widen(value), mask, filling) if isinstance(value, Tensor) else value


def fill_signal(value: Tensor | None, mask: Tensor | None, filling: float | None = None) -> Tensor | None:
    """Return a signal with a number where a position does not count; what does not fit is left to the checks.

    Args:
        value: Anything a position, (..., *more).
        mask: Which positions count, bool (...).
        filling: The number; None for that of a uniform distribution over the last axis, as its logarithm.
    """
    if not isinstance(value, Tensor) or mask is None or not _is_mask(mask) or value.shape[: mask.ndim] != mask.shape:
        return value
    return fill_uncounted(value, mask, -math.log(max(value.shape[-1], 1)) if filling is None else filling)


def require_log_p(log_p: Tensor | None) -> None:
    """Raise InvalidInput unless it can be teachers' log-probabilities, (..., K, V), judged by the first position."""
    if log_p is None:
        return
    _require_tensor("log_p", log_p)
    if log_p.ndim < 2 or not log_p.is_floating_point() or 0 in log_p.shape[-2:]:
        raise InvalidInput(
            f"`log_p` is {_dtype_name(log_p)} of shape {tuple(log_p.shape)}; wanted floats, (..., teachers, classes)."
        )
    if not log_p.numel() or not log_p.is_cpu:  # elsewhere a look at a value waits for the device
        return
    sum_K = log_p.detach()[(0,) * (log_p.ndim - 2)].float().exp().sum(-1)
    off_K = (sum_K - 1).abs() > _CHECKS.sum_error  # NaN is not: who meets one names the position
    if bool(off_K.any()):
        k = int(off_K.to(torch.uint8).argmax())
        raise InvalidInput(
            f"`log_p` holds no log-probabilities: exp(log_p) of teacher {k} sums to {float(sum_K[k]):.4g} at the first "
            "position; wanted 1. Pass logits.log_softmax(-1), or probabilities.log()."
        )


def require_same_teachers(log_p: Tensor | None, passes: Tensor | None, student: Tensor | None) -> None:
    """Raise InvalidInput unless further distributions are about the classes, and the teachers, of ``log_p``."""
    if log_p is None:
        return
    if student is not None and student.shape[-1] != log_p.shape[-1]:
        raise InvalidInput(
            f"`student_log_p` has {student.shape[-1]} classes, `log_p` has {log_p.shape[-1]}; wanted equal."
        )
    if passes is not None and (passes.shape[-2:] != log_p.shape[-2:] or not passes.shape[-3]):
        P, K, V = passes.shape[-3:]
        raise InvalidInput(
            f"`log_p_passes` has {P} passes, {K} teachers and {V} classes; wanted at least 1, and "
            f"{log_p.shape[-2]} and {log_p.shape[-1]} as in `log_p`."
        )


def require_lead(name: str, value: Tensor | None, lead: torch.Size, wanted: tuple[str, ...]) -> None:
    """Raise InvalidInput unless a signal has the positions ``lead`` and further axes, as many as ``wanted`` names."""
    if value is None:
        return
    _require_tensor(name, value)
    if value.ndim != len(lead) + len(wanted) or value.shape[: len(lead)] != lead:
        axes = ", ".join([*map(str, lead), *wanted])
        raise InvalidInput(f"`{name}` has shape {tuple(value.shape)}; wanted ({axes}).")


def require_scores_fit(scores: Mapping[str, Tensor | None], log_p: Tensor | None) -> None:
    """Raise InvalidInput unless each signal is one number a position and teacher, or spreads to that."""
    shape = None if log_p is None else log_p.shape[:-1]
    for name, value in scores.items():
        if value is None:
            continue
        _require_tensor(name, value)
        shape = value.shape if shape is None else shape
        if not value.ndim or not value.shape[-1]:
            raise InvalidInput(f"`{name}` has shape {tuple(value.shape)}; wanted (..., teachers).")
        fits = value.ndim <= len(shape) and all(
            own in (1, wanted) for own, wanted in zip(reversed(value.shape), reversed(shape), strict=False)
        )
        if not fits:
            raise InvalidInput(
                f"`{name}` has shape {tuple(value.shape)}; wanted {tuple(shape)}, (..., teachers), as the others."
            )


def require_mask(name: str, value: Tensor | None, lead: torch.Size) -> None:
    """Raise InvalidInput unless it says yes or no for each position."""
    if value is None:
        return
    _require_tensor(name, value)
    if value.dtype != torch.bool or value.shape != lead:
        raise InvalidInput(
            f"`{name}` is {_dtype_name(value)} of shape {tuple(value.shape)}; wanted bool of shape {tuple(lead)}, one "
            "for each position."
        )


def require_group_numbers(name: str, value: Tensor | None, lead: torch.Size, *, spreads: bool) -> Tensor | None:
    """Return classes, tasks or contexts as int64.  spreads: one for each sequence is enough.

    Raises InvalidInput for other shapes and for what are no whole numbers.
    """
    if value is None:
        return None
    _require_tensor(name, value)
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise InvalidInput(f"`{name}` is {_dtype_name(value)}; wanted integers, a number from 0 for each position.")
    if value.shape != (lead[: value.ndim] if spreads else lead):
        fewer = " (or one for each sequence)" if spreads and len(lead) > 1 else ""
        raise InvalidInput(
            f"`{name}` has shape {tuple(value.shape)}; wanted {tuple(lead)}, one for each position{fewer}."
        )
    return value.long()


def mark_chosen(
    chosen: frozenset[int], value: Tensor | None, what: str, of_what: str, lead: torch.Size, device: torch.device
) -> Tensor:
    """Say which positions are of some classes or contexts, bool (...).  Raises MissingSignal without their numbers."""
    if not chosen:
        return torch.zeros(lead, dtype=torch.bool, device=device)
    if value is None:
        raise MissingSignal(f"Critical {of_what} {show_groups(chosen)} are named; pass `{what}` to find them by.")
    return expand_to_positions(mark_groups(value, chosen), lead)


def read_group_numbers(name: str, chosen: Collection[int]) -> frozenset[int]:
    """Return the numbers of classes or contexts as a set.  Raises InvalidInput for what are no numbers from 0."""
    return _read_kept(name, chosen) if isinstance(chosen, frozenset) else _read_chosen(name, chosen)


def _read_chosen(name: str, chosen: Collection[int]) -> frozenset[int]:
    try:
        numbers = frozenset(operator.index(one) for one in chosen)
    except TypeError:
        raise InvalidInput(f"`{name}` is {chosen!r}; wanted a list of numbers, such as [0].") from None
    if numbers and min(numbers) < 0:
        raise InvalidInput(f"`{name}` names {min(numbers)}; wanted numbers from 0.")
    return numbers


_read_kept = lru_cache(maxsize=32)(_read_chosen)  # thousands of critical tokens, asked for once a chunk


def _is_mask(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bool


def _require_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise InvalidInput(f"`{name}` is a {type(value).__name__}; wanted a tensor: torch.as_tensor({name}).")


def _dtype_name(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def require_true_classes(labels: Tensor, classes: int | None) -> None:
    """Refuse a label that is no class, of so many where that is known.

    Args:
        labels: Class numbers, (...), those that do not count filled in.
        classes: V; None where nobody said.
    """
    outside = labels < 0 if classes is None else (labels < 0) | (labels >= classes)
    if bool(outside.any()):
        where = tuple(int(i) for i in outside.nonzero()[0])
        wanted = "at least 0" if classes is None else f"0 to {classes - 1}"
        raise InvalidInput(
            f"Position {where} has label {int(labels[where])}; wanted a class, {wanted}. This rule needs "
            "a true class wherever a position counts; where it does not, as in padding, the label is -100."
        )
