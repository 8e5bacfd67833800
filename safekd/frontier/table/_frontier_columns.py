"""The columns of a frontier: what they hold, in which order they stand, and which rows belong to one slice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...errors import InvalidInput

SCHEMA_VERSION = 1

COLUMNS_DOC = """schema_version, run_id, method ("epsilon" or "mu"); target (the threshold of the swept constraint; of
a mu sweep the safety reached); mu (weight of a mu sweep); held_<name> (threshold of a constraint that is held besides);
seed; distillation_loss (nats, full training split); safety_<name>, violation_<name>, lambda_<name>, se_<name> (standard
error of safety), validation_safety_<name> (the same student on the validation split); rho; the four KKT residuals,
kkt_stationarity, kkt_primal, kkt_dual, kkt_complementarity; split (where the constraint is posed); status; feasible
(violation at most 1e-3); nondominated (among feasible rows of the same seed and held thresholds, of equal ones the
first solved); duplicate (the same point as an earlier one of these, to a millionth of the range);
multiplier_contradicted (lambda is not the trade-off that its neighbors show); warm_from (target whose student was the
start, empty for a cold one); steps; wall_s (empty where times are in the .meta.json); note (what status leaves unsaid).
mu, held_<name>, validation_safety_<name> and note stand only where they say something.  An empty cell is a number that
does not exist."""

WORD, WHOLE, FLAG, NUMBER = "word", "whole", "flag", "number"
_KINDS = {
    **dict.fromkeys(("run_id", "method", "split", "status", "note"), WORD),
    **dict.fromkeys(("schema_version", "seed", "steps"), WHOLE),
    **dict.fromkeys(("feasible", "nondominated", "duplicate", "multiplier_contradicted"), FLAG),
}
_FIRST = ("schema_version", "run_id", "method", "target", "mu")
_KKT = ("kkt_stationarity", "kkt_primal", "kkt_dual", "kkt_complementarity")
_LAST = (
    "split",
    "status",
    "feasible",
    "nondominated",
    "duplicate",
    "multiplier_contradicted",
    "warm_from",
    "steps",
    "wall_s",
)
_NEEDED_OF_EACH = ("safety_", "violation_", "lambda_", "se_")  # of each constraint, named <prefix><name>
_OF_EACH = (*_NEEDED_OF_EACH, "validation_safety_")
_HELD = "held_"
_OPTIONAL = ("mu", "note")

Rows = NDArray[np.intp]


def list_required_columns(constraint: str) -> list[str]:
    """Return the columns that every frontier has, in order."""
    own = [f"{prefix}{constraint}" for prefix in _NEEDED_OF_EACH]
    first = [column for column in _FIRST if column not in _OPTIONAL]
    return [*first, "seed", "distillation_loss", *own, "rho", *_KKT, *_LAST]


def find_column_kind(column: str) -> str | None:
    """Return what the cells of a column are, None for a column that the schema does not know."""
    known = (*_FIRST, "distillation_loss", "rho", *_KKT, *_LAST)
    if column in _KINDS:
        return _KINDS[column]
    return NUMBER if column in known or column.startswith((*_OF_EACH, _HELD)) else None


def find_column_kinds(table: pd.DataFrame) -> dict[str, str]:
    """Return what the cells of each column are; where the schema does not know, as pandas has them."""
    return {column: find_column_kind(column) or _find_kind_of_values(table[column]) for column in table.columns}


def order_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns as they stand in a file: constraints in the order in which they came, unknown ones last."""
    rest = list(dict.fromkeys(columns))
    held = [column for column in rest if column.startswith(_HELD)]
    each = [column for column in rest if column.startswith(_OF_EACH)]
    wanted = [*_FIRST, *held, "seed", "distillation_loss", *each, "rho", *_KKT, *_LAST, "note"]
    return [column for column in wanted if column in rest] + [column for column in rest if column not in wanted]


def list_constraints(table: pd.DataFrame) -> list[str]:
    """Return the names of all constraints."""
    return [column.removeprefix("safety_") for column in table.columns if column.startswith("safety_")]


def split_slices(table: pd.DataFrame, *more: str) -> list[Rows]:
    """Return the rows of each seed and each set of held thresholds (and of each value of ``more``), by position."""
    keys = list_setting_columns(table, *more)
    if not keys or len(table) == 0:
        return [np.arange(len(table))]
    number = table.groupby(keys, sort=True, dropna=False).ngroup().to_numpy()
    return [np.flatnonzero(number == n) for n in range(number.max() + 1)]


def list_setting_columns(table: pd.DataFrame, *more: str) -> list[str]:
    """Return the columns that tell one frontier of a table from another."""
    return [c for c in (*more, *(c for c in table.columns if c.startswith(_HELD)), "seed") if c in table.columns]


def require_columns(columns: Sequence[str], constraint: str, what: str) -> None:
    """Raise InvalidInput where a column is missing, naming it."""
    missing = [column for column in list_required_columns(constraint) if column not in columns]
    if missing:
        raise InvalidInput(f"{what} is no frontier over '{constraint}': columns {', '.join(missing)} are missing.")


def _find_kind_of_values(values: pd.Series[Any]) -> str:
    return {"b": FLAG, "i": WHOLE, "u": WHOLE, "f": NUMBER}.get(values.dtype.kind, WORD)
