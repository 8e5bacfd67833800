"""Free logits under a linear measure: the whole frontier is a tilt of the pool, and is met at defaults.

One row of logits an example.  With s_v = 0 on unsafe classes and 1 elsewhere, and the mean of s . p at least t:

    min mean KL(p || q)   has   p_v = q_v exp(lambda s_v) / Z
    min mean KL(q || p)   has   p_v = q_v / (nu - lambda s_v), nu of each example such that p sums to 1

and lambda is the one number that meets t.  Axes: N examples, K teachers, V classes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

import safekd as kd
from safekd.teachers import StoredTeacher
from tests.support.problems import FreeLogits

N, V, UNSAFE = 5, 4, [2, 3]
S_V = np.array([1.0, 1.0, 0.0, 0.0])
W_K = np.array([0.5, 0.3, 0.2])
P_NKV = np.random.default_rng(0).dirichlet(np.ones(V), size=(N, len(W_K)))
ARITHMETIC = (W_K[:, None] * P_NKV).sum(1)
GEOMETRIC = np.exp((W_K[:, None] * np.log(P_NKV)).sum(1))
GEOMETRIC /= GEOMETRIC.sum(1, keepdims=True)


def reverse_kl(log_q_V, logits_V):
    log_p_V = torch.log_softmax(logits_V, -1)
    return (log_p_V.exp() * (log_p_V - log_q_V)).sum(-1)


def tilted(q_NV, multiplier, reverse):
    if reverse:
        p_NV = q_NV * np.exp(multiplier * S_V)
        return p_NV / p_NV.sum(1, keepdims=True)
    if multiplier == 0:
        return q_NV

    def whole(nu, q_V):
        return (q_V / (nu - multiplier * S_V)).sum() - 1

    nus = [brentq(whole, (multiplier * S_V + q).max(), multiplier + 1 + 1e-9, args=(q,), xtol=1e-15) for q in q_NV]
    return np.stack([q / (nu - multiplier * S_V) for q, nu in zip(q_NV, nus, strict=True)])


def exact(q_NV, t, reverse):
    """Return loss, multiplier and distributions of the answer."""

    def missing(multiplier):
        return (tilted(q_NV, multiplier, reverse) @ S_V).mean() - t

    multiplier = 0.0 if missing(0.0) >= 0 else brentq(missing, 0.0, 100.0, xtol=1e-12)
    p_NV = tilted(q_NV, multiplier, reverse)
    a, b = (p_NV, q_NV) if reverse else (q_NV, p_NV)
    return (a * np.log(a / b)).sum(1).mean(), multiplier, p_NV


def make(q_NV, reverse):
    def trainer(threshold):
        student = FreeLogits(classes=V, rows=N)
        return kd.ConstrainedTrainer(
            student,
            [StoredTeacher("pool", torch.tensor(q_NV))],
            constraints=[kd.SafetyConstraint("safe", kd.safety.UnsafeMass(UNSAFE), threshold)],
            optimizer=torch.optim.Adam(student.parameters(), lr=0.05),
            divergence=reverse_kl if reverse else None,
        )

    return trainer


TRAIN = kd.Split("train", torch.arange(N).reshape(-1, 1), torch.zeros(N, dtype=torch.long))


@pytest.mark.parametrize(("pool", "reverse"), [("arithmetic", False), ("geometric", True)])
def test_the_traced_frontier_is_the_exact_tilt_of_the_pool(pool, reverse):
    q_NV = ARITHMETIC if pool == "arithmetic" else GEOMETRIC
    frontier = kd.trace_frontier(make(q_NV, reverse), TRAIN, targets=3, highest=0.9, epochs=3000)
    table = frontier.table
    assert table["status"].tolist() == ["anchor"] + ["converged"] * 2
    assert not table["multiplier_contradicted"].any()
    for row, student in zip(table.to_dict("records"), frontier.students.values(), strict=True):
        loss, multiplier, p_NV = exact(q_NV, row["target"], reverse)
        assert row["distillation_loss"] == pytest.approx(loss, abs=1e-4)
        assert row["safety_safe"] == pytest.approx(max(row["target"], (q_NV @ S_V).mean()), abs=1e-4)
        assert row["lambda_safe"] == pytest.approx(multiplier, abs=1e-4)
        found = torch.softmax(student(TRAIN.inputs), -1).detach().numpy()
        np.testing.assert_allclose(found, p_NV, atol=1e-4)


def test_one_teacher_pool_is_what_several_teachers_pool_to():
    """The arithmetic pool above is the trainer's own, for teachers with these weights."""
    log_p = torch.tensor(P_NKV).log()
    pooled = kd.pooling.arithmetic_pool(log_p, torch.tensor(W_K).expand(N, -1)).exp()
    np.testing.assert_allclose(pooled.numpy(), ARITHMETIC, atol=1e-12)


def test_weights_reach_all_of_this_convex_frontier():
    frontier = kd.trace_frontier(
        make(GEOMETRIC, True), TRAIN, targets=3, highest=0.75, epochs=800, method="mu", tolerance=1e-4
    )
    table = frontier.table
    assert set(table["status"]) == {"anchor", "converged"}
    assert set(table["method"]) == {"mu"}
    for row in table.to_dict("records"):
        p_NV = tilted(GEOMETRIC, row["mu"], True)
        assert row["safety_safe"] == pytest.approx((p_NV @ S_V).mean(), abs=1e-3)
        assert row["target"] == row["safety_safe"]
        assert row["lambda_safe"] == row["mu"]
        assert row["kkt_stationarity"] <= 1e-4
    assert not table["multiplier_contradicted"].any()
