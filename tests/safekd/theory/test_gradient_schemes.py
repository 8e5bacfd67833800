"""Gradient schemes and conforming weights, against cvxpy and torchjd itself."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

import safekd as kd
from safekd.errors import InvalidInput
from safekd.theory import GradientScheme, compare_gradient_schemes, find_conforming_descent, make_dual_cone_projector
from safekd.weights import Conforming, GradientMinNorm, Signals

torchjd = pytest.importorskip("torchjd.aggregation")
ORDERED = kd.WeightPolytope(n_teachers=3, lower=0.1, upper=0.6, orderings=[(0, 1)])


def jacobian(seed):
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
def test_the_shortest_conforming_direction_is_cvxpys(seed):
    j = jacobian(seed)
    w = cp.Variable(3)
    rules = [w >= 0.1, w <= 0.6, cp.sum(w) == 1, w[0] >= w[1]]
    cp.Problem(cp.Minimize(cp.sum_squares(j.numpy().T @ w)), rules).solve()
    found = find_conforming_descent(j, ORDERED)
    assert np.allclose(found.numpy(), w.value, atol=1e-4)
    others = kd.project(
        torch.randn(100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), ORDERED
    )
    direction = j.T @ found
    assert bool((others @ j @ direction >= direction @ direction - 1e-8).all())


@pytest.mark.parametrize("seed", range(3))
def test_the_projector_solves_the_program_of_torchjd(seed):
    j = jacobian(seed)
    gram, u = j @ j.T, torch.eye(3, dtype=torch.float64) / 3
    found = make_dual_cone_projector()(u, gram)
    for row, start in zip(found, u, strict=True):
        v = cp.Variable(3)
        cp.Problem(cp.Minimize(cp.quad_form(v, cp.psd_wrap(gram.numpy()))), [v >= start.numpy()]).solve()
        assert float(row @ gram @ row) == pytest.approx(float(v.value @ gram.numpy() @ v.value), abs=1e-6)
    weights = torchjd.UPGradWeighting(projector=make_dual_cone_projector())(gram)
    assert bool((gram @ weights >= -1e-8).all())  # no loss rises


def test_schemes_keep_their_promise_until_their_weights_conform():
    j = torch.tensor([[1.0, 0.0], [-0.9, 0.5], [-0.9, 0.5]], dtype=torch.float64)
    box = kd.WeightPolytope(n_teachers=3, lower=0.3, upper=0.4)
    table = compare_gradient_schemes(j, {"MGDA": torchjd.MGDAWeighting(epsilon=1e-8, max_iters=5000)}, box)
    own, conforming = table[~table["conforming"]].iloc[0], table[table["conforming"]].iloc[0]
    assert own["least"] > 0
    assert conforming["least"] < 0
    assert conforming["moved"] > 0
    assert all(0.3 - 1e-9 <= x <= 0.4 + 1e-9 for x in conforming["weights"])


def signals(task=None):
    g = torch.Generator().manual_seed(0)
    log_p = torch.log_softmax(torch.randn(8, 3, 5, generator=g, dtype=torch.float64), -1)
    student = torch.log_softmax(torch.randn(8, 5, generator=g, dtype=torch.float64), -1)
    return Signals(log_p=log_p, student_log_p=student, task=task)


def test_a_scheme_as_a_rule_is_the_scheme_on_the_tasks_gramian():
    rule = GradientScheme(torchjd.MGDAWeighting(epsilon=1e-10, max_iters=20_000))
    weights = rule(signals())
    assert torch.allclose(weights, GradientMinNorm(ridge=0.0)(signals()), atol=1e-3)
    assert torch.equal(weights, weights[:1].expand_as(weights))  # one task: the same weights everywhere


def test_tasks_have_weights_of_their_own_and_conforming_ones_conform():
    task = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    w = Conforming(GradientScheme(torchjd.MGDAWeighting()), ORDERED)(signals(task))
    assert not torch.allclose(w[0], w[-1])
    assert torch.equal(w[0], w[3])
    assert bool((w[:, 0] >= w[:, 1]).all())
    assert bool((w >= 0.1).all())


def test_students_train_under_a_scheme():
    g = torch.Generator().manual_seed(0)
    student, rows = torch.nn.Linear(2, 3), torch.softmax(torch.randn(3, 12, 3, generator=g), -1)
    labels = torch.randint(0, 3, (12,), generator=g)
    split = kd.Split("train", torch.randn(12, 2, generator=g), labels, numbers=torch.arange(12))
    teachers = [kd.teachers.StoredTeacher(f"t{k}", p) for k, p in enumerate(rows)]
    rule = Conforming(GradientScheme(torchjd.UPGradWeighting(projector=make_dual_cone_projector())), ORDERED)
    trainer = kd.ConstrainedTrainer(
        student, teachers, weights=rule, optimizer=torch.optim.Adam(student.parameters(), lr=0.05)
    )
    trace = trainer.fit(split, epochs=20, trace_every=5).trace
    assert trace["distillation_loss"].iloc[-1] < trace["distillation_loss"].iloc[0]


def test_a_scheme_without_weights_left_is_uniform():
    rule = GradientScheme(lambda gram: -torch.ones(len(gram), dtype=gram.dtype))
    assert torch.allclose(rule(signals()), torch.full((8, 3), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: GradientScheme("MGDA"), "`weighting` is a str"),
        (lambda: GradientScheme(torch.ones, temperature=0), "`temperature` of GradientScheme is 0"),
        (lambda: GradientScheme(lambda gram: gram)(signals()), "wanted 3 finite weights"),
        (lambda: compare_gradient_schemes(torch.ones(2, 3), {}, ORDERED), r"shape \(2, 3\)"),
    ],
)
def test_what_is_no_scheme_is_refused(make, text):
    with pytest.raises(InvalidInput, match=text):
        make()
