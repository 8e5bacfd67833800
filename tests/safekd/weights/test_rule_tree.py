"""Finding what learns inside a rule, what wrappers need, and the state of both."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from safekd.errors import InvalidInput
from safekd.weights import (
    Conforming,
    EntropyDecay,
    MetaTeacher,
    MinDivergence,
    MultiLevel,
    PolicyGradient,
    UncertaintyWeighting,
    Unified,
    Uniform,
    collect_needs,
    learned_rules,
    load_rule_state,
    looks_at_student,
    needs_labels,
    rule_state,
)
from solvers.polytope import WeightPolytope
from tests.support.learning import stirred

BOX = WeightPolytope(3, lower=0.1, upper=0.6)

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
    assert collect_needs(rule) == needs
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
