"""Rows of a data set as batches of padded sequences, with their contexts, tasks and numbers.

    {"input_ids": [5, 8, 2], "labels": [-100, 8, 2], "context": "news"}     one row, as Hugging Face data have it

Labels stand where their token stands, as transformers has them; a ``Batch`` has them beside the hidden state that
foretells them, one place earlier.  Axes: B batch, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from ...._number_checks import is_whole
from ....data import Batch
from ....errors import InvalidInput
from ...loss import shift_labels

IGNORED = -100  # the label that transformers leaves out
_OWN = ("context", "task", "index")  # keys of a collated batch that the student does not get


@dataclass(frozen=True)
class SequenceColumns:
    """Where rows say what the student does not read, and what the contexts and tasks are called.

    Attributes:
        context: Column of the context, a number or a name; a row without it is of context 0.
        task: The same for the task.
        index: Column of the number of the row, by which stored answers of teachers are found.
        contexts: Names of the contexts in the order of their numbers; empty where they are numbers.
        tasks: The same for the tasks.
    """

    context: str = "context"
    task: str = "task"
    index: str = "index"
    contexts: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    @property
    def taken(self) -> tuple[str, ...]:
        """The columns that no model reads."""
        return (self.context, self.task, self.index)

    def read_own(self, row: Mapping[str, Any]) -> tuple[int, int, int]:
        """Return context, task and number of a row; the number is -1 where it has none.

        Args:
            row: Of the data set.

        Raises:
            InvalidInput: One is no whole number, and no name that is known.
        """
        context = _read_group_number(row.get(self.context, 0), self.context, self.contexts, "context_names")
        task = _read_group_number(row.get(self.task, 0), self.task, self.tasks, "task_names")
        return context, task, _read_group_number(row.get(self.index, -1), self.index, (), "")


def _read_group_number(value: Any, column: str, names: tuple[str, ...], setting: str) -> int:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, str) and value in names:
        return names.index(value)
    if isinstance(value, str):
        known = f"known are {', '.join(map(repr, names))}" if names else "none is known by name"
        more = f"; name them all: {setting}=[...]" if setting else "; wanted a whole number"
        raise InvalidInput(f"Column '{column}' of a row is {value!r}, but {known}{more}.")
    if not is_whole(value):
        raise InvalidInput(f"Column '{column}' of a row is {value!r}; wanted a whole number or a name.")
    return int(value)


class SequenceCollator:
    """Makes a batch out of rows; what the student does not read travels beside what it reads.

    Args:
        columns: Where rows say what the student does not read.
        inner: Makes the student's inputs and labels out of the other columns; None to pad ``input_ids``,
            ``attention_mask``, ``labels`` and whatever is as long.
        readable: Columns that the student reads; None to hand on all.
        padding: Token that fills up.
        side: Where it goes, "right" or "left".
    """

    def __init__(
        self,
        columns: SequenceColumns,
        inner: Callable[[list[Any]], Mapping[str, Any]] | None = None,
        readable: frozenset[str] | None = None,
        padding: int = 0,
        side: str = "right",
    ) -> None:
        self.columns, self.inner, self.readable = columns, inner, readable
        self.padding, self.side = padding, side

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return tensors by name: the student's inputs, ``labels``, ``context``, ``task`` and ``index``.

        Args:
            rows: Of the data set.

        Raises:
            InvalidInput: A row holds no tokens, or a context that has no name.
        """
        if wrong := [row for row in rows if not isinstance(row, Mapping)]:
            raise InvalidInput(f"A row of the data set is a {type(wrong[0]).__name__}; wanted columns by name.")
        own = torch.tensor([self.columns.read_own(row) for row in rows], dtype=torch.long).T
        rest = [{name: value for name, value in row.items() if self._is_readable(name)} for row in rows]
        batch = dict(self._pad(rest) if self.inner is None else self.inner(rest))
        if not isinstance(batch.get("input_ids"), Tensor):
            raise InvalidInput(f"The data collator gave {sorted(batch)}; wanted a tensor `input_ids` among them.")
        if batch.get("labels") is None:
            present = batch.get("attention_mask")
            ids: Tensor = batch["input_ids"]
            batch["labels"] = ids.clone() if present is None else torch.where(present.bool(), ids, IGNORED)
        return batch | dict(zip(_OWN, own, strict=True))

    def _is_readable(self, name: str) -> bool:
        return name not in self.columns.taken and (self.readable is None or name in self.readable)

    def _pad(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        for row in rows:
            if "input_ids" not in row:
                raise InvalidInput(
                    f"A row of the data set has the columns {sorted(row)}, and `input_ids` is not among them; tokenize "
                    "the text first, or give a data_collator that does."
                )
        longest = max(len(row["input_ids"]) for row in rows)
        filling = {"input_ids": self.padding, "labels": IGNORED}
        full = [{"attention_mask": [1] * len(row["input_ids"]), **row} for row in rows]
        batch = {}
        for name in full[0]:
            values = [_read_row_column(row, name) for row in full]
            along = [
                value.ndim == 1 and len(value) == len(row["input_ids"]) for value, row in zip(values, rows, strict=True)
            ]
            if not all(along) and len({value.shape for value in values}) > 1:
                bad = along.index(False)
                raise InvalidInput(
                    f"Column '{name}' of a row has shape {tuple(values[bad].shape)}, and `input_ids` "
                    f"{len(rows[bad]['input_ids'])} tokens; wanted as many. Labels are those of Hugging Face, not "
                    "shifted: that is done inside."
                )
            if all(along):
                values = [self._fill(value, longest, filling.get(name, 0)) for value in values]
            batch[name] = torch.stack(values)
        return batch

    def _fill(self, value: Tensor, length: int, filling: int) -> Tensor:
        missing = length - len(value)
        return torch.nn.functional.pad(value, (missing, 0) if self.side == "left" else (0, missing), value=filling)


def _read_row_column(row: Mapping[str, Any], name: str) -> Tensor:
    try:
        return torch.as_tensor(row[name])
    except KeyError as error:
        raise InvalidInput(f"Some rows have a column '{name}' and others have none; wanted all or none.") from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"Column '{name}' of a row is {row[name]!r:.80}, which no model reads; leave it out, or leave "
            "remove_unused_columns=True in the arguments."
        ) from error


def make_sequence_batch(collated: Mapping[str, Any]) -> Batch:
    """Return what a collator made as a ``Batch``: labels one place earlier, what does not count masked out.

    A position counts where it holds a token and the next one is a label; at the last token before padding on the right,
    and at padding on the left, nothing is foretold.

    Args:
        collated: Tensors by name; or a ``batch`` among them, which is one already.
    """
    if isinstance(collated.get("batch"), Batch):
        return collated["batch"]  # type: ignore[no-any-return]
    inputs = {name: value for name, value in collated.items() if name not in (*_OWN, "labels")}
    labels = shift_labels(collated["labels"])
    mask = labels != IGNORED
    present = inputs.get("attention_mask")
    if isinstance(present, Tensor) and present.shape == mask.shape:
        mask = mask & present.bool()
    context, task, index = (collated[name] for name in _OWN)
    return Batch(
        inputs,
        torch.where(mask, labels, 0),
        task,
        context,
        index.clamp_min(0),
        mask=mask,
        numbered=bool((index >= 0).all()),
    )


def name_groups(
    columns: SequenceColumns, data: Iterable[Any], given: Mapping[str, Sequence[str] | None]
) -> SequenceColumns:
    """Return the columns with the names of contexts and tasks that the data have.

    Args:
        columns: Without names.
        data: The data sets; streams are not read.
        given: Names by "contexts" and "tasks" where the caller gave them; else None.

    Raises:
        InvalidInput: Names that were given are no list of different texts.
    """
    found: dict[str, Any] = {}
    for what, column in (("contexts", columns.context), ("tasks", columns.task)):
        names = given[what]
        if names is None:
            found[what] = _find_names(column, data)
            continue
        ok = not isinstance(names, str) and all(isinstance(name, str) for name in names)
        if not ok or len(set(names)) < len(names):
            raise InvalidInput(f"`{what[:-1]}_names` is {names!r}; wanted a list of different names.")
        found[what] = tuple(names)
    return replace(columns, **found)


def _find_names(column: str, data: Iterable[Any]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for one in data:
        declared = getattr((getattr(one, "features", None) or {}).get(column), "names", None)
        if declared:  # a column of numbers whose names the data set knows
            return tuple(declared)
        if isinstance(one, IterableDataset) or not hasattr(one, "__len__") or not len(one):
            continue
        if isinstance(one, dict):
            raise InvalidInput(
                f"A data set is a {type(one).__name__} with {sorted(map(str, one))}; wanted one of them, with rows by "
                "number."
            )
        first = one[0]
        if isinstance(first, Mapping) and isinstance(first.get(column), str):
            values = one.unique(column) if hasattr(one, "unique") else (one[i].get(column) for i in range(len(one)))
            names |= dict.fromkeys(value for value in values if isinstance(value, str))
    return tuple(sorted(names))


class NumberedRows:
    """A data set whose rows know their number.

    Args:
        rows: With a length, and rows by number.
        column: Under which the number is found.
    """

    def __init__(self, rows: Any, column: str) -> None:
        self.rows, self.column = rows, column

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {**self.rows[number], self.column: number}


def add_row_numbers(data: Any, column: str) -> Any:
    """Return a data set whose rows have a number; a stream, and rows that have one, come back as they are.

    Args:
        data: The data set, or several by name.
        column: Under which the number is found.
    """
    if isinstance(data, dict):
        return {name: add_row_numbers(one, column) for name, one in data.items()}
    if data is None or isinstance(data, IterableDataset) or not hasattr(data, "__len__") or not len(data):
        return data
    first = data[0]
    if not isinstance(first, Mapping) or column in first:
        return data
    if hasattr(data, "add_column"):
        return data.add_column(column, list(range(len(data))))
    return NumberedRows(data, column)
