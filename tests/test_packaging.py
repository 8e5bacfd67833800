"""What a wheel holds and says: one version, whole metadata, every file that is no code."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from email import message_from_string
from importlib.util import find_spec

import pytest

import safekd as kd
from benchmarks import install

from .support import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the working tree, built without a network by the setuptools that is here."""
    if find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no clone: a wheel is built from what git lists")
    for name in listed.stdout.splitlines():
        if (name.startswith(("safekd/", "solvers/")) or "/" not in name) and (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = "from setuptools import build_meta; print(build_meta.build_wheel('..'))"
    ran = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def read_metadata(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_string(wheel.read(name).decode())


def test_the_version_stands_in_one_place(wheel):
    assert read_metadata(wheel)["Version"] == kd.__version__
    version = re.escape(kd.__version__)
    places = [
        str(path.relative_to(ROOT))
        for path in [*(ROOT / "safekd").rglob("*.py*"), ROOT / "setup.cfg", ROOT / "setup.py"]
        if path.suffix in (".py", ".pyi", ".cfg") and re.search(rf"version.*\b{version}\b", path.read_text())
    ]
    assert places == ["safekd/_own_version.py"]


def test_the_metadata_says_what_it_is_for_and_where_it_runs(wheel):
    told = read_metadata(wheel)
    for field in ("Summary", "License", "Author", "Keywords", "Requires-Python", "Description-Content-Type"):
        assert told[field], field
    classifiers = told.get_all("Classifier")
    assert [f"Programming Language :: Python :: 3.{minor}" in classifiers for minor in (11, 12, 13)] == [True] * 3
    config = ConfigParser(inline_comment_prefixes=("#",))
    config.read(ROOT / "setup.cfg")
    assert set(told.get_all("Provides-Extra")) == set(config["options.extras_require"])


def test_every_file_that_git_lists_is_in_the_wheel(wheel):
    listed = subprocess.run(
        ["git", "ls-files", "safekd", "solvers"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wanted = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert {"safekd/py.typed", "solvers/py.typed", "safekd/demo/breast_cancer.toml"} <= wanted
    assert wanted - set(wheel.namelist()) == set()
    extra = {name for name in wheel.namelist() if ".dist-info/" not in name} - wanted
    assert extra == set()


def test_the_weights_of_the_install_are_counted(monkeypatch):
    """A package weighs what its files do, and brings what nobody else asks for."""
    needs = {"safekd": ["a", "b"], "a": ["c", "shared"], "b": ["shared"], "c": [], "shared": []}
    monkeypatch.setattr(install, "list_requirements", needs.__getitem__)
    monkeypatch.setattr(install, "size_of", {"safekd": 1.0, "a": 2.0, "b": 4.0, "c": 8.0, "shared": 16.0}.__getitem__)
    weights = install.measure_sizes()
    assert weights == {"safekd": (1, 1), "a": (2, 10), "b": (4, 4), "all": (31, 31)}
    text = install.write_report(weights, dict.fromkeys(install.CALLS, 0.5), rounds=3)
    assert "| a | 2.0 | 10.0 |" in text
    assert "| `import safekd` | 0.50 |" in text


def test_every_dependency_says_what_it_is_needed_for():
    config = ConfigParser(inline_comment_prefixes=("#",))
    config.read(ROOT / "setup.cfg")
    names = [line.split()[0] for line in config["options"]["install_requires"].splitlines() if line.strip()]
    assert set(names) == set(install.NEEDED_FOR)
