"""The command line in a shell: as a module, with completion, and quick to help."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

import safekd as kd
from tests.support.cli_runner import run_cli
from tests.support.shell import run_shell

COMMANDS = (
    "init", "validate", "train", "predict", "certify", "export", "report", "project", "audit", "frontier", "ensemble",
    "cache", "verify", "list", "demo",
)  # fmt: skip
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


ENDINGS = {
    "a fault": (
        ValueError("no such thing"),
        2,
        "this is a fault of safekd itself, please report it: ValueError: no such",
    ),
    "no memory": (MemoryError(), 2, "there is not enough memory for this; nothing half written was left behind"),
    "a disk": (OSError(errno.EIO, "Input/output error", "runs/demo"), 2, "safekd: runs/demo: Input/output error."),
    "no disk": (OSError("gone"), 2, "safekd: the system: gone."),
    "bad input": (kd.InvalidInput("`x` is 3; wanted 4."), 2, "safekd: `x` is 3; wanted 4."),
    "Ctrl-C": (KeyboardInterrupt(), 4, "safekd: stopped; nothing half written was left behind."),
    "SIGTERM": (SystemExit(143), 4, "safekd: stopped; nothing half written was left behind."),
    "a code": (SystemExit(3), 3, ""),
}


def end_with(error, monkeypatch):
    def end(**_):
        raise error

    monkeypatch.setattr("safekd.cli._app.app", end)  # all commands: none is imported for this


@pytest.mark.parametrize("kind", ENDINGS)
def test_whatever_goes_wrong_is_one_message_and_a_code(kind, capsys, monkeypatch):
    error, code, message = ENDINGS[kind]
    end_with(error, monkeypatch)
    ran = run_cli(capsys, "demo")
    assert ran.code == code
    assert message in " ".join(ran.err.split())
    assert "Traceback" not in ran.err


def test_a_fault_is_shown_whole_where_somebody_asks_for_it(capsys, monkeypatch):
    monkeypatch.setenv("SAFEKD_SHOW_FAULTS", "1")
    end_with(ValueError("no such thing"), monkeypatch)
    with pytest.raises(ValueError, match="no such thing"):
        run_cli(capsys, "demo")
