"""Evaluations of students whose Jacobian is beyond the budget: two vectors instead, and words about what is missing."""

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.safety import OneMinusBrier, TruthProbability
from safekd.teachers import StoredTeacher
from safekd.training import EvidenceBudget, read_full_pass

N, FEATURES, CLASSES = 40, 4, 3
PARAMETERS = FEATURES * 5 + 5 + 5 * CLASSES + CLASSES
RULES = [
    kd.SafetyConstraint("a", TruthProbability(critical=[0]), 0.6),
    kd.SafetyConstraint("b", OneMinusBrier(), exactly=0.55, average="all"),
    kd.SafetyConstraint("free", TruthProbability(critical=[1]), 0.01),
]
JACOBIAN = 8 * (len(RULES) + 1) * PARAMETERS  # bytes


def trainer(budget: EvidenceBudget | None, dtype=torch.float64, **more) -> kd.ConstrainedTrainer:
    draw = torch.Generator().manual_seed(0)
    rows = torch.softmax(2 * torch.randn(N, CLASSES, generator=draw, dtype=torch.float64), -1)
    torch.manual_seed(2)
    student = nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, CLASSES)).to(dtype)
    return kd.ConstrainedTrainer(
        student,
        [StoredTeacher("t", rows)],
        constraints=RULES,
        optimizer=torch.optim.Adam(student.parameters(), lr=0.02),
        evidence_budget=budget,
        **more,
    )


def data(dtype=torch.float64) -> kd.Split:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(N, FEATURES, generator=draw, dtype=torch.float64).to(dtype)
    return kd.Split("train", x, torch.randint(CLASSES, (N,), generator=draw))


@pytest.mark.parametrize("batch_size", [None, 16])
def test_residuals_are_the_same_whether_the_jacobian_is_held_or_not(batch_size):
    held = trainer(EvidenceBudget(JACOBIAN), batch_size=batch_size).fit(data(), epochs=30, trace_every=10)
    not_held = trainer(EvidenceBudget(JACOBIAN - 1), batch_size=batch_size).fit(data(), epochs=30, trace_every=10)
    for name in ("kkt_stationarity", "kkt_primal", "kkt_complementarity", "gradient_norm", "lambda_a", "lambda_b"):
        last = slice(None, -1)  # at its end a run is corrected by the Jacobian, where there is one
        assert not_held.trace[name][last].tolist() == pytest.approx(held.trace[name][last].tolist(), rel=1e-10)
    assert held.trace["gradient_norm_a"].notna().all()
    assert not_held.trace["gradient_norm_a"].isna().all()


def test_two_vectors_are_those_of_the_jacobian():
    one, lambda_M = trainer(None), torch.tensor([1.5, -0.3, 0.0], dtype=torch.float64)
    one.objective.rows = 7
    whole = read_full_pass(one.objective, data(), {}, RULES, with_gradients=True)
    two = read_full_pass(one.objective, data(), {}, RULES, with_gradients=True, multipliers=lambda_M)
    gradient_n, jacobian_Mn = whole.require_gradients()
    assert two.gradient_norm == pytest.approx(float(gradient_n.norm()), rel=1e-12)
    assert two.lagrangian_norm == pytest.approx(float((gradient_n + jacobian_Mn.T @ lambda_M).norm()), rel=1e-12)
    assert (two.gradient_n, two.jacobian_Mn) == (None, None)
    assert two.readings == whole.readings


def test_the_verdict_says_what_was_beyond_the_budget():
    free = kd.SafetyConstraint("free", TruthProbability(critical=[1]), 0.01)
    one = trainer(EvidenceBudget(1000))
    result = one.with_constraints([free]).fit(data(), epochs=4000, tolerance=1e-2)
    assert result.status == "stationary_unverified"
    assert "it needs" in result.message
    assert "1 kB are allowed" in result.message


def test_a_float32_student_is_read_within_its_own_precision():
    one, lambda_M = trainer(None, torch.float32), torch.tensor([1.5, -0.3, 0.0], dtype=torch.float64)
    split = data(torch.float32)
    whole = read_full_pass(one.objective, split, {}, RULES, with_gradients=True)
    two = read_full_pass(one.objective, split, {}, RULES, with_gradients=True, multipliers=lambda_M)
    gradient_n, jacobian_Mn = whole.require_gradients()
    assert two.lagrangian_norm == pytest.approx(float((gradient_n + jacobian_Mn.T @ lambda_M).norm()), rel=1e-5)
