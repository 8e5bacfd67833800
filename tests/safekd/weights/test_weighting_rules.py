"""Rules that score teachers, each against its formula worked by hand and at its limits."""

from __future__ import annotations

import math

import cvxpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from safekd.errors import InvalidInput, MissingSignal
from safekd.weights import (
    Confidence,
    Conforming,
    Disagreement,
    DomainDistance,
    EntropyComplement,
    EntropyDecay,
    EntropyInverse,
    GradientAlignment,
    GradientMinNorm,
    InverseLoss,
    InverseVariance,
    MinDivergence,
    Normalized,
    OrdinalSafety,
    PerformanceSoftmax,
    SafetyBlend,
    Signals,
    Uniform,
    WeightRule,
    family_a,
    family_b,
    family_c,
    looks_at_student,
    needs_labels,
)
from solvers import WeightPolytope
from tests.support.weighting import everything, of_teachers, t


def shares(rule, **signals):
    """Return the rule's scores divided by their sum, as lists."""
    score = rule(Signals(**signals))
    return (score / score.sum(-1, keepdim=True)).tolist()


ALL = {
    "Uniform": Uniform(),
    "EntropyDecay": EntropyDecay(2.0),
    "EntropyInverse": EntropyInverse(),
    "EntropyComplement": EntropyComplement(),
    "InverseVariance": InverseVariance(),
    "Disagreement": Disagreement(2.0),
    "Confidence": Confidence(),
    "SafetyBlend": SafetyBlend(1.0, 2.0),
    "InverseLoss": InverseLoss(),
    "PerformanceSoftmax": PerformanceSoftmax(),
    "GradientAlignment": GradientAlignment(2.0, 0.5),
    "GradientMinNorm": GradientMinNorm(0.1),
    "OrdinalSafety": OrdinalSafety(2.0),
    "DomainDistance": DomainDistance(2.0),
    "MinDivergence": MinDivergence(2.0),
}
each_rule = pytest.mark.parametrize("name", ALL)

BY_HAND = {
    "Uniform": (Uniform(), {"entropy": t(0.1, 5.0, 0.3, 9.0)}, [0.25] * 4),
    "EntropyDecay": (EntropyDecay(1.0), {"entropy": t(0.0, math.log(2), math.log(4))}, [4 / 7, 2 / 7, 1 / 7]),
    "EntropyDecay rate 2": (EntropyDecay(2.0), {"entropy": t(0.0, math.log(2))}, [0.8, 0.2]),
    "EntropyDecay rate 0": (EntropyDecay(0.0), {"entropy": t(0.0, 7.0)}, [0.5, 0.5]),
    "EntropyInverse": (EntropyInverse(1e-12), {"entropy": t(1.0, 0.5, 0.25)}, [1 / 7, 2 / 7, 4 / 7]),
    "EntropyInverse eps": (EntropyInverse(1.0), {"entropy": t(0.0, 1.0)}, [2 / 3, 1 / 3]),
    "InverseLoss": (InverseLoss(1e-12), {"task_loss": t(0.1, 0.2, 0.4)}, [4 / 7, 2 / 7, 1 / 7]),
    "InverseLoss eps": (InverseLoss(0.1), {"task_loss": t(0.1, 0.3)}, [2 / 3, 1 / 3]),
    "OrdinalSafety": (OrdinalSafety(), {"safety": t(0.9, 0.1, 0.5)}, [3 / 6, 1 / 6, 2 / 6]),
    "OrdinalSafety power 2": (OrdinalSafety(2.0), {"safety": t(0.9, 0.1, 0.5)}, [9 / 14, 1 / 14, 4 / 14]),
    "OrdinalSafety power 0": (OrdinalSafety(0.0), {"safety": t(0.9, 0.1)}, [0.5, 0.5]),
    "OrdinalSafety ties": (OrdinalSafety(), {"safety": t(0.5, 0.9, 0.5, 0.1)}, [2 / 8, 3 / 8, 2 / 8, 1 / 8]),
    "OrdinalSafety all tied": (OrdinalSafety(5.0), {"safety": t(0.5, 0.5, 0.5)}, [1 / 3] * 3),
    "EntropyComplement": (EntropyComplement(), {"entropy": t(1.0, 1.0, 2.0)}, [3 / 8, 3 / 8, 2 / 8]),
    "EntropyComplement of two": (EntropyComplement(), {"entropy": t(1.0, 3.0)}, [3 / 4, 1 / 4]),
    "EntropyComplement, all certain": (EntropyComplement(), {"entropy": t(0.0, 0.0, 0.0)}, [1 / 3] * 3),
    "EntropyComplement, one clueless": (EntropyComplement(), {"entropy": t(0.0, 0.0, 2.0)}, [0.5, 0.5, 0.0]),
    "InverseVariance": (InverseVariance(0.5), {"variance": t(0.5, 0.0)}, [1 / 3, 2 / 3]),
    "InverseVariance, one erratic": (InverseVariance(), {"variance": t(0.0, 1e9)}, [1.0, 0.0]),
    "Disagreement": (Disagreement(1.0), {"disagreement": t(0.0, math.log(2), math.log(4))}, [4 / 7, 2 / 7, 1 / 7]),
    "Disagreement, one far": (Disagreement(1e9), {"disagreement": t(0.5, 0.5, 0.7)}, [0.5, 0.5, 0.0]),
    "Confidence": (Confidence(), {"cross_entropy": t(0.0, math.log(3))}, [3 / 4, 1 / 4]),
    "Confidence of three": (Confidence(), {"cross_entropy": t(0.0, math.log(3), 0.0)}, [2 / 5, 1 / 5, 2 / 5]),
    "Confidence, one terrible": (Confidence(), {"cross_entropy": t(0.0, 1e9, 0.0)}, [0.5, 0.0, 0.5]),
    "SafetyBlend": (SafetyBlend(1.0, 1.0), {"entropy": t(0.0, 0.0), "safety": t(math.log(2), 0.0)}, [2 / 3, 1 / 3]),
    "SafetyBlend, unsure": (SafetyBlend(2.0, 0.0), {"entropy": t(0.0, math.log(2)), "safety": t(0.0, 1.0)}, [0.8, 0.2]),
    "PerformanceSoftmax": (PerformanceSoftmax(1.0), {"performance": t(math.log(2), 0.0)}, [2 / 3, 1 / 3]),
    "PerformanceSoftmax, sharp": (PerformanceSoftmax(0.5), {"performance": t(math.log(2), 0.0)}, [4 / 5, 1 / 5]),
    "DomainDistance": (DomainDistance(1.0), {"distance": t(5.0, 5.0 + math.log(2))}, [2 / 3, 1 / 3]),
    "DomainDistance, all far": (DomainDistance(1.0), {"distance": t(1e9, 1e9)}, [0.5, 0.5]),
    "all certain": (EntropyInverse(), {"entropy": t(0.0, 0.0)}, [0.5, 0.5]),
    "one certain": (EntropyInverse(), {"entropy": t(0.0, 1.0)}, [1.0, 0.0]),
    "one terrible": (InverseLoss(), {"task_loss": t(0.1, 1e9)}, [1.0, 0.0]),
    "one perfect": (InverseLoss(1e-3), {"task_loss": t(0.0, 0.999)}, [1000 / 1001, 1 / 1001]),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_by_hand(case):
    rule, signals, expected = BY_HAND[case]
    assert shares(rule, **signals) == pytest.approx(expected, abs=1e-9)


@each_rule
def test_one_teacher_has_all_the_weight(name):
    assert shares(ALL[name], **everything(0, K=1)) == [[1.0]] * 4


@each_rule
def test_equal_teachers_weigh_alike(name):
    same = of_teachers(everything(0), torch.tensor([1, 1, 1]))
    assert torch.tensor(shares(ALL[name], **same)).numpy() == pytest.approx(1 / 3, abs=1e-9)


@each_rule
@given(seed=st.integers(0, 10**6))
def test_renaming_teachers_renames_weights(name, seed):
    given_ = everything(seed, K=4)
    given_["safety"] = given_["safety"].mul(3).round()  # with ties
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    expected = ALL[name](Signals(**given_))[:, order]
    torch.testing.assert_close(ALL[name](Signals(**of_teachers(given_, order))), expected, atol=1e-8, rtol=1e-8)
    assert (expected >= 0).all()
    assert (expected.sum(-1) > 0).all()


@each_rule
def test_a_rule_says_what_it_looks_at(name):
    """It works with what ``needs`` names and nothing else, and misses each of it but what is optional."""
    rule, all_of_it = ALL[name], everything(3)
    assert isinstance(rule, WeightRule)
    optional = {"task", "critical"}
    named = {need: value for need, value in _readings(all_of_it).items() if need in rule.needs}
    template = {} if named.keys() - optional else {"entropy": torch.ones(4, 3).double()}
    expected = rule(Signals(**all_of_it))
    torch.testing.assert_close(rule(Signals(**named, **template)), expected)
    for gone in named.keys() - optional:
        rest = {need: value for need, value in named.items() if need != gone}
        with pytest.raises(MissingSignal):
            rule(Signals(**rest, **_stand_in(gone)))


def _readings(given_):
    signals = Signals(**given_)
    worked_out = {name: getattr(signals, name) for name in ("entropy", "cross_entropy", "variance", "disagreement")}
    return {**given_, **worked_out}


def _stand_in(gone):
    """Something that tells how many teachers there are, other than what has gone."""
    return {"distance": torch.ones(4, 3)} if gone != "distance" else {"performance": torch.ones(4, 3)}


@pytest.mark.parametrize("wrap", [Normalized, lambda rule: Conforming(rule, WeightPolytope(3))])
def test_a_wrapper_says_what_the_rule_inside_says(wrap):
    for rule in (EntropyDecay(), OrdinalSafety()):
        wrapped = wrap(rule)
        assert isinstance(wrapped, WeightRule)
        assert (wrapped.scale, wrapped.needs, wrapped.continuous) == (rule.scale, rule.needs, rule.continuous)
    assert not wrap(lambda signals: signals.ones()).continuous  # nobody says so


def test_weights_as_a_rule_wants_them():
    assert Normalized(EntropyInverse(1.0))(Signals(entropy=t(0.0, 1.0))).tolist() == pytest.approx([2 / 3, 1 / 3])


def test_which_rules_need_labels_or_the_student():
    assert {name for name, rule in ALL.items() if needs_labels(rule)} == {"Confidence", "GradientAlignment"}
    looking = {name for name, rule in ALL.items() if looks_at_student(rule)}
    assert looking == {"GradientAlignment", "GradientMinNorm", "MinDivergence"}


@pytest.mark.parametrize("rate", [1.0, 1e3, 1e6])
def test_no_rate_makes_every_teacher_vanish(rate):
    """exp(-1000 log 10) is 0 in floats for all teachers; what counts is the difference."""
    even = torch.full((2, 3, 10), -math.log(10))
    assert EntropyDecay(rate)(Signals(log_p=even)).tolist() == [[1.0] * 3] * 2


@given(seed=st.integers(0, 10**6))
def test_ordinal_safety_is_the_dense_rank(seed):
    safety = torch.randint(4, (6, 5), generator=torch.Generator().manual_seed(seed)) / 3
    expected = rankdata(safety.numpy(), method="dense", axis=-1)
    assert OrdinalSafety()(Signals(safety=safety)).tolist() == expected.tolist()


@given(seed=st.integers(0, 10**6))
def test_ordinal_safety_sees_the_order_only(seed):
    safety = torch.rand(6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.equal(OrdinalSafety(3.0)(Signals(safety=safety)), OrdinalSafety(3.0)(Signals(safety=safety**5 / 9)))


def test_safety_on_the_token_comes_before_safety_in_the_context():
    scores = {"safety": t(1.0, 0.0), "token_safety": t(0.0, math.log(2))}
    assert SafetyBlend()(Signals(entropy=t(0.0, 0.0), **scores)).tolist() == pytest.approx([1 / 3, 2 / 3])


def test_safety_counts_at_critical_positions_only():
    signals = Signals(
        entropy=torch.zeros(2, 2), safety=t(math.log(2), 0.0).expand(2, 2), critical=torch.tensor([True, False])
    )
    assert SafetyBlend()(signals).numpy() == pytest.approx(np.array([[2 / 3, 1 / 3], [0.5, 0.5]]))


# --- disagreement


def test_disagreement_averages_to_the_jensen_shannon_divergence():
    """Entropy of the mean less mean of the entropies, at positions with certain and with impossible classes too."""
    p_BKV = torch.stack([t([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]), t([0.2, 0.3, 0.5], [0.7, 0.3, 0.0])])
    signals = Signals(log_p=p_BKV.log())
    entropy = lambda p: -torch.xlogy(p, p).sum(-1)  # noqa: E731
    expected_B = entropy(p_BKV.mean(1)) - entropy(p_BKV).mean(-1)
    torch.testing.assert_close(signals.disagreement.mean(-1), expected_B, rtol=0, atol=1e-12)
    assert signals.disagreement[0].tolist() == pytest.approx([math.log(2)] * 2)


def test_teachers_that_say_the_same_disagree_by_nothing():
    same = torch.randn(50, 1, 7, generator=torch.Generator().manual_seed(0)).log_softmax(-1).expand(50, 3, 7)
    signals = Signals(log_p=same)
    assert 0 <= signals.disagreement.min() <= signals.disagreement.max() < 1e-6


# --- pulls


def pulls(*teachers, student=(0.5, 0.5), label=0, **others):
    return Signals(log_p=t(*teachers).log(), student_log_p=t(*student).log(), labels=torch.tensor(label), **others)


def test_alignment_by_hand():
    """The label pulls from (.5, .5) to (1, 0): one teacher with it, one against it, one not at all."""
    weights = GradientAlignment()(pulls([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]))
    assert weights.tolist() == pytest.approx(torch.softmax(t(1.0, -1.0, 0.0), -1).tolist())


def test_alignment_is_of_the_task_not_of_the_position():
    """Two positions of one task, whose pulls add up: the teacher is right by .5 at one, wrong by .1 at the other."""
    log_p_BKV = t([[1.0, 0.0], [0.5, 0.5]], [[0.4, 0.6], [0.5, 0.5]]).log()
    signals = Signals(log_p=log_p_BKV, student_log_p=t([0.5, 0.5], [0.5, 0.5]).log(), labels=torch.tensor([0, 0]))
    cosine = 2 * (0.5 * 0.5 - 0.1 * 0.5) / math.sqrt((2 * 0.25 + 2 * 0.01) * 4 * 0.25)
    assert GradientAlignment()(signals).numpy() == pytest.approx(torch.softmax(t(cosine, 0.0), -1).expand(2, 2).numpy())


def test_the_shortest_pull_by_hand():
    """A (-.5, .5) + (1 - a) (.25, -.25) = 0 at a = 1/3; a cap on the other teacher holds it at .6."""
    signals = pulls([1.0, 0.0], [0.25, 0.75])
    assert GradientMinNorm(ridge=0.0)(signals).tolist() == pytest.approx([1 / 3, 2 / 3])
    assert GradientMinNorm(ridge=0.0, cap=0.6)(signals).tolist() == pytest.approx([0.4, 0.6])
    assert GradientMinNorm(ridge=1e6)(signals).tolist() == pytest.approx([0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize(("ridge", "jumps"), [(0.0, True), (1e-2, False)])
def test_the_shortest_pull_jumps_without_a_ridge(ridge, jumps):
    """Two teachers that all but agree: which is shorter is decided by next to nothing."""
    there, back = (pulls([0.8, 0.2], [0.8 + step, 0.2 - step]) for step in (1e-7, -1e-7))
    moved = (GradientMinNorm(ridge)(there) - GradientMinNorm(ridge)(back)).abs().max()
    assert bool(moved > 0.9) == jumps
    assert jumps or moved < 1e-4


@settings(max_examples=20)
@given(seed=st.integers(0, 10**4), strength=st.sampled_from([0.1, 1.0, 10.0]))
def test_the_nearest_mixture_is_cvxpys(seed, strength):
    signals = Signals(**everything(seed, B=2))
    expected_BK = []
    for p_KV, s_V in zip(signals.log_p.exp().numpy(), signals.student_log_p.exp().numpy(), strict=True):
        w_K = cvxpy.Variable(3)
        cost = cvxpy.sum(cvxpy.kl_div(w_K @ p_KV, s_V)) - cvxpy.sum(cvxpy.entr(w_K)) / strength
        problem = cvxpy.Problem(cvxpy.Minimize(cost), [cvxpy.sum(w_K) == 1])
        problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
        expected_BK.append(w_K.value)
    assert MinDivergence(strength)(signals).numpy() == pytest.approx(np.array(expected_BK), abs=1e-5)


REFUSED = {
    "rate": (lambda: EntropyDecay(-1.0), "`rate` of EntropyDecay is -1.0; it must be at least 0 and finite"),
    "nan": (lambda: DomainDistance(float("nan")), "`rate` of DomainDistance is nan"),
    "eps": (
        lambda: InverseVariance(0.0),
        "it must be above 0 and finite, or a teacher that never varies divides by zero",
    ),
    "temperature": (lambda: PerformanceSoftmax(0.0), "`temperature` of PerformanceSoftmax is 0.0; it must be above 0"),
    "strength": (lambda: MinDivergence("much"), "`strength` of MinDivergence is 'much'"),
    "ridge": (lambda: GradientMinNorm(-1e-9), "`ridge` of GradientMinNorm"),
    "cap": (
        lambda: GradientMinNorm(cap=0.2)(pulls([1.0, 0.0], [0.5, 0.5])),
        "`cap` of GradientMinNorm is 0.2; 2 teachers need at least 0.5 to sum to 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_setting_out_of_range_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        make()


# --- families


@pytest.mark.parametrize("family", [family_a, family_b, family_c])
@pytest.mark.parametrize("metric", ["euclidean", "kl"])
def test_a_family_conforms_whatever_its_parts_say(family, metric):
    polytope = WeightPolytope(3, lower=0.1, upper=0.6)
    signals = Signals(**everything(5, B=200))
    report = family(polytope, metric=metric).repair(signals)
    assert polytope.check(report.weights).holds()
    assert report.violations_before.any()
    assert not report.violations_after.any()


def test_families_differ():
    """Theorem V.2: the axioms do not settle the weights."""
    polytope, signals = WeightPolytope(3, lower=0.1, upper=0.6), Signals(**everything(5))
    a, b, c = (family(polytope)(signals) for family in (family_a, family_b, family_c))
    assert min((a - b).abs().max(), (b - c).abs().max(), (a - c).abs().max()) > 0.05
