"""A configuration with every default written out: what a run was, whatever later versions leave as defaults."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import tomli_w

from ._config_models import ExperimentConfig
from ._data_config import Strict
from ._load_config import parse_config
from ._registered_names import find_measures


def format_config(text: str) -> str:
    """Return a configuration as TOML with all keys, those that were left out at their defaults.

    Defaults that follow from other keys, such as the bounds of weights, are stated too.  Keys whose default is to be
    absent, such as ``run_dir``, stay absent, and so do those that mean nothing beside what was given.

    Args:
        text: The configuration, TOML.

    Raises:
        InvalidConfig: It is none.
    """
    config = parse_config(text, "the configuration")
    record: dict[str, Any] = config.model_dump(exclude_none=True)
    _state_dependent_defaults(config, record)
    wanted = copy.deepcopy(record)
    if config.weights.stored is not None:  # stands in place of these
        for name in ("token", "task", "context"):
            del record["weights"][name]
    if config.data.image_size is None:
        del record["data"]["color"]
    if config.data.split is not None:  # a column says it
        del record["data"]["splits"]
    del record["student"]["options" if config.student.kind == "mlp" else "hidden"]
    if config.tighten is not None:
        del record["tighten"]["attempts" if config.tighten.on == "crossfit" else "also"]
    written = tomli_w.dumps(record)
    assert parse_config(written, "the effective configuration").model_dump(exclude_none=True) == wanted
    return written


def _state_dependent_defaults(config: ExperimentConfig, record: dict[str, Any]) -> None:
    """Enter defaults that follow from other keys: the number of teachers, the measure, the way of tightening."""
    from ...training import CrossFit, Tighten

    bounds = dict(zip(("lower", "upper"), config.weights.bounds(len(config.teachers)), strict=True))
    record["weights"] = _add_defaults(config.weights, record["weights"], bounds)
    for place, constraint in enumerate(config.constraints):
        takes = inspect.signature(find_measures()[constraint.measure]).parameters
        settings = {key: takes[key].default for key in ("sharpness", "at") if key in takes}
        numbers = {key: value for key, value in settings.items() if isinstance(value, float)}
        record["constraints"][place] = _add_defaults(constraint, record["constraints"][place], numbers)
    if config.tighten is not None:
        method = CrossFit if config.tighten.on == "crossfit" else Tighten
        known = {field.name: field.default for field in fields(method) if field.name in ("confidence", "rounds")}
        record["tighten"] = _add_defaults(config.tighten, record["tighten"], known)


def _add_defaults(model: Strict, stated: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stated and the defaults of what is not, in the order of the model's keys."""
    every = {**defaults, **stated}
    return {key: every[key] for key in type(model).model_fields if key in every}
