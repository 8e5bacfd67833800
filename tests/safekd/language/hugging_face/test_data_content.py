"""The hash of training data: the same for the same rows in another form, another for one token, read within bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from safekd.language.hugging_face.passes import NumberedRows, describe_data
from safekd.language.hugging_face.passes._data_content import SETTINGS

from .tiny_run import make_rows

ROWS = [{"input_ids": row["input_ids"], "context": row["context"], "score": 0.25} for row in make_rows()]


def read(data):
    return describe_data(data, None)["content"]


@pytest.mark.parametrize(
    "same",
    [
        [{**row, "input_ids": torch.tensor(row["input_ids"])} for row in ROWS],
        [{**row, "input_ids": np.array(row["input_ids"], dtype=np.int32)} for row in ROWS],
        [dict(reversed(row.items())) for row in ROWS],
        Dataset.from_list(ROWS),
        NumberedRows(ROWS, "index"),
    ],
    ids=["tensors", "arrays", "columns in another order", "data set", "numbered"],
)
def test_the_same_rows_in_another_form_are_the_same(same):
    assert describe_data(same, None) == {"rows": len(ROWS), "content": read(ROWS)}


@pytest.mark.parametrize("column", ["input_ids", "context", "score"])
def test_one_change_makes_other_data(column):
    values = {"input_ids": [*ROWS[5]["input_ids"][:-1], 1], "context": "prose", "score": 0.2500001}
    changed = [*ROWS[:5], {**ROWS[5], column: values[column]}, *ROWS[6:]]
    assert read(changed) != read(ROWS)
    assert read(ROWS[::-1]) != read(ROWS)


class Counted:
    """Many rows, made as they are read."""

    def __init__(self, size, last=0):
        self.size, self.last, self.reads = size, last, 0

    def __len__(self):
        return self.size

    def __getitem__(self, number):
        self.reads += 1
        return {"input_ids": [number % 50, self.last if number == self.size - 1 else 3]}


def test_of_large_data_a_bounded_sample_is_read():
    large = Counted(100_000)
    assert read(large) == read(Counted(100_000))
    assert large.reads <= SETTINGS.most_rows + 2 * SETTINGS.read_twice
    assert read(large) != read(Counted(100_000, last=4))


def test_rows_that_are_drawn_anew_are_not_compared():
    class Drawn(Counted):
        def __getitem__(self, number):
            return {"input_ids": torch.randint(0, 50, (4,)).tolist()}

    assert read(Drawn(10)) == read(Drawn(10)) == "drawn anew at each reading"


def test_a_stream_says_nothing():
    assert describe_data(iter(ROWS), None) == {"rows": None, "content": None}
