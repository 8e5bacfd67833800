"""StreamSource: batches that come in an order of their own, pass after pass."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from safekd.data import Batch, Split, StreamSource
from safekd.data.sources import _source_survey
from safekd.errors import InvalidInput

X = torch.arange(60.0).reshape(20, 3)
Y = torch.arange(20) % 3
DATA = TensorDataset(X, Y)


def batches(size=6):
    return [(X[i : i + size], Y[i : i + size]) for i in range(0, 20, size)]


def labels_of(passes):
    return torch.cat([batch.labels for batch in passes]).tolist()


class Shards(IterableDataset):
    """A stream of single examples, in another order each epoch."""

    def __init__(self):
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        for i in range(20):
            yield X[(i + self.epoch) % 20], Y[(i + self.epoch) % 20]


class Anew:
    """An object whose ``__iter__`` starts anew."""

    def __iter__(self):
        yield from batches()


KINDS = {
    "list": lambda: batches(),
    "object": Anew,
    "function": lambda: lambda: iter(batches()),
    "loader": lambda: DataLoader(DATA, 6),
    "loader of a stream": lambda: DataLoader(Shards(), 6),
    "workers": lambda: DataLoader(DATA, 6, num_workers=2),
    "workers that stay": lambda: DataLoader(DATA, 6, num_workers=2, persistent_workers=True),
    "stream by hand": lambda: DataLoader([(X[:12], Y[:12]), (X[12:], Y[12:])], batch_size=None),
    "lists": lambda: [[x, y] for x, y in batches()],
    "dictionaries": lambda: [{"labels": y.tolist(), "inputs": x.numpy()} for x, y in batches()],
    "batches": lambda: [Split("train", X, Y).batch(torch.arange(i, min(i + 6, 20))) for i in range(0, 20, 6)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_pass_reads_every_example(kind):
    source = StreamSource("train", KINDS[kind]())
    for _ in range(2):
        read = list(source.batches(4))
        assert torch.equal(torch.cat([batch.inputs for batch in read]), X)
        assert labels_of(read) == Y.tolist()
        assert max(map(len, read)) <= 4
        assert all(batch.place is None for batch in read)
    assert (len(source), source.positions) == (20, 20)
    assert source.numbered == (kind == "batches")
    assert sorted(labels_of(source.epoch_batches(1, seed=5))) == sorted(Y.tolist())


def test_a_pass_while_another_lasts_disturbs_neither():
    """Evaluations read a stream in the middle of an epoch; workers that stay know one pass at a time."""
    for kind in ("workers that stay", "loader", "list", "object"):
        source, read = StreamSource("train", KINDS[kind]()), []
        for batch in source.epoch_batches(1, seed=5):
            read.append(batch)
            assert labels_of(source.batches(20)) == Y.tolist()
        assert labels_of(read) == Y.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_a_function_of_its_seed_whatever_else_draws_numbers(workers):
    generator = torch.Generator().manual_seed(3)
    for own in (None, generator):
        source = StreamSource("train", DataLoader(DATA, 6, shuffle=True, num_workers=workers, generator=own))
        before = [torch.get_rng_state(), generator.get_state()], random.getstate(), str(np.random.get_state())  # noqa: NPY002
        first = labels_of(source.epoch_batches(1, seed=5))
        assert all(map(torch.equal, before[0], [torch.get_rng_state(), generator.get_state()]))
        assert before[1:] == (random.getstate(), str(np.random.get_state()))  # noqa: NPY002
        torch.randn(3), len(source)
        again = []
        for batch in source.epoch_batches(1, seed=5):
            torch.randn(2)
            again.append(batch)
        assert labels_of(again) == first != labels_of(source.epoch_batches(1, seed=6))
        assert labels_of(source.batches(20)) == labels_of(source.batches(20))
    other = StreamSource("train", DataLoader(DATA, 6, shuffle=True, generator=torch.Generator().manual_seed(4)))
    assert labels_of(other.epoch_batches(1, seed=5)) != first  # the seed that a loader was given counts


def test_samplers_and_datasets_are_told_the_epoch():
    sampler = DistributedSampler(DATA, num_replicas=1, rank=0, seed=1)
    source = StreamSource("train", DataLoader(DATA, 6, sampler=sampler))
    epochs = [labels_of(source.epoch_batches(epoch, seed=5)) for epoch in (1, 2, 1)]
    assert epochs[0] == epochs[2] != epochs[1]
    shards = StreamSource("train", DataLoader(Shards(), 6))
    assert labels_of(shards.epoch_batches(3, seed=5))[:3] == Y[3:6].tolist()
    assert len(shards) == 20
    passed = []
    for batch in shards.epoch_batches(4, seed=5):
        passed.append(batch)
        assert len(labels_of(shards.batches(20))) == 20  # which tells no dataset another epoch
        assert shards.loader.dataset.epoch == 4
    assert labels_of(passed)[:3] == Y[4:7].tolist()


def test_the_first_pass_counts():
    labels = torch.where(torch.arange(20).reshape(10, 2) % 5 == 0, -100, 1)
    source = StreamSource("train", lambda: [(X[:10], labels)], fields=("inputs", "labels"))
    assert (len(source), source.positions) == (10, 16)
    survey = StreamSource("train", DataLoader(DATA, 6)).survey
    assert (survey.examples, survey.batches, survey.batch_rows) == (20, 4, 6)


def test_content_is_known_again_whatever_its_order():
    one, other = (StreamSource("train", DataLoader(DATA, 6, shuffle=shuffle)) for shuffle in (False, True))
    assert one.seen.fingerprint == other.seen.fingerprint
    changed = StreamSource("train", DataLoader(TensorDataset(X, (Y + 1) % 3), 6))
    assert one.seen.fingerprint != changed.seen.fingerprint


def test_numbers_are_the_rows_of_tables():
    loader = DataLoader(TensorDataset(X, Y, torch.arange(20) + 100), 6)
    source = StreamSource("train", loader, fields=("inputs", "labels", "numbers"))
    assert next(iter(source.batches(20))).index.tolist() == list(range(100, 106))
    assert source.numbered
    plain = next(iter(StreamSource("train", batches()[1:]).batches(20)))
    assert (plain.index.tolist(), plain.numbered) == (list(range(6)), False)


def test_a_stream_without_an_end_is_cut():
    def forever():
        while True:
            yield from batches()

    source = StreamSource("train", forever, examples=25)
    assert labels_of(source.batches(20)) == [*Y.tolist(), *Y[:5].tolist()]
    assert (len(source), source.survey.batches) == (25, 5)
    with pytest.raises(InvalidInput, match="ended after 20 examples; `examples` asks for 30"):
        len(StreamSource("train", batches(), examples=30))


def test_a_stream_that_changes_its_length_is_told():
    size = [20]
    source = StreamSource("train", lambda: [(X[: size[0]], Y[: size[0]])])
    assert len(source) == 20
    size[0] = 19
    with pytest.raises(InvalidInput, match=r"`train` gave 19 examples in epoch 2, and 20 in its first pass.*examples="):
        list(source.epoch_batches(2, seed=5))
    with pytest.raises(InvalidInput, match="gave 19 examples in an evaluation, and 20"):
        list(source.batches(20))
    read = iter(batches())
    once = StreamSource("train", lambda: read)  # a function that gives the same iterator again
    assert len(once) == 20
    with pytest.raises(InvalidInput, match="gave no examples in epoch 1; give a stream that starts anew"):
        list(once.epoch_batches(1, seed=5))


REFUSED = {
    "a generator": ((b for b in batches()), {}, "is a generator, which can be read once.*lambda: read"),
    "an iterator": (iter(batches()), {}, "is a list_iterator, which can be read once"),
    "a number": (3, {}, "is a int; wanted batches: a DataLoader, a list, or a function"),
    "no examples": ([], {}, "gave no examples"),
    "single examples": (
        Shards(),
        {},
        r"gives single examples, a label of shape \(\).*DataLoader\(data, batch_size=64\)",
    ),
    "three parts": ([(X, Y, Y)], {}, "has 3 parts without names"),
    "a tensor": ([X], {}, "gives a Tensor; wanted batches that are tuples"),
    "no inputs": ([({}, Y)], {}, "inputs is an empty dictionary; wanted tensors by the student's argument names"),
    "a context below 0": (
        [{"inputs": X, "labels": Y, "context": Y - 9}],
        {},
        "context holds -9; wanted integers from 0",
    ),
    "lengths": ([(X[:5], Y)], {}, "inputs has 5 rows, labels have 20"),
    "inputs that are not finite": ([(X, Y), (X / 0, Y)], {}, "inputs of example 20 are not finite"),
    "examples": (batches(), {"examples": 0}, "`examples` is 0; wanted a whole number of at least 1"),
    "text": ([(X[:2], ["a", "b"])], {}, r"labels is text, 'a' say; give its names, class_names=\[...\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    data, settings, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        len(StreamSource("train", data, **settings))


def test_chosen_examples_are_refused():
    with pytest.raises(InvalidInput, match="`train` is a stream, read batch after batch in its order"):
        StreamSource("train", batches()).batch(torch.tensor([0]))


# ---- samples ----


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("examples", [1, 5, 19])
def test_a_sample_is_that_of_a_split(seed, examples):
    source = StreamSource("train", DataLoader(DATA, 6))
    sample, part = source.sample(examples, seed), Split("train", X, Y).sample(examples, seed)
    assert torch.equal(torch.cat([batch.inputs for batch in sample.batches(4)]), part.inputs)
    assert (len(sample), sample.positions, sample.name) == (examples, examples, "train")
    assert torch.equal(sample.batch(torch.tensor([0])).inputs, part.inputs[:1])
    assert sample.sample(3, seed=1) is sample


def test_all_of_a_stream_are_no_sample():
    source = StreamSource("train", batches())
    assert source.sample(20, seed=0) is source


def test_a_sample_is_drawn_fairly():
    hits = torch.zeros(20)
    for seed in range(2000):
        hits[Split("train", X, Y).sample(5, seed).numbers] += 1
    assert ((hits / 2000 - 0.25).abs() < 5 * (0.25 * 0.75 / 2000) ** 0.5).all()


@pytest.mark.parametrize("limits", [{"most_examples": 4}, {"most_bytes": 100}])
def test_the_first_pass_holds_no_more_than_it_may(monkeypatch, limits):
    monkeypatch.setattr(_source_survey, "RESERVOIR", _source_survey.ReservoirSettings(**limits))
    source = StreamSource("train", DataLoader(DATA, 2))
    assert len(source) == 20
    assert source._reservoir._held <= 2 * source._reservoir.most == 2 * (5 if "most_bytes" in limits else 4)
    asked, part = source.sample(10, seed=0), Split("train", X, Y).sample(10, seed=0)  # by a pass of its own
    assert torch.equal(asked.batch().inputs, part.inputs)


def test_a_sample_of_several_lengths_is_read_by_length():
    wide = [(torch.ones(3, n), torch.ones(3, n).long()) for n in (2, 4, 2)]
    sample = StreamSource("train", wide).sample(8, seed=0)
    assert sorted(batch.labels.shape[1] for batch in sample.batches(9)) == [2, 4]
    assert len(sample) == 8
    with pytest.raises(InvalidInput, match="several shapes"):
        sample.batch()


def test_a_batch_stays_what_it_is():
    given = Batch(X, Y, Y, Y, Y, numbered=True)
    (read,) = StreamSource("train", [given]).batches(20)
    assert torch.equal(read.context, Y)


class Watched(StatefulDataLoader):
    """A loader that has one iterator and knows where it is; it keeps that iterator to be looked at."""

    def __iter__(self):
        self.running = super().__iter__()
        return self.running


def test_a_loader_that_knows_where_it_is_keeps_its_pass():
    loader = Watched(DATA, 6, shuffle=True)
    source, passes = StreamSource("train", loader), []
    for batch in source.epoch_batches(1, seed=5):
        running = loader.running
        assert len(labels_of(source.batches(20))) == 20
        assert loader.running is running
        passes.append(batch)
    assert labels_of(passes) == labels_of(source.epoch_batches(1, seed=5))
