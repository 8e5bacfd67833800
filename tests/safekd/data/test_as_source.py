"""as_source: what ``fit`` takes, and as what."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from safekd.data import DatasetSource, Split, StreamSource, as_source
from safekd.data.sources import _as_source
from safekd.errors import InvalidInput

X, Y = torch.arange(30.0).reshape(10, 3), torch.arange(10) % 3
DATA = TensorDataset(X, Y)


class Cropped:
    def __len__(self):
        return 10

    def __getitem__(self, place):
        return X[place] + torch.rand(3), Y[place]


class Shards(IterableDataset):
    def __iter__(self):
        yield X, Y


KINDS = {
    "split": (Split("mine", X, Y), Split),
    "tensors": ((X, Y), Split),
    "dictionary": ({"inputs": X, "labels": Y}, Split),
    "dataset": (DATA, Split),
    "list of examples": ([(x, int(y)) for x, y in zip(X, Y, strict=True)], Split),
    "random crops": (Cropped(), DatasetSource),
    "source": (DatasetSource("mine", DATA), DatasetSource),
    "loader": (DataLoader(DATA, 4), StreamSource),
    "list of batches": ([(X, Y), (X, Y)], StreamSource),
    "batches that are dictionaries": ([{"inputs": X, "labels": Y}], StreamSource),
    "function": (lambda: iter([(X, Y)]), StreamSource),
    "iterable dataset": (Shards(), StreamSource),
}


@pytest.mark.parametrize("kind", KINDS)
def test_data_become(kind):
    data, wanted = KINDS[kind]
    source = as_source(data, "train")
    assert type(source) is wanted
    assert len(source) in (10, 20)
    assert source.name == ("mine" if kind in ("split", "source") else "train")


def test_large_datasets_stay_where_they_are(monkeypatch):
    monkeypatch.setattr(_as_source, "SETTINGS", _as_source.SourceSettings(split_bytes=10 * (12 + 8)))
    assert type(as_source(DATA, "train")) is Split
    monkeypatch.setattr(_as_source, "SETTINGS", _as_source.SourceSettings(split_bytes=10 * (12 + 8) - 1))
    assert type(as_source(DATA, "train")) is DatasetSource


REFUSED = {
    "generator": ((batch for batch in [(X, Y)]), "is a generator, which can be read once"),
    "frame": (pd.DataFrame({"x": [1.0]}), "`train` is a DataFrame"),
    "tensor": (X, "`train` is a Tensor"),
    "text": ("train.csv", "`train` is a str"),
    "number": (3, "`train` is a int"),
    "list of tensors": ([X, Y], "`train` is a list"),
    "empty list": ([], "`train` is a list"),
    "sequences or batches": (
        [(Y, Y)],
        r"inputs and labels have shape .*10.*: batches of single numbers, or sequences\?",
    ),
    "unequal lengths": (
        [(X[0], 1), (X[0, :2], 1)],
        r"The inputs of `train` cannot be stacked .*kd.data.DatasetSource\('train', data, collate=...\)",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_a_message_that_helps(kind):
    data, message = REFUSED[kind]
    with pytest.raises(InvalidInput, match=message):
        as_source(data, "train")
