"""All weight to the teacher of a position's context or task, and what a polytope makes of it."""

from __future__ import annotations

import pytest
import torch

import safekd as kd
from safekd.errors import InvalidInput, MissingSignal
from safekd.weights import Conforming, Routed, Signals

CONTEXT = torch.tensor([0, 1, 2, 1])


def of_contexts(context, *shape, **more):
    return Signals(entropy=torch.rand(*shape, dtype=torch.float64), context=context, **more)


def test_each_context_has_its_teacher():
    scores = Routed([2, 0, 1])(of_contexts(CONTEXT, 4, 3))
    assert scores.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert scores.dtype == torch.float64


def test_each_task_has_its_teacher_at_all_its_positions():
    signals = Signals(entropy=torch.rand(2, 5, 3), task=torch.tensor([7, 0]))
    scores = Routed({7: 1, 0: 0, 9: 2}, by="task")(signals)
    assert (scores[0] == torch.tensor([0.0, 1, 0])).all()
    assert (scores[1] == torch.tensor([1.0, 0, 0])).all()


def test_a_position_that_does_not_count_is_uniform():
    mask = torch.tensor([True, False, True, True])
    scores = Routed({0: 0, 2: 1, 1: 1})(of_contexts(torch.tensor([0, 99, 2, 1]), 4, 2, mask=mask))
    assert scores.tolist() == [[1, 0], [0.5, 0.5], [0, 1], [0, 1]]


@pytest.mark.parametrize("lower", [0.0, 0.05, 0.2, 1 / 3])
def test_a_lower_bound_leaves_the_chosen_teacher_what_the_others_do_not_get(lower):
    rule = Conforming(Routed([2, 0, 1]), kd.WeightPolytope(3, lower=lower))
    w_BK = rule(of_contexts(CONTEXT, 4, 3))
    chosen = torch.tensor([2, 0, 1, 0]).unsqueeze(-1)
    torch.testing.assert_close(w_BK.gather(-1, chosen), torch.full((4, 1), 1 - 2 * lower, dtype=torch.float64))
    torch.testing.assert_close(w_BK.amin(-1), torch.full((4,), lower, dtype=torch.float64))


def test_an_upper_bound_spreads_what_the_chosen_teacher_may_not_have():
    rule = Conforming(Routed([0]), kd.WeightPolytope(3, upper=0.6))
    w_BK = rule(of_contexts(torch.tensor([0]), 1, 3))
    torch.testing.assert_close(w_BK, torch.tensor([[0.6, 0.2, 0.2]], dtype=torch.float64))


REFUSED = {
    "no table": (lambda: Routed([]), r"`table` of Routed is \[\]; wanted the number of the teacher of each context"),
    "a name": (lambda: Routed("ab"), "`table` of Routed is 'ab'"),
    "a number": (lambda: Routed(1), "`table` of Routed is 1; wanted"),
    "below zero": (lambda: Routed([0, -1]), r"`table` of Routed is \[0, -1\]"),
    "a share": (lambda: Routed({0: 0.5}), "`table` of Routed"),
    "by token": (lambda: Routed([0], by="token"), "`by` of Routed is 'token'; wanted 'context' or 'task'"),
    "an unknown context": (
        lambda: Routed([0, 1])(of_contexts(CONTEXT, 4, 3)),
        "Routed knows no teacher for context 2; add it to `table`",
    ),
    "a teacher that is not there": (
        lambda: Routed([0, 1, 5])(of_contexts(CONTEXT, 4, 3)),
        "sends context 2 to teacher 5, but there are only 3 teachers",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_routed_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        make()


def test_without_contexts_the_missing_signal_is_named():
    with pytest.raises(MissingSignal, match="pass `context`"):
        Routed([0, 1])(Signals(entropy=torch.rand(4, 2)))
