"""Parts of a result, from what its folder holds of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from solvers.kkt import KKTResiduals

from ...data import SeenExamples, SplitUse, StoredSplit
from ...errors import InvalidInput
from ...io import read_table, unguard_cell
from ...safety import Certificate
from .._mixture import Mixture
from ..trace import ConstraintReading, Memory, TracePoint
from ._student_files import ROUNDS, read_state

USED_EXAMPLES = "used_examples.safetensors"
POINT_FIELDS = (
    "step",
    "epoch",
    "rho",
    "gradient_norm",
    "wall_s",
    "validation_loss",
    "loss_se",
    "constraint_gradient_norms",
    "capped",
    "running",
    "sampled",
    "stationarity_se",
    "clipped_steps",
    "skipped_steps",
)  # of a trace point: what verdict.json has nowhere else


def restore_numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a result that verdict.json alone holds.

    Args:
        record: What it holds.
    """
    readings = [ConstraintReading(**reading) for reading in record["readings"]]
    count, residuals = len(record["multipliers"]), KKTResiduals(**record["residuals"])
    point = TracePoint(
        **{**record["point"], "memory": Memory(**record["point"]["memory"])},
        loss=record["distillation_loss"],
        readings=readings[:count],
        validation=readings[count:],
        multipliers=list(record["multipliers"].values()),
        residuals=residuals,
    )
    return {
        "multipliers": record["multipliers"],
        "residuals": residuals,
        "point": point,
        "mixture_note": record["mixture_note"],
        "certificates": tuple(Certificate(**certificate) for certificate in record["certificates"]),
    }


def restore_mixture(record: Mapping[str, Any], build: Callable[[str], nn.Module | None]) -> Mixture | None:
    """Return the mixture of a result, None where there was none.

    Args:
        record: What verdict.json holds.
        build: Makes the student of a name.
    """
    kept = record.get("mixture")
    if kept is None:
        return None
    students = [build(f"mixture-{step}") for step in kept["weights"]]
    return Mixture(
        weights=tuple(kept["weights"].values()),
        steps=tuple(map(int, kept["weights"])),
        students=tuple(student for student in students if student is not None),
        loss=kept["distillation_loss"],
        safety=kept["safety"],
        multipliers=kept["multipliers"],
    )


def restore_uses(records: Sequence[Mapping[str, Any]], place: Path) -> tuple[SplitUse, ...]:
    """Return which data a result was made with, and for what.

    Args:
        records: As verdict.json has them.
        place: Folder of the result.
    """
    keys = read_state(place, Path(USED_EXAMPLES).stem, {}) or {}
    return tuple(
        SplitUse(
            StoredSplit(use["split"], SeenExamples.from_tensor(keys[str(number)], use["examples"], use["sha256"])),
            tuple(use["roles"]),
            use["looks"],
        )
        for number, use in enumerate(records)
    )


def read_rounds(place: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return the rounds in which thresholds were raised, each column of the type it had.

    Args:
        place: Folder of the result.
        columns: Their names.

    Raises:
        InvalidInput: The table is not what was written.
    """
    text = read_table(place / ROUNDS)
    kinds: dict[str, Callable[[str], Any]] = {
        **dict.fromkeys(("round", "cases", "looks", "steps"), int),
        **dict.fromkeys(("cleared", "kept"), {"True": True, "False": False}.__getitem__),
        **dict.fromkeys(("constraint", "status"), unguard_cell),
    }
    try:
        return pd.DataFrame({name: [kinds.get(name, _read_number)(cell) for cell in text[name]] for name in columns})
    except (KeyError, ValueError) as error:
        raise InvalidInput(f"{place / ROUNDS} is not what was written there: {error}.") from error


def _read_number(cell: str) -> float:
    return float(cell or "nan")
