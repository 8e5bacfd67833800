"""Half-precision students and teachers, and vocabularies with classes left out, against float64 on the same logits."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.divergences import DIVERGENCES, JensenShannon
from safekd.pooling import POOLS, arithmetic_pool, geometric_pool
from safekd.teachers import CallableTeacher, TeacherEnsemble, TorchTeacher
from safekd.training.diagnosis import RunProbes
from safekd.training.loop._averaged_iterate import AveragedIterate
from safekd.training.loop.step._fused_step import FusedStepReader
from solvers.primal_dual import PrimalDual

S = kd.safety
HALVES = [torch.bfloat16, torch.float16]
MEASURES = [
    S.TruthProbability([0]),
    S.Margin(),
    S.OneMinusBrier(),
    S.UnsafeMass([1]),
    S.Calibration(0),
    S.Recall(),
    S.TopK(1),
    S.Avoids([1]),
]
N = 6


class Table(nn.Module):
    """One row of logits an example, which its input numbers; ``left_out`` are minus infinity."""

    def __init__(self, logits_NV: torch.Tensor, left_out: slice = slice(0, 0)) -> None:
        super().__init__()
        self.logits_NV, self.left_out = nn.Parameter(logits_NV.clone()), left_out

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits_BV = self.logits_NV[inputs[:, 0].long()].clone()
        logits_BV[:, self.left_out] = -torch.inf
        return logits_BV


def draw(V: int, dtype: torch.dtype, seed: int = 0, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits of a teacher and of a student near it."""
    generator = torch.Generator().manual_seed(seed)
    teacher = (torch.randn(N, V, generator=generator) * scale).to(dtype)
    return teacher, (teacher.float() + 0.5 * torch.randn(N, V, generator=generator)).to(dtype)


def data(V: int) -> kd.Split:
    return kd.Split("train", torch.arange(N).float().unsqueeze(-1), torch.arange(N) % V)


def fit(student: nn.Module, teachers, split: kd.Split, **more):
    sgd = torch.optim.SGD(student.parameters(), lr=1e-30)
    return kd.ConstrainedTrainer(student, teachers, optimizer=sgd, **more).fit(split, epochs=1)


@pytest.fixture
def no_bound(monkeypatch):
    """A bound over all students is no matter of precision, and takes long with many classes."""
    monkeypatch.setattr(RunProbes, "bound_feasibility", lambda self: None)


# the numbers of a run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("V", [2, 100, 1000, 65_536])
@pytest.mark.parametrize("dtype", HALVES)
def test_loss_and_measures_of_half_precision_models_are_those_of_float64(V, dtype, no_bound):
    teacher, near = draw(V, dtype)
    rules = [kd.SafetyConstraint(type(m).__name__, m, at_least=1e-4) for m in MEASURES]
    result = fit(Table(near), [TorchTeacher("t", Table(teacher))], data(V), constraints=rules)
    log_q, log_p, labels = teacher.double().log_softmax(-1), near.double().log_softmax(-1), data(V).labels
    assert result.point.loss == pytest.approx(float((log_q.exp() * (log_q - log_p)).sum(-1).mean()), abs=1e-6)
    for rule, reading in zip(rules, result.point.readings, strict=True):
        inside = rule.measure.is_critical(labels)
        measured = float(rule.measure.measured(log_p, labels)[inside].mean())
        surrogate = float(rule.measure.surrogate(log_p, labels)[inside].mean())
        assert (reading.measured, reading.surrogate) == pytest.approx((measured, surrogate), abs=1e-6)


@pytest.mark.parametrize("V", [2, 1000, 32_000])
def test_equal_half_precision_models_are_at_zero(V, no_bound):
    teacher, _ = draw(V, torch.bfloat16)
    assert abs(fit(Table(teacher), [TorchTeacher("t", Table(teacher))], data(V)).point.loss) < 1e-6


def test_a_threshold_is_met_by_what_is_true_and_not_by_its_rounding():
    """Logits (2.90625, 0) give .94815; in bfloat16 that would be .94922."""
    student = Table(torch.tensor([[2.90625, 0.0]], dtype=torch.bfloat16))
    rule = kd.SafetyConstraint("truth", S.TruthProbability(), at_least=0.949)
    split = kd.Split("train", torch.zeros(1, 1), torch.zeros(1, dtype=torch.long))
    (reading,) = fit(
        student, [TorchTeacher("t", Table(student.logits_NV.data))], split, constraints=[rule]
    ).point.readings
    assert reading.measured == pytest.approx(0.94815, abs=1e-5)
    assert reading.violation > 0


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("V", [3, 5000])
def test_the_fused_step_reads_the_loss_of_float64(V, batch_size):
    """In full batches it leaves out the target's entropy, which no student changes."""
    teacher, near = draw(V, torch.bfloat16)
    split, student = data(V), Table(near)
    sgd = torch.optim.SGD(student.parameters(), lr=1.0)
    objective = kd.ConstrainedTrainer(student, [TorchTeacher("t", Table(teacher))], optimizer=sgd).objective
    reader = FusedStepReader.fit_problem(objective, [], split, batch_size)
    index = torch.arange(batch_size or N)
    loss, *_ = reader.read(split.batch(index), objective.logits(split.batch(index)))
    log_q, log_p = teacher.double()[index].log_softmax(-1), near.double()[index].log_softmax(-1)
    expected = -(log_q.exp() * log_p).sum(-1).mean()
    expected = expected if batch_size is None else expected + (log_q.exp() * log_q).sum(-1).mean()
    assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-6)


def test_the_averaged_student_of_half_precision_follows_small_steps():
    """Weights (s / t)^9 put the mean of a line at 10/11 of its end; a share of a thousandth is lost in bfloat16."""
    student, steps = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16), 3000
    nn.init.zeros_(student.weight)
    average = AveragedIterate(student, PrimalDual(0, 0))
    for step in range(steps):
        nn.init.constant_(student.weight, (step + 1) / steps)
        average.add()
    average.install()
    assert float(student.weight.detach()) == pytest.approx(10 / 11, abs=0.01)


# parts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("V", [2, 65_536])
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
def test_divergences_of_half_types_are_those_of_float64(name, V, dtype):
    teacher, near = draw(V, dtype)
    divergence = DIVERGENCES[name](2.0)
    torch.testing.assert_close(
        divergence(teacher, near), divergence(teacher.double(), near.double()), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("measure", MEASURES, ids=repr)
@pytest.mark.parametrize("dtype", HALVES)
def test_measures_of_half_types_are_those_of_float64(measure, dtype):
    log_p, labels = draw(9, dtype)[0].log_softmax(-1), torch.arange(N) % 3
    for read in (measure.measured, measure.surrogate, measure.surrogate_everywhere):
        assert read(log_p, labels).double() == pytest.approx(read(log_p.double(), labels), abs=1e-6)


@pytest.mark.parametrize("name", POOLS)
def test_pools_of_half_types_are_those_of_float64(name):
    log_p_NKV = torch.stack([t.log_softmax(-1) for t in draw(7, torch.bfloat16)], 1)
    w_NK = torch.tensor([0.25, 0.75], dtype=torch.bfloat16).expand(N, 2)
    pooled = POOLS[name](log_p_NKV, w_NK)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled.double(), POOLS[name](log_p_NKV.double(), w_NK.double()), atol=1e-6, rtol=0)


@pytest.mark.parametrize("V", [2, 1000, 65_536])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("gives", ["logits", "log_probabilities"])
def test_a_callable_teacher_of_half_type_is_widened_before_its_softmax(V, dtype, gives):
    rows = draw(V, dtype)[0] if gives == "logits" else draw(V, dtype)[0].log_softmax(-1)
    found = CallableTeacher("f", lambda x: rows, gives=gives).log_probabilities(data(V).batch(), "train")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double().exp(), rows.double().softmax(-1), atol=1e-6, rtol=0)
    assert found.exp().sum(-1).tolist() == pytest.approx([1] * N, abs=1e-5)


def test_evidence_of_half_precision_teachers_is_that_of_float64():
    teacher, _ = draw(50, torch.bfloat16)
    evidence = kd.teachers.measure_teachers(
        TeacherEnsemble([TorchTeacher("t", Table(teacher))]), data(50), S.TruthProbability()
    )
    log_truth = teacher.double().log_softmax(-1).gather(-1, data(50).labels.unsqueeze(-1))
    assert float(evidence.task_loss_MK) == pytest.approx(-float(log_truth.mean()), abs=1e-6)
    assert float(evidence.safety_CK) == pytest.approx(float(log_truth.exp().mean()), abs=1e-6)


def test_weights_of_half_precision_signals_are_worked_out_in_float32():
    log_p = torch.stack([t.log_softmax(-1) for t in draw(7, torch.bfloat16)], 1)
    half, wide = kd.weights.Signals(log_p=log_p), kd.weights.Signals(log_p=log_p.double())
    rule = kd.weights.Normalized(kd.weights.EntropyDecay())
    torch.testing.assert_close(rule(half).double(), rule(wide), atol=1e-6, rtol=0)


# classes that are left out ------------------------------------------------------------------------------------------

LEFT_OUT = slice(2, 4)


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_an_equal_student_with_the_same_classes_left_out_is_at_zero(divergence, pool, batch_size):
    teacher, _ = draw(6, torch.float32)
    rules = [kd.SafetyConstraint(type(m).__name__, m, at_least=1e-9) for m in MEASURES]
    student = Table(teacher, LEFT_OUT)
    teachers = [TorchTeacher(name, Table(teacher, LEFT_OUT)) for name in "ab"]
    more = {"divergence": divergence, "pool": pool, "batch_size": batch_size}
    result = fit(student, teachers, data(6), constraints=rules, **more)
    assert abs(result.point.loss) < 1e-6
    assert result.point.finite
    assert result.status != "diverged", result.message


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_student_learns_beside_classes_that_teachers_leave_out(batch_size):
    teacher, _ = draw(6, torch.float32, scale=1.0)
    student = Table(torch.zeros(N, 6))
    adam = torch.optim.Adam(student.parameters(), lr=0.1)
    trainer = kd.ConstrainedTrainer(
        student, [TorchTeacher("t", Table(teacher, LEFT_OUT))], optimizer=adam, batch_size=batch_size
    )
    result = trainer.fit(data(6), epochs=400)
    assert result.point.loss < 0.01
    assert student.logits_NV.softmax(-1)[:, LEFT_OUT].max() < 0.01


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize(
    ("divergence", "of_student", "message"),
    [
        ("forward_kl", LEFT_OUT, r"example \d is infinite: the student leaves out class [23] .* the teachers give pro"),
        ("reverse_kl", slice(0, 0), r"example \d is infinite: the target leaves out class [23] .* the student gives p"),
    ],
)
def test_a_class_that_one_side_alone_leaves_out_is_named(divergence, of_student, message, batch_size):
    teacher, near = draw(6, torch.float32)
    of_teacher = slice(0, 0) if of_student == LEFT_OUT else LEFT_OUT
    teachers = [TorchTeacher("t", Table(teacher, of_teacher))]
    result = fit(Table(near, of_student), teachers, data(6), divergence=divergence, batch_size=batch_size)
    assert result.status == "diverged"
    assert re.search(message, result.message), result.message


ROWS = [
    [-torch.inf] * 2 + [1.0, 2.0, 0.3],
    [-torch.inf, -torch.inf, 1.0, -torch.inf, -torch.inf],
    [0.0, 1, -torch.inf, 2, 1],
]


@pytest.mark.parametrize("measure", [*MEASURES, S.TopK(2), S.TopK(3), S.Avoids([0, 1]), S.UnsafeMass([0, 1])], ids=repr)
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("label", [0, 2])
def test_measures_and_their_gradients_are_finite_where_classes_are_left_out(measure, row, label):
    logits = torch.tensor([row], requires_grad=True)
    value = measure.surrogate_everywhere(logits.log_softmax(-1), torch.tensor([label]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    assert 0 <= float(measure.measured(logits.detach().log_softmax(-1), torch.tensor([label]))) <= 1


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("divergence", [*(kind() for kind in DIVERGENCES.values()), JensenShannon(beta=0.1)], ids=repr)
def test_divergences_and_their_gradients_are_finite_where_both_leave_classes_out(divergence, row):
    logits = torch.tensor([ROWS[row]], requires_grad=True)
    target = (torch.tensor([ROWS[row]]) + torch.tensor([0.3, 0.1, -0.2, 0.0, 0.4])).log_softmax(-1)
    loss = divergence(target, logits)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()


def test_teachers_veto_classes_in_the_geometric_pool_and_add_up_in_the_arithmetic_one():
    p_KV = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]], dtype=torch.float64)
    w_K = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert geometric_pool(p_KV.log(), w_K).exp().tolist() == pytest.approx([0, 1, 0])
    assert arithmetic_pool(p_KV.log(), w_K).exp().tolist() == pytest.approx([0.25, 0.5, 0.25])
    alone = torch.tensor([1.0, 0.0], dtype=torch.float64)  # who has no weight has no veto
    assert geometric_pool(p_KV.log(), alone).exp().tolist() == pytest.approx([0.5, 0.5, 0])


def test_teachers_that_leave_out_every_class_between_them_have_no_geometric_pool():
    with pytest.raises(kd.InvalidInput, match="leave out every class between them"):
        geometric_pool(torch.eye(2).log(), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("row", [[torch.inf, 0.0, 0.0], [-torch.inf] * 3, [0.0, torch.nan, 0.0]])
def test_rows_of_logits_that_are_no_distribution_are_refused(row):
    split = kd.Split("train", torch.zeros(1, 1), torch.zeros(1, dtype=torch.long))
    for teacher in (
        TorchTeacher("net", Table(torch.tensor([row]))),
        CallableTeacher("net", lambda x: torch.tensor([row]), gives="logits"),
    ):
        with pytest.raises(
            kd.InvalidInput, match="Teacher 'net' gave logits that are not finite on 'train', example 0"
        ):
            teacher.log_probabilities(split.batch(), "train")
