"""Safety measures read in the same pass: sums and gradients are those of the constraint over the whole distribution."""

from __future__ import annotations

import pytest
import torch

from safekd.data import Batch
from safekd.errors import InvalidInput
from safekd.language import JSD, Logits, distillation_loss
from safekd.safety import (
    Avoids,
    Budget,
    Counted,
    Custom,
    KLBall,
    LogTruthProbability,
    Margin,
    OneMinusBrier,
    Recall,
    SafetyConstraint,
    TopK,
    TruthProbability,
    UnsafeMass,
)

from .plain_loss import assert_same, make_case, set_chunks

LEAD, V = (6, 5), 13
CRITICAL = [1, 4, 5, 9]


def log_odds(log_p, labels):
    return log_p[..., 0] - log_p[..., 3] + 0.1 * labels


def entropy_share(log_p, labels):
    return -(log_p.exp() * log_p).sum(-1) / torch.tensor(float(log_p.shape[-1])).log()


MEASURES = {
    "truth": TruthProbability(CRITICAL),
    "log truth": LogTruthProbability(CRITICAL, at=0.3),
    "every label": TruthProbability(),
    "unsafe mass": UnsafeMass(unsafe=[2, 3, 11], critical=CRITICAL),
    "unsafe mass everywhere": UnsafeMass(unsafe=[7]),
    "margin": Margin(CRITICAL),
    "Brier": OneMinusBrier(CRITICAL),
    "recall": Recall(CRITICAL),
    "top 3": TopK(3, CRITICAL),
    "avoids": Avoids([2, 3], CRITICAL),
    "custom": Custom(entropy_share, entropy_share, critical=CRITICAL),
    "counted": Counted(log_odds),
    "no label": TruthProbability([12]),
}
CONSTRAINTS = {
    "plain": SafetyConstraint("a", TruthProbability(CRITICAL), 0.9),
    "all positions": SafetyConstraint("a", TruthProbability(CRITICAL), 0.9, average="all"),
    "one context": SafetyConstraint("a", LogTruthProbability(CRITICAL), 0.9, contexts=[1]),
    "one task": SafetyConstraint("a", UnsafeMass([2, 3]), 0.9, tasks=[0]),
    "some classes": SafetyConstraint("a", Margin(), 0.6, classes=[1, 2, 3]),
    "mix of contexts": SafetyConstraint("a", LogTruthProbability(CRITICAL), 0.9, mix={0: 0.3, 1: 0.7}),
    "budget": Budget("a", [(5.0, TruthProbability([1, 4])), (1.0, Recall([5, 9]))], at_most=0.3),
}


@pytest.fixture(params=[(1, 1), (7, 3), (64, 64)], ids=["row by row", "in chunks of blocks", "at once"])
def chunks(request, monkeypatch):
    set_chunks(monkeypatch, *request.param, vocabulary=V)
    return 1 if request.param[0] < 64 else 10**9


def make_measured(**settings):
    """Return a case whose labels are often critical, with tasks and contexts."""
    case = make_case(V=V, lead=LEAD, kinds=["logits", "hidden"], **settings)
    case.labels = torch.randint(V, LEAD)
    case.labels[0, 1:3] = -100
    case.mask = torch.rand(LEAD) < 0.9
    return case, torch.tensor([0, 1, 0, 1, 1, 0]), torch.tensor([0, 0, 1, 1, 2, 2])


def read_plain(case, constraint, task, context):
    """Return the sums of the constraint over the positions that count, with their graph."""
    kept = case.kept()
    batch = Batch(torch.zeros(LEAD[0], 1), case.labels.clamp_min(0), task, context, torch.arange(LEAD[0]), mask=kept)
    return constraint.sums(case.log_student(), batch)


def check(case, constraint, task, context, multiplier, budget):
    case.settings["count"] = 17
    result = distillation_loss(
        case.hidden, case.head, case.teachers, weights=case.weights, labels=case.labels, mask=case.mask, task=task,
        context=context, measures=[constraint], multipliers=[multiplier], budget=budget, **case.settings,
    )  # fmt: skip
    if not hasattr(constraint, "parts"):
        constraint = SafetyConstraint("a", constraint, at_least=0.5)
    sums = read_plain(case, constraint, task, context)
    for name in ("surrogate_G", "measured_G", "measured_squares_G", "count_G"):
        torch.testing.assert_close(getattr(result.sums[0], name), getattr(sums, name).detach(), rtol=1e-12, atol=1e-12)
    count_G = sums.count_G.clamp_min(1)
    share_G = constraint.gradient(torch.zeros_like(count_G), count_G)
    assert_same(result.loss, case.plain() - multiplier * (share_G * sums.surrogate_G / count_G).sum(), case.leaves)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize("T", [1.0, 2.0])
def test_a_measure_and_its_gradient(measure, T, chunks):
    case, task, context = make_measured(temperature=T, cross_entropy=0.2)
    check(case, measure, task, context, 1.7, chunks)


@pytest.mark.parametrize("constraint", CONSTRAINTS.values(), ids=CONSTRAINTS)
@pytest.mark.parametrize("divergence", [None, JSD(0.3)], ids=str)
def test_a_constraint_with_groups_of_its_own(constraint, divergence, chunks):
    case, task, context = make_measured(divergence=divergence) if divergence else make_measured()
    check(case, constraint, task, context, 0.6, chunks)


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_measures_alone_when_the_loss_is_all_cross_entropy(softcap, chunks):
    case, task, context = make_measured(cross_entropy=1.0, temperature=2.0, softcap=softcap)
    check(case, LogTruthProbability(CRITICAL), task, context, 3.0, chunks)


def test_several_measures_at_once():
    case, task, context = make_measured()
    several = [*MEASURES.values(), *CONSTRAINTS.values()]
    lambdas = torch.linspace(0, 2, len(several))
    given = {"labels": case.labels, "mask": case.mask, "task": task, "context": context, "weights": case.weights}
    result = distillation_loss(case.hidden, case.head, case.teachers, measures=several, multipliers=lambdas, **given)
    total = case.plain()
    for measure, multiplier, sums in zip(several, lambdas, result.sums, strict=True):
        constraint = measure if hasattr(measure, "parts") else SafetyConstraint("a", measure, at_least=0.5)
        plain = read_plain(case, constraint, task, context)
        torch.testing.assert_close(sums.measured_G, plain.measured_G.detach(), rtol=1e-12, atol=1e-12)
        count_G = plain.count_G.clamp_min(1)
        total = total - multiplier * (constraint.gradient(count_G * 0, count_G) * plain.surrogate_G / count_G).sum()
    assert_same(result.loss, total, case.leaves)


def test_without_multipliers_measures_are_read_and_change_no_gradient():
    case, task, context = make_measured()
    given = {"labels": case.labels, "mask": case.mask, "task": task, "context": context, "weights": case.weights}
    result = distillation_loss(case.hidden, case.head, case.teachers, measures=list(MEASURES.values()), **given)
    assert_same(result.loss, case.plain(), case.leaves)
    assert len(result.sums) == len(MEASURES)


def test_microbatches_add_up_with_the_counts_of_the_step():
    case, task, context = make_measured(cross_entropy=0.3)
    constraint = CONSTRAINTS["mix of contexts"]
    whole = read_plain(case, constraint, task, context)
    count_G, positions = whole.count_G, int(case.kept().sum())
    total, sums = 0.0, None
    for rows in (slice(0, 2), slice(2, 3), slice(3, 6)):
        part = distillation_loss(
            case.hidden[rows], case.head, [cut(t, rows) for t in case.teachers], weights=case.weights[rows],
            labels=case.labels[rows], mask=case.mask[rows], task=task[rows], context=context[rows], count=positions,
            measures=[constraint], multipliers=[2.0], measure_counts=[count_G], **case.settings,
        )  # fmt: skip
        total = total + part.loss
        sums = part.sums[0] if sums is None else sums + part.sums[0]
    torch.testing.assert_close(sums.surrogate_G, whole.surrogate_G.detach(), rtol=1e-12, atol=1e-12)
    share_G = constraint.gradient(torch.zeros_like(count_G), count_G)
    plain = case.plain() - 2.0 * (share_G * whole.surrogate_G / count_G).sum()
    assert_same(total, plain, case.leaves)


def cut(output, rows):
    fields = {name: x[rows] if name in ("hidden", "logits") else x for name, x in vars(output).items()}
    return type(output)(**fields)


def test_the_worst_mix_takes_the_weights_of_its_groups_from_outside():
    case, task, context = make_measured()
    constraint = SafetyConstraint("worst", TruthProbability(), 0.9, mix={0: 0.5, 1: 0.5}, worst=KLBall(0.1))
    given = {"labels": case.labels, "mask": case.mask, "task": task, "context": context, "weights": case.weights}
    with pytest.raises(InvalidInput, match=r"'worst' is the worst of several mixes.*pass `group_weights`"):
        distillation_loss(case.hidden, case.head, case.teachers, measures=[constraint], multipliers=[1.0], **given)
    share_G = torch.tensor([0.2, 0.8])
    result = distillation_loss(
        case.hidden,
        case.head,
        case.teachers,
        measures=[constraint],
        multipliers=[1.5],
        group_weights=[share_G],
        **given,
    )
    sums = read_plain(case, constraint, task, context)
    assert_same(result.loss, case.plain() - 1.5 * (share_G * sums.surrogate_G / sums.count_G).sum(), case.leaves)


def test_tokens_beyond_the_vocabulary_are_refused():
    z, teachers, labels = torch.zeros(2, 4), [Logits(torch.zeros(2, 4))], torch.tensor([1, 2])
    with pytest.raises(InvalidInput, match="names token 9; wanted token numbers from 0 to 3"):
        distillation_loss(z, None, teachers, labels=labels, measures=[UnsafeMass([9])])


def test_what_is_no_measure_is_refused():
    z, teachers, labels = torch.zeros(2, 4), [Logits(torch.zeros(2, 4))], torch.tensor([1, 2])
    with pytest.raises(InvalidInput, match="`measures` holds 'recall'; wanted safety measures"):
        distillation_loss(z, None, teachers, labels=labels, measures=["recall"])
    with pytest.raises(InvalidInput, match="wanted a finite number a measure, 1 of them"):
        distillation_loss(z, None, teachers, labels=labels, measures=[Recall()], multipliers=[1.0, 2.0])
    with pytest.raises(InvalidInput, match="wanted a finite number a measure"):
        distillation_loss(z, None, teachers, labels=labels, measures=[Recall()], multipliers=[float("nan")])
    with pytest.raises(InvalidInput, match="need the tokens that follow; pass `labels`"):
        distillation_loss(z, None, teachers, measures=[Recall()])
