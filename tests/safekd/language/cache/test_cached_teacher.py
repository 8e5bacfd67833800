"""A cached teacher says what the teacher said, about the same examples, and about no others."""

from __future__ import annotations

import math
import pickle
import re

import pytest
import torch
from torch.utils.data import DataLoader

import safekd as kd
from safekd.errors import InvalidInput
from safekd.language import CachedTeacher, Head, Hidden, TopK, write_cache
from safekd.language.cache import _shard_files

from .token_teachers import H, RecurrentTeacher, T, V, make_split, make_tokens


def cache(folder, teacher=None, data=None, **options):
    (cached,) = write_cache(folder, teacher or RecurrentTeacher(), data or make_split(), **options)
    return cached


def distribution(teacher, batch):
    hidden = teacher(batch)
    hidden = hidden.hidden if isinstance(hidden, Hidden) else None
    return torch.log_softmax(teacher.logits(hidden), -1)


@pytest.mark.parametrize("order", [[*range(23)], [*range(22, -1, -1)], [5, 5, 0, 22, 11]])
@pytest.mark.parametrize("rows", [1, 4, 23])
def test_hidden_states_come_back_in_any_order_and_batch_size(order, rows, tmp_path):
    teacher, data = RecurrentTeacher(), make_split()
    cached = cache(tmp_path, teacher, data, shard_bytes=500, dtype="float32")
    assert len(cached.record.shards) == 3
    for places in torch.tensor(order).split(rows):
        batch = data.batch(places)
        said, wanted = cached(batch), teacher(batch)
        assert torch.equal(said.hidden[batch.mask], wanted.hidden[batch.mask])
        assert not said.hidden[~batch.mask].any()


@pytest.mark.parametrize(
    ("dtype", "kept"), [(None, torch.bfloat16), ("float16", torch.float16), (torch.float32, torch.float32)]
)
def test_hidden_states_are_kept_in_the_type_asked_for(dtype, kept, tmp_path):
    teacher, data = RecurrentTeacher(), make_split()
    said = cache(tmp_path, teacher, data, dtype=dtype)(data.batch())
    counted = data.batch().mask
    assert torch.equal(said.hidden[counted], teacher(data.batch()).hidden[counted].to(kept))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_the_head_comes_back_bit_for_bit_and_is_stored_once(dtype, bias, tmp_path):
    teacher = RecurrentTeacher(dtype=dtype)
    if not bias:
        teacher.head = Head(teacher.head.weight)
    said = cache(tmp_path, teacher, shard_bytes=500)(make_split().batch())
    assert said.head.weight.dtype == dtype
    assert torch.equal(said.head.weight, teacher.head.weight)
    assert (said.head.scale, said.head.softcap) == (teacher.head.scale, teacher.head.softcap)
    assert torch.equal(said.head.bias, teacher.head.bias) if bias else said.head.bias is None
    assert len(list(tmp_path.rglob("head.safetensors"))) == 1


@pytest.mark.parametrize("gives", ["hidden", "logits"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_table_holds_the_most_probable_tokens_and_what_is_left(gives, dtype, tmp_path):
    data, k = make_split(), 7
    said = cache(tmp_path, RecurrentTeacher(gives=gives), data, kind="topk", k=k, dtype=dtype)(data.batch())
    batch = data.batch()
    log_p = distribution(RecurrentTeacher(), batch)[batch.mask]
    top = log_p.topk(k, -1)
    error = 4e-3 if dtype == "float16" else 1e-5
    assert isinstance(said, TopK)
    assert (said.vocabulary, said.ids.dtype) == (V, torch.int64)
    assert torch.equal(said.ids[batch.mask], top.indices)
    torch.testing.assert_close(said.log_p[batch.mask].double(), top.values, atol=error, rtol=0)
    wanted = {
        "entropy": -(log_p.exp() * log_p).sum(-1),
        "log_truth": log_p.gather(-1, batch.labels[batch.mask][:, None])[:, 0],
        "tail": 1 - top.values.exp().sum(-1),
    }
    for name, value in wanted.items():  # exact, whatever the type of the log-probabilities
        torch.testing.assert_close(getattr(said, name)[batch.mask].double(), value, atol=2e-6, rtol=1e-6)


def test_positions_that_do_not_count_get_a_distribution(tmp_path):
    data = make_split()
    said, empty = cache(tmp_path, data=data, kind="topk", k=4)(data.batch()), ~data.batch().mask
    assert torch.equal(said.ids[empty][0], torch.arange(4))
    torch.testing.assert_close(said.log_p[empty], torch.full((int(empty.sum()), 4), -math.log(V)))
    torch.testing.assert_close(said.entropy[empty], torch.full((int(empty.sum()),), math.log(V)))


def test_all_of_a_small_vocabulary_is_kept(tmp_path):
    data = make_split(vocabulary=11)
    said = cache(tmp_path, RecurrentTeacher(vocabulary=11), data, kind="topk", k=256)(data.batch())
    assert said.ids.shape[-1] == 11
    assert float(said.tail.abs().max()) < 1e-6


def test_a_masked_vocabulary_is_legitimate(tmp_path):
    """-inf among logits: fewer possible tokens than are kept; the entropy counts 0 log 0 as 0."""
    data, teacher = make_split(), RecurrentTeacher(gives="logits")
    teacher.logits = lambda hidden: torch.zeros(*hidden.shape[:-1], V).index_fill_(-1, torch.arange(3, V), -torch.inf)
    said, counted = cache(tmp_path, teacher, data, kind="topk", k=5)(data.batch()), data.batch().mask
    torch.testing.assert_close(said.log_p[counted].exp().sort().values[0], torch.tensor([0, 0, 1 / 3, 1 / 3, 1 / 3]))
    torch.testing.assert_close(said.entropy[counted], torch.full((int(counted.sum()),), math.log(3)))


def test_a_table_of_a_served_teacher_is_cut_and_its_tail_grows(tmp_path):
    data, teacher = make_split(), RecurrentTeacher()
    top = distribution(teacher, data.batch()).topk(20, -1)

    class Served:
        name, vocabulary = "served", V

        def manifest(self):
            return {"kind": "served", "model": "big"}

        def __call__(self, batch):
            places = batch.index
            width = batch.labels.shape[1]
            return TopK(top.indices[places, :width], top.values[places, :width])

    said, counted = cache(tmp_path, Served(), data, kind="topk", k=6)(data.batch()), data.batch().mask
    assert torch.equal(said.ids[counted], top.indices[counted][:, :6])
    torch.testing.assert_close(
        said.tail[counted], (1 - top.values[counted][:, :6].exp().sum(-1)).float(), atol=1e-5, rtol=0
    )
    with pytest.raises(
        InvalidInput, match=r"Teacher 'served': a table holds 20 tokens a position; wanted at least k = 21"
    ):
        cache(tmp_path / "more", Served(), data, kind="topk", k=21)


def test_tokens_of_small_vocabularies_have_two_bytes_and_come_back_whole(tmp_path):
    class Last:
        def __init__(self, vocabulary):
            self.name, self.vocabulary = "last", vocabulary

        def manifest(self):
            return {}

        def __call__(self, batch):
            logits = torch.zeros(*batch.labels.shape, self.vocabulary)
            logits[..., -1] = 5.0
            return kd.language.Logits(logits)

    sizes = {}
    for vocabulary in (2**16, 2**16 + 1):
        cached = cache(tmp_path / str(vocabulary), Last(vocabulary), make_split(2), kind="topk", k=2)
        assert int(cached(make_split(2).batch()).ids[0, 0, 0]) == vocabulary - 1
        sizes[vocabulary] = cached.record.format.position_bytes
    assert sizes == {2**16: 2 * (2 + 2) + 12, 2**16 + 1: 2 * (4 + 2) + 12}


# ------------------------------------------------------------------------------------------------ which example is it


def repad(batch, *, left=0, right=0, filling=7):
    """The same examples in wider batches, other token numbers at the padding."""
    pad = torch.nn.functional.pad
    ids, attention = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    ids = torch.where(attention == 1, ids, filling)
    inputs = {"input_ids": pad(ids, (left, right), value=filling), "attention_mask": pad(attention, (left, right))}
    labels = pad(torch.where(batch.mask, batch.labels, -100), (left, right), value=-100)
    return kd.data.Batch(inputs, labels, batch.task, batch.context, batch.index)


@pytest.mark.parametrize(("left", "right"), [(0, 0), (0, 5), (3, 0), (2, 2)])
def test_padding_changes_nothing(left, right, tmp_path):
    data = make_split()
    cached, batch = cache(tmp_path, data=data), data.batch(torch.tensor([3, 1, 4]))
    wider = repad(batch, left=left, right=right)
    assert torch.equal(cached(wider).hidden[:, left : left + T], cached(batch).hidden)


def test_inputs_may_be_one_tensor_or_one_name(tmp_path):
    ids, _, labels = make_tokens()
    cached = cache(tmp_path, data=kd.Split("train", ids, labels))
    assert isinstance(cached(kd.Split("train", {"input_ids": ids}, labels).batch()), Hidden)
    cut = kd.data.Batch(ids[:1, :8], labels[:1, :8], *3 * [torch.zeros(1, dtype=torch.long)])
    assert int(labels[0, 7]) == -100
    assert isinstance(cached(cut), Hidden)


def test_a_loader_that_shuffles_and_pads_is_answered(tmp_path):
    ids, attention, labels = make_tokens()
    rows = [
        {"inputs": {"input_ids": i, "attention_mask": a}, "labels": y}
        for i, a, y in zip(ids, attention, labels, strict=True)
    ]
    teacher, cached = RecurrentTeacher(), cache(tmp_path, dtype="float32")
    loader = DataLoader(rows, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(1))
    seen = 0
    for batch in kd.data.as_source(loader, "train").batches(4):
        assert not batch.numbered
        torch.testing.assert_close(cached(batch).hidden[batch.mask], teacher(batch).hidden[batch.mask], rtol=0, atol=0)
        seen += len(batch)
    assert seen == 23


def change(batch, what, row=1):
    ids, labels, mask = batch.inputs["input_ids"].clone(), batch.labels.clone(), batch.mask.clone()
    if what == "inputs":
        ids[row, 0] += 1
    elif what == "label":
        labels[row, 0] += 1
    else:
        mask[row, 0] = False
    return kd.data.Batch({**batch.inputs, "input_ids": ids}, labels, batch.task, batch.context, batch.index, mask=mask)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("inputs", "its inputs are others than those that were cached under this number"),
        ("label", "its labels are others than those that were cached"),
        ("mask", r"its labels are others: \d positions count, \d did"),
    ],
)
@pytest.mark.parametrize("kind", ["hidden", "topk"])
def test_another_example_under_a_number_that_was_cached_is_refused(what, said, kind, tmp_path):
    data = make_split()
    batch = change(data.batch(torch.tensor([8, 17, 2])), what)
    with pytest.raises(InvalidInput, match=rf"Example 17 is not in the cache .*: {said}"):
        cache(tmp_path, data=data, kind=kind, k=3)(batch)


def test_an_example_that_was_never_cached_is_named(tmp_path):
    cached = cache(tmp_path, data=make_split(10))
    with pytest.raises(InvalidInput, match=r"Example 10 is not in the cache .*: it was not cached"):
        cached(make_split(30, seed=3).batch(torch.tensor([10])))
    unnumbered = make_split(30, seed=3).batch(torch.tensor([4]))
    unnumbered = kd.data.Batch(
        unnumbered.inputs,
        unnumbered.labels,
        *3 * [torch.zeros(1, dtype=torch.long)],
        mask=unnumbered.mask,
        numbered=False,
    )
    with pytest.raises(InvalidInput, match="The example at place 0 of the batch is not in the cache"):
        cached(unnumbered)


def test_other_names_of_inputs_are_told(tmp_path):
    ids, attention, labels = make_tokens()
    cached = cache(tmp_path)
    other = kd.Split("train", {"input_ids": ids, "kinds": attention}, labels).batch()
    with pytest.raises(
        InvalidInput, match=r"its inputs are \['input_ids', 'kinds'\], and \['attention_mask', 'input_ids'\] were"
    ):
        cached(other)


def test_a_hole_in_the_attention_is_another_example(tmp_path):
    data = make_split()
    batch = data.batch(torch.arange(23))
    row = int((batch.mask.sum(1) > 3).nonzero()[0])
    attention = batch.inputs["attention_mask"].clone()
    attention[row, 1] = 0
    holes = kd.data.Batch(
        {**batch.inputs, "attention_mask": attention},
        batch.labels,
        batch.task,
        batch.context,
        batch.index,
        mask=batch.mask,
    )
    with pytest.raises(InvalidInput, match=rf"Example {row} is not in the cache"):
        cache(tmp_path, data=data)(holes)


def test_an_example_without_a_position_that_counts_is_neither_asked_nor_looked_up(tmp_path):
    ids, attention, labels = make_tokens()
    labels[4] = -100
    data, teacher = kd.Split("train", {"input_ids": ids, "attention_mask": attention}, labels), RecurrentTeacher()
    cached = cache(tmp_path, teacher, data)
    assert all(4 not in numbers for numbers in teacher.asked)
    assert len(cached) == 22
    assert not cached(data.batch(torch.tensor([4, 5]))).hidden[0].any()


def test_encoders_with_one_label_an_example(tmp_path):
    """Labels (B,): one position an example, whatever the length of its tokens."""
    ids, attention, _ = make_tokens()

    class Encoder(RecurrentTeacher):
        def __call__(self, batch):
            said = super().__call__(batch)
            return Hidden(said.hidden[:, -1], said.head)

    data = kd.Split("train", {"input_ids": ids, "attention_mask": attention}, ids[:, 0])
    cached, batch = cache(tmp_path, Encoder(), data, dtype="float32"), data.batch(torch.tensor([20, 3]))
    assert torch.equal(cached(batch).hidden, Encoder()(batch).hidden)
    assert cached(batch).hidden.shape == (2, H)


# -------------------------------------------------------------------------------------------------- which teacher is it


@pytest.mark.parametrize(
    ("field", "value"),
    [("revision", "def"), ("tokenizer", "beef"), ("dtype", "float16"), ("adapter", "legal"), ("weights", "0")],
)
def test_another_teacher_is_refused_by_the_field_that_differs(field, value, tmp_path):
    teacher = RecurrentTeacher(weights="1")
    cache(tmp_path, teacher)
    assert CachedTeacher(tmp_path, expect=teacher.manifest()).name == "t"
    found = re.escape(repr(teacher.facts[field]) if field in teacher.facts else "not told")
    with pytest.raises(
        InvalidInput, match=f"is not of the teacher that is asked for: {field} is {found}, wanted '{value}'"
    ):
        CachedTeacher(tmp_path, expect={**teacher.manifest(), field: value})


def test_a_field_that_is_asked_for_by_one_side_alone_is_refused(tmp_path):
    cached = cache(tmp_path, RecurrentTeacher(adapter="legal"))
    with pytest.raises(InvalidInput, match="adapter is 'legal', wanted not told"):
        cached.require(RecurrentTeacher().manifest())


def test_where_a_model_lay_is_no_difference(tmp_path):
    cached = cache(tmp_path, RecurrentTeacher(name_or_path="/a/model"))
    assert cached.manifest()["name_or_path"] == "/a/model"
    moved = RecurrentTeacher(name_or_path="/b/model")
    cached.require(moved.manifest())
    with pytest.raises(InvalidInput, match="revision is"):
        cached.require({**moved.manifest(), "revision": "another"})


def test_another_cache_of_the_same_teacher_is_told_apart(tmp_path):
    teacher = RecurrentTeacher()
    first = cache(tmp_path / "a", teacher)
    first.require(cache(tmp_path / "b", teacher, shard_bytes=300).manifest())  # the same, in other shards
    for what, options in {
        "dtype": {"dtype": "float32"},
        "kind": {"kind": "topk", "k": 3},
        "data": {"data": make_split(5)},
    }.items():
        with pytest.raises(InvalidInput, match=f"{what} is "):
            first.require(cache(tmp_path / what, teacher, **options).manifest())
    other = RecurrentTeacher()
    other.head = Head(other.head.weight + 1, other.head.bias, other.head.scale, other.head.softcap)
    with pytest.raises(InvalidInput, match="head is "):
        first.require(cache(tmp_path / "head", other).manifest())


def test_a_cache_of_several_teachers_is_opened_by_their_names(tmp_path):
    names = ["general", "org/legal model", "../../etc", "CON", "General"]
    cached = write_cache(tmp_path / "c", [RecurrentTeacher(name) for name in names], make_split())
    assert [one.name for one in cached] == names
    assert len({one.path.name.lower() for one in cached}) == 5
    assert all(one.path.parent == tmp_path / "c" for one in cached)
    assert CachedTeacher(tmp_path / "c", "org/legal model").path == cached[1].path
    assert CachedTeacher(cached[1].path).name == "org/legal model"
    with pytest.raises(InvalidInput, match=r"holds 5 teachers; it has: 'general', 'org/legal model'"):
        CachedTeacher(tmp_path / "c")
    with pytest.raises(InvalidInput, match="holds no teacher 'legal'"):
        CachedTeacher(tmp_path / "c", "legal")


def test_what_is_no_cache_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InvalidInput, match=r"holds no teacher cache: there is no cache\.json"):
            CachedTeacher(path)


# ------------------------------------------------------------------------------------------------- processes and files


def test_it_travels_to_workers_of_a_loader(tmp_path):
    data = make_split()
    cached = cache(tmp_path, data=data, shard_bytes=500)
    batch = data.batch()
    cached(batch)  # files are open, the head is read
    copy = pickle.loads(pickle.dumps(cached))
    assert len(pickle.dumps(cached)) < 20_000
    assert torch.equal(copy(batch).hidden, cached(batch).hidden)
    loader = DataLoader(range(23), batch_size=5, num_workers=2, collate_fn=Answer(cached, data))
    assert torch.equal(torch.cat(list(loader)), cached(batch).hidden)


class Answer:
    def __init__(self, cached, data):
        self.cached, self.data = cached, data

    def __call__(self, places):
        return self.cached(self.data.batch(torch.tensor(places))).hidden


def test_a_cache_that_was_changed_meanwhile_is_refused_in_the_worker(tmp_path):
    data = make_split()
    sent = pickle.dumps(cache(tmp_path, data=data))
    cache(tmp_path, data=make_split(30, seed=5))
    with pytest.raises(InvalidInput, match="was changed while it was in use"):
        pickle.loads(sent)


def test_more_shards_than_files_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr(_shard_files, "SETTINGS", _shard_files.ShardSettings(open_files=2))
    data = make_split()
    cached = cache(tmp_path, data=data, shard_bytes=100, batch_size=2, dtype="float32")
    assert len(cached.record.shards) > 8
    for batch in data.batches(7):
        assert torch.equal(cached(batch).hidden[batch.mask], RecurrentTeacher()(batch).hidden[batch.mask])
    assert len(cached._reader._open) == 2


def test_a_shard_that_changes_while_it_is_in_use_is_refused(tmp_path):
    data = make_split()
    cached = cache(tmp_path, data=data)
    cached(data.batch())
    shard = cached.path / cached.record.shards[0].file
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"shard-00000.safetensors was changed while it was in use"):
        cached(data.batch())


def test_the_answer_is_on_the_batch_s_device(tmp_path):
    cached = cache(tmp_path)
    said = cached(make_split().batch().to("cpu"))
    assert said.hidden.device == said.head.weight.device == torch.device("cpu")
    assert said.hidden.requires_grad is False
