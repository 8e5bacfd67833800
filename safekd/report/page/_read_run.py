"""What a run folder holds for a report; every file is checked against the manifest first.  Axes: N rows, K teachers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from solvers.short_repr import ShortRepr

from ...errors import InvalidInput
from ...frontier.table import read_frontier
from ...io import FILE_LIMITS, parse_numbers, read_table, read_text_file, refuse_misfit, unguard_cell
from ...io.folders import MANIFEST, Manifest, finish_replacement, hash_file, read_manifest
from ...safety import Certificate
from ...saved_students import EFFECTIVE_CONFIG, REPORT_FACTS, STUDENT_SPEC, WEIGHTS, ReportFacts, StudentSpec
from ...training import RUN, Tightening, Verdict, build_checked, restore_tightening
from ...training.result_files import TRACE_LINES, VERDICT, restore_numbers, restore_uses
from ...training.trace import TracePoint, read_trace

FRONTIER = "frontier.csv"


@dataclass(frozen=True, repr=False)
class WeightRows(ShortRepr):
    """Weights of training examples, as ``weights.csv`` has them.

    Attributes:
        teachers: Their names, (K,).
        contexts: Of each row, (N,).
        moved: How far projection moved each row, (N,).
        raw: Before, (N, K).
        conforming: After, (N, K).
    """

    teachers: Sequence[str]
    contexts: Sequence[str]
    moved: NDArray[np.float64]
    raw: NDArray[np.float64]
    conforming: NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class ReportedRun(ShortRepr):
    """A run as its folder has it; what a run of a module of the user's own lacks is None or empty.

    Attributes:
        folder: Where it lies.
        name: What the page calls it.
        sha256: Of its manifest, which has the hash of every other file.
        files: Size and hash of each, by name.
        verdict: How it ended.
        point: Its last trace point.
        multipliers: By constraint.
        certificates: What was certified.
        trace: One row a trace point.
        tightening: How thresholds were raised; None where they were not.
        data: Which splits it used, and for what.
        spec: Features, classes, versions.
        facts: Safety by context and split, teachers, axioms.
        weights: Of training examples.
        frontier: Its table and the name of the constraint that was swept.
        config: The configuration with every default.
    """

    folder: Path
    name: str
    sha256: str
    files: Mapping[str, Mapping[str, Any]]
    verdict: Verdict
    point: TracePoint
    multipliers: Mapping[str, float]
    certificates: Sequence[Certificate]
    trace: pd.DataFrame
    tightening: Tightening | None
    data: Sequence[Mapping[str, Any]]
    spec: StudentSpec | None
    facts: ReportFacts | None
    weights: WeightRows | None
    frontier: tuple[pd.DataFrame, str] | None
    config: str


def read_run(folder: str | os.PathLike[str], name: str) -> ReportedRun:
    """Return what a run folder holds.

    Args:
        folder: Of ``safekd train``, ``safekd demo``, ``fit(run_dir=)`` or ``FitResult.save``.
        name: What the page calls it.

    Raises:
        InvalidInput: It holds no finished run, or a file was changed.
    """
    place = Path(folder)
    finish_replacement(place)
    manifest = read_manifest(place, RUN)
    manifest.require_whole()
    with refuse_misfit(place / VERDICT, "what a run writes there"):
        record = json.loads(read_text_file(place / VERDICT))
        verdict = {key: record[key] for key in ("status", "message", "next_move", "evidence")}
        numbers = restore_numbers(record)
        parts: dict[str, Any] = {key: numbers[key] for key in ("point", "multipliers", "certificates")}
        parts["verdict"] = build_checked(Verdict, verdict)
        raised = record.get("tightening")
        parts["tightening"] = None if raised is None else restore_tightening(raised, place)
        parts["data"] = [use.record() for use in restore_uses(record["data"], manifest)]
    listed = manifest.files
    spec = StudentSpec.load(place) if STUDENT_SPEC in listed else None
    return ReportedRun(
        folder=place,
        name=name,
        sha256=hash_file(place / MANIFEST)["sha256"],
        files=manifest.files,
        trace=read_trace(place / TRACE_LINES),
        spec=spec,
        facts=ReportFacts.load(place) if REPORT_FACTS in listed else None,
        weights=None if spec is None or WEIGHTS not in listed else _read_weight_rows(place / WEIGHTS, spec.teachers),
        frontier=read_frontier(place / FRONTIER)[:2] if FRONTIER in listed else None,
        config=_read_config(manifest),
        **parts,
    )


def _read_config(manifest: Manifest) -> str:
    known = EFFECTIVE_CONFIG in manifest.files
    return read_text_file(manifest.folder / EFFECTIVE_CONFIG) if known else ""


def _read_weight_rows(file: Path, teachers: Sequence[str]) -> WeightRows:
    if file.stat().st_size > FILE_LIMITS.table_bytes:
        raise InvalidInput(f"{file} is larger than {FILE_LIMITS.table_bytes:,} bytes; no run writes that much there.")
    table = read_table(file).rename(columns=unguard_cell)
    raw, conforming = ([f"{what}: {name}" for name in teachers] for what in ("raw", "weight"))
    wanted = ["context", "moved", *raw, *conforming]
    if missing := [name for name in wanted if name not in table.columns]:
        raise InvalidInput(f"{file} is not what a run writes there: column '{missing[0]}' is missing.")
    if not len(table):
        raise InvalidInput(f"{file} is not what a run writes there: it has no rows.")
    contexts = [str(unguard_cell(cell)) for cell in table["context"]]
    moved_N1 = parse_numbers(table[["moved"]], file)
    return WeightRows(
        teachers,
        contexts,
        moved_N1[:, 0],
        parse_numbers(table[raw], file),
        parse_numbers(table[conforming], file),
    )
