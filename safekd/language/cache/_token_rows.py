"""Rows of token numbers, as users have them, as a source: lists of unequal lengths, what a tokenizer gives.

    [[5, 8, 2], [9, 4]]                              lists, arrays or tensors, of one length or not
    {"input_ids": [...], "attention_mask": [...]}    what a tokenizer gives
    datasets.Dataset, [{"input_ids": [...]}, ...]    rows by number; labels as Hugging Face has them

They are padded batch by batch, so that a run which pads otherwise finds its examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from ..._number_checks import is_whole
from ...data import Batch, DatasetSource, ExampleSource, Fields, as_source
from ...errors import InvalidInput
from ..teachers import TokenBatches
from ..teachers.tokens import read_token_list

_IDS = "input_ids"
_READ = (_IDS, "attention_mask", "labels", "index", "numbers")  # what a teacher's answer, or its place, depends on


@dataclass(frozen=True)
class TokenRows:
    """Rows with a length and items 0, 1, ..., each a dictionary of token lists.

    Attributes:
        size: How many.
        read: Gives one.
    """

    size: int
    read: Callable[[int], Mapping[str, Any]]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> dict[str, Any]:
        if not 0 <= number < self.size:
            raise IndexError(number)
        row = self.read(number)
        if _IDS not in row:
            raise InvalidInput(
                f"Row {number} has the columns {sorted(row)}; wanted {_IDS!r} among them, as others have."
            )
        kept = {name: row[name] for name in _READ if row.get(name) is not None}
        return {**kept, _IDS: read_token_list(row[_IDS], f"Row {number}: {_IDS}")}


def as_token_source(source: Any, name: str, fields: Fields | None, shift: bool) -> ExampleSource:
    """Return data as a source of token sequences.

    Args:
        source: Rows of token numbers, or what ``as_source`` takes.
        name: What messages call it.
        fields: As for ``as_source``; where given, the source is no rows of token numbers.
        shift: Whether the label of a position is the token after it.

    Raises:
        InvalidInput: It is texts, or none of these.
    """
    rows = find_token_rows(source, name) if fields is None else None
    if rows is None:
        return as_source(source, name, fields)
    return DatasetSource(name, rows, collate=TokenBatches(shift=shift))


def find_token_rows(source: Any, name: str) -> TokenRows | None:
    """Return rows of token numbers; None where the source has another form.

    Args:
        source: Any.
        name: What messages call it.

    Raises:
        InvalidInput: It is texts, or it is empty.
    """
    if isinstance(source, (ExampleSource, Batch, DataLoader, tuple)):
        return None
    if isinstance(source, (str, bytes)):
        raise _refuse_texts(name)
    if isinstance(source, Mapping):
        columns = dict(source)
        if _IDS not in columns:
            return None
        sizes = {column: len(value) for column, value in columns.items() if column in _READ}
        if len(set(sizes.values())) > 1:
            raise InvalidInput(f"The columns of `{name}` have {sizes} rows; wanted as many each.")
        return TokenRows(sizes[_IDS], lambda n: {column: columns[column][n] for column in sizes})
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        return None
    if not len(source):
        raise InvalidInput(f"`{name}` is empty; wanted at least one row of token numbers.")
    return _find_rows_by_number(source, name)


def _find_rows_by_number(source: Any, name: str) -> TokenRows | None:
    try:
        first = source[0]
    except LookupError:  # something with keys
        return None
    if isinstance(first, str):
        raise _refuse_texts(name)
    if isinstance(first, Mapping):
        if _IDS in first:
            return TokenRows(len(source), lambda n: source[n])
        if "inputs" not in first and any(isinstance(value, str) for value in first.values()):
            raise _refuse_texts(name, sorted(map(str, first)))
        return None
    return TokenRows(len(source), lambda n: {_IDS: source[n]}) if _is_token_list(first) else None


def _is_token_list(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 1 and not value.is_floating_point()
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and np.issubdtype(value.dtype, np.integer)
    return isinstance(value, Sequence) and len(value) > 0 and all(map(is_whole, value))


def _refuse_texts(name: str, columns: Sequence[str] = ()) -> InvalidInput:
    found = f"has the columns {list(columns)}, and 'input_ids' is not among them" if columns else "is text"
    return InvalidInput(
        f"`{name}` {found}; wanted token numbers. Turn text into them as the run does that will read the cache: "
        "kd.language.as_text_source(texts, tokenizer, length=512)."
    )
