"""What users have, tensors, arrays, lists, columns of tables and text, as the tensors of a Split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._number_checks import is_whole
from ..errors import InvalidInput
from ._group_names import find_name

IGNORED = -100  # the label of a position that does not count, as torch's cross_entropy has it


def read_tensor(values: Any, what: str, split: str) -> Tensor:
    """Return numbers as a tensor; a tensor is handed back as it is, the dtype of an array stays.

    Args:
        values: A tensor, an array, a column or table of pandas, or a list.
        what: Which part of the split it is, for messages.
        split: Name of the split.

    Raises:
        InvalidInput: It holds no numbers, or rows of several lengths.
    """
    if isinstance(values, Tensor):
        return values
    if hasattr(values, "__array__") or isinstance(values, (list, tuple, range)):
        try:
            if len(values) and all(isinstance(row, Tensor) for row in values):
                return torch.stack(list(values))
            if hasattr(values, "__array__") or any(hasattr(row, "__array__") for row in values):
                return torch.from_numpy(np.require(np.asarray(values), requirements=["C", "W"]))
            return torch.tensor(values)  # float32 for numbers of Python, as torch has it
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidInput(
                f"Split '{split}': {what} cannot be made a tensor ({error}); wanted numbers, rows all of one length."
            ) from error
    raise InvalidInput(
        f"Split '{split}': {what} is a {type(values).__name__}; wanted a tensor, an array or a list of numbers."
    )


def read_named_numbers(values: Any, names: Sequence[str], what: str, split: str) -> tuple[Tensor, tuple[str, ...]]:
    """Return whole numbers, and the names of what they number; text becomes numbers by the names, -100 stays.

    Args:
        values: Numbers or names, one a row or position.
        names: What the numbers are called, in order; empty where text is to be numbered in the order of the alphabet.
        what: Which part of the split it is: "labels".
        split: Name of the split.

    Raises:
        InvalidInput: A name is unknown or missing, or names are given twice.
    """
    known = read_group_names(names, what, split)
    array = None if isinstance(values, Tensor) else _find_text(values)
    if array is None:
        return read_tensor(values, what, split), known
    flat = array.reshape(-1).tolist()
    for row, value in enumerate(flat):
        if not isinstance(value, str) and not _is_ignored(value, what):
            raise InvalidInput(
                f"Split '{split}': {what} holds names, but {value!r} at place {row}; fill it in or drop that row."
            )
    known = known or tuple(sorted({name for name in flat if isinstance(name, str)}))
    place: dict[Any, int] = {name: number for number, name in enumerate(known)}
    place |= {IGNORED: IGNORED}
    numbers = [place[v] if v in place else find_name(v, known, "name", f"the names of the {what}") for v in flat]
    return torch.tensor(numbers, dtype=torch.long).reshape(array.shape), known


def read_group_names(names: Sequence[str], what: str, split: str) -> tuple[str, ...]:
    """Return names as a tuple.

    Args:
        names: Text, all different.
        what: What they name: "labels".
        split: Name of the split.

    Raises:
        InvalidInput: One is no text, or two are alike.
    """
    listed = getattr(names, "ndim", 1) and isinstance(names, Iterable) and not isinstance(names, str)
    if not listed or not all(isinstance(name, str) for name in names):
        raise InvalidInput(f"Split '{split}': the names of the {what} are {names!r}; wanted a list of text.")
    known = tuple(str(name) for name in names)
    if len(set(known)) < len(known):
        twice = next(name for name in known if known.count(name) > 1)
        raise InvalidInput(f"Split '{split}': two of the names of the {what} are '{twice}'; wanted all different.")
    return known


def stack_values(values: Sequence[Any], what: str, name: str) -> Any:
    """Return the values of single examples as one tensor, or a dictionary of tensors; names as they are.

    Args:
        values: Tensors, arrays, numbers, text or dictionaries of these, one an example.
        what: Which part of the split they are.
        name: Of the split.

    Raises:
        InvalidInput: They have several shapes, or are no numbers.
    """
    if all(isinstance(value, str) for value in values):
        return list(values)
    if all(isinstance(value, Mapping) and set(value) == set(values[0]) for value in values):
        return {key: stack_values([value[key] for value in values], f"{what}['{key}']", name) for key in values[0]}
    try:
        return torch.stack([torch.as_tensor(value) for value in values])
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"The {what} of `{name}` cannot be stacked into one tensor ({error}); "
            f"let the dataset give tensors or numbers of one shape, or pad them: kd.data.DatasetSource('{name}', data, "
            "collate=...)."
        ) from error


def _is_ignored(value: Any, what: str) -> bool:
    return what == "labels" and is_whole(value) and value == IGNORED


def _find_text(values: Any) -> Any:
    """Return values as an array of objects where some are text, else None."""
    try:
        array = np.asarray(values)
    except ValueError:
        return None  # rows of several lengths, of which ``read_tensor`` speaks
    if array.dtype.kind in "US":
        return np.asarray(values, dtype=object)
    return array if array.dtype.kind == "O" and any(isinstance(v, str) for v in array.reshape(-1)) else None
