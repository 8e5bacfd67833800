"""Importing is instant, complete and documented; a shadowed ``solvers`` is told at once."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import get_origin

import pytest

import safekd as kd
import solvers

from ..support.cli_runner import run_cli

ROOT = Path(kd.__file__).resolve().parent.parent


def python(code: str, *, cwd: Path = ROOT, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, env=environment)


def test_importing_safekd_imports_no_heavy_package():
    heavy = ["torch", "pandas", "scipy", "cvxpy", "sklearn", "matplotlib", "numpy"]
    ran = python(f"import sys, safekd, solvers; print([m for m in {heavy} if m in sys.modules])")
    assert ran.stdout.strip() == "[]", ran.stderr


def test_the_version_is_shown(capsys):
    ran = run_cli(capsys, "--version")
    assert ran.code == 0
    assert ran.out.strip() == f"safekd {kd.__version__}"


@pytest.mark.parametrize("package", [kd, solvers], ids=["safekd", "solvers"])
def test_every_public_name_exists_and_is_documented(package):
    assert len(package.__all__) > 5
    for name in package.__all__:
        value = getattr(package, name)
        assert inspect.getdoc(value), name
        if inspect.isclass(value) and not issubclass(value, Exception):
            public = [m for m, f in vars(value).items() if inspect.isfunction(f) and not m.startswith("_")]
            assert all(inspect.getdoc(getattr(value, method)) for method in public), name


def test_every_door_exports_what_it_says_with_a_docstring():
    for name in (
        "axioms",
        "data",
        "divergences",
        "experiment",
        "frontier",
        "io",
        "pooling",
        "safety",
        "teachers",
        "training",
        "weight_files",
        "weights",
    ):
        module = getattr(kd, name)
        assert module.__doc__
        for exported in getattr(module, "__all__", []):
            value = getattr(module, exported)
            if get_origin(value) is None:  # an alias of a type has no docstring of its own
                assert inspect.getdoc(value), f"{name}.{exported}"


@pytest.mark.parametrize("kind", ["package", "module", "folder without __init__"])
def test_a_shadowing_solvers_is_named(tmp_path, kind):
    if kind == "module":
        (tmp_path / "solvers.py").write_text("")
    else:
        (tmp_path / "solvers").mkdir()
        if kind == "package":
            (tmp_path / "solvers" / "__init__.py").write_text("")
    ran = python("import safekd", cwd=tmp_path, path=f"{tmp_path}{os.pathsep}{ROOT}")
    if kind == "folder without __init__":  # Python itself prefers a real package
        assert ran.returncode == 0, ran.stderr
        return
    assert "ImportError: safekd brings a package named `solvers`" in ran.stderr
    assert str(tmp_path) in ran.stderr
    assert "rename" in ran.stderr


def test_one_base_for_every_exception():
    for error in (kd.InvalidInput, kd.InfeasiblePolytope, kd.InvalidConfig, kd.MissingSignal, kd.SolverFailure):
        assert issubclass(error, kd.SafekdError)
    assert issubclass(kd.InvalidInput, ValueError)


def test_a_name_that_a_room_does_not_have_is_no_attribute():
    with pytest.raises(AttributeError, match=r"module 'safekd\.language' has no attribute 'SafeKdTrainer'"):
        _ = kd.language.SafeKdTrainer
