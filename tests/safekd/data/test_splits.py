"""Split, Batch and as_split: what they hold, and what they refuse in which words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import safekd as kd
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
    tensors = [name for name in Batch.__dataclass_fields__ if name not in ("split_size", "mask", "numbered")]
    assert {getattr(moved, name).device.type for name in tensors} == {"meta"}


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
    "negative label": (
        {"labels": torch.tensor([0, -1, 1, 2])},
        "labels holds -1; wanted integers from 0, or -100 where a position does not count",
    ),
    "nothing that counts": (
        {"labels": Y * 0 - 100},
        "has no position that counts: of 4 all have label -100 or are mas",
    ),
    "nothing left": ({"labels": Y, "mask": Y > 2}, "has no position that counts"),
    "mask of numbers": (
        {"mask": Y},
        r"mask holds other numbers than 0 and 1; wanted booleans of the labels' shape \(4,\).* An attention mask",
    ),
    "mask of the inputs": ({"mask": X > 1}, r"mask has shape \(4, 2\); wanted booleans of the labels' shape \(4,\)"),
    "negative task": ({"task": -Y}, "task holds -2"),
    "nan": ({"inputs": X.clone().index_fill_(0, torch.tensor([2]), float("nan"))}, "inputs of row 2 are not finite"),
    "inf": ({"inputs": X.clone().index_fill_(0, torch.tensor([1, 3]), float("inf"))}, "row 1 .*clean or drop that row"),
    "empty dictionary": (
        {"inputs": {}},
        r"inputs is a dictionary with keys \[\]; wanted the names of at least one arg",
    ),
    "numbers for names": ({"inputs": {0: X}}, r"inputs is a dictionary with keys \[0\]"),
    "text in a dictionary": ({"inputs": {"ids": "text"}}, r"inputs\['ids'\] is a str; wanted a tensor, an array or a"),
    "short dictionary": ({"inputs": {"a": X, "b": X[:3]}}, r"inputs\['b'\] has 3 rows, labels have 4; wanted equal"),
    "nan in a dictionary": ({"inputs": {"a": X, "b": X / 0}}, r"inputs\['b'\] of row 0 are not finite"),
    "ragged list": (
        {"inputs": [[1.0], [1.0, 2.0], [1.0], [1.0]]},
        "inputs cannot be made a tensor .* all of one length",
    ),
    "real list": ({"labels": [0.0, 1.0, 2.0, 0.0]}, "labels is torch.float32"),
    "missing name": ({"labels": ["a", None, "b", "a"]}, "labels holds names, but None at place 1"),
    "unknown name": (
        {"labels": ["a", "b", "c", "bad"], "class_names": ["a", "b", "c", "bat"]},
        r"no name 'bad' in the names of the labels; there is 'a', 'b', 'c', 'bat'. Did you mean 'bat'\?",
    ),
    "class without a name": ({"class_names": ["a", "b"]}, "labels hold 2, but class_names has 2 names"),
    "two of a name": ({"class_names": ["a", "b", "a"]}, "two of the names of the labels are 'a'"),
    "a number of names": ({"class_names": 2}, "names of the labels are 2; wanted a list of text"),
    "an array of no axis": ({"class_names": np.array(2)}, r"names of the labels are array\(2\); wanted a list of text"),
    "one text of names": ({"class_names": "abc"}, "names of the labels are 'abc'; wanted a list of text"),
    "task a position": ({"task": torch.zeros(4, 3).long()}, r"task has shape \(4, 3\); wanted one number an example"),
    "context a position": ({"context": Y.reshape(4, 1)}, r"context has shape \(4, 1\)"),
    "mask for labels": ({"labels": X > 0}, r"labels is torch.bool of the inputs' shape \(4, 2\), as a mask is"),
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
    "pair of arrays": (X.numpy(), Y.numpy()),
    "pair of lists": (X.tolist(), Y.tolist()),
    "dictionary": {"labels": Y, "inputs": X},
    "dictionaries": Pairs(*[{"inputs": x, "labels": int(y)} for x, y in zip(X, Y, strict=True)]),
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


def test_as_split_reads_task_and_context_by_name():
    task, context = torch.tensor([0, 1, 0, 1]), torch.tensor([2, 2, 0, 0])
    for data in ((X, Y, task, context), TensorDataset(X, Y, task, context)):
        split = as_split(data, "train", fields=("inputs", "labels", "task", "context"))
        assert torch.equal(split.task, task)
        assert torch.equal(split.context, context)
        assert as_split(data, "train", fields=("inputs", "labels", "task", None)).context is None


NOT_DATA = {
    "dictionary without labels": ({"inputs": X, "task": Y}, "`train` has no labels; it has 'inputs', 'task'"),
    "dictionary of other names": (
        {"pixels": X, "labels": Y},
        "no part 'pixels' in a Split .*fields={'inputs': ..., 'labels': ...}",
    ),
    "frame": (pd.DataFrame({"x": [1.0]}), "`train` is a DataFrame"),
    "array": (X.numpy(), "`train` is a ndarray"),
    "tensor": (X, "`train` is a Tensor"),
    "list of tensors": ([X, Y], "`train` is a list"),
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
    "five parts": ((X, Y, Y, Y, Y), "`train` has 5 parts without names"),
    "one part": ((X,), "`train` is a tuple"),
    "uneven items": (Pairs((X[0], 1), (X[1], 1, 0)), "`train` is a Pairs"),
}


@pytest.mark.parametrize("kind", NOT_DATA)
def test_as_split_refuses(kind):
    data, message = NOT_DATA[kind]
    with pytest.raises(InvalidInput, match=message):
        as_split(data, "train")


# ---- what is ambiguous is asked for by name ----

IDS = torch.tensor([[5, 7, 0], [3, 2, 9], [4, 0, 0], [8, 8, 1]])
MASK = (IDS > 0).long()


@pytest.mark.parametrize("data", [TensorDataset(IDS, MASK, Y), (IDS, MASK, Y), Pairs(*zip(IDS, MASK, Y, strict=True))])
def test_three_tensors_without_names_are_asked_for_their_names(data):
    with pytest.raises(InvalidInput, match=r"`train` has 3 parts without names.*fields=\(.*kd.Split\(name"):
        as_split(data, "train")
    split = as_split(data, "train", fields=("inputs", None, "labels"))
    assert torch.equal(split.inputs, IDS)
    assert torch.equal(split.labels, Y)


def test_a_mask_is_told_where_it_goes():
    with pytest.raises(InvalidInput, match=r"part 'attention_mask', and it is not clear what .*inputs.attention_mask"):
        as_split(TensorDataset(IDS, MASK, Y), "train", fields=("inputs", "attention_mask", "labels"))
    with pytest.raises(InvalidInput, match=r"mask has shape \(4, 3\); wanted booleans of the labels' shape \(4,\)"):
        as_split(TensorDataset(IDS, MASK, Y), "train", fields=("inputs", "mask", "labels"))


def test_a_mask_of_positions_is_a_part():
    for data, fields in [
        (TensorDataset(IDS, MASK > 0, IDS), ("inputs", "mask", "labels")),
        ({"inputs": IDS, "mask": MASK, "labels": IDS}, None),
        ({"x": IDS, "counted": MASK > 0, "y": IDS}, {"inputs": "x", "mask": "counted", "labels": "y"}),
    ]:
        assert torch.equal(as_split(data, "train", fields=fields).mask, MASK > 0)


def test_parts_are_put_together_as_a_dictionary_of_inputs():
    ids = {"input_ids": IDS, "attention_mask": MASK, "labels": Y}
    items = [
        {"inputs": {"input_ids": i, "attention_mask": m}, "labels": y} for i, m, y in zip(IDS, MASK, Y, strict=True)
    ]
    for data, fields in [
        (TensorDataset(IDS, MASK, Y), ("inputs.input_ids", "inputs.attention_mask", "labels")),
        (ids, {"inputs": ["input_ids", "attention_mask"], "labels": "labels"}),
        ({"inputs.input_ids": IDS, "inputs.attention_mask": MASK, "labels": Y}, None),
        ({"inputs": {"input_ids": IDS, "attention_mask": MASK}, "labels": Y}, None),
        (({"input_ids": IDS, "attention_mask": MASK}, Y), None),
        (Pairs(*items), None),
        (Pairs(*((item["inputs"], item["labels"]) for item in items)), None),
    ]:
        split = as_split(data, "train", fields=fields)
        assert list(split.inputs) == ["input_ids", "attention_mask"]
        batch = split.part(torch.tensor([3, 1])).batch(torch.tensor([1]))
        assert torch.equal(batch.inputs["input_ids"], IDS[[1]])
        assert torch.equal(batch.inputs["attention_mask"], MASK[[1]])
    with pytest.raises(InvalidInput, match=r"has parts 'inputs' and 'inputs.a'; wanted one tensor"):
        as_split((IDS, IDS, Y), "train", fields=("inputs", "inputs.a", "labels"))
    with pytest.raises(InvalidInput, match=r"no part 'input_ids' in a Split .*fields="):
        as_split(ids, "train")


def test_a_mask_is_not_taken_for_labels():
    with pytest.raises(InvalidInput, match=r"second part is 0 or 1 everywhere and of the inputs' shape \(4, 3\)"):
        as_split(TensorDataset(IDS, MASK), "train")
    assert torch.equal(as_split((IDS, MASK), "train", fields=("inputs", "labels")).labels, MASK)  # said by name
    assert torch.equal(as_split((IDS, IDS), "train").labels, IDS)  # more than two values: tags
    assert torch.equal(as_split((IDS.float(), MASK), "train").labels, MASK)  # pixels and what they show


FIELDS = {
    "too few": (("inputs", "labels"), "`fields` names 2 of the 3 parts"),
    "twice": (("inputs", "inputs", "labels"), "wanted each name once"),
    "unknown": (("inputs", "lables", None), "no part 'lables' in a Split .*Did you mean 'labels'"),
    "no labels": (("inputs", None, None), "has no labels"),
    "text": ("inputs", "`fields` names 1 of the 3 parts"),
    "by name": ({"inputs": "a", "labels": "b"}, "the parts of `train` have no names; give them in order"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_fields_that_do_not_fit(case):
    fields, message = FIELDS[case]
    with pytest.raises(InvalidInput, match=message):
        as_split((IDS, MASK, Y), "train", fields=fields)


def test_parts_of_other_names_are_given_by_name():
    data = {"pixels": X, "digit": Y, "junk": MASK}
    split = as_split(data, "train", fields={"inputs": "pixels", "labels": "digit"})
    assert torch.equal(split.inputs, X)
    assert torch.equal(split.labels, Y)
    with pytest.raises(InvalidInput, match=r"no part 'digits' in `train`.*Did you mean 'digit'"):
        as_split(data, "train", fields={"inputs": "pixels", "labels": "digits"})
    with pytest.raises(InvalidInput, match=r"have names, .*`fields` is in order; give it by name"):
        as_split(data, "train", fields=("inputs", "labels", None))


# ---- arrays, lists and names ----


def test_arrays_lists_and_columns_are_taken():
    frame = pd.DataFrame({"a": [0.0, 2.0, 4.0, 6.0], "b": [1.0, 3.0, 5.0, 7.0]})
    for inputs in (X.double().numpy(), frame):
        split = Split("train", inputs, pd.Series([0, 1, 2, 0]))
        assert split.inputs.dtype == torch.float64  # as the array had it
        assert torch.equal(split.inputs.float(), X)
        assert torch.equal(split.labels, Y)
    assert Split("train", X.tolist(), [0, 1, 2, 0]).inputs.dtype == torch.float32
    assert torch.equal(Split("train", list(X), list(Y)).inputs, X)


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, lambda v: pd.Series(v, dtype="category")])
def test_labels_and_groups_are_taken_by_name(kind):
    split = Split(
        "train",
        X,
        kind(["cat", "dog", "ant", "cat"]),
        context=kind(["night", "day", "day", "day"]),
        context_names=["day", "dusk", "night"],
        task=kind(["t", "t", "s", "s"]),
        cluster=kind(["p7", "p1", "p1", "p3"]),
    )
    assert split.class_names == ("ant", "cat", "dog")
    assert split.labels.tolist() == [1, 2, 0, 1]
    assert split.context.tolist() == [2, 0, 0, 0]
    assert (split.task_names, split.task.tolist()) == (("s", "t"), [1, 1, 0, 0])
    assert split.cluster.tolist() == [2, 0, 0, 1]
    part = split.part(torch.tensor([3, 1]))
    assert (part.labels.tolist(), part.class_names, part.cluster.tolist()) == ([1, 2], split.class_names, [1, 0])


def test_names_of_positions():
    split = Split("train", torch.zeros(2, 3), [["b", "a", "b"], ["c", "a", "a"]])
    assert split.labels.tolist() == [[1, 0, 1], [2, 0, 0]]


def test_fields_are_taken_wherever_data_are():
    draw = torch.Generator().manual_seed(0)
    make = lambda n: TensorDataset(  # noqa: E731
        torch.randn(n, 2, generator=draw), torch.ones(n, 2).long(), torch.arange(n) % 2
    )
    train, validation, held_out, fields = make(30), make(20), make(40), ("inputs", None, "labels")
    rule = kd.SafetyConstraint("c", kd.safety.TruthProbability([0]), 0.55)

    def trainer(at_least=0.55):
        student = torch.nn.Linear(2, 2)
        teacher = kd.teachers.CallableTeacher("t", lambda x: x, gives="logits")
        adam = torch.optim.Adam(student.parameters(), lr=0.1)
        return kd.ConstrainedTrainer(student, [teacher], constraints=[rule.with_threshold(at_least)], optimizer=adam)

    result = trainer().fit(train, validation, epochs=2, splits={"more": make(5)}, fields=fields)
    assert kd.certify(result, rule, held_out, fields=fields).count == 20
    frontier = kd.trace_frontier(trainer, train, validation, targets=[0.5, 0.6], epochs=2, fields=fields)
    assert kd.verify(frontier, trainer, train, validation, fields=fields).holds()
    for attempt in (
        lambda: trainer().fit(train, epochs=1),
        lambda: kd.certify(result, rule, held_out),
        lambda: kd.trace_frontier(trainer, train, targets=[0.5, 0.6], epochs=1),
        lambda: kd.verify(frontier, trainer, train),
    ):
        with pytest.raises(InvalidInput, match="has 3 parts without names"):
            attempt()
