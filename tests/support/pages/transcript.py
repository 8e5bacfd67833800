"""Writes ``docs/transcript.md`` by running what it shows: python -m tests.support.pages.transcript."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .. import ROOT
from ..shell import run_shell

PAGE = ROOT / "docs" / "transcript.md"
FIRST_LINES, LAST_LINES = 12, 30  # of one command's output
HEAD = """# A session from start to end

Written by `python -m tests.support.pages.transcript`, which runs every command in an empty folder; a test runs them
again. `pip install -c constraints.txt -e .` came before. Long outputs are cut; times are those of a busy machine.
"""


@dataclass(frozen=True)
class Step:
    """One command of the session.

    Attributes:
        what: What it is for.
        command: As it is typed.
        code: The exit code that it is to end with.
    """

    what: str
    command: str
    code: int = 0


BOUNDS = "--lower 0.1 --upper 0.6"
STEPS = (
    Step("The demo: four teachers, one student that must not miss malignant cases.", "safekd demo"),
    Step("Its report is one HTML file; every file of the run has a hash.", "safekd verify runs/demo"),
    Step("Weights of one's own, projected onto rules.", f"safekd project weights.csv -o conforming.csv {BOUNDS}"),
    Step("What was projected conforms.", f"safekd audit conforming.csv {BOUNDS}"),
    Step(
        "A table of one's own becomes an experiment.",
        "safekd init mine.toml --data cases.csv --critical malignant --at-least 0.7",
    ),
    Step("Nothing is trained yet, and yet much can be said.", "safekd validate mine.toml"),
    Step(
        "It is trained, and held-out cases certify it.",
        "safekd train mine.toml --run-dir runs/mine --set training.epochs=300",
    ),
    Step(
        "What more safety would cost.",
        "safekd frontier mine.toml -o frontier.csv --targets 0.9,0.95 --plot frontier.html",
    ),
    Step("Cases that came later.", "safekd predict runs/mine new.csv -o predictions.csv"),
    Step("What they show.", "safekd certify runs/mine new.csv -o certificates.json"),
    Step("All of it on one page.", "safekd report runs/mine --frontier frontier.csv"),
)
DATA = """python - <<'END'
from sklearn.datasets import load_breast_cancer
cases = load_breast_cancer(as_frame=True)
table = cases.data.assign(diagnosis=cases.target_names[cases.target])
table[:400].to_csv("cases.csv", index=False)
table[400:].to_csv("new.csv", index=False)
with open("weights.csv", "w") as stream:
    stream.write("expert,fast,cheap\\n0.2,0.7,0.1\\n0.9,0.05,0.05\\n")
END
"""


def run_steps(folder: Path) -> list[tuple[Step, int, str]]:
    """Return each step with its exit code and what it printed.

    Args:
        folder: An empty one.
    """
    made = run_shell(DATA, folder)
    assert made.returncode == 0, made.stderr
    done = []
    for step in STEPS:
        ran = run_shell(step.command + "\n", folder)
        done.append((step, ran.returncode, (ran.stdout + ran.stderr).strip()))
    return done


def write_page(done: list[tuple[Step, int, str]]) -> str:
    """Return the text of the page.

    Args:
        done: Of ``run_steps``.
    """
    parts = [f"{step.what}\n\n```console\n$ {step.command}\n{_cut(said)}\n```\n" for step, _, said in done]
    return "\n".join([HEAD, *parts])


def _cut(said: str) -> str:
    lines = [re.sub(r"\s+$", "", line) for line in said.splitlines()]
    if len(lines) > FIRST_LINES + LAST_LINES:
        lines = [*lines[:FIRST_LINES], "...", *lines[-LAST_LINES:]]
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        PAGE.write_text(write_page(run_steps(Path(place))), encoding="utf-8")
