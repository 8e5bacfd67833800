"""Split, Batch and as_split: what they hold, and what they refuse in which words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from safekd.data import Batch, Split, as_split
from safekd.errors import InvalidInput, SafekdError

X = torch.arange(8.0).reshape(4, 2)
Y = torch.tensor([0, 1, 2, 0])


class Pairs(Dataset):
    """A map-style dataset of the items it is given."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_a_batch_holds_the_examples_asked_for():
    split = Split("train", X, Y.to(torch.int32), task=torch.tensor([1, 0, 1, 0], dtype=torch.uint8))
    batch = split.batch(torch.tensor([2, 0, 2]))
    assert torch.equal(batch.inputs, X[[2, 0, 2]])
    assert batch.labels.tolist() == [2, 0, 2]
    assert batch.task.tolist() == [1, 1, 1]
    assert batch.context.tolist() == [0, 0, 0]
    assert batch.index.tolist() == [2, 0, 2]
    assert {batch.labels.dtype, batch.task.dtype, batch.context.dtype, batch.index.dtype} == {torch.long}
    assert len(batch) == 3


def test_a_mask_picks_examples_like_their_numbers():
    split = Split("train", X, Y, context=torch.tensor([0, 1, 1, 0]))
    batch = split.batch(Y == 0)
    assert batch.index.tolist() == [0, 3]
    assert len(batch.task) == len(batch.context) == len(batch) == 2


def test_all_of_them_without_an_index():
    batch = Split("train", X, Y).batch()
    assert torch.equal(batch.inputs, X)
    assert batch.index.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_chunks_cover_every_example_once_and_in_order(size):
    split = Split("train", X, Y)
    parts = list(split.chunks(size))
    assert torch.cat(parts).tolist() == [0, 1, 2, 3]
    assert max(map(len, parts)) <= size


def test_labels_may_carry_positions():
    split = Split("train", torch.zeros(2, 5, 3), torch.ones(2, 5, dtype=torch.long), context=torch.tensor([1, 0]))
    batch = split.batch(torch.tensor([1]))
    assert batch.labels.shape == (1, 5)
    assert batch.context.shape == (1,)


def test_moving_a_batch_moves_every_tensor():
    moved = Split("train", X, Y, context=Y).batch().to("meta")
    assert {getattr(moved, name).device.type for name in Batch.__dataclass_fields__} == {"meta"}


def test_moving_a_split_keeps_what_it_holds():
    split = Split("train", X, Y, context=Y, context_names=("a", "b", "c")).to("cpu")
    assert (split.name, split.context_names, split.task) == ("train", ("a", "b", "c"), None)
    assert torch.equal(split.context, Y)


def test_integer_inputs_stay_integers():
    assert Split("train", X.long(), Y).batch().inputs.dtype == torch.long


REFUSED = {
    "none": ({"labels": Y[:0]}, "Split 'train' has no examples; give at least one"),
    "no positions": ({"labels": Y.reshape(4, 1)[:, :0]}, "has no examples"),
    "a scalar label": ({"labels": torch.tensor(1)}, "has no examples"),
    "short inputs": ({"inputs": X[:3]}, "inputs has 3 rows, labels have 4; wanted equal"),
    "scalar inputs": ({"inputs": torch.tensor(1.0)}, "inputs has no rows, labels have 4"),
    "short task": ({"task": Y[:2]}, "task has 2 rows, labels have 4"),
    "scalar context": ({"context": torch.tensor(0)}, "context has no rows, labels have 4"),
    "real labels": ({"labels": Y.float()}, r"labels is torch.float32; wanted integers from 0, e.g. .long\(\)"),
    "bool labels": ({"labels": Y > 0}, "labels is torch.bool"),
    "real context": ({"context": Y.double()}, "context is torch.float64"),
    "negative label": ({"labels": torch.tensor([0, -100, 1, 2])}, "labels holds -100; wanted integers from 0"),
    "negative task": ({"task": -Y}, "task holds -2"),
    "nan": ({"inputs": X.clone().index_fill_(0, torch.tensor([2]), float("nan"))}, "inputs of row 2 are not finite"),
    "inf": ({"inputs": X.clone().index_fill_(0, torch.tensor([1, 3]), float("inf"))}, "row 1 .*clean or drop that row"),
    "array": ({"inputs": X.numpy()}, "inputs is a ndarray; wanted a tensor, e.g. torch.as_tensor"),
    "list": ({"labels": [0, 1, 2, 0]}, "labels is a list; wanted a tensor"),
    "context list": ({"context": [0, 1, 2, 0]}, "context is a list; wanted a tensor"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    settings, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        Split(**{"name": "train", "inputs": X, "labels": Y, **settings})
    assert issubclass(InvalidInput, SafekdError)


def test_as_split_keeps_a_split():
    split = Split("mine", X, Y)
    assert as_split(split, "train") is split


DATA = {
    "pair of tensors": (X, Y),
    "TensorDataset": TensorDataset(X, Y),
    "numbers": Pairs(*[(x, int(y)) for x, y in zip(X, Y, strict=True)]),
    "arrays": Pairs(*[(x.numpy(), np.int64(y)) for x, y in zip(X, Y, strict=True)]),
    "lists": Pairs(*[(x.tolist(), y) for x, y in zip(X, Y, strict=True)]),
}


@pytest.mark.parametrize("kind", DATA)
def test_as_split_reads(kind):
    split = as_split(DATA[kind], "validation")
    assert split.name == "validation"
    assert torch.equal(split.inputs, X)
    assert torch.equal(split.labels, Y)


def test_as_split_reads_a_dataset_of_sequences():
    inputs, labels = torch.zeros(3, 5, 2), torch.arange(15).reshape(3, 5)
    split = as_split(TensorDataset(inputs, labels), "train")
    assert torch.equal(split.labels, labels)


def test_as_split_reads_task_and_context():
    task, context = torch.tensor([0, 1, 0, 1]), torch.tensor([2, 2, 0, 0])
    for data in ((X, Y, task, context), TensorDataset(X, Y, task, context)):
        split = as_split(data, "train")
        assert torch.equal(split.task, task)
        assert torch.equal(split.context, context)
    assert as_split(TensorDataset(X, Y, task), "train").context is None


NOT_DATA = {
    "dict": ({"inputs": X, "labels": Y}, "`train` is a dict; wanted a kd.Split, tensors"),
    "frame": (pd.DataFrame({"x": [1.0]}), "`train` is a DataFrame"),
    "array": (X.numpy(), "`train` is a ndarray"),
    "tensor": (X, "`train` is a Tensor"),
    "list of tensors": ([X, Y], "`train` is a list"),
    "pair of arrays": ((X.numpy(), Y.numpy()), "`train` is a tuple"),
    "none": (None, "`train` is a NoneType"),
    "text": ("train.csv", "`train` is a str"),
    "empty dataset": (Pairs(), "`train` is a Pairs"),
    "dataset of inputs": (
        TensorDataset(X),
        "`train` is a TensorDataset; .* a torch dataset whose items are such tuples",
    ),
    "images": (Pairs((object(), 1)), "The inputs of `train` cannot be stacked into one tensor"),
    "ragged labels": (Pairs((X[0], Y[:2]), (X[1], Y[:3])), "The labels of `train` cannot be stacked.*of one shape"),
    "real labels": (TensorDataset(X, Y.float()), "labels is torch.float32"),
    "loader": (DataLoader(TensorDataset(X, Y)), r"`train` is a DataLoader; .* pass its .dataset"),
    "five parts": ((X, Y, Y, Y, Y), "`train` is a tuple"),
    "uneven items": (Pairs((X[0], 1), (X[1], 1, 0)), "`train` is a Pairs"),
}


@pytest.mark.parametrize("kind", NOT_DATA)
def test_as_split_refuses(kind):
    data, message = NOT_DATA[kind]
    with pytest.raises(InvalidInput, match=message):
        as_split(data, "train")
