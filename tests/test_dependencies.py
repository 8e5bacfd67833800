"""What the packages import is declared with a reason, and what was tested is pinned."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from configparser import ConfigParser
from pathlib import Path

from .support import ROOT
from .support.source_tree import modules

MODULE_OF = {"scikit-learn": "sklearn", "lazy_loader": "lazy_loader", "tomli-w": "tomli_w", "pillow": "PIL"}
PARTS = {"pydantic_core": "pydantic", "tokenizers": "transformers", "huggingface_hub": "transformers", "click": "typer"}
# used where they are installed
OPTIONAL = {"moreau", "triton", "cvxpylayers", "transformers", "accelerate", "peft", "onnxruntime", "onnxscript"}
NOT_PINNED = {"torch"}  # to the version of its CPU build, by the comment at the head of the file


def declared(*extras: str) -> list[str]:
    config = ConfigParser(inline_comment_prefixes=("#",))
    config.read(ROOT / "setup.cfg")
    parts = [config["options"]["install_requires"], *(config["options.extras_require"][name] for name in extras)]
    lines = "\n".join(parts).splitlines()
    return [re.split(r"[ <>=!~]", line.strip())[0] for line in lines if line.strip()]


def imported(paths: Iterable[Path] = tuple(modules().values())) -> set[str]:
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(str(node.module).partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"safekd", "solvers"}


def test_every_package_that_is_imported_is_declared():
    known = {MODULE_OF.get(name, name) for name in declared()}
    assert {PARTS.get(name, name) for name in imported()} - known - OPTIONAL == set()


def test_what_is_used_where_it_is_installed_is_in_an_extra():
    assert set(declared("moreau", "lm", "onnx", "test", "bench")) >= OPTIONAL


def test_the_suite_imports_what_its_extra_installs():
    known = {MODULE_OF.get(name, name.replace("-", "_")) for name in declared("test")}
    suite = [path for path in (ROOT / "tests").rglob("*.py") if not {"benchmarks", "examples"} & set(path.parts)]
    assert {PARTS.get(name, name) for name in imported(suite)} - known - {"tests", "benchmarks"} == set()


def test_everything_that_is_declared_is_used_and_pinned():
    assert {MODULE_OF.get(name, name) for name in declared()} - imported() == set()
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    wanted = {name.lower().replace("_", "-") for name in [*declared(), "setuptools"]} - NOT_PINNED
    assert wanted - pinned == set()
