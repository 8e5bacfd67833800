"""Rules that look at the student, and rules that learn beside it, in the trainer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.teachers import StoredTeacher
from safekd.weights import (
    Conforming,
    MetaTeacher,
    MinDivergence,
    MultiLevel,
    Tracking,
    UncertaintyWeighting,
    Unified,
    Uniform,
    rule_state,
)
from solvers.polytope import WeightPolytope
from tests.support.learning import LEARNED, PAIR, Q0, Q1, float_net, learned, others, task, two
from tests.support.problems import FreeLogits, at_least, one_each, same, state, trainer_for

each_learned = pytest.mark.parametrize("name", LEARNED)


class Recorder:
    """A rule that keeps the signals that it was shown."""

    def __init__(self, *needs: str) -> None:
        self.needs, self.seen = frozenset(needs), []

    def __call__(self, signals):
        self.seen.append(signals)
        return signals.ones() / signals.shape[-1]


# ---- what rules are shown --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda rule: rule, lambda rule: Unified(token=Conforming(rule, PAIR), polytope=PAIR)])
def test_a_rule_that_looks_at_the_student_sees_it_in_every_step_without_a_second_pass(wrap):
    class Counting(FreeLogits):
        calls = 0

        def forward(self, inputs):
            Counting.calls += self.training
            return super().forward(inputs)

    student, rule = Counting(), Recorder("student_log_p")
    trainer_for(at_least(0.5), student=student, teachers=two(), weights=wrap(rule)).fit(
        one_each(), epochs=4, trace_every=100
    )
    assert Counting.calls == 4
    assert len(rule.seen) == 1 + 4 + 1  # first validation, steps, last validation
    shown = [signals.student_log_p for signals in rule.seen]
    assert all(not value.requires_grad for value in shown)
    assert shown[0][0].exp().tolist() == pytest.approx([1 / 3] * 3)
    assert shown[-1][0].exp().tolist() == pytest.approx(student.p())
    assert not torch.equal(shown[2], shown[3])


@pytest.mark.parametrize(
    ("needs", "fixed"), [((), True), (("entropy", "safety"), True), (("student_log_p",), False), (("features",), False)]
)
def test_targets_are_kept_only_where_nothing_about_them_can_change(needs, fixed):
    rule = Recorder(*needs)
    trainer = trainer_for(teachers=two(), weights=rule)
    trainer.fit(one_each(), epochs=10)
    assert (len(rule.seen) <= 2) == fixed


def test_a_module_without_parameters_may_change_too():
    class Counting(nn.Module):
        calls = 0

        def forward(self, signals):
            Counting.calls += 1
            return signals.ones() / 2

    trainer_for(teachers=two(), weights=Counting()).fit(one_each(), epochs=10)
    assert Counting.calls > 10


def test_the_target_follows_the_student():
    """Weights of the mixture nearest to the student: one that begins near b is taught more of b than one near a.

    In the end both meet the one target that gives itself back: the middle, since teachers mirror each other.
    """
    targets = []
    for begin in (Q0, Q1):
        student, rule = FreeLogits(), MinDivergence(strength=1.0)
        with torch.no_grad():
            student.logits[0] = begin.log()
        trainer = trainer_for(student=student, teachers=two(), weights=rule)
        targets.append(trainer.objective.pool(one_each(), one_each().batch(torch.arange(3))).log_q_V[0].exp())
        assert trainer.fit(one_each(), epochs=400).student.p() == pytest.approx([0.45, 0.1, 0.45], abs=1e-3)
    assert targets[0][0] > 0.55
    assert targets[1][2] > 0.55


def test_features_are_the_inputs_flattened():
    rule = Recorder("features")
    data = kd.Split("train", torch.randn(3, 2, 5), torch.arange(3))
    student = nn.Sequential(nn.Flatten(), nn.Linear(10, 3))
    trainer_for(student=student, teachers=two(), weights=rule).fit(data, epochs=1)
    torch.testing.assert_close(rule.seen[0].features, data.inputs.flatten(1))


def test_features_of_sequences_are_one_row_a_position():
    rule = Recorder("features")
    data = kd.Split("train", torch.randn(3, 2, 5, 2), torch.zeros(3, 2, dtype=torch.long))
    student = nn.Sequential(nn.Flatten(2), nn.Linear(10, 3))
    teachers = [StoredTeacher("a", Q0.expand(3, 2, -1)), StoredTeacher("b", Q1.expand(3, 2, -1))]
    trainer_for(student=student, teachers=teachers, weights=rule).fit(data, epochs=1)
    torch.testing.assert_close(rule.seen[0].features, data.inputs.flatten(2))


def test_features_may_be_given():
    rule, body = Recorder("features"), nn.Linear(1, 5)
    trainer = trainer_for(teachers=two(), weights=rule, features=lambda batch: body(batch.inputs))
    trainer.fit(one_each(), epochs=1)
    assert rule.seen[0].features.shape == (3, 5)
    assert not rule.seen[0].features.requires_grad


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        (
            (torch.zeros(3, 1, dtype=torch.long), torch.arange(3)),
            {},
            "inputs are torch.int64 .* Pass features=",
        ),
        (
            (torch.zeros(3, 1), torch.arange(3)),
            {"features": lambda batch: torch.zeros(2, 5)},
            r"`features` has shape \(2, 5\) for labels of shape \(3,\); wanted one row of features a label",
        ),
    ],
)
def test_features_that_do_not_fit_are_refused(data, more, message):
    with pytest.raises(kd.InvalidInput, match=message):
        trainer_for(teachers=two(), weights=Recorder("features"), **more).fit(data, epochs=1)


def test_classes_that_do_not_agree_are_told_before_a_rule_stumbles_over_them():
    with pytest.raises(kd.InvalidInput, match="The student gives 4 classes, the teachers give 3"):
        trainer_for(student=FreeLogits(4), teachers=two(), weights=MinDivergence()).fit(one_each(), epochs=1)


def test_half_precision_students_are_widened_for_the_rule():
    rule = Recorder("student_log_p")
    student = FreeLogits(dtype=torch.bfloat16)
    trainer_for(student=student, teachers=two(), weights=rule).fit(one_each(), epochs=1)
    assert rule.seen[0].student_log_p.dtype == torch.float32


# ---- learning beside the student -------------------------------------------------------------------------------------


def test_uncertainty_weights_of_a_student_that_stands_still_end_at_the_inverse_losses():
    student = FreeLogits()
    with torch.no_grad():
        student.logits[0] = torch.tensor([0.6, 0.2, 0.2]).log()
    rule = UncertaintyWeighting(2)
    trainer_for(student=student, teachers=two(), weights=rule, lr=1e-12).fit(one_each(), epochs=1500)
    p = torch.tensor([0.6, 0.2, 0.2]).double()
    loss = torch.stack([(q * (q / p).log()).sum() for q in (Q0, Q1)]) + rule.eps
    assert torch.softmax(-rule.s_MK[0], -1).tolist() == pytest.approx((1 / loss / (1 / loss).sum()).tolist(), rel=1e-3)


def test_multilevel_follows_the_distillation_loss_through_pool_and_projection():
    """One step of plain gradient descent, against autograd of the loss written out here."""
    data, teachers = task()
    student, rule = float_net(), MultiLevel(2, features=4)
    with torch.no_grad():
        rule.theta_KD[1] += torch.tensor([0.3, -0.2, 0.5, 0.1])
    before, copied = rule_state(rule), MultiLevel(2, features=4)
    copied.load_state_dict(before)
    w_K = kd.project(torch.softmax((data.inputs * copied.W_D) @ copied.theta_KD.T, -1), PAIR)
    p_KV = torch.stack([teacher._rows["train"] for teacher in teachers], -2)
    q_V = (w_K.unsqueeze(-1) * p_KV).sum(-2)
    log_s = torch.log_softmax(student(data.inputs), -1).detach()
    loss = (q_V * (q_V.log() - log_s)).sum(-1).mean()
    gradients = dict(zip(("theta_KD", "W_D"), torch.autograd.grad(loss, [copied.theta_KD, copied.W_D]), strict=True))
    trainer = kd.ConstrainedTrainer(
        student,
        teachers,
        weights=Conforming(rule, PAIR),
        optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
        weights_optimizer=torch.optim.SGD(rule.parameters(), lr=2.0),
    )
    trainer.fit(data, epochs=1)
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 1e-5
        torch.testing.assert_close(rule_state(rule)[name], before[name] - 2.0 * gradient, rtol=1e-4, atol=1e-6)


@each_learned
def test_the_student_sees_weights_as_numbers(name):
    """Its step is that of the same weights given outright; the rule moves beside it."""
    data, teachers = task()
    rule = learned(name)
    first, second = float_net(), float_net()

    def frozen(signals):
        return weights.to(signals.ones())

    frozen.needs = {"student_log_p"}
    trainer = kd.ConstrainedTrainer(first, teachers, weights=rule, optimizer=torch.optim.SGD(first.parameters(), 0.5))
    with torch.no_grad():
        weights = rule(trainer.objective.signals(data, data.batch(torch.arange(40)))).clone()
    before = rule_state(rule)
    trainer.fit(data, epochs=1)
    optimizer = torch.optim.SGD(second.parameters(), 0.5)
    kd.ConstrainedTrainer(second, teachers, weights=frozen, optimizer=optimizer).fit(data, epochs=1)
    assert same(state(first), state(second))
    assert not same(before, rule_state(rule))


@each_learned
def test_learned_rules_train_conforming_on_minibatches_with_a_constraint(name):
    data, teachers = task()
    student, rule = float_net(), Conforming(learned(name), PAIR)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    trainer = kd.ConstrainedTrainer(
        student, teachers, constraints=[at_least(0.4)], weights=rule, optimizer=optimizer, batch_size=16
    )
    result = trainer.fit(data, others(), epochs=20)
    assert result.status in ("budget_spent", "converged")
    assert result.rule is rule
    assert result.trace["distillation_loss"].iloc[-1] < result.trace["distillation_loss"].iloc[0]
    w_K = rule(trainer.objective.signals(data, data.batch(torch.arange(40)))).detach()
    assert PAIR.check(w_K).holds()


def test_several_rules_learn_at_once_each_from_its_own_loss():
    """Beside a rule that the distillation loss teaches, the others move as they do beside one that stands still."""
    data, teachers = task()

    def moved(freeze: bool):
        student, meta, levels = float_net(), learned("MetaTeacher"), learned("MultiLevel")
        levels.requires_grad_(not freeze)
        rule = Unified(token=meta, task=levels, polytope=PAIR)
        optimizer = torch.optim.SGD(student.parameters(), 0.5)
        kd.ConstrainedTrainer(student, teachers, weights=rule, optimizer=optimizer).fit(data, epochs=1)
        return rule_state(meta), rule_state(levels)

    (meta, levels), (alone, still) = moved(False), moved(True)
    assert same(meta, alone)
    assert not same(levels, still)


def test_a_module_without_learn_follows_the_distillation_loss():
    """Two teachers and a student held between them: least loss at the weights that give the student's answer."""

    class Share(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Parameter(torch.zeros(2))

        def forward(self, signals):
            return torch.softmax(self.score, -1).to(signals.ones()).expand(signals.shape)

    student, rule = FreeLogits(), Share()
    with torch.no_grad():
        student.logits[0] = (0.3 * Q0 + 0.7 * Q1).log()
    trainer_for(student=student, teachers=two(), weights=rule, lr=1e-12).fit(one_each(), epochs=800)
    assert torch.softmax(rule.score, -1).tolist() == pytest.approx([0.3, 0.7], abs=1e-3)


def test_a_weight_of_zero_at_one_scale_loses_no_gradient():
    """(.1, .85, .05) with at least .5 for the first is (.5, .5, 0); the product takes logarithms: 0 * inf there."""
    inner = UncertaintyWeighting(3).double()
    with torch.no_grad():
        inner.s_MK[0] = -torch.tensor([0.1, 0.85, 0.05]).double().log()
    sparse = Conforming(inner, WeightPolytope(3, lower=[0.5, 0.0, 0.0]))
    signals = kd.weights.Signals(log_p=torch.full((2, 3, 4), 0.25).double().log())
    assert sparse(signals).tolist() == [pytest.approx([0.5, 0.5, 0.0])] * 2
    weights_K = Unified(token=sparse, task=Uniform(), polytope=WeightPolytope(3))(signals)
    (weights_K * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert torch.isfinite(inner.s_MK.grad).all()


def test_a_rule_that_learns_may_stand_inside_one_that_tracks():
    """One update of the tracked weights a step, none in a full pass; the rule inside learns through the share beta."""
    inner = learned("UncertaintyWeighting")
    tracking = Tracking(Conforming(inner, PAIR), PAIR, beta=0.5, by=None)
    data, teachers = task()
    student = float_net()
    optimizer = torch.optim.SGD(student.parameters(), 0.5)
    trainer = kd.ConstrainedTrainer(student, teachers, weights=tracking, optimizer=optimizer, batch_size=20)
    result = trainer.fit(data, others(), epochs=3, trace_every=1)
    assert tracking.steps_G.tolist() == [6]
    assert {"rule.state_GK", "rule.rule.rule.s_MK"} <= set(result.rule_state)
    assert inner.s_MK.detach().abs().max() > 0.01


def test_weights_with_no_room_to_move_teach_nothing_and_break_nothing():
    tight = WeightPolytope(2, lower=0.5, upper=0.5)
    result = trainer_for(teachers=two(), weights=Conforming(MetaTeacher(), tight)).fit(one_each(), epochs=50)
    assert result.status != "diverged"


def test_the_same_seed_gives_the_same_run_bit_for_bit():
    def run():
        data, teachers = task()
        student, rule = float_net(), learned("MetaTeacher")
        optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
        trainer = kd.ConstrainedTrainer(student, teachers, weights=rule, optimizer=optimizer, batch_size=16)
        return trainer.fit(data, epochs=4)

    one, two_ = run(), run()
    assert same(state(one.student), state(two_.student))
    assert same(dict(one.rule_state), dict(two_.rule_state))


def test_reading_more_often_does_not_change_what_is_learned():
    def run(trace_every):
        data, teachers = task()
        student, rule = float_net(), learned("PolicyGradient")
        optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
        trainer = kd.ConstrainedTrainer(student, teachers, weights=rule, optimizer=optimizer)
        return trainer.fit(data, others(), epochs=10, trace_every=trace_every)

    seldom, often = run(10), run(1)
    assert same(dict(seldom.rule_state), dict(often.rule_state))
    assert same(state(seldom.student), state(often.student))


def test_full_passes_read_the_rule_in_eval_mode_and_steps_do_not():
    class Watched(UncertaintyWeighting):
        def __init__(self):
            super().__init__(2)
            self.drop, self.modes = nn.Dropout(0.5), []

        def forward(self, signals):
            self.modes.append((self.training, self.drop.training, torch.is_grad_enabled()))
            return super().forward(signals)

    rule = Watched().eval()  # as an earlier run leaves it
    trainer = trainer_for(teachers=two(), weights=rule)
    validation, step = [(False, False, False)] * 2, [(True, True, True)]
    for _ in range(2):
        trainer.fit(one_each(), one_each(name="validation"), epochs=2, trace_every=1)
        assert rule.modes == validation + (step + validation) * 2
        rule.modes.clear()
    assert not rule.training


def test_every_module_goes_to_the_trainers_device():
    class Watched(nn.Linear):
        went = None

        def to(self, *where):
            self.went = where
            return super().to(*where)

    class Scores:
        def __init__(self):
            self.net = Watched(1, 2)

        def __call__(self, signals):
            return torch.softmax(self.net(signals.features), -1).to(signals.ones())

    rule = Scores()
    rule.needs = {"features"}
    trainer_for(teachers=two(), weights=Conforming(rule, PAIR), device="cpu").fit(one_each(), epochs=1)
    assert rule.net.went == (torch.device("cpu"),)


def test_a_rule_that_learns_from_named_inputs_asks_for_features():
    class Named(FreeLogits):
        def forward(self, x):
            return super().forward(x)

    data = one_each()
    named = kd.Split("train", {"x": data.inputs}, data.labels)
    trainer = trainer_for(student=Named(), teachers=two(), weights=Recorder("features"))
    with pytest.raises(kd.InvalidInput, match=r"learns from features, and the inputs are a dictionary. Pass features="):
        trainer.fit(named, epochs=1)


def test_what_is_frozen_in_a_rule_stays():
    rule = learned("MetaTeacher")
    rule.network.inner.requires_grad_(False)
    before = rule_state(rule)
    data, teachers = task()
    student = float_net()
    optimizer = torch.optim.SGD(student.parameters(), 0.5)
    kd.ConstrainedTrainer(student, teachers, weights=rule, optimizer=optimizer).fit(data, epochs=3)
    after = rule_state(rule)
    assert torch.equal(before["network.inner.weight"], after["network.inner.weight"])
    assert not torch.equal(before["network.outer.weight"], after["network.outer.weight"])
