"""The GPU's kernels, run on the processor by Triton's interpreter: the same weights, blocks and gradients.

Triton decides at its import whether to interpret, and torch imports it when it likes; so kernels are interpreted in a
process of their own, to which the tests send their rows.  What the interpreter accepts the compiler may refuse:
another process compiles for a GPU, which needs none.

Axes: B rows, K teachers.
"""

from __future__ import annotations

import math
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from itertools import product
from multiprocessing import get_context

import pytest
import torch

from solvers import WeightPolytope, project
from solvers.projection._projection_orders import FREE, make_own_order, make_partial_order, make_shared_order
from solvers.projection.exact._projection_autograd import pull_back_blocks
from solvers.projection.exact._sorting_network import list_exchanges
from solvers.projection.exact._torch_rows import project_by_operations, project_on_device
from solvers.projection.exact.gpu import _triton_launch
from solvers.projection.exact.gpu._triton_launch import TRITON, can_use_triton, pull_back_on_triton
from tests.support import projection_properties as law

from .walks import project_one_by_one

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton: pip install 'safekd[test]'")
KERNELS = {f"solvers.projection.exact.gpu._triton_{name}" for name in ("kernels", "rows", "columns")}
KINDS = ["none", "chain", "mixed chain", "tiers", "own tiers"]
SIZES = [1, 2, 3, 5, 8, 13, 16]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_metric = pytest.mark.parametrize("kl", [False, True], ids=["euclidean", "kl"])
each_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def settle():
    torch.set_num_threads(1)


def answer(question):
    function, arguments = pickle.loads(question)  # as bytes, so that tensors travel by value
    return pickle.dumps(function(*arguments))


def elsewhere(**settings):
    """Yield a function that calls others in one process with these settings of the environment, from its start on."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool, pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(name, value)
        pool.submit(settle).result(120)
        environment.undo()
        yield lambda *call: pickle.loads(pool.submit(answer, pickle.dumps((call[0], call[1:]))).result(120))


@pytest.fixture(scope="module")
def interpreted():
    yield from elsewhere(TRITON_INTERPRET="1")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    yield from elsewhere(TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path_factory.mktemp("triton")))


def bounds(K, dtype):
    return (float(torch.tensor(share / K, dtype=dtype)) for share in (0.2, min(K, 2.5)))


def order_of(kind, rows, K):
    """An order of K teachers for so many rows; tiers tie."""
    ranks_BK = torch.randint(0, 3, (rows, K), generator=law.generator(K)).double()
    if kind == "own tiers":
        return make_own_order(ranks_BK)
    mixed = torch.randperm(K, generator=law.generator(K)).tolist()
    shared = {"none": [0] * K, "chain": range(K, 0, -1), "mixed chain": mixed, "tiers": ranks_BK[0].int().tolist()}
    return make_shared_order(tuple(shared[kind]))


def rows_for(kl, K, dtype, rows=30):
    """Scores of the size of weights, of ten times that, tied ones, equal ones, some on the bounds, -0.0."""
    raw_BK = law.normal(K, rows, K)
    v_BK = torch.cat([raw_BK / K, 3 * raw_BK, raw_BK.mul(4).round().div(4), raw_BK[:, :1].expand(-1, K)])
    v_BK[0], v_BK[1], v_BK[2, ::2] = next(bounds(K, dtype)), -0.0, 2.5 / K
    return (v_BK.exp() if kl else v_BK).to(dtype)


def assert_close_to_the_processors(w_BK, v_BK, order, low, high, kl):
    expected_BK = project_one_by_one(v_BK.double(), order, low, high, kl)[0]
    close = 1e-12 if w_BK.dtype == torch.float64 else 4 * torch.finfo(w_BK.dtype).eps
    torch.testing.assert_close(w_BK.double(), expected_BK, atol=close, rtol=0)


def groups(block_BK):
    return block_BK[:, :, None] == block_BK[:, None, :]


def assert_conforms(w_BK, order, low, high):
    """Bounds and order to the last bit, sums within K ulp."""
    B, K = w_BK.shape
    assert (w_BK >= low).all()
    assert (w_BK <= high).all()
    assert ((w_BK.double().sum(dim=-1) - 1).abs() <= K * torch.finfo(w_BK.dtype).eps).all()
    if order.kind == FREE:
        return
    tier_BK = order.tier_RK.expand(B, K)
    higher_BKK = tier_BK[:, :, None] > tier_BK[:, None, :]
    assert (~higher_BKK | (w_BK[:, :, None] >= w_BK[:, None, :])).all()


@needs_triton
@each_dtype
@each_metric
@each_kind
def test_kernels_agree_with_the_processors(kind, kl, dtype, interpreted):
    for K in SIZES if dtype == torch.float64 else SIZES[2:5]:
        v_BK, (low, high) = rows_for(kl, K, dtype), bounds(K, dtype)
        order = order_of(kind, len(v_BK), K)
        w_BK, block_BK = interpreted(project_on_device, v_BK, order, low, high, kl)
        assert block_BK.dtype == torch.int8, "it was not the kernels that answered"
        assert_conforms(w_BK, order, low, high)
        assert_close_to_the_processors(w_BK, v_BK, order, low, high, kl)


@needs_triton
@each_dtype
@each_kind
@pytest.mark.parametrize("scale", [1e-30, 1e8, 3e37])
def test_scores_of_every_size(kind, dtype, scale, interpreted):
    """What has to hold at every size are the rules; the optimum too where nothing is averaged, or only ratios count."""
    K, (low, high) = 5, bounds(5, dtype)
    for kl in (False, True):
        v_BK = rows_for(kl, K, torch.float64, rows=10).mul(scale).clamp_max(3e38).to(dtype)
        order = order_of(kind, len(v_BK), K)
        w_BK, _ = interpreted(project_on_device, v_BK, order, low, high, kl)
        assert_conforms(w_BK, order, low, high)
        if kl or kind == "none" or scale < 1:
            assert_close_to_the_processors(w_BK, v_BK, order, low, high, kl)


@needs_triton
@each_dtype
def test_scores_far_apart(dtype, interpreted):
    """Groups of scores so far apart that floats cannot tell what lies between; ratios beyond what a float holds."""
    free, far, (low, high) = make_shared_order((0,) * 4), 1e30, bounds(4, dtype)
    v_BK = torch.tensor([[2e8, 2e8, 0.1, 0], [0, 2e8, 0, 2e8], [2 * far, 2 * far, 0, -far]], dtype=dtype)
    w_BK, _ = interpreted(project_on_device, v_BK, free, low, high, False)
    assert_close_to_the_processors(w_BK, v_BK, free, low, high, False)
    v_BK = [[far, far, 2 / far, 1 / far], [1, 1e-9, 1e-9, 2e-9], [far, 1, 1, 1 / far], [1, 1e-40, 1, 3e-40]]
    v_BK = torch.tensor(v_BK, dtype=dtype)
    w_BK, _ = interpreted(project_on_device, v_BK, free, 0.0, 0.4, True)
    assert_conforms(w_BK, free, 0.0, 0.4)
    expected_BK = [[0.4, 0.4, 0.4 / 3, 0.2 / 3], [0.4, 0.15, 0.15, 0.3], [0.4, 0.3, 0.3, 0], [0.4, 0.05, 0.4, 0.15]]
    expected_BK = torch.tensor(expected_BK, dtype=dtype)
    torch.testing.assert_close(w_BK, expected_BK, atol=1e-5 if dtype == torch.float32 else 1e-12, rtol=0)


@needs_triton
@each_dtype
def test_small_ratios_keep_their_digits(dtype, interpreted):
    """Where nothing binds, kl keeps ratios, those of tiny weights too."""
    v_BK = torch.tensor([[1.0, 1e-10, 3e-10, 1e-20]], dtype=dtype)
    w_BK, _ = interpreted(project_on_device, v_BK, make_shared_order((0,) * 4), 0.0, 1.0, True)
    torch.testing.assert_close(w_BK, v_BK / v_BK.sum(), atol=0, rtol=64 * torch.finfo(dtype).eps)


@needs_triton
@each_metric
@each_kind
def test_a_score_that_cannot_be_used_spoils_its_row_alone(kind, kl, interpreted):
    odd = [torch.nan, torch.inf, -torch.inf, *([0.0, -1.0, -0.0] if kl else [])]
    v_BK = torch.ones(2 * len(odd) + 2, 4)
    for row, value in enumerate(odd):
        v_BK[2 * row, row % 4] = value
    v_BK[-2] = -1.0 if kl else torch.nan
    order = order_of(kind, len(v_BK), 4)
    w_BK, _ = interpreted(project_on_device, v_BK, order, 0.0, 1.0, kl)
    assert w_BK[::2].isnan().all()
    torch.testing.assert_close(w_BK[1::2], torch.full_like(w_BK[1::2], 0.25))
    assert torch.equal(w_BK.isnan(), project_by_operations(v_BK, order, 0.0, 1.0, kl)[0].isnan())


@needs_triton
@each_metric
@each_kind
def test_bounds_that_leave_one_point(kind, kl, interpreted):
    """Or, for the last, a rounding error less than one; and bounds that some rows fill."""
    just_less = math.nextafter(1 / 3, 0)
    for K, low, high in (
        (4, 0.25, 0.25),
        (4, 0.25, 1.0),
        (4, 0.0, 0.25),
        (2, 0.0, 0.5),
        (5, 0.0, 0.5),
        (3, 0.0, just_less),
    ):
        v_BK = rows_for(kl, K, torch.float64, rows=5)
        order = order_of(kind, len(v_BK), K)
        w_BK, _ = interpreted(project_on_device, v_BK, order, low, high, kl)
        assert_conforms(w_BK, order, low, high)
        assert_close_to_the_processors(w_BK, v_BK, order, low, high, kl)


@needs_triton
@each_metric
@each_kind
def test_blocks_are_those_of_the_tensor_operations(kind, kl, interpreted):
    for K in (1, 4, 5):
        x_BK, (low, high) = law.normal(K, 100, K).mul(2).round(), bounds(K, torch.float64)
        v_BK = x_BK.exp2() if kl else x_BK  # whole numbers, and powers of two, tie exactly
        order = order_of(kind, len(v_BK), K)
        _, block_BK = interpreted(project_on_device, v_BK, order, low, high, kl)
        assert torch.equal(groups(block_BK), groups(project_by_operations(x_BK, order, low, high, False)[1]))


@needs_triton
@each_dtype
@each_metric
@each_kind
def test_gradients_are_those_of_the_tensor_operations(kind, kl, dtype, interpreted):
    for K in (1, 3, 8):
        v_BK, (low, high) = rows_for(kl, K, dtype), bounds(K, dtype)
        grad_BK = law.normal(7, *v_BK.shape).to(dtype)
        order = order_of(kind, len(v_BK), K)
        w_BK, block_BK = interpreted(project_on_device, v_BK, order, low, high, kl)
        assert torch.equal(groups(block_BK), groups(block_BK.long())), "labels lost on the way"
        assert (block_BK.stride(0) == 0) == (kind == "none" and K > 1), (
            "rows without orderings need no labels of their own"
        )
        given = (grad_BK, v_BK, w_BK, block_BK, low, high, kl)
        slope_BK = interpreted(pull_back_on_triton, *given)
        with torch.enable_grad():
            expected_BK = pull_back_blocks(grad_BK, v_BK, w_BK, block_BK.long(), low, high, kl)
        if kl:  # rounding is that of numbers that have yet to be divided by the scores
            slope_BK, expected_BK = slope_BK * v_BK, expected_BK * v_BK
        torch.testing.assert_close(slope_BK, expected_BK, atol=16 * torch.finfo(dtype).eps, rtol=0)


@needs_triton
@pytest.mark.parametrize("rows", [0, 1, 127, 128, 129, 300])
def test_any_number_of_rows(rows, interpreted):
    v_BK, order = law.normal(0, rows, 3), order_of("own tiers", rows, 3)
    w_BK, block_BK = interpreted(project_on_device, v_BK, order, 0.1, 0.6, False)
    assert_close_to_the_processors(w_BK, v_BK, order, 0.1, 0.6, False)
    slope_BK = interpreted(pull_back_on_triton, v_BK, v_BK, w_BK, block_BK, 0.1, 0.6, False)
    assert slope_BK.shape == v_BK.shape


@needs_triton
def test_rows_that_do_not_lie_one_after_the_other(interpreted):
    v_BK, order = law.normal(0, 3, 20).T, order_of("chain", 20, 3)
    w_BK, _ = interpreted(project_on_device, v_BK, order, 0.1, 0.6, False)
    assert_close_to_the_processors(w_BK, v_BK, order, 0.1, 0.6, False)


@needs_triton
def test_labels_are_left_out_where_nobody_asks(interpreted):
    _, block_BK = interpreted(project_on_device, law.normal(0, 5, 3), order_of("chain", 5, 3), 0.1, 0.6, False, False)
    assert block_BK.numel() == 0


@needs_triton
@pytest.mark.parametrize("K", [TRITON.longest + 1, 33])
def test_more_teachers_than_a_thread_holds_go_to_tensor_operations(K, interpreted):
    v_BK, order = law.normal(0, 5, K), order_of("chain", 5, K)
    assert not interpreted(can_use_triton, v_BK)
    w_BK, _ = interpreted(project_on_device, v_BK, order, 0.1 / K, 3 / K, False)
    assert_close_to_the_processors(w_BK, v_BK, order, 0.1 / K, 3 / K, False)


@needs_triton
def test_partial_orders_go_through_the_processor(interpreted):
    v_BK, order = law.normal(0, 5, 4), make_partial_order(((0, 2), (1, 2), (1, 3)), 4)
    w_BK, _ = interpreted(project_on_device, v_BK, order, 0.1, 0.6, False)
    assert torch.equal(w_BK, project_one_by_one(v_BK, order, 0.1, 0.6, False)[0])


def compile_kernels(K, dtype, kl, kind):
    """Compile what a GPU of compute capability 9.0 would be given; return the bytes of machine code."""
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from solvers.projection.exact.gpu import _triton_kernels as kernels

    P, pooled = 1 << (K - 1).bit_length(), kind != "none"
    tiered, own, permuted = "tiers" in kind, kind == "own tiers", kind == "mixed chain"
    fixed = {"K": K, "P": P, "R": 128, "KL": kl, "POOLED": pooled, "TIERED": tiered, "OWN": own}
    fixed |= {"PERMUTED": permuted, "LABELED": True, "PAIRS_N": list_exchanges(K)}
    types = {"rows": "i32", "lower": "fp64", "upper": "fp64", "order_K": "*i32", "tier_RK": "*fp64", "block_BK": "*i8"}
    sizes = []
    for kernel in (kernels.project_block, kernels.pull_back_block):
        names = kernel.arg_names
        signature = {name: "constexpr" if name in fixed else types.get(name, f"*{dtype}") for name in names}
        source = ASTSource(kernel, signature, {name: fixed[name] for name in names if name in fixed})
        sizes.append(len(compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]))
    return sizes


@needs_triton
@pytest.mark.parametrize(
    ("K", "dtype", "kl", "kind"),
    [
        (1, "fp64", False, "chain"),
        (3, "fp32", True, "own tiers"),
        (4, "fp32", False, "none"),
        (4, "fp64", True, "none"),
        (5, "fp64", False, "tiers"),
        (8, "fp32", True, "mixed chain"),
        (8, "fp32", False, "chain"),
    ],
)
def test_the_compiler_takes_the_kernels(K, dtype, kl, kind, compiled):
    sizes = compiled(compile_kernels, K, dtype, kl, kind)
    assert len(sizes) == 2
    assert min(sizes) > 0


@pytest.mark.parametrize("K", range(1, 11))
def test_exchanges_sort(K):
    """If they sort all rows of zeros and ones they sort everything (Knuth 1998, theorem 5.3.4Z)."""
    for row in map(list, product([0, 1], repeat=K)):
        for i, j in list_exchanges(K):
            assert i < j
            row[i], row[j] = max(row[i], row[j]), min(row[i], row[j])
        assert row == sorted(row, reverse=True)


@pytest.fixture
def asked(monkeypatch):
    """A process in which the kernels are asked for, and nothing is known of them yet."""
    caches = (_triton_launch._works_on, _triton_launch._kernels)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for cache in caches:
        cache.cache_clear()
    yield monkeypatch
    for cache in caches:
        cache.cache_clear()


def test_where_triton_is_missing_tensor_operations_answer(asked):
    for name in [name for name in sys.modules if name in KERNELS]:
        asked.delitem(sys.modules, name)
    asked.setitem(sys.modules, "triton", None)
    v_BK, order = law.normal(0, 5, 3), order_of("chain", 5, 3)
    assert not can_use_triton(v_BK)
    w_BK, _ = project_on_device(v_BK, order, 0.1, 0.6, False)
    assert torch.equal(w_BK, project_by_operations(v_BK, order, 0.1, 0.6, False)[0])


def test_where_triton_cannot_compile_it_says_so_once(asked):
    def fail():
        raise RuntimeError("Failed to find C compiler")

    asked.setattr(_triton_launch, "_kernels", fail)
    with pytest.warns(RuntimeWarning, match="cannot compile for cpu .*Failed to find C compiler.*tensor operations"):
        assert not can_use_triton(law.normal(0, 5, 3))
    assert not can_use_triton(law.normal(0, 5, 3))  # a second warning would be an error here


def test_rows_on_the_processor_leave_the_kernels_alone():
    """This process never asks for a kernel, so nothing may have brought them in."""
    project([0.9, 0.3, -1.0], WeightPolytope(3, 0.1, 0.6, [(0, 1)]))
    assert not KERNELS & sys.modules.keys()
