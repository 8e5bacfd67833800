"""Every engine gives the same answer: compiled kernels, tensor operations for devices, cvxpy."""

from __future__ import annotations

import itertools

import pytest
import torch

from solvers import InvalidInput, WeightPolytope, project
from solvers.projection._projection_orders import CHAIN, FREE, make_own_order, make_shared_order
from solvers.projection.exact._projection_autograd import pull_back_exact, read_block_labels
from solvers.projection.exact._torch_rows import project_on_device
from solvers.projection.exact.cpu_kernels._cpu_rows import project_on_cpu, pull_back_on_cpu
from solvers.projection.exact.cpu_kernels.simd._vector_kernels import SimdSettings, count_simd_rows
from tests.support import projection_properties as law

SCALES = [1e-8, 1e-3, 1.0, 1e3, 1e8]


def orders(seed: int, rows: int, K: int):
    generator = torch.Generator().manual_seed(seed)
    yield make_shared_order((0,) * K)
    yield make_shared_order(tuple(torch.randperm(K, generator=generator).tolist()))
    yield make_shared_order(tuple(torch.randint(0, 3, (K,), generator=generator).tolist()))
    yield make_own_order(torch.randint(0, 3, (rows, K), generator=generator).double())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kl", [False, True])
@pytest.mark.parametrize("K", [1, 2, 3, 8, 17])
def test_kernels_and_tensor_operations_agree(K, kl, scale):
    lower, upper = 0.3 / K, min(1.0, 2.5 / K)
    v_BK = scale * law.normal(K, 40, K)
    v_BK = v_BK.abs() + 1e-3 * scale if kl else v_BK
    for order in orders(K, 40, K):
        cpu_BK, block_BK = project_on_cpu(v_BK, order, lower, upper, kl)
        device_BK, device_block_BK = project_on_device(v_BK, order, lower, upper, kl)
        torch.testing.assert_close(cpu_BK, device_BK, atol=1e-12, rtol=0)
        block_BK = read_block_labels(cpu_BK, block_BK, order)
        same = block_BK[:, :, None] == block_BK[:, None, :]
        device_same = device_block_BK[:, :, None] == device_block_BK[:, None, :]
        free = (cpu_BK > lower) & (cpu_BK < upper)
        both = free[:, :, None] & free[:, None, :]
        assert torch.equal(same & both, device_same & both)


SLOW_K = [pytest.param(K, marks=pytest.mark.slow) for K in (1, 4, 7, 12)]  # each compiles kernels of its own


@pytest.mark.parametrize("K", [2, 8, *SLOW_K])
def test_rows_side_by_side_and_one_by_one_agree(K, monkeypatch):
    """Random rows and rows full of ties, at each scale, in a number that does not fill the registers."""
    rows = 2 * count_simd_rows(K) + 5
    ties_BK = torch.randint(0, 3, (rows, K), generator=torch.Generator().manual_seed(K)).double()
    lower, upper = 0.3 / K, min(1.0, 2.5 / K)
    for order in orders(K, rows, K):
        for scale, tied in itertools.product(SCALES, [False, True]):
            v_BK = scale * (ties_BK if tied else law.normal(K, rows, K))
            together_BK, block_BK = project_on_cpu(v_BK, order, lower, upper, False)
            assert torch.equal(project_on_cpu(v_BK, order, lower, upper, False, labeled=False)[0], together_BK)
            with monkeypatch.context() as patch:
                patch.setattr("solvers.projection.exact.cpu_kernels._cpu_rows.SIMD", SimdSettings(longest={}))
                alone_BK, alone_block_BK = project_on_cpu(v_BK, order, lower, upper, False)
            close = 4e-16 * max(1.0, float(v_BK.abs().max()))  # means of large scores round by as much
            torch.testing.assert_close(together_BK, alone_BK, atol=close, rtol=0)
            assert ((together_BK.sum(-1) - 1).abs() <= K * 2.3e-16).all()
            assert ((together_BK >= lower) & (together_BK <= upper)).all()
            if order.kind == CHAIN:
                assert (together_BK[:, torch.as_tensor(order.order_K)].diff(dim=-1) <= 0).all()
            grad_BK = law.normal(K + 1, rows, K)
            slopes = [pull_back_on_cpu(grad_BK, v_BK, together_BK, block_BK, order, lower, upper, False)]
            with monkeypatch.context() as patch:
                patch.setattr("solvers.projection.exact.cpu_kernels._cpu_rows.SIMD", SimdSettings(longest={}))
                slopes.append(pull_back_on_cpu(grad_BK, v_BK, together_BK, block_BK, order, lower, upper, False))
            torch.testing.assert_close(*slopes, atol=1e-14, rtol=0)
            if scale <= 1 and not tied and len(block_BK):
                same, alone = (b[:, :, None] == b[:, None, :] for b in (block_BK, alone_block_BK))
                free = (alone_BK > lower) & (alone_BK < upper)
                both = free[:, :, None] & free[:, None, :]
                assert torch.equal(same & both, alone & both)


def test_many_teachers_without_orderings_side_by_side_and_one_by_one_agree(monkeypatch):
    K, order = 100, make_shared_order((0,) * 100)
    v_BK, grad_BK = law.normal(0, 37, K) / K, law.normal(1, 37, K)
    found = []
    for longest in ({FREE: K}, {}):
        monkeypatch.setattr("solvers.projection.exact.cpu_kernels._cpu_rows.SIMD", SimdSettings(longest=longest))
        w_BK, block_BK = project_on_cpu(v_BK, order, 0.2 / K, 3.0 / K, False)
        found.append((w_BK, pull_back_on_cpu(grad_BK, v_BK, w_BK, block_BK, order, 0.2 / K, 3.0 / K, False)))
        law.assert_conforms(w_BK, WeightPolytope(K, 0.2 / K, 3.0 / K))
    for together_BK, alone_BK in zip(*found, strict=True):
        torch.testing.assert_close(together_BK, alone_BK, atol=1e-14, rtol=0)


@pytest.mark.parametrize("kind", ["none", "chain", "tiers", "own tiers"])
@pytest.mark.parametrize("K", [3, 8, 12])
def test_a_row_does_not_depend_on_its_batch(K, kind):
    """To the last bit: alone, in any place of a batch, beside a row that cannot be used."""
    order = dict(zip(["none", "chain", "tiers", "own tiers"], orders(1, 50, K), strict=True))[kind]
    v_BK = law.normal(2, 50, K)
    v_BK[::3] *= 30
    together_BK, _ = project_on_cpu(v_BK, order, 0.02, 0.5, False)
    v_BK[7, 1] = torch.nan
    spoiled_BK, _ = project_on_cpu(v_BK, order, 0.02, 0.5, False)
    assert spoiled_BK[7].isnan().all()
    for row in (0, 6, 8, 30, 49):
        tiers = make_own_order(order.tier_RK[row : row + 1]) if kind == "own tiers" else order
        alone_1K, _ = project_on_cpu(v_BK[row : row + 1], tiers, 0.02, 0.5, False)
        assert torch.equal(alone_1K[0], together_BK[row])
        assert torch.equal(spoiled_BK[row], together_BK[row])


@pytest.mark.parametrize("K", [2, 8, 12])
def test_a_row_that_conforms_comes_back_to_the_last_bit(K):
    for order in orders(4, 300, K):
        for scale in (0.1, 1.0, 1e4):
            w_BK, _ = project_on_cpu(scale * law.normal(6, 300, K), order, 0.2 / K, min(1.0, 2.0 / K), False)
            assert torch.equal(project_on_cpu(w_BK, order, 0.2 / K, min(1.0, 2.0 / K), False)[0], w_BK)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_row_among_registers_is_named_and_spoils_no_other(bad):
    v_BK = law.normal(0, 100, 4)
    polytope = WeightPolytope(4, 0.05, 0.5)
    good_BK = project(v_BK, polytope)
    v_BK[70, 2] = bad
    with pytest.raises(InvalidInput, match="at row 70, teacher 2"):
        project(v_BK, polytope)
    spoiled_BK = project(v_BK, polytope, check_finite=False)
    assert spoiled_BK[70].isnan().all()
    others = torch.arange(len(v_BK)) != 70
    assert torch.equal(spoiled_BK[others], good_BK[others])


def test_the_largest_floats_among_registers():
    v_BK = law.normal(0, 40, 4)
    v_BK[3] = torch.tensor([1.7e308, -1.7e308, 1e300, 0.0], dtype=torch.float64)
    w_BK = project(v_BK, WeightPolytope(4, 0.05, 0.6, [(0, 1), (1, 2), (2, 3)]))
    assert w_BK[3, 0] == 0.6
    law.assert_conforms(w_BK, WeightPolytope(4, 0.05, 0.6, [(0, 1), (1, 2), (2, 3)]))


@pytest.mark.parametrize("kind", ["none", "chain", "tiers", "partial", "own bounds"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sign", [-1, 1])
def test_teachers_masked_by_the_largest_float_leave_the_others_theirs(kind, dtype, sign):
    """As if the mask were some number far away that rounds nothing."""
    pairs = {"chain": [(0, 1), (1, 2), (2, 3)], "tiers": [(0, 2), (0, 3), (1, 2), (1, 3)], "partial": [(0, 2), (1, 3)]}
    upper = [0.5, 0.55, 0.6, 0.5] if kind == "own bounds" else 0.55
    polytope = WeightPolytope(4, 0.02, upper, pairs.get(kind, []))
    v_BK = law.normal(8, 40, 4).to(dtype).div(4)
    mask_BK = torch.arange(4) == torch.arange(40)[:, None] % 4  # one a row: two pooled with others would drown these
    masked_BK, far_BK = (v_BK.masked_fill(mask_BK, sign * far) for far in (torch.finfo(dtype).max, 1e3))
    w_BK = project(masked_BK, polytope)
    law.assert_conforms(w_BK, polytope)
    torch.testing.assert_close(w_BK, project(far_BK, polytope), atol=2e-12 if dtype == torch.float64 else 1e-4, rtol=0)


@pytest.mark.parametrize("kl", [False, True])
def test_both_backwards_agree(kl):
    v_BK = law.scores_for("kl" if kl else "euclidean", 5, 60, 8)
    for order in orders(3, 60, 8):
        w_BK, block_BK = project_on_cpu(v_BK, order, 0.02, 0.5, kl)
        grad_BK = law.normal(9, 60, 8)
        with torch.enable_grad():
            plain_BK = pull_back_exact(grad_BK, v_BK, w_BK, block_BK, order, 0.02, 0.5, kl)
        torch.testing.assert_close(pull_back_on_cpu(grad_BK, v_BK, w_BK, block_BK, order, 0.02, 0.5, kl), plain_BK)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", ["none", "chain", "tiers"])
def test_exact_and_cvxpy_agree(order, dtype):
    polytope = law.random_polytope(4, 6, order)
    v_BK = law.normal(8, 10, 6).to(dtype)
    exact_BK, cvxpy_BK = (project(v_BK, polytope, engine=engine) for engine in ("exact", "cvxpy"))
    torch.testing.assert_close(exact_BK, cvxpy_BK, atol=4 * torch.finfo(dtype).eps, rtol=0)


@pytest.mark.parametrize("K", [3, 8, *SLOW_K])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_chain_in_the_order_of_the_columns_is_no_other_chain(K, dtype):
    """Such rows are read four by four; the answers are those of the chain that runs the other way, to the last bit."""
    forth = WeightPolytope(K, lower=0.2 / K, upper=2.5 / K, orderings=[(k, k + 1) for k in range(K - 1)])
    back = WeightPolytope(K, lower=0.2 / K, upper=2.5 / K, orderings=[(k + 1, k) for k in range(K - 1)])
    v = torch.randn(83, K, generator=torch.Generator().manual_seed(K), dtype=torch.float64).to(dtype) / K
    one, other = v.clone().requires_grad_(), v.flip(-1).requires_grad_()
    w, turned = project(one, forth), project(other, back)
    assert torch.equal(w, turned.flip(-1))
    c = torch.randn(v.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    w.backward(c)
    turned.backward(c.flip(-1))
    assert torch.equal(one.grad, other.grad.flip(-1))
    assert one.grad.abs().max() > 0.1
