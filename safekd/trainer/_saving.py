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

from ..files import written_whole
from ..tables import write_csv
from ._result import FitResult


def save_run(result: FitResult, run_dir: str | os.PathLike[str]) -> list[Path]:
    """Write trace.csv, student.safetensors, verdict.json, and weights.safetensors where the weighting rule has a state.

    A run whose thresholds were raised has tightening.csv as well, one row a round and constraint.
    Return their paths.  Each file appears whole or not at all.
    """
    folder = Path(run_dir)
    write_csv(result.trace, folder / "trace.csv")
    save_student(result.student, folder / "student.safetensors")
    if result.weights:
        _save_tensors(result.weights, folder / "weights.safetensors")
    else:
        (folder / "weights.safetensors").unlink(missing_ok=True)  # of an earlier run into the same folder
    evidence = {
        **asdict(result.verdict),
        "distillation_loss": result.point.loss,
        "residuals": asdict(result.residuals),
        "multipliers": dict(result.multipliers),
        "readings": [asdict(reading) for reading in (*result.point.readings, *result.point.audit)],
        "data": [use.record() for use in result.uses],
    }
    if raised := result.tightening:
        write_csv(raised.rounds, folder / "tightening.csv")
        told = {"status": raised.status, "message": raised.message, "posed": dict(raised.posed), "on": raised.on}
        evidence["tightening"] = {**told, "looks": raised.looks}
    else:
        (folder / "tightening.csv").unlink(missing_ok=True)
    with written_whole(folder / "verdict.json") as temporary:
        temporary.write_text(json.dumps(evidence, indent=2, allow_nan=True) + "\n")
    written = ["trace.csv", "student.safetensors", "verdict.json"] + ["weights.safetensors"] * bool(result.weights)
    written += ["tightening.csv"] * (result.tightening is not None)
    return [folder / name for name in written]


def save_student(student: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a module's parameters and buffers as safetensors; tied ones are written under each of their names."""
    _save_tensors(student.state_dict(), path)


def _save_tensors(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    state = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    with written_whole(path) as temporary:
        save_file(state, temporary)
