"""Contraction of maps on weights whose factor is known."""

from __future__ import annotations

import pytest
import torch

import safekd as kd
from safekd.errors import InvalidInput
from safekd.theory import measure_contraction

BOX = kd.WeightPolytope(n_teachers=4, lower=0.05, upper=0.7)


@pytest.mark.parametrize("factor", [0.1, 0.6, 0.95])
def test_the_factor_of_a_pull_towards_a_point_is_found(factor):
    target = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    found = measure_contraction(lambda w: factor * w + (1 - factor) * target, BOX, iterations=600)
    assert found.factor == pytest.approx(factor, abs=1e-6)
    assert found.contracts
    assert torch.allclose(found.fixed_point, target, atol=1e-9)
    assert found.rate.factor == pytest.approx(factor, abs=1e-4)


def test_a_matrix_contracts_by_its_norm_at_most_and_its_spectral_radius_in_the_end():
    g = torch.Generator().manual_seed(0)
    matrix = torch.randn(4, 4, generator=g, dtype=torch.float64)
    matrix = 0.8 * matrix / torch.linalg.matrix_norm(matrix, 2)
    found = measure_contraction(lambda w: w @ matrix.T, BOX, iterations=400)
    assert found.factor <= 0.8 + 1e-9
    radius = torch.linalg.eigvals(matrix).abs().max()
    assert found.rate.factor == pytest.approx(float(radius), abs=0.05)


def test_feedback_that_favors_the_strong_has_several_fixed_points():
    found = measure_contraction(lambda w: kd.project(w + 0.5 * (w - 0.25), BOX), BOX)
    assert found.factor == pytest.approx(1.5)
    assert not found.contracts
    assert found.fixed_point is None
    assert found.spread > 0.3
    assert "apart at the end" in str(found)


def test_a_map_that_cycles_has_no_fixed_point_though_nothing_grows():
    found = measure_contraction(lambda w: w.roll(1, -1), BOX, iterations=101)
    assert found.fixed_point is None
    assert found.still_moving > 0.1
    assert found.factor == pytest.approx(1)


@pytest.mark.parametrize(
    ("update", "more", "text"),
    [
        (lambda w: w[0], {}, r"gives \(4,\) for weights of shape \(64, 4\)"),
        (lambda w: w / 0, {}, "not finite"),
        (lambda w: w, {"starts": 1}, "`starts` is 1"),
        (lambda w: w, {"iterations": 2}, "`iterations` is 2"),
    ],
)
def test_what_is_no_update_is_refused(update, more, text):
    with pytest.raises(InvalidInput, match=text):
        measure_contraction(update, BOX, **more)
