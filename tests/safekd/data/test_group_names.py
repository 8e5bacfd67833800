"""Which numbers are among some, and how messages show thousands of them."""

from __future__ import annotations

import pytest
import torch

import safekd as kd
from safekd.data import mark_groups, show_groups


@pytest.mark.parametrize("numbers", [{5}, {0}, {0, 3, 7}, set(range(0, 50_000, 3)), {1, 10**12}, set()])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_marked_are_those_that_are_among_them(numbers, dtype):
    value = torch.randint(0, 200, (6, 40), generator=torch.Generator().manual_seed(0)).to(dtype)
    value = value if dtype == torch.uint8 else torch.cat([value, value.new_tensor([[-100, -1] * 20])])
    expected = torch.tensor([[one in numbers for one in row] for row in value.tolist()])
    assert torch.equal(mark_groups(value, frozenset(numbers)), expected)


def test_a_few_numbers_are_shown_all_and_thousands_are_counted():
    assert show_groups({3, 1, "b", 2}) == "[1, 2, 3, 'b']"
    assert show_groups(range(5000)) == "[0, 1, 2, ... 5,000 in all]"
    assert (
        repr(kd.safety.TruthProbability(critical=range(5000)))
        == "TruthProbability(critical=[0, 1, 2, ... 5,000 in all])"
    )
