"""Keys of a configuration that a command line sets: ``training.epochs=500`` over what the file says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tomli_w
import tomllib

from ...errors import InvalidConfig


def override_keys(text: str, changes: Sequence[str], source: str) -> str:
    """Return a configuration with other values for some keys; without changes the text as it is.

    Args:
        text: The configuration, TOML.
        changes: ``key=value`` each; the key with dots, a number for a place in a list (``constraints.0.at_least``), the
            value as TOML has it; what is none is text.
        source: What messages call the file.

    Raises:
        InvalidConfig: A change is no ``key=value``, or its key leads nowhere.
    """
    if not changes:
        return text
    try:
        record = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return text  # whoever parses it says what is wrong
    for change in changes:
        key, sign, value = change.partition("=")
        if not sign or not all(part.strip() for part in key.split(".")):
            raise InvalidConfig(f"--set {change}: wanted KEY=VALUE, such as training.epochs=500.")
        _set_value(record, [part.strip() for part in key.split(".")], _parse_value(value.strip()), change, source)
    return tomli_w.dumps(record)


def _set_value(record: dict[str, Any], parts: list[str], value: Any, change: str, source: str) -> None:
    place: Any = record
    for part in parts[:-1]:
        if isinstance(place, list):
            place = place[_find_place(place, part, change, source)]
        elif isinstance(place, dict):
            place = place.setdefault(part, {})
        if not isinstance(place, (dict, list)):
            raise InvalidConfig(f"--set {change}: '{part}' is a value in {source}, which has no keys of its own.")
    if isinstance(place, list):
        place[_find_place(place, parts[-1], change, source)] = value
    else:
        place[parts[-1]] = value


def _find_place(values: list[Any], part: str, change: str, source: str) -> int:
    if not (part.isascii() and part.isdigit() and int(part) < len(values)):
        raise InvalidConfig(
            f"--set {change}: '{part}' is no place in a list of {len(values)} in {source}; "
            f"wanted 0 to {len(values) - 1}."
        )
    return int(part)


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return text
