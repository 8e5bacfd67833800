"""What a run hands back: corrected at little loss, and as it was where a correction fails."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import scale

import safekd as kd
from safekd.safety import TruthProbability
from safekd.teachers import StoredTeacher
from safekd.training.checkpoints import FinalIterate, _final_iterate
from tests.support.problems import FreeLogits, at_least, one_each, same, state, trainer_for


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("cannot allocate 185 GB")])
def test_a_correction_that_fails_loses_no_student(error, monkeypatch):
    def fail(*_, **__):
        raise error

    asked = []
    monkeypatch.setattr(
        "safekd.training.checkpoints._final_iterate.correct_constraints", lambda *more: asked.append(1) or fail()
    )
    students = []
    trainer = trainer_for(at_least(0.6))
    result = trainer.fit(one_each(), epochs=37, on_trace=lambda _: students.append(state(trainer.student)))
    assert asked  # the test means something
    assert result.point.step == 37
    assert same(state(result.student), students[-1])
    told = f"whether a last correction onto the constraints helps ({type(error).__name__}: {error})"
    assert f"Not examined: {told}" in result.message
    assert told in result.verdict.evidence["not_examined"]


def train_linear() -> kd.FitResult:
    """Adam at .001 is far from its minimum after so many steps, and thirty features that go together bend the loss."""
    data = load_breast_cancer()
    x, y = scale(data.data), data.target
    q = 0.9 * KNeighborsClassifier(20).fit(x, y).predict_proba(x) + 0.05
    size = np.digitize(x[:, 0], np.quantile(x[:, 0], [0.2, 0.4, 0.6, 0.8]))
    inputs, labels, context = torch.tensor(x, dtype=torch.float32), torch.tensor(y), torch.tensor(size)
    train = kd.Split("train", inputs, labels, context=context)
    rules = [
        kd.SafetyConstraint(f"size {group}", TruthProbability(), at_least, contexts=[group])
        for group, at_least in enumerate([0.95, 0.93, 0.9, 0.88, 0.97])
    ]
    torch.manual_seed(0)
    student = torch.nn.Linear(30, 2)
    adam = torch.optim.Adam(student.parameters(), lr=1e-3)
    teacher = StoredTeacher("neighbors", torch.tensor(q))
    trainer = kd.ConstrainedTrainer(student, [teacher], constraints=rules, optimizer=adam, batch_size=64)
    return trainer.fit(train, epochs=80, trace_every=240)


def test_a_short_run_is_corrected_where_that_costs_little(monkeypatch):
    """The smallest correction costs a tenth more loss; gradients read a fiftieth of what training read at most."""
    asked = []
    read = FinalIterate._read_sampled_gradient
    monkeypatch.setattr(FinalIterate, "_read_sampled_gradient", lambda final: asked.append(1) or read(final))
    looks = train_linear()
    assert 0 < len(asked) <= 0.02 * looks.point.step
    monkeypatch.setattr(_final_iterate, "COSTS", _final_iterate.CorrectionCostSettings(share=0.0))
    asked.clear()
    smallest = train_linear()
    assert not asked
    for result in (looks, smallest):
        assert max(reading.violation for reading in result.point.readings) <= 1e-3
    assert looks.point.loss < 0.95 * smallest.point.loss


@pytest.mark.parametrize(
    ("dtype", "autocast", "bends"),
    [
        (torch.float64, None, True),
        (torch.float32, None, True),
        (torch.bfloat16, None, False),
        (torch.float32, torch.bfloat16, False),
    ],
)
def test_in_half_types_differences_of_gradients_are_rounding_and_are_not_taken(dtype, autocast, bends):
    objective = SimpleNamespace(student=FreeLogits(dtype=dtype), autocast=autocast)
    final = FinalIterate(objective, one_each(), {}, [], 1e-3, corrects=True, batch_size=3, steps=1000)
    curvature = final._find_curvature(candidates=2)
    assert (curvature is not None) == bends
    assert curvature is None or curvature.passes == 0.02 * 1000 / 2  # each reads the three examples there are
