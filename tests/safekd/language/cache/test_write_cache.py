"""Building a cache: stopped, killed, gone on with, grown, and refused where it is another one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch.utils.data import DataLoader

import safekd as kd
from safekd.errors import InvalidInput, NotFinite, SafekdWarning
from safekd.language import CachedTeacher, Head, Hidden, write_cache
from safekd.language.cache import is_cache

from .token_teachers import RecurrentTeacher, V, make_split, make_tokens

SMALL = {"shard_bytes": 300, "batch_size": 3}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class StoppedTeacher(RecurrentTeacher):
    """Stops the build at its n-th answer."""

    def __init__(self, answers, error=KeyboardInterrupt, **options):
        super().__init__(**options)
        self.left, self.error = answers, error

    def __call__(self, batch):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().__call__(batch)


@pytest.mark.parametrize("kind", ["hidden", "topk"])
@pytest.mark.parametrize("answers", [0, 1, 4, 7])
def test_a_build_that_was_stopped_goes_on_and_ends_with_the_same_bytes(kind, answers, tmp_path):
    options = {"kind": kind, "k": 5, **SMALL}
    write_cache(tmp_path / "whole", RecurrentTeacher(), make_split(), **options)
    with pytest.raises(KeyboardInterrupt):
        write_cache(tmp_path / "stopped", StoppedTeacher(answers), make_split(), **options)
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part") or path.name == ".lock"]
    with pytest.raises(InvalidInput, match=r"is not finished|holds no finished"):
        CachedTeacher(tmp_path / "stopped")
    teacher = RecurrentTeacher()
    write_cache(tmp_path / "stopped", teacher, make_split(), **options)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert len(teacher.asked) < 8 or answers < 4


BUILD = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)  # as the suite has it: sums of other parts may differ in their last bit
sys.path.insert(0, {root!r})
from safekd.language import write_cache
from tests.safekd.language.cache.token_teachers import RecurrentTeacher, make_split

class StuckTeacher(RecurrentTeacher):
    def __call__(self, batch):
        if len(self.asked) == 11:
            Path({folder!r}, "stuck").touch()
            time.sleep(600)
        return super().__call__(batch)

write_cache({folder!r}, StuckTeacher(), make_split(60), kind={kind!r}, k=5, shard_bytes=300, batch_size=3)
"""


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["hidden", "topk"])
def test_a_build_that_was_killed_goes_on_and_ends_with_the_same_bytes(kind, tmp_path):
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), *4 * [os.pardir]))
    folder = tmp_path / "killed"
    code = BUILD.format(root=root, folder=str(folder), kind=kind)
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 120
    while not (folder / "stuck").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (folder / "stuck").unlink()
    assert (folder / ".lock").exists()  # of the killed process; nobody has to take it away
    shard = folder / "t" / "shard-00099.safetensors"
    for left in (shard, shard.with_name(f".{shard.name}.0.part")):  # as if killed between two lines
        left.write_bytes(b"half")
    teacher, options = RecurrentTeacher(), {"kind": kind, "k": 5, **SMALL}
    write_cache(folder, teacher, make_split(60), **options)
    write_cache(tmp_path / "whole", RecurrentTeacher(), make_split(60), **options)
    assert contents(folder) == contents(tmp_path / "whole")
    assert len(teacher.asked) <= 20 - 9


def test_what_is_there_is_not_asked_again_and_a_source_may_grow(tmp_path):
    teacher = RecurrentTeacher()
    write_cache(tmp_path, teacher, make_split(), **SMALL)
    before, asked = contents(tmp_path), len(teacher.asked)
    write_cache(tmp_path, teacher, make_split(), **SMALL)
    assert (contents(tmp_path), len(teacher.asked)) == (before, asked)
    ids, attention, labels = make_tokens(30, seed=9)
    old_ids, old_attention, old_labels = make_tokens()
    inputs = {"input_ids": torch.cat([ids, old_ids]), "attention_mask": torch.cat([attention, old_attention])}
    more = kd.Split("train", inputs, torch.cat([labels, old_labels]))
    (cached,) = write_cache(tmp_path, teacher, more, **SMALL)
    assert len(cached) == 53
    assert sum(map(len, teacher.asked)) == 53
    for batch in (make_split().batch(), more.batch()):
        assert torch.equal(cached(batch).hidden[batch.mask], teacher(batch).hidden[batch.mask].bfloat16())


def test_examples_that_occur_twice_are_asked_once(tmp_path):
    ids, attention, labels = (torch.cat([part, part[:4], part[2:3]]) for part in make_tokens(10))
    teacher, data = RecurrentTeacher(), kd.Split("train", {"input_ids": ids, "attention_mask": attention}, labels)
    (cached,) = write_cache(tmp_path, teacher, data, batch_size=12)
    assert (len(cached), sum(map(len, teacher.asked))) == (10, 10)
    assert cached(data.batch()).hidden.shape[0] == 15


def test_a_shuffled_loader_may_build_and_go_on(tmp_path):
    ids, attention, labels = make_tokens()
    rows = [
        {"inputs": {"input_ids": i, "attention_mask": a}, "labels": y}
        for i, a, y in zip(ids, attention, labels, strict=True)
    ]
    with pytest.raises(KeyboardInterrupt):
        write_cache(tmp_path, StoppedTeacher(4), DataLoader(rows, batch_size=3, shuffle=True), shard_bytes=300)
    teacher = RecurrentTeacher()
    (cached,) = write_cache(tmp_path, teacher, DataLoader(rows, batch_size=5, shuffle=True), shard_bytes=300)
    assert len(cached) == 23
    assert 0 < sum(map(len, teacher.asked)) < 23
    batch = make_split().batch()
    assert torch.equal(cached(batch).hidden[batch.mask], teacher(batch).hidden[batch.mask].bfloat16())


def test_padding_is_not_asked_about(tmp_path):
    data, widths = make_split(length=40), []

    class Measured(RecurrentTeacher):
        def __call__(self, batch):
            widths.append((batch.labels.shape[1], int(batch.inputs["attention_mask"].sum(1).max())))
            return super().__call__(batch)

    write_cache(tmp_path, Measured(), data, batch_size=2)
    assert all(width == longest for width, longest in widths)
    assert any(width < 40 for width, _ in widths)


@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_damaged_shard_is_asked_anew_and_the_bytes_are_the_same(place, tmp_path):
    write_cache(tmp_path, RecurrentTeacher(), make_split(60), **SMALL)
    before = contents(tmp_path)
    shard = sorted(tmp_path.glob("t/shard-*"))[place]
    content = bytearray(shard.read_bytes())
    content[-3] ^= 4
    shard.write_bytes(content)
    teacher = RecurrentTeacher()
    with pytest.warns(SafekdWarning, match=f"{shard.name} is not what was written: it has another hash. What it held"):
        write_cache(tmp_path, teacher, make_split(60), **SMALL)
    assert contents(tmp_path) == before
    assert 0 < len(teacher.asked) < 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"revision": "def"}, "revision is 'abc', wanted 'def'"),
        ({"tokenizer": "beef"}, "tokenizer is 'f00d', wanted 'beef'"),
        ({"kind": "encoder"}, "kind is 'causal', wanted 'encoder'"),
        ({"prompt": "be kind"}, "prompt is not told, wanted 'be kind'"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_teacher_is_refused_and_nothing_is_lost(change, said, finished, tmp_path):
    if finished:
        write_cache(tmp_path, RecurrentTeacher(), make_split(), **SMALL)
    else:
        with pytest.raises(KeyboardInterrupt):
            write_cache(tmp_path, StoppedTeacher(4), make_split(), **SMALL)
    before = contents(tmp_path)
    with pytest.raises(InvalidInput, match=f"is a cache of another teacher, or of another kind: {said}"):
        write_cache(tmp_path, RecurrentTeacher(**change), make_split(), **SMALL)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        ({}, {"kind": "topk"}, "kind of cache is 'hidden', wanted 'topk'"),
        ({}, {"dtype": "float32"}, "dtype of cache is 'bfloat16', wanted 'float32'"),
        ({"kind": "topk", "k": 5}, {"kind": "topk", "k": 6}, "k is 5, wanted 6"),
    ],
)
def test_another_kind_of_cache_is_refused(first, then, said, tmp_path):
    write_cache(tmp_path, RecurrentTeacher(), make_split(), **first)
    with pytest.raises(InvalidInput, match=said):
        write_cache(tmp_path, RecurrentTeacher(), make_split(), **then)


def test_another_head_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_cache(tmp_path, StoppedTeacher(4), make_split(), **SMALL)
    other = RecurrentTeacher()
    other.head = Head(other.head.weight * 2, other.head.bias, other.head.scale, other.head.softcap)
    with pytest.raises(InvalidInput, match=r"holds another head than that of Teacher 't'"):
        write_cache(tmp_path, other, make_split(), **SMALL)

    class Learning(RecurrentTeacher):
        def __call__(self, batch):
            self.head.weight[0] += 1
            return super().__call__(batch)

    with pytest.raises(InvalidInput, match="wanted one head for all examples"):
        write_cache(tmp_path / "learning", Learning(), make_split(), **SMALL)


def test_a_head_that_is_made_anew_at_each_answer_is_the_same(tmp_path):
    class Anew(RecurrentTeacher):
        def __call__(self, batch):
            said = super().__call__(batch)
            return Hidden(said.hidden, Head(said.head.weight.clone(), said.head.bias.clone(), 0.5, 20.0))

    assert len(write_cache(tmp_path, Anew(), make_split(), **SMALL)[0]) == 23


def test_rows_of_a_head_beyond_the_vocabulary_are_left_out(tmp_path):
    teacher = RecurrentTeacher()
    teacher.vocabulary = V - 7
    data = make_split(vocabulary=V - 7)
    for kind, k in (("hidden", 1), ("topk", V)):
        (cached,) = write_cache(tmp_path / kind, teacher, data, kind=kind, k=k)
        said = cached(data.batch())
        assert cached.vocabulary == V - 7
        assert (said.head.vocabulary if kind == "hidden" else said.ids.shape[-1]) == V - 7


def test_going_on_can_be_forbidden(tmp_path):
    write_cache(tmp_path, RecurrentTeacher(), make_split())
    with pytest.raises(InvalidInput, match="holds a cache already; go on with it, resume=True, or remove it"):
        write_cache(tmp_path, RecurrentTeacher(), make_split(), resume=False)
    write_cache(tmp_path, RecurrentTeacher("other"), make_split(), resume=False)


def test_progress_is_told(tmp_path):
    told = []
    write_cache(tmp_path, RecurrentTeacher(), make_split(), batch_size=10, on_progress=told.append)
    assert [(one.teacher, one.examples, one.total) for one in told] == [("t", n, 23) for n in (10, 20, 23)]
    assert told[-1].positions == told[-1].asked == make_split().positions
    told.clear()
    write_cache(tmp_path, RecurrentTeacher(), make_split(), batch_size=10, on_progress=told.append)
    assert (told[-1].examples, told[-1].asked) == (23, 0)


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", ["hidden", "topk"])
def test_a_teacher_s_nan_is_named_by_its_example(value, kind, tmp_path):
    data = make_split()
    row = int((data.batch().mask.sum(1) > 2).nonzero()[5])

    class Broken(RecurrentTeacher):
        def __call__(self, batch):
            said = super().__call__(batch)
            said.hidden[batch.index == row, 1] = value
            return said

    with pytest.raises(NotFinite, match=rf"Teacher 't' gave .* for example {row}, position 1; wanted finite numbers"):
        write_cache(tmp_path, Broken(), data, kind=kind, k=4)


def test_what_stands_where_no_position_counts_may_be_nan(tmp_path):
    class Padded(RecurrentTeacher):
        def __call__(self, batch):
            said = super().__call__(batch)
            said.hidden[~batch.mask] = torch.nan
            return said

    batch = make_split().batch()
    assert torch.isfinite(write_cache(tmp_path, Padded(), make_split())[0](batch).hidden).all()


def test_hidden_states_too_large_for_their_type_are_refused(tmp_path):
    class Large(RecurrentTeacher):
        def __call__(self, batch):
            said = super().__call__(batch)
            return Hidden(said.hidden * 1e6, said.head)

    with pytest.raises(InvalidInput, match=r"a hidden state of size 1e\+06, which float16 cannot hold"):
        write_cache(tmp_path / "a", Large(), make_split(), dtype="float16")
    write_cache(tmp_path / "b", Large(), make_split())


class Odd(RecurrentTeacher):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def __call__(self, batch):
        return self.answer(super().__call__(batch), batch)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda said, batch: said.hidden, "gave a Tensor; wanted Hidden, Logits or TopK"),
        (
            lambda said, batch: kd.language.Logits(torch.zeros(*batch.labels.shape, V)),
            "gives logits, and no hidden states",
        ),
        (lambda said, batch: Hidden(said.hidden[:, :-1], said.head), "one answer a position of shape"),
        (
            lambda said, batch: Hidden(said.hidden, said.head.cut(50)),
            "scores 50 tokens, and says that its vocabulary has 97",
        ),
        (
            lambda said, batch: Hidden(said.hidden, Head(said.head.weight.to(torch.float8_e4m3fn))),
            "has a head of torch.float8",
        ),
    ],
)
def test_an_answer_that_cannot_be_stored_is_refused(answer, said, tmp_path):
    with pytest.raises(InvalidInput, match=said):
        write_cache(tmp_path, Odd(answer), make_split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "logits"}, "`kind` is 'logits'; wanted 'hidden' or 'topk'"),
        ({"kind": "topk", "k": 0}, "`k` is 0; wanted a whole number"),
        ({"batch_size": 2.5}, "`batch_size` is 2.5"),
        ({"shard_bytes": -1}, "`shard_bytes` is -1"),
        ({"dtype": "int8"}, "`dtype` is 'int8'; wanted bfloat16, float16, float32"),
        ({"dtype": torch.float64}, "`dtype` is torch.float64"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, said, tmp_path):
    with pytest.raises(InvalidInput, match=said):
        write_cache(tmp_path / "c", RecurrentTeacher(), make_split(), **options)
    assert not (tmp_path / "c").exists()


def test_teachers_need_different_names(tmp_path):
    for teachers in ([], [RecurrentTeacher(), RecurrentTeacher()], [RecurrentTeacher(None)]):
        with pytest.raises(InvalidInput, match="wanted at least one, of different names"):
            write_cache(tmp_path, teachers, make_split())


def test_data_in_which_no_position_counts_are_refused(tmp_path):
    ids, attention, labels = make_tokens()
    none, inputs = torch.zeros(23, dtype=torch.long), {"input_ids": ids, "attention_mask": attention}
    data = [kd.data.Batch(inputs, torch.full_like(labels, -100), none, none, none)]
    with pytest.raises(InvalidInput, match="No position of the data counts"):
        write_cache(tmp_path, RecurrentTeacher(), data)


def test_a_label_beyond_the_vocabulary_is_refused(tmp_path):
    teacher = RecurrentTeacher()
    teacher.vocabulary = 10
    with pytest.raises(InvalidInput, match=r"Teacher 't': A label is \d+; wanted tokens below the vocabulary of 10"):
        write_cache(tmp_path, teacher, make_split(), kind="topk")


def test_a_manifest_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="says of itself 'head'"):
        write_cache(tmp_path, RecurrentTeacher(head=torch.zeros(2)), make_split())


def test_two_builds_at_once_are_told(tmp_path):
    class Nested(RecurrentTeacher):
        def __call__(self, batch):
            write_cache(tmp_path, RecurrentTeacher("other"), make_split())

    with pytest.raises(InvalidInput, match=r"is in use: process \d+ .* writes a teacher cache"):
        write_cache(tmp_path, Nested(), make_split())


def test_something_else_in_a_teacher_s_place_stays(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="something lies there"):
        write_cache(tmp_path, RecurrentTeacher(), make_split())
    assert (tmp_path / "t" / "thesis.txt").read_text() == "mine"
    assert not is_cache(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_told_before_a_teacher_is_asked(tmp_path):
    tmp_path.chmod(0o500)
    teacher = RecurrentTeacher()
    with pytest.raises(InvalidInput, match="Cannot write"):
        write_cache(tmp_path / "c", teacher, make_split())
    assert teacher.asked == []


def test_a_full_disk_is_told_and_the_next_call_goes_on(tmp_path, monkeypatch):
    from safekd.language.cache import _shard_files

    write, shards = _shard_files.write_tensor_file, []

    def fill(tensors, path):
        if "shard" in path.name:
            shards.append(path)
            if len(shards) == 3:
                raise OSError(28, "No space left on device")
        return write(tensors, path)

    monkeypatch.setattr(_shard_files, "write_tensor_file", fill)
    with pytest.raises(InvalidInput, match=r"No space left on device\. Make room; the same call goes on"):
        write_cache(tmp_path / "c", RecurrentTeacher(), make_split(60), **SMALL)
    monkeypatch.undo()
    write_cache(tmp_path / "c", RecurrentTeacher(), make_split(60), **SMALL)
    write_cache(tmp_path / "d", RecurrentTeacher(), make_split(60), **SMALL)
    assert contents(tmp_path / "c") == contents(tmp_path / "d")
