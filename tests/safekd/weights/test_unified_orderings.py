"""Orderings of both safety-aware scales: who wins where they disagree, and pairs of teachers."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safekd.errors import InvalidInput, MissingSignal
from safekd.weights import (
    Conforming,
    ScaleOrderings,
    Signals,
    TeacherEvidence,
    Unified,
    Uniform,
    find_ordering_violations,
)
from solvers.polytope import WeightPolytope
from solvers.projection import project
from tests.support.weighting import BOX, says, scores, t

# orderings that contradict each other at some positions ---------------------------------------------------------------

TOKEN_SAYS, CONTEXT_SAYS = t([0.9, 0.5, 0.1]), t([0.1, 0.5, 0.5])  # 0 > 1 > 2 against 1 = 2 > 0
MASKS = {"critical_classes": [1], "critical_contexts": [1]}


def both_scales(**more) -> Signals:
    """Return four positions: critical by class and context, by class, by context, not at all."""
    return Signals(
        token_safety=TOKEN_SAYS.expand(4, 3),
        safety=CONTEXT_SAYS.expand(4, 3),
        labels=torch.tensor([1, 1, 0, 0]),
        context=torch.tensor([1, 0, 1, 0]),
        **{**MASKS, **more},
    )


def test_each_scale_holds_where_it_belongs_and_context_wins_where_they_meet():
    raw = says(0.2, 0.35, 0.45)
    report = Unified(task=raw, polytope=BOX).repair(both_scales())
    third = 1 / 3
    assert report.weights.tolist() == [
        pytest.approx([0.2, 0.4, 0.4]),  # context: 1 and 2 above 0; the token scale decides their tie: 1 above 2
        pytest.approx([third, third, third]),
        pytest.approx([0.2, 0.35, 0.45]),  # the context scale has nothing against 2 above 1
        pytest.approx([0.2, 0.35, 0.45]),
    ]
    assert report.contradictions.tolist() == [True, False, False, False]
    assert report.wins == "context"
    assert report.violations_before.tolist() == [True, True, False, False]
    assert not report.violations_after.any()


def test_the_token_scale_may_win():
    raw = says(0.2, 0.35, 0.45)
    report = Unified(task=raw, polytope=BOX, wins="token").repair(both_scales())
    assert report.weights[0].tolist() == pytest.approx([1 / 3] * 3)
    assert report.contradictions.tolist() == [True, False, False, False]
    assert "at 1 positions, the first is (0,): the token scale won" in str(report)


def test_scales_that_agree_do_not_contradict():
    signals = Signals(token_safety=t([0.9, 0.5, 0.5]), safety=t([0.7, 0.7, 0.1]))
    report = Unified(task=says(0.2, 0.35, 0.45), polytope=BOX).repair(signals)
    assert not report.contradictions.any()
    assert report.weights.tolist() == [pytest.approx([1 / 3] * 3)]  # 0 > 1, 0 > 2, 1 > 2
    assert "contradict" not in str(report)


@given(seed=st.integers(0, 10**6), wins=st.sampled_from(["context", "token"]))
def test_the_law_of_two_scales_by_scores(seed, wins):
    """The winner's order holds whole; the loser's holds whole wherever nothing is contradicted."""
    generator = torch.Generator().manual_seed(seed)
    B, K = 40, 4

    def draw():
        return torch.randint(4, (B, K), generator=generator).double()

    signals = Signals(
        token_safety=draw(),
        safety=draw(),
        labels=torch.randint(2, (B,), generator=generator),
        context=torch.randint(2, (B,), generator=generator),
        **MASKS,
    )
    raw = torch.rand(B, K, generator=generator, dtype=torch.float64) + 0.01
    box = WeightPolytope(K, 0.05, 0.6)
    report = Unified(task=lambda _: raw, polytope=box, wins=wins).repair(signals)
    on = {"token": signals.labels == 1, "context": signals.context == 1}
    safety = {"token": signals.token_safety, "context": signals.safety}
    expected = torch.tensor(
        [
            bool(on["token"][b] & on["context"][b])
            and any(
                safety["token"][b, i] > safety["token"][b, j] and safety["context"][b, i] < safety["context"][b, j]
                for i, j in product(range(K), repeat=2)
            )
            for b in range(B)
        ]
    )
    assert torch.equal(report.contradictions, expected)
    assert box.check(report.weights).holds()
    assert not find_ordering_violations(report.weights, safety[wins], on[wins]).any()
    for scale in ("token", "context"):
        assert not find_ordering_violations(report.weights, safety[scale], on[scale] & ~expected).any()
    assert not report.violations_after.any()
    for b in range(B):  # the nearest weights, by another solver
        pairs = {
            (i, j)
            for scale in ("token", "context")
            for i, j in product(range(K), repeat=2)
            if on[scale][b] and safety[scale][b, i] > safety[scale][b, j]
        }
        if not expected[b] and b % 10 == 0:
            nearest = project(report.composed[b], box.with_orderings(pairs), engine="cvxpy")
            torch.testing.assert_close(report.weights[b], nearest, atol=1e-6, rtol=0)


def test_one_mask_stands_for_both_scales():
    signals = Signals(
        token_safety=TOKEN_SAYS.expand(2, 3), safety=CONTEXT_SAYS.expand(2, 3), critical=torch.tensor([True, False])
    )
    assert Unified(task=Uniform(), polytope=BOX).repair(signals).contradictions.tolist() == [True, False]


def test_nothing_named_means_everywhere_for_both():
    signals = Signals(token_safety=TOKEN_SAYS.expand(2, 3), safety=CONTEXT_SAYS.expand(2, 3))
    assert Unified(task=Uniform(), polytope=BOX).repair(signals).contradictions.all()


def test_with_one_order_only_it_holds_at_all_critical_positions():
    """As before there was an order of the token scale: safety in the context orders critical classes too."""
    signals = Signals(
        safety=t([0.1, 0.5, 0.9]).expand(3, 3),
        labels=torch.tensor([1, 0, 0]),
        context=torch.tensor([0, 1, 0]),
        **MASKS,
    )
    w_BK = Unified(task=says(0.5, 0.3, 0.2), polytope=BOX)(signals)
    assert w_BK[:2].tolist() == [pytest.approx([1 / 3] * 3)] * 2
    assert w_BK[2].tolist() == pytest.approx([0.5, 0.3, 0.2])


def test_token_safety_by_class_from_evidence():
    evidence = TeacherEvidence(
        task_loss_MK=t([1.0, 1.0]),
        safety_CK=t([0.9, 0.1]),
        count_C=torch.tensor([5]),
        source="validation",
        safety_VK=t([0.5, 0.5], [0.2, 0.7]),
        count_V=torch.tensor([5, 5]),
    )
    log_p = torch.full((3, 2, 2), 0.5, dtype=torch.float64).log()
    signals = Signals(log_p=log_p, labels=torch.tensor([1, 0, -100]), evidence=evidence, critical_classes=[1])
    assert signals.token_safety[:2].tolist() == [[0.2, 0.7], [0.5, 0.5]]
    unified = Unified(task=says(0.6, 0.4), polytope=WeightPolytope(2))
    assert unified(signals).tolist() == [[0.5, 0.5], *[pytest.approx([0.6, 0.4])] * 2]
    assert evidence.to("cpu").safety_VK is not None
    # only contexts are critical: nobody asks for classes
    by_context = Signals(log_p=log_p, context=torch.tensor([0, 0, 0]), evidence=evidence, critical_contexts=[0])
    assert Unified(task=says(0.4, 0.6), polytope=WeightPolytope(2))(by_context).tolist() == [[0.5, 0.5]] * 3
    with pytest.raises(MissingSignal, match="safety by class is known; pass `labels`"):
        unified(Signals(log_p=log_p, evidence=evidence))
    with pytest.raises(MissingSignal, match=r"measure_teachers\(..., by_class=True\)"):
        _ = Signals(log_p=log_p, evidence=replace(evidence, safety_VK=None)).token_safety


# pairs ----------------------------------------------------------------------------------------------------------------


def test_pairs_of_single_contexts_and_classes():
    rules = {
        "token_orderings": ScaleOrderings("token", 3, by_group={1: [(2, 1)]}),
        "context_orderings": ScaleOrderings("context", 3, by_group={1: [(1, 0)], 2: [(0, 2)]}),
    }
    signals = Signals(
        entropy=torch.ones(5, 3, dtype=torch.float64),
        labels=torch.tensor([1, 1, 0, 0, 1]),
        context=torch.tensor([0, 1, 1, 2, 9]),
        critical_classes=[1],
        critical_contexts=[1, 2],
    )
    raw = says(0.5, 0.3, 0.2)
    w_BK = Unified(task=raw, polytope=BOX, **rules)(signals)
    third = 1 / 3
    assert w_BK.tolist() == [
        pytest.approx([0.5, 0.25, 0.25]),
        pytest.approx([third, third, third]),  # 2 >= 1 >= 0
        pytest.approx([0.4, 0.4, 0.2]),
        pytest.approx([0.5, 0.3, 0.2]),
        pytest.approx([0.5, 0.25, 0.25]),
    ]


def test_pairs_that_meet_at_a_position_only_are_told_there():
    """Class 1 says 0 >= 1, context 1 says 1 >= 0: only data say whether they meet."""
    rules = {
        "token_orderings": ScaleOrderings("token", 2, by_group={1: [(0, 1)]}),
        "context_orderings": ScaleOrderings("context", 2, by_group={1: [(1, 0)]}),
    }
    signals = Signals(
        entropy=torch.ones(2, 3, 2, dtype=torch.float64),
        labels=torch.tensor([[1, 0, 1], [1, 1, 0]]),
        context=torch.tensor([1, 0]),
        critical_classes=[1],
        critical_contexts=[1],
    )
    for wins, met in (("context", [0.5, 0.5]), ("token", [0.6, 0.4])):
        report = Unified(task=says(0.6, 0.4), polytope=WeightPolytope(2), wins=wins, **rules).repair(signals)
        assert report.contradictions.tolist() == [[True, False, True], [False, False, False]]
        assert report.weights[0].tolist() == [pytest.approx(met), [0.5, 0.5], pytest.approx(met)]
        assert report.weights[1].tolist() == [pytest.approx([0.6, 0.4])] * 3
        assert not report.violations_after.any()


def test_pairs_at_one_scale_and_scores_at_the_other():
    signals = both_scales()
    unified = Unified(task=says(0.2, 0.35, 0.45), polytope=BOX, token_orderings=[(0, 2)])
    report = unified.repair(signals)
    assert report.weights.tolist() == [
        pytest.approx([0.2, 0.35, 0.45]),  # the context scale: 1 and 2 above 0
        pytest.approx([0.325, 0.35, 0.325]),
        pytest.approx([0.2, 0.35, 0.45]),
        pytest.approx([0.2, 0.35, 0.45]),
    ]
    assert report.contradictions.tolist() == [True, False, False, False]
    silent = replace(unified, context_orderings=ScaleOrderings("context", 3))
    assert silent.repair(signals).weights[0].tolist() == pytest.approx([0.325, 0.35, 0.325])


@given(seed=st.integers(0, 10**6))
def test_the_two_ways_agree(seed):
    """Scores that depend on class and context only are pairs of classes and contexts."""
    rng = np.random.default_rng(seed)
    by_class, by_context = rng.integers(0, 3, size=(3, 4)) / 2, rng.integers(0, 3, size=(2, 4)) / 2
    labels, context = torch.tensor(rng.integers(0, 3, 30)), torch.tensor(rng.integers(0, 2, 30))
    raw = torch.tensor(rng.random((30, 4)) + 0.01)
    where = {"labels": labels, "context": context, "critical_classes": [0, 2], "critical_contexts": [1]}

    def pairs(scale, table):
        of = {g: [(i, j) for i, j in product(range(4), repeat=2) if row[i] > row[j]] for g, row in enumerate(table)}
        return ScaleOrderings(scale, 4, by_group=of)

    box = WeightPolytope(4, 0.05, 0.6)
    scored = Unified(task=lambda _: raw, polytope=box).repair(
        Signals(token_safety=torch.tensor(by_class)[labels], safety=torch.tensor(by_context)[context], **where)
    )
    paired = Unified(
        task=lambda _: raw,
        polytope=box,
        token_orderings=pairs("token", by_class),
        context_orderings=pairs("context", by_context),
    ).repair(Signals(entropy=raw, **where))
    assert torch.equal(scored.contradictions, paired.contradictions)
    assert torch.equal(scored.violations_before, paired.violations_before)
    torch.testing.assert_close(scored.weights, paired.weights, rtol=0, atol=1e-12)


def test_padding_is_no_class():
    rules = {"token_orderings": ScaleOrderings("token", 2, by_group={1: [(1, 0)]})}
    unified = Unified(task=says(0.6, 0.4), polytope=WeightPolytope(2), **rules)
    signals = Signals(entropy=torch.ones(3, 2, dtype=torch.float64), labels=torch.tensor([-100, 1, 5000]))
    assert unified(signals).tolist() == [pytest.approx([0.6, 0.4]), [0.5, 0.5], pytest.approx([0.6, 0.4])]


def test_three_sources_may_go_round_at_a_position():
    """The polytope says 0 >= 1, class 1 says 1 >= 2, context 1 says 2 >= 0: any two of them are fine."""
    rules = {
        "token_orderings": ScaleOrderings("token", 3, by_group={1: [(1, 2)]}),
        "context_orderings": ScaleOrderings("context", 3, by_group={1: [(2, 0)]}),
    }
    named = WeightPolytope(3, 0.1, 0.6, [(0, 1)])
    signals = Signals(
        entropy=torch.ones(3, 3, dtype=torch.float64),
        labels=torch.tensor([1, 1, 0]),
        context=torch.tensor([1, 0, 1]),
        **MASKS,
    )
    for wins, met in (("context", [0.3, 0.3, 0.4]), ("token", [1 / 3] * 3)):
        report = Unified(task=says(0.25, 0.35, 0.4), polytope=named, wins=wins, **rules).repair(signals)
        assert report.contradictions.tolist() == [True, False, False]
        assert report.weights.tolist() == [
            pytest.approx(met),  # the polytope has its way with either
            pytest.approx([1 / 3] * 3),
            pytest.approx([0.3, 0.3, 0.4]),
        ]
        assert not report.violations_after.any()


def test_orderings_of_conforming_parts_are_kept_by_the_repair():
    part = Conforming(says(0.4, 0.35, 0.25), WeightPolytope(3, orderings=[(0, 1), (1, 2)]))
    unified = Unified(token=part, context=part, task=says(0.2, 0.5, 0.3), polytope=BOX)
    report = unified.repair(Signals(entropy=torch.ones(1, 3, dtype=torch.float64)))
    assert report.composed.tolist() == [pytest.approx([0.286, 0.547, 0.167], abs=5e-4)]
    assert report.violations_before.all()
    assert report.weights.tolist() == [pytest.approx([0.41629, 0.41629, 0.16741], abs=5e-5)]
    assert not report.violations_after.any()


def test_conforming_with_orderings_of_its_own():
    orderings = ScaleOrderings("context", 3, by_group={1: [(2, 0)]})
    rule = Conforming(says(0.5, 0.3, 0.2), BOX, orderings=orderings)
    entropy = torch.ones(3, 3, dtype=torch.float64)
    signals = Signals(entropy=entropy, context=torch.tensor([0, 1, 1]), critical=torch.tensor([True, True, False]))
    w_BK = rule(signals)
    assert w_BK.tolist() == [
        pytest.approx([0.5, 0.3, 0.2]),
        pytest.approx([0.35, 0.3, 0.35]),
        pytest.approx([0.5, 0.3, 0.2]),
    ]
    with pytest.raises(MissingSignal, match=r"orderings of the context scale differ .*; pass `context`"):
        rule(Signals(entropy=entropy))


def test_orderings_of_the_polytope_come_on_top_of_those_of_a_scale():
    named = WeightPolytope(3, 0.1, 0.6, [(1, 0)])
    unified = Unified(
        task=says(0.5, 0.3, 0.2), polytope=named, context_orderings=ScaleOrderings("context", 3, [(2, 1)])
    )
    signals = Signals(
        entropy=torch.ones(3, 3, dtype=torch.float64),
        labels=torch.tensor([1, 0, 0]),
        context=torch.tensor([0, 1, 0]),
        safety=t([0.9, 0.5, 0.1]).expand(3, 3),
        **MASKS,
    )
    assert unified(signals).tolist() == [
        pytest.approx([1 / 3] * 3),  # alone in having an order, the context scale's holds at critical classes too
        pytest.approx([1 / 3] * 3),
        pytest.approx([0.5, 0.3, 0.2]),
    ]


@pytest.mark.parametrize("metric", ["euclidean", "kl"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairs_hold_to_the_last_bit_and_gradients_pass(metric, dtype):
    generator = torch.Generator().manual_seed(0)
    raw = (torch.rand(50, 3, generator=generator) + 0.05).to(dtype).requires_grad_()
    context = torch.randint(3, (50,), generator=generator)
    orderings = ScaleOrderings("context", 3, by_group={0: [(0, 1)], 1: [(1, 0), (1, 2)]})
    rule = Unified(task=lambda _: raw, polytope=BOX, context_orderings=orderings, metric=metric)
    w_BK = rule(Signals(entropy=raw.detach(), context=context))
    assert w_BK.dtype == dtype
    assert BOX.check(w_BK).holds()
    assert (w_BK[context == 0, 0] >= w_BK[context == 0, 1]).all()
    assert (w_BK[context == 1][:, [1]] >= w_BK[context == 1][:, [0, 2]]).all()
    (w_BK**2).sum().backward()
    assert torch.isfinite(raw.grad).all()
    assert (raw.grad != 0).any()


def test_no_positions():
    unified = Unified(task=lambda s: s.ones(), polytope=BOX, context_orderings=[(0, 1)])
    report = unified.repair(Signals(entropy=torch.ones(0, 3)))
    assert report.weights.shape == (0, 3)
    assert str(report) == "no positions"


BAD_SCORES = {
    "nan": ({"token_safety": t([0.5, float("nan"), 0.5])}, r"`token_safety` holds nan at position \(0,\), teacher 1"),
    "shape": ({"token_safety": t([0.5, 0.5])}, r"`token_safety` has shape \(1, 2\); wanted \(1, 3\)"),
}


@pytest.mark.parametrize("case", BAD_SCORES)
def test_scores_that_cannot_rank(case):
    given_, message = BAD_SCORES[case]
    with pytest.raises(InvalidInput, match=message):
        Unified(task=says(1.0, 1.0, 1.0), polytope=BOX)(Signals(entropy=t([1.0, 1.0, 1.0]), **given_))


def test_the_report_in_words():
    rows = scores([0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.2, 0.3, 0.5], [0.6, 0.35, 0.05])
    part = Conforming(says(1.0, 1.0, 1.0), BOX)
    text = str(Unified(token=rows, task=part, polytope=BOX).repair(both_scales()))
    assert text.startswith("3 of 4 positions repaired, moved by ")
    assert "orderings broken at 1 positions before, at 0 after" in text
    assert "token and context scale contradict each other at 1 positions, the first is (0,): the context scale" in text
    assert "the parts' bounds" not in text
    assert "keep the product within 0.07692 and 0.75" in str(Unified(task=part, polytope=BOX).repair(both_scales()))


def test_a_zero_in_the_kl_geometry_is_told_by_its_place_in_the_batch():
    rows = scores([0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.5, 0.0])
    orderings = ScaleOrderings("context", 3, by_group={0: [(0, 1)], 1: [(1, 0)]})
    rule = Conforming(rows, BOX, metric="kl", orderings=orderings)
    with pytest.raises(InvalidInput, match="`v` holds 0 at row 2, teacher 2; metric='kl' needs positive scores"):
        rule(Signals(entropy=torch.ones(3, 3, dtype=torch.float64), context=torch.tensor([0, 0, 1])))
