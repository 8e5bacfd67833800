"""An experiment, built from its configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solvers.polytope import WeightPolytope
from solvers.primal_dual import DUAL_METHODS, DualMethod
from solvers.short_repr import ShortRepr

from .._torch_state import require_device
from ..data import Split, StreamSource, drop_shared
from ..divergences import DIVERGENCES
from ..errors import InvalidConfig, InvalidInput
from ..io import is_parquet
from ..safety import SafetyConstraint
from ..teachers import TeacherEnsemble, measure_teachers
from ..training import ConstrainedTrainer, CrossFit, Tighten
from ..weights import Rule, Stored, TeacherEvidence, Unified, infer_orderings
from ._example_table import Array, ExampleTable, FeatureScaling, load_examples
from ._parquet_examples import require_batch_size, survey_parquet
from ._registries import build_registered, find_rules
from ._split_rows import make_splits, split_examples
from ._stored_weights import read_stored_weights
from .config import ExperimentConfig, FittedTeacherConfig
from .configured_parts import build_constraints, fit_configured_teacher, read_stored_teacher
from .students import StudentMaker, find_student


@dataclass(frozen=True)
class ExperimentSettings:
    """What is worked out before a student is made; ``tests/safekd/experiment/test_config_limits.py`` would notice.

    Attributes:
        bytes_a_parameter: Of a student in training: itself, its gradient, Adam's two averages and two copies that may
            be kept, in float32, and two vectors in float64.
    """

    bytes_a_parameter: int = 40


_SETTINGS = ExperimentSettings()


@dataclass(frozen=True, repr=False)
class Experiment(ShortRepr):
    """Everything that a configuration names, made.

    Attributes:
        config: The configuration.
        table: The examples before they were split.
        splits: Splits by name, in memory; of data that stream a sample of each.
        stream: The training data where they are streamed; None where they are in memory.
        ensemble: The teachers.
        evidence: Safety and loss of each teacher, measured on the validation split.
        unified: The weighting rule of three scales.
        constraints: The safety constraints, in the configuration's order.
        index: Rows of the table that each split held before what it shares with the training split was dropped.
        scaling: How features were standardized.
        maker: How students are made.
        rows: Of the data; of those that stream ``table`` is a sample.
    """

    config: ExperimentConfig
    table: ExampleTable
    splits: dict[str, Split]
    stream: StreamSource | None
    ensemble: TeacherEnsemble
    evidence: TeacherEvidence
    unified: Unified
    constraints: list[SafetyConstraint]
    index: dict[str, Array]
    scaling: FeatureScaling
    maker: StudentMaker
    rows: int

    @property
    def train(self) -> Split | StreamSource:
        """The training data."""
        return self.splits["train"] if self.stream is None else self.stream

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
        names = ("confidence", "rounds", "folds", "highest", "constraints", "margin")
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
        """Return a fresh student, the same one every time for the same seed.

        Args:
            seed: Of its parameters; the configuration's if left out.
        """
        drawn = self.config.seed if seed is None else seed
        return self.maker.build(len(self.table.features), len(self.table.classes), drawn, self.table.image_shape)

    def trainer(
        self,
        *,
        rule: Rule | None = None,
        constraints: Sequence[SafetyConstraint] | None = None,
        dual: DualMethod | None = None,
        seed: int | None = None,
    ) -> ConstrainedTrainer:
        """Return a trainer on a fresh student; what is left out comes from the configuration.

        Args:
            rule: Weighting rule.
            constraints: Safety constraints.
            dual: How multipliers move.
            seed: Of student and batches.
        """
        student, settings = self.student(seed), self.config.training
        named: Callable[[], DualMethod] = DUAL_METHODS[settings.dual]
        return ConstrainedTrainer(
            student,
            self.ensemble,
            weights=self.unified if rule is None else rule,
            constraints=self.constraints if constraints is None else constraints,
            optimizer=torch.optim.Adam(student.to(settings.device).parameters(), lr=settings.learning_rate),
            dual=named() if dual is None else dual,
            divergence=DIVERGENCES[settings.divergence](settings.temperature),
            pool=self.config.weights.make_pool(),
            evidence=self.evidence,
            critical_contexts=self.critical_contexts,
            batch_size=settings.batch_size,
            device=settings.device,
            seed=self.config.seed if seed is None else seed,
        )

    def trainer_at(self, threshold: float, seed: int | None = None) -> ConstrainedTrainer:
        """Return a trainer with another threshold of the first constraint; the others stay.

        Args:
            threshold: What the first constraint asks for, above 0 and at most 1.
            seed: Of student and batches; the configuration's if left out.
        """
        first, *others = self.constraints
        return self.trainer(constraints=[first.with_threshold(threshold), *others], seed=seed)


def build_experiment(config: ExperimentConfig, folder: Path) -> Experiment:
    """Load data, fit teachers, measure them, and set up weights and constraints.

    Args:
        config: What to build.
        folder: Where relative paths of the configuration start.

    Raises:
        InvalidConfig: The data, the machine or scikit-learn lack something that is named.
        InvalidInput: A file holds something that cannot be used.
    """
    _require_device(config.training.device)
    maker = find_student(config.student.kind, config.student.given_options())
    survey = None
    if is_parquet(Path(config.data.source)) and config.data.image_size is None:
        survey = survey_parquet(config.data, folder / config.data.source, config.seed)
    table = load_examples(config.data, folder) if survey is None else survey.table
    constraints = [constraint for one in config.constraints for constraint in build_constraints(one, table)]
    # what is wrong with them is said before teachers are fitted
    rules = {} if config.weights.stored is not None else _build_rules(config)
    table.context_numbers(config.weights.critical_contexts)
    stream = None
    if survey is None or (config.data.split is None and not survey.streamed):
        splits, index, scaling = split_examples(table, config.data, config.seed)
    else:
        index, scaling = survey.index, survey.scaling
        splits = make_splits(table, index, scaling, survey.row_N)
        if survey.streamed:
            stream = survey.stream(require_batch_size(config.training.batch_size), config.seed)
        trained = splits["train"] if stream is None else stream
        splits = {name: split if name == "train" else drop_shared(split, trained) for name, split in splits.items()}
    _require_named_splits(config, splits)
    rows = None if stream is None or survey is None else survey.rows
    if config.weights.stored is not None:
        names, path = [teacher.name for teacher in config.teachers], folder / config.weights.stored
        column = config.weights.key
        if rows is None or column is not None:
            rules = {"token": read_stored_weights(path, names, index, None if rows else table.keys, column)}
        else:
            rules = {"token": Stored(path)}
    _require_student(maker, config, table)
    lower, upper = config.weights.bounds(len(config.teachers))
    polytope = WeightPolytope(len(config.teachers), lower=lower, upper=upper)
    ensemble = TeacherEnsemble(
        [
            fit_configured_teacher(teacher, table, splits["train"], config.seed)
            if isinstance(teacher, FittedTeacherConfig)
            else read_stored_teacher(teacher, table, index, folder, rows)
            for teacher in config.teachers
        ]
    )
    evidence = measure_teachers(ensemble, splits["validation"], constraints[0].measure, contexts=len(table.contexts))
    orderings = None if config.weights.level is None else infer_orderings(evidence, config.weights.level)
    unified = Unified(
        token=rules.get("token"),
        task=rules.get("task"),
        context=rules.get("context"),
        polytope=polytope,
        metric=config.weights.metric,
        context_orderings=orderings,
    )
    whole = len(table.label_N) if rows is None else rows
    parts = (constraints, index, scaling, maker, whole)
    return Experiment(config, table, splits, stream, ensemble, evidence, unified, *parts)


def _require_named_splits(config: ExperimentConfig, splits: dict[str, Split]) -> None:
    """Refuse what names a split that the data have no row of."""
    for what, name in config.named_splits().items():
        if name not in splits:
            raise InvalidConfig(
                f"{what} names the split '{name}', and no row of {config.data.source} has '{name}' in column "
                f"'{config.data.split}'."
            )


def _build_rules(config: ExperimentConfig) -> dict[str, Rule]:
    """Return the weighting rule of each scale."""
    weights = config.weights
    settings = {"entropy_decay": {"rate": weights.rate}, "entropy_inverse": {"eps": weights.entropy_floor}}
    given = {"n_teachers": len(config.teachers)}
    return {
        scale: build_registered(f"weights.{scale}", name, find_rules(scale), {**given, **settings.get(name, {})})
        for scale, name in (("token", weights.token), ("task", weights.task), ("context", weights.context))
    }


def estimate_training_bytes(parameters: int) -> int:
    """Return how much memory a student takes in training, without its batches.

    Args:
        parameters: How many numbers it has.
    """
    return parameters * _SETTINGS.bytes_a_parameter


def _require_device(name: str) -> None:
    try:
        require_device(name)
    except InvalidInput as error:
        raise InvalidConfig(str(error).replace("`device`", "training.device")) from error


def _require_student(maker: StudentMaker, config: ExperimentConfig, table: ExampleTable) -> None:
    """Refuse a student that cannot be made, a perceptron too large for the machine before anything of it is made."""
    if maker.kind != "mlp":
        maker.build(len(table.features), len(table.classes), config.seed, table.image_shape)
        return
    sizes = [len(table.features), *config.student.hidden, len(table.classes)]
    parameters = sum((before + 1) * after for before, after in pairwise(sizes))
    needed = estimate_training_bytes(parameters)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else needed
    if needed > memory:
        raise InvalidConfig(
            f"student.hidden is {config.student.hidden}: {parameters:,} parameters need some {needed / 1e9:,.0f} GB "
            f"to be trained, and this machine has {memory / 1e9:,.0f} GB. Take smaller layers."
        )
