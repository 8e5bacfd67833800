"""An experiment file that names what teachers said, in a file of any format."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from safekd.errors import InvalidConfig, InvalidInput
from safekd.experiment import build_experiment
from safekd.experiment.config import load_config

ROWS = 120
CONFIG = """
[data]
source = "cases.csv"
label = "outcome"
[[teachers]]
name = "api"
kind = "stored"
path = "PATH"
MORE
[student]
hidden = []
[[constraints]]
name = "sick"
critical = ["sick"]
at_least = 0.5
[training]
epochs = 5
"""
CLASSES = ["sick", "well"]
P_NV = torch.softmax(torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(0)), -1)


def store(path, rows):
    if path.suffix == ".npy":
        np.save(path, rows.numpy())
    elif path.suffix == ".safetensors":
        save_file({"a": rows.contiguous(), "b": torch.ones(1)}, path)
    else:
        frame = pd.DataFrame(rows.numpy(), columns=CLASSES)[CLASSES[::-1]]  # columns go by their names
        frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


def build(folder, name, more="", rows=P_NV):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 2))
    label = np.where(x.sum(1) + rng.normal(size=ROWS) > 0, "sick", "well")
    pd.DataFrame(x, columns=["x0", "x1"]).assign(outcome=label).to_csv(folder / "cases.csv", index=False)
    store(folder / name, rows)
    (folder / "mine.toml").write_text(CONFIG.replace("PATH", name).replace("MORE", more))
    return build_experiment(*load_config(folder / "mine.toml"))


def said(experiment):
    split = experiment.validation
    return experiment.ensemble.log_probabilities(split.batch(), split.name)[:, 0].exp().float()


@pytest.mark.parametrize("name", ["t.npy", "t.safetensors", "t.parquet"])
@pytest.mark.parametrize("gives", ["probabilities", "logits", "log_probabilities"])
def test_every_format_gives_each_split_the_rows_of_its_examples(name, gives, tmp_path):
    more = 'tensor = "a"' * name.endswith("tensors") + f'\ngives = "{gives}"'
    rows = P_NV if gives == "probabilities" else P_NV.log() + 2 * (gives == "logits")
    expected = said(build(tmp_path, "t.csv"))
    assert torch.allclose(said(build(tmp_path, name, more, rows)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "more", "rows", "message"),
    [
        ("t.npy", "", P_NV[:100], r"'api': t.npy holds a table of shape \(100, 2\); wanted \(120, 2\)"),
        ("t.npy", "", P_NV[:, :1], r"shape \(120, 1\); wanted .* in this order: sick, well"),
        ("t.safetensors", "", P_NV, r"'api': .*t.safetensors holds 2 tensors; it holds: 'a', 'b'"),
        ("t.csv", 'tensor = "a"', P_NV, "`tensor` is of a .safetensors file; t.csv is none"),
        ("t.npy", 'gives = "odds"', P_NV, r"'teachers\[0\].gives' is 'odds'"),
    ],
)
def test_what_does_not_fit_is_refused(name, more, rows, message, tmp_path):
    with pytest.raises((InvalidInput, InvalidConfig), match=message):
        build(tmp_path, name, more, rows)
