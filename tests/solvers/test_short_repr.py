"""Texts of records: they fit a screen, whatever is in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from solvers.short_repr import ShortRepr, shorten_repr


@dataclass(frozen=True, repr=False)
class Record(ShortRepr):
    one: Any
    two: Any = None


LARGE = {
    "a tensor": torch.zeros(1000, 30),
    "an array": np.zeros((1000, 30)),
    "a table": pd.DataFrame(np.zeros((500, 40))),
    "a long text": "word " * 5000,
    "a text of many lines": "line\n" * 5000,
    "a list": list(range(10**5)),
    "a dictionary": {f"name {i}": torch.zeros(9, 9) for i in range(1000)},
    "a module": torch.nn.Sequential(*(torch.nn.Linear(30, 30) for _ in range(50))),
    "records in records": Record(Record(Record(Record(Record(torch.zeros(99, 99)))))),
    "a function": lambda x: x,
}


@pytest.mark.parametrize("what", LARGE)
def test_a_text_fits_a_screen(what):
    lines = repr(Record(LARGE[what], [LARGE[what]] * 50)).splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 120


def test_small_records_are_told_whole():
    assert repr(Record(0.25, "b")) == "Record(one=0.25, two='b')"
    assert shorten_repr([1, 2, 3]) == "[1, 2, 3]"
    assert shorten_repr((1.5, None)) == "(1.5, None)"
    assert shorten_repr(torch.tensor(0.5)) == "0.5"
    assert shorten_repr(torch.zeros(3, 2)) == "Tensor(torch.float32, (3, 2))"


def test_many_fields_are_counted():
    made = dataclass(repr=False)(
        type("Many", (ShortRepr,), {"__annotations__": {f"field_{i}": int for i in range(60)}})
    )
    text = repr(made(*range(60)))
    assert text.splitlines()[-2] == "  ... 38 more,"
