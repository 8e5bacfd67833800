"""Weights of teachers at every position, by signals that were measured of real models, and projected row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import safekd as kd
from safekd.language import CausalStudent, CausalTeacher, Hidden, as_text_source, distillation_loss
from safekd.safety.certificates import _group_evaluation
from safekd.teachers import _teacher_measurement
from tests.safekd.language.tiny_models import causal_model

CRITICAL = [3, 5, 7]


def split(seed=0, sequences=8):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(5, 12, (sequences,), generator=generator)
    texts = [torch.randint(3, 12, (int(n),), generator=generator) for n in lengths]
    return as_text_source(texts, context=[n % 2 for n in range(sequences)], name="measured")


def teachers(count=3):
    return [CausalTeacher(causal_model(seed=seed), name=f"t{seed}") for seed in range(count)]


def log_probabilities(said):
    return torch.stack([torch.log_softmax(one.head.logits(one.hidden).double(), -1) for one in said], -2)


RULES = {
    "entropy": kd.weights.EntropyDecay(2.0),
    "disagreement": kd.weights.Disagreement(3.0),
    "confidence": kd.weights.Confidence(),
    "safety": kd.weights.SafetyBlend(1.0, 30.0),
}


@pytest.mark.parametrize("pool", ["arithmetic", "geometric"])
@pytest.mark.parametrize("token", RULES)
def test_the_loss_weighs_every_position_as_the_rule_does_on_whole_distributions(token, pool):
    """Conforming weights of the chunked loss, against Unified on the signals of all positions at once."""
    box = kd.WeightPolytope(3, lower=0.1, upper=0.7)
    rule = kd.weights.Unified(token=RULES[token], context=kd.weights.OrdinalSafety(), polytope=box)
    asked, data = teachers(), split()
    safety = kd.safety.TruthProbability(critical=CRITICAL)
    evidence = kd.teachers.measure_teachers(kd.teachers.TeacherEnsemble(asked), data, safety)
    batch = data.batch()
    said = [teacher(batch) for teacher in asked]
    student = CausalStudent(causal_model(seed=9))
    shared = {"evidence": evidence, "critical_classes": CRITICAL}
    out = distillation_loss(
        student.hidden(batch.inputs),
        student.head,
        said,
        weights=rule,
        labels=batch.labels,
        mask=batch.mask,
        context=batch.context,
        pool=pool,
        budget=1,  # the fewest rows at once
        **shared,
    )
    log_p = log_probabilities(said)
    signals = kd.weights.Signals(log_p=log_p, labels=batch.labels, context=batch.context, mask=batch.mask, **shared)
    expected = rule(signals)[batch.mask]
    torch.testing.assert_close(out.weights.double(), expected, rtol=0, atol=1e-5)
    assert box.check(out.weights).holds()
    assert expected.std(0).max() > 1e-3  # they do differ from position to position


def test_teachers_are_measured_in_parts_with_the_same_numbers(monkeypatch):
    data, safety = split(), kd.safety.TruthProbability(critical=CRITICAL)

    def measure(limit):
        ensemble = kd.teachers.TeacherEnsemble(teachers(), cache_limit=limit)
        return kd.teachers.measure_teachers(ensemble, data, safety, by_class=True)

    whole = measure(2**30)
    monkeypatch.setattr(_teacher_measurement, "SETTINGS", replace(_teacher_measurement.SETTINGS, chunk_bytes=1))
    for limit in (2**30, 0):
        parts = measure(limit)
        for name in ("task_loss_MK", "safety_CK", "performance_MK", "safety_VK", "count_C", "count_V"):
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-7)


def test_certificates_ask_about_no_more_sequences_than_fit(monkeypatch):
    student, data, rows = CausalStudent(causal_model()), split(), []
    safe = kd.SafetyConstraint("named", kd.safety.TruthProbability(critical=CRITICAL), at_least=0.01)
    whole = kd.certify(student, safe, data)
    student.model.register_forward_hook(lambda _m, _i, out: rows.append(len(out.logits)))
    monkeypatch.setattr(_group_evaluation, "SETTINGS", replace(_group_evaluation.SETTINGS, chunk_bytes=1))
    parts = kd.certify(student, safe, data)
    assert set(rows) == {1}
    assert parts.lower_bound == pytest.approx(whole.lower_bound, abs=1e-6)


def test_weights_of_thousands_of_positions_conform():
    """4,096 positions, three teachers, orderings at critical positions: a rule of two scales and its projection."""
    generator = torch.Generator().manual_seed(0)
    N, K = 4096, 3
    box = kd.WeightPolytope(K, lower=0.05, upper=0.8)
    rule = kd.weights.Unified(token=kd.weights.EntropyDecay(), context=kd.weights.OrdinalSafety(), polytope=box)
    signals = {
        "entropy": 5 * torch.rand(N, K, generator=generator),
        "safety": torch.rand(N, K, generator=generator),
        "labels": torch.randint(0, 49_152, (N,), generator=generator),
        "critical_classes": range(0, 49_152, 10),
    }
    weights = rule(kd.weights.Signals(**signals))
    assert box.check(weights).holds()
    critical = signals["labels"] % 10 == 0
    ranked = weights[critical].gather(-1, signals["safety"][critical].argsort(-1))
    assert (ranked.diff(dim=-1) >= 0).all()  # the safer never count less there


def test_hidden_states_of_several_teachers_are_what_the_loss_takes():
    said = teachers(2)[0](split().batch())
    assert isinstance(said, Hidden)
