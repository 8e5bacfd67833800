"""Rules that learn: formulas by hand, what each converges to, and the look-ahead against second-order autograd."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from safekd.errors import InvalidInput, MissingSignal
from safekd.weights import (
    LearnedRule,
    MetaTeacher,
    MultiLevel,
    PolicyGradient,
    Signals,
    UncertaintyWeighting,
    WeightRule,
    collect_needs,
)
from solvers.polytope import WeightPolytope
from tests.support.learning import (
    D,
    drawn_inputs,
    drawn_signals,
    right_and_wrong,
    small_net,
    step_with,
    stirred,
    trained,
)
from tests.support.weighting import log_p, t

BOX = WeightPolytope(3, lower=0.1, upper=0.6)
MAKE = {
    "UncertaintyWeighting": lambda K=3: UncertaintyWeighting(K),
    "MultiLevel": lambda K=3: MultiLevel(K, features=D),
    "MetaTeacher": lambda K=3: MetaTeacher(hidden=5),
    "PolicyGradient": lambda K=3: PolicyGradient(hidden=5),
}
each_rule = pytest.mark.parametrize("name", MAKE)


def signals_for(K: int = 3, seed: int = 0, B: int = 8, V: int = 4, **more) -> Signals:
    return drawn_signals(small_net(V=V), drawn_inputs(seed, B), K, seed, **more)


# ---- all of them -----------------------------------------------------------------------------------------------------


@each_rule
def test_each_is_a_rule_that_says_what_it_is(name):
    rule = MAKE[name]()
    assert isinstance(rule, nn.Module)
    assert isinstance(rule, WeightRule)
    assert isinstance(rule, LearnedRule)
    assert rule.scale in ("token", "task")
    assert rule.continuous


@each_rule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_weights_are_positive_and_sum_to_one_in_the_teachers_dtype(name, dtype, seed):
    signals = signals_for(seed=seed)
    given_ = {"log_p": signals.log_p.to(dtype), "student_log_p": signals.student_log_p.float()}
    given_ |= {"labels": signals.labels, "features": signals.features.float()}
    weights = stirred(MAKE[name](), seed).float()(Signals(**given_))
    assert weights.dtype == dtype
    assert weights.shape == signals.shape
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(weights), dtype=dtype))


@each_rule
def test_one_teacher_has_all_the_weight(name):
    signals = signals_for(K=1)
    rule = stirred(MAKE[name](1))
    torch.testing.assert_close(rule(signals), torch.ones(8, 1, dtype=torch.float64))
    step = step_with(rule, small_net(), drawn_inputs(0, 8), signals)
    loss = rule.learn(step)
    assert loss is None or torch.isfinite(loss)


@pytest.mark.parametrize("name", ["UncertaintyWeighting", "MultiLevel", "MetaTeacher"])
def test_a_fresh_rule_is_uniform(name):
    assert MAKE[name]()(signals_for()).tolist() == [pytest.approx([1 / 3] * 3)] * 8


@pytest.mark.parametrize("name", ["MetaTeacher", "PolicyGradient"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_renaming_teachers_renames_weights_and_equal_ones_weigh_alike(name, seed):
    signals, rule = signals_for(seed=seed, K=4), stirred(MAKE[name](), seed)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    more = {"labels": signals.labels, "student_log_p": signals.student_log_p}
    moved = Signals(log_p=signals.log_p[:, order], **more)
    torch.testing.assert_close(rule(moved), rule(signals)[:, order])
    same = Signals(log_p=signals.log_p[:, :1].expand(-1, 4, -1), **more)
    torch.testing.assert_close(rule(same), torch.full((8, 4), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("name", ["MetaTeacher", "PolicyGradient"])
@pytest.mark.parametrize(("K", "V"), [(2, 3), (7, 50)])
def test_one_network_serves_any_number_of_teachers_and_classes(name, K, V):
    assert stirred(MAKE[name]())(signals_for(K=K, V=V)).shape == (8, K)


@pytest.mark.parametrize("name", ["MetaTeacher", "PolicyGradient"])
def test_a_teacher_that_excludes_the_truth_breaks_nothing(name):
    p = t([[0.0, 1.0], [1.0, 0.0]])
    signals = Signals(log_p=p.log(), labels=torch.tensor([0]), student_log_p=t([0.4, 0.6]).log())
    rule = stirred(MAKE[name]())
    assert torch.isfinite(rule.network(signals)).all()


@pytest.mark.parametrize("name", ["MetaTeacher", "PolicyGradient"])
@pytest.mark.parametrize(
    ("missing", "message"), [("labels", "true classes"), ("student_log_p", "looks at the student")]
)
def test_what_is_missing_is_named(name, missing, message):
    whole = signals_for()
    given_ = {"log_p": whole.log_p, "labels": whole.labels, "student_log_p": whole.student_log_p}
    given_.pop(missing)
    with pytest.raises(MissingSignal, match=message):
        MAKE[name]()(Signals(**given_))


# ---- UncertaintyWeighting --------------------------------------------------------------------------------------------


def two_teachers(loss: tuple[float, float], B: int = 4) -> Signals:
    """Teachers whose KL from a uniform student over two classes is as given, nats."""
    rows = []
    for wanted in loss:
        low, high = 0.0, 0.5
        for _ in range(80):
            p = (low + high) / 2
            kl = math.log(2) + p * math.log(p) + (1 - p) * math.log(1 - p)
            low, high = (p, high) if kl > wanted else (low, p)
        rows.append([p, 1 - p])
    even = torch.full((B, 2), -math.log(2), dtype=torch.float64)
    return Signals(log_p=t(*rows).log().expand(B, 2, 2), student_log_p=even, labels=torch.zeros(B, dtype=torch.long))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_uncertainty_weights_end_at_the_inverse_losses(temperature):
    signals = signals_for(B=40)
    rule = UncertaintyWeighting(3, temperature=temperature, eps=1e-6).double()
    trained(rule, step_with(rule, small_net(), drawn_inputs(0, 40), signals))
    soft_t = torch.softmax(signals.log_p / temperature, -1)
    soft_s = torch.log_softmax(signals.student_log_p / temperature, -1)
    loss_K = temperature**2 * (soft_t * (soft_t.log() - soft_s.unsqueeze(-2))).sum(-1).mean(0)
    expected = (1 / loss_K) / (1 / loss_K).sum()
    assert rule(signals)[0].tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert rule.s_MK[0].tolist() == pytest.approx(loss_K.log().tolist(), abs=1e-4)


def test_uncertainty_by_hand():
    """Losses .1 and .3 make weights 3 : 1; at s = 0 the loss is their sum."""
    signals = two_teachers((0.1, 0.3))
    rule = UncertaintyWeighting(2, eps=1e-9).double()
    step = step_with(rule, small_net(), drawn_inputs(0, 4), signals)
    assert rule.learn(step).item() == pytest.approx(0.4, abs=1e-6)
    trained(rule, step)
    assert rule(signals).tolist() == [pytest.approx([0.75, 0.25], abs=1e-4)] * 4


def test_a_teacher_that_the_student_equals_does_not_run_away():
    """Its loss is 0, and exp(-s) 0 + s has no minimum; with eps it is at s = log eps."""
    signals = two_teachers((0.0, 0.3))
    rule = UncertaintyWeighting(2, eps=0.01).double()
    trained(rule, step_with(rule, small_net(), drawn_inputs(0, 4), signals), steps=1500)
    assert rule.s_MK[0, 0].item() == pytest.approx(math.log(0.01), abs=1e-3)
    assert rule(signals)[0].tolist() == pytest.approx([0.31 / 0.32, 0.01 / 0.32], rel=1e-3)


def test_each_task_has_weights_of_its_own_and_absent_tasks_rest():
    B = 40
    task = torch.arange(B) % 2 * 2  # tasks 0 and 2; there is no 1
    signals = signals_for(B=B, task=task)
    rule = UncertaintyWeighting(3, n_tasks=3, eps=1e-6).double()
    trained(rule, step_with(rule, small_net(), drawn_inputs(0, B), signals))
    for number in (0, 2):
        loss_K = signals.student_divergence()[task == number].mean(0)
        expected = ((1 / loss_K) / (1 / loss_K).sum()).tolist()
        assert rule(signals)[task == number].tolist() == [pytest.approx(expected, rel=1e-4)] * (B // 2)
    assert rule.s_MK[1].tolist() == [0.0] * 3


def test_one_row_of_weights_is_shared_by_all_tasks_and_positions():
    signals = drawn_signals(small_net(), drawn_inputs(0, 4, 5), 3, task=torch.arange(4))
    rule = stirred(UncertaintyWeighting(3))
    assert rule(signals).shape == (4, 5, 3)
    assert len(rule(signals).reshape(-1, 3).unique(dim=0)) == 1
    assert collect_needs(rule) == frozenset()
    assert collect_needs(UncertaintyWeighting(3, n_tasks=2)) == {"task"}


# ---- MultiLevel ------------------------------------------------------------------------------------------------------


def test_multilevel_by_hand():
    """W = (1, 2), theta = ((1, 0), (0, 1)), h = (3, 4): scores 1*1*3 = 3 and 2*1*4 = 8."""
    rule = MultiLevel(2, features=2).double()
    with torch.no_grad():
        rule.W_D.copy_(t(1.0, 2.0))
        rule.theta_KD.copy_(t([1.0, 0.0], [0.0, 1.0]))
    signals = Signals(log_p=log_p(0, 1, 2, 3), features=t([3.0, 4.0]))
    assert rule(signals).tolist() == [pytest.approx([1 / (1 + math.exp(5)), 1 / (1 + math.exp(-5))])]
    assert rule.learn(step_with(rule, small_net(), drawn_inputs(0, 1), signals)) is None


def test_a_fresh_multilevel_can_learn():
    """Teachers begin alike, and yet each latent has a gradient of its own; with W = 0 nothing would."""
    rule, signals = MultiLevel(3, features=D).double(), signals_for()
    (rule(signals) * t(1.0, 2.0, 4.0)).sum().backward()
    assert (rule.theta_KD.grad.norm(dim=-1) > 1e-3).all()


# ---- PolicyGradient --------------------------------------------------------------------------------------------------


def test_policy_weights_are_the_mean_of_three():
    rule, signals = stirred(PolicyGradient(hidden=5)), signals_for()
    nats = torch.stack([signals.entropy, signals.cross_entropy, signals.student_divergence()]).log1p()
    readings = torch.stack([*nats, signals.log_p.exp().max(-1).values], -1)
    net = rule.network
    policy = torch.softmax(
        (torch.tanh(readings @ net.inner.weight.T + net.inner.bias) @ net.outer.weight.T).squeeze(-1), -1
    )
    trust = (1 - torch.softmax(signals.cross_entropy, -1)) / 2
    gap = torch.softmax(signals.student_divergence(), -1)
    torch.testing.assert_close(rule(signals), (policy + trust + gap) / 3)


def test_the_first_weights_sum_to_one():
    assert PolicyGradient()(signals_for()).sum(-1).tolist() == pytest.approx([1.0] * 8)


def test_the_reward_by_hand():
    """Student (.5, .5), labels 0 and 1, so its own loss is log 2 everywhere; teachers (.5, .5) and (.9, .1).

    KL is 0 and log 2 - H(.9) = .368: gains are (0, -.368) less log 2, mean in the middle, spread .184, so (1, -1)
    cut to (1, 0) at both positions.
    """
    log_p_KV = t([0.5, 0.5], [0.9, 0.1]).log().expand(2, 2, 2)
    signals = Signals(log_p=log_p_KV, labels=torch.tensor([0, 1]), student_log_p=t(0.5, 0.5).log().expand(2, 2))
    assert PolicyGradient().reward(signals).tolist() == [pytest.approx([1.0, 0.0])] * 2


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_rewards_are_standardized_and_cut(seed):
    signals = signals_for(seed=seed)
    s_V = signals.student_log_p.exp()
    own = -s_V[torch.arange(8), signals.labels].log()
    p_KV = signals.log_p.exp()
    gain = -(own.unsqueeze(-1) + (p_KV * (p_KV / s_V.unsqueeze(-2)).log()).sum(-1)).numpy()
    expected = ((gain - gain.mean()) / gain.std()).clip(0, 1)
    assert PolicyGradient().reward(signals).numpy() == pytest.approx(expected, abs=1e-9)


def test_no_reward_where_all_losses_are_alike():
    same = Signals(log_p=t([0.5, 0.5], [0.5, 0.5]).log(), labels=torch.tensor(0), student_log_p=t(0.5, 0.5).log())
    assert PolicyGradient().reward(same).tolist() == [0.0, 0.0]


def test_the_policy_loss_and_where_it_leads():
    """``-sum_k r_k log pi_k`` has its minimum at pi_k = r_k / sum_j r_j: all on the rewarded teacher here."""
    student, inputs, signals = right_and_wrong()
    torch.manual_seed(0)
    rule = PolicyGradient()
    step = step_with(rule, student, inputs, signals)
    reward = rule.reward(signals)
    assert rule.learn(step).item() == pytest.approx(float(math.log(2) * reward.sum(-1).mean()))
    trained(rule, step, steps=200, lr=0.05)
    chosen = rule.network(signals).exp()
    clear = (reward > 0).sum(-1) == 1
    assert clear.any()
    assert (chosen[clear].argmax(-1) == reward[clear].argmax(-1)).double().mean() > 0.9


# ---- what is refused -------------------------------------------------------------------------------------------------

REFUSED = {
    "no teachers": (lambda: UncertaintyWeighting(0), "`n_teachers` of UncertaintyWeighting is 0; .* at least 1"),
    "half a task": (lambda: UncertaintyWeighting(2, 1.5), "`n_tasks` of UncertaintyWeighting is 1.5; .*whole number"),
    "eps": (lambda: UncertaintyWeighting(2, eps=0.0), "`eps` of UncertaintyWeighting is 0.0; it must be above 0"),
    "temperature": (lambda: MetaTeacher(temperature=0.0), "`temperature` of TeacherNetwork is 0.0"),
    "hidden": (lambda: PolicyGradient(hidden=0), "`hidden` of TeacherNetwork is 0"),
    "features": (lambda: MultiLevel(2, features=0), "`features` of MultiLevel is 0"),
    "hard": (lambda: MetaTeacher(hard=0.0), "`hard` of MetaTeacher is 0.0; it is a share of positions"),
    "hard above": (lambda: MetaTeacher(hard=1.5), "`hard` of MetaTeacher is 1.5"),
    "other teachers": (
        lambda: UncertaintyWeighting(2)(signals_for(3)),
        "UncertaintyWeighting was made for 2 teachers, the signals have 3; make it with n_teachers=3",
    ),
    "other teachers, levels": (lambda: MultiLevel(2, features=D)(signals_for(3)), "MultiLevel was made for 2 teachers"),
    "other features": (
        lambda: MultiLevel(3, features=5)(signals_for(3)),
        r"made for 5 features and wants them of shape \(8, 5\); they have shape \(8, 6\). Make it with features=6",
    ),
    "task": (
        lambda: UncertaintyWeighting(3, n_tasks=2)(signals_for(3, task=torch.arange(8))),
        "A position has task 7; this UncertaintyWeighting was made for tasks 0 to 1. Give it n_tasks=8",
    ),
    "no features": (lambda: MultiLevel(3, features=5)(Signals(log_p=log_p(0, 2, 3, 4))), "pass `features`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        make()
