"""What a verdict of the trainer says: what was shown on the sequences of the trace, and what was not looked at."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import safekd as kd
from safekd.language.hugging_face._trainer_verdict import find_rising, judge_trainer
from safekd.training.diagnosis import EvidenceBudget

from .tiny_run import CRITICAL, make_model, make_rows, make_trainer

torch.set_num_threads(1)
TRUTH = kd.safety.TruthProbability(critical=CRITICAL)


def train(folder, constraints, rows=None, **more):
    trainer = make_trainer(folder, constraints=constraints, rows=rows, trace_steps=1, **more)
    trainer.train()
    return trainer


def fork(tokens, count=8):
    """Rows with one prefix, which different critical tokens follow."""
    return [{"input_ids": [20, 21, 22, tokens[n % len(tokens)], 23]} for n in range(count)]


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    """One prefix, four critical tokens after it, each as often: no distribution gives them more than .25 on average."""
    wanted = kd.SafetyConstraint("truth", TRUTH, at_least=0.4)
    return train(tmp_path_factory.mktemp("fork"), [wanted], fork([3, 4, 5, 6]))


def test_thresholds_that_no_student_meets_on_all_data_are_infeasible(forked):
    result = forked.result()
    assert result.status == "infeasible"
    assert "can be at most 0.25, and 0.4 is asked for" in result.message
    assert "on all 8 training sequences" in result.message
    assert result.verdict.evidence["least_violation"] == pytest.approx(0.15, abs=1e-6)
    assert result.next_move.startswith("Lower 'truth' to 0.")


def test_one_that_can_just_be_met_is_not(tmp_path):
    trainer = train(tmp_path, [kd.SafetyConstraint("truth", TRUTH, at_least=0.24)], fork([3, 4, 5, 6]))
    assert trainer.result().verdict.evidence["least_violation"] == pytest.approx(-0.01, abs=1e-6)
    assert trainer.result().status != "infeasible"


def test_prefixes_that_differ_are_told_apart(tmp_path):
    rows = [{"input_ids": [20 + n, 21, 22, token, 23]} for n, token in enumerate([3, 4, 5, 6])]
    trainer = train(tmp_path, [kd.SafetyConstraint("truth", TRUTH, at_least=0.4)], rows)
    assert trainer.result().verdict.evidence["least_violation"] == pytest.approx(-0.6, abs=1e-6)


def test_constraints_that_contradict_each_other_are_infeasible(tmp_path):
    """The labels are to have .5 at critical tokens, and those tokens at most .2 together."""
    rules = [
        kd.SafetyConstraint("truth", TRUTH, at_least=0.5),
        kd.SafetyConstraint("unsaid", kd.safety.UnsafeMass(CRITICAL, critical=CRITICAL), at_least=0.8),
    ]
    result = train(tmp_path, rules).result()
    assert result.status == "infeasible"
    assert "0.5 'truth' + 0.5 'unsaid' can be at most 0.5, and 0.65 is asked for" in result.message


def test_of_a_sample_nothing_is_proved_of_the_rest(tmp_path):
    wanted = kd.SafetyConstraint("truth", TRUTH, at_least=0.95)
    result = train(tmp_path, [wanted], fork([3, 4, 5, 6], count=40), trace_sequences=8).result()
    assert result.status == "budget_spent"
    assert "Of the other training data nothing is shown" in result.message
    assert "on 8 training sequences of 40" in result.message


def test_what_was_not_looked_at_is_said(forked, monkeypatch):
    monkeypatch.setattr(
        "safekd.language.hugging_face._reading_trainer.EvidenceBudget", lambda: EvidenceBudget(memory_bytes=1)
    )
    forked._bound_known = (None, (None, []))
    result = forked.result()
    assert result.status != "infeasible"
    assert "Not examined: what any student could reach (it needs " in result.message
    assert result.verdict.evidence["not_examined"]
    forked._bound_known = (None, (None, []))


def test_a_multiplier_that_rises_without_effect_is_named(forked):
    points = [replace(point, multipliers=[1.5**n]) for n, point in enumerate(forked.run.recorder.points)]
    still = [replace(point, readings=[replace(point.readings[0], measured=0.1)]) for point in points]
    facts = replace(forked._list_facts(), bound=None)
    assert find_rising(still) == [0]
    verdict = judge_trainer(still, 1e-2, facts)
    assert (verdict.status, verdict.evidence["rising"]) == ("budget_spent", ["truth"])
    assert "The multiplier of 'truth' rose from 3.38 to 11.4 meanwhile" in verdict.message
    assert "Lower 'truth' to 0.1" in verdict.next_move
    better = [
        replace(point, readings=[replace(point.readings[0], measured=0.1 + 0.03 * n)]) for n, point in enumerate(points)
    ]
    assert find_rising(better) == []
    assert find_rising(still[:3]) == []


def test_what_is_met_in_training_and_missed_in_evaluation_is_said(tmp_path):
    student = make_model()
    loose = kd.SafetyConstraint("truth", kd.safety.LogTruthProbability(CRITICAL, at=1e-5), at_least=1e-5)
    trainer = train(tmp_path, [loose], student=student)
    assert "On the evaluated data" not in trainer.result().message
    trainer.state.log_history.append({"eval_safety_truth": -0.5})
    assert "On the evaluated data a constraint is missed that is met in training" in trainer.result().message
    trainer.state.log_history.append({"eval_safety_truth": math.nan})
    assert "On the evaluated data" not in trainer.result().message


def test_padding_changes_no_bound(tmp_path):
    rows = make_rows(12)
    wanted = kd.SafetyConstraint("truth", TRUTH, at_least=0.9)
    bounds = []
    for side in ("right", "left"):
        trainer = make_trainer(tmp_path / side, rows=rows, constraints=[wanted], trace_steps=6)
        trainer.data_collator.side = side
        trainer.train()
        bounds.append(trainer.result().verdict.evidence["least_violation"])
    assert bounds[0] == pytest.approx(-0.1, abs=1e-6)  # all prefixes differ: the truth may have all probability
    assert bounds[1] == pytest.approx(-0.1, abs=1e-6)
