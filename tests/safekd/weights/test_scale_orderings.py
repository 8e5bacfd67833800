"""Orderings of a scale, circles between sources, and what is left where two scales disagree."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekd.errors import InvalidInput
from safekd.weights import ScaleOrderings
from safekd.weights.orderings import merge_orderings, reconcile_orderings, require_no_cycle
from solvers.polytope import WeightPolytope, closure, find_cycle


def follows(pairs, K: int) -> set[tuple[int, int]]:
    """Return everything that follows from pairs, by walking."""
    found = set(pairs)
    while more := {(i, m) for i, j in found for k, m in found if j == k} - found:
        found |= more
    return {(i, j) for i, j in found if i != j}


def test_pairs_of_one_context_come_on_top_of_those_everywhere():
    found = ScaleOrderings("context", 4, everywhere=[(0, 3)], by_group={2: [(1, 2), (0, 1)], 5: []})
    assert found.pairs() == ((0, 3),)
    assert found.pairs(2) == ((0, 1), (0, 3), (1, 2))
    assert found.pairs(5) == found.pairs(9) == ((0, 3),)
    assert found.numbers == (2, 5)


def test_equal_content_is_equal_and_hashes_alike():
    one = ScaleOrderings("token", 3, [(1, 2), (0, 1)], {1: [(0, 2)]})
    other = ScaleOrderings("token", 3, [(0, 1), (1, 2), (0, 1)], {np.int64(1): [(0, 2)]})
    assert one == other == replace(one)
    assert hash(one) == hash(other)
    assert one != ScaleOrderings("context", 3, [(0, 1), (1, 2)], {1: [(0, 2)]})


def test_several_sources_become_one():
    one = ScaleOrderings("token", 3, [(0, 1)], {0: [(1, 2)]})
    other = ScaleOrderings("token", 3, [(0, 2)], {4: [(2, 1)]})
    both = merge_orderings("token", [one, other])
    assert both.pairs() == ((0, 1), (0, 2))
    assert both.pairs(0) == ((0, 1), (0, 2), (1, 2))
    assert both.pairs(4) == ((0, 1), (0, 2), (2, 1))
    assert merge_orderings("token", [one]) == one


BAD = {
    "scale": (("task", 3), {}, "`scale` of orderings is 'task'; wanted 'token' or 'context'"),
    "index": (("token", 3), {"everywhere": [(0, 3)]}, "names teacher 3 in .*there are 3 teachers"),
    "number": (
        ("token", 3),
        {"by_group": {-1: [(0, 1)]}},
        "`by_group` names -1; wanted the number of a class or context",
    ),
    "word": (("token", 3), {"by_group": {"small": [(0, 1)]}}, "`by_group` names 'small'; wanted the number"),
    "circle": (
        ("token", 3),
        {"everywhere": [(0, 1), (1, 2), (2, 0)]},
        r"round in a circle: teacher 0 >= teacher 1 \(the token scale, everywhere\), teacher 1 >= teacher 2 \(the to",
    ),
    "circle with one context": (
        ("context", 3),
        {"everywhere": [(0, 1)], "by_group": {3: [(1, 0)]}},
        r"teacher 0 >= teacher 1 \(the context scale, everywhere\), teacher 1 >= teacher 0 \(the context scale, conte",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_orderings_that_are_refused(case):
    args, more, message = BAD[case]
    with pytest.raises(InvalidInput, match=message):
        ScaleOrderings(*args, **more)


def test_different_contexts_may_say_the_opposite():
    found = ScaleOrderings("context", 2, by_group={0: [(0, 1)], 1: [(1, 0)]})
    assert found.pairs(0) == ((0, 1),)
    assert found.pairs(1) == ((1, 0),)


def test_a_circle_is_spelled_out_with_every_source():
    with pytest.raises(InvalidInput) as caught:
        require_no_cycle([("here", ((0, 1), (2, 0))), ("there", ((1, 2), (2, 0)))], 3)
    assert str(caught.value) == (
        "The orderings contradict each other, they go round in a circle: teacher 0 >= teacher 1 (here), "
        "teacher 1 >= teacher 2 (there), teacher 2 >= teacher 0 (here and there). Take one of these pairs out."
    )


# where two scales disagree --------------------------------------------------------------------------------------------


def rankings(K: int):
    """Return every weak order of K teachers, as scores."""
    return list(product(range(K), repeat=K))


def strictly(scores) -> set[tuple[int, int]]:
    return {(i, j) for i, a in enumerate(scores) for j, b in enumerate(scores) if a > b}


def test_rankings_become_the_winners_with_its_ties_decided_by_the_loser():
    for won, lost in product(rankings(3), repeat=2):
        pairs, disagree = reconcile_orderings(tuple(strictly(won)), tuple(strictly(lost)), 3)
        assert set(pairs) == strictly(list(zip(won, lost, strict=True)))
        assert disagree == any((j, i) in strictly(lost) for i, j in strictly(won))


@st.composite
def orders(draw, K: int = 5):
    """Return pairs without circles: any pairs that go down in a drawn order."""
    order = draw(st.permutations(range(K)))
    places = draw(st.sets(st.tuples(st.integers(0, K - 1), st.integers(0, K - 1)), max_size=6))
    return tuple((order[i], order[j]) for i, j in places if i < j)


@given(winner=orders(), loser=orders())
def test_reconciled_orders(winner, loser):
    pairs, disagree = reconcile_orderings(winner, loser, 5)
    assert not find_cycle(pairs, 5)
    assert follows(winner, 5) <= set(pairs)
    assert set(pairs) <= follows(winner, 5) | follows(loser, 5)
    circle = bool(find_cycle(tuple({*winner, *loser}), 5))
    assert disagree == circle
    if not circle:
        assert follows(pairs, 5) == follows({*winner, *loser}, 5)
    opposite = {(j, i) for i, j in follows(winner, 5)}
    dropped = follows(loser, 5) - set(pairs)
    # what is dropped goes against the winner, or lies on a circle with what does not
    rest = follows(winner, 5) | (follows(loser, 5) - opposite)
    assert all(pair in opposite or (pair[1], pair[0]) in follows(rest, 5) for pair in dropped)


def test_a_circle_without_two_opposite_pairs_loses_all_that_the_loser_has_on_it():
    """0 > 1 and 2 > 3 against 1 > 2 and 3 > 0: no pair is contradicted, but the four go round."""
    pairs, disagree = reconcile_orderings(((0, 1), (2, 3)), ((1, 2), (3, 0)), 4)
    assert pairs == ((0, 1), (2, 3))
    assert disagree


def test_the_doors_of_the_polytope_package():
    assert find_cycle(((0, 1), (1, 0)), 2) == [0, 1, 0]
    assert find_cycle(((0, 1), (1, 2)), 3) == []
    assert np.argwhere(closure(((0, 1), (1, 2)), 3)).tolist() == [[0, 1], [0, 2], [1, 2]]
    assert WeightPolytope(3).ordered_by((2, 1, 1)).orderings == ((0, 1), (0, 2))
