"""K teachers that agree on what they talk about.  Axes: B batch, ... positions, K teachers, V classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .._number_checks import is_whole
from .._precision import widen
from ..data import Batch, ExampleSource, SplitCache
from ..errors import InvalidInput
from ._teacher import Teacher, name_failures, require_log_distributions, require_request
from ._teacher_changes import Content, find_change, list_tensors, read_content, read_tensors


class TeacherEnsemble:
    """Several teachers, asked together.

    What teachers say of a split is kept, by the content of the split, while they stand still.  A fit begins with
    ``recheck``, which forgets it where a tensor, number or text that a teacher rests on has changed.  While a fit
    lasts, each evaluation looks whether a teacher's tensors have, which is refused: a teacher that is to move says so,
    ``moving=True``, and is asked anew each batch.  What cannot be seen, a file or a service, is taken to stay.

    Args:
        teachers: At least one, names all different.
        cache_limit: Outputs on a split are kept when they need at most this many bytes, else teachers are asked every
            batch; 0 keeps nothing, and lets all of them move.

    Raises:
        InvalidInput: There are no teachers, two of one name, or the limit is none.
    """

    def __init__(self, teachers: Sequence[Teacher], cache_limit: int = 2**30) -> None:
        self.teachers = list(teachers)
        if not self.teachers:
            raise InvalidInput("There are no teachers; give at least one.")
        for number, teacher in enumerate(self.teachers):
            if not isinstance(teacher, Teacher):
                raise InvalidInput(
                    f"Teacher {number} is a {type(teacher).__name__}; wanted {_suggest_wrapper(teacher)}."
                )
        self.names = [teacher.name for teacher in self.teachers]
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise InvalidInput(f"Two teachers are called '{twice}'; give each a name of its own.")
        if not is_whole(cache_limit) or cache_limit < 0:
            raise InvalidInput(f"`cache_limit` is {cache_limit!r}; wanted a number of bytes, 0 to keep nothing.")
        self.cache_limit = int(cache_limit)
        moving = [bool(getattr(teacher, "moving", False)) or not cache_limit for teacher in self.teachers]
        self._moving = [k for k, moves in enumerate(moving) if moves]
        self._still = [k for k, moves in enumerate(moving) if not moves]
        self._cache = SplitCache(self.cache_limit)
        self._contents: list[Content] | None = None
        self._tensors: list[Content] = []

    def __len__(self) -> int:
        return len(self.teachers)

    @property
    def moving(self) -> list[str]:
        """Names of the teachers that are asked anew each batch, since they may change while a student learns."""
        return [self.names[k] for k in self._moving]

    def log_probabilities(self, batch: Batch, split: str) -> Tensor:
        """Return log-probabilities of all teachers, asked now.

        Args:
            batch: Examples.
            split: Name of the split that the batch is from.

        Returns:
            (B, ..., K, V), on the batch's device, float32 or wider.

        Raises:
            InvalidInput: A teacher fails, or gives what is no distribution; teachers give different numbers of classes.
        """
        require_request(self.names[0], batch, split)
        return self._ask(range(len(self)), batch, split)

    def cached_log_probabilities(self, source: ExampleSource, batch: Batch) -> Tensor:
        """Return log-probabilities for some examples, from memory where kept.

        Args:
            source: Where the examples are from.
            batch: The examples; those of a stream, which have no place, are asked about now.

        Returns:
            (B, ..., K, V).
        """
        if not self._still:
            return self._ask(self._moving, batch, source.name)
        still_KV = self._cache.rows(source, batch, lambda some: self._ask(self._still, some, source.name))
        if not self._moving:
            return still_KV
        moving_KV = self._ask(self._moving, batch, source.name)
        names = [self.names[self._still[0]], self.names[self._moving[0]]]
        _require_same_number_of_classes(names, [still_KV, moving_KV])
        both_KV = torch.cat(_promote([still_KV, moving_KV]), dim=-2)
        place = torch.tensor([*self._still, *self._moving], device=both_KV.device)
        return both_KV.index_select(-2, place.argsort())

    def recheck(self) -> None:
        """Forget what was kept of data or teachers that may have changed; each fit and measurement begins with it."""
        now = [read_content(self.teachers[k]) for k in self._still]
        same = self._contents is not None and not any(map(find_change, self._contents, now))
        if not same:
            self._cache.forget()
        self._cache.recheck()
        self._contents, self._tensors = now, [read_tensors(self.teachers[k]) for k in self._still]

    def read_contents(self) -> dict[str, Content]:
        """Return what the answers of each teacher rest on, by its name; nothing of those that move."""
        return {name: {} if k in self._moving else read_content(self.teachers[k]) for k, name in enumerate(self.names)}

    def state(self) -> dict[str, list[tuple[str, Tensor]]]:
        """Return the tensors of each teacher that is said to move, by its name, with their places."""
        moving = [teacher for teacher in self.teachers if getattr(teacher, "moving", False)]
        return {teacher.name: list_tensors(teacher) for teacher in moving}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Sequence[tuple[str, Tensor]]]) -> None:
        """Put the tensors of moving teachers back, in place.

        Args:
            state: Of ``state``, of the same teachers.

        Raises:
            InvalidInput: A teacher has others.
        """
        for name, own in self.state().items():
            kept = state.get(name, [])
            if [(place, tensor.shape) for place, tensor in own] != [(place, tensor.shape) for place, tensor in kept]:
                raise InvalidInput(f"Teacher '{name}' has other tensors than when the checkpoint was written.")
            for (_, tensor), (_, value) in zip(own, kept, strict=True):
                tensor.copy_(value)

    def require_unchanged(self) -> None:
        """Refuse a teacher that has changed since ``recheck`` and was not said to move.

        It reads each parameter once, half a second per gigabyte on a processor.

        Raises:
            InvalidInput: One has; the message names it, and where.
        """
        for k, before in zip(self._still, self._tensors, strict=False):
            place = find_change(before, read_tensors(self.teachers[k]))
            if place is not None:
                raise InvalidInput(
                    f"Teacher '{self.names[k]}' has changed while the student learned from what it said before "
                    f"('{place}'). Give it moving=True, TorchTeacher(name, module, moving=True) say, and it is asked "
                    "anew each batch; or keep it as it is, a copy.deepcopy of the student say."
                )

    def _ask(self, which: Sequence[int], batch: Batch, split: str) -> Tensor:
        rows = []
        for k in which:
            with name_failures(self.names[k], batch, split):
                answer = self.teachers[k].log_probabilities(batch, split)
            rows.append(_read_log_probabilities(self.names[k], answer, batch))
        _require_same_number_of_classes([self.names[k] for k in which], rows)
        top, known = int(batch.labels.max()), rows[0].shape[-1]
        if top >= known:
            raise InvalidInput(f"A label is {top}, but the teachers know only {known} classes, 0 to {known - 1}.")
        return torch.stack(_promote([widen(row) for row in rows]), dim=-2)


def _promote(rows: Sequence[Tensor]) -> list[Tensor]:
    widest = torch.float64 if any(row.dtype == torch.float64 for row in rows) else torch.float32
    return [row.to(widest) for row in rows]


def _require_same_number_of_classes(names: Sequence[str], rows: Sequence[Tensor]) -> None:
    for name, row in zip(names, rows, strict=True):
        if row.shape[-1] != rows[0].shape[-1]:
            raise InvalidInput(
                f"Teacher '{name}' gives {row.shape[-1]} classes, "
                f"teacher '{names[0]}' gives {rows[0].shape[-1]}; "
                "all teachers must share one list of classes."
            )


def _read_log_probabilities(name: str, log_p_V: object, batch: Batch) -> Tensor:
    """Return log-probabilities, uniform where a position does not count; refuse what is none."""
    if not isinstance(log_p_V, Tensor) or not log_p_V.is_floating_point():
        given = f"{log_p_V.dtype} numbers" if isinstance(log_p_V, Tensor) else f"a {type(log_p_V).__name__}"
        raise InvalidInput(
            f"Teacher '{name}' gave {given}; wanted a tensor of log-probabilities, for instance "
            "torch.log_softmax(logits, dim=-1)."
        )
    if log_p_V.shape[:-1] != batch.labels.shape:
        raise InvalidInput(
            f"Teacher '{name}' gives distributions of shape {tuple(log_p_V.shape)} for labels of shape "
            f"{tuple(batch.labels.shape)}; wanted one distribution a label."
        )
    log_p_V = batch.fill_uncounted(log_p_V, -math.log(max(log_p_V.shape[-1], 1)))
    require_log_distributions(log_p_V, name, batch.index)
    return log_p_V


def _suggest_wrapper(given: object) -> str:
    if hasattr(given, "get_output_embeddings"):
        return (
            "a causal model of transformers wrapped, kd.language.CausalTeacher(model, tokenizer), and a student "
            "likewise, kd.language.CausalStudent(model)"
        )
    return "one of kd.teachers, such as TorchTeacher(name, module) or CallableTeacher(name, function)"
