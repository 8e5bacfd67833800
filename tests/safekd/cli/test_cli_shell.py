"""The command line in a shell: as a module, with completion, and quick to help."""

from __future__ import annotations

import subprocess
import sys

import pytest

import safekd as kd
from tests.support.shell import run_shell

COMMANDS = ("demo", "train", "frontier", "report", "verify", "project", "audit", "cache")
HEAVY = (
    "torch",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "numba",
    "cvxpy",
    "matplotlib",
    "solvers.projection",
)


def test_the_package_runs_as_a_module(tmp_path):
    ran = run_shell("python -m safekd --version\npython -m safekd audit nowhere.csv", tmp_path)
    assert ran.stdout.strip() == f"safekd {kd.__version__}"
    assert ran.returncode == 2
    assert "There is no file nowhere.csv" in " ".join(ran.stderr.split())


@pytest.mark.parametrize("arguments", [[], *([command] for command in COMMANDS)], ids=lambda words: " ".join(words))
def test_help_imports_nothing_heavy(arguments):
    """What a help text costs is what it imports: half a second of processor time without these, seconds with them."""
    code = (
        f"import sys; sys.argv = ['safekd', *{arguments}, '--help']\n"
        "from safekd.cli import main\n"
        "try: main()\n"
        f"finally: print([name for name in {HEAVY} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Usage: safekd" in ran.stdout
    assert ran.stdout.strip().endswith("[]"), ran.stderr


def test_projecting_imports_nothing_of_the_audit(tmp_path):
    """The axioms bring solvers that take seconds to import; the nearest weights of a file need none of them."""
    (tmp_path / "in.csv").write_text("a,b\n0.25,0.75\n")
    code = (
        "import sys; sys.argv = ['safekd', 'project', 'in.csv', '-o', 'out.csv', '--lower', '0.5']\n"
        "from safekd.cli import main\n"
        "try: main()\n"
        "finally: print([name for name in ('safekd.axioms', 'safekd.training', 'cvxpy') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ran.stdout.strip().endswith("[]"), ran.stderr
    assert (tmp_path / "out.csv").read_text() == "a,b\n0.5,0.5\n"


COMPLETE = """safekd --show-completion > completion.sh
source completion.sh
COMP_WORDS=(safekd {words})
COMP_CWORD={number}
_safekd_completion safekd
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("''", set(COMMANDS)),
        ("pro", {"project"}),
        ("project --lo", {"--lower"}),
        ("frontier --re", {"--resume"}),
    ],
)
def test_bash_completes_commands_and_options(words, wanted, tmp_path):
    ran = run_shell(COMPLETE.format(words=words, number=len(words.split())), tmp_path)
    assert set(ran.stdout.split()) == wanted, ran.stderr


def test_completion_installs_itself(tmp_path):
    ran = run_shell("export HOME=$PWD\nsafekd --install-completion\ncat .bashrc", tmp_path)
    assert ran.returncode == 0, ran.stderr
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert str(script) in ran.stdout
    assert "_SAFEKD_COMPLETE" in script.read_text()
