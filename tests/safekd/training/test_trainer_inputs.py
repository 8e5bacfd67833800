"""What the trainer refuses, in which words; what a run leaves on disk."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import safekd as kd
from safekd.teachers import StoredTeacher, TeacherEnsemble
from safekd.training.trace import read_trace
from tests.support.problems import FreeLogits, Q, agreeing, at_least, one_each, same, state, trainer_for


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=0.1)


def frozen():
    student = FreeLogits()
    student.logits.requires_grad_(False)
    return kd.ConstrainedTrainer(student, agreeing(), optimizer=sgd(FreeLogits()))


BUILT = {
    "same names": (lambda: trainer_for(at_least(0.5), at_least(0.6)), r"names must differ; got \['first', 'first'\]"),
    "batch size": (lambda: trainer_for(batch_size=0), "`batch_size` is 0; wanted at least 1, or None"),
    "frozen": (frozen, "student has no parameters that require gradients"),
    "stranger": (
        lambda: kd.ConstrainedTrainer(FreeLogits(), agreeing(), optimizer=sgd(FreeLogits())),
        r"optimizer holds no parameter of the student; make it from student.parameters\(\)",
    ),
    "no teachers": (lambda: trainer_for(teachers=[]), "There are no teachers"),
}


@pytest.mark.parametrize("case", BUILT)
def test_a_trainer_that_does_not_fit_together_is_refused(case):
    build, message = BUILT[case]
    with pytest.raises(kd.InvalidInput, match=message):
        build()


def wide(classes):
    return trainer_for(student=FreeLogits(classes))


def scalar_loss():
    def mean(log_q, logits):
        return nn.functional.kl_div(logits.log_softmax(-1), log_q.exp(), reduction="batchmean")

    return trainer_for(divergence=mean)


class Flat(FreeLogits):
    def forward(self, inputs):
        return super().forward(inputs)[:1]


FITTED = {
    "epochs": (lambda: trainer_for().fit(one_each(), epochs=0), "`epochs` is 0; wanted at least 1"),
    "tolerance": (
        lambda: trainer_for().fit(one_each(), epochs=1, tolerance=0.0),
        "`tolerance` is 0.0; it must be above 0",
    ),
    "nan": (lambda: trainer_for().fit(one_each(), epochs=1, tolerance=math.nan), "`tolerance` is nan"),
    "trace_every": (
        lambda: trainer_for().fit(one_each(), epochs=1, trace_every=0),
        "`trace_every` is 0; wanted at lea",
    ),
    "no split": (
        lambda: trainer_for(at_least(0.5, split="ward")).fit(one_each(), epochs=1),
        r"'first' is posed on split 'ward', which was not given; there is \['train'\].*splits=\{'ward': data\}",
    ),
    "covers nothing": (
        lambda: trainer_for(at_least(0.5, critical=7)).fit(one_each(), epochs=1),
        "'first' covers no example of split 'train'",
    ),
    "context": (
        lambda: trainer_for(at_least(0.5, contexts=[3])).fit(one_each(), epochs=1),
        "'first' covers no example of split 'train'",
    ),
    "train twice": (
        lambda: trainer_for().fit(one_each(), epochs=1, splits={"train": one_each()}),
        "`splits` names 'train', which fit takes as an argument of its own",
    ),
    "validation twice": (
        lambda: trainer_for().fit(one_each(), one_each(), epochs=1, splits={"validation": one_each()}),
        "`splits` names 'validation'",
    ),
    "data": (lambda: trainer_for().fit([1, 2], epochs=1), "`train` is a list; wanted a kd.Split"),
    "classes": (
        lambda: wide(4).fit(one_each(), epochs=1),
        "The student gives 4 classes, the teachers give 3; give the student as many outputs",
    ),
    "rows": (
        lambda: trainer_for(student=Flat()).fit(one_each(), epochs=1),
        r"The student gives \(1, 3\) for labels of shape \(3,\); wanted one row of logits a label",
    ),
    "labels": (
        lambda: trainer_for().fit((torch.zeros(3, 1), torch.tensor([0, 1, 5])), epochs=1),
        "A label is 5, but the teachers know only 3 classes, 0 to 2",
    ),
    "scalar loss": (
        lambda: scalar_loss().fit(one_each(), epochs=1),
        r"divergence gives shape \(\); wanted one loss a position, \(3,\): sum over classes only",
    ),
    "weights": (
        lambda: trainer_for(weights=lambda s: 2 * s.ones()).fit(one_each(), epochs=1),
        "Weights sum to 2; a pool needs weights that sum to 1",
    ),
    "weights' shape": (
        lambda: trainer_for(weights=lambda s: torch.ones(2)).fit(one_each(), epochs=1),
        r"Weights of shape \(2,\) do not fit teachers of shape \(\d, 1, 3\)",
    ),
    "warm multipliers": (
        lambda: trainer_for(at_least(0.5)).fit(
            one_each(), epochs=1, warm_start=kd.WarmStart(state(FreeLogits()), [1.0, 2.0])
        ),
        r"warm start has multipliers \[1.0, 2.0\]; wanted one for each of the 1 constraints.*or none at all",
    ),
    "warm sign": (
        lambda: trainer_for(at_least(0.5)).fit(
            one_each(), epochs=1, warm_start=kd.WarmStart(state(FreeLogits()), [-1.0])
        ),
        r"multipliers \[-1.0\]; wanted .* at least 0 and finite",
    ),
    "warm student": (
        lambda: trainer_for().fit(one_each(), epochs=1, warm_start=kd.WarmStart(state(FreeLogits(4)), [])),
        "warm start's parameters do not fit the student. .*size mismatch for logits",
    ),
}


@pytest.mark.parametrize("case", FITTED)
def test_a_run_that_cannot_be_is_refused(case):
    fit, message = FITTED[case]
    with pytest.raises(kd.InvalidInput, match="(?s)" + message):
        fit()


def test_what_is_refused_leaves_the_student_alone():
    trainer = trainer_for(at_least(0.5))
    before = state(trainer.student)
    with pytest.raises(kd.InvalidInput):
        trainer.fit(one_each(), epochs=1, warm_start=kd.WarmStart({"logits": torch.ones(1, 3)}, [math.nan]))
    assert same(state(trainer.student), before)


def test_data_in_every_form_that_is_taken():
    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return torch.zeros(1), i

    losses = []
    for data in (one_each(), (torch.zeros(3, 1), torch.arange(3)), Pairs()):
        losses.append(trainer_for(at_least(0.6)).fit(data, epochs=10).point.loss)
    assert losses[0] == losses[1] == losses[2]


def test_an_ensemble_is_taken_as_it_is():
    ensemble = TeacherEnsemble(agreeing())
    assert trainer_for(teachers=ensemble).objective.ensemble is ensemble


def test_a_run_directory_holds_the_whole_story(tmp_path):
    folder = tmp_path / "runs" / "a"
    result = trainer_for(at_least(0.6)).fit(one_each(), one_each(name="validation"), epochs=200, run_dir=folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "best_feasible.safetensors",
        "manifest.json",
        "student.safetensors",
        "trace.csv",
        "trace.jsonl",
        "used_examples.safetensors",
        "verdict.json",
    ]
    read = pd.read_csv(folder / "trace.csv")
    assert list(read.columns) == list(result.trace.columns)
    for column in read:
        assert (read[column].eq(result.trace[column]) | read[column].isna() & result.trace[column].isna()).all(), column
    for name in ("trace.csv", "trace.jsonl"):
        pd.testing.assert_frame_equal(read_trace(folder / name), result.trace, check_exact=True)
    assert same(load_file(folder / "student.safetensors"), state(result.student))
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["status"] == result.status
    assert verdict["message"] == result.message
    assert verdict["next_move"] == result.next_move
    assert verdict["distillation_loss"] == result.point.loss
    assert verdict["multipliers"] == dict(result.multipliers)
    assert verdict["residuals"]["stationarity"] == result.residuals.stationarity
    assert [(one["name"], one["split"]) for one in verdict["readings"]] == [("first", "train"), ("first", "validation")]


def test_a_run_directory_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(kd.InvalidInput, match="Cannot write"):
        trainer_for().fit(one_each(), epochs=1, run_dir=tmp_path / "file")


def test_a_saved_student_with_tied_and_odd_parameters_loads(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(3, 3)
            self.two = nn.Linear(3, 3)
            self.two.weight = self.one.weight
            self.register_buffer("strided", torch.arange(6.0).reshape(2, 3).T)

        def forward(self, inputs):
            return self.two(self.one(inputs.expand(-1, 3)))

    student = Tied()
    teachers = [StoredTeacher("q", torch.tensor(Q).expand(3, -1))]
    trainer_for(student=student, teachers=teachers).fit(one_each(), epochs=2, run_dir=tmp_path)
    fresh = Tied()
    fresh.load_state_dict(load_file(tmp_path / "student.safetensors"))
    assert same(state(fresh), state(student))


def test_other_constraints_make_another_trainer_of_the_same_student():
    trainer = trainer_for(at_least(0.6))
    other = trainer.with_constraints([trainer.constraints[0].with_threshold(0.7), at_least(0.5, "second", critical=1)])
    assert [rule.required for rule in trainer.constraints] == [0.6]  # as it was
    assert [rule.required for rule in other.constraints] == [0.7, 0.5]
    assert other.student is trainer.student
    assert set(other.objective.critical_classes) == {*trainer.objective.critical_classes, 1}
    with pytest.raises(kd.InvalidInput, match="Constraint names must differ"):
        trainer.with_constraints([at_least(0.6), at_least(0.7)])


@pytest.mark.parametrize("training", [True, False])
def test_a_student_comes_back_in_the_mode_in_which_it_came(training):
    student = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 3))
    student.train(training)
    student[1].eval()
    trainer = kd.ConstrainedTrainer(
        student,
        [kd.teachers.StoredTeacher("t", torch.full((6, 3), 1 / 3))],
        optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
    )
    result = trainer.fit(kd.Split("train", torch.randn(6, 3), torch.arange(6) % 3), epochs=3)
    assert [part.training for part in student.modules()] == [training, training, False, training]
    for other in (result.student, result.best_feasible, result.most_feasible):
        assert not any(part.training for part in other.modules())
    with torch.no_grad():
        student[2].bias += 1  # what is trained on is trained on in the result
    assert torch.equal(result.student[2].bias, student[2].bias)
