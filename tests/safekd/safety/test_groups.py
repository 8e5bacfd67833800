"""Mixes of groups, worst mixes, budgets, one constraint each: against hand-made averages, cvxpy and closed forms."""

from __future__ import annotations

import math

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from safekd.data import Split
from safekd.errors import InvalidInput
from safekd.safety import (
    Average,
    Ball,
    Budget,
    ChiSquareBall,
    KLBall,
    OneMinusBrier,
    Recall,
    SafetyConstraint,
    TruthProbability,
    betting_lower_bound,
    certify,
    clopper_pearson_lower_bound,
    constrain_each_class,
    constrain_each_context,
    constrain_each_task,
)

BALLS = {"kl": KLBall, "chi-square": ChiSquareBall}
each_ball = pytest.mark.parametrize("kind", BALLS)


def by_cvxpy(ball: Ball, s_G, p_G, penalty: float = 0.0) -> float:
    q = cp.Variable(len(s_G), nonneg=True)
    chi_square = cp.sum(cp.multiply(1 / p_G, cp.square(q - p_G)))
    far = cp.sum(cp.kl_div(q, p_G)) if isinstance(ball, KLBall) else chi_square
    problem = cp.Problem(cp.Minimize(q @ s_G + penalty * far), [cp.sum(q) == 1, far <= ball.radius])
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    return float(problem.value)


def distance(ball: Ball, q_G, p_G) -> float:
    if isinstance(ball, KLBall):
        inside = q_G > 0
        return float((q_G[inside] * np.log(q_G[inside] / p_G[inside])).sum())
    return float(((q_G - p_G) ** 2 / p_G).sum())


@each_ball
@pytest.mark.parametrize("seed", range(8))
def test_the_worst_mix_is_cvxpys(kind, seed):
    rng = np.random.default_rng(seed)
    for radius in (1e-3, 0.05, 0.5, 3.0):
        G = int(rng.integers(2, 7))
        s_G, p_G = rng.uniform(size=G), rng.dirichlet(np.ones(G))
        p_G = 0.9 * p_G + 0.1 / G
        ball = BALLS[kind](radius)
        q_G = ball.worst(s_G, p_G)
        assert q_G.min() >= 0
        assert q_G.sum() == pytest.approx(1, abs=1e-12)
        assert distance(ball, q_G, p_G) <= radius * (1 + 1e-9) + 1e-12
        assert q_G @ s_G == pytest.approx(by_cvxpy(ball, s_G, p_G), abs=2e-6)


@each_ball
@pytest.mark.parametrize("seed", range(4))
def test_the_surrogate_mix_is_cvxpys(kind, seed):
    """Min q . s + smoothing KL(q || p) over the ball (chi-square: half of that); near the worst one."""
    rng = np.random.default_rng(seed)
    for radius, smoothing in ((0.02, 0.05), (0.3, 0.1), (5.0, 0.2)):
        s_G, p_G = rng.uniform(0.4, 0.6, size=5), 0.8 * rng.dirichlet(np.ones(5)) + 0.04
        ball = BALLS[kind](radius, smoothing)
        q_G = ball.surrogate(s_G, p_G)
        penalty = smoothing if kind == "kl" else smoothing / 2
        value = q_G @ s_G + penalty * distance(ball, q_G, p_G)
        assert value == pytest.approx(by_cvxpy(ball, s_G, p_G, penalty), abs=2e-6)
        lowest = ball.worst(s_G, p_G) @ s_G
        assert lowest - 1e-12 <= q_G @ s_G <= lowest + smoothing * radius


@each_ball
@given(data=st.data())
def test_laws_of_the_worst_mix(kind, data):
    """Never above the mix itself, lower in a larger ball, rising in every safety, and moving along with all of them."""
    G = data.draw(st.integers(2, 6))
    grid = st.sampled_from([0.0, 0.1, 0.3, 0.3 + 1e-9, 0.5, 0.9, 1.0])  # ties and near ties
    s_G = np.array(data.draw(st.lists(grid, min_size=G, max_size=G)))
    p_G = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=G, max_size=G)))
    p_G /= p_G.sum()
    radius = data.draw(st.sampled_from([1e-8, 0.01, 0.3, 1.0, 30.0]))
    small, large = BALLS[kind](radius), BALLS[kind](2 * radius)
    q_G = small.worst(s_G, p_G)
    value = q_G @ s_G
    assert distance(small, q_G, p_G) <= radius * (1 + 1e-6) + 1e-12
    assert s_G.min() - 1e-12 <= large.worst(s_G, p_G) @ s_G <= value + 1e-9 <= p_G @ s_G + 2e-9
    higher_G = s_G + np.array(data.draw(st.lists(st.floats(0, 0.3), min_size=G, max_size=G)))
    assert small.worst(higher_G, p_G) @ higher_G >= value - 1e-9
    assert small.worst(0.5 * s_G + 0.2, p_G) @ (0.5 * s_G + 0.2) == pytest.approx(0.5 * value + 0.2, abs=1e-9)


@each_ball
def test_the_slope_of_the_worst_value_is_the_mix_itself(kind):
    s_G, p_G = np.array([0.9, 0.4, 0.7, 0.45]), np.array([0.4, 0.1, 0.3, 0.2])
    ball = BALLS[kind](0.1)
    q_G = ball.worst(s_G, p_G)
    for g, step in enumerate(1e-6 * np.eye(4)):
        up, down = s_G + step, s_G - step
        gradient = (ball.worst(up, p_G) @ up - ball.worst(down, p_G) @ down) / 2e-6
        assert gradient == pytest.approx(q_G[g], abs=1e-6)


@each_ball
def test_a_ball_that_reaches_the_worst_groups_holds_only_them(kind):
    p_G = np.array([0.5, 0.3, 0.2])
    assert BALLS[kind](50.0).worst([0.9, 0.2, 0.2], p_G).tolist() == pytest.approx([0, 0.6, 0.4])
    assert BALLS[kind](0.1).worst([0.7, 0.7, 0.7], p_G).tolist() == pytest.approx(p_G.tolist())
    assert np.isnan(BALLS[kind](0.1).worst([0.7, math.nan, 0.7], p_G)).all()


@each_ball
@pytest.mark.parametrize("radius", [0.0, -1.0, math.inf, math.nan, "1", True])
def test_a_radius_that_is_none(kind, radius):
    for what, settings in {"radius": {"radius": radius}, "smoothing": {"radius": 1.0, "smoothing": radius}}.items():
        with pytest.raises(InvalidInput, match=f"`{what}` of {BALLS[kind].__name__} is {radius!r}; it must be above 0"):
            BALLS[kind](**settings)


# ---- averages -----------------------------------------------------------------------------------------------


def drawn(B: int = 60, V: int = 3):
    draw = torch.Generator().manual_seed(0)
    log_p_BV = torch.randn(B, V, generator=draw, dtype=torch.float64).log_softmax(-1)
    labels = torch.randint(V, (B,), generator=draw)
    context, task = torch.randint(3, (B,), generator=draw), torch.randint(2, (B,), generator=draw)
    return log_p_BV, Split("train", torch.zeros(B, 1), labels, task, context).batch()


def value_of(constraint, log_p_BV, batch) -> float:
    found = constraint.sums(log_p_BV, batch)
    return constraint.offset + float(constraint.gradient(found.means(), found.count_G) @ found.means())


def test_whom_an_average_covers():
    log_p_BV, batch = drawn()
    truth = log_p_BV.gather(-1, batch.labels.unsqueeze(-1)).squeeze(-1).exp()
    for settings, chosen in {
        (("tasks", 1),): batch.task == 1,
        (("tasks", 0), ("contexts", 2)): (batch.task == 0) & (batch.context == 2),
        (("classes", 1),): batch.labels == 1,
        (("classes", 1), ("contexts", 0)): (batch.labels == 1) & (batch.context == 0),
    }.items():
        constraint = SafetyConstraint("s", TruthProbability(), 0.5, **{what: [number] for what, number in settings})
        assert torch.equal(constraint.covers(batch), chosen)
        assert value_of(constraint, log_p_BV, batch) == pytest.approx(float(truth[chosen].mean()))


@pytest.mark.parametrize("by", ["context", "task", "class"])
def test_a_mix_weighs_groups_as_told(by):
    log_p_BV, batch = drawn()
    truth = log_p_BV.gather(-1, batch.labels.unsqueeze(-1)).squeeze(-1).exp()
    key = {"context": batch.context, "task": batch.task, "class": batch.labels}[by]
    constraint = SafetyConstraint("s", TruthProbability(), 0.5, mix={1: 0.95, 0: 0.05}, by=by)
    expected = 0.05 * truth[key == 0].mean() + 0.95 * truth[key == 1].mean()
    assert value_of(constraint, log_p_BV, batch) == pytest.approx(float(expected))
    assert torch.equal(constraint.covers(batch), key < 2)


@each_ball
def test_the_worst_mix_lies_round_the_mix_or_round_the_datas_own_shares(kind):
    log_p_BV, batch = drawn()
    measure, ball = TruthProbability([0, 1]), BALLS[kind](0.2)
    mean_G, count_G = [], []
    for c in range(3):
        inside = (batch.context == c) & (batch.labels < 2)
        mean_G.append(float(measure.measured(log_p_BV, batch.labels)[inside].mean()))
        count_G.append(int(inside.sum()))
    own = SafetyConstraint("s", measure, 0.5, contexts=[0, 1, 2], worst=ball)
    mixed = SafetyConstraint("s", measure, 0.5, mix={0: 0.2, 1: 0.5, 2: 0.3}, worst=ball)
    for constraint, p_G in ((own, np.array(count_G) / sum(count_G)), (mixed, np.array([0.2, 0.5, 0.3]))):
        assert value_of(constraint, log_p_BV, batch) == pytest.approx(by_cvxpy(ball, np.array(mean_G), p_G), abs=2e-6)
    by_class = SafetyConstraint("s", measure, 0.5, by="class", worst=ball)
    assert by_class.parts[0][1].groups == (0, 1)


def test_a_budget_adds_harm_up():
    log_p_BV, batch = drawn()
    terms = [(5.0, Average(Recall([0]), contexts=[1])), (0.5, OneMinusBrier())]
    constraint = Budget("harm", terms, at_most=2.0)
    harm = [1 - value_of(SafetyConstraint("s", t.measure, 0.5, t.contexts), log_p_BV, batch) for _, t in [terms[0]]]
    harm.append(1 - value_of(SafetyConstraint("s", OneMinusBrier(), 0.5), log_p_BV, batch))
    assert value_of(constraint, log_p_BV, batch) == pytest.approx(1 - (5.0 * harm[0] + 0.5 * harm[1]))
    assert (constraint.required, constraint.offset, constraint.with_threshold(0.25).at_most) == (-1.0, 1 - 5.5, 0.75)
    assert constraint.critical == frozenset({0})
    assert constraint.with_split("validation").split == "validation"


def test_by_how_much_one_example_moves_a_counted_value():
    log_p_BV, batch = drawn()
    count = [int(((batch.context == c) & (batch.labels == 0)).sum()) for c in range(2)]
    for constraint, step in {
        SafetyConstraint("s", Recall([0]), 0.5, contexts=(0,)): 1 / count[0],
        Budget("b", ((3.0, Average(Recall([0]), contexts=(0,))), (9.0, TruthProbability())), 1.0): 3 / count[0],
        SafetyConstraint("s", TruthProbability(), 0.5): 0.0,
    }.items():
        found = constraint.sums(log_p_BV, batch)
        assert constraint.resolution(constraint.gradient(found.means(), found.count_G), found.count_G) == pytest.approx(
            step
        )
    mixed = SafetyConstraint("s", Recall([0]), 0.5, mix={0: 0.9, 1: 0.1})
    found = mixed.sums(log_p_BV, batch)
    step = mixed.resolution(mixed.gradient(found.means(), found.count_G), found.count_G)
    assert step == pytest.approx(max(0.9 / count[0], 0.1 / count[1]))


def test_one_constraint_each():
    constraints = constrain_each_class("recall", Recall([3, 1]), 0.9, split="validation")
    assert [(r.name, r.classes, r.at_least, r.split) for r in constraints] == [
        ("recall: class 1", [1], 0.9, "validation"),
        ("recall: class 3", [3], 0.9, "validation"),
    ]
    named = constrain_each_context("recall", Recall([3]), {0: 0.9, 1: 0.8}, contexts={0: "day", 1: "night"})
    assert [(r.name, r.contexts, r.at_least) for r in named] == [("recall: day", [0], 0.9), ("recall: night", [1], 0.8)]
    assert [r.tasks for r in constrain_each_task("t", Recall(), 0.9, tasks=[4, 2])] == [[2], [4]]
    assert [r.classes for r in constrain_each_class("t", Recall(), 0.9, classes=[4, 2])] == [[2], [4]]


BAD = {
    "no classes": (
        lambda: constrain_each_class("r", Recall(), 0.9),
        r"'r' is wanted for each class, but Recall\(\) names no crit",
    ),
    "no groups": (
        lambda: constrain_each_task("r", Recall(), 0.9, []),
        "'r' is wanted for each task, but tasks is empty",
    ),
    "threshold": (
        lambda: constrain_each_context("r", Recall(), {0: 0.9}, [0, 2]),
        r"'r': at_least has no threshold for context 2; it has them for \[0\]",
    ),
    "no terms": (lambda: Budget("b", [], 1.0), "Budget 'b' has no terms"),
    "cost": (lambda: Budget("b", [(-1.0, Recall())], 0.1), "Budget 'b': a cost is -1.0; wanted a number above 0"),
    "budget": (lambda: Budget("b", [(2.0, Recall())], 2.0), "at_most is 2.0; the costs sum to 2, so the budget must"),
    "term": (lambda: Budget("b", [(2.0, 0.9)], 1.0), "Budget 'b': measure is a float; wanted a safety measure"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_together_is_refused(case):
    build, message = BAD[case]
    with pytest.raises(InvalidInput, match=message):
        build()


# ---- certificates -------------------------------------------------------------------------------------------


class Table(nn.Module):
    def __init__(self, p_N):
        super().__init__()
        p_N = torch.as_tensor(p_N, dtype=torch.float64)
        self.logits = nn.Parameter(torch.stack([p_N, 1 - p_N], -1).log())

    def forward(self, rows):
        return self.logits[rows]


def held_out(context) -> Split:
    N = len(context)
    return Split("certify", torch.arange(N), torch.zeros(N, dtype=torch.long), context=torch.tensor(context))


RIGHT = [0.9] * 195 + [0.2] * 5 + [0.9] * 80 + [0.2] * 20  # context 0: 195 of 200 recalled; context 1: 80 of 100
CONTEXT = [0] * 200 + [1] * 100


def test_a_mix_is_certified_group_by_group():
    constraint = SafetyConstraint("s", Recall([0]), 0.8, mix={0: 0.3, 1: 0.7})
    found = certify(Table(RIGHT), constraint, held_out(CONTEXT))
    low = [clopper_pearson_lower_bound(195, 200, 0.975), clopper_pearson_lower_bound(80, 100, 0.975)]
    assert found.lower_bound == pytest.approx(0.3 * low[0] + 0.7 * low[1])
    assert found.estimate == pytest.approx(0.3 * 195 / 200 + 0.7 * 0.8)
    assert (found.count, found.method, found.means) == (300, "clopper_pearson", 2)
    assert found.decision == "not_shown"


@each_ball
def test_a_worst_mix_is_certified_at_the_bounds_of_its_groups(kind):
    ball = BALLS[kind](0.1)
    constraint = SafetyConstraint("s", Recall([0]), 0.6, mix={0: 0.3, 1: 0.7}, worst=ball)
    found = certify(Table(RIGHT), constraint, held_out(CONTEXT))
    low = np.array([clopper_pearson_lower_bound(195, 200, 0.975), clopper_pearson_lower_bound(80, 100, 0.975)])
    assert found.lower_bound == pytest.approx(by_cvxpy(ball, low, np.array([0.3, 0.7])), abs=2e-6)
    assert found.decision == "safe"


def test_a_budget_is_certified():
    constraint = Budget("harm", [(2.0, Average(Recall([0]), contexts=[1])), (1.0, TruthProbability([0]))], at_most=1.0)
    found = certify(Table(RIGHT), constraint, held_out(CONTEXT), seed=1)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    bets = betting_lower_bound(torch.tensor(RIGHT, dtype=torch.float64)[order].numpy(), 0.975)
    low = [clopper_pearson_lower_bound(80, 100, 0.975), bets]
    assert found.lower_bound == pytest.approx(1 - 2 * (1 - low[0]) - (1 - low[1]), abs=1e-9)
    assert (found.method, found.means) == ("betting and clopper_pearson", 2)
    assert (found.required, found.decision) == (0.0, "safe")


@each_ball
def test_a_certificate_of_the_worst_mix_is_wrong_no_more_often_than_stated(kind):
    """True safeties .9 and .7; of 200 certificates at 80 %, at most a fifth may lie above the true worst mix."""
    ball, p_G, s_G = BALLS[kind](0.05), np.array([0.4, 0.6]), np.array([0.9, 0.7])
    true = float(ball.worst(s_G, p_G) @ s_G)
    constraint = SafetyConstraint("s", Recall([0]), 0.5, mix={0: 0.4, 1: 0.6}, worst=ball)
    draw = torch.Generator().manual_seed(0)
    context = torch.arange(80) % 2
    chance = torch.tensor(s_G)[context]
    above = 0
    for _ in range(200):
        right = torch.where(torch.rand(80, generator=draw) < chance, 0.9, 0.1)
        above += certify(Table(right), constraint, held_out(context.tolist()), confidence=0.8).lower_bound > true
    assert above / 200 <= 0.2 + 3 * (0.2 * 0.8 / 200) ** 0.5


def test_what_cannot_be_certified():
    equal = SafetyConstraint("s", Recall([0]), exactly=0.8)
    with pytest.raises(InvalidInput, match=r"'s' asks for exactly 0.8; no data can show an equality. Certify the side"):
        certify(Table(RIGHT), equal, held_out(CONTEXT))
    absent = SafetyConstraint("s", Recall([0]), 0.8, mix={0: 0.3, 4: 0.7})
    with pytest.raises(InvalidInput, match="Constraint 's': context 4 has no covered example in split 'certify'"):
        certify(Table(RIGHT), absent, held_out(CONTEXT))
