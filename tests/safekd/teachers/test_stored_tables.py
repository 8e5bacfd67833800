"""Whose rows a stored table holds: by numbers, or in the order of one split of its size."""

from __future__ import annotations

import pytest
import torch

import safekd as kd
from safekd.errors import InvalidInput
from safekd.teachers import StoredTeacher, TeacherEnsemble

X = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
P = torch.softmax(torch.stack([-X[:, 0], X[:, 0]], 1), -1)
ORDER = torch.randperm(100, generator=torch.Generator().manual_seed(1))


def said(teacher: StoredTeacher, split: kd.Split) -> torch.Tensor:
    everything = torch.arange(len(split))
    return TeacherEnsemble([teacher]).cached_log_probabilities(split, split.batch(everything))[:, 0].exp()


@pytest.mark.parametrize("size", [1, 20, 99])
def test_a_part_of_the_data_without_numbers_is_refused(size):
    rows = ORDER[:size]
    with pytest.raises(
        InvalidInput, match=rf"'api' has 100 stored rows, split 'train' has {size} examples without num"
    ):
        said(StoredTeacher("api", P), kd.Split("train", X[rows], Y[rows]))
    with pytest.raises(InvalidInput, match=r"kd.Split\('train', ..., numbers=rows\)"):
        StoredTeacher("api", {"train": P}).log_probabilities(kd.Split("train", X[rows], Y[rows]).batch(), "train")


@pytest.mark.parametrize("rows", [ORDER[:20], ORDER, ORDER[:3].repeat(2)])
def test_numbers_say_which_row_is_whose(rows):
    split = kd.Split("train", X[rows], Y[rows], numbers=rows)
    assert torch.allclose(said(StoredTeacher("api", P), split), P[rows], atol=1e-5)
    assert torch.allclose(said(StoredTeacher("api", P), split.part(torch.tensor([2, 0]))), P[rows[[2, 0]]], atol=1e-5)


def test_a_part_of_a_split_keeps_its_rows():
    whole = kd.Split("train", X, Y)
    assert torch.allclose(said(StoredTeacher("api", P), whole.part(ORDER[:20])), P[ORDER[:20]], atol=1e-5)


def test_one_table_is_not_read_by_two_splits_in_their_order():
    teacher = StoredTeacher("api", P)
    said(teacher, kd.Split("train", X, Y))
    said(teacher, kd.Split("train", X, Y))
    with pytest.raises(InvalidInput, match="which split 'train' reads in its order, and now split 'validation'"):
        said(teacher, kd.Split("validation", X, Y))
    said(teacher, kd.Split("validation", X, Y, numbers=ORDER))
    both = StoredTeacher("api", {"train": P, "validation": P})
    for name in ("train", "validation"):
        said(both, kd.Split(name, X, Y))


def test_a_run_on_a_shuffled_part_is_as_good_as_its_teacher():
    """Rows 0 to 19 instead of those of the examples made a student that is right half the time."""
    student = torch.nn.Linear(2, 2)
    rows = ORDER[:60]
    trainer = kd.ConstrainedTrainer(
        student, [StoredTeacher("api", P)], optimizer=torch.optim.Adam(student.parameters(), lr=0.1)
    )
    with pytest.raises(InvalidInput, match="without numbers"):
        trainer.fit((X[rows], Y[rows]), epochs=1)
    trainer.fit(kd.Split("train", X[rows], Y[rows], numbers=rows), epochs=200)
    assert (student(X).argmax(-1) == Y).float().mean() > 0.95
