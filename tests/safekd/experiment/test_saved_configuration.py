"""A run on own data repeats from its saved configuration, byte for byte, from another working directory."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from safekd.experiment.config import load_config, parse_config
from safekd.training.trace import MACHINE_COLUMNS
from tests.support.cli_runner import run_cli

N = 300
HEAD = """
[data]
source = "../data/SOURCE"
"""
TABLE = """label = "outcome"
key = "id"
features = ["x*"]
MORE
[data.context]
column = "site"
[[teachers]]
name = "api"
kind = "stored"
path = "../data/api.csv"
key = "case"
[[teachers]]
name = "fitted"
kind = "logistic_regression"
[weights]
stored = "../data/w.csv"
key = "case"
[student]
hidden = [4]
[[constraints]]
name = "sick"
measure = "recall"
sharpness = 6
critical = ["sick"]
each = "context"
at_least = { north = 0.5, south = 0.6 }
"""
STREAM = """label = "outcome"
stream = true
features = ["x*"]
group = "patient"
[data.context]
column = "site"
names = ["south", "north"]
[[teachers]]
name = "api"
kind = "stored"
path = "../data/api.npy"
[[teachers]]
name = "fitted"
kind = "logistic_regression"
[[constraints]]
name = "sick"
critical = ["sick"]
at_least = 0.6
"""
IMAGES = """image_size = [4, 3]
color = "grayscale"
[[teachers]]
name = "forest"
kind = "random_forest"
options = { n_estimators = 5 }
[[teachers]]
name = "api"
kind = "stored"
path = "../data/images.csv"
key = "file"
[student]
kind = "cnn"
options = { channels = [3] }
[[constraints]]
name = "sick"
critical = ["sick"]
at_least = 0.6
"""
TAIL = """
[training]
epochs = 12
batch_size = 50
"""
EXPERIMENTS = {
    "groups": ("cases.csv", TABLE.replace("MORE", 'group = "patient"')),
    "a split column": ("cases.csv", TABLE.replace("MORE", 'split = "part"\ngroup = "patient"')),
    "Parquet": ("cases.parquet", TABLE.replace("MORE", "")),
    "a stream": ("cases.parquet", STREAM),
    "images": ("images", IMAGES),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work") / "data"
    folder.mkdir()
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(draw.normal(size=(N, 2)), columns=["x0", "x1"])
    frame["outcome"] = np.where(frame["x0"] + draw.normal(size=N) > 0, "sick", "well")
    frame["site"] = np.array(["north", "south"])[draw.integers(0, 2, size=N)]
    frame["id"] = [f"case {n}" for n in draw.permutation(N)]
    patient = draw.integers(0, 100, size=N)
    frame["patient"] = patient
    splits = ["train", "validation", "certify", "test"]
    frame["part"] = np.array(splits)[draw.choice(4, p=[0.4, 0.2, 0.2, 0.2], size=100)][patient]
    sick = draw.uniform(0.1, 0.9, size=N)
    frame.to_csv(folder / "cases.csv", index=False)
    frame.to_parquet(folder / "cases.parquet")
    np.save(folder / "api.npy", np.stack([sick, 1 - sick], 1))
    pd.DataFrame({"case": frame["id"], "sick": sick, "well": 1 - sick})[::-1].to_csv(folder / "api.csv", index=False)
    pd.DataFrame({"case": frame["id"], "api": sick, "fitted": 1 - sick})[::-1].to_csv(folder / "w.csv", index=False)
    files = []
    for label in ("sick", "well"):
        (folder / "images" / label).mkdir(parents=True)
        for number in range(25):
            files.append(f"{label}/{number:02d}.png")
            pixels = draw.integers(0, 128, size=(6, 5)) + 100 * (label == "sick")
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / files[-1])
    said = pd.DataFrame({"file": files, "sick": sick[:50], "well": 1 - sick[:50]})
    said.to_csv(folder / "images.csv", index=False)
    return folder


def read_repeatable(path):
    """The content of a file; of verdict and trace all but what the clock and the memory of the machine said."""
    if path.name == "verdict.json":
        verdict = json.loads(path.read_text())
        assert {"wall_s", "memory"} <= set(verdict["point"])
        return repr({**verdict, "point": {k: v for k, v in verdict["point"].items() if k not in ("wall_s", "memory")}})
    if path.name == "trace.csv":
        return (
            pd.read_csv(path, dtype=str, keep_default_na=False)
            .drop(columns=[*MACHINE_COLUMNS], errors="ignore")
            .to_csv()
        )
    if path.name == "trace.jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [{name: repr(value) for name, value in row.items() if name not in MACHINE_COLUMNS} for row in rows]
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "saved"), [*((name, "effective.toml") for name in EXPERIMENTS), ("groups", "config.toml")]
)
def test_a_run_repeats_from_its_saved_configuration(data, tmp_path, monkeypatch, capsys, name, saved):
    source, text = EXPERIMENTS[name]
    work = data.parent
    (work / "experiments").mkdir(exist_ok=True)
    (work / "experiments" / "mine.toml").write_text(HEAD.replace("SOURCE", source) + text + TAIL)
    monkeypatch.chdir(work)
    one = tmp_path / "runs" / "one"
    ran = run_cli(capsys, "train", "experiments/mine.toml", "--run-dir", one)
    assert ran.code in (0, 1), ran.err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    again = run_cli(capsys, "train", f"../runs/one/{saved}", "--run-dir", "two")
    assert again.code == ran.code, again.err
    files = {path.name for path in one.iterdir()}
    assert files == {path.name for path in (elsewhere / "two").iterdir()}
    assert {"student.safetensors", "verdict.json", "trace.csv", "student.json", "weights.csv"} <= files
    for file in files - {"config.toml", "effective.toml", "manifest.json"}:  # the path to the data, and hashes of it
        assert read_repeatable(one / file) == read_repeatable(elsewhere / "two" / file), file
    first, second = (load_config(folder / "effective.toml") for folder in (one, elsewhere / "two"))
    assert first[1].resolve() == second[1].resolve() == (work / "experiments").resolve()
    assert first[0].model_copy(update={"folder": None}) == second[0].model_copy(update={"folder": None})


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_effective_configuration_states_every_default(data, tmp_path, monkeypatch, capsys, name):
    from safekd.experiment.config import format_config

    source, text = EXPERIMENTS[name]
    given = HEAD.replace("SOURCE", source) + text + TAIL
    effective = format_config(given)
    one, other = (parse_config(text, "it").model_dump(exclude_none=True) for text in (given, effective))
    assert (other["weights"].pop("lower"), other["weights"].pop("upper")) == (0.05, 0.6)
    assert one == other
    for line in (
        "seed = 0",
        'divergence = "forward_kl"',
        "learning_rate = 0.01",
        "targets = 11",
        'pool = "arithmetic"',
    ):
        assert line in effective
    assert format_config(effective) == effective


def test_defaults_that_follow_from_other_keys_are_stated():
    from safekd.experiment.config import format_config
    from tests.support.cases import load_cases_config

    text, _ = load_cases_config()
    text = text.replace("lower = 0.05\nupper = 0.6\n", "").replace('"truth_probability"', '"recall"')
    effective = parse_config(format_config(text + '\n[tighten]\non = "validation"\n'), "it")
    assert (effective.weights.lower, effective.weights.upper) == (0.05, 0.6)
    assert (effective.constraints[0].sharpness, effective.constraints[0].at) == (4.0, None)
    assert (effective.tighten.confidence, effective.tighten.rounds) == (0.95, 2)
    crossfit = parse_config(format_config(text + '\n[tighten]\non = "crossfit"\n'), "it").tighten
    assert (crossfit.confidence, crossfit.rounds) == (0.975, 4)
    single = text.replace('"recall"', '"log_truth_probability"')
    single = single[: single.index("[[teachers]]")] + single[single.rindex("[[teachers]]") :]
    effective = parse_config(format_config(single), "it")
    assert (effective.weights.lower, effective.weights.upper, effective.constraints[0].at) == (0.05, 1.0, 0.5)
