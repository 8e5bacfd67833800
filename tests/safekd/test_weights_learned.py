"""Rules that learn: formulas by hand, what each converges to, and the look-ahead against second-order autograd."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from safekd.errors import InvalidInput, MissingSignal
from safekd.weights import (
    Conforming,
    EntropyDecay,
    LearnedRule,
    MetaTeacher,
    MinDivergence,
    MultiLevel,
    PolicyGradient,
    Signals,
    StudentStep,
    UncertaintyWeighting,
    Unified,
    Uniform,
    WeightRule,
    learned_rules,
    load_rule_state,
    looks_at_student,
    needs_labels,
    needs_of,
    rule_state,
)
from safekd.weights._learned_meta import look_ahead
from solvers.polytope import WeightPolytope

from .learning import D, drawn_inputs, drawn_signals, small_net, step_with
from .weighting import log_p, t

BOX = WeightPolytope(3, lower=0.1, upper=0.6)
MAKE = {
    "UncertaintyWeighting": lambda K=3: UncertaintyWeighting(K),
    "MultiLevel": lambda K=3: MultiLevel(K, features=D),
    "MetaTeacher": lambda K=3: MetaTeacher(hidden=5),
    "PolicyGradient": lambda K=3: PolicyGradient(hidden=5),
}
each_rule = pytest.mark.parametrize("name", MAKE)


def stirred(rule: nn.Module, seed: int = 0) -> nn.Module:
    """Return the rule, double, with parameters as if it had learned."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in rule.double().parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return rule


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


def trained(rule: nn.Module, step: StudentStep, steps: int = 400, lr: float = 0.1) -> nn.Module:
    """Return the rule after plain gradient steps on its own loss, the step staying what it is."""
    optimizer = torch.optim.Adam(rule.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        rule.learn(StudentStep(step.signals, rule(step.signals), step.student, step.inputs, step.rate)).backward()
        optimizer.step()
        scheduler.step()
    return rule


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
    assert needs_of(rule) == frozenset()
    assert needs_of(UncertaintyWeighting(3, n_tasks=2)) == {"task"}


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


# ---- MetaTeacher -----------------------------------------------------------------------------------------------------


def reference_loss(student, inputs, signals, w_K, temperature, hard, rate):
    """Cross-entropy on the hard positions after the look-ahead, as a function of the weights, by its definition."""
    theta = {name: p.detach().clone().requires_grad_() for name, p in student.named_parameters() if p.requires_grad}
    z_V = functional_call(student, theta, (inputs,))
    s_V = torch.log_softmax(z_V / temperature, -1).unsqueeze(-2)
    p_KV = torch.softmax(signals.log_p / temperature, -1)
    kd_K = temperature**2 * (p_KV * (p_KV.log() - s_V)).sum(-1)
    slopes = torch.autograd.grad((w_K * kd_K).sum(-1).mean(), list(theta.values()), create_graph=True)
    ahead = {name: p - rate * slope for (name, p), slope in zip(theta.items(), slopes, strict=True)}
    labels = signals.labels.flatten()
    before = torch.nn.functional.cross_entropy(z_V.flatten(0, -2), labels, reduction="none")
    worst = before.argsort(descending=True)[: math.ceil(hard * len(before))]
    after = torch.nn.functional.cross_entropy(
        functional_call(student, ahead, (inputs,)).flatten(0, -2), labels, reduction="none"
    )
    return after[worst].mean()


class Cubed(torch.autograd.Function):
    """An operation that knows how to go backwards only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * slope


class CubedNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(D, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.outer(Cubed.apply(torch.tanh(self.inner(x))))


def attentive() -> nn.Module:
    layer = nn.TransformerEncoderLayer(D, nhead=2, dim_feedforward=8, dropout=0.1, batch_first=True)
    return nn.Sequential(layer, nn.Linear(D, 4)).double()


def with_modes() -> nn.Module:
    """Dropout and running averages, which the look-ahead reads in eval mode."""
    return nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 4)).double()


def partly_frozen() -> nn.Module:
    student = small_net()
    student[0].requires_grad_(False)
    return student


def tied() -> nn.Module:
    student = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, D), nn.Linear(D, 4)).double()
    student[2].weight = student[0].weight
    return student


STUDENTS = {
    "small": (small_net, (9,)),
    "linear": (lambda: nn.Linear(D, 4).double(), (9,)),
    "positions": (small_net, (3, 4)),
    "attention": (attentive, (3, 4)),
    "dropout and batch norm": (with_modes, (9,)),
    "frozen part": (partly_frozen, (9,)),
    "tied": (tied, (9,)),
    "backward only": (lambda: CubedNet().double(), (9,)),
}


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("hard", [1.0, 0.3])
@pytest.mark.parametrize("kind", STUDENTS)
def test_the_look_ahead_is_the_second_order_gradient(kind, hard, temperature):
    torch.manual_seed(3)
    make, lead = STUDENTS[kind]
    student, inputs = make(), drawn_inputs(1, *lead)
    signals = drawn_signals(student, inputs, 3)
    w_K = torch.softmax(torch.randn(*lead, 3, dtype=torch.float64), -1).requires_grad_()
    found = look_ahead(StudentStep(signals, w_K, student, inputs, rate=0.7), temperature, hard)
    student.eval()
    with sdpa_kernel(SDPBackend.MATH):  # fused attention cannot be differentiated twice
        loss = reference_loss(student, inputs, signals, w_K, temperature, hard, 0.7)
        (expected,) = torch.autograd.grad(loss, w_K)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


def test_the_look_ahead_is_not_the_first_order_product():
    """At theta instead of theta' the inner product is another: the check above can tell."""
    student, inputs = small_net(), drawn_inputs(1, 9)
    signals = drawn_signals(student, inputs, 3)
    w_K = torch.full((9, 3), 1 / 3, dtype=torch.float64, requires_grad=True)
    slopes = [look_ahead(StudentStep(signals, w_K, student, inputs, rate), 1.0, 1.0) / rate for rate in (1e-6, 3.0)]
    assert (slopes[0] - slopes[1]).abs().max() > 1e-3


def test_parameters_follow_the_loss_after_the_step_through_projection_and_product():
    """The whole chain network -> product -> projection -> look-ahead, differentiated by autograd at second order."""
    student, inputs = small_net(), drawn_inputs(1, 9)
    signals = drawn_signals(student, inputs, 3)
    meta = stirred(MetaTeacher(hidden=4))
    rule = Unified(token=meta, task=EntropyDecay(), polytope=WeightPolytope(3, lower=0.2, upper=0.5))
    step = step_with(rule, student, inputs, signals)
    found = torch.autograd.grad(meta.learn(step), list(meta.parameters()))
    loss = reference_loss(student, inputs, signals, rule(signals), 1.0, meta.hard, step.rate)
    expected = torch.autograd.grad(loss, list(meta.parameters()))
    assert max(float(slope.abs().max()) for slope in expected) > 1e-6
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-12)


def test_the_look_ahead_leaves_no_trace():
    student, inputs = with_modes(), drawn_inputs(1, 9)
    student[0].eval()
    signals = drawn_signals(student, inputs, 3)
    student[1].train()
    for parameter in student.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    modes, noise = [part.training for part in student.modules()], torch.get_rng_state()
    w_K = torch.full((9, 3), 1 / 3, dtype=torch.float64, requires_grad=True)
    look_ahead(StudentStep(signals, w_K, student, inputs, 0.3), 1.0, 0.5)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert [part.training for part in student.modules()] == modes
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in student.parameters())
    assert torch.equal(torch.get_rng_state(), noise)
    assert w_K.grad is None


def test_a_student_in_float32_and_teachers_in_float64():
    student, inputs = small_net().float(), drawn_inputs(1, 9).float()
    signals = drawn_signals(student, inputs, 3)
    rule = MetaTeacher()
    loss = rule.learn(step_with(rule, student, inputs, signals))
    loss.backward()
    assert rule.network.outer.weight.grad.dtype == torch.float32
    assert float(rule.network.outer.weight.grad.abs().sum()) > 0


def right_and_wrong(B: int = 64) -> tuple[nn.Module, torch.Tensor, Signals]:
    """A teacher that is right, and one that is as sure of the next class."""
    student, inputs = small_net(), drawn_inputs(5, B)
    drawn = drawn_signals(student, inputs, 2)
    right = torch.full((B, 4), 0.1, dtype=torch.float64).scatter(-1, drawn.labels.unsqueeze(-1), 0.7)
    log_p_KV = torch.stack([right, right.roll(1, -1)], -2).log()
    return student, inputs, Signals(log_p=log_p_KV, labels=drawn.labels, student_log_p=drawn.student_log_p)


@pytest.mark.parametrize("hard", [0.5, 1.0])
def test_the_meta_teacher_learns_what_helps_after_the_step(hard):
    """A step then helps more than one with all the weight on the teacher that is right: positions share parameters."""
    student, inputs, signals = right_and_wrong()
    torch.manual_seed(0)
    rule = MetaTeacher(hard=hard)

    def after(w_K):
        return reference_loss(student, inputs, signals, w_K, 1.0, hard, 0.3).item()

    first = after(rule(signals))
    trained(rule, step_with(rule, student, inputs, signals), steps=60, lr=0.05)
    assert after(rule(signals)) < after(t(1.0, 0.0).expand(64, 2)) < first


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
def test_rewards_are_standardised_and_cut(seed):
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


# ---- finding them, and their state -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Half:
    """A user's wrapper."""

    first: object
    second: object = None

    def __call__(self, signals):
        return self.first(signals)


class Plain:
    """A wrapper that is no dataclass."""

    def __init__(self, rule):
        self._rules = [rule]

    def __call__(self, signals):
        return self._rules[0](signals)


class Network(nn.Module):
    """A user's rule without ``learn``."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))

    def forward(self, signals):
        return torch.softmax(self.net(signals.features), -1)


class Mixture(nn.Module):
    """A user's module of rules: one registered, one inside a wrapper that is no module, and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.share = nn.Parameter(torch.zeros(()))
        self.policy = PolicyGradient()
        self.other = Conforming(UncertaintyWeighting(3), BOX)

    def forward(self, signals):
        share = torch.sigmoid(self.share)
        return share * self.policy(signals) + (1 - share) * self.other(signals)


META = MetaTeacher()
UNIFIED = Unified(token=Conforming(META, BOX), task=UncertaintyWeighting(3), context=Uniform(), polytope=BOX)
FOUND = {
    "itself": (META, {"": MetaTeacher}),
    "Unified": (UNIFIED, {"token.rule": MetaTeacher, "task": UncertaintyWeighting}),
    "a bound method": (UNIFIED.compose, {"token.rule": MetaTeacher, "task": UncertaintyWeighting}),
    "a user's wrapper": (Half(Half([Uniform(), META])), {"first.first.1": MetaTeacher}),
    "a dictionary": (Half({"a": META}), {"first.a": MetaTeacher}),
    "the same one twice": (Half(META, META), {"first": MetaTeacher}),
    "a plain class": (Plain(META), {"_rules.0": MetaTeacher}),
    "a partial": (functools.partial(Half(META), 1), {"first": MetaTeacher}),
    "a module without learn": (Network(), {"net.0": nn.Linear, "net.2": nn.Linear}),
    "a module of rules": (Mixture(), {"": Mixture, "policy": PolicyGradient, "other.rule": UncertaintyWeighting}),
    "nothing": (Unified(token=EntropyDecay(), polytope=BOX), {}),
    "a function": (lambda signals: META(signals), {}),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_learns_is_found_however_deep(case):
    rule, expected = FOUND[case]
    assert {found.place: type(found.module) for found in learned_rules(rule)} == expected


def test_each_parameter_has_one_teacher():
    mixture = Mixture()
    names = {found.place: sorted(found.parameters) for found in learned_rules(mixture)}
    assert names[""] == ["share"]
    assert names["other.rule"] == ["s_MK"]
    assert len(names["policy"]) == 3


def test_frozen_rules_do_not_learn():
    assert learned_rules(MetaTeacher().requires_grad_(False)) == []


def test_a_circle_of_wrappers_ends():
    plain = Plain(META)
    plain._rules.append(plain)
    assert [found.place for found in learned_rules(plain)] == ["_rules.0"]


@pytest.mark.parametrize(
    ("rule", "needs"),
    [
        (UNIFIED, {"log_p", "entropy", "cross_entropy", "student_log_p"}),
        (Conforming(MinDivergence(), BOX), {"log_p", "student_log_p"}),
        (Half(Plain(EntropyDecay()), MultiLevel(3, features=2)), {"entropy", "features"}),
        (UNIFIED.compose, {"log_p", "entropy", "cross_entropy", "student_log_p"}),
        (lambda signals: signals.ones(), set()),
    ],
)
def test_wrappers_need_what_their_rules_need(rule, needs):
    assert needs_of(rule) == needs
    assert looks_at_student(rule) == bool(needs & {"student_log_p", "features"})
    assert needs_labels(rule) == ("cross_entropy" in needs)
    if hasattr(rule, "needs"):
        assert rule.needs == needs


def test_state_goes_round():
    one, other = Half(stirred(MetaTeacher()), stirred(Mixture())), Half(MetaTeacher().double(), Mixture().double())
    state = rule_state(one)
    assert "first.network.outer.weight" in state
    assert "second.other.rule.s_MK" in state
    assert len(state) == 3 + 1 + 3 + 1
    load_rule_state(other, state)
    assert all(torch.equal(value, state[name]) for name, value in rule_state(other).items())
    state["first.network.outer.weight"].zero_()
    assert rule_state(other)["first.network.outer.weight"].any()  # copies, both ways


WRONG_STATES = {
    "missing": (lambda state: state.pop("network.inner.bias"), "'network.inner.bias' is missing"),
    "unknown": (lambda state: state.update(more=torch.zeros(1)), "'more' is unknown here"),
    "shape": (
        lambda state: state.update({"network.inner.bias": torch.zeros(3)}),
        r"'network.inner.bias' has shape \(3,\) instead of \(16,\)",
    ),
}


@pytest.mark.parametrize("case", WRONG_STATES)
def test_the_state_of_another_rule_is_refused_whole(case):
    spoil, message = WRONG_STATES[case]
    rule, state = MetaTeacher(), rule_state(stirred(MetaTeacher()))
    before = rule_state(rule)
    spoil(state)
    with pytest.raises(InvalidInput, match=f"state is that of another weighting rule: {message}"):
        load_rule_state(rule, state)
    assert all(torch.equal(value, before[name]) for name, value in rule_state(rule).items())


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
