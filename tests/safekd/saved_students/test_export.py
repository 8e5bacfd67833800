"""Students for programs without safekd: the same probabilities, or nothing is written."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import safekd as kd
from safekd.saved_students import _export_student, export_student

from .trained_run import make_cases

X_NF = make_cases(50, 7)[["x0", "x1", "x2"]].to_numpy()


def test_torch_runs_it_without_this_library(run, tmp_path):
    student = kd.load(run)
    assert export_student(student, tmp_path / "s.pt2") <= 1e-6
    np.save(tmp_path / "x.npy", X_NF)
    code = (
        "import sys, numpy as np, torch\n"
        "sys.modules['safekd'] = sys.modules['solvers'] = None\n"
        f"model = torch.export.load({str(tmp_path / 's.pt2')!r}).module()\n"
        f"x = torch.from_numpy(np.load({str(tmp_path / 'x.npy')!r}))\n"
        f"np.save({str(tmp_path / 'p.npy')!r}, model(x).detach().numpy())\n"
        "assert model(x[:1]).shape == (1, 2)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), student(X_NF), atol=1e-6)


def test_onnx_runs_it(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    student = kd.load(run)
    assert export_student(student, tmp_path / "s.onnx") <= 1e-6
    session = onnxruntime.InferenceSession(tmp_path / "s.onnx", providers=["CPUExecutionProvider"])
    (p_NC,) = session.run(None, {"features": X_NF})
    np.testing.assert_allclose(p_NC, student(X_NF), atol=1e-6)
    assert p_NC.dtype == np.float32


def test_an_export_that_differs_is_refused_and_nothing_is_left(run, tmp_path, monkeypatch):
    written = _export_student._write_torch

    def write_wrong(model, probe_NF, path):
        return written(model, probe_NF, path) + 2e-6

    monkeypatch.setattr(_export_student, "_write_torch", write_wrong)
    with pytest.raises(kd.SolverFailure, match="differs from the student by 2e-06"):
        export_student(kd.load(run), tmp_path / "s.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_nobody_knows_is_refused(run, tmp_path):
    with pytest.raises(kd.InvalidInput, match=r"wanted \.pt2 \(torch\.export\) or \.onnx"):
        export_student(kd.load(run), tmp_path / "s.tflite")
    with pytest.raises(kd.InvalidInput, match="`kind` is 'tflite'; wanted 'torch' or 'onnx', or a name that tells"):
        export_student(kd.load(run), tmp_path / "s.pt2", kind="tflite")


def test_a_missing_package_is_named(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(kd.InvalidInput, match=r"pip install 'safekd\[onnx\]'"):
        export_student(kd.load(run), tmp_path / "s.onnx")
    assert list(tmp_path.iterdir()) == []
    assert torch.is_grad_enabled()
