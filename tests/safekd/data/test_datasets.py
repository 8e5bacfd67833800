"""DatasetSource: what users have as datasets, read as it is needed, in any order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, TensorDataset

import safekd as kd
from safekd.data import DatasetSource, Split
from safekd.data.sources import _dataset_source
from safekd.errors import InvalidInput

X = torch.arange(30.0).reshape(10, 3)
Y = torch.arange(10) % 3


class Items(Dataset):
    """The items it is given; counts how often each was read."""

    def __init__(self, items):
        self.items, self.read = list(items), [0] * len(items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, place):
        if not 0 <= place < len(self.items):
            raise IndexError(place)
        self.read[place] += 1
        return self.items[place]


class Rows:
    """Rows as a Hugging Face dataset gives them: dictionaries of plain Python, and several at once."""

    def __init__(self, columns):
        self.columns = columns

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, place):
        return {name: values[place] for name, values in self.columns.items()}

    def __getitems__(self, places):
        return [self[place] for place in places]


class Pixels(Dataset):
    """Items whose inputs are another crop each time."""

    def __len__(self):
        return 40

    def __getitem__(self, place):
        return X[place % 10] + torch.randn(3), int(Y[place % 10])


ITEMS = {
    "tensors": [(x, y) for x, y in zip(X, Y, strict=True)],
    "arrays and numbers": [(x.numpy(), int(y)) for x, y in zip(X, Y, strict=True)],
    "lists": [(x.tolist(), int(y)) for x, y in zip(X, Y, strict=True)],
    "dictionaries": [{"labels": int(y), "inputs": x.tolist()} for x, y in zip(X, Y, strict=True)],
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ITEMS)
def test_examples_are_those_of_a_split(kind, workers):
    source, split = DatasetSource("train", Items(ITEMS[kind]), workers=workers), Split("train", X, Y)
    index = torch.tensor([7, 0, 7, 3])
    for mine, other in [
        (source.batch(index), split.batch(index)),
        *zip(source.batches(4), split.batches(4), strict=True),
        *zip(source.read_batches([index, index[:1]]), split.read_batches([index, index[:1]]), strict=True),
        (source.batch(Y == 0), split.batch(Y == 0)),
    ]:
        for name in ("inputs", "labels", "task", "context", "index", "place"):
            assert torch.equal(getattr(mine, name), getattr(other, name))
        assert (mine.split_size, mine.mask, mine.numbered) == (10, None, True)
    assert (len(source), source.positions, source.name) == (10, 10, "train")


def test_only_what_is_asked_for_is_read(monkeypatch):
    items = Items(ITEMS["tensors"] * 100)
    source = DatasetSource("train", items)
    first = sum(items.read)
    source.batch(torch.tensor([500, 501]))
    assert first == 2 * _dataset_source.SETTINGS.read_twice
    assert sum(items.read) == first + 2


def test_large_examples_are_read_few_at_a_time(monkeypatch):
    monkeypatch.setattr(_dataset_source, "SETTINGS", _dataset_source.DatasetSettings(batch_bytes=3 * 20))
    sizes = [len(batch) for batch in DatasetSource("train", TensorDataset(X, Y)).batches(10)]
    assert sum(sizes) == 10
    assert max(sizes) == 3  # of 12 bytes and a label of 8


def test_columns_are_named_and_others_left_alone():
    ids = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    rows = Rows({"ids": ids, "attention": [[1, 1, 0]] * 3, "text": ["a", "bb", "c"], "y": [0, 1, 1], "row": [9, 5, 7]})
    fields = {"inputs": ["ids", "attention"], "labels": "y", "numbers": "row"}
    batch = DatasetSource("train", rows, fields=fields).batch(torch.tensor([2, 0]))
    assert {name: value.tolist() for name, value in batch.inputs.items()} == {
        "ids": [[7, 8, 9], [1, 2, 3]],
        "attention": [[1, 1, 0], [1, 1, 0]],
    }
    assert batch.index.tolist() == [7, 9]
    assert batch.place.tolist() == [2, 0]
    assert batch.split_size is None
    renamed = DatasetSource("train", rows, fields={"inputs": {"input_ids": "ids"}, "labels": "y"}).batch()
    assert renamed.inputs["input_ids"].tolist() == ids


def test_parts_in_order_with_one_left_out():
    items = Items([(x, "name", y, c) for x, y, c in zip(X, Y, Y, strict=True)])
    batch = DatasetSource("train", items, fields=("inputs", None, "labels", "context")).batch(torch.tensor([4, 5]))
    assert torch.equal(batch.context, Y[[4, 5]])
    assert torch.equal(batch.inputs, X[[4, 5]])


def test_text_is_numbered_by_the_names_that_are_given():
    items = Items([(X[0], "dog"), (X[1], "cat")])
    source = DatasetSource("train", items, class_names=["ant", "cat", "dog"])
    assert source.batch().labels.tolist() == [2, 1]
    assert source.names.classes == ("ant", "cat", "dog")
    with pytest.raises(InvalidInput, match=r"`train`: labels is text, 'dog' say; give its names, class_names=\[...\]"):
        DatasetSource("train", items)


def pad(items):
    ids = pad_sequence([ids for ids, _ in items], batch_first=True)
    return {"inputs": ids, "labels": pad_sequence([y for _, y in items], batch_first=True, padding_value=-100)}


SEQUENCES = [(torch.arange(1, n + 1), torch.arange(n) % 2) for n in (3, 5, 2, 4)]


def test_unequal_lengths_are_padded_by_a_collate_function():
    source = DatasetSource("train", Items(SEQUENCES), collate=pad)
    batch = source.batch(torch.tensor([0, 1]))
    assert batch.mask.sum(1).tolist() == [3, 5]
    assert batch.labels.tolist() == [[0, 1, 0, 0, 0], [0, 1, 0, 1, 0]]
    assert source.positions == 14
    assert [batch.labels.shape for batch in source.batches(1)] == [(1, 3), (1, 5), (1, 2), (1, 4)]


def test_how_far_an_example_is_padded_is_no_part_of_what_it_is():
    alone = DatasetSource("train", Items(SEQUENCES), collate=pad)
    together = DatasetSource("train", Items(SEQUENCES), collate=pad)
    list(alone.batches(1))
    list(together.batches(4))
    assert alone.seen.fingerprint == together.seen.fingerprint


def test_unequal_lengths_without_one_are_told_what_to_do():
    with pytest.raises(
        InvalidInput, match=r"unequal lengths: part 1 has shape \(3,\) in one and \(5,\) in another.*collate=.*-100"
    ):
        DatasetSource("train", Items(SEQUENCES))
    rows = Rows({"ids": [[1, 2], [1]], "labels": [0, 1]})
    with pytest.raises(InvalidInput, match=r"unequal lengths: 'ids' has shape \(2,\) in one and \(1,\)"):
        DatasetSource("train", rows, fields={"inputs": "ids", "labels": "labels"})


REFUSED = {
    "no length": (iter([1]), {}, "list_iterator, which has no length or no items.*StreamSource"),
    "empty": (Items([]), {}, "`train` has no examples"),
    "objects": (Items([(object(), 1)]), {}, "cannot be made one batch .*collate="),
    "lone inputs": (Items([X[0]]), {}, "gives a Tensor; wanted batches that are tuples"),
    "three parts": (Items([(X[0], Y[0], Y[0])]), {}, "has 3 parts without names"),
    "real labels": (Items([(X[0], 0.5)]), {}, r"`train`: labels is torch.float64; wanted integers"),
    "negative": (Items([(X[0], -2)]), {}, "labels holds -2; wanted integers from 0, or -100"),
    "many workers": (Items([(X[0], 1)]), {"workers": -1}, "`workers` is -1"),
    "unknown class": (Items([(X[0], 2)]), {"class_names": ["a", "b"]}, "labels hold 2, but class_names has 2 names"),
    "another part": (Rows({"pixels": [[1.0]], "labels": [0]}), {}, "no part 'pixels'"),
    "wide context": (
        Items([(X[0], 1, X[0].long())]),
        {"fields": ("inputs", "labels", "context")},
        r"context has shape \(1, 3\); wanted one number an example",
    ),
    "a mask of another shape": (
        Items([(X[0], 1, X[0] > 0)]),
        {"fields": ("inputs", "labels", "mask")},
        r"mask has shape \(1, 3\); wanted booleans of the labels' shape \(1,\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    data, settings, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        DatasetSource("train", data, **settings)


def test_inputs_that_are_not_finite_are_told_when_they_are_first_read():
    bad = X.clone()
    bad[6, 1] = np.nan
    with pytest.raises(InvalidInput, match="`train`: inputs of example 6 are not finite"):
        len(list(DatasetSource("train", TensorDataset(bad, Y)).batches(4)))


def test_a_sample_is_that_of_a_split_and_keeps_its_numbers():
    part = DatasetSource("train", TensorDataset(X, Y)).sample(4, seed=3)
    other = Split("train", X, Y).sample(4, seed=3)
    assert torch.equal(part.batch().index, other.batch().index)
    assert torch.equal(part.batch().inputs, other.inputs)
    assert part.batch().place.tolist() == [0, 1, 2, 3]
    assert part.batch().split_size is None
    assert len(part.sample(2, seed=0)) == 2
    assert part.sample(4, seed=0) is part


def test_teachers_are_asked_anew_where_items_change_from_reading_to_reading():
    assert DatasetSource("train", TensorDataset(X, Y)).repeats
    source = DatasetSource("train", Pixels())
    assert not source.repeats
    assert source.batch(torch.tensor([1])).place is None
    asked = []

    def answer(x):
        asked.append(x)
        return torch.zeros(len(x), 3)

    student = torch.nn.Linear(3, 3)
    teacher = kd.teachers.CallableTeacher("t", answer, gives="logits")
    adam = torch.optim.Adam(student.parameters())
    trainer = kd.ConstrainedTrainer(student, [teacher], optimizer=adam, batch_size=20)
    trainer.fit(Pixels(), epochs=2, trace_every=4)  # small, and no Split all the same
    assert sum(map(len, asked)) == 40 * (2 + 1 + 2)  # two epochs, step 0, and two students at the end


@pytest.mark.parametrize("workers", [0, 2])
def test_items_that_change_are_functions_of_seed_and_place(workers):
    source, index = DatasetSource("train", Pixels(), workers=workers), [torch.tensor([3, 1]), torch.tensor([7])]
    first = torch.cat([batch.inputs for batch in source.read_batches(index, 5)])
    torch.randn(3)
    assert torch.equal(first[2:], next(source.read_batches(index[1:], 5)).inputs)
    assert torch.equal(
        first, torch.cat([batch.inputs for batch in DatasetSource("t", Pixels()).read_batches(index, 5)])
    )
    assert not torch.equal(first, torch.cat([batch.inputs for batch in source.read_batches(index, 6)]))
    one, other = (torch.cat([batch.inputs for batch in source.batches(rows)]) for rows in (7, 40))
    assert torch.equal(one, other)


def test_the_generators_of_a_run_are_left_alone():
    before = torch.get_rng_state()
    list(DatasetSource("train", Pixels(), workers=2).read_batches([torch.tensor([1])], 3))
    assert torch.equal(before, torch.get_rng_state())
