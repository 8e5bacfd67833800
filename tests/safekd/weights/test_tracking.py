"""Weights that follow changing signals: the contraction, the bound on the lag, and that weights conform meanwhile."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safekd.errors import InvalidInput, MissingSignal
from safekd.weights import (
    Conforming,
    EntropyDecay,
    ScaleOrderings,
    Signals,
    Tracking,
    Unified,
    find_ordering_violations,
)
from solvers.polytope import WeightPolytope
from solvers.projection import project

BOX = WeightPolytope(3, lower=0.1, upper=0.6)


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


class Given:
    """A rule that gives the signals' entropies as scores, so that a test says what is asked for."""

    scale = "token"

    def __call__(self, signals: Signals) -> torch.Tensor:
        return signals.entropy


def asks(*rows, **more) -> Signals:
    return Signals(entropy=t(*rows), **more)


def test_the_recursion_by_hand():
    """Inside the bounds nothing is projected: .5 (.4, .3, .3) + .5 (.2, .4, .4) = (.3, .35, .35)."""
    rule = Tracking(Given(), BOX, beta=0.5)
    assert rule(asks([0.4, 0.3, 0.3])).tolist() == [pytest.approx([0.4, 0.3, 0.3])]  # starts at the first target
    assert rule(asks([0.2, 0.4, 0.4])).tolist() == [pytest.approx([0.3, 0.35, 0.35])]
    assert rule(asks([0.2, 0.4, 0.4])).tolist() == [pytest.approx([0.25, 0.375, 0.375])]
    report = rule.report()
    assert report.steps_G.tolist() == [3]
    assert report.contraction == rule.contraction == 0.5
    assert report.lag_G.tolist() == pytest.approx([math.sqrt(0.05**2 + 2 * 0.025**2)])
    jump = math.sqrt(0.2**2 + 2 * 0.1**2)
    assert report.bound_G.tolist() == pytest.approx([0.25 * jump])
    assert report.shrinkage_G.tolist() == pytest.approx([0.5])
    assert report.drift_G.tolist() == pytest.approx([0.0])


def test_scores_are_normalized_averaged_over_the_group_and_projected():
    rule = Tracking(Given(), BOX, beta=1.0)
    w_BK = rule(asks([9.0, 0.5, 0.5], [1.4, 0.3, 0.3]))
    asked = (t(0.9, 0.05, 0.05) + t(0.7, 0.15, 0.15)) / 2
    assert w_BK.tolist() == [project(asked, BOX).tolist()] * 2


# the bound ------------------------------------------------------------------------------------------------------------


def run(beta: float, path, start=None, ordered=None) -> tuple[Tracking, list[float], list[float], list[torch.Tensor]]:
    """Follow a path of scores; return the rule, the lags, the promised lags and the targets."""
    rule = Tracking(Given(), BOX, beta=beta, start=start)
    lags, bounds, targets = [], [], []
    for n, row in enumerate(path):
        safety = None if ordered is None else ordered[n].unsqueeze(0)
        rule(Signals(entropy=row.unsqueeze(0), safety=safety))
        report = rule.report()
        lags.append(float(report.lag_G))
        bounds.append(float(report.bound_G))
        targets.append(rule.target_GK[0].clone())
    return rule, lags, bounds, targets


@given(
    seed=st.integers(0, 10**6),
    beta=st.sampled_from([0.01, 0.1, 0.5, 0.9, 1.0]),
    started=st.booleans(),
    ordered=st.booleans(),
)
def test_the_lag_never_exceeds_the_bound(seed, beta, started, ordered):
    """Whatever the path: wild jumps, targets on the bounds, orderings that change from step to step."""
    generator = torch.Generator().manual_seed(seed)
    path = torch.rand(25, 3, generator=generator, dtype=torch.float64) ** 4 + 1e-3
    safety = torch.randint(3, (25, 3), generator=generator).double() if ordered else None
    rule, lags, bounds, targets = run(beta, path, start=(0.6, 0.3, 0.1) if started else None, ordered=safety)
    for n, (row, target) in enumerate(zip(path, targets, strict=True)):
        expected = project(row / row.sum(), BOX, safety=None if safety is None else safety[n])
        torch.testing.assert_close(target, expected)
    first = float((project(t(0.6, 0.3, 0.1), BOX) - targets[0]).norm()) if started else 0.0
    for n in range(25):  # the sum of the docstring, term by term
        promised = (1 - beta) ** (n + 1) * first + sum(
            (1 - beta) ** (n - i + 1) * float((targets[i] - targets[i - 1]).norm()) for i in range(1, n + 1)
        )
        assert bounds[n] == pytest.approx(promised, abs=1e-12)
        assert lags[n] <= bounds[n] + 1e-12
    assert float(rule.report().shrinkage_G) <= rule.contraction + 1e-6


def test_a_bound_that_is_too_small_would_show():
    """The law above can fail: at some steps the lag is all that is promised."""
    _, lags, bounds, _ = run(0.2, [t(0.4, 0.3, 0.3)] * 3 + [t(0.2, 0.4, 0.4)] * 5)
    assert lags[3:] == pytest.approx(bounds[3:])
    assert lags[3] > 0.1


@given(seed=st.integers(0, 10**6), beta=st.sampled_from([0.05, 0.3, 0.8]))
def test_two_starts_come_together_at_the_contraction_factor(seed, beta):
    generator = torch.Generator().manual_seed(seed)
    path = torch.rand(10, 3, generator=generator, dtype=torch.float64) ** 3 + 1e-3
    one, other = (Tracking(Given(), BOX, beta=beta, start=start) for start in ((0.6, 0.3, 0.1), (0.1, 0.3, 0.6)))
    apart = float((one.state_GK - other.state_GK).norm())
    for row in path:
        one(asks(row.tolist())), other(asks(row.tolist()))
        now = float((one.state_GK - other.state_GK).norm())
        assert now <= (1 - beta) * apart + 1e-12
        apart = now


def test_a_standing_target_is_reached_geometrically():
    _, lags, _, _ = run(0.25, [t(0.9, 0.05, 0.05)] * 80, start=(0.1, 0.3, 0.6))
    assert all(later <= 0.75 * lag + 1e-15 for lag, later in pairwise(lags))
    assert lags[-1] < 1e-9


@pytest.mark.parametrize("beta", [0.05, 0.2, 0.7])
def test_a_slow_drift_is_followed_at_a_bounded_distance(beta):
    """A target that moves by at most d a step is followed within d (1 - beta) / beta."""
    turns = torch.arange(600) * 0.02
    path = torch.stack([2 + turns.sin(), 2 + (turns + 2).sin(), 2 + (turns + 4).sin()], -1).double()
    _, lags, bounds, targets = run(beta, path)
    drift = max(float((b - a).norm()) for a, b in pairwise(targets))
    limit = drift * (1 - beta) / beta
    assert max(lags) <= max(bounds) <= limit + 1e-12
    assert max(lags) > limit / 3  # the bound is of the right size


def test_a_jump_is_forgotten_geometrically():
    before, after = t(0.5, 0.3, 0.2), t(0.2, 0.3, 0.5)
    _, lags, bounds, _ = run(0.3, [before] * 20 + [after] * 20)
    jump = float((after - before).norm())
    assert lags[19] < 1e-12
    for n in range(20):
        assert lags[20 + n] <= 0.7 ** (n + 1) * jump + 1e-12
        assert bounds[20 + n] == pytest.approx(0.7 ** (n + 1) * jump)


def test_the_lag_and_the_noise_pull_in_opposite_directions():
    """Around a standing target the weights keep about beta / (2 - beta) of the scatter, as the docstring says."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.02 * torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    path = t(0.35, 0.35, 0.3) + noise - noise.mean(-1, keepdim=True)
    for beta in (0.1, 0.5):
        rule = Tracking(Given(), BOX, beta=beta)
        kept = []
        for row in path:
            rule(Signals(entropy=row.unsqueeze(0)))
            kept.append(rule.state_GK[0].clone())
        ratio = float(torch.stack(kept)[100:].var(0).sum() / path.var(0).sum())
        assert ratio == pytest.approx(beta / (2 - beta), rel=0.15)


# groups ---------------------------------------------------------------------------------------------------------------


def test_each_context_has_its_own_weights():
    rule = Tracking(Given(), BOX, beta=0.5, groups=3)
    rows = [[0.5, 0.3, 0.2], [0.3, 0.5, 0.2], [0.5, 0.3, 0.2]]
    w_BK = rule(asks(*rows, context=torch.tensor([2, 0, 2])))
    assert w_BK.tolist() == [pytest.approx(row) for row in rows]
    rule(asks([0.2, 0.3, 0.5], context=torch.tensor([0])))
    report = rule.report()
    assert report.steps_G.tolist() == [2, 0, 1]
    assert report.lag_G.isnan().tolist() == [False, True, False]
    assert rule.state_GK[0].tolist() == pytest.approx([0.25, 0.4, 0.35])
    assert rule.state_GK[2].tolist() == pytest.approx([0.5, 0.3, 0.2])
    assert str(report).splitlines()[0] == "contraction factor 0.5"
    assert len(str(report).splitlines()) == 5


@pytest.mark.parametrize(("by", "name"), [("context", "context"), ("task", "task")])
def test_groups_by_context_or_task(by, name):
    rule = Tracking(Given(), BOX, beta=0.5, by=by, groups=2)
    with pytest.raises(MissingSignal, match=f"keeps weights for 2 {name}s; pass `{name}` to tell them apart"):
        rule(asks([0.5, 0.3, 0.2]))
    with pytest.raises(InvalidInput, match=f"A position has {name} 2, but Tracking keeps weights for {name} 0 to 1"):
        rule(asks([0.5, 0.3, 0.2], **{by: torch.tensor([2])}))
    rule(asks([0.5, 0.3, 0.2], **{by: torch.tensor([1])}))
    assert rule.report().steps_G.tolist() == [0, 1]


def test_one_vector_for_all():
    rule = Tracking(Given(), BOX, beta=0.5, by=None)
    w_BK = rule(asks([0.5, 0.3, 0.2], [0.3, 0.5, 0.2], context=torch.tensor([7, 9])))
    assert w_BK.tolist() == [pytest.approx([0.4, 0.4, 0.2])] * 2


def test_positions_belong_to_their_sequence():
    entropy = torch.rand(2, 4, 3, dtype=torch.float64) + 0.1
    rule = Tracking(Given(), BOX, beta=1.0, groups=2)
    w_BTK = rule(Signals(entropy=entropy, context=torch.tensor([1, 0])))
    shares = entropy / entropy.sum(-1, keepdim=True)
    for b in range(2):
        expected = project(shares[b].mean(0), BOX)
        torch.testing.assert_close(w_BTK[b], expected.expand(4, 3))


# conforming -----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_weights_conform_at_every_step(seed, dtype):
    """Bounds to the last bit in the signals' own type, orderings at critical positions, while everything moves."""
    generator = torch.Generator().manual_seed(seed)
    rule = Tracking(EntropyDecay(3.0), BOX, beta=0.3, groups=2)
    for _ in range(4):
        context = torch.randint(2, (12,), generator=generator)
        by_context = torch.randint(3, (2, 3), generator=generator).to(dtype)
        signals = Signals(
            entropy=torch.rand(12, 3, generator=generator).to(dtype),
            context=context,
            labels=torch.randint(2, (12,), generator=generator),
            safety=by_context[context],
            critical_classes=[1],
            critical_contexts=[1],
        )
        w_BK = rule(signals)
        assert w_BK.dtype == dtype
        assert BOX.check(w_BK, safety=signals.safety, critical=signals.critical).holds()
        assert not find_ordering_violations(w_BK, signals.safety, signals.critical).any()


def test_the_state_of_a_critical_context_keeps_its_order():
    rule = Tracking(Given(), BOX, beta=0.5, groups=2)
    signals = asks(
        [0.2, 0.3, 0.5],
        [0.2, 0.3, 0.5],
        context=torch.tensor([0, 1]),
        safety=t([0.9, 0.5, 0.1]).expand(2, 3),
        critical_contexts=[1],
    )
    rule(signals)
    assert rule.state_GK.tolist() == [pytest.approx([0.2, 0.3, 0.5]), pytest.approx([1 / 3] * 3)]


def test_orderings_of_contexts_replace_scores():
    orderings = ScaleOrderings("context", 3, by_group={1: [(0, 2)]})
    rule = Tracking(Given(), BOX, beta=0.5, groups=2, orderings=orderings)
    w_BK = rule(asks([0.2, 0.3, 0.5], [0.2, 0.3, 0.5], context=torch.tensor([0, 1]), safety=t([0.1, 0.9, 0.5])))
    assert w_BK.tolist() == [pytest.approx([0.2, 0.3, 0.5]), pytest.approx([0.35, 0.3, 0.35])]


def test_rules_that_conform_can_be_tracked():
    inner = Unified(token=Given(), task=Conforming(Given(), BOX), polytope=BOX)
    rule = Tracking(inner, BOX, beta=0.5)
    signals = asks([0.5, 0.3, 0.2])
    torch.testing.assert_close(rule(signals), inner(signals))
    assert rule.bounds == inner.bounds
    assert rule.scale == "any"
    assert Tracking(EntropyDecay(), BOX, beta=0.5).scale == "token"


# a module -------------------------------------------------------------------------------------------------------------


def test_evaluation_leaves_the_state_alone():
    rule = Tracking(Given(), BOX, beta=0.5)
    assert rule.eval()(asks([0.5, 0.3, 0.2])).tolist() == [pytest.approx([0.5, 0.3, 0.2])]  # never seen: its target
    assert rule.report().steps_G.tolist() == [0]
    rule.train()(asks([0.5, 0.3, 0.2]))
    assert rule.eval()(asks([0.2, 0.3, 0.5])).tolist() == [pytest.approx([0.5, 0.3, 0.2])]
    assert rule.report().steps_G.tolist() == [1]


def test_a_saved_state_goes_on_bit_for_bit():
    path = torch.rand(10, 1, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.01
    one = Tracking(Given(), BOX, beta=0.3)
    for row in path[:5]:
        one(Signals(entropy=row))
    other = Tracking(Given(), BOX, beta=0.3)
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    for row in path[5:]:
        assert torch.equal(one(Signals(entropy=row)), other(Signals(entropy=row)))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("start", [None, (0.6, 0.3, 0.1)])
def test_reset_forgets_everything(start):
    rule = Tracking(Given(), BOX, beta=0.3, start=start)
    fresh = {name: value.clone() for name, value in rule.state_dict().items()}
    rule(asks([0.2, 0.3, 0.5]))
    rule(asks([0.5, 0.3, 0.2]))
    assert any(not torch.equal(value, fresh[name]) for name, value in rule.state_dict().items())
    rule.reset()
    assert all(torch.equal(value, fresh[name]) for name, value in rule.state_dict().items())


def test_gradients_flow_through_the_present_batch_only():
    rule = Tracking(Given(), BOX, beta=0.25)
    first, second = (torch.tensor([[0.4, 0.3, 0.3]], dtype=torch.float64, requires_grad=True) for _ in range(2))
    rule(Signals(entropy=first))
    rule(Signals(entropy=second))[0, 0].backward()
    assert first.grad is None
    # w = .75 w_0 + .25 x / sum(x), nothing clipped: d w_0 / d x = .25 ((1, 0, 0) - .4)
    assert second.grad.tolist() == [pytest.approx([0.25 * 0.6, -0.25 * 0.4, -0.25 * 0.4])]


def test_no_positions_change_nothing():
    rule = Tracking(Given(), BOX, beta=0.25)
    assert rule(Signals(entropy=torch.ones(0, 3))).shape == (0, 3)
    assert rule.report().steps_G.tolist() == [0]


BAD = {
    "beta 0": ({"beta": 0.0}, r"`beta` of Tracking is 0.0; wanted a share above 0 and at most 1"),
    "beta 2": ({"beta": 2.0}, "`beta` of Tracking is 2.0"),
    "beta nan": ({"beta": float("nan")}, "`beta` of Tracking is nan"),
    "beta true": ({"beta": True}, "`beta` of Tracking is True"),
    "by": ({"beta": 0.5, "by": "class"}, "`by` of Tracking is 'class'; wanted 'context', 'task' or None"),
    "groups": ({"beta": 0.5, "groups": 0}, "`groups` of Tracking is 0; wanted how many contexts there are, at least 1"),
    "groups of one": ({"beta": 0.5, "by": None, "groups": 2}, "`groups` of Tracking is 2; .* just 1 with by=None"),
    "start": ({"beta": 0.5, "start": (0.5, 0.5)}, "the polytope has 3 teachers"),
    "orderings": (
        {"beta": 0.5, "orderings": ScaleOrderings("context", 4)},
        "`orderings` are for 4 teachers, the polytope has 3",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_settings_that_are_refused(case):
    given_, message = BAD[case]
    with pytest.raises(InvalidInput, match=message):
        Tracking(Given(), BOX, **given_)
