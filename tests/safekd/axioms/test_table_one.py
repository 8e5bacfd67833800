"""Table I of the paper: six ways of weighing teachers train the same student on the same data, raw and conforming.

Digits 0 to 5 of scikit-learn; one teacher sees everything, one the upper quarter, one was fitted on noisy labels.
Zeros are critical.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import safekd as kd
from safekd.safety import TruthProbability
from safekd.teachers import SklearnTeacher, TeacherEnsemble, measure_teachers
from safekd.training import FitResult
from safekd.weights import (
    Conforming,
    EntropyDecay,
    InverseLoss,
    MetaTeacher,
    MultiLevel,
    OrdinalSafety,
    PolicyGradient,
    Rule,
    Signals,
    TeacherEvidence,
    UncertaintyWeighting,
    Unified,
    Uniform,
    find_ordering_violations,
    learned_rules,
)
from solvers.polytope import WeightPolytope

P = WeightPolytope(3, lower=0.15, upper=0.5)
UNIFIED = Unified(token=EntropyDecay(), task=InverseLoss(), context=OrdinalSafety(), polytope=P)
ROWS = {
    "uniform": Uniform,
    "uncertainty weighting": lambda: UncertaintyWeighting(3),
    "meta-teacher": MetaTeacher,
    "multi-level": lambda: MultiLevel(3, features=64),
    "MTKD-RL": PolicyGradient,
    "this framework": lambda: UNIFIED.compose,
}


@cache
def digits() -> tuple[kd.Split, kd.Split, TeacherEnsemble, TeacherEvidence]:
    data = load_digits(n_class=6)
    inputs, labels = torch.tensor(data.data / 16), torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    splits = {"teach": order[:300], "train": order[300:600], "audit": order[600:]}
    x, y = (part[splits["teach"]].numpy() for part in (inputs, labels))
    noisy = torch.where(
        torch.rand(300, generator=torch.Generator().manual_seed(1)) < 0.5, torch.tensor(y).roll(1), torch.tensor(y)
    ).numpy()
    upper = list(range(16))
    teachers = [
        SklearnTeacher("whole", LogisticRegression(max_iter=200).fit(x, y), 6),
        SklearnTeacher("upper", LogisticRegression(max_iter=200).fit(x[:, upper], y), 6, columns=upper),
        SklearnTeacher("noisy", LogisticRegression(max_iter=200).fit(x, noisy), 6),
    ]
    train, audit = (kd.Split(name, inputs[splits[name]].float(), labels[splits[name]]) for name in ("train", "audit"))
    ensemble = TeacherEnsemble(teachers)
    return train, audit, ensemble, measure_teachers(ensemble, audit, TruthProbability(critical=[0]))


@dataclass
class Run:
    result: FitResult
    signals: Signals
    weights_K: Tensor
    accuracy: float


@cache
def run(row: str, conforming: bool) -> Run:
    train, audit, ensemble, evidence = digits()
    torch.manual_seed(0)
    rule: Rule = ROWS[row]()
    rule = Conforming(rule, P) if conforming else rule
    student = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 6))
    trainer = kd.ConstrainedTrainer(
        student,
        ensemble,
        weights=rule,
        constraints=[kd.SafetyConstraint("zeros", TruthProbability(critical=[0]), 0.5)],
        optimizer=torch.optim.Adam(student.parameters(), lr=1e-2),
        evidence=evidence,
        batch_size=100,
    )
    result = trainer.fit(train, audit, epochs=40, trace_every=60)
    signals = trainer.objective.signals(train, train.batch(torch.arange(len(train))))
    with torch.no_grad():
        right = student(audit.inputs).argmax(-1) == audit.labels
        return Run(result, signals, rule(signals), float(right.double().mean()))


each_row = pytest.mark.parametrize("row", ROWS)
each_way = pytest.mark.parametrize("conforming", [False, True], ids=["raw", "conforming"])


@each_way
@each_row
def test_every_row_trains(row, conforming):
    done = run(row, conforming)
    losses = done.result.trace["distillation_loss"]
    assert done.result.status in ("converged", "budget_spent")
    assert torch.isfinite(torch.tensor(losses.tolist())).all()
    assert losses.iloc[-1] < 0.5 * losses.iloc[0]
    assert done.accuracy > 0.85  # one in six by chance
    assert done.result.feasible


@each_row
def test_made_conforming_it_keeps_bounds_and_orderings(row):
    done = run(row, True)
    assert P.check(done.weights_K).holds()
    assert broken_orderings(done) == 0
    assert 30 < int(done.signals.critical.sum()) < 300


BROKEN = {
    "uniform": (False, False),
    "uncertainty weighting": (False, True),
    "meta-teacher": (True, True),
    "multi-level": (True, True),
    "MTKD-RL": (True, True),
    "this framework": (True, False),
}


@each_row
def test_raw_it_keeps_what_its_formula_happens_to_keep(row):
    """Bounds, and the ordering by measured safety on zeros: whole .95, noisy .45, upper .43.

    No published row looks at safety, so each that adapts breaks it somewhere; the product of the three scales keeps it
    here, but not its bounds.
    """
    done = run(row, False)
    bounds, ordering = BROKEN[row]
    assert done.weights_K.sum(-1).tolist() == pytest.approx([1.0] * 300)
    assert (not P.check(done.weights_K).holds(1e-6)) == bounds  # rules that learn do so in single precision
    assert (broken_orderings(done) > 0) == ordering


@each_row
def test_what_learns_has_learned(row):
    """Weights are no longer those of a fresh rule on the same student."""
    done, learners = run(row, False), learned_rules(run(row, False).result.rule)
    assert bool(learners) == (row not in ("uniform", "this framework"))
    torch.manual_seed(0)
    with torch.no_grad():
        fresh_K = ROWS[row]()(done.signals)
    assert bool(((done.weights_K - fresh_K).abs() > 0.01).any()) == bool(learners)


def test_the_framework_made_conforming_is_unified():
    done = run("this framework", True)
    torch.testing.assert_close(done.weights_K, UNIFIED(done.signals), rtol=0, atol=1e-12)


def broken_orderings(done: Run) -> int:
    return int(find_ordering_violations(done.weights_K, done.signals.safety, done.signals.critical).sum())
