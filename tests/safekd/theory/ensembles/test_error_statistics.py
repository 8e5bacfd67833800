"""Errors, variance, losses and safety of pools, against simulation, numpy, scipy and the inequalities themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import safekd as kd
from safekd.errors import InvalidInput
from safekd.pooling import LogLinearPool, PowerPool, arithmetic_pool, geometric_pool
from safekd.safety import Margin, OneMinusBrier, Recall, TruthProbability, UnsafeMass
from safekd.theory.ensembles import (
    ErrorStatistics,
    bound_log_loss,
    compare_means,
    find_exponent,
    measure_errors,
    measure_jensen_gap,
    measure_safety,
)
from tests.safekd.pooling.random_teachers import draw_teachers, draw_weights

N = 20_000
HALF = torch.tensor([0.5, 0.5], dtype=torch.float64)
COVARIANCES = {
    "independent": np.diag([1.0, 2.0, 0.5]),
    "correlated": np.array([[1.0, 0.8, 0.3], [0.8, 2.0, 0.1], [0.3, 0.1, 0.5]]),
    "opposite": np.array([[1.0, -0.9, 0.0], [-0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]),
}


def simulate(covariance, truth, bias=(0.0, 0.0, 0.0), rows=N):
    """Return teachers that scatter about a known distribution of two classes with a known covariance of errors."""
    noise_NK = np.random.default_rng(0).multivariate_normal(bias, covariance * 1e-4, size=rows, method="cholesky")
    p_NK = truth + noise_NK
    assert p_NK.min() > 0
    assert p_NK.max() < 1
    return torch.from_numpy(np.stack([p_NK, 1 - p_NK], axis=-1)).log()


@pytest.mark.parametrize("kind", COVARIANCES)
@pytest.mark.parametrize("weights", [(1 / 3, 1 / 3, 1 / 3), (0.5, 0.3, 0.2)])
def test_the_variance_of_a_pool_is_what_the_true_covariance_says(kind, weights):
    """Errors in two classes are (n, -n), so each covariance counts twice."""
    log_p, w = simulate(COVARIANCES[kind], 0.4), torch.tensor(weights, dtype=torch.float64)
    pooled = arithmetic_pool(log_p, w.expand(N, 3)).exp()
    measured = float(pooled.var(dim=0, unbiased=False).sum())
    predicted = float(2e-4 * np.array(weights) @ COVARIANCES[kind] @ np.array(weights))
    assert measured == pytest.approx(predicted, rel=5 * math.sqrt(2 / N))  # of a chi-squared
    errors = measure_errors(log_p, torch.tensor([0.4, 0.6], dtype=torch.float64).expand(N, 2))
    assert errors.predict_variance(w) == pytest.approx(measured, rel=1e-9)
    alone = 2e-4 * float(np.square(weights) @ COVARIANCES[kind].diagonal())
    assert errors.predict_variance(w, independent=True) == pytest.approx(alone, rel=5 * math.sqrt(2 / N))


def test_covariance_is_numpys_summed_over_classes():
    log_p, labels = draw_teachers(0, 300, 3, 4), torch.arange(300) % 4
    errors = measure_errors(log_p, labels)
    e_NKV = log_p.exp().numpy() - np.eye(4)[labels.numpy()][:, None]
    wanted = sum(np.cov(e_NKV[:, :, v].T, bias=True) for v in range(4))
    np.testing.assert_allclose(errors.covariance_KK, wanted, atol=1e-12)
    np.testing.assert_allclose(errors.bias_KV, e_NKV.mean(0), atol=1e-12)
    brier_K = np.square(e_NKV).sum(-1).mean(0)
    np.testing.assert_allclose(errors.covariance_KK.diagonal() + errors.bias_KV.norm(dim=-1) ** 2, brier_K, atol=1e-12)
    deviation = np.sqrt(wanted.diagonal())
    np.testing.assert_allclose(errors.compute_correlation(), wanted / np.outer(deviation, deviation), atol=1e-12)


@pytest.mark.parametrize(
    ("covariance", "effective"),
    [
        (np.eye(4), 4.0),
        (np.ones((4, 4)), 1.0),
        (np.eye(4) * 0.5 + 0.5, 4 / (1 + 3 * 0.5)),  # K / (1 + (K - 1) rho)
        (np.zeros((4, 4)), 4.0),
        (np.kron(np.eye(2), [[1.0, -1.0], [-1.0, 1.0]]), math.inf),
    ],
)
def test_as_how_many_independent_teachers_they_count(covariance, effective):
    errors = ErrorStatistics(torch.zeros(4, 2, dtype=torch.float64), torch.from_numpy(covariance), 1)
    assert errors.count_effective(torch.full((4,), 0.25)) == pytest.approx(effective)
    one = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert errors.count_effective(one) == pytest.approx(1)


def test_biases_that_are_opposite_cancel():
    log_p = simulate(COVARIANCES["independent"], 0.5, bias=(0.1, -0.1, 0.0))
    errors = measure_errors(log_p, torch.tensor([0.5, 0.5], dtype=torch.float64).expand(N, 2))
    assert errors.attenuate_bias(torch.tensor([0.5, 0.5, 0.0])) < 0.01
    assert errors.attenuate_bias(torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(1)


@given(seed=st.integers(0, 10**6), K=st.integers(1, 5))
def test_a_pool_never_has_more_bias_than_its_teachers_nor_more_variance(seed, K):
    errors = measure_errors(draw_teachers(seed, 20, K, 3), torch.arange(20) % 3)
    w = draw_weights(seed, K)
    assert 0 <= errors.attenuate_bias(w) <= 1
    assert errors.predict_variance(w) <= float(w @ errors.covariance_KK.diagonal()) + 1e-12
    assert errors.count_effective(w) >= 1 - 1e-9


def test_no_weights_have_a_lower_brier_score_than_those_that_minimize_it():
    log_p, labels = draw_teachers(3, 100, 4, 3), torch.arange(100) % 3
    errors = measure_errors(log_p, labels)

    def brier(w):
        pooled = (w[:, None] * log_p.exp()).sum(1)
        return float((pooled - torch.nn.functional.one_hot(labels, 3)).square().sum(-1).mean())

    best = errors.minimize_error()
    assert float(best.sum()) == pytest.approx(1)
    assert brier(best) <= min(brier(draw_weights(seed, 4)) for seed in range(200))
    assert brier(best) <= min(brier(row) for row in torch.eye(4, dtype=torch.float64))


@settings(max_examples=80)
@given(seed=st.integers(0, 10**6), K=st.integers(1, 5), scale=st.floats(0.1, 20), r=st.sampled_from([0, 0.3, 1]))
def test_the_loss_of_a_pool_is_within_its_guarantee(seed, K, scale, r):
    log_p, w, labels = draw_teachers(seed, 7, K, 4, scale=scale), draw_weights(seed, K), torch.arange(7) % 4
    pool, w = PowerPool(r), 0.2 / K + 0.8 * w
    loss_PK = -log_p.gather(-1, labels[:, None, None].expand(7, K, 1))[..., 0]
    pooled_P = -pool(log_p, w.expand(7, K)).gather(-1, labels[:, None])[:, 0]
    assert (measure_jensen_gap(loss_PK, w, pooled_P) >= -1e-9).all()
    assert float(pooled_P.mean()) <= bound_log_loss(pool, loss_PK, w) + 1e-9


def test_the_guarantee_beside_the_best_teacher():
    """A teacher of weight 1/2 costs at most log 2 nats, whatever the other says."""
    loss_PK = torch.tensor([[0.1, 30.0], [0.2, 50.0]], dtype=torch.float64)
    assert bound_log_loss(arithmetic_pool, loss_PK, HALF) == pytest.approx(0.15 + math.log(2))
    assert bound_log_loss(geometric_pool, loss_PK, HALF) == pytest.approx(loss_PK.mean())
    assert bound_log_loss(PowerPool(0.5), loss_PK, HALF) == pytest.approx(0.15 + 2 * math.log(2))
    assert bound_log_loss(PowerPool(2.0), loss_PK, HALF) is None
    assert bound_log_loss(lambda p, w: p[0], loss_PK, HALF) is None
    infinite = torch.tensor([[0.1, math.inf]], dtype=torch.float64)
    assert bound_log_loss(arithmetic_pool, infinite, torch.tensor([1.0, 0.0])) == pytest.approx(0.1)


def test_exponents_of_pools():
    assert [find_exponent(pool) for pool in (arithmetic_pool, geometric_pool, PowerPool(0.3))] == [1, 0, 0.3]
    assert find_exponent(LogLinearPool(1.0)) == 0
    assert find_exponent(LogLinearPool(2.0)) is None


MEASURES = [TruthProbability(), UnsafeMass(unsafe=[0, 2]), OneMinusBrier(), Margin()]


def read_safety(measure, pool, log_p, w, labels):
    values = torch.stack([measure.measured(log_p[:, k], labels) for k in range(log_p.shape[1])], -1)
    return measure_safety(measure, pool, values, w, measure.measured(pool(log_p, w.expand(log_p.shape[:-1])), labels))


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), K=st.integers(1, 5), measure=st.sampled_from(MEASURES), scale=st.floats(0.1, 9))
def test_an_arithmetic_pool_is_as_safe_as_viii_7_needs_it(seed, K, measure, scale):
    log_p, labels = draw_teachers(seed, 9, K, 4, scale=scale), torch.arange(9) % 4
    found = read_safety(measure, arithmetic_pool, log_p, draw_weights(seed, K), labels)
    assert found.student_bound == found.weighted
    assert found.pool >= found.student_bound - 1e-9
    assert found.exceeding == 0
    assert math.isnan(found.attenuation) or found.attenuation <= 1 + 1e-9


def test_a_geometric_pool_may_be_less_safe_than_all_its_teachers():
    """Two teachers that exclude each other's answer leave the unsafe class."""
    log_p = torch.tensor([[[0.1, 0.899, 0.001], [0.1, 0.001, 0.899]]], dtype=torch.float64).log()
    found = read_safety(UnsafeMass(unsafe=[0]), geometric_pool, log_p, HALF, torch.tensor([1]))
    assert 1 - found.pool == pytest.approx(0.1 / (0.1 + 2 * math.sqrt(0.899e-3)))
    assert found.exceeding == 1
    assert found.attenuation > 6
    assert found.student_bound is None


def test_a_measure_that_is_not_concave_promises_nothing():
    log_p = draw_teachers(0, 9, 2, 3)
    assert (
        read_safety(Recall([0]), arithmetic_pool, log_p, HALF, torch.zeros(9, dtype=torch.long)).student_bound is None
    )


def test_a_student_that_reached_the_pool_is_as_safe_as_promised():
    log_p = draw_teachers(1, 6, 2, 3, scale=1.0)
    split = kd.Split("train", torch.eye(6), torch.arange(6) % 3)
    teachers = [kd.teachers.StoredTeacher(f"t{k}", log_p[:, k], gives="log_probabilities") for k in range(2)]
    safety = kd.ensemble_report(teachers, split, safety=TruthProbability([0, 1])).safety
    student = torch.nn.Linear(6, 3)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    kd.ConstrainedTrainer(student, teachers, optimizer=optimizer).fit(split, epochs=300)
    critical = split.labels < 2
    truth = student(split.inputs).detach().softmax(-1).gather(-1, split.labels[:, None])[:, 0][critical]
    assert float(truth.mean()) >= safety.student_bound - 1e-3
    assert float(truth.mean()) == pytest.approx(safety.pool, abs=1e-3)


def test_a_paired_mean_is_scipys():
    x = torch.from_numpy(np.random.default_rng(0).normal(-0.1, 1, 200))
    found = compare_means(x, torch.arange(200))
    assert found.error == pytest.approx(stats.sem(x))
    p = stats.ttest_1samp(x, 0, alternative="less").pvalue
    for level in (p * 0.9, p * 1.1):
        assert found.is_below_zero(level) == (p < level)
    assert compare_means(-x, torch.arange(200)).is_above_zero(p * 1.1)


def test_positions_of_one_case_are_not_independent():
    """Each example ten times over is no more evidence than once."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=30))
    once, often = compare_means(x, torch.arange(30)), compare_means(x.repeat_interleave(10), torch.arange(300) // 10)
    assert often.error == pytest.approx(once.error)
    assert often.cases == 30
    assert not compare_means(torch.tensor([-5.0]), torch.tensor([0])).is_below_zero(0.4)  # one case shows nothing


REFUSED = {
    "labels": (lambda: measure_errors(draw_teachers(0, 5, 2, 3), torch.zeros(4).long()), r"wanted .*labels \(N,\)"),
    "nothing": (lambda: measure_errors(torch.zeros(0, 2, 3), torch.zeros(0).long()), "at least one"),
    "weights": (
        lambda: measure_errors(draw_teachers(0, 5, 2, 3), torch.zeros(5).long()).predict_variance(torch.ones(3)),
        r"`w_K` has shape \(3,\); wanted one weight a teacher, \(2,\)",
    ),
    "losses": (lambda: bound_log_loss(arithmetic_pool, torch.ones(5, 2), torch.ones(3)), "do not fit losses of shape"),
    "gap": (lambda: measure_jensen_gap(torch.ones(5, 2), HALF, torch.ones(4)), r"`pooled_P` has shape \(4,\)"),
    "means": (lambda: compare_means(torch.ones(5), torch.ones(4)), "wanted \\(P,\\) each"),
    "safety": (
        lambda: measure_safety(TruthProbability(), arithmetic_pool, torch.ones(5, 2), HALF, torch.ones(4)),
        r"a pool of shape \(4,\) do not fit",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    call, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        call()
