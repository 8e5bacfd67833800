"""A frontier's files, read back: every number bit for bit, every column with the type it had."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import InvalidInput

SCHEMA_VERSION = 1
_WORDS = ("run_id", "method", "split", "status")  # a run id of digits alone is no number
_WHOLE = ("schema_version", "seed", "steps")  # 10.0 is written "10", so what is a whole number is said here
_FLAGS = ("feasible", "nondominated")
_NEEDED = (*_WORDS, *_WHOLE, *_FLAGS, "target", "distillation_loss", "rho", "warm_from", "wall_s")


def read(path: str | os.PathLike[str]) -> tuple[pd.DataFrame, str, dict[str, Any]]:
    """Return the table, the name of the constraint that was swept, and the rest of ``.meta.json``."""
    name = os.fspath(path)
    try:
        whole = Path(path).read_bytes().endswith(b"\n")
        table = pd.read_csv(path, dtype=dict.fromkeys(_WORDS, str), keep_default_na=False, na_values=[""])
    except FileNotFoundError as error:
        raise InvalidInput(f"There is no file {name}; check the path.") from error
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{name} is no readable frontier: {str(error).strip()}.") from error
    named = [column.removeprefix("lambda_") for column in table.columns if column.startswith("lambda_")]
    meta = _meta(Path(f"{name}.meta.json"))
    constraint = str(meta.pop("constraint", named[0] if named else "<name>"))
    own = (f"{what}_{constraint}" for what in ("safety", "violation", "lambda", "se"))
    missing = [column for column in (*_NEEDED, *own) if column not in table.columns]
    if missing:
        raise InvalidInput(f"{name} is no frontier: columns {', '.join(missing)} are missing.")
    versions = sorted(table["schema_version"].astype(str).unique())
    if len(table) and versions != [str(SCHEMA_VERSION)]:
        raise InvalidInput(
            f"{name} has schema version {', '.join(versions)}; this release reads version {SCHEMA_VERSION}."
        )
    if not whole or table[[*_FLAGS, "wall_s"]].isna().any(axis=None) or len(table) == 0:
        raise InvalidInput(f"{name} was cut off: {len(table)} rows, the last of them incomplete. Write it again.")
    return _typed(table, name), constraint, meta


def _typed(table: pd.DataFrame, name: str) -> pd.DataFrame:
    for column in table.columns.drop(list(_WORDS)):
        wanted = "bool" if column in _FLAGS else "int64" if column in _WHOLE else "float64"
        found = table[column].dtype
        if found != wanted and not (wanted == "float64" and found == "int64"):
            raise InvalidInput(f"{name}, column '{column}' holds {found}; wanted {wanted} in every row.")
    floats = [column for column in table.select_dtypes("int64").columns if column not in _WHOLE]
    return table.astype(dict.fromkeys(floats, "float64"))


def _meta(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{file} is no readable JSON: {error}. Write the frontier again, or delete it.") from error
    if not isinstance(meta, dict):
        raise InvalidInput(
            f"{file} holds a {type(meta).__name__}; wanted what Frontier.to_csv writes beside its table."
        )
    meta.pop("schema_version", None)
    return meta
