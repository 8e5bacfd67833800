"""Evidence within a budget: large vocabularies, probes that fail, probes that would cost too much."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.safety import Margin, OneMinusBrier, Recall, TruthProbability, UnsafeMass
from safekd.teachers import StoredTeacher
from safekd.training import EvidenceBudget
from safekd.training.diagnosis import bound_feasibility
from tests.support.problems import at_least, one_each, same, state, trainer_for


def sequences(classes, examples=2, positions=8):
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 50, (examples, positions), generator=draw)
    return kd.Split("train", tokens, torch.randint(0, classes, (examples, positions), generator=draw))


def language_trainer(classes, *rules, **more):
    torch.manual_seed(0)
    student = nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, classes))
    teacher = StoredTeacher("t", torch.softmax(torch.randn(2, 8, classes), -1))
    adam = torch.optim.Adam(student.parameters(), lr=0.05)
    return kd.ConstrainedTrainer(student, [teacher], constraints=rules, optimizer=adam, **more)


def keep_off(classes, at_least=0.99, name="unsafe"):
    return kd.SafetyConstraint(name, UnsafeMass(unsafe=classes), at_least)


def test_a_large_vocabulary_needs_positions_times_classes():
    """Sixteen positions of 32,000 classes: classes times classes would be 8 gigabytes."""
    V = 32_000
    result = language_trainer(V, keep_off(range(V // 2))).fit(sequences(V), epochs=3)
    assert result.status == "budget_spent", result.message
    assert "Not examined" not in result.message


VOCABULARY = 151_936
MEASURES = {
    "unsafe mass": (keep_off(range(VOCABULARY // 2)), -0.01),
    "truth": (kd.SafetyConstraint("truth", TruthProbability(), 0.9), -0.1),
    "margin": (kd.SafetyConstraint("margin", Margin(), 0.9), -0.1),
    "Brier": (kd.SafetyConstraint("brier", OneMinusBrier(), 0.9), None),
    "recall": (kd.SafetyConstraint("recall", Recall(), 0.9), -0.0625),
}


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_is_bounded_over_the_largest_vocabularies(name):
    """What any student could reach of a measure with maximum 1 is 1: the room is one less the threshold."""
    rule, room = MEASURES[name]
    bound = bound_feasibility(language_trainer(VOCABULARY, rule).objective, {"train": sequences(VOCABULARY)}, [rule])
    assert bound is not None
    assert not bound.infeasible
    assert bound.wanted == pytest.approx(0.9375 if name == "recall" else rule.required)  # 15 of 16 positions
    if room is not None:  # a tangent of the Brier score lies above its maximum
        assert bound.least == pytest.approx(room, abs=0.01)


def test_contradictions_are_proved_over_a_large_vocabulary():
    V = 50_257
    rules = keep_off(range(V // 2), 0.9, "a"), keep_off(range(V // 2, V), 0.9, "b")
    bound = bound_feasibility(language_trainer(V, *rules).objective, {"train": sequences(V)}, rules)
    assert bound.infeasible
    assert bound.least == pytest.approx(0.4, abs=1e-6)
    assert (bound.bound, bound.wanted) == pytest.approx((0.5, 0.9), abs=1e-6)


def test_a_false_claim_to_be_concave_shows_over_a_large_vocabulary():
    V = 5_000

    def squared(log_p_V, labels):
        return log_p_V.gather(-1, labels.unsqueeze(-1)).squeeze(-1).exp().square()

    rule = kd.SafetyConstraint("false", kd.safety.Custom(squared, squared, concave=True), 0.9)
    assert bound_feasibility(language_trainer(V, rule).objective, {"train": sequences(V)}, [rule]) is None


ENDINGS = {
    "bound_feasibility": ("what any student could reach", "converged", 0.6, 500),
    "measure_curvature": ("the curvature at the student", "stationary_unverified", 0.6, 500),
    "perturb_dead_parameters": ("parameters that no output depends on", "stationary_unverified", 0.6, 500),
    "restore_student_feasibility": ("how far the violation falls", "budget_spent", 0.999, 40),
}
FAILURES = {
    "memory": MemoryError(),
    "torch": RuntimeError("can't allocate memory: you tried to allocate 185 GB"),
    "ours": kd.InvalidInput("something does not fit"),
    "theirs": KeyError("no such thing"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("probe", ENDINGS)
def test_a_probe_that_fails_loses_no_student(monkeypatch, probe, failure):
    what, status, threshold, epochs = ENDINGS[probe]

    def run():
        trainer = trainer_for(at_least(threshold), lr=0.5 if epochs == 500 else 1e-3)
        return trainer.fit(one_each(), epochs=epochs)

    clean = run()

    def fail(*_, **__):
        raise FAILURES[failure]

    monkeypatch.setattr(f"safekd.training.diagnosis._probes.{probe}", fail)
    result = run()
    assert result.status == status, result.message
    assert f"Not examined: {what}" in result.message
    assert type(FAILURES[failure]).__name__ in result.message
    assert len(result.verdict.evidence["not_examined"]) == 1
    assert same(state(result.student), state(clean.student))
    assert result.multipliers == clean.multipliers


def test_what_would_take_more_memory_is_not_begun():
    budget = EvidenceBudget(memory_bytes=100)
    result = trainer_for(at_least(0.6), evidence_budget=budget).fit(one_each(), epochs=500)
    assert result.status == "stationary_unverified"
    assert "the curvature at the student (it needs 192 bytes of memory, and 100 bytes are allowed)" in result.message
    assert "evidence_budget=kd.training.EvidenceBudget(memory_bytes, seconds)" in result.next_move


def test_what_takes_longer_is_stopped():
    budget = EvidenceBudget(seconds=1e-9)
    result = trainer_for(at_least(0.6), evidence_budget=budget).fit(one_each(), epochs=500)
    assert result.status == "stationary_unverified"
    assert "the curvature at the student (its 1e-09 seconds were over before it ended)" in result.message
    stuck = trainer_for(at_least(0.999), lr=1e-3, evidence_budget=budget).fit(one_each(), epochs=40)
    assert stuck.status == "budget_spent"
    assert "how far the violation falls with the loss left aside (its 1e-09 seconds" in stuck.message


def test_products_are_fewer_where_their_vectors_do_not_fit():
    enough = EvidenceBudget(memory_bytes=(6 + 2) * 3 * 8)
    result = trainer_for(evidence_budget=enough).fit(one_each(), epochs=500)
    assert "the curvature at the student" not in result.message
    assert math.isfinite(result.verdict.evidence["least_curvature"])


@pytest.mark.parametrize("bad", [{"memory_bytes": 0}, {"memory_bytes": 1.5}, {"seconds": 0.0}, {"seconds": math.nan}])
def test_budgets_that_are_refused(bad):
    with pytest.raises(kd.InvalidInput, match=rf"`{next(iter(bad))}` is .*; wanted"):
        EvidenceBudget(**bad)
