"""The cost of weighting and pooling: linear in all three sizes when whole, free of the vocabulary in tables."""

from __future__ import annotations

import pytest
import torch

from benchmarks import pooling_cost


@pytest.fixture(scope="module")
def found():
    pooling_cost.BASE, kept = (16, 4, 256, 8), pooling_cost.BASE
    sizes = {"whole": {"N": (8, 32), "K": (2, 8), "V": (128, 1024)}}
    sizes["tables"] = {"N": (8, 32), "K": (2, 8), "V": (256, 65_536), "k": (4, 32)}
    before = dict(pooling_cost.KINDS)
    pooling_cost.KINDS |= {kind: (before[kind][0], sizes[kind]) for kind in before}
    yield {kind: pooling_cost.sweep(kind, 0.0) for kind in before}
    pooling_cost.BASE = kept
    pooling_cost.KINDS |= before


def test_operations_grow_as_they_should(found):
    whole = pooling_cost.fit_exponents(found["whole"], "operations")
    assert whole["N"] == pytest.approx(1, abs=0.05)
    assert whole["V"] == pytest.approx(1, abs=0.1)
    assert 0.7 < whole["K"] <= 1
    tables = pooling_cost.fit_exponents(found["tables"], "operations")
    assert tables["V"] == 0
    assert tables["k"] == pytest.approx(1, abs=0.2)
    assert pooling_cost.check(found)


def test_what_is_counted_is_what_torch_writes():
    x = torch.ones(10, 20)
    with pooling_cost.CountedCalls() as counted:
        (x.T + 1).sum(0)
    assert counted.operations == 200 + 10
    assert counted.bytes_moved == 4 * (200 + 200 + 200 + 10)


def test_the_tables_of_the_benchmark_are_tables():
    call = pooling_cost.make_tables(5, 3, 100, 20)
    dense = call().to_dense().exp()
    torch.testing.assert_close(dense.sum(-1), torch.ones(5))


def test_the_report_has_exponents_and_forms(found):
    text = pooling_cost.write_report(found)
    assert "| tables | operations | 1.0" in text
    assert "Operations of a position, whole: some (9 K + " in text
