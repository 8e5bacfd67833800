"""A saved student in the formats of other programs, checked against the original before it is handed out."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from .._torch_state import evaluation_mode
from ..errors import InvalidInput, SolverFailure
from ..io import write_atomically
from ._saved_student import SavedStudent

ExportFormat = Literal["torch", "onnx"]
_SUFFIXES: dict[str, ExportFormat] = {".pt2": "torch", ".onnx": "onnx"}


@dataclass(frozen=True)
class ExportSettings:
    """How an export is checked; ``tests/safekd/saved_students/test_export.py`` notices.

    Attributes:
        rows: Drawn at random, round the means of the features, at several scales.
        tolerance: Largest difference of any probability.
    """

    rows: int = 512
    tolerance: float = 1e-6


_SETTINGS = ExportSettings()


class _RawStudent(nn.Module):
    """Features as they stand in a table, float64 (N, F), to probabilities, float32 (N, C)."""

    mean_F: Tensor
    spread_F: Tensor

    def __init__(self, student: SavedStudent) -> None:
        super().__init__()
        scaling = student.require_spec().scaling
        self.register_buffer("mean_F", torch.as_tensor(scaling.mean_F))
        self.register_buffer("spread_F", torch.as_tensor(scaling.spread_F))
        self.student = student.student

    def forward(self, features: Tensor) -> Tensor:
        """Return the probabilities of the classes."""
        scaled = ((features - self.mean_F) / self.spread_F).float()
        return torch.softmax(self.student(scaled).float(), dim=-1)


def export_student(student: SavedStudent, path: str | os.PathLike[str], *, kind: ExportFormat | None = None) -> float:
    """Write a student that needs no safekd: features (N, F) float64 in, probabilities (N, C) float32 out.

    Scaling is part of it.  The file is read back and compared with the original on random rows before it appears.

    Args:
        student: The student.
        path: ``.pt2`` for ``torch.export``, ``.onnx`` for ONNX.
        kind: "torch" or "onnx", where the suffix does not say it.

    Returns:
        The largest difference of a probability, at most 1e-6.

    Raises:
        InvalidInput: The format is unknown, or ONNX is asked for and its packages are not installed.
        SolverFailure: What was written gives other probabilities; nothing is left behind.
    """
    target = Path(path)
    chosen = _SUFFIXES.get(target.suffix.lower()) if kind is None else kind
    if chosen not in get_args(ExportFormat):
        what = f"{target} names no format" if kind is None else f"`kind` is {kind!r}"
        wanted = ".pt2 (torch.export) or .onnx" if kind is None else "'torch' or 'onnx', or a name that tells"
        raise InvalidInput(f"{what}; wanted {wanted}.")
    model = _RawStudent(student).eval()
    spec = student.require_spec()
    rng = np.random.default_rng(0)
    scale_N1 = np.repeat([0.1, 1.0, 10.0, 100.0], _SETTINGS.rows // 4)[:, None]
    noise_NF = rng.normal(size=(_SETTINGS.rows, len(spec.features))) * scale_N1
    probe_NF = torch.from_numpy(spec.scaling.mean_F + noise_NF * spec.scaling.spread_F)
    with evaluation_mode(model), torch.no_grad():
        wanted_NC = model(probe_NF)
    with write_atomically(target) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own exporter
        got_NC = (_write_torch if chosen == "torch" else _write_onnx)(model, probe_NF, temporary)
        off = float((got_NC - wanted_NC).detach().abs().max())
        if not off <= _SETTINGS.tolerance:
            raise SolverFailure(
                f"The export to {target} differs from the student by {off:.2g} in a probability; wanted at most "
                f"{_SETTINGS.tolerance:g}. Nothing was written."
            )
    return off


def _write_torch(model: nn.Module, probe_NF: Tensor, path: Path) -> Tensor:
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(model, (probe_NF,), dynamic_shapes=({0: rows},))
    with path.open("wb") as stream:
        torch.export.save(program, stream)
    with path.open("rb") as stream:
        again: Any = torch.export.load(stream).module()
    return torch.as_tensor(again(probe_NF))


def _write_onnx(model: nn.Module, probe_NF: Tensor, path: Path) -> Tensor:
    try:
        import onnxruntime
        import onnxscript as onnxscript  # torch.onnx writes by it
    except ImportError as error:
        raise InvalidInput(
            f"ONNX needs a package that is not installed ({error.name}): pip install 'safekd[onnx]'."
        ) from error
    rows = torch.export.Dim("rows", min=1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of packages that nothing here needs
    program = torch.onnx.export(
        model,
        (probe_NF,),
        input_names=["features"],
        output_names=["probabilities"],
        dynamo=True,
        dynamic_shapes=({0: rows},),
        verbose=False,
    )
    assert program is not None
    path.write_bytes(program.model_proto.SerializeToString())
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"features": probe_NF.numpy()})[0])
