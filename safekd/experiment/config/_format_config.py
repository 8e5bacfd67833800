"""A configuration with every default written out: what a run was, whatever later versions leave as defaults."""

from __future__ import annotations

from typing import Any

import tomli_w

from ._config_models import ExperimentConfig
from ._load_config import parse_config


def format_config(text: str) -> str:
    """Return a configuration as TOML with all keys, those that were left out at their defaults.

    Keys whose default is to be absent, such as ``run_dir``, stay absent, and so do those that mean nothing beside what
    was given.

    Args:
        text: The configuration, TOML.

    Raises:
        InvalidConfig: It is none.
    """
    config = parse_config(text, "the configuration")
    record: dict[str, Any] = config.model_dump(exclude_none=True)
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
    assert _same(parse_config(written, "the effective configuration"), config)
    return written


def _same(one: ExperimentConfig, other: ExperimentConfig) -> bool:
    return one.model_dump() == other.model_dump()
