"""Rows of token numbers of unequal lengths are cached as users have them, and a run finds its examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

import safekd as kd
from safekd.language import CachedTeacher, CausalTeacher, TokenBatches, as_text_source, write_cache

from ..tiny_models import V, causal_model, tokenizer

ROWS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
POSITIONS = 4 + 1 + 2


@pytest.fixture(scope="module")
def teacher():
    return CausalTeacher(causal_model(), name="one")


@pytest.mark.parametrize(
    "source",
    [
        ROWS,
        [torch.tensor(row) for row in ROWS],
        [np.array(row) for row in ROWS],
        [{"input_ids": row, "text": "left out"} for row in ROWS],
        {"input_ids": ROWS, "attention_mask": [[1] * len(row) for row in ROWS]},
        Dataset.from_list([{"input_ids": row, "labels": row, "title": "left out"} for row in ROWS]),
        Dataset.from_list([{"input_ids": row} for row in ROWS]).with_format("torch"),
    ],
    ids=["lists", "tensors", "arrays", "dictionaries", "tokenized", "data set", "data set of torch"],
)
def test_rows_of_unequal_lengths_are_cached(teacher, tmp_path, source):
    (cached,) = write_cache(tmp_path, teacher, source, dtype="float32")
    assert cached.record.positions == POSITIONS
    for batch in (TokenBatches(pad=3, length=9).batch(ROWS[::-1]), as_text_source(ROWS).batch()):
        kept = batch.mask if batch.mask is not None else batch.labels != -100
        torch.testing.assert_close(cached(batch).hidden[kept], teacher(batch).hidden[kept], rtol=1e-4, atol=1e-5)


def test_what_a_tokenizer_pads_is_left_out(teacher, tmp_path):
    words = tokenizer()
    given = words(["the cat is a dog", "a bomb"], return_tensors="pt", padding=True)
    (cached,) = write_cache(tmp_path, teacher, given)
    assert cached.record.positions == int(given["attention_mask"].sum()) - 2


def test_labels_of_hugging_face_are_shifted_and_left_out(teacher, tmp_path):
    source = [{"input_ids": row, "labels": [-100, -100, *row[2:]]} for row in ROWS]
    (cached,) = write_cache(tmp_path, teacher, source)
    assert cached.record.positions == 3 + 0 + 1


def test_a_table_of_token_numbers_is_rows(teacher, tmp_path):
    ids = torch.randint(0, V, (4, 6))
    write_cache(tmp_path / "table", teacher, ids.tolist())
    assert CachedTeacher(tmp_path / "table").record.positions == 4 * 5


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (["the cat"], r"`source` is text; wanted token numbers.*as_text_source\(texts, tokenizer"),
        ("the cat", "`source` is text"),
        (Dataset.from_dict({"text": ["the cat"]}), r"has the columns \['text'\], and 'input_ids' is not among them"),
        ([], "`source` is empty"),
        ([[5, 6], []], r"Row 1: input_ids is of shape \(0,\)"),
        ({"input_ids": ROWS, "labels": ROWS[:2]}, "'input_ids': 3, 'labels': 2"),
        ([{"input_ids": [5, 6]}, {"ids": [5]}], r"Row 1 has the columns \['ids'\]; wanted 'input_ids' among them"),
        ([{"input_ids": [5, 6], "labels": [5]}], "labels has 1 entries, input_ids 2"),
    ],
)
def test_what_is_no_row_of_token_numbers_is_refused(teacher, tmp_path, source, said):
    with pytest.raises(kd.InvalidInput, match=said):
        write_cache(tmp_path, teacher, source)


def test_a_teacher_is_asked_about_a_batch(teacher, tmp_path):
    (cached,) = write_cache(tmp_path, teacher, ROWS)
    for one in (teacher, cached):
        with pytest.raises(
            kd.InvalidInput, match=r"Teacher 'one' was asked about a Tensor of shape \(1, 3\); wanted a"
        ):
            one(torch.tensor([[5, 6, 7]]))
        with pytest.raises(kd.InvalidInput, match=r"asked about a dict; wanted a Batch: kd.language.TokenBatches"):
            one({"input_ids": torch.tensor([[5, 6, 7]])})


def test_bare_models_in_another_trainer_are_told_what_wraps_them():
    student = causal_model()
    with pytest.raises(kd.InvalidInput, match=r"kd\.language\.CausalTeacher\(model, .*kd\.language\.CausalStudent"):
        kd.ConstrainedTrainer(student, [causal_model()], optimizer=torch.optim.Adam(student.parameters()))
