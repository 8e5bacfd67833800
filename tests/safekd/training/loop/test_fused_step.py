"""The fused step against the general one: the same path to rounding, and the same source of what is not finite."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.divergences import ForwardKL
from safekd.safety import Calibration, Margin, OneMinusBrier, Recall, TopK, TruthProbability, UnsafeMass
from safekd.teachers import CallableTeacher, StoredTeacher
from safekd.training.loop import FitData
from safekd.training.loop.step import PrimalDualStep
from safekd.training.loop.step._batch_averages import BatchAverages, BatchTable
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
        "counted": [
            kd.SafetyConstraint("a", Recall(critical=[0]), 0.6),
            kd.SafetyConstraint("b", TopK(2, critical=[1]), 0.8),
            kd.SafetyConstraint("c", TopK(3, critical=[1], sharpness=2.0), 0.9),
            kd.SafetyConstraint("d", TruthProbability(critical=[2]), 0.5),
        ],
    }[kind]


WAYS = [*((kind, size) for kind in ("one", "none", "several") for size in (None, 16)), ("counted", 16)]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(("kind", "batch_size"), WAYS)
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


# ------------------------------------------------------------------------------------------- tables of small batches


def table_of(split, log_q, rules):
    """Return the table of a split, and a batch of it in another order."""
    student = nn.Linear(1, log_q.shape[-1])
    teachers = [CallableTeacher("t", lambda inputs: log_q[inputs[:, 0].long()], gives="logits")]
    sgd = torch.optim.SGD(student.parameters(), lr=0.1)
    objective = kd.ConstrainedTrainer(student, teachers, constraints=rules, optimizer=sgd).problem.objective
    batch = split.batch(torch.tensor([5, 0, 7, 2]))
    logits_V = torch.zeros(*batch.labels.shape, log_q.shape[-1])
    objective.target(split, batch, logits_V)
    return BatchTable.fill(objective, ForwardKL(), BatchAverages(rules, split), split, logits_V), batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("positions", [(), (6,)])
@pytest.mark.parametrize("zeros", [False, True])
def test_a_table_gives_loss_constraints_and_gradient_of_a_batch(positions, zeros, dtype):
    """Against autograd, with padding where there are several positions."""
    draw = torch.Generator().manual_seed(5)
    shape = (8, *positions)
    labels = torch.randint(2, shape, generator=draw)
    mask = (torch.rand(shape, generator=draw) < 0.7) if positions else None
    q_V = torch.softmax(torch.randn(*shape, 3, generator=draw, dtype=torch.float64), -1)
    logits_V = torch.randn(4, *positions, 3, generator=draw, dtype=dtype)
    if zeros:
        q_V = q_V * torch.tensor([1.0, 1.0, 0.0])
        q_V, logits_V[..., 2] = q_V / q_V.sum(-1, keepdim=True), -torch.inf
    split = kd.Split("train", torch.arange(8.0).unsqueeze(-1), labels, mask=mask)
    rules = [kd.SafetyConstraint(f"r{k}", TruthProbability(critical=[k]), 0.5 + 0.1 * k) for k in (0, 1)]
    table, batch = table_of(split, q_V.log(), rules)
    logits_V.requires_grad_()
    read = table.read(logits_V, batch)
    weight_M = torch.tensor([0.7, 2.0], dtype=torch.float64)
    gradient_V = table.differentiate(read, weight_M, batch, logits_V)

    log_p_V, target_V = torch.log_softmax(logits_V.double(), -1), q_V[batch.place]
    counts = torch.ones(batch.labels.shape, dtype=torch.bool) if mask is None else mask[batch.place]
    losses = (torch.xlogy(target_V, target_V) - torch.where(target_V == 0, 0.0, target_V * log_p_V)).sum(-1)
    truth, g, measured = log_p_V.gather(-1, batch.labels.unsqueeze(-1)).squeeze(-1).exp(), [], []
    for k in (0, 1):
        everywhere = ((split.labels == k) & (mask if mask is not None else True)).sum()
        inside = (batch.labels == k) & counts
        g.append(rules[k].required - truth[inside].sum() * 8 / (4 * everywhere))
        measured.append(rules[k].required - truth[inside].mean())
    total = losses[counts].mean() + weight_M @ torch.stack(g)
    total.backward()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    for value, expected in [
        (read.loss, losses[counts].mean()),
        (read.g_M, torch.stack(g)),
        (read.measured_M, torch.stack(measured)),
        (gradient_V, logits_V.grad),
    ]:
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance, check_dtype=False)
    assert gradient_V.dtype == dtype
    assert read.present_M.all()


MEASURES = [
    TruthProbability(),
    Margin(),
    OneMinusBrier(),
    UnsafeMass([1, 3]),
    Calibration(2),
    Recall(),
    Recall(sharpness=1.5),
    TopK(2),
    TopK(4),
]


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("measure", MEASURES, ids=repr)
def test_a_table_reads_each_measure_and_its_gradient(measure, extreme):
    """Against the measure itself and autograd; also where probabilities are zero, and where classes tie."""
    draw = torch.Generator().manual_seed(7)
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    q_V = torch.softmax(torch.randn(8, 5, generator=draw, dtype=torch.float64), -1)
    logits_V = torch.randn(4, 5, generator=draw, dtype=torch.float64)
    if extreme:
        logits_V[0] *= 2e4
        if getattr(measure, "k", 1) == 1:  # which of two that tie is among the first is anybody's choice
            logits_V[1, 1:3] = logits_V[1, 4]
    split = kd.Split("train", torch.arange(8.0).unsqueeze(-1), labels)
    rules = [kd.SafetyConstraint("measure", measure, 0.7), kd.SafetyConstraint("truth", TruthProbability(), 0.6)]
    table, batch = table_of(split, q_V.log(), rules)
    logits_V.requires_grad_()
    read, weight_M = table.read(logits_V, batch), torch.tensor([3.0, 0.5], dtype=torch.float64)
    gradient_V = table.differentiate(read, weight_M, batch, logits_V)

    log_p_V = torch.log_softmax(logits_V, -1)
    target_V = q_V[batch.place]
    loss = (torch.xlogy(target_V, target_V) - target_V * log_p_V).sum(-1).mean()
    surrogate = [one.surrogate(log_p_V, batch.labels).mean() for one in (measure, TruthProbability())]
    g_M = torch.tensor([0.7, 0.6], dtype=torch.float64) - torch.stack(surrogate)
    (loss + weight_M @ g_M).backward()
    torch.testing.assert_close(read.g_M, g_M.detach(), rtol=1e-12, atol=1e-12)
    assert float(read.measured_M[0]) == pytest.approx(
        0.7 - float(measure.measured(log_p_V.detach(), batch.labels).mean())
    )
    torch.testing.assert_close(gradient_V, logits_V.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("measure", [UnsafeMass([7]), Calibration(9), TopK(4)], ids=repr)
def test_a_measure_of_classes_that_the_student_lacks_is_refused_in_small_batches(measure):
    one = stepper([kd.SafetyConstraint("a", measure, 0.6)], 16)
    with pytest.raises(kd.InvalidInput, match="classes"):
        one.step(one.data.train.batch(torch.arange(16)))


@pytest.mark.parametrize(
    ("rules", "batch_size", "temperature", "used"),
    [
        ("one", 16, 1.0, True),
        ("one", None, 1.0, False),
        ("one", 16, 2.0, False),
        ("none", 16, 1.0, True),
        ("several", 16, 1.0, False),
        ("counted", 16, 1.0, True),
    ],
)
def test_a_step_goes_by_a_table_where_it_can(rules, batch_size, temperature, used):
    one = stepper(rules_of(rules), batch_size, temperature)
    batch = one.data.train.batch(torch.arange(N if batch_size is None else batch_size))
    assert one.step(batch) is None
    assert (one.fused._table is not None) == used


def test_logits_that_are_not_finite_are_told_by_a_step_that_goes_by_a_table():
    student = nn.Linear(5, CLASSES, dtype=torch.float64)
    one = stepper(rules_of("one"), 16, student=student)
    batch = one.data.train.batch(torch.arange(16))
    assert one.step(batch) is None
    with torch.no_grad():
        student.weight[1, 2] = torch.nan
    before = one.engine.state_dict()
    assert "student" in one.step(batch)
    assert all(torch.equal(value, before[name]) for name, value in one.engine.state_dict().items())


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
