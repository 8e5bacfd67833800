"""Evaluations of a sample: when, of how many examples, and that everybody is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import safekd as kd
from safekd.data import DatasetSource, Split
from safekd.errors import InvalidInput
from safekd.training.loop import _evaluation_sample

N = 2000
draw = torch.Generator().manual_seed(0)
X = torch.randn(N, 3, generator=draw).double()
Y = (X[:, 0] + 0.3 * torch.randn(N, generator=draw).double() > 0).long()
V, W = X[:700] + 0.1, Y[:700]
SMALL = _evaluation_sample.EvaluationSampleSettings(large=500, least=64, least_covered=16)


def answer(x):
    return torch.stack([-x[:, 0], x[:, 0] + 0.2 * x[:, 1]], -1)


def trainer(batch_size=50):
    torch.manual_seed(0)
    student = torch.nn.Linear(3, 2).double()
    rules = [kd.SafetyConstraint("c", kd.safety.TruthProbability([1]), 0.6)]
    teacher = kd.teachers.CallableTeacher("t", answer, gives="logits")
    sgd = torch.optim.SGD(student.parameters(), lr=0.05)
    return kd.ConstrainedTrainer(student, [teacher], constraints=rules, optimizer=sgd, batch_size=batch_size)


SOURCES = {
    "split": lambda: (Split("train", X, Y), 50),
    "dataset": lambda: (DatasetSource("train", TensorDataset(X, Y)), 50),
    "stream": lambda: (DataLoader(TensorDataset(X, Y), 50), None),
}


def first_numbers(result):
    row = result.trace.iloc[0]
    return row[["distillation_loss", "safety_c", "se_distillation_loss", "se_c", "kkt_stationarity"]].to_numpy(float)


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_reads_the_same_sample_and_says_so(kind):
    train, batch_size = SOURCES[kind]()
    result = trainer(batch_size).fit(train, Split("validation", V, W), epochs=2, evaluation_examples=300)
    part = Split("train", X, Y).sample(300, 0)
    other = trainer().fit(Split("train", part.inputs, part.labels), epochs=1)  # step 0 reads the same student
    np.testing.assert_allclose(first_numbers(result), first_numbers(other), rtol=1e-12)
    assert result.point.sampled
    assert set(result.trace["gradients"]) == {"sampled"}
    assert result.point.readings[0].count == int(part.labels.sum()) != int(Y.sum())
    assert result.point.validation[0].count == int(Split("validation", V, W).sample(300, 0).labels.sum())
    for told in ("300 of 2,000 examples of 'train'", "300 of 700 examples of 'validation'", "drawn at random"):
        assert told in result.message
    assert result.verdict.evidence["examples_read"] == [300.0, 300.0]
    assert result.uses[0].record()["examples"] == N  # training saw them all


def test_a_mean_of_a_sample_is_within_its_standard_errors():
    whole = trainer().fit(Split("train", X, Y), epochs=1)
    part = trainer().fit(Split("train", X, Y), epochs=1, evaluation_examples=400)
    for name in ("distillation_loss", "c"):
        value = name if name == "distillation_loss" else f"safety_{name}"
        apart = abs(whole.trace[value].iloc[0] - part.trace[value].iloc[0])
        assert 0 < apart < 4 * part.trace[f"se_{name}"].iloc[0]
    assert torch.equal(torch.tensor(whole.trace["step"]), torch.tensor(part.trace["step"]))


def test_small_data_are_read_whole_to_the_last_bit():
    results = [trainer().fit(Split("train", X, Y), epochs=1, evaluation_examples=some) for some in (None, N, 5 * N)]
    for result in results:
        assert not result.point.sampled
        assert "Evaluations read" not in result.message
        assert result.residuals == results[0].residuals


def test_large_data_are_sampled_where_reading_all_would_cost_too_much(monkeypatch):
    monkeypatch.setattr(_evaluation_sample, "SETTINGS", SMALL)
    short = trainer().fit(Split("train", X, Y), epochs=20)
    # of 20 passes a fiftieth, over 7 evaluations of 5 forward passes an example, a step being 3
    assert short.point.readings[0].count == int(Split("train", X, Y).sample(68, 0).labels.sum())
    assert short.verdict.evidence["examples_read"] == [68.0]
    one_pass = trainer().fit(Split("train", X, Y), epochs=1)
    assert one_pass.verdict.evidence["examples_read"] == [64.0]  # the least
    long = trainer(500).fit(Split("train", X, Y), epochs=200, trace_every=400)
    assert not long.point.sampled  # all of them, twice, are a sixtieth of 200 passes
    few = trainer().fit(Split("train", X[:500], Y[:500]), epochs=1)
    assert not few.point.sampled


def test_a_rare_group_is_in_every_sample(monkeypatch):
    monkeypatch.setattr(_evaluation_sample, "SETTINGS", SMALL)
    rare = torch.where(torch.arange(N) % 50 == 0, 2, Y)
    student = torch.nn.Linear(3, 3).double()
    teacher = kd.teachers.CallableTeacher("t", lambda x: torch.cat([x[:, :2], -x[:, :1]], 1), gives="logits")
    sgd = torch.optim.SGD(student.parameters(), lr=0.05)
    measure = kd.safety.TruthProbability([2])
    posed = kd.ConstrainedTrainer(
        student, [teacher], constraints=[kd.SafetyConstraint("c", measure, 0.1)], optimizer=sgd, batch_size=50
    )
    read = posed.fit(Split("train", X, rare), epochs=1)
    assert read.verdict.evidence["examples_read"] == [800.0]  # 16 of 40, of every fiftieth of 2,000
    assert read.point.readings[0].count > 4
    with pytest.raises(InvalidInput, match=r"Evaluations read 3 examples, .*covers no example.*`evaluation_examples`"):
        posed.fit(Split("train", X, rare), epochs=1, evaluation_examples=3)


@pytest.mark.parametrize("examples", [0, -1, 1.5, True, "all"])
def test_numbers_that_cannot_be_are_refused(examples):
    with pytest.raises(InvalidInput, match=r"`evaluation_examples` is .*; wanted a whole number of at least 1"):
        trainer().fit(Split("train", X, Y), epochs=1, evaluation_examples=examples)
