"""A source of which nobody knows more than what a pass over it shows.  Axes: B batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from ...errors import InvalidInput
from .._batch import Batch
from .._column_values import read_group_names
from .._data_sources import SOURCE_FIELDS, Fields, name_parts
from .._example_source import ExampleSource
from .._group_names import GroupNames
from ..provenance import SeenExamples
from ._source_survey import SourceSurvey

Collate = Callable[[list[Any]], Any]
_ROWS = 4096  # examples that are read at a time where nobody asks for fewer


class SurveyedSource(ExampleSource):
    """Examples that are read as they are needed; the first pass over all of them counts them.

    Args:
        name: "train", "validation", ...
        fields: What the parts of an item are, as for ``as_split``; a list of names, or a dictionary, makes inputs a
            dictionary: ``{"inputs": ["input_ids", "attention_mask"], "labels": "labels"}``.
        class_names: What to call the classes, in the order of their numbers.
        context_names: What to call the contexts.
        task_names: What to call the tasks.
        device: Where batches go.
    """

    def __init__(
        self,
        name: str,
        fields: Fields | None,
        class_names: Sequence[str],
        context_names: Sequence[str],
        task_names: Sequence[str],
        device: torch.device | str,
    ) -> None:
        self.name, self.fields, self._device = name, fields, torch.device(device)
        kinds = (("labels", class_names), ("context", context_names), ("task", task_names))
        self._names = GroupNames(name, *(read_group_names(names, what, name) for what, names in kinds))
        self._survey: SourceSurvey | None = None

    @property
    def names(self) -> GroupNames:
        """What its classes, contexts and tasks are called."""
        return self._names

    @property
    def device(self) -> torch.device:
        """Where its batches are."""
        return self._device

    @property
    def survey(self) -> SourceSurvey:
        """What a pass over all examples showed; the first one who asks has it made."""
        if self._survey is None:
            for _ in self.batches(_ROWS):
                pass
        assert self._survey is not None
        return self._survey

    @property
    def seen(self) -> SeenExamples:
        """Keys of the examples."""
        return self.survey.seen

    @property
    def positions(self) -> int:
        """How many positions count, over all examples."""
        return self.survey.positions

    def batches(self, rows: int) -> Iterator[Batch]:
        """Yield every example once, always in the same order.

        Args:
            rows: How many at a time, at most.

        Yields:
            Batches.
        """
        survey = SourceSurvey(self.name) if self._survey is None else None
        for batch in self._read_pass(rows):
            if survey is not None:
                survey.add(batch)
                self._note(batch, survey.examples - len(batch))
            yield from (part.to(self._device) for part in batch.cut(rows))
        if survey is not None and self._survey is None:
            self._survey = survey

    @abstractmethod
    def _read_pass(self, rows: int) -> Iterator[Batch]:
        """Yield every example once, on the processor; about ``rows`` at a time where the source can choose."""

    def _note(self, batch: Batch, first: int) -> None:
        """Take in a batch of the first pass; ``first`` is the place of its first example."""

    def _name_item(self, item: Any) -> dict[str, Any]:
        """Return the parts of a batch by name: of a tuple or a dictionary."""
        if isinstance(item, Mapping):
            return name_parts(list(item.values()), [str(key) for key in item], self.name, self.fields, SOURCE_FIELDS)
        if isinstance(item, (tuple, list)) and len(item) > 1:
            return name_parts(list(item), None, self.name, self.fields, SOURCE_FIELDS)
        raise InvalidInput(
            f"`{self.name}` gives a {type(item).__name__}; wanted batches that are tuples (inputs, labels), or "
            'dictionaries {"inputs": ..., "labels": ...}.'
        )
