"""The keys of docs/experiment_files.md, written from the models that check them.

    python -m tests.support.config_page         # rewrites the keys; a test says when they are out of date

What stands above the first marker is written by hand.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tomli_w
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from safekd.divergences import DIVERGENCES
from safekd.experiment._registries import find_rules
from safekd.experiment.config import ExperimentConfig, RulesConfig
from safekd.experiment.students import list_students
from safekd.pooling import POOLS
from safekd.safety import MEASURES
from solvers.primal_dual import DUAL_METHODS

from .. import ROOT

PAGE = ROOT / "docs" / "experiment_files.md"
_BEGIN, _END = "<!-- keys, written by `python -m tests.support.config_page` -->\n", "<!-- end of keys -->\n"
_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def write_keys() -> str:
    """Return one section a table of an experiment file, then the names that it can use, then rule sets."""
    parts = [
        "## All keys\n",
        *_write_model(ExperimentConfig, "", "Of the whole file, above its first table."),
        _write_names(),
    ]
    parts += ["## Rule sets for weights in files\n", "Read by `safekd project --rules` and `safekd audit --rules`.\n"]
    parts += _write_model(RulesConfig, "", "Of the whole file, above its first table.", of_rules=True)
    return "\n".join(parts)


def _write_model(model: type[BaseModel], name: str, about: str | None = None, of_rules: bool = False) -> Iterator[str]:
    """Yield the section of a model's own keys, then those of the tables in it."""
    title = {"": "Rule set" if of_rules else "Experiment"}.get(name, f"`{name}`")
    kinds = typing.get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()
    if kinds:
        title += f" of kind {', '.join(f'`{kind}`' for kind in kinds)}"
    rows = ["| key | type | left out | meaning |", "|---|---|---|---|"]
    inner: list[tuple[type[BaseModel], str]] = []
    for key, field in model.model_fields.items():
        cells = (f"`{key}`", _name_type(field.annotation), _show_default(field), _escape(field.description or ""))
        rows.append(f"| {' | '.join(cells)} |")
        plain = name.strip("[]")
        for found, in_list in _find_models(field.annotation):
            place = f"{plain}.{key}" if plain else key
            inner.append((found, f"[[{place}]]" if in_list else f"[{place}]"))
    text = (about or model.__doc__ or "").replace("``", "`")
    yield f"### {title}\n\n{text}\n\n" + "\n".join(rows) + "\n"
    for found, place in inner:
        yield from _write_model(found, place, of_rules=of_rules)


def _find_models(annotation: Any, in_list: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    """Yield the models in a type, and whether they are in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, in_list
        return
    inside = in_list or typing.get_origin(annotation) is list
    for part in typing.get_args(annotation):
        yield from _find_models(part, inside)


def _name_type(annotation: Any) -> str:
    """Return what stands behind the equals sign, in words."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _TYPES:
        return _TYPES[annotation]
    if origin is typing.Annotated:
        return _name_type(inside[0])
    if origin is typing.Literal:
        return " or ".join(f'`"{value}"`' for value in inside)
    if origin in (typing.Union, types.UnionType):
        if set(_TYPES) <= set(inside):
            return "value"
        named = [_name_type(part) for part in inside if part is not types.NoneType]
        return " or ".join(dict.fromkeys(named))
    if origin is list:
        models = [model for model, _ in _find_models(inside[0])]
        return "tables" if models else f"list of {_name_type(inside[0])}s"
    if origin is dict:
        return f"table: name = {_name_type(inside[1])}"
    assert issubclass(annotation, BaseModel), annotation
    return "table"


def _show_default(field: FieldInfo) -> str:
    if field.is_required():
        return "**wanted**"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return "its defaults"
    if default is None:
        return ""
    if isinstance(default, list):
        return f"`{_escape(json.dumps(default))}`"
    return "`{}`" if default == {} else f"`{_escape(tomli_w.dumps({'x': default}).removeprefix('x = '))}`"


def _write_names() -> str:
    """Return what can be named: what is entered by safekd itself, whatever else this process has registered."""
    known: dict[str, Mapping[str, Callable[..., Any]]] = {
        "`constraints.measure`": MEASURES,
        "`weights.token`": find_rules("token"),
        "`weights.task`": find_rules("task"),
        "`weights.context`": find_rules("context"),
        "`weights.pool`": POOLS,
        "`training.divergence`": DIVERGENCES,
        "`training.dual`": DUAL_METHODS,
    }
    rows = ["## Names\n", "| key | names |", "|---|---|"]
    for key, registry in known.items():
        own = [name for name, entry in registry.items() if entry.__module__.partition(".")[0] in ("safekd", "solvers")]
        rows.append(f"| {key} | {', '.join(f'`{name}`' for name in sorted(own))} |")
    students = sorted(name for name, brought in list_students().items() if brought == "safekd")
    rows.append(f"| `student.kind` | {', '.join(f'`{name}`' for name in students)}, and those of packages |")
    return "\n".join(rows) + "\n"


def _escape(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def replace_keys(page: str) -> str:
    """Return the page with the keys as they are now."""
    before, _, rest = page.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{write_keys()}\n{_END}{rest.partition(_END)[2]}"
