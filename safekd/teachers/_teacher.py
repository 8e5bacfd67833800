"""What a teacher is, and what its answers are read as.  Axes: B batch, ... positions, V classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .._precision import find_unusable_rows, log_softmax, widen
from ..data import Batch
from ..errors import InvalidInput, NotFinite, SafekdError


@runtime_checkable
class Teacher(Protocol):
    """A named source of distributions over classes.

    Two more members are looked for and may be missing.  ``moving``, true where the teacher changes while a student
    learns: it is then asked anew each batch.  ``fingerprint()``, equal where the answers are the same, for a teacher
    that rests on what its attributes do not show: when a fit begins and it differs, the teacher is asked anew.

    Attributes:
        name: What tables and messages call it.
    """

    @property
    def name(self) -> str:
        """How tables and messages call it."""
        ...

    def log_probabilities(self, batch: Batch, split: str) -> Tensor:
        """Return log-probabilities, without gradients.

        Args:
            batch: Examples.
            split: Name of the split that the batch is from.

        Returns:
            (B, ..., V), on the batch's device.
        """
        ...


@dataclass(frozen=True)
class DistributionSettings:
    """What still counts as a distribution; ``tests/safekd/teachers/test_teachers.py`` notices.

    Attributes:
        sum_error: How far a teacher's probabilities may sum beside 1, as those of tables with two digits do.
        log_sum_error: The same for log-probabilities.
        floor: Smallest probability where none is asked for: a mistake of a hard classifier costs at most 14 nats.
        floor_mass: Share of the mass that all floors together may add; it lowers the floor where classes are many.
    """

    sum_error: float = 1e-2
    log_sum_error: float = 2e-2
    floor: float = 1e-6
    floor_mass: float = 1e-3


DISTRIBUTIONS = DistributionSettings()
_GIVES = ("probabilities", "logits", "log_probabilities")


def require_floor(floor: float | None, name: str) -> float | None:
    """Return the floor if it is None or a number that can stand under probabilities.

    Args:
        floor: None, or a number from 0 and below 1.
        name: Of the teacher.

    Returns:
        The same.

    Raises:
        InvalidInput: It is neither.
    """
    if floor is not None and not 0 <= floor < 1:
        raise InvalidInput(
            f"Teacher '{name}': floor is {floor!r}; wanted a small number such as 1e-6, or 0 to keep zeros."
        )
    return floor


def require_request(name: str, batch: object, split: object) -> None:
    """Refuse what ``log_probabilities`` cannot be asked with.

    Args:
        name: Of the teacher, or what else messages call it.
        batch: A Batch.
        split: Name of its split.

    Raises:
        InvalidInput: They are something else.
    """
    if not isinstance(batch, Batch) or not isinstance(split, str):
        given = f"{type(batch).__name__}, {type(split).__name__}"
        raise InvalidInput(
            f"Teacher '{name}' was asked with ({given}); wanted (kd.data.Batch, str): "
            "log_probabilities(split.batch(), split.name)."
        )


@contextmanager
def name_failures(name: str, batch: Batch, split: str) -> Iterator[None]:
    """Say which teacher failed, and on which examples, where code that is not ours raises.

    Args:
        name: Of the teacher.
        batch: What it was asked about.
        split: Name of its split.

    Yields:
        Nothing.

    Raises:
        InvalidInput: Something was raised inside the block; it stands as the cause.
    """
    try:
        yield
    except SafekdError:
        raise
    except Exception as error:
        first, last = int(batch.index.min()), int(batch.index.max())
        raise InvalidInput(
            f"Teacher '{name}' failed on split '{split}', examples {first} to {last}, with {type(error).__name__}: "
            f"{error}. Mend the teacher so that it answers log-probabilities, logits or probabilities there, or leave "
            "it out."
        ) from error


def read_answer(answer: Any, name: str, batch: Batch) -> Tensor:
    """Return a teacher's answer as floats, float32 or wider, one row a label.

    Args:
        answer: A tensor, an array, numbers, or a record with such a field ``logits``.
        name: Of the teacher.
        batch: What it was asked about.

    Returns:
        (B, ..., V), on the batch's device.

    Raises:
        InvalidInput: It is something else, or of another shape.
    """
    rows_V, lead = getattr(answer, "logits", answer), batch.labels.shape
    if not isinstance(rows_V, Tensor):
        try:
            rows_V = torch.as_tensor(rows_V)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidInput(
                f"Teacher '{name}' gave a {type(answer).__name__}; wanted a tensor or an array, one row of classes for "
                f"each of {lead.numel()} labels."
            ) from error
    if rows_V.shape[:-1] != lead or rows_V.is_complex():
        kind = str(rows_V.dtype).removeprefix("torch.")
        numbers = not rows_V.is_floating_point() and rows_V.shape == lead
        hint = " Class numbers become probabilities by torch.nn.functional.one_hot(numbers, classes)." * numbers
        raise InvalidInput(
            f"Teacher '{name}' gives distributions of shape {tuple(rows_V.shape)} ({kind}) for labels of shape "
            f"{tuple(lead)}; wanted one distribution a label, ({', '.join([*map(str, lead), 'classes'])}).{hint}"
        )
    rows_V = rows_V.to(batch.labels.device)
    return widen(rows_V) if rows_V.is_floating_point() else rows_V.float()


def read_logits(logits_V: Tensor, name: str, batch: Batch, split: str) -> Tensor:
    """Return the log-probabilities of a teacher's logits, among which minus infinity leaves a class out.

    Args:
        logits_V: As ``read_answer`` gives them, (B, ..., V).
        name: Of the teacher.
        batch: What it was asked about.
        split: Name of its split.

    Returns:
        (B, ..., V).

    Raises:
        NotFinite: A row is no distribution; the message names the example.
    """
    if bool((bad := find_unusable_rows(logits_V)).any()):
        example = int(batch.index[bad.nonzero()[0, 0]])
        source = f"Teacher '{name}' gave logits that are not finite on '{split}', example {example}"
        raise NotFinite(source, "finite logits; minus infinity only where a class is left out")
    return log_softmax(logits_V)


def require_gives(gives: str, name: str) -> None:
    """Refuse a word that does not say what a teacher's rows are.

    Args:
        gives: The word.
        name: Of the teacher.

    Raises:
        InvalidInput: It is none of "probabilities", "logits" and "log_probabilities".
    """
    if gives not in _GIVES:
        wanted = "', '".join(_GIVES[:-1])
        raise InvalidInput(f"Teacher '{name}': gives is {gives!r}; wanted '{wanted}' or '{_GIVES[-1]}'.")


def read_distributions(
    rows_V: Tensor, gives: str, name: str, floor: float | None, batch: Batch, split: str, given: torch.dtype | None
) -> Tensor:
    """Return the log-probabilities of a teacher's rows, whatever they are; uniform where a position does not count.

    Args:
        rows_V: (B, ..., V).
        gives: What they are: "probabilities", "logits" or "log_probabilities".
        name: Of the teacher.
        floor: Smallest probability; None for that of ``DistributionSettings`` under probabilities alone.
        batch: What it was asked about.
        split: Name of its split.
        given: Type in which they came, where they were widened since; None where that is not known.

    Returns:
        (B, ..., V), float32 or wider.

    Raises:
        InvalidInput: They are no distributions.
        NotFinite: A row is not finite.
    """
    if batch.mask is not None and rows_V.shape[:-1] == batch.mask.shape and rows_V.shape[-1]:
        V = rows_V.shape[-1]
        alike = {"probabilities": 1 / V, "logits": 0.0, "log_probabilities": -math.log(V)}
        rows_V = batch.fill_uncounted(rows_V, alike[gives])
    if gives == "probabilities":
        return take_log(rows_V, name, floor)
    if gives == "log_probabilities":
        require_log_distributions(rows_V, name, batch.index, given)
    log_p_V = read_logits(rows_V, name, batch, split)
    return take_log(log_p_V.exp(), name, floor) if floor else log_p_V


def require_log_distributions(log_p_V: Tensor, name: str, index: Tensor, given: torch.dtype | None = None) -> None:
    """Refuse rows whose exponentials do not sum to one.

    Args:
        log_p_V: What should be log-probabilities, (B, ..., V).
        name: Of the teacher.
        index: Numbers of the examples, (B,).
        given: Type in which the teacher gave them, where they were widened since: half types round coarsely.

    Raises:
        InvalidInput: A row sums to something else; the message names the example.
        NotFinite: A row is not finite.
    """
    dtype = log_p_V.dtype if given is None else given
    rounding = torch.finfo(dtype).eps * math.log(max(2, log_p_V.shape[-1])) if dtype.is_floating_point else 0.0
    total = torch.logsumexp(widen(log_p_V), dim=-1).exp()
    wrong = ~((total - 1).abs() <= max(DISTRIBUTIONS.log_sum_error, rounding))
    if bool(wrong.any()):
        where = tuple(int(i) for i in wrong.nonzero()[0])
        what = f"Teacher '{name}' gave values whose exponentials sum to {float(total[where]):g}"
        what += f" for example {int(index[where[0]])}"
        wanted = "log-probabilities, for instance torch.log_softmax(logits, dim=-1)"
        raise (InvalidInput(f"{what}; wanted {wanted}.") if bool(total[where].isfinite()) else NotFinite(what, wanted))


def take_log(p_V: Tensor, name: str, floor: float | None) -> Tensor:
    """Return log-probabilities of rows that should be distributions, with a floor under each entry.

    Hard classifiers answer exactly 0, whose logarithm would make one mistake infinitely expensive.  Half types are
    widened.

    Args:
        p_V: Probabilities, (..., V).
        name: Of the teacher.
        floor: Smallest probability; None for that of ``DistributionSettings``, 0 to keep zeros.

    Returns:
        Log-probabilities, (..., V).

    Raises:
        InvalidInput: A row is no distribution; the message names teacher and row.
        NotFinite: A row is not finite.
    """
    p_V = widen(p_V)
    total, classes = p_V.sum(-1, dtype=torch.float64), p_V.shape[-1]
    bad = ~torch.isfinite(p_V).all(-1) | (p_V < 0).any(-1) | ((total - 1).abs() > DISTRIBUTIONS.sum_error)
    if bool(bad.any()):
        row = tuple(int(i) for i in bad.nonzero()[0])
        shown = ", ".join(f"{x:.6g}" for x in p_V[row][:8].tolist()) + (", ..." if classes > 8 else "")
        what = f"Teacher '{name}' gave [{shown}] (sum {float(total[row]):.6g}) for example {row[0]}"
        wanted = "probabilities: finite, at least 0, sum 1"
        raise (InvalidInput(f"{what}; wanted {wanted}.") if bool(total[row].isfinite()) else NotFinite(what, wanted))
    least = min(DISTRIBUTIONS.floor, DISTRIBUTIONS.floor_mass / classes) if floor is None else floor
    p_V = p_V.clamp_min(least)
    return p_V.log() - p_V.sum(-1, keepdim=True, dtype=torch.float64).log().to(p_V)
