"""Power means and log-linear pools against the plain formula, their limits, their gradients, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import safekd as kd
from safekd.errors import InvalidConfig, InvalidInput
from safekd.experiment.config import load_config
from safekd.language.hugging_face.passes._distillation_terms import DistillationTerms
from safekd.pooling import POOLS, LogLinearPool, PowerPool, arithmetic_pool, geometric_pool

from .random_teachers import draw_teachers, draw_weights, name_pool

OWN = [PowerPool(-2.0), PowerPool(-0.3), PowerPool(0.5), PowerPool(4.0), LogLinearPool(0.5), LogLinearPool(3.0)]


def assert_close(found, wanted, tolerance=1e-12):
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


@given(seed=st.integers(0, 10**6), r=st.sampled_from([-7.0, -1.0, -0.1, 0.01, 0.3, 2.0, 30.0]), K=st.integers(1, 5))
def test_a_power_mean_is_the_mean_of_powers(seed, r, K):
    log_p, w = draw_teachers(seed, 3, K, 5, scale=1.0), draw_weights(seed, 3, K)
    mean = (w.unsqueeze(-1) * log_p.exp() ** r).sum(-2) ** (1 / r)
    assert_close(PowerPool(r)(log_p, w).exp(), mean / mean.sum(-1, keepdim=True), 1e-11)


@given(seed=st.integers(0, 10**6), T=st.floats(0.2, 20))
def test_a_log_linear_pool_is_the_product_of_powers(seed, T):
    log_p, w = draw_teachers(seed, 3, 4, 5), draw_weights(seed, 3, 4)
    product = (log_p.exp() ** (w / T).unsqueeze(-1)).prod(-2)
    assert_close(LogLinearPool(T)(log_p, w).exp(), product / product.sum(-1, keepdim=True))


@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 30))
def test_the_limits_of_the_exponent(seed, scale):
    """1 is arithmetic and 0 geometric, exactly, and there is no gap beside either."""
    log_p, w = draw_teachers(seed, 4, 3, 6, scale=scale), draw_weights(seed, 4, 3)
    assert torch.equal(PowerPool(1)(log_p, w), arithmetic_pool(log_p, w))
    assert torch.equal(PowerPool(0.0)(log_p, w), geometric_pool(log_p, w))
    spread = float(log_p.exp().amax() * (log_p.amax(-2) - log_p.amin(-2)).amax() ** 2)
    for r in (1e-12, -1e-12, 1e-9, 1e-6, -1e-6):
        assert_close(PowerPool(r)(log_p, w).exp(), geometric_pool(log_p, w).exp(), 1e-12 + abs(r) * spread)
    for r in (1 - 1e-9, 1 + 1e-9):
        assert_close(PowerPool(r)(log_p, w).exp(), arithmetic_pool(log_p, w).exp(), 1e-6)


def test_a_small_exponent_loses_nothing_in_float32():
    """log(mean) / r would be off by 1e-7 / r."""
    log_p, w = draw_teachers(0, 50, 3, 6), draw_weights(0, 50, 3)
    for r in (1e-5, 1e-3, 0.03):
        found = PowerPool(r)(log_p.float(), w.float())
        assert_close(found.double().exp(), PowerPool(r)(log_p, w).exp(), 1e-6)


def test_large_exponents_end_at_the_largest_and_smallest_teacher():
    log_p, w = draw_teachers(1, 3, 3, 4, scale=1.0), draw_weights(1, 3, 3)
    for r, extreme in ((100.0, log_p.amax(-2)), (-100.0, log_p.amin(-2))):
        assert_close(PowerPool(r)(log_p, w).exp(), extreme.softmax(-1), 0.02)


@pytest.mark.parametrize("pool", [*OWN, POOLS["power"], geometric_pool], ids=name_pool)
def test_gradcheck(pool):
    log_p = draw_teachers(1, 2, 3, 4).requires_grad_()
    score = draw_weights(1, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, s: pool(p, s / s.sum(-1, keepdim=True)), (log_p, score))


@pytest.mark.parametrize("pool", OWN, ids=name_pool)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_beside_zeros(pool, dtype):
    p = torch.tensor([[0.7, 0.3, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]], dtype=dtype)
    log_p, w = p.log().requires_grad_(), torch.tensor([0.6, 0.4, 0.0], dtype=dtype, requires_grad=True)
    q = pool(log_p, w).exp()
    assert q[2] == 0
    q[:2].square().sum().backward()
    assert torch.isfinite(log_p.grad).all()
    assert torch.isfinite(w.grad).all()


def test_who_has_a_veto():
    """A class that one teacher leaves out: kept by powers above 0, left out by all others."""
    log_p = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.5, 0.3]]).log()
    w = torch.tensor([0.5, 0.5])
    assert PowerPool(0.5)(log_p, w)[2].exp() > 0
    for pool in (PowerPool(-0.5), geometric_pool, LogLinearPool(2.0)):
        assert pool(log_p, w)[2].exp() == 0
    for pool in (PowerPool(-0.5), LogLinearPool(2.0)):  # and none where it has no weight
        assert_close(pool(log_p, torch.tensor([0.0, 1.0])).exp().sum(), torch.tensor(1.0), 1e-6)
        assert pool(log_p, torch.tensor([0.0, 1.0]))[2].exp() > 0
        with pytest.raises(InvalidInput, match="leave out every class between them"):
            pool(torch.eye(2).log(), w)


def test_masked_vocabularies_of_half_types():
    log_p = torch.tensor([[0.0, -65504.0, -3.4e38], [-0.7, -0.7, -3.4e38]]).log_softmax(-1)
    for r in (-1.0, 1e-4, 0.5, 3.0):
        q = PowerPool(r)(log_p, torch.tensor([0.5, 0.5])).exp()
        assert torch.isfinite(q).all()
        assert float(q.sum()) == pytest.approx(1, abs=1e-6)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), r=st.floats(0, 1), scale=st.floats(0.1, 10), K=st.integers(2, 5))
def test_powers_from_0_to_1_keep_the_log_loss_guarantee(seed, r, scale, K):
    """Their Jensen gap is at least 0 whatever the truth is: sum_k w_k KL(y || p_k) >= KL(y || pool)."""
    log_p, w = draw_teachers(seed, 5, K, 6, scale=scale), draw_weights(seed, 5, K)
    gap_V = PowerPool(r)(log_p, w) - (w.unsqueeze(-1) * log_p).sum(-2)
    assert (gap_V >= -1e-9).all()


def test_beyond_1_the_guarantee_is_lost():
    log_p = torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05]], dtype=torch.float64).log()
    w = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert PowerPool(4.0)(log_p, w)[2] < (w.unsqueeze(-1) * log_p).sum(-2)[2]


@pytest.mark.parametrize("pool", OWN, ids=name_pool)
def test_a_student_learns_from_the_pool(pool):
    """The trainer takes it as it is: at the end the student is the pool."""
    p = draw_teachers(3, 4, 2, 3, scale=1.0)
    split = kd.Split("train", torch.eye(4), torch.zeros(4, dtype=torch.long))
    student = torch.nn.Linear(4, 3)
    teachers = [kd.teachers.StoredTeacher(f"t{k}", p[:, k], gives="log_probabilities") for k in range(2)]
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    kd.ConstrainedTrainer(student, teachers, optimizer=optimizer, pool=pool).fit(split, epochs=300)
    found = student(torch.eye(4)).softmax(-1).double()
    assert_close(found, pool(p, torch.full((4, 2), 0.5, dtype=torch.float64)).exp(), 5e-3)


REFUSED = {
    "exponent": (lambda: PowerPool(float("inf")), "`exponent` of PowerPool is inf; .* 1 is the arithmetic pool, 0 the"),
    "large": (lambda: PowerPool(101), "from -100 to 100"),
    "text": (lambda: PowerPool("half"), "is 'half'; wanted a number"),
    "temperature": (lambda: LogLinearPool(0.0), "`temperature` is 0.0; it must be above 0 and finite"),
    "weights": (lambda: PowerPool(0.5)(torch.zeros(2, 3).log_softmax(-1), torch.ones(2)), "Weights sum to 2"),
    "shape": (lambda: LogLinearPool(2.0)(torch.zeros(2, 3), torch.ones(3) / 3), r"wanted weights of shape \(2,\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    make, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        make()


def test_what_it_is_stands_in_the_record_of_a_language_run():
    """As text: a checkpoint is JSON."""
    terms = DistillationTerms(("a",), None, (), None, PowerPool(0.3), None, "teachers", 0.0, None, "64MiB")
    assert "PowerPool(exponent=0.3)" in json.loads(json.dumps(terms.describe()))["pool"]


DEMO = Path(kd.demo.__file__).parent / "breast_cancer.toml"


@pytest.mark.parametrize(
    ("changes", "pool"),
    [
        (["weights.pool=power", "weights.exponent=0.25"], PowerPool(0.25)),
        (["weights.pool=power"], PowerPool(0.5)),
        (["weights.pool=log_linear", "weights.pool_temperature=2"], LogLinearPool(2.0)),
        (["weights.pool=geometric"], geometric_pool),
    ],
)
def test_an_experiment_file_names_it(changes, pool):
    config, _ = load_config(DEMO, changes)
    assert config.weights.make_pool() == pool


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["weights.exponent=2"], '`exponent` is of the pool "power", and `pool` is "arithmetic"'),
        (["weights.pool=power", "weights.pool_temperature=2"], '`pool_temperature` is of the pool "log_linear"'),
        (["weights.pool=power", "weights.exponent=101"], "-100 to 100"),
        (["weights.pool=powr"], "did you mean 'power'"),
    ],
)
def test_an_experiment_file_that_names_none_is_refused(changes, message):
    with pytest.raises(InvalidConfig, match=message):
        load_config(DEMO, changes)
