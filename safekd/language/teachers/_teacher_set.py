"""Several teachers of one vocabulary, asked one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, overload, runtime_checkable

from torch import nn

from ...data import Batch
from ...errors import InvalidInput
from ..loss import TeacherOutput
from ._causal_teacher import CausalTeacher
from .tokens import require_same_tokenizer


@runtime_checkable
class LanguageTeacher(Protocol):
    """What answers batches of tokens: ``CausalTeacher``, ``CachedTeacher``, or anything else with these members.

    Attributes:
        name: What tables and messages call it.
        vocabulary: How many tokens it scores.
    """

    @property
    def name(self) -> str:
        """What tables and messages call it."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many tokens it scores."""
        ...

    def __call__(self, batch: Batch) -> TeacherOutput:
        """Return what it says of a batch, without gradients.

        Args:
            batch: Examples.
        """
        ...

    def manifest(self) -> dict[str, str | int]:
        """Return what it is, as caches and checkpoints compare it."""
        ...


class TeacherSet(Sequence[LanguageTeacher]):
    """Teachers asked one after the other, those of one model together, so that a parked model is fetched once a batch.

    Args:
        teachers: At least one, names all different; models of transformers are wrapped as ``CausalTeacher``.
        tokenizer: The student's: teachers with another are refused; None where nobody is to look.

    Raises:
        InvalidInput: There are none, two have one name, or a tokenizer differs.
    """

    def __init__(self, teachers: Sequence[LanguageTeacher], tokenizer: Any = None) -> None:
        self._teachers = tuple(wrap_models(teachers))
        if not self._teachers:
            raise InvalidInput("There are no teachers; give at least one.")
        for number, teacher in enumerate(self._teachers):
            if not isinstance(teacher, LanguageTeacher):
                raise InvalidInput(
                    f"Teacher {number} is a {type(teacher).__name__}; wanted a CausalTeacher, a CachedTeacher, or an "
                    "object with name, vocabulary, manifest() and a call that answers a batch."
                )
        self.names = [teacher.name for teacher in self._teachers]
        if twice := [name for name in self.names if self.names.count(name) > 1]:
            raise InvalidInput(f"Two teachers are called '{twice[0]}'; give each a name of its own, name='...'.")
        if tokenizer is not None:
            require_same_tokenizer(self._teachers, tokenizer)

    def __len__(self) -> int:
        return len(self._teachers)

    @overload
    def __getitem__(self, place: int) -> LanguageTeacher: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[LanguageTeacher]: ...
    def __getitem__(self, place: int | slice) -> LanguageTeacher | Sequence[LanguageTeacher]:
        return self._teachers[place]

    def __iter__(self) -> Iterator[LanguageTeacher]:
        return iter(self._teachers)

    def __call__(self, batch: Batch) -> list[TeacherOutput]:
        """Return what each teacher says of a batch, in their order.

        Args:
            batch: Examples.
        """
        answers: dict[int, TeacherOutput] = {}
        for together in self._group_by_model():
            with _keep_in_memory(self._teachers[together[0]]):
                answers |= {k: self._teachers[k](batch) for k in together}
        return [answers[k] for k in range(len(self))]

    def manifests(self) -> list[dict[str, str | int]]:
        """Return what each teacher is, in their order."""
        return [teacher.manifest() for teacher in self._teachers]

    def _group_by_model(self) -> list[list[int]]:
        groups: dict[int, list[int]] = {}
        for k, teacher in enumerate(self._teachers):
            groups.setdefault(id(getattr(teacher, "model", teacher)), []).append(k)
        return list(groups.values())


def wrap_models(teachers: Iterable[Any]) -> list[Any]:
    """Return teachers, each bare causal model of transformers as a ``CausalTeacher`` with a name of its own.

    Args:
        teachers: Teachers and models.
    """
    wrapped: list[Any] = []
    for teacher in teachers:
        if isinstance(teacher, nn.Module) and hasattr(teacher, "get_output_embeddings"):
            base, taken = type(teacher).__name__, {getattr(other, "name", None) for other in wrapped}
            free = (name for name in (base, *(f"{base}-{n}" for n in range(2, len(taken) + 3))) if name not in taken)
            teacher = CausalTeacher(teacher, name=next(free))
        wrapped.append(teacher)
    return wrapped


def _keep_in_memory(teacher: Any) -> AbstractContextManager[Any]:
    return teacher.awake() if hasattr(teacher, "awake") else nullcontext()
