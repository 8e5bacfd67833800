"""Measures and rules are found by name: a class with its decorator is all that it takes."""

from __future__ import annotations

import inspect

import pytest
import torch

from safekd._registry import snake_case, summarize_classes
from safekd.safety import MEASURES, Counted, Custom, SafetyMeasure, register_measure
from safekd.weights import RULES, SCALES, Signals, WeightRule, register_rule


@pytest.mark.parametrize(
    ("name", "spelled"), [("TopK", "top_k"), ("OneMinusBrier", "one_minus_brier"), ("Recall", "recall")]
)
def test_names_as_configurations_spell_them(name, spelled):
    assert snake_case(name) == spelled


def test_every_public_measure_is_in_the_registry():
    import safekd.safety as room

    public = {v for v in vars(room).values() if inspect.isclass(v) and issubclass(v, SafetyMeasure)}
    assert set(MEASURES.values()) == public - {SafetyMeasure, Custom, Counted}  # functions have no name
    assert all(name == snake_case(measure.__name__) for name, measure in MEASURES.items())


def test_every_public_rule_is_in_the_registry_of_its_scale():
    import safekd.weights as room

    wrappers = {"Conforming", "Normalized", "Tracking", "Unified", "WeightRule", "LearnedRule"}
    public = {v for n, v in vars(room).items() if inspect.isclass(v) and hasattr(v, "scale") and n not in wrappers}
    for scale in SCALES:
        assert set(RULES[scale].values()) == {rule for rule in public if rule.scale in (scale, "any")}


def test_rules_that_need_no_setting_are_rules():
    for of_scale in RULES.values():
        for make in of_scale.values():
            if all(p.default is not p.empty for p in inspect.signature(make).parameters.values()):
                assert isinstance(make(), WeightRule)


@pytest.mark.parametrize("registry", [MEASURES, *RULES.values()])
def test_a_line_says_what_each_is(registry):
    assert all(len(line) > 20 for line in summarize_classes(registry).values())


def test_what_somebody_registers_is_found():
    class SecondGuess(SafetyMeasure):
        """The probability of class 1, whatever the truth is."""

        def _measured(self, log_p_V, labels):
            return log_p_V[..., 1].exp()

    class ByNumber:
        """Teacher k gets the score k + 1."""

        scale, needs, continuous = "task", frozenset(), True

        def __call__(self, signals: Signals):
            return torch.arange(1.0, signals.shape[-1] + 1).expand(signals.shape)

    assert register_measure(SecondGuess) is MEASURES.pop("second_guess")
    assert register_rule(ByNumber) is RULES["task"].pop("by_number")
    assert "by_number" not in RULES["token"]
