"""What somebody who was not there needs to run a student: its making, its features, and the names of what it says."""

from __future__ import annotations

import math
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator
from torch import nn

from ..errors import InvalidConfig, InvalidInput
from ..experiment import ContextRule, Experiment, FeatureScaling, find_student
from ..experiment.config import Option, StudentConfig
from ..experiment.images import ImageShape, hash_images
from ..io.folders import hash_file
from ._checked_record import CheckedRecord

STUDENT_SPEC = "student.json"
_VERSIONS = ("safekd", "torch", "numpy", "scikit-learn", "pandas")
Positive = Annotated[float, Field(gt=0)]
Names = Annotated[list[str], Field(min_length=1)]


class StudentSpec(CheckedRecord):
    """The student of an experiment file, as ``student.json`` keeps it beside the parameters.

    Attributes:
        kind: Name of the student: "mlp", or one of a package.
        package: Who brings it.
        options: What it is built with besides its sizes.
        features: Names of the columns that it reads, in their order.
        means: Subtracted from each feature.
        spreads: Divides it then.
        image_shape: Channels, height and width of the images that features are the pixels of; None for other data.
        classes: Names of the classes, in the order of its outputs.
        label: The column of labels in the data that it was trained on; None where they were no file.
        group: The column that says which rows belong together; None where each stands for itself.
        contexts: Names of the contexts, in the order of their numbers.
        context_column: The column that contexts follow from; None where there is one context.
        context_cuts: Where that column is cut, lowest first; empty where it holds the names of contexts.
        teachers: Names of the teachers.
        source: The data, as the experiment file names them.
        source_sha256: Hash of the file of the data, or of a folder's names and images; None where it was none.
        rows: How many examples the data have.
        seed: Of the experiment.
        versions: Of safekd and what it ran on.
    """

    file_name: ClassVar[str] = STUDENT_SPEC
    refusal: ClassVar[str] = "describes no student"

    kind: str
    package: str
    options: dict[str, Option | list[Option]]
    features: Names
    means: list[float]
    spreads: list[Positive]
    image_shape: list[Annotated[int, Field(ge=1, le=256)]] | None = Field(min_length=3, max_length=3)
    classes: Names
    label: str | None
    group: str | None
    contexts: Names
    context_column: str | None
    context_cuts: list[float]
    teachers: Names
    source: str
    source_sha256: str | None
    rows: int
    seed: int
    versions: dict[str, str]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not len(self.features) == len(self.means) == len(self.spreads):
            raise ValueError(
                f"{len(self.features)} features, {len(self.means)} means and {len(self.spreads)} spreads; wanted equal"
            )
        if self.context_cuts and len(self.context_cuts) != len(self.contexts) - 1:
            raise ValueError(f"{len(self.context_cuts)} cuts and {len(self.contexts)} contexts; wanted one cut fewer")
        if self.kind == "mlp":  # within the bounds of a file: it is built before its parameters are read
            StudentConfig.model_validate({"hidden": self.options.get("hidden")})
        if self.images is not None and (
            self.images.channels not in (1, 3) or len(self.features) != math.prod(self.images)
        ):
            raise ValueError(f"{len(self.features)} features and images of {self.image_shape}; wanted one a pixel")
        return self

    @property
    def scaling(self) -> FeatureScaling:
        """What is done to features before the student sees them."""
        return FeatureScaling(np.array(self.means), np.array(self.spreads))

    @property
    def context_rule(self) -> ContextRule:
        """How contexts follow from a column."""
        return ContextRule(self.contexts, self.context_column, tuple(self.context_cuts))

    @property
    def images(self) -> ImageShape | None:
        """How images are seen, None for other data."""
        return None if self.image_shape is None else ImageShape(*self.image_shape)

    def build_student(self) -> nn.Module:
        """Return a student of this making, its parameters not yet those that were trained.

        Raises:
            InvalidInput: No student of its kind is known here, or it takes other options.
            PluginFailure: The package that brings it fails.
        """
        try:
            maker = find_student(self.kind, self.options)
            return maker.build(len(self.features), len(self.classes), self.seed, self.images)
        except InvalidConfig as error:
            raise InvalidInput(
                f"The run was one of student '{self.kind}' of {self.package}, which cannot be built here: {error} Or "
                "give the module: kd.load(run, student=module)."
            ) from error


def describe_student(experiment: Experiment, folder: Path) -> StudentSpec:
    """Return what ``student.json`` says of an experiment's student.

    Args:
        experiment: Its data, teachers and student.
        folder: Where relative paths of its configuration start.
    """
    config, table, scaling = experiment.config, experiment.table, experiment.scaling
    source = config.data.source
    digest = None
    if table.image_shape is not None:
        digest = hash_images(folder / source, table.keys or [])
    elif config.data.label is not None:
        digest = hash_file(folder / source)["sha256"]
    return StudentSpec(
        kind=experiment.maker.kind,
        package=experiment.maker.package,
        options=dict(experiment.maker.options),
        features=table.features,
        means=scaling.mean_F.tolist(),
        spreads=scaling.spread_F.tolist(),
        image_shape=None if table.image_shape is None else list(table.image_shape),
        classes=table.classes,
        label=config.data.label,
        group=config.data.group,
        contexts=table.contexts,
        context_column=None if config.data.context is None else config.data.context.column,
        context_cuts=list(table.context_rule.cuts),
        teachers=experiment.ensemble.names,
        source=source,
        source_sha256=digest,
        rows=experiment.rows,
        seed=config.seed,
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in _VERSIONS},
        },
    )
