"""The student that is best on the validation split, patience, and a fall of safety there that is told."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.errors import InvalidInput
from safekd.safety import TruthProbability
from safekd.teachers import StoredTeacher


def noisy_data(seed=0, examples=40, features=30):
    """Return few training examples, a fifth of them mislabeled, to be learned by heart, and many to validate on."""
    generator = torch.Generator().manual_seed(seed)
    y_N = torch.arange(examples + 400) % 2
    x_ND = torch.randn(len(y_N), features, generator=generator)
    x_ND[:, 0] += 3 * y_N
    wrong_n = torch.rand(examples, generator=generator) < 0.2
    y_N[:examples] = torch.where(wrong_n, 1 - y_N[:examples], y_N[:examples])
    q_NV = torch.nn.functional.one_hot(y_N, 2).double().clamp(0.02, 0.98)
    train = kd.Split("train", x_ND[:examples], y_N[:examples])
    return train, kd.Split("validation", x_ND[examples:], y_N[examples:]), q_NV


def make_trainer(train, validation, q_NV, at_least=0.95, **more):
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(train.inputs.shape[1], 32), nn.Tanh(), nn.Linear(32, 2))
    rule = kd.SafetyConstraint("safe", TruthProbability(critical=[1]), at_least)
    n = len(train)
    return kd.ConstrainedTrainer(
        student,
        [StoredTeacher("labels", {"train": q_NV[:n], "validation": q_NV[n:]})],
        optimizer=torch.optim.Adam(student.parameters(), lr=0.02),
        constraints=[rule],
        **more,
    )


def test_the_student_that_is_best_on_the_validation_split_is_kept_and_its_fall_is_told():
    train, validation, q_NV = noisy_data()
    points = []
    result = make_trainer(train, validation, q_NV).fit(
        train, validation, epochs=300, trace_every=10, tolerance=1e-9, on_trace=points.append
    )
    best = min(points, key=lambda point: (point.validation[0].violation, point.validation_loss))
    assert 0 < best.step < points[-1].step  # learned by heart from there on
    with torch.no_grad():
        kept = result.best_validated(validation.inputs).softmax(-1)[:, 1][validation.labels == 1].mean()
    assert float(kept) == pytest.approx(best.validation[0].measured, abs=1e-6)
    assert best.validation[0].measured > points[-1].validation[0].measured
    assert f"since step {best.step}" in result.message
    assert "On the validation split safety fell while training went on: 'safe' from" in result.message
    assert result.next_move.startswith(f"Compare result.best_validated, the student of step {best.step}")
    assert result.verdict.evidence["validation_best_step"] == best.step


def test_a_split_that_chose_a_student_cannot_certify_it():
    train, validation, q_NV = noisy_data()
    trainer = make_trainer(train, validation, q_NV)
    result = trainer.fit(train, validation, epochs=50, trace_every=10)
    (use,) = [use for use in result.uses if use.name == "validation"]
    assert use.looks == 6
    with pytest.raises(InvalidInput, match="6 looks to choose the best student: 400 shared examples"):
        kd.certify(result, trainer.constraints[0], validation)


def test_patience_ends_a_run_that_no_longer_gets_better_on_the_validation_split():
    train, validation, q_NV = noisy_data()
    points = []
    result = make_trainer(train, validation, q_NV).fit(
        train, validation, epochs=300, trace_every=5, patience=3, tolerance=1e-9, on_trace=points.append
    )
    ranks = [(point.validation[0].violation, point.validation_loss) for point in points]
    assert points[-1].step < 300
    assert min(ranks[-3:]) > min(ranks[:-3])
    assert ranks.index(min(ranks)) == len(ranks) - 4
    assert result.status == "budget_spent"
    assert "3 evaluations in a row gave no better student on the validation split" in result.message


def test_what_is_met_on_the_validation_split_has_not_fallen():
    train, validation, q_NV = noisy_data()
    result = make_trainer(train, validation, q_NV, at_least=0.3).fit(train, validation, epochs=100, trace_every=10)
    assert "safety fell" not in result.message
    assert result.best_validated is not None


def test_without_a_validation_split_there_is_no_such_student():
    train, validation, q_NV = noisy_data()
    assert make_trainer(train, validation, q_NV).fit(train, epochs=5).best_validated is None


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"patience": 0}, "`patience` is 0; wanted at least 1 evaluation"),
        ({"patience": 2.5}, "`patience` is 2.5"),
        ({"patience": 2, "validation": None}, "none was given: fit"),
        ({"patience": 2, "tighten": kd.Tighten("validation")}, "which `tighten` keeps for judging"),
    ],
)
def test_patience_that_cannot_be_had(more, told):
    train, validation, q_NV = noisy_data()
    with pytest.raises(InvalidInput, match=told):
        make_trainer(train, validation, q_NV).fit(train, **{"validation": validation, "epochs": 5, **more})
