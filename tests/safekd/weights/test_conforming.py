"""Rules made conforming, three scales composed and repaired, and the judge of orderings."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safekd.errors import InvalidInput, MissingSignal, SafekdError
from safekd.weights import (
    Conforming,
    EntropyDecay,
    InverseLoss,
    OrdinalSafety,
    Signals,
    Unified,
    Uniform,
    find_ordering_violations,
)
from solvers.polytope import WeightPolytope

BOX = WeightPolytope(3, lower=0.1, upper=0.6)
METRICS = ["euclidean", "kl"]


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def says(*values):
    """Return a rule that gives these scores at every position."""
    return lambda signals: t(*values).expand(signals.shape)


def drawn(seed: int, B: int = 20, K: int = 3, **more) -> Signals:
    """Return random signals with safety scores, some of them tied, and about half of the positions critical."""
    generator = torch.Generator().manual_seed(seed)
    return Signals(
        log_p=torch.randn(B, K, 4, generator=generator, dtype=torch.float64).mul(2).log_softmax(-1),
        task_loss=torch.rand(B, K, generator=generator, dtype=torch.float64),
        safety=torch.randint(4, (B, K), generator=generator).double() / 3,
        critical=torch.rand(B, generator=generator) < 0.5,
        **more,
    )


ONE_CRITICAL = {"safety": t([0.9, 0.8, 0.1]), "critical": torch.tensor([True])}


# the composition trap -------------------------------------------------------------------------------------------------

TRAP = {"token": says(0.40, 0.35, 0.25), "context": says(0.40, 0.35, 0.25), "task": says(0.20, 0.50, 0.30)}


def test_the_product_breaks_an_ordering_that_both_safety_aware_scales_respect():
    """.40 .40 .20 = .032, .35 .35 .50 = .06125, .25 .25 .30 = .01875; teacher 0 was above 1 twice and ends below."""
    composed = Unified(**TRAP, polytope=BOX).compose(Signals(**ONE_CRITICAL))
    assert composed.tolist() == [pytest.approx([0.286, 0.547, 0.167], abs=5e-4)]
    assert find_ordering_violations(composed, ONE_CRITICAL["safety"], ONE_CRITICAL["critical"]).tolist() == [True]


def test_unified_repairs_it():
    """Pooling 0 and 1 at their mean is the nearest point that keeps 0 >= 1."""
    report = Unified(**TRAP, polytope=BOX).repair(Signals(**ONE_CRITICAL))
    assert report.weights.tolist() == [pytest.approx([0.41629, 0.41629, 0.16741], abs=5e-5)]
    assert report.violations_before.tolist() == [True]
    assert report.violations_after.tolist() == [False]
    assert report.repaired_fraction == 1
    half_gap = (report.composed[0, 1] - report.composed[0, 0]) / 2
    assert float(report.distance) == pytest.approx(float(half_gap) * 2**0.5)


def test_the_product_breaks_bounds_that_every_scale_respects():
    """.6 .6 .6 = .216 against .3 .3 .3 = .027: .216 / .244 = .885 passes the cap of .6."""
    rules = {scale: says(0.6, 0.3, 0.1) for scale in ("token", "task", "context")}
    unified = Unified(**rules, polytope=BOX)
    signals = Signals(entropy=torch.ones(1, 3, dtype=torch.float64))
    assert unified.compose(signals).tolist() == [pytest.approx([0.216 / 0.244, 0.027 / 0.244, 0.001 / 0.244])]
    w_BK = unified(signals)
    assert BOX.check(w_BK).holds()
    assert w_BK[0, 0] == 0.6


def test_clipping_and_renormalizing_would_not_do():
    """What the projection is for: (.97, .02, .01) clipped into [.1, .6] and divided by the sum gives .75."""
    raw = t([0.97, 0.02, 0.01])
    clipped = raw.clamp(0.1, 0.6)
    assert not BOX.check(clipped / clipped.sum()).holds()
    assert BOX.check(Conforming(says(0.97, 0.02, 0.01), BOX)(Signals(entropy=raw))).holds()


# laws -----------------------------------------------------------------------------------------------------------------

RULES = {
    "conforming": lambda P, metric: Conforming(EntropyDecay(2.0), P, metric),
    "conforming task": lambda P, metric: Conforming(InverseLoss(), P, metric),
    "unified": lambda P, metric: Unified(
        token=EntropyDecay(2.0), task=InverseLoss(), context=OrdinalSafety(), polytope=P, metric=metric
    ),
    "unified token": lambda P, metric: Unified(token=EntropyDecay(), polytope=P, metric=metric),
}
each_rule = pytest.mark.parametrize("kind", RULES)
each_metric = pytest.mark.parametrize("metric", METRICS)


@each_rule
@each_metric
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_weights_conform(kind, metric, seed, dtype):
    """Bounds to the last bit everywhere, orderings at critical positions, sums to rounding: axioms III.1-3, III.5."""
    signals = drawn(seed)
    signals = Signals(
        log_p=signals.log_p.to(dtype),
        task_loss=signals.task_loss.to(dtype),
        safety=signals.safety.to(dtype),
        critical=signals.critical,
    )
    w_BK = RULES[kind](BOX, metric)(signals)
    assert w_BK.dtype == dtype
    assert BOX.check(w_BK, safety=signals.safety, critical=signals.critical).holds()
    assert not find_ordering_violations(w_BK, signals.safety, signals.critical).any()


@each_rule
@each_metric
@given(seed=st.integers(0, 10**6))
def test_renaming_teachers_renames_weights(kind, metric, seed):
    one = drawn(seed, K=4)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    other = Signals(
        log_p=one.log_p[:, order], task_loss=one.task_loss[:, order], safety=one.safety[:, order], critical=one.critical
    )
    rule = RULES[kind](WeightPolytope(4, 0.05, 0.6), metric)
    torch.testing.assert_close(rule(other), rule(one)[:, order], rtol=1e-9, atol=1e-12)


@each_rule
def test_the_same_signals_give_the_same_weights_twice(kind):
    """Whatever was looked at in between: reading ``critical`` must not make it count as named."""
    signals = drawn(0)
    unnamed = Signals(log_p=signals.log_p, task_loss=signals.task_loss, safety=signals.safety)
    rule = RULES[kind](BOX, "euclidean")
    first = rule(unnamed)
    assert not unnamed.critical.any()
    assert torch.equal(rule(unnamed), first)
    assert not find_ordering_violations(first, signals.safety, torch.ones(20, dtype=torch.bool)).any()


def test_weights_that_conform_are_left_alone():
    w_K = t(0.5, 0.3, 0.2)
    assert Conforming(says(5.0, 3.0, 2.0), BOX)(Signals(entropy=w_K)).tolist() == pytest.approx(w_K.tolist())


def test_positions():
    signals = Signals(
        log_p=torch.randn(2, 5, 3, 4, dtype=torch.float64).log_softmax(-1),
        safety=torch.rand(2, 5, 3, dtype=torch.float64),
        labels=torch.tensor([[0, 1, 0, 2, 1], [1, 1, 0, 0, 2]]),
        critical_classes=[0],
    )
    w_BTK = Conforming(EntropyDecay(3.0), BOX)(signals)
    assert w_BTK.shape == (2, 5, 3)
    assert BOX.check(w_BTK, safety=signals.safety, critical=signals.labels == 0).holds()


@pytest.mark.parametrize("kind", ["conforming", "unified"])
def test_gradients_pass_through(kind):
    logits = drawn(1).log_p.clone().requires_grad_()
    given_ = drawn(1)
    signals = Signals(log_p=logits.log_softmax(-1), task_loss=given_.task_loss, safety=given_.safety)
    (RULES[kind](BOX, "euclidean")(signals) ** 2).sum().backward()
    assert torch.isfinite(logits.grad).all()


# where orderings apply ------------------------------------------------------------------------------------------------

AGAINST = says(0.2, 0.3, 0.5)  # the opposite of safety (.9, .8, .1)
SAFETY = t([0.9, 0.8, 0.1], [0.9, 0.8, 0.1])
FIRST = torch.tensor([True, False])


def test_orderings_hold_at_critical_positions_only():
    w_BK = Conforming(AGAINST, BOX)(Signals(safety=SAFETY, critical=FIRST))
    assert w_BK[0].tolist() == pytest.approx([1 / 3] * 3)
    assert w_BK[1].tolist() == pytest.approx([0.2, 0.3, 0.5])


def test_orderings_hold_everywhere_if_nothing_is_named_critical():
    w_BK = Conforming(AGAINST, BOX)(Signals(safety=SAFETY))
    assert w_BK.tolist() == [pytest.approx([1 / 3] * 3)] * 2
    report = Unified(token=AGAINST, polytope=BOX).repair(Signals(safety=SAFETY))
    assert report.violations_before.tolist() == [True, True]
    assert report.violations_after.tolist() == [False, False]


def test_without_safety_or_with_ordered_off_only_the_box_counts():
    for rule, signals in (
        (Conforming(AGAINST, BOX), Signals(entropy=SAFETY)),
        (Conforming(AGAINST, BOX, ordered=False), Signals(safety=SAFETY)),
    ):
        assert rule(signals).tolist() == [pytest.approx([0.2, 0.3, 0.5])] * 2


def test_orderings_of_the_polytope_come_before_safety_scores():
    named = WeightPolytope(3, 0.1, 0.6, [(2, 0)])
    w_BK = Conforming(says(0.5, 0.3, 0.2), named)(Signals(safety=SAFETY, critical=FIRST))
    assert w_BK[0].tolist() == pytest.approx([0.35, 0.3, 0.35])
    assert w_BK[1].tolist() == pytest.approx([0.5, 0.3, 0.2])


def test_critical_classes_without_labels_are_told():
    signals = Signals(safety=SAFETY, critical_classes=[0])
    with pytest.raises(MissingSignal, match="pass `labels`"):
        Conforming(AGAINST, BOX)(signals)


def test_the_scale_is_that_of_the_rule_inside():
    assert Conforming(EntropyDecay(), BOX).scale == "token"
    assert Conforming(InverseLoss(), BOX).scale == "task"
    assert Conforming(OrdinalSafety(), BOX).scale == "context"
    assert Conforming(AGAINST, BOX).scale == "any"


# composition ----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6))
def test_the_product_by_hand(seed):
    signals = drawn(seed)
    token, task, context = (rule(signals) for rule in (EntropyDecay(), InverseLoss(), OrdinalSafety()))
    product = token * task * context
    unified = Unified(token=EntropyDecay(), task=InverseLoss(), context=OrdinalSafety(), polytope=BOX)
    torch.testing.assert_close(unified.compose(signals), product / product.sum(-1, keepdim=True))


@pytest.mark.parametrize("scale", ["token", "task", "context"])
def test_a_missing_scale_is_uniform(scale):
    signals, wide = drawn(0), WeightPolytope(3)
    rules = {"token": EntropyDecay(), "task": InverseLoss(), "context": OrdinalSafety()}
    without = {name: rule for name, rule in rules.items() if name != scale}
    uniform = Unified(**{**rules, scale: Uniform()}, polytope=wide)
    torch.testing.assert_close(Unified(**without, polytope=wide).compose(signals), uniform.compose(signals))


def test_a_single_scale_is_that_rule():
    signals = drawn(0)
    expected = Conforming(EntropyDecay(), BOX)(signals)
    for scale in ("token", "task", "context"):
        torch.testing.assert_close(Unified(**{scale: EntropyDecay()}, polytope=BOX)(signals), expected)


def test_tiny_scores_do_not_underflow():
    """(1e-200)^3 is 0 in floats; in logs the shares stay 3/4 and 1/4 of what is left."""
    tiny = {"token": says(1.0, 1e-200), "task": says(1e-200, 1.0), "context": says(3e-250, 1e-250)}
    signals = Signals(entropy=torch.ones(2, dtype=torch.float64))
    assert Unified(**tiny, polytope=WeightPolytope(2)).compose(signals).tolist() == pytest.approx([0.75, 0.25])


def test_the_size_of_scores_does_not_matter():
    signals, wide = Signals(entropy=torch.ones(2, dtype=torch.float64)), WeightPolytope(2)
    for size in (1e-300, 1e-6, 1.0, 1e300):
        unified = Unified(token=says(3 * size, size), task=says(size, size), polytope=wide)
        assert unified(signals).tolist() == pytest.approx([0.75, 0.25])


def test_the_report_when_nothing_has_to_move():
    report = Unified(token=Uniform(), polytope=BOX).repair(drawn(0))
    assert report.repaired_fraction == 0
    assert (report.distance < 1e-12).all()
    assert not report.violations_before.any()


def test_the_report_counts_what_moved():
    rows = t([0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.4, 0.4, 0.2], [0.6, 0.35, 0.05])
    report = Unified(token=lambda signals: rows, polytope=BOX).repair(Signals(entropy=torch.ones(4, 3).double()))
    assert report.repaired_fraction == 0.5
    assert (report.distance > 1e-9).tolist() == [False, True, False, True]
    expected = (report.weights - report.composed).square().sum(-1).sqrt()
    torch.testing.assert_close(report.distance, expected)
    assert float(report.distance[1]) == pytest.approx((0.3**2 + 0.15**2 + 0.15**2) ** 0.5)
    assert not report.violations_before.any()
    assert not report.violations_after.any()


@given(seed=st.integers(0, 10**6))
def test_the_report_tells_violations_before_from_after(seed):
    signals = drawn(seed, B=40)
    report = RULES["unified"](BOX, "euclidean").repair(signals)
    torch.testing.assert_close(report.weights, RULES["unified"](BOX, "euclidean")(signals))
    assert not report.violations_after.any()
    assert not (report.violations_before & ~signals.critical).any()
    assert (report.distance[report.violations_before] > 0).all()


# refusals -------------------------------------------------------------------------------------------------------------

SCORES = {
    "nan": (
        says(0.5, float("nan"), 0.5),
        r"gave scores \[0.5, nan, 0.5\] at position \(0,\); wanted finite scores of at",
    ),
    "inf": (says(0.5, float("inf"), 0.5), r"gave scores \[0.5, inf, 0.5\]"),
    "negative": (says(0.5, -0.1, 0.6), r"gave scores \[0.5, -0.1, 0.6\]"),
    "all zero": (says(0.0, 0.0, 0.0), "not all 0. Check the teachers' outputs there"),
    "shape": (lambda signals: t(1.0, 2.0), r"gave scores of shape \(2,\); wanted \(2, 3\), \(..., teachers\)"),
}


@pytest.mark.parametrize("case", SCORES)
def test_scores_that_are_refused(case):
    rule, message = SCORES[case]
    signals = Signals(entropy=torch.ones(2, 3, dtype=torch.float64))
    with pytest.raises(InvalidInput, match=message):
        Conforming(rule, BOX)(signals)
    with pytest.raises(InvalidInput, match=f"task rule.*{message}"):
        Unified(task=rule, polytope=BOX)(signals)


def test_a_broken_teacher_does_not_pass_for_a_certain_one():
    log_p_KV = t([0.5, 0.5], [0.9, 0.1], [float("nan"), 0.5]).log()
    with pytest.raises(InvalidInput, match=r"EntropyDecay gave scores \[.*nan"):
        Conforming(EntropyDecay(), BOX)(Signals(log_p=log_p_KV))


def test_scales_that_leave_nobody():
    unified = Unified(token=says(1.0, 0.0), task=says(0.0, 1.0), polytope=WeightPolytope(2))
    with pytest.raises(InvalidInput, match=r"At position \(0,\) every teacher has weight 0 at some scale.*lower > 0"):
        unified(Signals(entropy=torch.ones(3, 2, dtype=torch.float64)))


def test_no_scale_at_all():
    with pytest.raises(InvalidInput, match=r"Unified has no scale; give at least one of token=, task=, context="):
        Unified(polytope=BOX)


def test_a_polytope_of_another_number_of_teachers():
    with pytest.raises(InvalidInput, match="the polytope has 3 teachers"):
        Conforming(Uniform(), BOX)(Signals(entropy=torch.ones(5, 4)))


def test_an_unknown_metric():
    with pytest.raises(InvalidInput, match="`metric` must be one of 'euclidean', 'kl'; found 'l1'"):
        Conforming(Uniform(), BOX, metric="l1")(Signals(entropy=torch.ones(5, 3)))


def test_a_zero_score_in_the_kl_geometry_is_told():
    with pytest.raises(SafekdError, match="metric='kl' needs positive scores"):
        Conforming(says(0.5, 0.5, 0.0), BOX, metric="kl")(Signals(entropy=torch.ones(1, 3, dtype=torch.float64)))


# the judge ------------------------------------------------------------------------------------------------------------

JUDGED = {
    "in order": (t(0.5, 0.3, 0.2), False),
    "tied weights": (t(0.4, 0.4, 0.2), False),
    "against": (t(0.3, 0.5, 0.2), True),
    "by one ulp": (t(0.4, 0.4 + 2**-54, 0.2), True),
    "last pair": (t(0.5, 0.2, 0.3), True),
    "nan": (t(float("nan"), 0.3, 0.2), True),
    "all nan": (t(float("nan"), float("nan"), float("nan")), True),
}


@pytest.mark.parametrize("case", JUDGED)
def test_the_judge_can_say_no(case):
    w_K, wrong = JUDGED[case]
    assert bool(find_ordering_violations(w_K, t(0.9, 0.8, 0.1), torch.tensor(True))) is wrong
    assert not bool(find_ordering_violations(w_K, t(0.9, 0.8, 0.1), torch.tensor(False)))


def test_equal_safety_says_nothing():
    assert not bool(find_ordering_violations(t(0.1, 0.9), t(0.5, 0.5), torch.tensor(True)))


def test_a_weight_that_is_no_number_is_wrong_even_between_equals():
    assert bool(find_ordering_violations(t(float("nan"), 0.9), t(0.5, 0.5), torch.tensor(True)))


@given(seed=st.integers(0, 10**6))
def test_the_judge_agrees_with_looking_at_every_pair(seed):
    signals = drawn(seed, B=10, K=4)
    w_BK = torch.randint(4, (10, 4), generator=torch.Generator().manual_seed(seed)).double()
    expected = [
        bool(critical) and any(s[i] > s[j] and w[i] < w[j] for i in range(4) for j in range(4))
        for w, s, critical in zip(w_BK.tolist(), signals.safety.tolist(), signals.critical, strict=True)
    ]
    assert find_ordering_violations(w_BK, signals.safety, signals.critical).tolist() == expected
