"""What users have as data, as a Split: tensors, dictionaries, torch datasets.

What is ambiguous is asked for by name: of two nameless tensors the second are the labels, of three nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInput
from ._column_values import stack_values
from ._group_names import find_name
from ._inputs import list_inputs
from ._split import Split

Fields = Sequence[str | None] | Mapping[str, Any]
_EXAMPLE_FIELDS = ("inputs", "labels", "mask", "task", "context", "cluster", "numbers")
SOURCE_FIELDS = (*_EXAMPLE_FIELDS, "index")  # of a source that is read as it is needed
_NAME_FIELDS = ("class_names", "context_names", "task_names")
_INPUT = "inputs."  # begins the name of a part of a dictionary of inputs
_HOW = (
    'fields=("inputs", "labels"), with None for a part to leave out, a dictionary {"inputs": ..., "labels": ...}, or '
    "kd.Split(name, inputs=..., labels=...)"
)
_MASK = (
    'One that the student needs is a part of its inputs: fields=("inputs.ids", "inputs.attention_mask", "labels"), and '
    "the student gets ids= and attention_mask=. One of the positions that count is called 'mask', and one that nobody "
    "needs is left out, None in `fields`"
)


def as_split(data: Any, name: str, fields: Fields | None = None) -> Split:
    """Return data as a Split.

    Args:
        data: A Split; a pair (inputs, labels) of tensors or arrays; a dictionary with the names of a Split's parts; or
            a torch dataset whose items are such pairs or dictionaries.
        name: Name of the split, where the data have none.
        fields: What the parts are, where there are more than two or they have other names: in order, such as
            ``("inputs", None, "labels")`` with None for one to leave out, or by name, such as ``{"inputs": "pixels",
            "labels": "digit"}``.  The parts of a Split are inputs, labels, mask, task, context, cluster and numbers.
            ``"inputs.ids"`` is the part ``ids`` of a dictionary of inputs; by name ``{"inputs": ["ids", "types"]}`` is
            a dictionary of these two.

    Returns:
        The split.

    Raises:
        InvalidInput: It is none of these, or it is not clear which part is what; the message says what was given.
    """
    if isinstance(data, Split):
        return data
    parts, names = _read_parts(data, name)
    if parts is None:
        raise InvalidInput(
            f"`{name}` is a {type(data).__name__}; wanted a kd.Split, tensors (inputs, labels), a dictionary "
            '{"inputs": ..., "labels": ...}, or a torch dataset whose items are such tuples or dictionaries (for a '
            "DataLoader pass its .dataset)."
        )
    return Split(name, **name_parts(parts, names, name, fields))


def move_split(data: Any, name: str, device: torch.device, fields: Fields | None = None) -> Split:
    """Return data on a device; the same Split if it is there already, since targets are kept by Split.

    Args:
        data: What ``as_split`` takes.
        name: Name of the split, where the data have none.
        device: Where its tensors go.
        fields: As for ``as_split``.

    Returns:
        The split.

    Raises:
        InvalidInput: As by ``as_split``.
    """
    split = as_split(data, name, fields)
    others = [value for value in vars(split).values() if isinstance(value, Tensor)]
    tensors = [*list_inputs(split.inputs), *others]
    at_home = all(value.to(device) is value for value in tensors)
    return split if at_home else split.to(device)


def _read_parts(data: Any, name: str) -> tuple[list[Any] | None, list[str] | None]:
    """Return the columns of data, and their names where they have any; None for what is no data."""
    if isinstance(data, Mapping):
        return list(data.values()), [str(key) for key in data]
    if isinstance(data, tuple):
        kinds = (Tensor, list, Mapping)
        usable = len(data) > 1 and all(isinstance(part, kinds) or hasattr(part, "__array__") for part in data)
        return (list(data) if usable else None), None
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")) or isinstance(data, (Tensor, str, list)):
        return None, None
    if hasattr(data, "__array__"):  # an array, or a table of columns
        return None, None
    try:
        items = [data[i] for i in range(len(data))]
    except LookupError:  # something with keys, which has no item 0
        return None, None
    if items and all(isinstance(item, Mapping) and list(item) == list(items[0]) for item in items):
        keys = list(items[0])
        return [stack_values([item[key] for item in items], str(key), name) for key in keys], [str(key) for key in keys]
    if items and all(isinstance(item, tuple) and 2 <= len(item) == len(items[0]) for item in items):
        wanted = ("inputs", "labels") if len(items[0]) == 2 else [f"part {i + 1}" for i in range(len(items[0]))]
        columns = zip(zip(*items, strict=True), wanted, strict=True)
        return [stack_values(column, what, name) for column, what in columns], None
    return None, None


def name_parts(
    parts: Sequence[Any],
    names: Sequence[str] | None,
    name: str,
    fields: Fields | None,
    known: Sequence[str] = _EXAMPLE_FIELDS,
) -> dict[str, Any]:
    """Return the parts of data by the names that a Split has for them.

    Args:
        parts: In order.
        names: What the data call them; None where they have no names.
        name: Of the data, for messages.
        fields: As for ``as_split``.
        known: The names that are wanted.

    Raises:
        InvalidInput: It is not clear which part is what.
    """
    if isinstance(fields, Mapping):
        return _pick_by_name(parts, names, name, fields, known)
    if fields is not None:
        return _pick_in_order(parts, names, name, fields, known)
    if names is None:
        if len(parts) > 2:
            shapes = ", ".join(str(tuple(getattr(part, "shape", ()))) for part in parts)
            raise InvalidInput(
                f"`{name}` has {len(parts)} parts without names, of shapes {shapes}; which are the labels is not "
                f"clear. Name them: {_HOW}."
            )
        _require_no_mask(parts[0], parts[1], name)
        names = ("inputs", "labels")
    given = dict(zip(names, parts, strict=True))
    _require_fields(given, name, (*known, *(_NAME_FIELDS if known is _EXAMPLE_FIELDS else ())))
    return _gather_inputs(given)


def _pick_by_name(
    parts: Sequence[Any], names: Sequence[str] | None, name: str, fields: Mapping[str, Any], known: Sequence[str]
) -> dict[str, Any]:
    if names is None:
        raise InvalidInput(f"`fields` is a dictionary, but the parts of `{name}` have no names; give them in order.")
    _require_fields(fields, name, known)

    def find(key: Any) -> Any:
        return parts[find_name(str(key), names, "part", f"`{name}`")]

    several = {
        what: {
            str(key): find(part)
            for key, part in (keys.items() if isinstance(keys, Mapping) else zip(keys, keys, strict=True))
        }
        for what, keys in fields.items()
        if what == "inputs" and isinstance(keys, (list, tuple, Mapping))
    }
    return _gather_inputs({what: several[what] if what in several else find(key) for what, key in fields.items()})


def _pick_in_order(
    parts: Sequence[Any],
    names: Sequence[str] | None,
    name: str,
    fields: Sequence[str | None],
    known: Sequence[str],
) -> dict[str, Any]:
    if names is not None:
        raise InvalidInput(
            f"The parts of `{name}` have names, {', '.join(map(repr, names))}, and `fields` is in order; give it by "
            "name: fields={'inputs': ..., 'labels': ...}."
        )
    chosen = [what for what in fields if what is not None]
    if isinstance(fields, str) or len(fields) != len(parts):
        count = 1 if isinstance(fields, str) else len(fields)
        raise InvalidInput(
            f"`fields` names {count} of the {len(parts)} parts of `{name}`; wanted one name a part, None to leave one "
            "out."
        )
    if len(set(chosen)) < len(chosen):
        raise InvalidInput(f"`fields` is {tuple(fields)!r}; wanted each name once.")
    given = {what: part for what, part in zip(fields, parts, strict=True) if what is not None}
    _require_fields(given, name, known)
    return _gather_inputs(given)


def _gather_inputs(given: Mapping[str, Any]) -> dict[str, Any]:
    """Put parts ``inputs.NAME`` together as one dictionary of inputs."""
    inputs = {what.removeprefix(_INPUT): part for what, part in given.items() if what.startswith(_INPUT)}
    others = {what: part for what, part in given.items() if not what.startswith(_INPUT)}
    return {"inputs": inputs, **others} if inputs else others


def _require_fields(given: Mapping[str, Any], name: str, known: Sequence[str]) -> None:
    inside = [what for what in given if str(what).startswith(_INPUT)]
    if inside and "inputs" in given:
        raise InvalidInput(f"`{name}` has parts 'inputs' and '{inside[0]}'; wanted one tensor of inputs, or several.")
    for what in given:
        if what in known or what in inside:
            continue
        if "mask" in str(what):
            raise InvalidInput(f"`{name}` has a part '{what}', and it is not clear what it masks. {_MASK}.")
        find_name(str(what), known, "part", "a Split (for parts of other names: fields={'inputs': ..., 'labels': ...})")
    if missing := [what for what in ("inputs", "labels") if what not in given and not (inside and what == "inputs")]:
        raise InvalidInput(f"`{name}` has no {missing[0]}; it has {', '.join(map(repr, given))}. Wanted {_HOW}.")


def _require_no_mask(inputs: Any, labels: Any, name: str) -> None:
    """Refuse labels that look like the mask of token numbers, which they may be: zeros and ones of the same shape."""
    if not (isinstance(inputs, Tensor) and isinstance(labels, Tensor)):
        return
    tokens = labels.ndim > 1 and labels.shape == inputs.shape and not inputs.is_floating_point()
    if tokens and bool(((labels == 0) | (labels == 1)).all()):
        raise InvalidInput(
            f"`{name}`: the second part is 0 or 1 everywhere and of the inputs' shape {tuple(labels.shape)}, as an "
            f"attention mask is; if these are labels, say so: {_HOW}."
        )
