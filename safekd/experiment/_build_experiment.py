"""An experiment, built from its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solvers.polytope import WeightPolytope
from solvers.primal_dual import DualMethod

from ..data import Split
from ..divergences import ForwardKL
from ..errors import InvalidConfig
from ..safety import SafetyConstraint
from ..teachers import TeacherEnsemble, measure
from ..training import ConstrainedTrainer, CrossFit, Tighten
from ..weights import (
    Confidence,
    EntropyComplement,
    EntropyDecay,
    EntropyInverse,
    Evidence,
    InverseLoss,
    OrdinalSafety,
    PerformanceSoftmax,
    Rule,
    SafetyBlend,
    Unified,
    Uniform,
    orderings_from,
)
from ._configured_constraints import constraints_of
from ._configured_teachers import fitted_teacher, stored_teacher
from ._example_table import Table, load_table, split_table
from ._students import mlp
from .config import ExperimentConfig, FittedTeacherConfig


@dataclass(frozen=True)
class Experiment:
    """Everything that a configuration names, made.  ``evidence`` was measured on the validation split."""

    config: ExperimentConfig
    table: Table
    splits: dict[str, Split]
    ensemble: TeacherEnsemble
    evidence: Evidence
    unified: Unified
    constraints: list[SafetyConstraint]

    @property
    def train(self) -> Split:
        """The training split."""
        return self.splits["train"]

    @property
    def validation(self) -> Split:
        """The split on which teachers were measured and runs are watched."""
        return self.splits["validation"]

    @property
    def others(self) -> dict[str, Split]:
        """The split of its own that constraints and thresholds may use, by name, if there is one."""
        return {name: split for name, split in self.splits.items() if name == "safety"}

    @property
    def tighten(self) -> Tighten | CrossFit | None:
        """How thresholds are raised, None if they are not."""
        settings = self.config.tighten
        if settings is None:
            return None
        names = ("confidence", "rounds", "folds", "highest", "constraints")
        given = {name: getattr(settings, name) for name in names}
        shared: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if settings.on == "crossfit":
            return CrossFit(also=settings.also, **shared)
        return Tighten(settings.on, attempts=settings.attempts, **shared)

    @property
    def critical_contexts(self) -> list[int]:
        """Numbers of the contexts where orderings apply."""
        return self.table.context_numbers(self.config.weights.critical_contexts)

    def student(self, seed: int | None = None) -> nn.Module:
        """Return a fresh student; the same one every time for the same seed, the configuration's if left out."""
        drawn = self.config.seed if seed is None else seed
        return mlp(len(self.table.features), self.config.student.hidden, len(self.table.classes), drawn)

    def trainer(
        self,
        *,
        rule: Rule | None = None,
        constraints: Sequence[SafetyConstraint] | None = None,
        dual: DualMethod | None = None,
        seed: int | None = None,
    ) -> ConstrainedTrainer:
        """Return a trainer on a fresh student; what is left out comes from the configuration.

        seed: of student and batches.
        """
        student, settings = self.student(seed), self.config.training
        return ConstrainedTrainer(
            student,
            self.ensemble,
            weights=self.unified if rule is None else rule,
            constraints=self.constraints if constraints is None else constraints,
            optimizer=torch.optim.Adam(student.to(settings.device).parameters(), lr=settings.learning_rate),
            dual=dual,
            divergence=ForwardKL(settings.temperature),
            evidence=self.evidence,
            critical_contexts=self.critical_contexts,
            batch_size=settings.batch_size,
            device=settings.device,
            seed=self.config.seed if seed is None else seed,
        )

    def trainer_at(self, threshold: float, seed: int | None = None) -> ConstrainedTrainer:
        """Return a trainer whose first constraint asks for ``threshold``; the others stay."""
        first, *others = self.constraints
        return self.trainer(constraints=[first.at(threshold), *others], seed=seed)


def build(config: ExperimentConfig, folder: Path) -> Experiment:
    """Load data, fit teachers, measure them, and set up weights and constraints.

    folder: where relative paths of the configuration start.  Raises InvalidConfig and InvalidInput.
    """
    _check_device(config.training.device)
    table = load_table(config.data, folder)
    constraints = [rule for one in config.constraints for rule in constraints_of(one, table)]
    table.context_numbers(config.weights.critical_contexts)  # an unknown name is told before teachers are fitted
    splits, index = split_table(table, config.data, config.seed)
    polytope = WeightPolytope(len(config.teachers), lower=config.weights.lower, upper=config.weights.upper)
    ensemble = TeacherEnsemble(
        [
            fitted_teacher(teacher, table, splits["train"], config.seed)
            if isinstance(teacher, FittedTeacherConfig)
            else stored_teacher(teacher, table, index, folder)
            for teacher in config.teachers
        ]
    )
    evidence = measure(ensemble, splits["validation"], constraints[0].measure, contexts=len(table.contexts))
    return Experiment(config, table, splits, ensemble, evidence, _unified(config, polytope, evidence), constraints)


def _unified(config: ExperimentConfig, polytope: WeightPolytope, evidence: Evidence) -> Unified:
    weights = config.weights
    token: dict[str, Rule] = {
        "uniform": Uniform(),
        "entropy_decay": EntropyDecay(weights.rate),
        "entropy_inverse": EntropyInverse(1e-3),
        "entropy_complement": EntropyComplement(),
        "confidence": Confidence(),
        "safety_blend": SafetyBlend(),
    }
    task: dict[str, Rule] = {
        "uniform": Uniform(),
        "inverse_loss": InverseLoss(),
        "performance_softmax": PerformanceSoftmax(),
    }
    context: dict[str, Rule] = {"uniform": Uniform(), "ordinal_safety": OrdinalSafety()}
    return Unified(
        token=token[weights.token],
        task=task[weights.task],
        context=context[weights.context],
        polytope=polytope,
        metric=weights.metric,
        context_orderings=None if weights.level is None else orderings_from(evidence, weights.level),
    )


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InvalidConfig(f"training.device is '{name}', which this machine does not have; use 'cpu'.") from error
