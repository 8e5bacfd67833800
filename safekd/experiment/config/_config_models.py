"""The configuration of an experiment, as frozen and strict models: every key is known, every value is in range.

Each field's description is what a user reads when the value is refused, and in ``docs/experiment_files.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ._constraint_config import ConstraintConfig
from ._data_config import DataConfig, Fraction, Strict
from ._registered_names import (
    find_divergences,
    find_dual_methods,
    find_pools,
    find_scale_rules,
    find_students,
    find_trackers,
    require_registered,
)

if TYPE_CHECKING:  # torch, which a check of weights in files does without
    from ...pooling import PoolFunction

Count = Annotated[int, Field(ge=1, le=10**9)]
FewOf = Annotated[int, Field(ge=1, le=10_000)]  # of what is trained, attempted or drawn one by one
Workers = Annotated[int, Field(ge=1, le=256)]  # threads or processes: many thousands would abort the process
Metric = Literal["euclidean", "kl"]


@dataclass(frozen=True)
class SmallStudentSettings:
    """When one thread is taken; ``tests/safekd/experiment/test_config.py`` notices.

    Attributes:
        few_units: Of all hidden layers together.  1,500 steps of 250 rows of 30 features took .45, .57 and .88 s on one
            of two idle cores with 64, 128 and 256 units, and .51, .61 and .66 on both.
    """

    few_units: int = 128


_SMALL_STUDENT = SmallStudentSettings()


def _require_moderate(value: int | float | str | bool) -> int | float | str | bool:
    if isinstance(value, int) and abs(value) >= 2**31:
        raise ValueError("wanted a whole number between -2147483647 and 2147483647")
    return value


Option = Annotated[int | float | str | bool, AfterValidator(_require_moderate)]


class FittedTeacherConfig(Strict):
    """A scikit-learn classifier fitted on a slice of the training split."""

    name: str = Field(min_length=1, description="what tables and messages call it")
    kind: Literal["logistic_regression", "random_forest", "k_nearest_neighbors", "gradient_boosting"] = Field(
        description="which classifier"
    )
    features: list[str] = Field(default=["*"], min_length=1, description="column names or patterns it sees")
    contexts: list[str] | None = Field(default=None, min_length=1, description="contexts it is trained on")
    keep: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        default={}, description="share of a class that stays in its training data, by class name"
    )
    options: dict[str, Option] = Field(default={}, description="passed to the scikit-learn class")


class StoredTeacherConfig(Strict):
    """What a teacher said, computed elsewhere: a file with one row an example and one column a class."""

    name: str = Field(min_length=1, description="what tables and messages call it")
    kind: Literal["stored"] = Field(description="stored")
    path: str = Field(
        description="CSV, Parquet, .npy or .safetensors file: rows in the data's order, or, with `key`, in any; a "
        "column a class"
    )
    key: str | None = Field(
        default=None,
        min_length=1,
        description="column of a CSV or Parquet file by which its rows are found, which holds what data.key holds; "
        "of images, their paths in the folder, such as cat/1.png",
    )
    gives: Literal["probabilities", "logits", "log_probabilities"] = Field(
        default="probabilities", description="what the numbers are: probabilities, logits or log_probabilities"
    )
    tensor: str | None = Field(default=None, description="which tensor of a .safetensors file; left out: its only one")


TeacherConfig = Annotated[FittedTeacherConfig | StoredTeacherConfig, Field(discriminator="kind")]


class WeightsConfig(Strict):
    """Rules of three scales, and the polytope that their product is repaired into."""

    token: Annotated[str, require_registered("token rule", lambda: find_scale_rules("token"))] = Field(
        default="entropy_decay", description="the rule that weighs by position"
    )
    rate: float = Field(default=1.0, ge=0, le=1e6, description="decay rate of entropy_decay, from 0 to 1000000")
    entropy_floor: float = Field(
        default=1e-3,
        ge=1e-12,
        le=1e6,
        description="what entropy_inverse adds to an entropy, in nats, from 1e-12 to 1000000: weights stay finite",
    )
    task: Annotated[str, require_registered("task rule", lambda: find_scale_rules("task"))] = Field(
        default="inverse_loss", description="the rule that weighs by task"
    )
    context: Annotated[str, require_registered("context rule", lambda: find_scale_rules("context"))] = Field(
        default="ordinal_safety", description="the rule that weighs by context"
    )
    stored: str | None = Field(
        default=None,
        min_length=1,
        description="CSV or Parquet file of weights in the order of the data, one column a teacher, by its name, or a "
        ".npy or .safetensors file with teachers in their order; it stands in place of token, task and context",
    )
    key: str | None = Field(
        default=None,
        min_length=1,
        description="column of the file `stored` by which its rows are found, which holds what data.key holds; left "
        "out: rows are in the order of the data",
    )
    lower: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="lightest weight of a teacher, between 0 and 1; left out: 0.05, or half an equal share",
    )
    upper: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="heaviest weight of a teacher, between 0 and 1; left out: 0.6, or 1 for a single teacher",
    )
    critical_contexts: list[str] = Field(default=[], description="contexts where safer teachers must not count less")
    level: float | None = Field(
        default=None,
        gt=0,
        lt=0.5,
        description="order teachers only where the validation split shows the difference at this level of "
        "significance; left out: every measured difference, however few its cases",
    )
    pool: Annotated[str, require_registered("pool", find_pools)] = Field(
        default="arithmetic", description="how weighted teachers become one target: a name of kd.pooling.POOLS"
    )
    exponent: float | None = Field(
        default=None,
        ge=-100,
        le=100,
        description="of the power pool, from -100 to 100: 1 is arithmetic, 0 geometric; left out: 0.5",
    )
    pool_temperature: float | None = Field(
        default=None,
        ge=1e-3,
        le=1e3,
        description="of the log-linear pool, from 0.001 to 1000: below 1 sharper, above softer; left out: 1, geometric",
    )
    metric: Metric = Field(default="euclidean", description="what stays near: weights, or, with kl, their ratios")

    @model_validator(mode="after")
    def _stored_alone(self) -> WeightsConfig:
        others = [name for name in ("token", "task", "context") if name in self.model_fields_set]
        if self.stored is not None and others:
            raise ValueError(f"`stored` stands in place of the rules of all scales; remove `{others[0]}`, or `stored`")
        for name, pool in (("exponent", "power"), ("pool_temperature", "log_linear")):
            if getattr(self, name) is not None and self.pool != pool:
                raise ValueError(f'`{name}` is of the pool "{pool}", and `pool` is "{self.pool}"; remove one of them')
        if self.key is not None and self.stored is None:
            raise ValueError("`key` is of the file `stored`, and there is none; remove it, or name the file")
        return self

    def make_pool(self) -> PoolFunction:
        """Return the pool, with its exponent or temperature."""
        from ...pooling import POOLS, LogLinearPool, PowerPool

        if self.exponent is not None:
            return PowerPool(self.exponent)
        return POOLS[self.pool] if self.pool_temperature is None else LogLinearPool(self.pool_temperature)

    def bounds(self, n_teachers: int) -> tuple[float, float]:
        """Return the lightest and the heaviest weight; what was left out fits the number of teachers.

        Args:
            n_teachers: How many there are.
        """
        share = 1 / n_teachers
        upper = max(0.6, share, self.lower or 0.0) if self.upper is None else self.upper
        lower = min(0.05, share / 2, upper) if self.lower is None else self.lower
        return lower, upper


class StudentConfig(Strict):
    """A multilayer perceptron with tanh units, or another student by its name."""

    kind: Annotated[str, require_registered("student", find_students)] = Field(
        default="mlp",
        description="mlp, cnn for images, one that a package brings by an entry point of the group safekd.students, or "
        "one that was registered by kd.experiment.register_student",
    )
    hidden: list[Annotated[int, Field(ge=1, le=10**6)]] = Field(
        default=[32], max_length=100, description="units of each hidden layer, at most 1000000; at most 100 layers"
    )
    options: dict[str, Option | list[Option]] = Field(
        default={}, description="what another kind than mlp is built with, a table [student.options]"
    )

    @model_validator(mode="after")
    def _fit_the_kind(self) -> StudentConfig:
        if self.kind == "mlp" and self.options:
            raise ValueError("`options` are of another kind of student; a perceptron (mlp) has `hidden` alone")
        if self.kind != "mlp" and "hidden" in self.model_fields_set:
            raise ValueError(f"`hidden` is of kind mlp, and the kind is {self.kind}; state [student.options]")
        return self

    def given_options(self) -> dict[str, Any]:
        """Return what the student is built with besides its sizes."""
        return {"hidden": self.hidden} if self.kind == "mlp" else dict(self.options)


class TightenConfig(Strict):
    """Raise thresholds until new data show what the constraints ask for; ``docs/generalization.md`` has the rule."""

    on: Literal["validation", "safety", "crossfit"] = Field(
        description="the split that shows it, or crossfit: training examples, each by a student that did not see it"
    )
    confidence: Fraction | None = Field(default=None, description="left out: 0.95, and 0.975 for crossfit")
    attempts: FewOf = Field(default=12, description="students tested on the split at most; not for crossfit")
    folds: int = Field(default=5, ge=0, le=1000, description="of the cross-fitting; 0 for none where a split judges")
    rounds: FewOf | None = Field(default=None, description="of the cross-fitting; left out: 2, and 4 for crossfit")
    also: list[Literal["validation", "safety"]] = Field(
        default=[], description="for crossfit: further splits whose examples count"
    )
    highest: float | None = Field(default=None, gt=0, lt=1, description="no threshold is raised above it")
    margin: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="how much more must be shown than asked for, so that a certificate has room",
    )
    constraints: list[str] = Field(default=[], description="names of those to raise; all if left out")

    @model_validator(mode="after")
    def _check_kinds(self) -> TightenConfig:
        wrong = "attempts" if self.on == "crossfit" else "also"
        if wrong in self.model_fields_set:
            raise ValueError(f'`{wrong}` means nothing with on = "{self.on}"; leave it out')
        if self.folds == 1 or (self.on == "crossfit" and self.folds == 0):
            raise ValueError(f"`folds` is {self.folds}; wanted at least 2" + ", or 0" * (self.on != "crossfit"))
        return self


class TrainingConfig(Strict):
    """How long and how fast."""

    epochs: Count = Field(default=3000, description="passes through the training split at most, at least 1")
    batch_size: Count | None = Field(default=None, description="left out: the whole training split a step")
    learning_rate: float = Field(default=0.01, gt=0, le=1e3, description="of Adam, above 0, at most 1000")
    divergence: Annotated[str, require_registered("divergence", find_divergences)] = Field(
        default="forward_kl", description="the distillation loss: a name of kd.divergences.DIVERGENCES"
    )
    temperature: float = Field(
        default=1.0, ge=1e-3, le=1e3, description="softens both sides of the divergence, from 0.001 to 1000"
    )
    dual: Annotated[str, require_registered("dual method", find_dual_methods)] = Field(
        default="pi_gain", description="how multipliers move: a name of solvers.DUAL_METHODS, built at its defaults"
    )
    tolerance: float = Field(default=1e-3, gt=0, le=1, description="KKT residuals that count as converged, at most 1")
    device: str = Field(default="cpu", description="torch's name of the device that trains")
    threads: Workers | None = Field(
        default=None,
        description="processor threads, at most 256; left out: one for a student of few units, else torch's own choice",
    )


class FrontierConfig(Strict):
    """Thresholds of the first constraint to sweep, and how."""

    method: Literal["epsilon", "mu"] = Field(
        default="epsilon", description="epsilon: one constrained run a threshold; mu: one run a fixed weight"
    )
    targets: FewOf | list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default=11, description="how many, or the thresholds themselves"
    )
    highest: float = Field(default=0.99, gt=0, le=1, description="no threshold is above it; at most 1")
    held: dict[str, list[Annotated[float, Field(gt=0, le=1)]]] = Field(
        default={}, description="thresholds at which further constraints are held, by name: a slice each"
    )
    epochs: Count = Field(default=1500, description="passes of each run at most, at least 1")
    tolerance: float = Field(
        default=2.5e-4, gt=0, le=1, description="KKT residuals at which a point counts as converged, at most 1"
    )
    budget: Count | None = Field(default=None, description="training runs at most, of each slice and seed")
    seeds: FewOf | None = Field(
        default=None, description="how many sweeps, from seeds `seed`, `seed` + 1, ...; one if left out"
    )
    jobs: Workers | None = Field(default=None, description="processes side by side; left out: this one alone")


class TrackerConfig(Strict):
    """Who else is told of the run while it lasts; ``docs/trackers.md`` has what is told."""

    kind: Annotated[str, require_registered("tracker", find_trackers)] = Field(
        description="tensorboard, wandb or mlflow, each by the extra of its name"
    )
    name: str | None = Field(default=None, pattern=r"\S", description="of the run; left out: its folder's name")
    options: dict[str, Option] = Field(
        default={},
        description="what the tracker is made with, a table [tracker.options]: log_dir of tensorboard, seen from where "
        "you are; project, mode and more of wandb; experiment and tracking_uri of mlflow",
    )


class ExperimentConfig(Strict):
    """A whole experiment."""

    seed: int = Field(
        default=0, ge=0, lt=2**32, description="splits, teachers, student and batches follow from it; below 4294967296"
    )
    folder: str | None = Field(
        default=None,
        pattern=r"\S",
        description="where relative paths of data and teachers begin, seen from this file; beside it if left out",
    )
    run_dir: str | None = Field(
        default=None,
        pattern=r"\S",
        description="where results go, seen from where you are; left out: runs/<file name>",
    )
    data: DataConfig = Field(description="a table [data]")
    teachers: list[TeacherConfig] = Field(min_length=1, description="tables [[teachers]]")
    weights: WeightsConfig = Field(default=WeightsConfig(), description="a table [weights]")
    student: StudentConfig = Field(default=StudentConfig(), description="a table [student]")
    constraints: list[ConstraintConfig] = Field(min_length=1, description="tables [[constraints]]")
    training: TrainingConfig = Field(default=TrainingConfig(), description="a table [training]")
    tighten: TightenConfig | None = Field(default=None, description="a table [tighten]; thresholds stay if left out")
    frontier: FrontierConfig = Field(default=FrontierConfig(), description="a table [frontier]")
    tracker: TrackerConfig | None = Field(default=None, description="a table [tracker]; nobody is told if left out")

    @property
    def threads(self) -> int | None:
        """Processor threads; one where each would wait for the others longer than it works; None for torch's choice."""
        small = self.student.kind == "mlp" and sum(self.student.hidden) <= _SMALL_STUDENT.few_units
        return 1 if self.training.threads is None and small else self.training.threads

    @model_validator(mode="after")
    def _keys_are_there(self) -> ExperimentConfig:
        wants = [
            f"teachers.{one.name}.key" for one in self.teachers if isinstance(one, StoredTeacherConfig) and one.key
        ]
        wants += ["weights.key"] * (self.weights.key is not None)
        if wants and self.data.key is None and self.data.image_size is None:  # of images, by their names
            raise ValueError(f"`{wants[0]}` is compared with data.key, which is left out; name the data's own column")
        return self

    def named_splits(self) -> dict[str, str]:
        """Return which split is named where, of those that data need not have."""
        wants = [f"constraint '{constraint.name}'" for constraint in self.constraints if constraint.split == "safety"]
        if self.tighten is not None:
            wants += ["tighten.on"] * (self.tighten.on == "safety") + ["tighten.also"] * ("safety" in self.tighten.also)
        return dict.fromkeys(wants, "safety")

    @model_validator(mode="after")
    def _splits_are_there(self) -> ExperimentConfig:
        wants = list(self.named_splits())
        if wants and self.data.split is None and not self.data.splits.safety:
            raise ValueError(
                f"{wants[0]} names the split 'safety', which is empty; give data.splits.safety a share above 0"
            )
        return self
