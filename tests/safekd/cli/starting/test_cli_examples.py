"""Every command's help has an example, and each example runs as it stands."""

from __future__ import annotations

import re
import shlex

import pandas as pd
import pytest
import typer

from safekd.cli._app import app
from tests.safekd.saved_students.trained_run import CONFIG, make_cases, train_run
from tests.support.cli_runner import run_cli

ELSEWHERE = {"demo": "tests/safekd/test_demo.py runs it", "cache": "its commands have tests of their own"}


def find_examples() -> dict[str, str]:
    group = typer.main.get_command(app)
    texts = {name: command.callback.__doc__ or command.help or "" for name, command in group.commands.items()}
    return {name: "".join(re.findall(r"^\s*Example: (safekd .*)$", text, re.M)[:1]) for name, text in texts.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the examples name: a run in runs/demo, experiment files, tables."""
    place = tmp_path_factory.mktemp("examples")
    (place / "runs").mkdir()
    train_run(place).rename(place / "runs" / "demo")
    (place / "mine.toml").unlink()  # which the example of `init` writes
    new = make_cases(80, 9)
    new.rename(columns={"outcome": "diagnosis"}).to_csv(place / "held_out.csv", index=False)
    new.to_csv(place / "new.csv", index=False)
    (place / "experiment.toml").write_text(CONFIG.replace("epochs = 150", "epochs = 30"))
    rows = pd.DataFrame({"expert": [0.2, 0.9], "fast": [0.7, 0.05], "cheap": [0.1, 0.05]})
    rows.to_csv(place / "weights.csv", index=False)
    return place


def test_every_command_has_an_example():
    assert {name for name, line in find_examples().items() if not line} <= set(ELSEWHERE)


def test_the_examples_run_one_after_the_other(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    lines = find_examples()
    data = make_cases(300, 0).replace({"outcome": {"sick": "malignant", "well": "benign"}})
    data.rename(columns={"outcome": "diagnosis"}).to_csv("own.csv", index=False)
    order = ["init", "validate", "ensemble", "list", "predict", "certify", "export", "report", "verify"]
    order += ["project", "audit", "frontier", "train"]
    assert set(order) | set(ELSEWHERE) == set(lines)
    for name in order:
        line = lines[name]
        if name == "init":
            line = line.replace("cases.csv", "own.csv")  # cases.csv is another test's table
        if name == "train":
            line = line.replace("epochs=500", "epochs=30")
        if name == "frontier":
            line = line.replace("--targets 5", "--targets 0.7")
        if name == "export":
            line = line.replace(".onnx", ".pt2")  # ONNX is in test_export
        ran = run_cli(capsys, *shlex.split(line)[1:])
        assert ran.code in (0, 1), f"{line}\n{ran.err}"
        assert ran.code == 0 or name in ("certify", "validate", "train", "frontier"), f"{line}\n{ran.out}"
