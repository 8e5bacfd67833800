"""Reading a TOML file into a configuration, with errors in the user's own words."""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tomllib
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ...errors import InvalidConfig, InvalidInput
from ...io import read_text_file
from ._config_models import ExperimentConfig
from ._override_keys import override_keys
from ._registered_names import suggest_name
from ._rule_set import RulesConfig

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class FileSettings:
    """What a configuration may be made of; ``tests/safekd/experiment/test_config_limits.py`` would notice.

    Attributes:
        most_bytes: Of a file: rules for a hundred thousand teachers fit, a file of data does not.
        most_parts: Of a dotted key, whose reading takes the square of it.
        most_letters: Of a value that a message shows.
        most_errors: Told of at once.
    """

    most_bytes: int = 8 << 20
    most_parts: int = 1000
    most_letters: int = 200
    most_errors: int = 20


_SETTINGS = FileSettings()
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+"""
_LONG_KEY = re.compile(rf"(?<![\w-])(?:{_PART}){{{_SETTINGS.most_parts}}}")


def load_config(path: str | os.PathLike[str], changes: Sequence[str] = ()) -> tuple[ExperimentConfig, Path]:
    """Return the configuration in a TOML file, and the folder that its relative paths start from.

    Args:
        path: The file.
        changes: ``key=value`` each, over what the file says; see ``override_keys``.

    Raises:
        InvalidConfig: It cannot be read, a key is unknown, or a value not allowed; the message names file, key, what
            was found and what is wanted.
    """
    file = Path(path)
    config = parse_config(override_keys(read_text(file), changes, str(file)), str(file))
    return config, file.parent / (config.folder or "")


def parse_config(text: str, source: str) -> ExperimentConfig:
    """Return the configuration in a TOML text.

    Args:
        text: The text.
        source: What messages call it.

    Raises:
        InvalidConfig: As by ``load_config``.
    """
    return _validate(ExperimentConfig, _parse_toml(text, source), source)


def load_rules(path: str | os.PathLike[str]) -> RulesConfig:
    """Return the rule set in a TOML file.

    Args:
        path: The file.

    Raises:
        InvalidConfig: As by ``load_config``.
    """
    file = Path(path)
    return _validate(RulesConfig, _parse_toml(read_text(file), str(file)), str(file))


def read_rules(rules: Mapping[str, Any], source: str = "rules") -> RulesConfig:
    """Return the rule set that a mapping states.

    Args:
        rules: Keys and values as in a TOML file.
        source: What messages call it.

    Raises:
        InvalidConfig: As by ``load_config``.
    """
    return _validate(RulesConfig, dict(rules), source)


def read_text(file: Path) -> str:
    """Return the text of a configuration file.

    Args:
        file: Its path.

    Raises:
        InvalidConfig: It cannot be read, is no UTF-8 text, or is too large to be a configuration.
    """
    try:
        return read_text_file(file, _SETTINGS.most_bytes)
    except InvalidInput as error:
        hint = " A configuration is a TOML file with a few hundred lines." * ("larger than" in str(error))
        raise InvalidConfig(f"{error}{hint}") from error


def _parse_toml(text: str, source: str) -> dict[str, Any]:
    if _LONG_KEY.search(text):  # which would take the parser minutes
        raise InvalidConfig(f"{source} has a key of {_SETTINGS.most_parts} parts or more; wanted one of a few.")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(f"{source} is not valid TOML: {str(error).rstrip('.')}.") from error
    except RecursionError as error:
        raise InvalidConfig(
            f"{source}: lists or tables stand in each other too deeply; wanted a few levels."
        ) from error
    except (ValueError, OverflowError) as error:  # a date that is none, a number of thousands of digits
        raise InvalidConfig(f"{source} holds a value that cannot be read: {error}.") from error
    _require_64_bits(raw, source)
    return raw


def _require_64_bits(raw: dict[str, Any], source: str) -> None:
    """Refuse whole numbers that TOML has not, however deep they stand; what checks values prints some of them."""
    left: list[tuple[str, Any]] = list(raw.items())
    while left:
        key, value = left.pop()
        if isinstance(value, dict):
            left += [(f"{key}.{name}", inside) for name, inside in value.items()]
        elif isinstance(value, list):
            left += [(f"{key}[{i}]", inside) for i, inside in enumerate(value)]
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            bits = value.bit_length()
            shown = key[: _SETTINGS.most_letters]
            raise InvalidConfig(f"{source}: '{shown}' is a whole number of {bits} bits; wanted at most 64.")


def _validate(root: type[M], raw: dict[str, Any], source: str) -> M:
    try:
        return root.model_validate(raw)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        lines = _explain_all(errors[: _SETTINGS.most_errors], root)
        if len(errors) > _SETTINGS.most_errors:
            lines.append(f"And {len(errors) - _SETTINGS.most_errors:,} more.")
        raise InvalidConfig(f"{source}: " + "\n".join(lines)) from error


def _explain_all(errors: list[ErrorDetails], root: type[BaseModel]) -> list[str]:
    """Return one line a key, also where a value fits none of several kinds; of nested keys, the deepest."""
    keys = [_name_key(details["loc"], root) for details in errors]
    lines = []
    for i, (key, details) in enumerate(zip(keys, errors, strict=True)):
        deeper = any(other.startswith((f"{key}[", f"{key}.")) for other in keys)
        if deeper or key in keys[:i]:
            continue
        if keys.count(key) > 1:
            place = details["loc"]
            if _name_key(place[:-1], root) == key:  # the last step is no key, but one of the kinds that were tried
                place = place[:-1]
            wanted = _say_wanted(_find_model(place[:-1], root), place)
            lines.append(
                f"'{key}' is {_show_value(details['input'])}, which is not of a kind that is allowed there{wanted}."
            )
        else:
            lines.append(_explain(details, root))
    return lines


def _explain(details: ErrorDetails, root: type[BaseModel]) -> str:
    place, kind = details["loc"], details["type"]
    model = _find_model(place[:-1], root)
    key = _name_key(place, root)
    if kind == "extra_forbidden" and model is not None:
        known = list(model.model_fields)
        hint = suggest_name(str(place[-1]), known) or "remove it."
        return f"unknown key '{key}'; {hint} Known keys there: {', '.join(known)}."
    if kind == "missing":
        return f"'{key}' is missing{_say_wanted(model, place)}."
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        kinds = str(details.get("ctx", {}).get("expected_tags", "'stored'"))
        return f"'{key}' needs a `kind`, one of: {kinds}."
    shown = "" if isinstance(details["input"], dict) else f" is {_show_value(details['input'])}"
    message = details["msg"].removeprefix("Value error, ")
    return f"'{key}'{shown}: {message[0].lower()}{message[1:]}{_say_wanted(model, place)}."


def _show_value(value: Any) -> str:
    """Return a value as messages show it, however large it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return "a number of thousands of digits" if isinstance(value, int) else "too large to be shown"
    most = _SETTINGS.most_letters
    return text if len(text) <= most else f"{text[:most]}..."


def _say_wanted(model: type[BaseModel] | None, place: tuple[int | str, ...]) -> str:
    field = model.model_fields.get(str(place[-1])) if model is not None and place else None
    return f" (wanted: {field.description})" if field is not None and field.description else ""


def _name_key(place: tuple[int | str, ...], root: type[BaseModel]) -> str:
    text = ""
    model: Any = root
    for part in place:
        model, known = _descend(model, part)
        if known:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the file"


def _find_model(place: tuple[int | str, ...], root: type[BaseModel]) -> type[BaseModel] | None:
    model: Any = root
    for part in place:
        model, _ = _descend(model, part)
    models = _find_models(model)
    return models[0] if models else None


def _descend(annotation: Any, part: int | str) -> tuple[Any, bool]:
    """Follow one step of an error's place; a union's tag is a step that is no key."""
    for model in _find_models(annotation):
        if isinstance(part, str) and part in model.model_fields:
            return model.model_fields[part].annotation, True
    tagged = [m for m in _find_models(annotation) if part in _find_tags(m)]
    if tagged:
        return tagged[0], False
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict:
        return inside[1], True
    if origin is list and isinstance(part, int):
        return inside[0], True
    kinds = [kind for kind in inside if kind is not types.NoneType]
    if origin in (typing.Union, types.UnionType) and len(kinds) == 1:  # what may be left out is no step of its own
        return _descend(kinds[0], part)
    if origin in (typing.Union, types.UnionType):  # the step names which kind of value was tried
        tried = [kind for kind in inside if str(part).startswith(getattr(kind, "__name__", "?"))]
        if tried:
            return tried[0], False
    return None, isinstance(part, int) or bool(_find_models(annotation))


def _find_models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Annotated, typing.Union, types.UnionType):
        return [model for part in typing.get_args(annotation) for model in _find_models(part)]
    return []


def _find_tags(model: type[BaseModel]) -> tuple[Any, ...]:
    kind = model.model_fields.get("kind")
    return typing.get_args(kind.annotation) if kind is not None else ()
