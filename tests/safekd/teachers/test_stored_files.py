"""A stored teacher whose table stays in a file: the same student as from memory, and no table in memory."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import safekd as kd
from safekd.errors import InvalidInput, NotFinite
from safekd.teachers import StoredTeacher, TeacherEnsemble

N, V = 60, 3
DRAW = torch.Generator().manual_seed(0)
LOGITS = torch.randn(N, V, generator=DRAW)
ROWS = {
    "probabilities": torch.softmax(LOGITS, -1),
    "logits": LOGITS,
    "log_probabilities": torch.log_softmax(LOGITS, -1),
}
X = torch.randn(N, 2, generator=DRAW)
SPLIT = kd.Split("train", X, torch.arange(N) % V)


def store(path, rows):
    if path.suffix == ".npy":
        np.save(path, rows.numpy())
    elif path.suffix == ".safetensors":
        save_file({"rows": rows.contiguous(), "other": torch.ones(1)}, path)
    else:
        import pandas as pd

        pd.DataFrame(rows.numpy(), columns=list("abc")).assign(id=range(len(rows))).to_parquet(path)
    return path


def given(path):
    return {".safetensors": {"tensor": "rows"}, ".parquet": {"columns": list("abc")}}.get(path.suffix, {})


@pytest.mark.parametrize("name", ["t.npy", "t.safetensors", "t.parquet"])
@pytest.mark.parametrize("gives", ROWS)
def test_a_table_in_a_file_says_what_it_says_in_memory(name, gives, tmp_path):
    path = store(tmp_path / name, ROWS[gives])
    kept, stored = StoredTeacher("t", ROWS[gives], gives=gives), StoredTeacher("t", path, gives=gives, **given(path))
    place = torch.tensor([5, 59, 0, 5])
    said = stored.log_probabilities(SPLIT.batch(place), "train")
    assert torch.equal(said, kept.log_probabilities(SPLIT.batch(place), "train"))
    assert torch.allclose(said.exp(), ROWS["probabilities"][place], atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("gives", ROWS)
def test_half_types_are_widened_before_their_softmax(dtype, gives, tmp_path):
    path = store(tmp_path / "t.safetensors", ROWS[gives].to(dtype))
    said = StoredTeacher("t", path, gives=gives, tensor="rows").log_probabilities(SPLIT.batch(), "train")
    assert said.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.allclose(said.exp().float(), ROWS["probabilities"], atol=2e-2 if dtype == torch.bfloat16 else 2e-3)


def train(teacher):
    torch.manual_seed(0)
    student = torch.nn.Linear(2, V)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    trainer = kd.ConstrainedTrainer(
        student, [teacher], weights=kd.weights.Uniform(), constraints=[], optimizer=optimizer, batch_size=16
    )
    return trainer.fit(SPLIT, epochs=3).student.state_dict()


def test_a_student_learns_the_same_from_a_file(tmp_path):
    path = store(tmp_path / "t.npy", ROWS["probabilities"])
    one, other = train(StoredTeacher("t", ROWS["probabilities"])), train(StoredTeacher("t", path))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_numbers_say_which_row_of_a_file_is_whose(tmp_path):
    path = store(tmp_path / "t.npy", ROWS["probabilities"])
    rows = torch.tensor([50, 3, 7])
    split = kd.Split("train", X[rows], SPLIT.labels[rows], numbers=rows)
    said = TeacherEnsemble([StoredTeacher("t", path)]).cached_log_probabilities(split, split.batch())[:, 0].exp()
    assert torch.allclose(said, ROWS["probabilities"][rows], atol=1e-5)
    beyond = kd.Split("train", X[rows], SPLIT.labels[rows], numbers=rows + 10)
    with pytest.raises(InvalidInput, match="has 60 stored rows for split 'train', but example 60 was asked for"):
        StoredTeacher("t", path).log_probabilities(beyond.batch(), "train")
    with pytest.raises(InvalidInput, match="has 60 stored rows, split 'train' has 3 examples without numbers"):
        StoredTeacher("t", path).log_probabilities(kd.Split("train", X[:3], SPLIT.labels[:3]).batch(), "train")


def test_tables_of_each_split_and_shards(tmp_path):
    whole = ROWS["probabilities"]
    paths = [store(tmp_path / "a.npy", whole[:20]), store(tmp_path / "b.npy", whole[20:])]
    teacher = StoredTeacher("t", {"train": paths, "validation": whole.flip(0)})
    for split, rows in (("train", whole), ("validation", whole.flip(0))):
        assert torch.allclose(teacher.log_probabilities(SPLIT.batch(), split).exp(), rows, atol=1e-5)


def test_a_file_that_changes_during_a_run_is_an_error_that_names_it(tmp_path):
    path = store(tmp_path / "t.npy", ROWS["probabilities"])
    teacher = StoredTeacher("t", path)
    teacher.log_probabilities(SPLIT.batch(), "train")
    store(path, ROWS["probabilities"].flip(0))
    with pytest.raises(InvalidInput, match=r"t.npy was changed while it was in use"):
        teacher.log_probabilities(SPLIT.batch(), "train")
    with pytest.raises(InvalidInput, match=r"t.npy was changed while it was in use"):
        train(teacher)


def test_the_fingerprint_is_that_of_the_content_and_of_how_it_is_read(tmp_path):
    path = store(tmp_path / "t.npy", ROWS["probabilities"])
    teacher = StoredTeacher("t", path)
    (tmp_path / "copy.npy").write_bytes(path.read_bytes())
    assert teacher.fingerprint() == StoredTeacher("t", tmp_path / "copy.npy").fingerprint()
    assert teacher.fingerprint() == copy.deepcopy(teacher).fingerprint()
    others = [
        StoredTeacher("t", path, gives="logits"),
        StoredTeacher("t", path, 0.0),
        StoredTeacher("t", store(tmp_path / "u.npy", ROWS["probabilities"].flip(0))),
        StoredTeacher("t", ROWS["probabilities"]),
    ]
    assert len({str(one.fingerprint()) for one in [teacher, *others]}) == 5


def test_what_cannot_be_used_is_said_with_the_teacher_and_the_file(tmp_path):
    path = store(tmp_path / "t.safetensors", ROWS["probabilities"])
    refused = {
        r"Teacher 't': .*t.safetensors holds 2 tensors; it holds: 'other', 'rows'": lambda: StoredTeacher("t", path),
        r"Teacher 't': Cannot read .*none.npy: No such file": lambda: StoredTeacher("t", tmp_path / "none.npy"),
        r"Teacher 't': Cannot tell what .*t.csv holds": lambda: StoredTeacher("t", tmp_path / "t.csv"),
        r"Teacher 't': `columns` is given": lambda: StoredTeacher("t", path, columns=["a"]),
        r"`tensor` and `columns` say what to read of files": lambda: StoredTeacher("t", LOGITS, tensor="rows"),
        r"gives is 'odds'; wanted 'probabilities'": lambda: StoredTeacher("t", LOGITS, gives="odds"),
        r"has stored rows of torch.int64": lambda: StoredTeacher("t", LOGITS.long()).log_probabilities(
            SPLIT.batch(), "train"
        ),
        r"Teacher 't': .*p.parquet, column 'id': found values of type int64": lambda: StoredTeacher(
            "t", store(tmp_path / "p.parquet", ROWS["probabilities"])
        ),
        r"Teacher 't': .*p.parquet has no column 'x'; it has: a, b, c, id": lambda: StoredTeacher(
            "t", tmp_path / "p.parquet", columns=["x"]
        ),
    }
    for message, call in refused.items():
        with pytest.raises(InvalidInput, match=message):
            call()
    bad = LOGITS.clone()
    bad[7, 1] = torch.nan
    teacher = StoredTeacher("t", store(tmp_path / "nan.npy", bad), gives="logits")
    with pytest.raises(NotFinite, match="logits that are not finite on 'train', example 7"):
        teacher.log_probabilities(SPLIT.batch(), "train")


RESIDENT = """
import numpy as np, torch, safekd as kd
table = np.lib.format.open_memmap("t.npy", mode="w+", dtype="float32", shape=({rows}, 10))
for start in range(0, {rows}, 100_000):
    table[start : start + 100_000] = 0.1
table.flush()
del table
teacher, draw = kd.teachers.StoredTeacher("t", "t.npy"), torch.Generator().manual_seed(0)
def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) >> 10
def ask():
    index = torch.randint({rows}, (512,), generator=draw)
    none = torch.zeros_like(index)
    teacher.log_probabilities(kd.data.Batch(torch.zeros(512, 1), none, none, none, index), "train")
ask()
before = resident()
for _ in range(500):
    ask()
print(resident() - before)
"""


@pytest.mark.parametrize("rows", [1_000_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_resident_memory_does_not_grow_with_the_table(rows, tmp_path):
    """500 random batches touch most pages of 40 MB; a memory map would hold them."""
    code = RESIDENT.format(rows=rows)
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 8
