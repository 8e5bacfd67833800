"""``[tighten]`` in an experiment file: what is read, what is refused, what ``safekd train`` shows and writes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import safekd as kd
from safekd.experiment.config import parse_config
from tests.support.cases import load_cases_config
from tests.support.cli_runner import run_cli

from .test_cli_train import CONFIG

DEMO = load_cases_config()[0]


def cases(seed: int = 0, size: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 3))
    sick = x[:, 0] + x[:, 1] + 0.5 * rng.normal(size=size) > 0
    return pd.DataFrame(x, columns=["x0", "x1", "x2"]).assign(outcome=np.where(sick, "sick", "well"))


@pytest.fixture
def folder(tmp_path):
    table = cases()
    table.to_csv(tmp_path / "cases.csv", index=False)
    p = 1 / (1 + np.exp(-2 * table["x0"]))
    pd.DataFrame({"well": 1 - p, "sick": p}).to_csv(tmp_path / "api.csv", index=False)
    return tmp_path


def write(folder, extra: str, **changes: str):
    text = CONFIG.replace("epochs = 2000\n[frontier]", "epochs = 40\ntolerance = 1e-2\n[frontier]")
    for old, new in changes.items():
        text = text.replace(old, new)
    (folder / "mine.toml").write_text(text + extra)
    return folder / "mine.toml"


SHARES = "[data.splits]\ntrain = 0.3\nvalidation = 0.1\nsafety = 0.4\ncertify = 0.1\ntest = 0.1\n"
SAFETY = {"[data.context]": f"{SHARES}[data.context]"}


def test_thresholds_rise_on_a_split_of_their_own(folder, capsys):
    path = write(
        folder, '[tighten]\non = "safety"\nattempts = 3\nfolds = 0\n', **SAFETY, **{"at_least = 0.8": "at_least = 0.7"}
    )
    ran = run_cli(capsys, "train", path, "--run-dir", folder / "run")
    verdict = json.loads((folder / "run" / "verdict.json").read_text())
    rounds = pd.read_csv(folder / "run" / "tightening.csv")
    assert verdict["tightening"]["status"] == ("cleared" if rounds["cleared"].any() else "not_cleared")
    assert ran.code == (0 if verdict["status"] == "converged" else 1), ran.err
    assert rounds["looks"].max() == verdict["tightening"]["looks"] == len(rounds)
    assert {use["split"]: use["looks"] for use in verdict["data"]} == {
        "train": 0,
        "validation": 0,
        "safety": len(rounds),
    }
    assert "round 1: 'sick' posed at 0.9700" in ran.out
    assert "Thresholds raised" in ran.out
    flat = " ".join(ran.out.split())
    assert f"safety (160 examples): {len(rounds)} look" in flat
    assert "tightening.csv" in flat


def test_cross_fitting_from_a_file(folder, capsys):
    path = write(folder, '[tighten]\non = "crossfit"\nfolds = 2\nrounds = 2\n')
    ran = run_cli(capsys, "train", path, "--run-dir", folder / "run")
    verdict = json.loads((folder / "run" / "verdict.json").read_text())
    assert (verdict["tightening"]["on"], verdict["tightening"]["looks"]) == ("crossfit", 0)
    assert "out of fold" in ran.out
    assert "no certificate" in " ".join(ran.out.split())
    assert "cross-fitting, 2 folds" in " ".join(ran.out.split())


def test_a_further_split_counts_from_a_file(folder, capsys):
    path = write(folder, '[tighten]\non = "crossfit"\nfolds = 2\nrounds = 1\nconfidence = 0.9\nalso = ["validation"]\n')
    run_cli(capsys, "train", path, "--run-dir", folder / "run")
    rounds = pd.read_csv(folder / "run" / "tightening.csv")
    verdict = json.loads((folder / "run" / "verdict.json").read_text())
    assert rounds["level"].iloc[0] == 0.9
    assert {use["split"]: use["looks"] for use in verdict["data"]} == {"train": 0, "validation": 1}


def test_what_cannot_clear_exits_with_one(folder, capsys):
    """Some 40 sick cases show at most 0.87 at that level."""
    path = write(folder, '[tighten]\non = "validation"\n', **{"at_least = 0.8": "at_least = 0.97"})
    ran = run_cli(capsys, "train", path, "--run-dir", folder / "run")
    assert ran.code == 1
    flat = " ".join(ran.out.split())
    assert "not_cleared" in flat
    assert "It was not looked at" in flat
    assert json.loads((folder / "run" / "verdict.json").read_text())["status"] == "not_cleared"


@pytest.mark.parametrize(
    ("extra", "fragments"),
    [
        ("[tighten]\nattempts = 3\n", ["'tighten.on' is missing", "the split that shows it, or crossfit"]),
        ('[tighten]\non = "test"\n', ["tighten.on", "'test'", "'validation', 'safety' or 'crossfit'"]),
        ('[tighten]\non = "validation"\nalso = ["safety"]\n', ['`also` means nothing with on = "validation"']),
        ('[tighten]\non = "crossfit"\nattempts = 3\n', ['`attempts` means nothing with on = "crossfit"']),
        ('[tighten]\non = "validation"\nattempt = 3\n', ["unknown key 'tighten.attempt'", "did you mean 'attempts'"]),
        (
            '[tighten]\non = "validation"\nhighest = 1.0\n',
            ["tighten.highest", "1.0", "no threshold is raised above it"],
        ),
        ('[tighten]\non = "crossfit"\nfolds = 0\n', ["`folds` is 0; wanted at least 2"]),
        ('[tighten]\non = "validation"\nfolds = 1\n', ["`folds` is 1; wanted at least 2, or 0"]),
        ('[tighten]\non = "crossfit"\nalso = ["test"]\n', ["tighten.also", "'validation' or 'safety'"]),
        (
            '[tighten]\non = "crossfit"\nalso = ["safety"]\n',
            ["tighten.also names the split 'safety', which is empty"],
        ),
        ('[tighten]\non = "safety"\n', ["tighten.on names the split 'safety', which is empty", "data.splits.safety"]),
    ],
)
def test_a_wrong_table_is_told(extra, fragments):
    with pytest.raises(kd.InvalidConfig) as caught:
        parse_config(DEMO + "\n" + extra, "mine.toml")
    text = str(caught.value)
    assert all(fragment in text for fragment in fragments), text


def test_a_constraint_on_an_empty_split_is_told():
    with pytest.raises(kd.InvalidConfig, match="constraint 'malignant' names the split 'safety', which is empty"):
        parse_config(DEMO.replace('split = "train"', 'split = "safety"'), "mine.toml")


def test_the_share_of_the_extra_split_counts():
    shares = DEMO.replace("test = 0.175", "test = 0.075\nsafety = 0.1")
    assert parse_config(shares, "mine.toml").data.splits.safety == 0.1
    with pytest.raises(kd.InvalidConfig, match=r"the shares sum to 1\.1; wanted 1"):
        parse_config(DEMO.replace("test = 0.175", "test = 0.175\nsafety = 0.1"), "mine.toml")
