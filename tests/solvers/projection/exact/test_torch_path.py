"""The path of tensor operations, which a device without Triton takes: as exact as the kernels, in memory of the rows.

Axes: B rows, K teachers.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.overrides import TorchFunctionMode

from solvers.projection._projection_orders import make_own_order, make_shared_order
from solvers.projection.exact._torch_isotonic import regress_nonincreasing
from solvers.projection.exact._torch_rows import TORCH_PATH, project_by_operations
from tests.support import projection_properties as law

from .walks import project_one_by_one

KINDS = ["none", "chain", "mixed chain", "tiers", "own tiers"]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_metric = pytest.mark.parametrize("kl", [False, True], ids=["euclidean", "kl"])


def order_of(kind, rows, K):
    ranks_BK = torch.randint(0, 4, (rows, K), generator=law.generator(K)).double()
    if kind == "own tiers":
        return make_own_order(ranks_BK)
    mixed = torch.randperm(K, generator=law.generator(K)).tolist()
    shared = {"none": [0] * K, "chain": range(K, 0, -1), "mixed chain": mixed, "tiers": ranks_BK[0].int().tolist()}
    return make_shared_order(tuple(shared[kind]))


def rows_for(kl, K, rows=40):
    """Random rows, falling and rising ones, ties, equal ones, some far apart."""
    raw_BK = law.normal(K, rows, K)
    falling_BK = raw_BK.sort(dim=-1, descending=True).values / K
    tied_BK, far_BK = raw_BK.mul(2).round().div(4), raw_BK.mul(50)
    v_BK = torch.cat([raw_BK / K, falling_BK, falling_BK.flip(-1), tied_BK, far_BK, raw_BK[:, :1].expand(-1, K)])
    return v_BK.clamp(-300, 300).exp() if kl else v_BK


@each_kind
@each_metric
@pytest.mark.parametrize("K", [1, 2, 3, 7, 8, 9, 16, 17, 33, 100])
def test_weights_are_those_of_the_kernels(K, kl, kind):
    v_BK, lower, upper = rows_for(kl, K), 0.2 / K, min(1.0, 2.5 / K)
    order = order_of(kind, len(v_BK), K)
    expected_BK, _ = project_one_by_one(v_BK, order, lower, upper, kl)
    w_BK, block_BK = project_by_operations(v_BK, order, lower, upper, kl)
    torch.testing.assert_close(w_BK, expected_BK, atol=1e-13, rtol=0)
    assert block_BK.shape == w_BK.shape
    assert torch.equal(project_by_operations(v_BK, order, lower, upper, kl, labeled=False)[0], w_BK)


@each_kind
@each_metric
@pytest.mark.parametrize("K", [5, 33])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e8, 3e37])
def test_bounds_and_order_hold_to_the_last_bit(scale, dtype, K, kl, kind):
    lower, upper = (float(torch.tensor(share / K, dtype=dtype)) for share in (0.2, 2.5))
    v_BK = rows_for(kl, K).mul(scale).clamp(-3e38, 3e38).to(dtype)
    v_BK = v_BK.clamp_min(1e-37) if kl else v_BK
    order = order_of(kind, len(v_BK), K)
    w_BK, _ = project_by_operations(v_BK, order, lower, upper, kl)
    assert (w_BK >= lower).all()
    assert (w_BK <= upper).all()
    assert ((w_BK.double().sum(dim=-1) - 1).abs() <= K * torch.finfo(dtype).eps).all()
    tier_BK = torch.zeros_like(w_BK).double() if kind == "none" else order.tier_RK.expand(w_BK.shape)
    higher_BKK = tier_BK[:, :, None] > tier_BK[:, None, :]
    assert (~higher_BKK | (w_BK[:, :, None] >= w_BK[:, None, :])).all()


@pytest.mark.parametrize("K", [2, 8, 33])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_largest_floats_and_bounds_that_leave_one_point(K, dtype):
    largest = torch.finfo(dtype).max
    v_BK = torch.stack([torch.linspace(-1, 1, K), torch.linspace(1, -1, K), torch.ones(K), -torch.ones(K)]).to(dtype)
    chain = order_of("chain", 4, K)
    for lower, upper in ((0.0, 1.0), (1 / K, 1 / K), (1 / K, 1.0), (0.0, 1 / K), (0.0, math.nextafter(1 / K, 0))):
        lower, upper = (float(torch.tensor(bound, dtype=dtype)) for bound in (lower, upper))
        w_BK, _ = project_by_operations(v_BK * largest, chain, lower, upper, False)
        assert ((w_BK >= lower) & (w_BK <= upper)).all()
        assert (w_BK.diff(dim=-1) <= 0).all()
        assert ((w_BK.sum(dim=-1) - 1).abs() <= K * torch.finfo(dtype).eps).all()


@each_kind
@pytest.mark.parametrize("K", [3, 8, 33])
def test_what_conforms_comes_back(K, kind):
    v_BK = rows_for(False, K)
    order = order_of(kind, len(v_BK), K)
    w_BK, _ = project_one_by_one(v_BK, order, 0.2 / K, 2.5 / K, False)
    again_BK, _ = project_by_operations(w_BK, order, 0.2 / K, 2.5 / K, False)
    torch.testing.assert_close(again_BK, w_BK, atol=4e-16, rtol=0)


@each_metric
def test_a_score_that_cannot_be_used_spoils_its_row_alone(kl):
    odd = [torch.nan, torch.inf, -torch.inf, *([0.0, -1.0] if kl else [])]
    for K in (4, 33):
        v_BK = rows_for(kl, K)[: 2 * len(odd)]
        good_BK, _ = project_by_operations(v_BK, order_of("tiers", len(v_BK), K), 0.0, 1.0, kl)
        for row, value in enumerate(odd):
            v_BK[2 * row, row % K] = value
        w_BK, _ = project_by_operations(v_BK, order_of("tiers", len(v_BK), K), 0.0, 1.0, kl)
        assert w_BK[::2].isnan().all()
        assert torch.equal(w_BK[1::2], good_BK[1::2])


@pytest.mark.parametrize("K", [9, 16, 40, 64])
def test_the_regression_is_the_formula_over_intervals(K):
    v_BK = rows_for(False, K, rows=10)
    expected_BK = torch.empty_like(v_BK)
    for i in range(K):
        means = [[v_BK[:, a : e + 1].mean(dim=-1) for e in range(i, K)] for a in range(i + 1)]
        expected_BK[:, i] = torch.stack([torch.stack(row).amax(dim=0) for row in means]).amin(dim=0)
    x_BK = regress_nonincreasing(v_BK)
    torch.testing.assert_close(x_BK, expected_BK, atol=1e-12, rtol=1e-14)
    assert (x_BK.diff(dim=-1) <= 0).all()


class LargestTensor(TorchFunctionMode):
    """Notes how many numbers the largest tensor made under it holds."""

    numbers = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


@each_kind
@each_metric
def test_no_temporary_is_larger_than_the_rows(kl, kind):
    K, rows = 100, 20
    v_BK = rows_for(kl, K, rows)
    order = order_of(kind, len(v_BK), K)
    with LargestTensor() as largest:
        project_by_operations(v_BK, order, 0.2 / K, 2.5 / K, kl)
    assert largest.numbers <= 1.3 * v_BK.numel(), "places are filled up to 128, a power of two, and no further"


def test_rows_go_in_shares_that_change_no_answer(monkeypatch):
    v_BK = rows_for(False, 9)
    order = order_of("own tiers", len(v_BK), 9)
    whole = project_by_operations(v_BK, order, 0.02, 0.3, False)
    monkeypatch.setattr("solvers.projection.exact._torch_rows.TORCH_PATH", type(TORCH_PATH)(numbers_on_cpu=100))
    for x_BK, expected_BK in zip(project_by_operations(v_BK, order, 0.02, 0.3, False), whole, strict=True):
        assert torch.equal(x_BK, expected_BK)
