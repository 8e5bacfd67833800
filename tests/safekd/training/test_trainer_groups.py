"""Mixes, worst mixes, budgets, equalities and duplicates in training, on problems with known multipliers.

With free logits, teachers that agree on q and the requirement ``sum_k a_k p_k >= s``,

    p_k = q_k / (1 + lambda (s - a_k)),   lambda such that p sums to 1
"""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.optimize import brentq
from torch import nn

import safekd as kd
from safekd.safety import (
    Average,
    Budget,
    ChiSquareBall,
    Constraint,
    KLBall,
    OneMinusBrier,
    Recall,
    SafetyConstraint,
    TruthProbability,
    constrain_each_context,
)
from safekd.teachers import StoredTeacher
from safekd.training import read_full_pass
from safekd.training.loop.step._batch_values import BatchValue
from tests.support.problems import FreeLogits, Q, agreeing, answer, at_least, one_each, optimal_multiplier, trainer_for

EXACT = {"epochs": 3000, "tolerance": 1e-7, "trace_every": 25}


def tilted(weight, s: float, q=Q) -> tuple[list[float], float]:
    """The optimal distribution and multiplier of ``sum_k weight_k p_k >= s``, where it binds."""
    p = lambda multiplier: [q_k / (1 + multiplier * (s - a)) for q_k, a in zip(q, weight, strict=True)]  # noqa: E731
    top = 1 / (max(weight) - s)
    root = brentq(lambda multiplier: sum(p(multiplier)) - 1, 1e-6, top * (1 - 1e-9), xtol=1e-14)
    return p(root), root


def test_a_mix_of_classes_has_the_tilted_answer():
    rule = SafetyConstraint("mix", TruthProbability(), 0.45, mix={0: 0.7, 2: 0.3}, by="class")
    result = trainer_for(rule).fit(one_each(), **EXACT)
    p, multiplier = tilted((0.7, 0.0, 0.3), 0.45)
    assert result.status == "converged", result.message
    assert result.student.p() == pytest.approx(p, abs=1e-6)
    assert result.multipliers["mix"] == pytest.approx(multiplier, rel=1e-5)
    assert result.point.readings[0].count == 2


def test_a_budget_has_one_price_in_its_own_units():
    """2 (1 - p_0) + (1 - p_2) <= 2.1 is 2 p_0 + p_2 >= .9."""
    terms = [(2.0, TruthProbability([0])), (1.0, Average(TruthProbability(), classes=[2]))]
    result = trainer_for(Budget("harm", terms, at_most=2.1)).fit(one_each(), **EXACT)
    p, multiplier = tilted((2.0, 0.0, 1.0), 0.9)
    assert result.status == "converged", result.message
    assert result.student.p() == pytest.approx(p, abs=1e-6)
    assert result.multipliers == {"harm": pytest.approx(multiplier, rel=1e-5)}
    assert result.point.readings[0].measured == pytest.approx(1 - 2.1, abs=1e-6)


@pytest.mark.parametrize(("ball", "s"), [(KLBall(0.1), 0.28), (KLBall(0.1), 0.33), (ChiSquareBall(0.2), 0.33)])
def test_the_worst_mix_is_held_and_priced(ball, s):
    """At the answer the tilt is that of the mix which is followed: the worst one, but where groups are near a tie."""
    rule = SafetyConstraint("worst", TruthProbability([0, 2]), s, by="class", worst=ball)
    result = trainer_for(rule, lr=0.3).fit(one_each(), **EXACT)
    assert result.status == "converged", result.message
    p_02 = [result.student.p()[k] for k in (0, 2)]
    assert ball.worst(p_02, [0.5, 0.5]) @ p_02 == pytest.approx(s, abs=1e-6)
    q = ball.surrogate(p_02, [0.5, 0.5])
    p, multiplier = tilted((q[0], 0.0, q[1]), q @ p_02)
    assert result.student.p() == pytest.approx(p, abs=1e-5)
    assert result.multipliers["worst"] == pytest.approx(multiplier, rel=1e-4)


def test_a_wide_ball_asks_for_the_worst_group_alone():
    ball = KLBall(9.0, smoothing=0.01)
    rule = SafetyConstraint("worst", TruthProbability([0, 1]), 0.34, by="class", worst=ball)
    result = trainer_for(rule).fit(one_each(), **EXACT)
    assert result.student.p() == pytest.approx(answer(0.34), abs=1e-5)
    assert result.multipliers["worst"] == pytest.approx(optimal_multiplier(0.34), rel=1e-4)


@pytest.mark.parametrize("s", [0.15, 0.6])
def test_an_equality_is_met_from_both_sides(s):
    """Below q_0 its multiplier is negative: the same formula, the gradient of the value in s."""
    rule = SafetyConstraint("equal", TruthProbability([0]), exactly=s)
    result = trainer_for(rule).fit(one_each(), **EXACT)
    multiplier = 0.7 / (1 - s) - 0.3 / s
    assert (multiplier < 0) == (s < 0.3)
    assert result.status == "converged", result.message
    assert result.student.p() == pytest.approx([s, *(q * (1 - s) / 0.7 for q in Q[1:])], abs=1e-6)
    assert result.multipliers == {"equal": pytest.approx(multiplier, rel=1e-5)}
    assert result.residuals.holds(1e-7)
    assert result.trace["violation_equal"].iloc[0] == pytest.approx(abs(s - 1 / 3))


def test_equalities_and_inequalities_keep_their_order_and_a_warm_start_its_signs():
    """p_0 = .2 exactly, p_2 >= .35 leave p_1 = .45."""
    rules = [
        at_least(0.1, "slack"),
        SafetyConstraint("equal", TruthProbability([0]), exactly=0.2),
        at_least(0.35, "two", critical=2),
    ]
    result = trainer_for(*rules).fit(one_each(), **EXACT)
    ratio = 0.5 / 0.45
    wanted = {"slack": 0.0, "equal": ratio - 0.3 / 0.2, "two": ratio - 0.2 / 0.35}
    assert result.status == "converged", result.message
    assert result.multipliers == pytest.approx(wanted, rel=1e-5, abs=1e-7)
    again = trainer_for(*rules).fit(
        one_each(), warm_start=kd.WarmStart.from_result(result), epochs=10, trace_every=1, tolerance=1e-5
    )
    assert (again.status, again.point.step) == ("converged", 2)
    with pytest.raises(kd.InvalidInput, match=r"at least 0 and finite \(an equality's may be negative"):
        trainer_for(*rules).fit(
            one_each(), epochs=1, warm_start=kd.WarmStart(result.student.state_dict(), [-1.0, -1.0, 0.0])
        )


def test_an_equality_out_of_reach_is_infeasible_from_above():
    """Of two rows that share a logit row, one asks for exactly .8 and the other for exactly .2 of the same class."""
    rules = [SafetyConstraint(n, TruthProbability([0]), exactly=v) for n, v in (("high", 0.8), ("low", 0.2))]
    result = trainer_for(*rules, lr=0.1).fit(one_each(), epochs=400)
    assert result.status == "infeasible", result.message
    assert not result.feasible
    assert result.most_feasible.p()[0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_share_the_price(copies):
    result = trainer_for(*(at_least(0.6, f"copy {i}") for i in range(copies)), lr=0.2).fit(one_each(), **EXACT)
    assert result.status == "converged", result.message
    assert result.student.p() == pytest.approx(answer(0.6), abs=1e-6)
    assert sum(result.multipliers.values()) == pytest.approx(optimal_multiplier(0.6), rel=1e-5)


def test_dependent_constraints_do_no_harm():
    """p_0 >= .4, p_2 >= .35, their sum >= .75, and p_0 = .4: four multipliers for two directions."""
    rules = [
        at_least(0.4, "zero"),
        at_least(0.35, "two", critical=2),
        Budget("both", [(1.0, TruthProbability([0])), (1.0, TruthProbability([2]))], at_most=1.25),
        SafetyConstraint("equal", TruthProbability([0]), exactly=0.4),
    ]
    result = trainer_for(*rules, lr=0.2).fit(one_each(), **EXACT)
    assert result.status == "converged", result.message
    assert result.student.p() == pytest.approx([0.4, 0.25, 0.35], abs=1e-6)
    lambdas = result.multipliers
    assert lambdas["zero"] + lambdas["both"] + lambdas["equal"] == pytest.approx(0.5 / 0.25 - 0.3 / 0.4, rel=1e-5)
    assert lambdas["two"] + lambdas["both"] == pytest.approx(0.5 / 0.25 - 0.2 / 0.35, rel=1e-5)


def test_one_constraint_a_context():
    """Rows of free logits of their own: each multiplier is the closed form's, times the context's share of the loss."""
    context = torch.tensor([0, 0, 0, 1, 1, 1])
    data = kd.Split("train", context.reshape(-1, 1), torch.tensor([0, 1, 2] * 2), context=context)
    rules = constrain_each_context("safe", TruthProbability([0]), {0: 0.5, 1: 0.7}, contexts=[0, 1])
    result = trainer_for(*rules, student=FreeLogits(rows=2), teachers=agreeing(examples=6), lr=1.0).fit(data, **EXACT)
    assert result.status == "converged"
    assert result.multipliers == pytest.approx(
        {"safe: context 0": optimal_multiplier(0.5) / 2, "safe: context 1": optimal_multiplier(0.7) / 2}, rel=1e-4
    )


def test_a_deployment_mix_pays_where_it_will_be_used():
    """Emergencies are 1/4 of the data and 3/4 of use.  Rows of their own: p_c = tilt with its share of the
    multiplier.
    """
    row = torch.tensor([0, 0, 0, 1])
    data = kd.Split("train", row.reshape(-1, 1), torch.zeros(4, dtype=torch.long), context=row)
    rule = SafetyConstraint("use", TruthProbability([0]), 0.6, mix={0: 0.25, 1: 0.75})
    result = trainer_for(rule, student=FreeLogits(rows=2), teachers=agreeing(examples=4), lr=1.0).fit(data, **EXACT)
    assert result.status == "converged", result.message
    s = [result.student.p(c)[0] for c in range(2)]
    assert 0.25 * s[0] + 0.75 * s[1] == pytest.approx(0.6, abs=1e-6)
    for c, (share, use) in enumerate([(0.75, 0.25), (0.25, 0.75)]):  # d(share value(s))/ds = lambda use
        assert share * optimal_multiplier(s[c]) == pytest.approx(result.multipliers["use"] * use, rel=1e-4)
    assert s[1] > 0.65


ABSENT = {
    "context": (
        SafetyConstraint("m", TruthProbability(), 0.5, mix={0: 0.5, 2: 0.5}),
        r"Constraint 'm': context 2 \('dawn'\) has no covered example in split 'train', so its safety is unknown",
    ),
    "uncritical context": (
        SafetyConstraint("m", TruthProbability([0]), 0.5, mix={0: 0.5, 1: 0.5}),
        r"context 1 \('night'\) has no covered example",
    ),
    "class": (
        SafetyConstraint("m", TruthProbability(), 0.5, mix={0: 0.5, 5: 0.5}, by="class"),
        "class 5 has no covered example",
    ),
    "term": (
        Budget("m", [(1.0, Recall([0])), (1.0, Recall([7]))], 0.5),
        "one of its terms covers no example in split 'train'",
    ),
}


@pytest.mark.parametrize("case", ABSENT)
def test_groups_without_an_example_are_refused_by_name(case):
    rule, message = ABSENT[case]
    context, names = torch.tensor([0, 0, 1]), ["day", "night", "dawn"]
    data = kd.Split("train", torch.zeros(3, 1), torch.arange(3), context=context, context_names=names)
    with pytest.raises(kd.InvalidInput, match=message):
        trainer_for(rule).fit(data, epochs=1)


# ---- full passes and batches --------------------------------------------------------------------------------

KINDS: dict[str, Constraint] = {
    "plain": SafetyConstraint("a", OneMinusBrier([0, 1]), 0.5),
    "recall": SafetyConstraint("a", Recall([0, 1]), 0.5),
    "mix": SafetyConstraint("a", OneMinusBrier([0, 1]), 0.5, mix={0: 0.2, 1: 0.3, 2: 0.5}),
    "worst": SafetyConstraint("a", Recall(sharpness=1.0), 0.5, contexts=[0, 1, 2], worst=KLBall(0.1)),
    "worst of a mix": SafetyConstraint("a", OneMinusBrier(), 0.5, mix={0: 0.8, 2: 0.2}, worst=ChiSquareBall(0.1)),
    "budget": Budget("a", [(2.0, Recall([0])), (1.0, Average(OneMinusBrier(), mix={0: 0.5, 1: 0.5}))], 1.0),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def task(N: int = 30):
    draw = torch.Generator().manual_seed(0)
    x, labels = torch.randn(N, 2, generator=draw, dtype=torch.float64), torch.randint(3, (N,), generator=draw)
    data = kd.Split("train", x, labels, context=torch.arange(N) % 3)
    teacher = StoredTeacher("q", torch.softmax(torch.randn(N, 3, generator=draw, dtype=torch.float64), -1))
    torch.manual_seed(0)
    return data, [teacher], nn.Linear(2, 3).double()


def value(rule: Constraint, log_p_V, batch, which: str, **how) -> float:
    sums = rule.sums(log_p_V.detach(), batch)
    mean_G = getattr(sums, which) / sums.count_G
    return rule.offset + float(rule.gradient(mean_G, sums.count_G, **how) @ mean_G)


@each_kind
def test_a_full_pass_reads_values_slopes_and_errors(kind):
    rule, (data, teachers, student) = KINDS[kind], task()
    objective = trainer_for(rule, student=student, teachers=teachers).objective
    objective.rows = 7
    full = read_full_pass(objective, data, {}, [rule], with_gradients=True)
    batch = data.batch()
    log_p = lambda: student(data.inputs).log_softmax(-1)  # noqa: E731
    reading = full.readings[0]
    assert reading.measured == pytest.approx(value(rule, log_p(), batch, "measured_G"), abs=1e-12)
    assert reading.surrogate == pytest.approx(value(rule, log_p(), batch, "surrogate_G", surrogate=True), abs=1e-12)
    sums = rule.sums(log_p(), batch)
    mean_G = sums.surrogate_G / sums.count_G
    followed = (rule.gradient(mean_G.detach(), sums.count_G, surrogate=True) * mean_G).sum()
    gradients = torch.autograd.grad(-followed, list(student.parameters()))
    assert full.jacobian_Mn[0].tolist() == pytest.approx(
        torch.cat([x.flatten() for x in gradients]).tolist(), abs=1e-12
    )

    values = [one for _, average in rule.parts for one in average.measured_values(log_p().detach(), batch)]
    mean_G = torch.stack([one.mean() for one in values])
    q_G = rule.gradient(mean_G, torch.tensor([float(len(one)) for one in values]).double())
    variance = sum(float(q) ** 2 * float(one.var()) / len(one) for q, one in zip(q_G, values, strict=True))
    assert reading.standard_error == pytest.approx(variance**0.5)
    assert reading.count == sum(len(one) for one in values)


@each_kind
def test_what_is_followed_is_right_on_average_over_all_batches(kind):
    """Of 8 examples all pairs are drawn once, most without some group: the gradient's mean is the full gradient."""
    rule, (data, _, student) = KINDS[kind], task(8)
    everything = data.batch()
    read = BatchValue(rule, rule.counts(everything))

    def gradient(index, share):
        batch = data.batch(torch.tensor(index))
        smooth, _, _ = read.read(rule.sums(student(batch.inputs).log_softmax(-1), batch), share)
        return torch.autograd.grad(smooth, list(student.parameters()), allow_unused=True)[0]

    full = gradient(list(range(8)), 1.0)
    running, pairs = read._running, []
    for pair in itertools.combinations(range(8), 2):
        read._running = running  # each pair as if it came right after the whole
        pairs.append(gradient(list(pair), 0.25))
    near = (
        {"rtol": 0.2, "atol": 5e-3} if rule.gradient_depends_on_means else {}
    )  # a batch moves the running means, and the mix with them
    torch.testing.assert_close(torch.stack(pairs).mean(0), full, **near)


def test_a_group_that_a_batch_lacks_is_remembered_and_one_never_seen_waits():
    rule = SafetyConstraint("m", TruthProbability(), 0.5, mix={0: 0.5, 1: 0.5})
    labels, context = torch.zeros(4, dtype=torch.long), torch.tensor([0, 0, 1, 1])
    data = kd.Split("train", torch.zeros(4, 1), labels, context=context)
    p = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    read = BatchValue(rule, rule.counts(data.batch()))

    def seen(index):
        batch = data.batch(torch.tensor(index))
        log_p_V = torch.stack([p[index], 1 - p[index]], -1).log()
        _, exact, present = read.read(rule.sums(log_p_V, batch), len(index) / 4)
        return float(exact), bool(present)

    assert seen([0])[1] is False
    assert seen([2]) == (pytest.approx(0.5 - (0.2 + 0.6) / 2), True)
    assert seen([1]) == (pytest.approx(0.5 - (0.4 + 0.6) / 2), True)
    p[3] = float("nan")
    assert not torch.isfinite(torch.tensor(seen([3])[0]))
    assert seen([1])[0] == pytest.approx(0.5 - (0.4 + 0.6) / 2)  # the NaN was not kept


def test_a_class_that_most_batches_lack_has_its_own_multiplier():
    """One example a batch, a third of them critical: the multiplier is that of the stated problem, not three times."""
    trainer = trainer_for(at_least(0.5), batch_size=1, lr=0.05, dual=kd.AugmentedLagrangian(rho=1.0, step=0.05))
    result = trainer.fit(one_each(), epochs=250, tolerance=1e-9)
    assert result.student.p()[0] == pytest.approx(0.5, abs=0.03)
    assert result.multipliers["first"] == pytest.approx(optimal_multiplier(0.5), rel=0.2)


@pytest.mark.parametrize("how", ["at_least", "exactly"])
def test_minibatches_hold_the_worst_mix(how):
    rule = SafetyConstraint("worst", TruthProbability([0, 2]), by="class", worst=KLBall(0.1), **{how: 0.28})
    whole = trainer_for(rule, lr=0.3).fit(one_each(), epochs=300, tolerance=1e-4)
    dual = kd.AugmentedLagrangian(rho=1.0, step=0.05)
    parts = trainer_for(rule, batch_size=1, lr=0.05, dual=dual).fit(one_each(), epochs=250, tolerance=1e-9)
    assert parts.student.p() == pytest.approx(whole.student.p(), abs=0.03)
    assert parts.multipliers["worst"] == pytest.approx(whole.multipliers["worst"], rel=0.2)
