"""The search for jumps: what jumps is caught, what is continuous passes, however steep."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.axioms.continuity._jump_search import JumpSearchSettings, Line, rows_interact, search_line
from safekd.errors import InvalidInput
from safekd.weights import (
    Conforming,
    DomainDistance,
    EntropyDecay,
    GradientMinNorm,
    InverseLoss,
    OrdinalSafety,
    Signals,
    Unified,
)
from tests.support.weighting import everything, t

BOX = kd.WeightPolytope(3, lower=0.1, upper=0.6)
F64 = JumpSearchSettings.for_dtype(torch.float64)


def along(function, B=1):
    """Look along the line from 0 to 1 itself."""
    return search_line(
        Line("x", lambda x_B: function(x_B).unsqueeze(-1), torch.ones(B, dtype=torch.float64)), False, F64
    )


# functions of one number ----------------------------------------------------------------------------------------------

JUMPS = {
    "a step": (lambda x: (x > 0.3).double(), 1.0),
    "a small step on a slope": (lambda x: 5 * x + 0.01 * (x > 0.711).double(), 0.01),
    "a step in a wave": (lambda x: torch.sin(9 * x) + 0.1 * (x > 0.123).double(), 0.1),
    "two steps": (lambda x: 0.2 * (x > 0.2).double() + 0.1 * (x > 0.8).double(), 0.2),
    "a pole": (lambda x: (1 / (x - 0.437)).clamp(-1, 1), 2.0),
}


@pytest.mark.parametrize("case", JUMPS)
def test_a_jump_is_found_with_its_height(case):
    function, height = JUMPS[case]
    look = along(function)
    assert look.jump_B.tolist() == [pytest.approx(height, rel=1e-3)]
    assert 0 < float(look.width_B) < 1e-12


CONTINUOUS = {
    "constant": (lambda x: 0 * x, 0.0),
    "a line": (lambda x: 3 * x, 3.0),
    "a kink": (lambda x: (x - 0.4).abs() * 2, 2.0),
    "a wave": (lambda x: torch.sin(9 * x), 9.0),
    "a steep ramp": (lambda x: (1e6 * (x - 0.437)).clamp(0, 1), 1e6),
    "a steeper ramp": (lambda x: (1e9 * (x - 0.437)).clamp(0, 1), 1e9),
}


@pytest.mark.parametrize("case", CONTINUOUS)
def test_what_is_lipschitz_has_no_jump_and_its_slope_is_found(case):
    function, slope = CONTINUOUS[case]
    look = along(function)
    assert look.jump_B.tolist() == [0.0]
    assert float(look.slope_B) == pytest.approx(slope, rel=0.05)
    assert not look.growing_B.any()


def test_a_root_is_continuous_and_its_slope_grows():
    look = along(lambda x: (x - 0.437).clamp_min(0) ** 0.25)
    assert look.jump_B.tolist() == [0.0]
    assert look.growing_B.all()


@pytest.mark.parametrize("where", [lambda x: x > 0.6, lambda x: x < 0.2, lambda x: (x - 0.5).abs() < 0.1])
def test_a_place_without_a_number_is_worse_than_any_jump(where):
    look = along(lambda x: torch.where(where(x), torch.nan, x))
    assert look.jump_B.isnan().all()


def test_a_hole_in_a_step_is_found():
    look = along(lambda x: torch.where((x > 0.437) & (x < 0.4371), torch.nan, (x > 0.437).double()))
    assert look.jump_B.isnan().all()


def test_rows_are_searched_side_by_side():
    height_B = t(0.0, 0.1, 0.2)
    look = along(lambda x: torch.arange(1.0, 4.0).double() * x + height_B * (x > t(0.3, 0.5, 0.9)).double(), B=3)
    assert look.jump_B.tolist() == pytest.approx([0.0, 0.1, 0.2], rel=1e-3)
    assert float(look.slope_B[0]) == pytest.approx(1)


def test_rows_that_look_at_each_other_move_together():
    def of_all(x_B):
        return (x_B.mean() > 0.3).double().expand(2).unsqueeze(-1)

    def of_all_and_own(x_B):
        """The first row jumps with the mean; the second is steepest elsewhere."""
        return torch.stack([(x_B.mean() > 0.3).double(), 0.1 * torch.sin(5 * (x_B[1] - 0.8))]).unsqueeze(-1)

    line = Line("x", of_all, torch.ones(2, dtype=torch.float64))
    assert search_line(Line("x", of_all_and_own, line.speed_B), True, F64).jump_B.tolist() == [1.0, 0.0]
    assert rows_interact(Line("x", lambda x_B: x_B.mean().expand(2).unsqueeze(-1), line.speed_B))
    assert not rows_interact(Line("x", lambda x_B: x_B.unsqueeze(-1), line.speed_B))
    assert search_line(line, True, F64).jump_B.tolist() == [1.0, 1.0]


# rules ----------------------------------------------------------------------------------------------------------------


def continuity(rule, signals=None, axiom="III.4", **more):
    signals = Signals(**everything(0)) if signals is None else signals
    return kd.audit(rule, signals, tries=2, **more)[axiom]


class MinNorm:
    """Two teachers, shortest point between their pulls in closed form, weights within [.4, .6]; pulls are p - p_s."""

    scale = "task"

    def __init__(self, ridge: float) -> None:
        self.ridge = ridge

    def __call__(self, signals):
        pull_KV = signals.student_log_p.exp().unsqueeze(-2) - signals.log_p.exp()
        one_V, other_V = pull_KV.unbind(-2)
        apart_V = one_V - other_V
        # stationary in a, weights (a, 1 - a): |d|^2 a + d.g_2 + 2 ridge (a - 1/2) = 0
        a = (self.ridge - (apart_V * other_V).sum(-1)) / (apart_V.square().sum(-1) + 2 * self.ridge)
        a = a.clamp(0.4, 0.6)
        return torch.stack([a, 1 - a], dim=-1)


def two_teachers():
    given = everything(1, K=2)
    return Signals(log_p=given["log_p"], student_log_p=given["student_log_p"])


def test_shortest_pulls_jump_without_a_ridge_from_point_four_to_point_six():
    finding = continuity(MinNorm(0.0), two_teachers(), "III.13")
    assert finding.status == "violated"
    assert finding.worst == pytest.approx(0.2, rel=1e-3)
    assert "changing places" in finding.evidence
    assert "ridge" in finding.remedy


@pytest.mark.parametrize("ridge", [1e-1, 1e-3, 1e-6])
def test_and_are_steep_but_continuous_with_one(ridge):
    finding = continuity(MinNorm(ridge), two_teachers(), "III.13")
    assert finding.status == "estimated"
    assert 1e-3 / ridge < finding.worst < 1e2 / ridge


def test_the_rule_that_ships_needs_its_ridge_too():
    given = everything(2, K=3)
    signals = Signals(log_p=given["log_p"], student_log_p=given["student_log_p"], task=given["task"])
    for ridge, status in [(0.0, "violated"), (1e-2, "estimated")]:
        report = kd.audit(GradientMinNorm(ridge=ridge), signals, vary=["log_p"], tries=1)
        assert report["III.13"].status == status


def test_projection_keeps_continuity_and_cannot_create_it():
    two = kd.WeightPolytope(2, 0.1, 0.9)
    assert continuity(Conforming(MinNorm(0.0), two), two_teachers(), "III.13").status == "violated"
    report = kd.audit(Unified(token=EntropyDecay(), task=MinNorm(0.0), polytope=two), two_teachers(), tries=1)
    assert report["III.4"].status == "estimated"  # the task rule is left out there
    assert {finding.axiom for finding in report.violated} == {"III.13", "U.4", "A2"}
    report = kd.audit(Unified(task=MinNorm(1e-2), polytope=two), two_teachers(), tries=1)
    assert report.holds()


class Threshold:
    """A teacher counts double as soon as it is sure enough: a step in entropy, no tie."""

    def __call__(self, signals):
        return 1.0 + (signals.entropy < signals.entropy.median()).to(signals.ones())


def test_a_threshold_is_caught():
    assert continuity(Threshold()).status == "violated"


@pytest.mark.parametrize(
    "rule", [EntropyDecay(3.0), Conforming(EntropyDecay(3.0), BOX, "kl")], ids=["raw", "conforming"]
)
def test_smooth_rules_pass(rule):
    finding = continuity(rule)
    assert finding.status == "estimated"
    assert finding.worst > 0.01
    assert finding.rows == 0


def test_the_slope_of_a_softmax_is_what_calculus_says():
    """Two teachers, w = sigmoid(d_2 - d_1), steepest where both are alike: 1/4 along each, sqrt(2)/4 together."""
    signals = Signals(distance=t([1.0, 1.1], [0.4, 0.5]))
    finding = continuity(DomainDistance(1.0), signals, "III.21")
    assert finding.worst == pytest.approx(2**0.5 / 4, rel=0.01)


def test_safety_stays_as_it_is_unless_asked_for():
    """An ordering must jump where two teachers' safety ties; continuity is asked for given orderings."""
    held = continuity(OrdinalSafety(), axiom="III.21")
    assert (held.status, held.worst) == ("estimated", 0.0)
    assert "held fixed: safety" in held.evidence
    assert continuity(OrdinalSafety(), axiom="III.21", vary=["safety"]).status == "violated"


def test_only_what_is_asked_for_moves():
    finding = continuity(EntropyDecay(), vary=["task_loss"])
    assert (finding.status, finding.worst) == ("estimated", 0.0)
    with pytest.raises(InvalidInput, match="`vary` names 'entropy', which the signals do not hold; they hold distance"):
        continuity(EntropyDecay(), vary=["entropy"])  # it follows from log_p


def test_readings_from_evidence_move_too():
    evidence = kd.weights.TeacherEvidence(t([0.1, 0.9, 0.5]), t([0.9, 0.8, 0.7]), torch.tensor([9]), "audit")
    signals = Signals(log_p=everything(0)["log_p"], evidence=evidence)
    finding = continuity(InverseLoss(), signals, "III.13")
    assert finding.worst > 0.1
    assert "task_loss" in finding.evidence


def test_a_reading_given_outright_does_not_follow_from_another():
    given = everything(0)
    signals = Signals(log_p=given["log_p"], entropy=torch.rand(4, 3, dtype=torch.float64))
    assert "(entropy moved)" in continuity(EntropyDecay(), signals).evidence
    assert "(log_p moved)" in continuity(EntropyDecay(), Signals(log_p=given["log_p"])).evidence


def test_looking_does_not_change_the_signals():
    signals = Signals(**everything(0))
    before = dict(vars(signals))
    kd.audit(Conforming(EntropyDecay(), BOX), signals, tries=1)
    assert all(vars(signals)[name] is value for name, value in before.items())


def test_float32_signals_are_searched_in_float64():
    given = {name: v.float() if v.is_floating_point() else v for name, v in everything(0).items()}
    finding = continuity(EntropyDecay(), Signals(**given))
    assert finding.status == "estimated"


class Learned(nn.Module):
    """A network of its own dtype, which float64 readings do not fit; dropout makes it random in training."""

    scale = "token"

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, signals):
        return self.dropout(self.linear(signals.entropy)).softmax(-1)


def test_a_network_is_judged_in_its_own_dtype_and_in_eval_mode():
    torch.manual_seed(0)
    rule = Learned()
    log_p = everything(0)["log_p"].float()
    for wrapped in (rule, Unified(token=rule, polytope=BOX)):
        assert continuity(wrapped, Signals(log_p=log_p)).status == "estimated"
    assert rule.training


def test_a_random_rule_is_no_function():
    report = kd.audit(lambda signals: torch.rand(signals.shape), Signals(**everything(0)), polytope=BOX)
    assert report["III.4"].status == report["A2"].status == "violated"
    assert "to the same signals differ" in report["III.4"].evidence


def test_a_refusal_along_the_way_is_told():
    def picky(signals):
        if bool((signals.distance < 0.01).any()):
            raise InvalidInput("`distance` is too small.")
        return signals.ones() / (1 + signals.distance)

    finding = continuity(picky, Signals(distance=torch.rand(4, 3, dtype=torch.float64) + 0.5))
    assert finding.status == "estimated"
    assert "the rule refused: `distance` is too small." in finding.evidence
