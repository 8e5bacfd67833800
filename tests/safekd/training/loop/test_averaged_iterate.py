"""What is handed back of minibatches: the averaged student, corrected onto its constraints."""

from __future__ import annotations

import functools

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

import safekd as kd
from safekd.safety import TruthProbability
from safekd.teachers import StoredTeacher
from safekd.training.checkpoints import ConstraintGaps, correct_constraints, is_near_constraints
from safekd.training.loop._averaged_iterate import SETTINGS, AveragedIterate
from solvers.primal_dual import PrimalDual
from tests.support.problems import FreeLogits, agreeing, answer, at_least, same, state, trainer_for


@functools.cache
def digits() -> tuple[kd.Split, StoredTeacher]:
    digits = load_digits()
    x, y = digits.data / 16, digits.target
    q = LogisticRegression(C=0.01, max_iter=500).fit(x, y).predict_proba(x)
    return kd.Split("train", torch.tensor(x, dtype=torch.float32), torch.tensor(y)), StoredTeacher("t", torch.tensor(q))


def trained(batch: int | None, steps: int, lr: float = 0.01, at_least: float = 0.8, seed: int = 0) -> kd.FitResult:
    """The task on which ten lines by hand once beat the trainer."""
    train, teacher = digits()
    torch.manual_seed(seed)
    student = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
    rule = kd.SafetyConstraint("hard", TruthProbability(critical=[3, 8]), at_least)
    adam = torch.optim.Adam(student.parameters(), lr=lr)
    trainer = kd.ConstrainedTrainer(student, [teacher], constraints=[rule], optimizer=adam, batch_size=batch, seed=seed)
    per_epoch = 1 if batch is None else -(-len(train) // batch)
    return trainer.fit(train, epochs=-(-steps // per_epoch), trace_every=50)


def test_an_exponential_moving_average_forgets_where_it_began():
    student = nn.Linear(1, 1, bias=False).double()
    average, mean, weight = AveragedIterate(student, PrimalDual(0), ema=0.9), 0.0, 0.0
    for value in (1.0, 3.0, -2.0, 0.5):
        with torch.no_grad():
            student.weight.fill_(value)
        average.add()
        mean, weight = 0.9 * mean + 0.1 * value, 0.9 * weight + 0.1
        with average.install_temporarily():
            assert student.weight.item() == pytest.approx(mean / weight, rel=1e-12)
        assert student.weight.item() == value
    average.install()
    assert student.weight.item() == pytest.approx(mean / weight, rel=1e-12)


@pytest.mark.parametrize("batch_size", [None, 16])
def test_a_run_hands_its_exponential_moving_average_back(batch_size):
    """Evaluations read it, at full batches too; the last of them takes the better of it and of the last student."""
    results = []
    for ema in (None, 0.99):
        x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        torch.manual_seed(0)
        trainer = trainer_for(
            at_least(0.6),
            student=nn.Linear(2, 3).double(),
            teachers=agreeing(examples=60),
            batch_size=batch_size,
            ema=ema,
        )
        results.append(trainer.fit(kd.Split("train", x, torch.arange(60) % 3), epochs=20))
    assert results[0].trace["distillation_loss"][1] != results[1].trace["distillation_loss"][1]
    assert results[1].point.loss == pytest.approx(results[0].point.loss, abs=0.2)


# ------------------------------------------------------------------------------------------------------- the average


def test_the_average_weighs_late_steps_by_their_share_to_the_ninth():
    student, engine = FreeLogits(), PrimalDual(1)
    average, values = AveragedIterate(student, engine), torch.linspace(0, 1, 200, dtype=torch.float64) ** 2
    for value in values:
        with torch.no_grad():
            student.logits.fill_(float(value))
        engine.multipliers = value.reshape(1)
        average.add()
    steps = torch.arange(1, 201, dtype=torch.float64)
    weight = torch.ones_like(steps)  # the product form of the recursion, step by step
    for s in range(2, 201):
        share = (1 + SETTINGS.decay) / (s + SETTINGS.decay)
        weight[: s - 1] *= 1 - share
        weight[s - 1] = share
    wanted = float((weight * values).sum())
    before = state(student)
    with average.install_temporarily():
        assert student.logits[0, 0].item() == pytest.approx(wanted, abs=1e-12)
    assert same(state(student), before)
    assert float(average.multipliers) == pytest.approx(wanted, abs=1e-12)
    late = weight[100:].sum() / weight.sum()
    assert late > 0.99  # the last half holds nearly all: a start far off is forgotten


@pytest.mark.parametrize("batch", [64, *(pytest.param(size, marks=pytest.mark.slow) for size in (32, 128))])
def test_minibatches_hand_back_a_student_that_meets_its_constraint_and_hardly_swings(batch):
    result = trained(batch, 2100)
    late = result.trace[result.trace["step"] >= 1500]
    assert late["safety_hard"].std() < 0.01  # by hand: .016 to .022
    assert abs(late["safety_hard"].mean() - 0.8) < 0.015
    assert result.point.readings[0].violation <= 1e-3
    assert result.point.loss < 0.127  # by hand .127 to .135 over the same steps
    assert result.residuals.complementarity <= 1e-3


@pytest.mark.slow
def test_minibatches_end_within_a_hundredth_of_full_batches_and_stay_settled_for_six_thousand_steps():
    whole, some = trained(None, 6000), trained(64, 6000)
    assert some.point.loss <= 1.01 * whole.point.loss
    late = some.trace[some.trace["step"] >= 2000]
    assert late["lambda_hard"].max() < 1.15 * late["lambda_hard"].min()
    assert late["safety_hard"].max() - late["safety_hard"].min() < 0.02


def test_full_batches_are_not_averaged_and_the_student_is_the_last_iterate():
    seen = []
    student = FreeLogits()
    adam = torch.optim.Adam(student.parameters(), lr=0.05)
    trainer = kd.ConstrainedTrainer(student, agreeing(), constraints=[at_least(0.6)], optimizer=adam)
    split = kd.Split("train", torch.zeros(3, 1), torch.arange(3))
    result = trainer.fit(split, epochs=400, trace_every=1, on_trace=lambda point: seen.append(state(student)))
    assert result.status == "converged"
    assert same(state(result.student), seen[-1])
    assert result.student.p() == pytest.approx(answer(0.6), abs=1e-3)


def test_a_rare_class_among_very_many_examples_is_held_on_minibatches():
    """One example in a hundred is critical, so most batches of 64 hold one or none; full batches are the reference."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(12_000, 6, generator=draw)
    labels = (inputs[:, 0] + 0.5 * torch.randn(12_000, generator=draw) > 2.6).long()
    assert 0.003 < labels.float().mean() < 0.02
    train = kd.Split("train", inputs, labels)
    wary = kd.teachers.CallableTeacher("wary", lambda x: torch.stack([3 - x[:, 0], x[:, 0] - 3], 1), gives="logits")
    rule = kd.SafetyConstraint("rare", TruthProbability(critical=[1]), 0.7)

    def run(batch, epochs):
        torch.manual_seed(0)
        student = torch.nn.Linear(6, 2)
        adam = torch.optim.Adam(student.parameters(), lr=0.01)
        trainer = kd.ConstrainedTrainer(student, [wary], constraints=[rule], optimizer=adam, batch_size=batch)
        return trainer.fit(train, epochs=epochs, trace_every=300)

    some, whole = run(64, 16), run(None, 3000)
    assert some.point.readings[0].violation <= 1e-3
    assert whole.point.readings[0].violation <= 1e-3
    assert some.point.loss <= 1.02 * whole.point.loss


# ---------------------------------------------------------------------------------------------------- the correction


def standing(x):
    """Return a reader of g = 1 - x_0, with J = (-1, 0, 0), for a student of one row of parameters x."""

    def read() -> ConstraintGaps:
        jacobian = torch.tensor([[-1.0, 0.0, 0.0]], dtype=torch.float64)
        return ConstraintGaps(jacobian, (1 - x.logits[0, :1]).detach())

    return read


@pytest.mark.parametrize(("start", "multiplier", "ends"), [(0.9, 1.0, 1.0), (1.2, 1.0, 1.0), (1.2, 0.0, 1.2)])
def test_the_correction_lands_on_active_constraints_and_leaves_free_ones_alone(start, multiplier, ends):
    student = FreeLogits()
    with torch.no_grad():
        student.logits[0, 0] = start
    read, yes = standing(student), torch.tensor([True])
    corrected = correct_constraints(student, read(), read, torch.tensor([multiplier]), yes, 1e-3)
    assert (corrected is None) == (start == ends)
    assert float(student.logits[0, 0].detach()) == pytest.approx(ends, abs=2e-4)
    assert student.logits[0, 1:].tolist() == [0.0, 0.0]


def test_a_counted_constraint_gives_no_safety_back():
    student = FreeLogits()
    with torch.no_grad():
        student.logits[0, 0] = 1.2
    read = standing(student)
    assert correct_constraints(student, read(), read, torch.tensor([1.0]), torch.tensor([False]), 1e-3) is None


def test_a_step_that_brings_nothing_is_taken_back():
    student = FreeLogits()
    read = standing(student)
    wrong = ConstraintGaps(
        read().jacobian_Mn, torch.tensor([0.5], dtype=torch.float64)
    )  # what is read never gets smaller than 1
    assert (
        correct_constraints(
            student,
            wrong,
            lambda: ConstraintGaps(read().jacobian_Mn, torch.ones(1).double()),
            torch.ones(1),
            torch.ones(1) > 0,
            1e-3,
        )
        is None
    )
    assert student.logits.tolist() == [[0.0, 0.0, 0.0]]


def test_only_a_student_near_its_constraints_is_corrected():
    far, near = torch.tensor([0.3]), torch.tensor([0.05])
    assert not is_near_constraints(far, first_gap=0.4, tolerance=1e-3)
    assert is_near_constraints(near, first_gap=0.4, tolerance=1e-3)
    assert is_near_constraints(
        torch.tensor([0.009]), first_gap=0.01, tolerance=1e-3
    )  # ten tolerances, wherever it began
    assert not is_near_constraints(torch.tensor([0.02]), first_gap=0.01, tolerance=1e-3)
