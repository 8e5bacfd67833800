"""Weights that a rule says, chunk by chunk: fixed rules, plain functions, rules that learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.errors import InvalidInput, NotFinite
from safekd.language import JSD, ForwardKL, Logits, ReverseKL, TopK, distillation_loss
from safekd.weights import (
    Confidence,
    Conforming,
    EntropyDecay,
    MetaTeacher,
    MinDivergence,
    Signals,
    Stored,
    TeacherEvidence,
    UncertaintyWeighting,
    Unified,
    Uniform,
)
from solvers.polytope import WeightPolytope

from .plain_loss import DOUBLE, assert_same, make_case, plain_teacher, set_chunks

POLYTOPE = WeightPolytope(3, lower=0.05)
V, K = 13, 3


@pytest.fixture(params=[(1, 1), (4, 3), (64, 64)], ids=["row by row", "in chunks of blocks", "at once"])
def chunks(request, monkeypatch):
    set_chunks(monkeypatch, *request.param, vocabulary=V)
    return 1 if request.param[0] < 64 else 10**9


def read_signals(case, **more):
    """Return the signals of all positions that count, at temperature 1."""
    kept = case.kept()
    log_p = torch.stack([torch.log_softmax(plain_teacher(t, V), -1) for t in case.teachers], -2)[kept]
    labels = None if case.labels is None else case.labels[kept]
    return Signals(log_p=log_p, labels=labels, student_log_p=case.log_student().detach()[kept], **more)


def by_distribution(signals):
    """A plain function that looks at whole distributions, and is conforming by itself."""
    return torch.softmax(3 * signals.log_p.exp().square().sum(-1), -1)


def by_label(signals):
    return torch.softmax(-signals.cross_entropy, -1)


RULES = {
    "entropy": EntropyDecay(rate=0.7),
    "conforming": Conforming(EntropyDecay(), POLYTOPE),
    "unified": Unified(token=EntropyDecay(), polytope=POLYTOPE),
    "confidence": Conforming(Confidence(), POLYTOPE),
    "student": MinDivergence(),
    "function of distributions": by_distribution,
    "function of the label": by_label,
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("divergence", [ForwardKL(), ReverseKL(), JSD(0.3)], ids=str)
@pytest.mark.parametrize("pool", ["arithmetic", "geometric"])
def test_a_rule_weighs_each_position(rule, divergence, pool, chunks):
    for T, temper in [(1.0, "teachers"), (2.0, "teachers"), (2.0, "pool")]:
        case = make_case(divergence=divergence, pool=pool, temperature=T, temper=temper, cross_entropy=0.2)
        case.mask = torch.rand(11) < 0.8
        result = distillation_loss(
            case.hidden, case.head, case.teachers, weights=rule, labels=case.labels, mask=case.mask, budget=chunks,
            **case.settings,
        )  # fmt: skip
        w = rule(read_signals(case)).detach().to(DOUBLE)
        w = w / w.sum(-1, keepdim=True)
        torch.testing.assert_close(result.weights, w, rtol=1e-9, atol=1e-9)
        case.weights = torch.full((11, K), 1 / K, dtype=DOUBLE)
        case.weights[case.kept()] = result.weights
        leaves = {name: case.leaves[name] for name in ("hidden", "weight", "bias")}
        assert_same(result.loss, case.plain(), leaves)


def test_a_rule_is_told_tasks_contexts_evidence_and_the_student(chunks):
    case = make_case(lead=(4, 3))
    seen = []

    def rule(signals):
        seen.append((signals.task, signals.context, signals.index, signals.labels, signals.teachers, signals.evidence))
        return torch.ones(signals.shape)

    evidence = TeacherEvidence(torch.rand(2, K), torch.rand(2, K), torch.ones(2), "test")
    distillation_loss(
        case.hidden, case.head, case.teachers, weights=rule, labels=case.labels, task=torch.tensor([0, 1, 0, 1]),
        context=torch.arange(4), index=torch.arange(10, 14), evidence=evidence, names=["a", "b", "c"], budget=chunks,
    )  # fmt: skip
    kept = case.kept().flatten()
    for i, value in enumerate([torch.tensor([0, 1, 0, 1]), torch.arange(4), torch.arange(10, 14)]):
        assert torch.cat([s[i] for s in seen]).tolist() == value.repeat_interleave(3)[kept].tolist()
    assert torch.cat([s[3] for s in seen]).tolist() == case.labels.flatten()[kept].tolist()
    assert {tuple(s[4]) for s in seen} == {("a", "b", "c")}
    assert all(s[5] is evidence for s in seen)


def test_stored_weights_are_looked_up_by_example(chunks):
    case = make_case(lead=(4, 3))
    rows = torch.softmax(torch.randn(6, K, dtype=DOUBLE), -1)
    index = torch.tensor([5, 0, 3, 1])
    stored = Stored(rows)
    result = distillation_loss(
        case.hidden, case.head, case.teachers, weights=stored, labels=case.labels, index=index, budget=chunks
    )
    torch.testing.assert_close(result.weights, rows[index].repeat_interleave(3, 0)[case.kept().flatten()])


def test_what_a_table_kept_of_the_whole_distribution_is_the_signal(chunks):
    case = make_case(kinds=["topk"] * 3)
    known = {"entropy": torch.rand(11, dtype=DOUBLE), "log_truth": -torch.rand(11, dtype=DOUBLE)}
    case.teachers[1] = TopK(case.teachers[1].ids, case.teachers[1].log_p, **known)
    result = distillation_loss(
        case.hidden, case.head, case.teachers, weights=EntropyDecay(), labels=case.labels, budget=chunks
    )
    kept = case.kept()
    signals = read_signals(case)
    torch.testing.assert_close(result.signals["entropy"][:, 1], known["entropy"][kept])
    torch.testing.assert_close(result.signals["entropy"][:, 0], signals.entropy[:, 0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(result.signals["cross_entropy"][:, 1], -known["log_truth"][kept])
    torch.testing.assert_close(result.signals["cross_entropy"][:, 2], signals.cross_entropy[:, 2])


class LearnedWeights(nn.Module):
    """Weights that are a network of the teachers' entropies."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(K, K, dtype=DOUBLE)
        self.unused = nn.Parameter(torch.zeros(2, dtype=DOUBLE))

    def forward(self, signals):
        return torch.softmax(self.layer(signals.entropy), -1)


@pytest.mark.parametrize("divergence", [ForwardKL(), ReverseKL(), JSD(0.3)], ids=str)
@pytest.mark.parametrize("pool", ["arithmetic", "geometric"])
def test_a_rule_that_learns_gets_its_gradient(divergence, pool, chunks):
    for T, temper in [(1.0, "teachers"), (2.0, "teachers"), (2.0, "pool")]:
        case = make_case(divergence=divergence, pool=pool, temperature=T, temper=temper)
        rule = LearnedWeights()
        result = distillation_loss(
            case.hidden, case.head, case.teachers, weights=rule, labels=case.labels, budget=chunks, **case.settings
        )
        w = torch.full((11, K), 1 / K, dtype=DOUBLE)
        case.weights = w.index_put((case.kept(),), rule(read_signals(case)))
        leaves = {name: case.leaves[name] for name in ("hidden", "weight", "bias")}
        assert_same(result.loss, case.plain(), leaves | dict(rule.named_parameters()))


def test_a_conforming_rule_that_learns_gets_its_gradient_through_the_projection(chunks):
    case = make_case(cross_entropy=0.1)
    inner = LearnedWeights()
    rule = Conforming(inner, WeightPolytope(3, lower=0.2))
    result = distillation_loss(case.hidden, case.head, case.teachers, weights=rule, labels=case.labels, budget=chunks)
    w = torch.full((11, K), 1 / K, dtype=DOUBLE)
    case.weights, case.settings = w.index_put((case.kept(),), rule(read_signals(case))), {}
    assert bool((result.weights >= 0.2 - 1e-12).all())
    assert_same(result.loss, case.plain(), {"weight": case.leaves["weight"], **dict(inner.named_parameters())})


def test_learned_rules_of_the_library_are_asked_chunk_by_chunk(chunks):
    case = make_case()
    for rule in (UncertaintyWeighting(K).double(), MetaTeacher(4).double()):
        with pytest.raises(InvalidInput, match=f"{type(rule).__name__} learns from a loss of its own"):
            distillation_loss(case.hidden, case.head, case.teachers, weights=rule, labels=case.labels)
        rule.requires_grad_(False)  # what it has learned is kept
        result = distillation_loss(
            case.hidden, case.head, case.teachers, weights=rule, labels=case.labels, budget=chunks
        )
        expected = rule(read_signals(case)).detach()
        torch.testing.assert_close(result.weights, expected.to(DOUBLE), rtol=1e-6, atol=1e-6)
        result.loss.backward()


def test_no_weights_are_uniform_weights():
    case = make_case()
    given = {"labels": case.labels}
    losses = [
        distillation_loss(case.hidden, case.head, case.teachers, weights=weights, **given).loss.detach()
        for weights in (None, Uniform(), torch.full((K,), 1 / K, dtype=DOUBLE), lambda s: torch.ones(s.shape))
    ]
    assert all(torch.allclose(loss, losses[0], rtol=1e-13) for loss in losses)


def test_one_hot_weights_route_each_position_to_one_teacher():
    case = make_case(kinds=["logits"] * 3)
    route = torch.randint(K, (11,))
    routed = torch.stack([t.logits for t in case.teachers], 1)[torch.arange(11), route]
    several = distillation_loss(
        case.hidden, case.head, case.teachers, weights=nn.functional.one_hot(route, K).double(), labels=case.labels
    )
    one = distillation_loss(case.hidden, case.head, [Logits(routed)], labels=case.labels)
    assert_same(several.loss, one.loss, {name: case.leaves[name] for name in ("hidden", "weight", "bias")})


def test_scores_that_are_no_weights_are_refused():
    case = make_case()

    def run(rule):
        return distillation_loss(case.hidden, case.head, case.teachers, weights=rule, labels=case.labels)

    with pytest.raises(InvalidInput, match=r"gave \(10,\); wanted weights of shape \(10, 3\)"):
        run(lambda s: torch.ones(10))
    for wrong in (-1.0, torch.nan, 0.0):
        with pytest.raises(InvalidInput, match="negative, not finite, or all 0"):
            run(lambda s, wrong=wrong: torch.full(s.shape, wrong))
    with pytest.raises(InvalidInput, match="`weights` is 'uniform'; wanted a tensor"):
        run("uniform")


def test_a_teacher_that_is_no_number_is_named_before_a_rule_sees_it():
    case = make_case(kinds=["logits"] * 3)
    case.teachers[2].logits[7, 7] = torch.nan
    with pytest.raises(NotFinite, match="teacher 2 gives no distribution at position 7"):
        distillation_loss(case.hidden, case.head, case.teachers, weights=kd.weights.EntropyDecay(), labels=case.labels)
