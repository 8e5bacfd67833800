"""Settings of a step that cannot be used are refused where they are given, not at its first loss."""

from __future__ import annotations

import pytest
import torch

import safekd as kd
from safekd.language import LanguageStep

SAFE = kd.SafetyConstraint("safe", kd.safety.TruthProbability([1]), 0.3)


class OwnLoss(torch.nn.Module):
    """A rule that learns from a loss of its own."""

    def __init__(self):
        super().__init__()
        self.score_K = torch.nn.Parameter(torch.zeros(2))

    def forward(self, signals):
        return torch.softmax(self.score_K, -1).expand(signals.shape)

    def learn(self, step):
        return self.score_K.square().sum()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pool": "mean"}, "`pool` is 'mean'; wanted 'arithmetic', 'geometric', 'power', 'log_linear', a PowerPool"),
        ({"temper": "both"}, "`temper` is 'both'; wanted 'teachers'"),
        ({"temperature": -1.0}, r"`temperature` is -1\.0; it must be above 0"),
        ({"temperature": [1.0, 2.0, 3.0]}, "3 numbers for 2 teachers"),
        ({"cross_entropy": 2}, "`cross_entropy` is 2; wanted its share"),
        ({"budget": "much"}, "`budget` is 'much'; wanted bytes"),
        ({"vocabulary": 1}, "`vocabulary` is 1; wanted at least 2"),
        ({"vocabulary": 2.5}, r"`vocabulary` is 2\.5; wanted how many tokens"),
        ({"divergence": "kl"}, r"`divergence` is 'kl'; wanted ForwardKL\(\)"),
        ({"weights": torch.ones(3) / 3}, r"`weights` has shape \(3,\); wanted \(2,\)"),
        ({"weights": torch.ones(2)}, "`weights` sum to 2"),
        ({"weights": "uniform"}, "`weights` is 'uniform'; wanted a tensor"),
        ({"weights": OwnLoss()}, "OwnLoss learns from a loss of its own"),
        ({"constraints": [SAFE, SAFE]}, "Two constraints are called 'safe'"),
        ({"constraints": ["safe"]}, "A constraint is a str; wanted kd.SafetyConstraint"),
        ({"horizon": 0}, "`horizon` is 0; wanted how many steps"),
        ({"device": "abacus"}, "`device` is 'abacus'"),
    ],
)
def test_a_step_that_cannot_be_taken_is_refused_when_it_is_made(settings, said):
    with pytest.raises(kd.InvalidInput, match=said):
        LanguageStep(2, **settings)


@pytest.mark.parametrize(("teachers", "said"), [(0, "no teachers"), (True, "is True"), ("ab", "is 'ab'")])
def test_teachers_are_a_number_or_names(teachers, said):
    with pytest.raises(kd.InvalidInput, match=said):
        LanguageStep(teachers)


def test_a_rule_that_has_learned_weighs_on_once_it_is_frozen():
    assert LanguageStep(2, weights=OwnLoss().requires_grad_(False)).steps == 0
