"""ConstrainedTrainer on problems with known answers: primal, dual, verdict."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.safety import Recall, TruthProbability
from safekd.teachers import StoredTeacher
from safekd.training import FitResult
from safekd.training.trace import MACHINE_COLUMNS
from solvers.primal_dual import FixedPenalty
from tests.support.problems import (
    SPLITS,
    FreeLogits,
    Q,
    agreeing,
    answer,
    at_least,
    one_each,
    optimal_multiplier,
    same,
    state,
    trainer_for,
    value,
)

MACHINE = list(MACHINE_COLUMNS[:3])  # no CUDA here
EXACT = {"epochs": 3000, "tolerance": 1e-7, "trace_every": 25}


@pytest.mark.parametrize("s", [0.35, 0.6, 0.9])
def test_the_closed_form_is_reached_with_its_multiplier(s):
    result = trainer_for(at_least(s)).fit(one_each(), **EXACT)
    assert result.status == "converged", result.message
    assert result.student.p() == pytest.approx(answer(s), abs=1e-6)
    assert result.multipliers == {"first": pytest.approx(optimal_multiplier(s), rel=1e-5)}
    assert result.point.loss == pytest.approx(value(s), abs=1e-6)
    assert result.residuals.holds(1e-7)
    assert result.residuals == result.point.residuals
    assert result.feasible
    assert "All KKT residuals are within 1e-07" in result.message
    assert "kd.certify" in result.next_move


def test_a_slack_threshold_costs_nothing():
    slack = trainer_for(at_least(0.2)).fit(one_each(), **EXACT)
    free = trainer_for().fit(one_each(), **EXACT)
    assert slack.status == free.status == "converged"
    assert slack.multipliers == {"first": pytest.approx(0, abs=1e-9)}
    assert free.multipliers == {}
    assert slack.student.p() == pytest.approx(free.student.p(), abs=1e-9)
    assert free.student.p() == pytest.approx(Q, abs=1e-6)


@pytest.mark.parametrize("method", [kd.AugmentedLagrangian(rho=3.0), kd.AugmentedLagrangian(rho=30.0, step=1.0)])
def test_the_answer_does_not_depend_on_the_method(method):
    result = trainer_for(at_least(0.6), dual=method, lr=0.2).fit(one_each(), **EXACT)
    assert result.status == "converged"
    assert result.student.p() == pytest.approx(answer(0.6), abs=1e-5)


def test_a_fixed_penalty_promises_nothing():
    """Minimizer of KL(q || p) - w p_0 for w = .5: found by scanning p_0, since p_k stays proportional to q_k."""
    result = trainer_for(at_least(0.6), dual=FixedPenalty(0.5)).fit(one_each(), epochs=800)
    scan = torch.linspace(0.3, 0.9, 100_001, dtype=torch.float64)
    best = scan[(-(0.3 * scan.log() + 0.7 * (1 - scan).log()) - 0.5 * scan).argmin()]
    assert result.student.p()[0] == pytest.approx(float(best), abs=1e-4)
    assert result.status == "budget_spent"
    assert not result.feasible
    assert result.best_feasible is None


def test_two_constraints_have_a_price_each():
    """p_0 >= .4 and p_2 >= .35 leave p_1 = .25: multipliers are p_1's own ratio q_1 / p_1 less that of each."""
    rules = at_least(0.4, "zero"), at_least(0.35, "two", critical=2)
    result = trainer_for(*rules).fit(one_each(), **EXACT)
    assert result.status == "converged"
    assert result.student.p() == pytest.approx([0.4, 0.25, 0.35], abs=1e-6)
    ratio = 0.5 / 0.25
    assert result.multipliers == pytest.approx({"zero": ratio - 0.3 / 0.4, "two": ratio - 0.2 / 0.35}, rel=1e-5)


def test_of_two_constraints_the_looser_is_free():
    result = trainer_for(at_least(0.4, "loose"), at_least(0.6, "tight")).fit(one_each(), **EXACT)
    assert result.multipliers == {
        "loose": pytest.approx(0, abs=1e-9),
        "tight": pytest.approx(optimal_multiplier(0.6), rel=1e-5),
    }


def test_a_constraint_on_one_context_leaves_the_other_alone():
    """Two rows of free logits; only context 1 is constrained.  The loss is the mean, so its multiplier is halved."""
    context = torch.tensor([0, 0, 0, 1, 1, 1])
    data = kd.Split("train", context.reshape(-1, 1), torch.tensor([0, 1, 2] * 2), context=context)
    trainer = trainer_for(
        at_least(0.6, contexts=[1]), student=FreeLogits(rows=2), teachers=agreeing(examples=6), lr=1.0
    )
    result = trainer.fit(data, **EXACT)
    assert result.status == "converged"
    assert result.student.p(0) == pytest.approx(Q, abs=1e-5)
    assert result.student.p(1) == pytest.approx(answer(0.6), abs=1e-5)
    assert result.multipliers["first"] == pytest.approx(optimal_multiplier(0.6) / 2, rel=1e-4)
    assert result.point.readings[0].count == 1


@pytest.mark.parametrize(("split", "share"), [("validation", {"validation": True}), ("ward", {"splits": True})])
def test_a_constraint_may_be_posed_on_another_split(split, share):
    """Training data say nothing of row 1; the other split, whose second half is row 1, is what binds."""
    other = kd.Split(split, torch.tensor([[0], [1]]), torch.tensor([0, 0]))
    given = {"validation": other} if "validation" in share else {"splits": {split: other}}
    sizes = {"train": 3, "validation": 2}
    teachers = [StoredTeacher("q", {name: torch.tensor(Q).double().expand(n, -1) for name, n in sizes.items()})]
    trainer = trainer_for(at_least(0.6, split=split), student=FreeLogits(rows=2), teachers=teachers)
    result = trainer.fit(one_each(), **given, epochs=400)
    student = result.student
    assert (student.p(0)[0] + student.p(1)[0]) / 2 >= 0.6 - 1e-3
    assert result.point.readings[0].split == split
    assert set(result.trace["split_first"]) == {split}
    assert student.p(0)[0] > 0.3  # the multiplier is paid where it is cheap: not on the training row alone
    assert student.p(1)[0] > 0.5


def test_teachers_are_weighed_by_the_rule_and_a_plain_callable_is_one():
    q0, q1 = torch.tensor([0.8, 0.1, 0.1]).double(), torch.tensor([0.1, 0.1, 0.8]).double()
    teachers = [StoredTeacher("a", q0.expand(3, -1)), StoredTeacher("b", q1.expand(3, -1))]

    def mostly_b(signals):
        return torch.tensor([0.25, 0.75], dtype=torch.float64).expand(signals.shape)

    mixed = 0.25 * q0 + 0.75 * q1
    result = trainer_for(teachers=teachers, weights=mostly_b).fit(one_each(), **EXACT)
    assert result.student.p() == pytest.approx(mixed.tolist(), abs=1e-5)
    result = trainer_for(at_least(0.6), teachers=teachers, weights=mostly_b).fit(one_each(), **EXACT)
    assert result.student.p() == pytest.approx(answer(0.6, mixed.tolist()), abs=1e-5)
    uniform = trainer_for(teachers=teachers).fit(one_each(), **EXACT)
    assert uniform.student.p() == pytest.approx(((q0 + q1) / 2).tolist(), abs=1e-5)


def test_sequences_of_tokens():
    """Labels (N, T), logits (N, T, V): every position is an example."""
    labels = torch.tensor([[0, 1], [2, 0], [1, 1]])
    data = kd.Split("train", torch.zeros(3, 2, 1), labels)
    teachers = [StoredTeacher("q", torch.tensor(Q).double().expand(3, 2, -1))]
    result = trainer_for(at_least(0.6), teachers=teachers).fit(data, **EXACT)
    assert result.status == "converged"
    assert result.student.p() == pytest.approx(answer(0.6), abs=1e-6)
    assert result.multipliers["first"] == pytest.approx(optimal_multiplier(0.6), rel=1e-5)
    assert result.point.readings[0].count == 2


def noisy(examples: int = 64) -> tuple[kd.Split, list[StoredTeacher], list[float]]:
    """Teachers that differ from example to example; the mean of what they say, q, decides the answer."""
    draw = torch.Generator().manual_seed(0)
    q_NV = torch.softmax(torch.randn(examples, 3, generator=draw, dtype=torch.float64), -1)
    labels = torch.randint(3, (examples,), generator=draw)
    data = kd.Split("train", torch.zeros(examples, 1), labels)
    return data, [StoredTeacher("q", q_NV)], q_NV.mean(0).tolist()


def test_minibatches_meet_the_threshold_too():
    data, teachers, q = noisy()
    trainer = trainer_for(at_least(0.6), teachers=teachers, batch_size=8, lr=0.05, dual=kd.AugmentedLagrangian(rho=5.0))
    result = trainer.fit(data, epochs=200, tolerance=1e-9)
    assert result.student.p()[0] == pytest.approx(0.6, abs=0.01)
    assert result.student.p() == pytest.approx(answer(0.6, q), abs=0.02)
    assert result.multipliers["first"] == pytest.approx(optimal_multiplier(0.6, q), rel=0.15)
    assert result.point.rho[0] <= 20  # noise round the threshold is no reason to press harder
    assert result.point.step == 200 * 8
    assert result.status != "converged"  # noise keeps the residuals above 1e-9, and it says so


def test_smoothing_is_on_for_minibatches_only_and_never_overrides_the_user():
    split = kd.Split("train", torch.zeros(64, 1), torch.zeros(64).long())

    def smoothing(batch_size, dual=None):
        return trainer_for(at_least(0.6), batch_size=batch_size, dual=dual).problem.choose_dual(split).ema

    assert [smoothing(8), smoothing(64), smoothing(100), smoothing(None)] == [0.9, 0.0, 0.0, 0.0]
    assert smoothing(8, kd.AugmentedLagrangian(ema=0.5)) == 0.5
    assert smoothing(None, kd.AugmentedLagrangian(ema=0.5)) == 0.5
    user = kd.AugmentedLagrangian()
    smoothing(8, user)
    assert user.ema is None  # the user's value is left as it was


def separable() -> tuple[kd.Split, list[StoredTeacher]]:
    """Five positives, of which the teachers would miss the three with x < 0."""
    x = torch.tensor([-1.5, -1.0, -0.5, 1.0, 2.0, -3.0, -2.5, -2.0], dtype=torch.float64)
    labels = torch.tensor([1, 1, 1, 1, 1, 0, 0, 0])
    p = torch.sigmoid(2 * x)
    return kd.Split("train", x.reshape(-1, 1), labels), [StoredTeacher("t", torch.stack([1 - p, p], -1))]


def test_recall_is_what_is_promised_and_its_surrogate_what_is_followed():
    data, teachers = separable()
    rule = kd.SafetyConstraint("recall", Recall(critical=[1], sharpness=3.0), 0.8)
    student = nn.Linear(1, 2).double()
    trainer = trainer_for(rule, student=student, teachers=teachers, lr=0.2, dual=kd.AugmentedLagrangian(rho=1.0))
    result = trainer.fit(data, epochs=2000, trace_every=1)
    assert result.status == "converged", result.message
    with torch.no_grad():
        logits = student(data.inputs[:5])
    hit, margin = logits.argmax(-1) == 1, logits[:, 1] - logits[:, 0]
    last = result.trace.iloc[-1]
    assert last["safety_recall"] == pytest.approx(hit.double().mean().item())
    assert last["safety_recall"] >= 0.8
    bits = torch.nn.functional.softplus(-3 * margin) / math.log(2)
    assert last["surrogate_recall"] == pytest.approx((1 / (1 + bits)).mean().item(), rel=1e-9)
    start, then = result.trace.iloc[0], result.trace.iloc[1]
    step = 0.05  # rho / 20
    assert then["lambda_recall"] == pytest.approx(max(0.0, step * (0.8 - start["safety_recall"])), abs=1e-12)
    free = trainer_for(student=nn.Linear(1, 2).double(), teachers=teachers, lr=0.2).fit(data, epochs=500)
    assert (free.student(data.inputs[:5]).argmax(-1) == 1).sum() == 2  # without the constraint recall is .4


# ---- runs ---------------------------------------------------------------------------------------------------


def small_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def random_task(examples: int = 60) -> tuple[kd.Split, list[StoredTeacher]]:
    draw = torch.Generator().manual_seed(5)
    inputs, labels = torch.randn(examples, 4, generator=draw), torch.randint(3, (examples,), generator=draw)
    rows = [torch.softmax(torch.randn(examples, 3, generator=draw), -1) for _ in range(2)]
    teachers = [StoredTeacher(n, dict.fromkeys(SPLITS, p)) for n, p in zip(("a", "b"), rows, strict=True)]
    return kd.Split("train", inputs, labels), teachers


def run_once(seed: int, epochs: int = 5) -> FitResult:
    data, teachers = random_task()
    student = small_net()
    trainer = kd.ConstrainedTrainer(
        student,
        teachers,
        constraints=[at_least(0.5)],
        optimizer=torch.optim.Adam(student.parameters(), lr=1e-2),
        batch_size=7,
        seed=seed,
    )
    other = kd.Split("validation", data.inputs + 1, data.labels)
    return trainer.fit(data, other, epochs=epochs)


def test_the_same_seed_gives_the_same_run_bit_for_bit():
    one, two, other = run_once(3), run_once(3), run_once(4)
    assert one.trace.drop(columns=MACHINE).equals(two.trace.drop(columns=MACHINE))
    assert same(state(one.student), state(two.student))
    assert not one.trace.drop(columns=MACHINE).equals(other.trace.drop(columns=MACHINE))


def test_a_warm_start_begins_where_the_last_run_ended():
    first = trainer_for(at_least(0.6)).fit(one_each(), **EXACT)
    begin = kd.WarmStart.from_result(first)
    again = trainer_for(at_least(0.6)).fit(one_each(), warm_start=begin, epochs=100, trace_every=1, tolerance=1e-6)
    assert again.status == "converged"
    assert again.point.step == 2
    start = again.trace.iloc[0]
    assert start["distillation_loss"] == first.point.loss
    assert start["lambda_first"] == first.multipliers["first"]
    cold = trainer_for(at_least(0.6)).fit(one_each(), epochs=100, trace_every=1, tolerance=1e-6)
    assert cold.point.step > 20
    with torch.no_grad():
        first.student.logits.zero_()
    assert not torch.equal(begin.parameters["logits"], first.student.logits)  # a copy, which outlives the student


@pytest.mark.parametrize("rules", [[at_least(0.6)], [at_least(0.5), at_least(0.1, "second", critical=1)]])
def test_a_constrained_run_may_begin_at_an_unconstrained_student(rules):
    free = trainer_for().fit(one_each(), **EXACT)
    begin = kd.WarmStart.from_result(free)
    result = trainer_for(*rules).fit(one_each(), warm_start=begin, epochs=800, trace_every=1)
    start = result.trace.iloc[0]
    assert start["distillation_loss"] == free.point.loss
    assert [start[f"lambda_{rule.name}"] for rule in rules] == [0.0] * len(rules)
    assert result.status == "converged", result.message
    assert result.multipliers["first"] > 0


def test_the_student_trains_in_train_mode_and_is_read_in_eval_mode():
    class Watched(FreeLogits):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)
            self.frozen = nn.BatchNorm1d(3).eval()
            self.modes = []

        def forward(self, inputs):
            self.modes.append((self.training, self.drop.training))
            assert not self.frozen.training  # what the user froze stays frozen
            return self.drop(super().forward(inputs))

    student = Watched()
    result = trainer_for(at_least(0.6), student=student).fit(
        one_each(), one_each(name="validation"), epochs=3, trace_every=1
    )
    validation, step = [(False, False)] * 2, [(True, True)]
    run = validation + (step + validation) * 3
    assert student.modes[: len(run)] == run
    assert not any(map(any, student.modes[len(run) :]))  # the verdict's own looks
    p = torch.softmax(student.logits.detach()[0], -1)
    q = torch.tensor(Q, dtype=torch.float64)
    assert result.point.loss == pytest.approx(float((q * (q / p).log()).sum()), rel=1e-12)  # no dropout in it
    assert result.residuals == result.point.residuals
    assert not any(part.training for part in result.student.modules())
    assert not any(part.training for part in result.most_feasible.modules())


def test_points_come_when_asked_for():
    points = []
    result = trainer_for(at_least(0.6), lr=1e-3).fit(one_each(), epochs=25, trace_every=10, on_trace=points.append)
    assert [point.step for point in points] == [0, 10, 20, 25]
    assert result.trace["step"].tolist() == [0, 10, 20, 25]
    assert result.trace["epoch"].tolist() == [0, 10, 20, 25]
    default = trainer_for(at_least(0.6), lr=1e-3).fit(one_each(), epochs=340)
    # each costs 5/3 of a step, so 84 make it a fiftieth
    assert default.trace["step"].tolist() == [0, 84, 168, 252, 336, 340]
    short = trainer_for(at_least(0.6), lr=1e-3).fit(one_each(), epochs=20)
    assert short.trace["step"].tolist() == [0, 5, 10, 15, 20]  # as many as a verdict needs


def test_a_scheduler_steps_once_an_optimizer_step():
    student = FreeLogits()
    optimizer = torch.optim.SGD(student.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    kd.ConstrainedTrainer(student, agreeing(), optimizer=optimizer, scheduler=scheduler).fit(one_each(), epochs=3)
    assert optimizer.param_groups[0]["lr"] == 0.125


def test_teachers_are_asked_once_a_split_even_over_several_fits():
    class Counting(StoredTeacher):
        asked = 0

        def log_probabilities(self, batch, split):
            Counting.asked += len(batch)
            return super().log_probabilities(batch, split)

    data = one_each()
    trainer = trainer_for(teachers=[Counting("q", torch.tensor(Q).double().expand(3, -1))])
    trainer.fit(data, epochs=20)
    first = Counting.asked
    assert first <= 2 * len(data)
    trainer.fit(data, epochs=20)
    assert Counting.asked == first


def test_a_measure_of_the_users_own():
    """The square of p_0 at least .36 is p_0 at least .6, with another multiplier."""

    class Squared(TruthProbability):
        def _measured(self, log_p_V, labels):
            return super()._measured(log_p_V, labels) ** 2

    rule = kd.SafetyConstraint("squared", Squared(critical=[0]), 0.36)
    result = trainer_for(rule).fit(one_each(), **EXACT)
    assert result.student.p() == pytest.approx(answer(0.6), abs=1e-5)
    assert result.multipliers["squared"] == pytest.approx(optimal_multiplier(0.6) / (2 * 0.6), rel=1e-4)  # chain rule


def test_reading_more_often_does_not_change_the_run():
    seldom, often = (trainer_for(at_least(0.99), lr=0.001) for _ in range(2))
    one = seldom.fit(one_each(), epochs=100, trace_every=5)
    two = often.fit(one_each(), epochs=100, trace_every=1)
    assert same(state(one.student), state(two.student))
    assert one.trace.drop(columns=MACHINE).equals(two.trace.iloc[::5].reset_index(drop=True).drop(columns=MACHINE))
