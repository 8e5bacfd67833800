"""Three scales: bounds of the product, and orderings that contradict each other from the start."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safekd.errors import InfeasiblePolytope, InvalidInput
from safekd.weights import (
    Conforming,
    ScaleOrderings,
    Signals,
    Unified,
    Uniform,
    bound_product,
)
from solvers.polytope import WeightPolytope
from tests.support.weighting import BOX, says, t

# bounds of the product ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [1, 2, 3, 7])
@pytest.mark.parametrize(("a", "b"), [(0.1, 0.6), (0.05, 0.9), (0.0, 1.0), (0.125, 0.5)])
def test_three_scales_with_the_same_bounds(K, a, b):
    """a^3 / (a^3 + (K - 1) b^3) <= w <= b^3 / (b^3 + (K - 1) a^3)."""
    lower, upper = bound_product([((a,) * K, (b,) * K)] * 3)
    assert lower == pytest.approx([1.0 if K == 1 else a**3 / (a**3 + (K - 1) * b**3)] * K)
    assert upper == pytest.approx([b**3 / (b**3 + (K - 1) * a**3)] * K)


@given(seed=st.integers(0, 10**6), scales=st.integers(1, 3))
def test_bounds_of_the_product_are_those_at_the_corners(seed, scales):
    """Without the sums every corner of the boxes is possible, and the extremes are there: an independent look."""
    rng, K = np.random.default_rng(seed), 2 if scales == 3 else 3
    low_SK = rng.uniform(0.01, 0.3, size=(scales, K))
    high_SK = low_SK + rng.uniform(0, 0.7, size=(scales, K))
    lower, upper = bound_product([(tuple(a), tuple(b)) for a, b in zip(low_SK, high_SK, strict=True)])
    corners = [
        np.where(np.reshape(choice, (scales, K)), high_SK, low_SK).prod(0)
        for choice in product([0, 1], repeat=scales * K)
    ]
    share_CK = np.array([corner / corner.sum() for corner in corners])
    assert lower == pytest.approx(share_CK.min(0))
    assert upper == pytest.approx(share_CK.max(0))


def test_a_teacher_that_is_shut_out_at_one_scale():
    lower, upper = bound_product([((0.0, 0.5, 0.2), (0.0, 0.6, 0.5)), ((0.2, 0.2, 0.2), (0.6, 0.6, 0.6))])
    assert (lower[0], upper[0]) == (0, 0)
    assert lower[1] == pytest.approx(0.1 / (0.1 + 0.3))
    assert upper[1] == pytest.approx(0.36 / (0.36 + 0.04))


@given(seed=st.integers(0, 10**6))
def test_products_of_conforming_parts_keep_the_implied_bounds(seed):
    generator = torch.Generator().manual_seed(seed)
    own = [WeightPolytope(3, lower, upper) for lower, upper in ((0.1, 0.5), (0.05, 0.8), (0.2, 0.45))]
    raw = [torch.rand(30, 3, generator=generator, dtype=torch.float64) ** 4 for _ in own]
    parts = [Conforming(lambda signals, r=r: r, P) for r, P in zip(raw, own, strict=True)]
    unified = Unified(token=parts[0], task=parts[1], context=parts[2], polytope=BOX)
    lower, upper = unified.implied_bounds
    composed = unified.compose(Signals(entropy=raw[0]))
    assert (composed >= t(*lower) - 1e-12).all()
    assert (composed <= t(*upper) + 1e-12).all()
    assert unified.repair(Signals(entropy=raw[0])).bounds == (lower, upper)


def test_a_scale_that_is_left_out_or_uniform_changes_no_bounds():
    part = Conforming(says(0.5, 0.3, 0.2), WeightPolytope(3, 0.1, 0.6))
    alone = Unified(token=part, polytope=BOX).implied_bounds
    assert alone == Unified(token=part, task=Uniform(), polytope=BOX).implied_bounds
    assert alone[0] == pytest.approx([0.1 / (0.1 + 1.2)] * 3)
    assert Unified(task=Uniform(), polytope=BOX).implied_bounds == ((1 / 3,) * 3, (1 / 3,) * 3)


def test_parts_without_bounds_imply_none():
    part = Conforming(says(0.5, 0.3, 0.2), BOX)
    assert Unified(token=part, task=says(1.0, 1.0, 1.0), polytope=BOX).implied_bounds is None


def test_bounds_of_parts_that_are_unified_themselves():
    inner = Unified(token=says(0.5, 0.3, 0.2), polytope=WeightPolytope(3, 0.2, 0.5))
    assert Unified(token=inner, polytope=BOX).implied_bounds[1] == pytest.approx([0.5 / 0.9] * 3)


def test_the_trap_of_bounds_that_every_part_keeps():
    """Each scale says (.6, .3, .1) within [.1, .6]; the product is .885, far above .6, yet below its own bound."""
    part = Conforming(says(0.6, 0.3, 0.1), BOX)
    unified = Unified(token=part, task=part, context=part, polytope=BOX)
    report = unified.repair(Signals(entropy=torch.ones(1, 3, dtype=torch.float64)))
    assert float(report.composed.max()) == pytest.approx(0.216 / 0.244)
    assert not BOX.check(report.composed).holds()
    assert float(report.composed.max()) <= report.bounds[1][0] == pytest.approx(0.216 / 0.218)
    assert BOX.check(report.weights).holds()


def test_the_trap_is_the_rule_and_no_exception():
    """Token and context parts that keep 0 >= 1 >= 2 and every bound, any tasks: products often keep neither."""
    generator = torch.Generator().manual_seed(0)
    ordered = WeightPolytope(3, 0.1, 0.6, [(0, 1), (1, 2)])
    raw = [torch.rand(500, 3, generator=generator, dtype=torch.float64) ** 3 + 1e-6 for _ in range(3)]
    token, context = (Conforming(lambda signals, r=r: r, ordered) for r in raw[:2])
    unified = Unified(token=token, context=context, task=Conforming(lambda signals: raw[2], BOX), polytope=BOX)
    signals = Signals(entropy=raw[0])
    assert ordered.check(token(signals)).holds()
    assert ordered.check(context(signals)).holds()
    report = unified.repair(signals)
    against = (report.composed.diff(dim=-1) > 0).any(-1)
    clearly = (report.composed.diff(dim=-1) > 1e-9).any(-1)  # not by the rounding of what the parts made equal
    outside = ((report.composed < 0.1 - 1e-9) | (report.composed > 0.6 + 1e-9)).any(-1)
    assert clearly.double().mean() > 0.1
    assert outside.double().mean() > 0.2
    assert torch.equal(report.violations_before, against)
    assert ordered.check(report.weights).holds()
    assert (report.repaired >= (clearly | outside)).all()


# orderings that contradict each other from the start ------------------------------------------------------------------

CIRCLES = {
    "both given": (
        {"token_orderings": [(0, 1)], "context_orderings": [(1, 0)]},
        "teacher 0 >= teacher 1 (`token_orderings`), teacher 1 >= teacher 0 (`context_orderings`)",
    ),
    "three": (
        {"token_orderings": [(0, 1), (1, 2)], "context_orderings": [(2, 0)]},
        "teacher 0 >= teacher 1 (`token_orderings`), teacher 1 >= teacher 2 (`token_orderings`), "
        "teacher 2 >= teacher 0 (`context_orderings`)",
    ),
    "parts": (
        {
            "token": Conforming(Uniform(), WeightPolytope(3, orderings=[(0, 1)])),
            "context": Conforming(Uniform(), WeightPolytope(3, orderings=[(1, 2), (2, 0)])),
        },
        "teacher 0 >= teacher 1 (the polytope of the token rule), teacher 1 >= teacher 2 (the polytope of the context "
        "rule), teacher 2 >= teacher 0 (the polytope of the context rule)",
    ),
    "part and polytope": (
        {
            "context": Conforming(Uniform(), WeightPolytope(3, orderings=[(1, 0)])),
            "polytope": WeightPolytope(3, orderings=[(0, 1)]),
        },
        "teacher 0 >= teacher 1 (the polytope), teacher 1 >= teacher 0 (the polytope of the context rule)",
    ),
    "orderings that a part carries": (
        {
            "token": Conforming(Uniform(), BOX, orderings=ScaleOrderings("token", 3, [(0, 2)])),
            "context_orderings": ScaleOrderings("context", 3, [(2, 0)]),
        },
        "teacher 0 >= teacher 2 (`orderings` of the token rule), teacher 2 >= teacher 0 (`context_orderings`)",
    ),
    "one context and the polytope": (
        {
            "context_orderings": ScaleOrderings("context", 3, by_group={2: [(1, 0)]}),
            "polytope": WeightPolytope(3, orderings=[(0, 1)]),
        },
        "teacher 0 >= teacher 1 (the polytope), teacher 1 >= teacher 0 (the context scale, context 2)",
    ),
}


@pytest.mark.parametrize("case", CIRCLES)
@pytest.mark.parametrize("wins", ["context", "token"])
def test_static_contradictions_are_found_at_construction(case, wins):
    given_, message = CIRCLES[case]
    with pytest.raises(InvalidInput) as caught:
        Unified(**{"task": Uniform(), "polytope": BOX, "wins": wins, **given_})
    assert str(caught.value) == (
        f"The orderings contradict each other, they go round in a circle: {message}. Take one of these pairs out."
    )


def test_without_the_pair_in_question_it_can_be_built():
    rules = {"token_orderings": [(0, 1), (1, 2)], "context_orderings": [(0, 2)]}
    w_BK = Unified(task=says(0.2, 0.3, 0.5), polytope=BOX, **rules)(Signals(entropy=torch.ones(4, 3).double()))
    assert w_BK.tolist() == [pytest.approx([1 / 3] * 3)] * 4


def test_a_polytope_with_ties_takes_a_contradiction_as_equal_weights():
    tied = WeightPolytope(3, 0.1, 0.6, ties=True)
    unified = Unified(task=says(0.5, 0.1, 0.4), polytope=tied, token_orderings=[(0, 1)], context_orderings=[(1, 0)])
    report = unified.repair(Signals(entropy=torch.ones(1, 3, dtype=torch.float64)))
    assert report.weights.tolist() == [pytest.approx([0.3, 0.3, 0.4])]
    assert report.contradictions.tolist() == [True]


def test_conforming_refuses_orderings_against_its_polytope():
    orderings = ScaleOrderings("context", 3, by_group={1: [(2, 1)]})
    with pytest.raises(InvalidInput, match=r"teacher 1 >= teacher 2 \(the polytope\), .* context 1\)"):
        Conforming(Uniform(), WeightPolytope(3, orderings=[(1, 2)]), orderings=orderings)


REFUSED = {
    "teachers": (
        {"context_orderings": ScaleOrderings("context", 4, [(0, 1)])},
        "`context_orderings` are for 4 teachers, the polytope has 3; wanted equal",
    ),
    "scale": (
        {"token_orderings": ScaleOrderings("context", 3, [(0, 1)])},
        "`token_orderings` belong to the context scale; pass them as `context_orderings`",
    ),
    "wins": ({"wins": "task"}, "`wins` is 'task'; wanted 'context' or 'token'"),
    "part": (
        {"token": Conforming(Uniform(), WeightPolytope(4))},
        "The token rule is for 4 teachers, the polytope of Unified has 3; wanted equal",
    ),
    "index": ({"token_orderings": [(0, 7)]}, "names teacher 7"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_else_is_refused_at_construction(case):
    given_, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        Unified(**{"task": Uniform(), "polytope": BOX, **given_})


def test_orderings_that_leave_no_room_for_a_margin():
    wide = WeightPolytope(3, lower=0.2, upper=0.6, margin=0.15)
    with pytest.raises(InfeasiblePolytope):
        Unified(task=Uniform(), polytope=wide, token_orderings=[(0, 1)], context_orderings=[(1, 2)])
