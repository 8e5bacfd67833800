"""Names are data: whatever stands in a header, a class or a path is shown as it is, and obeyed by no terminal."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from html import escape

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import safekd as kd
from safekd.errors import escape_controls
from safekd.report import tabulate_frontier, tabulate_projection
from tests.support.cli_runner import run_cli
from tests.support.frontiers import CURVE, frontier

from .test_cli_train import CONFIG, write_case

NAMES = [
    "[red]",
    "[/]",
    "recall[/0]",
    "recall [night]",
    "[link=http://x]y[/link]",
    ":warning:",
    "a\\",
    "$x^$ and $\\frac$",
    "{task}",
    "%s %(a)s",
    "\x1b[31mr\x1b]0;",
    "bell\x07",
    "\x9b31m",
    "\u202eturned\u202c",
    "zero\u200bwidth",
    "line\u2028two",
    "_hidden",
    "名前🙂",
]
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def is_shown(name: str, printed: str) -> bool:
    """Say whether a name stands in what was printed, whole, though lines may be broken."""
    shown = escape_controls(name)
    return re.sub(r"\s", "", shown) in re.sub(r"[\s│]", "", printed)


@pytest.mark.parametrize("name", NAMES)
def test_a_header_is_shown_as_it_is(name, tmp_path, capsys):
    pd.DataFrame({name: [0.2, 0.9], "b": [0.8, 0.1]}).to_csv(tmp_path / "w.csv", index=False)
    ran = run_cli(capsys, "project", tmp_path / "w.csv", "-o", tmp_path / "o.csv", "--upper", 0.6)
    assert ran.code == 0, ran.err
    assert is_shown(name, ran.out)
    assert not OBEYED.search(ran.out + ran.err)
    assert pd.read_csv(tmp_path / "o.csv").columns[0] == name
    ran = run_cli(capsys, "audit", tmp_path / "w.csv", "--teacher", f"{name},nobody")
    assert ran.code == 2
    assert is_shown(name, ran.err)
    assert not OBEYED.search(ran.out + ran.err)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_called_as_it_is(name, tmp_path, capsys):
    path = tmp_path / name.replace("/", "")
    path.write_text("a,b\n0.9,0.1\n")
    ran = run_cli(capsys, "audit", path, "--upper", 0.6)
    assert ran.code == 1, ran.err
    assert is_shown(path.name, ran.out)
    assert not OBEYED.search(ran.out + ran.err)
    path.write_text("a,b\n0.9,x\n")
    ran = run_cli(capsys, "audit", path)
    assert ran.refused("line 2, column 'b'")
    assert is_shown(path.name, ran.err)
    assert not OBEYED.search(ran.err)


def test_names_of_an_experiment_are_shown_as_they_are(tmp_path, capsys):
    """Constraints, teachers, classes, contexts, files: in messages, bars, tables."""
    folder = write_case(tmp_path)
    text = CONFIG.replace("epochs = 2000\n", "epochs = 60\ntolerance = 0.9\n", 1)
    text = text.replace('name = "sick"', 'name = "recall[/0] \\u001b[31m"').replace('"api"', '"[red]api"')
    text = text.replace('names = ["low", "high"]', 'names = ["[night]", "[/]"]').replace('"low"', '"[night]"')
    text = text.replace('critical = ["sick"]', 'critical = ["[sick]"]\neach = "context"')
    (folder / "mine.toml").write_text(text)
    for name in ("cases.csv", "api.csv"):
        (folder / name).write_text((folder / name).read_text().replace("sick", "[sick]"))
    ran = run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "[/]run")
    assert ran.code in (0, 1), ran.err
    for name in ("recall[/0] \\x1b[31m: [night]", "recall[/0] \\x1b[31m: [/]", "[/]run/verdict.json"):
        assert is_shown(name, ran.out), ran.out
    assert not OBEYED.search(ran.out + ran.err)
    ran = run_cli(capsys, "frontier", folder / "mine.toml", "-o", folder / "f.csv", "--plot", folder / "f.svg")
    assert ran.code in (0, 1), ran.err
    assert is_shown("recall[/0] \\x1b[31m: [night]", ran.out)
    assert "recall[/0] \\x1b[31m: [night]" in (folder / "f.svg").read_text()
    assert not OBEYED.search((folder / "f.svg").read_text())


def test_a_library_user_sees_names_too():
    """Tables are safe on a console that takes markup, as rich's own does."""
    done = kd.weight_files.ProjectionSummary(("[red]a", "[/]\x1b[2J"))
    done.add(np.array([[0.5, 0.5]]), np.array([[0.5, 0.5]]))
    stream = io.StringIO()
    Console(file=stream, width=100).print(tabulate_projection(done))
    assert "[red]a" in stream.getvalue()
    assert "[/]\\x1b[2J" in stream.getvalue()


def test_messages_of_errors_are_safe_to_print_wherever_they_are_caught():
    error = kd.InvalidInput("column '\x1b[2J\udcff' is\n\tno \x9bteacher")
    assert str(error) == "column '\\x1b[2J\\udcff' is\n\tno \\x9bteacher"
    assert str(type(error)(f"again: {error}")) == f"again: {error}"


def test_many_teachers_do_not_flood_the_terminal():
    names = tuple(f"t{k}" for k in range(50_000))
    done = kd.weight_files.ProjectionSummary(names)
    done.add(np.full((1, 50_000), 2e-5), np.full((1, 50_000), 2e-5))
    stream = io.StringIO()
    Console(file=stream, width=100).print(tabulate_projection(done))
    assert "and 49,960 more" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) < 60


def test_what_a_terminal_cannot_write_is_spelled_out(tmp_path):
    (tmp_path / "w.csv").write_text("名,b\n0.9,0.1\n", encoding="utf-8")
    command = [sys.executable, "-m", "safekd", "project", "w.csv", "-o", os.fsdecode(b"\xff.csv")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "\\u540d" in ran.stdout
    assert "\\udcff.csv" in ran.stdout


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("ending", [".png", ".svg", ".html"])
def test_a_frontier_over_any_name_is_drawn_and_tabulated(name, ending, tmp_path):
    traced = frontier(CURVE, name=name)
    traced.plot(tmp_path / f"f{ending}")
    if ending != ".png":
        drawn = (tmp_path / f"f{ending}").read_text()
        assert not OBEYED.search(drawn.replace("\u2212", "-"))
        assert escape(escape_controls(name), quote=False) in unescape_quotes(drawn)
    stream = io.StringIO()
    Console(file=stream, width=120).print(tabulate_frontier(traced))
    assert is_shown(f"({name})", stream.getvalue())
    assert not OBEYED.search(stream.getvalue())


def unescape_quotes(text: str) -> str:
    return text.replace("&quot;", '"').replace("&#x27;", "'")
