"""Tasks on which a constraint that is met in training is missed on new data, each with many new cases to judge by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import safekd as kd
from safekd.demo import load_demo_config
from safekd.experiment import build_experiment

from . import _digits as digits
from . import _synthetic as synthetic
from ._population import Draw, make_trainer

_MEASURE = kd.safety.TruthProbability


@dataclass(frozen=True)
class Task:
    """A problem by seed, and what the report says of it."""

    make: Callable[[int], Draw]
    about: str


def _rule(name: str, critical: Sequence[int], at_least: float) -> kd.SafetyConstraint:
    return kd.SafetyConstraint(name, measure=_MEASURE(critical=critical), at_least=at_least)


def _breast_cancer(seed: int) -> Draw:
    experiment = build_experiment(load_demo_config(seed)[1], Path())
    parts = [experiment.splits[name] for name in ("certify", "test")]
    contexts = torch.cat([part.batch().context for part in parts])
    new = kd.Split("new", torch.cat([p.inputs for p in parts]), torch.cat([p.labels for p in parts]), context=contexts)
    rule = experiment.constraints[0]
    return Draw(
        rule,
        experiment.train,
        experiment.validation,
        new,
        new,
        lambda constrained: experiment.trainer(constraints=[rule] if constrained else []),
    )


def _synthetic(population: synthetic.Population, rule: kd.SafetyConstraint, hidden: Sequence[int]) -> Draw:
    train, judge, mixed = population.draw("train"), population.draw("judge"), population.draw("mixed")
    trainer = make_trainer(rule, population.teachers, train, population.classes, hidden, population.seed)
    return Draw(rule, train, judge, population.critical(rule), mixed, trainer)


def _tabular(seed: int) -> Draw:
    return _synthetic(synthetic.tabular(seed), _rule("rare class", [1], 0.7), ())


def _clusters(seed: int) -> Draw:
    return _synthetic(synthetic.clusters(seed), _rule("classes 0, 1", [0, 1], 0.7), (32,))


def _digits(seed: int, critical: Sequence[int], at_least: float, hidden: Sequence[int]) -> Draw:
    rule = _rule(f"digits {', '.join(map(str, critical))}", critical, at_least)
    draw = digits.draw(seed, critical)
    trainer = make_trainer(rule, draw.teachers, draw.train, 10, hidden, seed)
    return Draw(rule, draw.train, draw.judge, draw.new, draw.mixed, trainer, draw.origins)


DEFAULT = ("tabular", "clusters", "digits, linear", "digits, hidden layer")
TASKS = {
    "tabular": Task(
        _tabular,
        "Two classes in 15 dimensions, nearly linear, the critical one a quarter of all cases: at least 0.7. Three "
        "linear teachers that lean away from it; a linear student; 350 training and 500 judging examples, of which "
        "some 95 and 135 are critical.",
    ),
    "clusters": Task(
        _clusters,
        "Five classes of two clusters each in 10 dimensions, 5 % of all labels wrong; classes 0 and 1 at least 0.7. "
        "Three teachers fitted before the clusters drifted; 32 hidden units; 500 training and 350 judging examples, "
        "of which some 200 and 140 are critical.",
    ),
    "digits, linear": Task(
        lambda seed: _digits(seed, [3, 8, 9], 0.7, ()),
        "Digits of scikit-learn, augmented; 3, 8 and 9 at least 0.7. A linear student; 450 training and 250 judging "
        "digits, of which some 135 and 75 are critical.",
    ),
    "digits, hidden layer": Task(
        lambda seed: _digits(seed, [2, 4, 7], 0.8, (32,)),
        "The same with 2, 4 and 7 at least 0.8, and 32 hidden units.",
    ),
    "breast cancer": Task(
        _breast_cancer,
        "The demo: 569 cases, malignant ones at least 0.95. The judge is the validation split, some 42 malignant "
        "cases, on which the teachers were measured too; only some 74 malignant cases are new.",
    ),
}
