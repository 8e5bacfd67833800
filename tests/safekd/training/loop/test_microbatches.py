"""A step in parts is the step: constraints are sums and counts over all of it, however it goes through the student."""

import copy

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.safety import KLBall, OneMinusBrier, Recall, TruthProbability
from safekd.teachers import StoredTeacher

N, FEATURES, CLASSES = 60, 5, 3


class Counting(nn.Module):
    """A student that remembers how many examples came at once, where gradients were wanted and where not."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, 6), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, CLASSES)
        ).double()
        self.rows: list[int] = []

    def forward(self, x):
        self.rows.append(len(x))
        return self.layers(x)


def task():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(N, FEATURES, generator=draw, dtype=torch.float64)
    labels = torch.randint(CLASSES, (N,), generator=draw)
    rows = torch.softmax(2 * torch.randn(2, N, CLASSES, generator=draw, dtype=torch.float64), -1)
    context = torch.arange(N) % 3
    train = kd.Split("train", x, labels, context=context, numbers=torch.arange(N))
    judge = kd.Split("judge", x[:20] + 1, labels[:20], numbers=torch.arange(20))
    teachers = [StoredTeacher(f"t{i}", {"train": row, "judge": row}) for i, row in enumerate(rows)]
    return train, judge, teachers


CONSTRAINTS = {
    "none": [],
    "one": [kd.SafetyConstraint("a", TruthProbability(critical=[0]), 0.6)],
    "several": [
        kd.SafetyConstraint("a", TruthProbability(critical=[0, 2]), 0.5, contexts=[1]),
        kd.SafetyConstraint("b", OneMinusBrier(), exactly=0.6, average="all"),
        kd.SafetyConstraint("c", TruthProbability(critical=[1]), 0.5),
    ],
    "counted": [kd.SafetyConstraint("r", Recall(critical=[1]), 0.7)],
    "worst group": [
        kd.SafetyConstraint(
            "w", TruthProbability(), 0.4, average="all", contexts=[0, 1, 2], by="context", worst=KLBall(0.05)
        )
    ],
    "another split": [
        kd.SafetyConstraint("a", TruthProbability(critical=[0]), 0.6),
        kd.SafetyConstraint("j", TruthProbability(critical=[1]), 0.5, split="judge"),
    ],
}


def fit(kind: str, microbatch_size: int | None, batch_size: int | None = 20, student=None, **more):
    train, judge, teachers = task()
    student = Counting() if student is None else student
    trainer = kd.ConstrainedTrainer(
        student,
        teachers,
        constraints=CONSTRAINTS[kind],
        optimizer=torch.optim.Adam(student.parameters(), lr=0.02),
        batch_size=batch_size,
        microbatch_size=microbatch_size,
        **more,
    )
    splits = {"judge": judge} if kind == "another split" else {}
    return trainer.fit(train, splits=splits, epochs=12, trace_every=6)


@pytest.mark.parametrize("batch_size", [20, None])
@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_microbatches_give_the_run_of_whole_batches(kind, batch_size):
    whole, parts = fit(kind, None, batch_size), fit(kind, 7, batch_size)
    assert list(parts.multipliers.values()) == pytest.approx(list(whole.multipliers.values()), rel=1e-9, abs=1e-11)
    for name in ("distillation_loss", "kkt_stationarity"):
        assert parts.trace[name].tolist() == pytest.approx(whole.trace[name].tolist(), rel=1e-8, abs=1e-11)
    for one, other in zip(parts.student.parameters(), whole.student.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
    assert kind == "none" or max(whole.trace.filter(like="lambda_").abs().max()) > 1e-3  # a constraint was at work


@pytest.mark.parametrize("kind", ["none", "one", "another split"])
def test_no_more_examples_than_a_microbatch_go_through_the_student_at_once(kind):
    student = Counting()
    fit(kind, 7, student=student)
    assert max(student.rows) == 7


def test_evaluations_read_no_more_examples_than_a_step():
    student = Counting()
    fit("several", None, 20, student=student)
    assert max(student.rows) == 20


def test_teachers_are_asked_about_no_more_examples_than_a_step_reads():
    asked = []

    def answer(x):
        asked.append(len(x))
        return torch.zeros(len(x), CLASSES, dtype=torch.float64)

    train, _, _ = task()
    for cache_limit in (0, 2**20):
        student = Counting()
        trainer = kd.ConstrainedTrainer(
            student,
            kd.teachers.TeacherEnsemble(
                [kd.teachers.CallableTeacher("t", answer, gives="logits")], cache_limit=cache_limit
            ),
            optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
            batch_size=8,
        )
        trainer.fit(train, epochs=1)
    assert max(asked) == 8


def test_dropout_draws_the_same_numbers_in_both_readings_of_a_part():
    """Values and gradients of one step are of one student: the Lagrangian's derivative is that of what was read."""
    results = []
    for microbatch_size in (None, 20):  # one part is read once and kept, so both draw alike
        torch.manual_seed(5)
        results.append(fit("one", microbatch_size, 20, student=Counting(0.3)))
    assert results[0].trace["distillation_loss"].tolist() == results[1].trace["distillation_loss"].tolist()
    torch.manual_seed(5)
    again = [fit("one", 10, 20, student=Counting(0.3)) for _ in range(1)]
    torch.manual_seed(5)
    again.append(fit("one", 10, 20, student=Counting(0.3)))
    assert again[0].trace["distillation_loss"].tolist() == again[1].trace["distillation_loss"].tolist()


def test_running_averages_move_once_a_part():
    def student():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES)).double()

    one, train = student(), task()[0]
    result = fit("one", 10, 20, student=one)
    assert result.student[1].num_batches_tracked == 12 * 3 * 2  # epochs, batches, parts
    assert len(train) == 60


def test_a_learned_rule_takes_the_step_of_the_whole_batch():
    results = []
    for microbatch_size in (None, 5):
        torch.manual_seed(1)
        results.append(fit("one", microbatch_size, 20, weights=kd.weights.MultiLevel(2, FEATURES)))
    one, other = (result.rule_state for result in results)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-6, atol=1e-8)
    assert any(bool(value.abs().max() > 0) for value in one.values())


@pytest.mark.parametrize("kind", ["none", "one"])
def test_a_part_that_is_not_finite_stops_the_run_and_leaves_the_student(kind):
    class Breaks(Counting):
        def forward(self, x):
            logits = super().forward(x)
            poison = self.training and len(self.rows) > 60
            return torch.where(torch.tensor(poison), logits * torch.nan, logits)

    student = Breaks()
    result = fit(kind, 7, student=student)
    assert result.status == "diverged"
    assert all(bool(torch.isfinite(p).all()) for p in result.student.parameters())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("microbatch_size", 0, "`microbatch_size` is 0; wanted at least 1, or None for all of a step at once"),
        ("microbatch_size", 2.5, "`microbatch_size` is 2.5; wanted a whole number"),
        ("clip_norm", 0.0, "`clip_norm` is 0.0; wanted a length above 0"),
        ("clip_norm", float("nan"), "`clip_norm` is nan; wanted a length above 0"),
        ("ema", 1.0, "`ema` is 1.0; wanted a share above 0 and below 1"),
        ("ema", -0.1, "`ema` is -0.1; wanted a share above 0 and below 1"),
        ("autocast", "fp8", "`autocast` is 'fp8'; wanted 'bfloat16', 'float16', or None"),
    ],
)
def test_numbers_of_a_step_that_make_no_sense(name, value, message):
    with pytest.raises(kd.InvalidInput, match=message):
        fit("one", **{"microbatch_size": None, name: value})


def test_clipped_steps_are_shortened_and_told():
    short = fit("one", None, clip_norm=1e-3)
    assert short.trace["clipped_steps"].sum() == 36
    student = Counting()
    before = copy.deepcopy(student)
    fit("one", None, student=student, clip_norm=1e9)
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), student.parameters(), strict=True))
