"""Parts of a result, from what its folder holds of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import pandas as pd
import torch
from pydantic import TypeAdapter
from torch import nn

from ...data import SeenExamples, SplitUse, StoredSplit
from ...errors import InvalidInput
from ...io import read_table, unguard_cell
from ...io.folders import Manifest
from ...safety import Certificate
from .._mixture import Mixture
from ..trace import TracePoint
from ._student_files import ROUNDS, read_state

T = TypeVar("T")
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
    "peak_weights",
    "multiplier_scales",
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
    multipliers, readings = record["multipliers"], record["readings"]
    point = build_checked(
        TracePoint,
        {
            **record["point"],
            "loss": record["distillation_loss"],
            "readings": readings[: len(multipliers)],
            "validation": readings[len(multipliers) :],
            "multipliers": list(multipliers.values()),
            "residuals": record["residuals"],
        },
    )
    return {
        "multipliers": dict(zip(multipliers, point.multipliers, strict=True)),
        "residuals": point.residuals,
        "point": point,
        "mixture_note": str(record["mixture_note"]),
        "certificates": tuple(build_checked(Certificate, certificate) for certificate in record["certificates"]),
    }


def build_checked(kind: type[T], values: Mapping[str, Any], **given: Any) -> T:
    """Return a record whose fields have the types that its class states.

    Args:
        kind: A dataclass.
        values: Fields by name, as JSON has them.
        given: Other fields, which are right.

    Raises:
        TypeError: One is missing or unknown.
        ValueError: One is of another type.
    """
    hints = get_type_hints(kind)
    return kind(**{name: _find_adapter(hints[name]).validate_python(value) for name, value in values.items()}, **given)


@cache
def _find_adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


def restore_mixture(record: Mapping[str, Any], build: Callable[[str], nn.Module | None]) -> Mixture | None:
    """Return the mixture of a result, None where there was none.

    Args:
        record: What verdict.json holds.
        build: Makes the student of a name.
    """
    kept = record.get("mixture")
    if kept is None:
        return None
    steps, weights = tuple(map(int, kept["weights"])), tuple(map(float, kept["weights"].values()))
    students = tuple(student for student in (build(f"mixture-{step}") for step in steps) if student is not None)
    if not len(students) == len(weights) > 0:
        raise ValueError(f"{len(weights)} students are mixed, and {len(students)} are there")
    safety, multipliers = (
        {str(name): float(value) for name, value in kept[part].items()} for part in ("safety", "multipliers")
    )
    return Mixture(weights, steps, students, float(kept["distillation_loss"]), safety, multipliers)


def restore_uses(records: Sequence[Mapping[str, Any]], manifest: Manifest) -> tuple[SplitUse, ...]:
    """Return which data a result was made with, and for what.

    Args:
        records: As verdict.json has them.
        manifest: Of the folder of the result.
    """
    keys = read_state(manifest, Path(USED_EXAMPLES).stem, {}) or {}
    uses = []
    for number, use in enumerate(records):
        marks = keys[str(number)]
        if marks.dtype not in (torch.int64, torch.uint8) or marks.ndim != 1:
            raise ValueError(f"marks of examples are {marks.dtype} of shape {tuple(marks.shape)}")
        seen = SeenExamples.from_tensor(marks, int(use["examples"]), str(use["sha256"]))
        uses.append(SplitUse(StoredSplit(str(use["split"]), seen), tuple(map(str, use["roles"])), int(use["looks"])))
    return tuple(uses)


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
