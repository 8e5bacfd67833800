"""What a run leaves on disk: plain tables, plain JSON, and parameters that cannot carry code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...io import write_atomically, write_csv
from .._fit_result import FitResult
from ..trace import write_jsonl

TRACE_LINES = "trace.jsonl"
_RULE_FILE = "weighting_rule"


def save_run(result: FitResult, run_dir: str | os.PathLike[str]) -> list[Path]:
    """Write everything that is known of a run to a folder.

    The trace as trace.csv and trace.jsonl, student.safetensors, and verdict.json with the evidence.  Besides,
    weighting_rule.safetensors where the weighting rule has a state, tightening.csv where thresholds were raised, one
    row a round and constraint, and mixture-STEP.safetensors for each student of a mixture, whose weights stand in
    verdict.json.  Each file appears whole or not at all.

    Args:
        result: Of ``fit``.
        run_dir: The folder; files of an earlier run in it are replaced.

    Returns:
        The paths of the files.
    """
    folder = Path(run_dir)
    write_csv(result.trace, folder / "trace.csv")
    write_jsonl(result.trace.to_dict("records"), folder / TRACE_LINES)
    tensors = {"student": result.student.state_dict()} | ({_RULE_FILE: result.rule_state} if result.rule_state else {})
    mixture = result.mixture
    if mixture is not None:
        named = zip(mixture.steps, mixture.students, strict=True)
        tensors |= {f"mixture-{step}": student.state_dict() for step, student in named}
    for stale in [
        folder / f"{_RULE_FILE}.safetensors",
        *folder.glob("mixture-*.safetensors"),
    ]:  # of an earlier run into here
        if stale.stem not in tensors:
            stale.unlink(missing_ok=True)
    for name, values in tensors.items():
        save_tensors(values, folder / f"{name}.safetensors")
    evidence = {
        **asdict(result.verdict),
        "distillation_loss": result.point.loss,
        "residuals": asdict(result.residuals),
        "multipliers": dict(result.multipliers),
        "readings": [asdict(reading) for reading in (*result.point.readings, *result.point.validation)],
        "data": [use.record() for use in result.uses],
    }
    if mixture is not None:
        evidence["mixture"] = {
            "weights": dict(zip(map(str, mixture.steps), mixture.weights, strict=True)),
            "distillation_loss": mixture.loss,
            "safety": dict(mixture.safety),
            "multipliers": dict(mixture.multipliers),
        }
    names = ["trace.csv", TRACE_LINES, "verdict.json", *(f"{n}.safetensors" for n in tensors)]
    if raised := result.tightening:
        write_csv(raised.rounds, folder / "tightening.csv")
        outcome = {"status": raised.status, "message": raised.message, "posed": dict(raised.posed), "on": raised.on}
        evidence["tightening"] = {**outcome, "looks": raised.looks}
        names.append("tightening.csv")
    else:
        (folder / "tightening.csv").unlink(missing_ok=True)
    with write_atomically(folder / "verdict.json") as temporary:
        temporary.write_text(json.dumps(evidence, indent=2, allow_nan=True) + "\n")
    return [folder / name for name in names]


def save_student(student: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a module's parameters and buffers as safetensors; tied ones are written under each of their names.

    Args:
        student: Any module.
        path: A file that ends in .safetensors.
    """
    save_tensors(student.state_dict(), path)


def save_tensors(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Write named tensors as safetensors; the file appears whole or not at all.

    Args:
        tensors: By name.
        path: A file that ends in .safetensors.
    """
    state = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    with write_atomically(path) as temporary:
        save_file(state, temporary)
