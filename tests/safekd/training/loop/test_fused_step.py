"""The fused step against the general one: the same path to rounding, and the same source of what is not finite."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.divergences import ForwardKL
from safekd.safety import Margin, OneMinusBrier, Recall, TruthProbability, UnsafeMass
from safekd.teachers import StoredTeacher
from safekd.training.loop import FitData
from safekd.training.loop.step import PrimalDualStep
from solvers.primal_dual import AugmentedLagrangian, PrimalDual

N, CLASSES = 60, 4


def task(seed: int = 0) -> tuple[kd.Split, list[StoredTeacher]]:
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(N, 5, generator=draw, dtype=torch.float64)
    labels = torch.randint(CLASSES, (N,), generator=draw)
    context = torch.randint(2, (N,), generator=draw)
    rows = [torch.softmax(torch.randn(N, CLASSES, generator=draw, dtype=torch.float64), -1) for _ in range(2)]
    return kd.Split("train", inputs, labels, context=context), [StoredTeacher(f"t{i}", r) for i, r in enumerate(rows)]


class OnlyCritical(TruthProbability):
    """A measure of somebody's own, no number where it is not asked for."""

    def __init__(self) -> None:
        super().__init__(critical=[0])

    def _measured(self, log_p_V, labels):
        return torch.where(labels == 0, super()._measured(log_p_V, labels), torch.nan)


def stepper(rules, batch_size, temperature=1.0, fused=True, student=None):
    train, teachers = task()
    torch.manual_seed(1)
    student = nn.Linear(5, CLASSES, dtype=torch.float64) if student is None else student
    trainer = kd.ConstrainedTrainer(
        student,
        teachers,
        constraints=rules,
        optimizer=torch.optim.SGD(student.parameters(), lr=0.3),
        divergence=ForwardKL(temperature),
        batch_size=batch_size,
    )
    equal = sum(rule.is_equality for rule in rules)
    engine = PrimalDual(len(rules) - equal, equal, method=AugmentedLagrangian(ema=0.5 if batch_size else 0.0))
    step = PrimalDualStep(trainer.problem, engine, FitData(train, {}))
    assert step.fused is not None
    if not fused:
        step.fused = None
    return step


def rules_of(kind: str):
    return {
        "one": [kd.SafetyConstraint("a", TruthProbability(critical=[0]), 0.6)],
        "none": [],
        "several": [
            kd.SafetyConstraint("a", TruthProbability(critical=[0, 2]), 0.5, contexts=[1]),
            kd.SafetyConstraint("b", OneMinusBrier(), 0.7, average="all"),
            kd.SafetyConstraint("c", UnsafeMass([3], critical=[1]), exactly=0.8),
            kd.SafetyConstraint("d", Margin(critical=[1]), 0.5),
        ],
    }[kind]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize("kind", ["one", "none", "several"])
def test_both_ways_take_the_same_steps(kind, batch_size, temperature):
    pair = [stepper(rules_of(kind), batch_size, temperature, fused) for fused in (True, False)]
    draw = torch.Generator().manual_seed(3)
    for _ in range(40):
        index = torch.arange(N) if batch_size is None else torch.randperm(N, generator=draw)[:batch_size]
        assert [one.step(one.data.train.batch(index)) for one in pair] == [None, None]
    quick, slow = pair
    for a, b in zip(quick.problem.student.parameters(), slow.problem.student.parameters(), strict=True):
        assert (a - b).abs().max() < 1e-10
    for name in ("multipliers", "equality_multipliers", "rho"):
        assert torch.allclose(getattr(quick.engine, name), getattr(slow.engine, name), rtol=1e-9, atol=1e-10)
    if kind != "none":
        assert quick.engine.multipliers.sum() > 0


def test_a_batch_without_a_covered_example_moves_no_multiplier():
    one = stepper(rules_of("one"), 8)
    labels = one.data.train.labels
    one.step(one.data.train.batch(torch.nonzero(labels == 0).flatten()[:8]))
    before = one.engine.multipliers.clone()
    assert before > 0
    one.step(one.data.train.batch(torch.nonzero(labels != 0).flatten()[:8]))
    assert torch.equal(one.engine.multipliers, before)


@pytest.mark.parametrize(
    "change",
    [
        {"constraints": [kd.SafetyConstraint("a", Recall(critical=[0]), 0.6)]},
        {"constraints": [kd.SafetyConstraint("a", TruthProbability(), 0.6, mix={0: 0.5, 1: 0.5})]},
        {"constraints": [kd.SafetyConstraint("a", TruthProbability(critical=[0]), 0.6, average="all")]},
        {"constraints": [kd.SafetyConstraint("a", OnlyCritical(), 0.6)]},
        {"divergence": lambda log_q_V, logits_V: ForwardKL()(log_q_V, logits_V)},
        {"weights": lambda signals: signals.student_log_p.exp()[..., :2]},
    ],
    ids=["counted", "mix", "uncritical count as 1", "own measure", "own divergence", "moving targets"],
)
def test_what_is_no_plain_average_takes_the_general_way(change):
    train, teachers = task()
    student = nn.Linear(5, CLASSES, dtype=torch.float64)
    given = {"constraints": rules_of("one"), "optimizer": torch.optim.SGD(student.parameters(), lr=0.1)} | change
    trainer = kd.ConstrainedTrainer(student, teachers, **given)
    assert PrimalDualStep(trainer.problem, PrimalDual(1), FitData(train, {})).fused is None or "weights" in change


def test_a_measure_that_is_no_number_elsewhere_trains_as_the_one_that_is():
    train, teachers = task()

    def trained(measure):
        torch.manual_seed(1)
        student = nn.Linear(5, CLASSES, dtype=torch.float64)
        sgd = torch.optim.SGD(student.parameters(), lr=0.3)
        rule = kd.SafetyConstraint("a", measure, 0.6)
        return kd.ConstrainedTrainer(student, teachers, constraints=[rule], optimizer=sgd).fit(train, epochs=30)

    odd, plain = trained(OnlyCritical()), trained(TruthProbability(critical=[0]))
    assert odd.status == plain.status != "diverged"
    assert odd.multipliers["a"] == pytest.approx(plain.multipliers["a"], rel=1e-9)
    assert odd.point.loss == pytest.approx(plain.point.loss, rel=1e-9)
