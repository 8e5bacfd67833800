"""Recursion of distributions against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from safekd.errors import InvalidInput
from safekd.theory import divergence_from, recurse_distributions


def draw(rows, classes, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.softmax(2 * torch.randn(rows, classes, generator=g, dtype=torch.float64), -1)


@pytest.mark.parametrize("anchor", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("classes", [2, 7])
def test_anchored_recursion_contracts_at_least_at_one_minus_a(anchor, classes):
    p, q = draw(200, classes, 0), draw(200, classes, 1)
    run = recurse_distributions(q, p, anchor=anchor, generations=8)
    assert bool((run.kl_to_anchor <= run.bound + 1e-12).all())
    assert bool((run.factors[:4] <= 1 - anchor + 1e-9).all())
    expected = p + (1 - anchor) ** 8 * (q - p)
    assert torch.allclose(run.q[-1], expected, atol=1e-12)
    assert torch.allclose(run.moved[0], anchor * (p - q).abs().sum(-1) / 2)


def test_the_geometric_form_is_a_geometric_mean_of_the_ends():
    p, q = draw(50, 4, 2), draw(50, 4, 3)
    run = recurse_distributions(q, p, anchor=0.25, generations=5, form="geometric")
    kept = 0.75**5
    assert torch.allclose(run.q[-1], torch.softmax(kept * q.log() + (1 - kept) * p.log(), -1))


def test_without_an_anchor_a_perfect_student_stays_and_another_drifts():
    p, q = draw(20, 4, 4), draw(20, 4, 5)
    assert torch.equal(recurse_distributions(q, p, anchor=0.0, generations=3).q[-1], q)
    sharpen = recurse_distributions(
        p, p, anchor=0.0, generations=20, student=lambda q: torch.softmax(1.5 * q.log(), -1)
    )
    assert bool((sharpen.kl_to_anchor[-1] > sharpen.kl_to_anchor[1]).all())


def test_shares_may_change_from_generation_to_generation():
    p, q = draw(5, 3, 6), draw(5, 3, 7)
    run = recurse_distributions(q, p, anchor=[0.5, 0.0, 1.0], generations=3)
    assert torch.allclose(run.q[1], (p + q) / 2)
    assert torch.equal(run.q[2], run.q[1])
    assert torch.allclose(run.q[3], p)
    assert torch.equal(run.bound[-1], torch.zeros_like(run.bound[-1]))


def test_a_class_that_the_start_leaves_out_comes_back_in_the_arithmetic_form_only():
    p, q = [0.5, 0.5], [1.0, 0.0]
    assert math.isinf(float(recurse_distributions(q, p, anchor=0.1, generations=1).kl_to_anchor[0]))
    assert float(recurse_distributions(q, p, anchor=0.1, generations=1).q[1, 1]) == pytest.approx(0.05)
    assert float(recurse_distributions(q, p, anchor=0.1, generations=1, form="geometric").q[1, 1]) == 0


def test_divergence_is_torchs():
    p, q = draw(10, 5, 8), draw(10, 5, 9)
    assert torch.allclose(divergence_from(p, q), torch.nn.functional.kl_div(q.log(), p, reduction="none").sum(-1))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"start": [0.5, 0.6]}, "start holds what is no distribution"),
        ({"base": [0.2, 0.3, 0.5]}, "`start` has 2 classes, `base` has 3"),
        ({"anchor": -0.1}, "`anchor` is -0.1"),
        ({"generations": 1.5}, "`generations` is 1.5"),
        ({"student": lambda q: 2 * q}, "what `student` gives holds what is no distribution"),
    ],
)
def test_what_is_no_recursion_is_refused(change, text):
    given = {"start": [0.5, 0.5], "base": [0.9, 0.1], "anchor": 0.3, "generations": 2, **change}
    with pytest.raises(InvalidInput, match=text):
        recurse_distributions(given.pop("start"), given.pop("base"), **given)
