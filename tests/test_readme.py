"""Every code block of README and docs runs: Python in one namespace a file, shell commands in one folder a file.

A block that begins with ``# needs: PACKAGE`` runs where that package is installed.

The two set-up commands, which begin with ``pip install``, are run by ``.ci/run`` in fresh environments, and so are the
long pages of shell commands, which have the marker ``slow``.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from .support.shell import DEMO_COMMANDS, SEEDS_COMMAND, run_shell

ROOT = Path(__file__).resolve().parent.parent
RUN_ELSEWHERE = (DEMO_COMMANDS, SEEDS_COMMAND)  # by tests of the demo, which read what they write
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_python_blocks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = blocks(path, "python")
    assert found or path.name != "README.md"
    namespace: dict[str, object] = {}
    for number, code in enumerate(found):
        if (needs := re.match(r"# needs: (\w+)\n", code)) and find_spec(needs[1]) is None:
            continue
        exec(compile(code, f"{path.name}, Python block {number + 1}", "exec"), namespace)


# every line starts a process that imports torch; tests of the commands call the same ones within theirs
SLOW_SHELL = ("README.md", "index.md", "projecting.md", "experiment_files.md")
SHELL_FILES = [pytest.param(path, marks=pytest.mark.slow) if path.name in SLOW_SHELL else path for path in FILES]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", SHELL_FILES, ids=lambda path: path.name)
def test_shell_blocks_run(path, tmp_path):
    for code in blocks(path, "sh"):
        if code.startswith("pip install") or code in RUN_ELSEWHERE:
            continue
        ran = run_shell(code, tmp_path)
        assert ran.returncode == 0, f"{code}\n{ran.stdout}\n{ran.stderr}"


def test_the_readme_holds_the_two_commands():
    commands = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("pip install")]
    assert commands == [
        "pip install -c constraints.txt -e . && safekd demo",
        "pip install -c constraints.txt -e '.[test]' && pytest",
    ]


def test_the_commands_that_are_run_elsewhere_are_in_the_readme():
    assert set(RUN_ELSEWHERE) <= set(blocks(ROOT / "README.md", "sh"))
