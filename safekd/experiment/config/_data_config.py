"""What an experiment file says of its data, as frozen and strict models."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...io import is_parquet

Side = Annotated[int, Field(ge=1, le=256)]  # features have names, means and deviations, which student.json holds
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Strict(BaseModel):
    """Frozen; unknown keys, other types and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ContextConfig(Strict):
    """Contexts by one column of the data: one of names, such as a site, or one of numbers that is cut."""

    column: str = Field(description="a column of the data")
    names: list[str] | None = Field(
        default=None,
        min_length=2,
        description="at least two different names: those that the column holds, in the order wanted, others being "
        "refused; or, of a column of numbers, names of as many parts, lowest values first; left out: all names that "
        "the column holds, in the order of the alphabet",
    )
    cuts: list[float] | None = Field(
        default=None,
        min_length=1,
        description="where a column of numbers is cut, lowest first, one fewer than `names`; a value on a cut is above "
        "it; left out: at its quantiles, into equal shares",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> ContextConfig:
        if self.names is not None and len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"`names` has '{twice}' twice; wanted different names")
        if self.cuts is None:
            return self
        if self.names is None or len(self.cuts) != len(self.names) - 1:
            raise ValueError(f"{len(self.cuts)} cuts make {len(self.cuts) + 1} contexts; give as many `names`")
        if any(low >= high for low, high in pairwise(self.cuts)):
            raise ValueError(f"`cuts` are {self.cuts}; wanted rising numbers")
        return self


class SplitsConfig(Strict):
    """Shares of the data, stratified by class and context."""

    train: Fraction = Field(default=0.45, description="the student learns from it; between 0 and 1")
    validation: Fraction = Field(default=0.2, description="measures teachers and judges runs; between 0 and 1")
    certify: Fraction = Field(default=0.175, description="certificates alone read it; between 0 and 1")
    test: Fraction = Field(default=0.175, description="the last look; between 0 and 1")
    safety: float = Field(
        default=0.0, ge=0, lt=1, description="a split of its own, to pose constraints on or to raise thresholds by"
    )

    @model_validator(mode="after")
    def _whole(self) -> SplitsConfig:
        total = self.train + self.validation + self.certify + self.test + self.safety
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares sum to {total:g}; wanted 1")
        return self


class DataConfig(Strict):
    """Where examples come from: the built-in cases, a CSV or Parquet file with a label column, or images."""

    source: str = Field(
        description='"breast_cancer", the path of a CSV or Parquet file, or, with image_size, that of a folder with a '
        "subfolder of images (.png, .jpg) for each class"
    )
    label: str | None = Field(default=None, description="label column of the file")
    image_size: Side | list[Side] | None = Field(
        default=None,
        description="pixels of a side, 1 to 256, to which images are scaled, or [height, width]; each pixel is a "
        "feature, such as red_0_31 or gray_0_31 (row 0, column 31)",
    )
    color: Literal["rgb", "grayscale"] = Field(default="rgb", description="how images are seen: rgb or grayscale")
    stream: bool | None = Field(
        default=None,
        description="whether training reads a Parquet file as it goes, in constant memory; left out: where it has more "
        "than 100000 rows",
    )
    split: str | None = Field(
        default=None,
        min_length=1,
        description="column of the file that says to which split each row belongs: train, validation, certify, test "
        "or safety; left out: drawn at random by the shares of [data.splits]",
    )
    group: str | None = Field(
        default=None,
        min_length=1,
        description="column of the file that says which rows belong together, such as those of one patient: they stay "
        "in one split, and certificates count groups",
    )
    key: str | None = Field(
        default=None,
        min_length=1,
        description="column of the file that names each row, different in every one: rows of stored teachers and "
        "weights are found by it, where these say so",
    )
    features: list[str] = Field(
        default=["*"],
        min_length=1,
        description="column names or patterns such as 'mean *'; columns of keys, groups and names of contexts are "
        "features only where they are named in full, and those of labels and splits never",
    )
    context: ContextConfig | None = Field(default=None, description="a table [data.context]; one context if left out")
    splits: SplitsConfig = Field(default=SplitsConfig(), description="a table [data.splits] of shares that sum to 1")

    @model_validator(mode="after")
    def _check_labels(self) -> DataConfig:
        if self.image_size is not None:
            return self._check_images()
        if "color" in self.model_fields_set:
            raise ValueError("`color` is of images; give `image_size`, or remove it")
        if self.source != "breast_cancer" and self.label is None:
            raise ValueError("a file needs `label`, the name of its label column, and a folder of images `image_size`")
        if self.stream and not is_parquet(Path(self.source)):
            raise ValueError(f"`stream` is of a Parquet file, and source is '{self.source}'")
        columns = {"label": self.label, "split": self.split, "group": self.group, "key": self.key}
        named = [key for key, column in columns.items() if column is not None]
        if self.source == "breast_cancer" and named:
            raise ValueError(f"`{named[0]}` names a column of a file, and source is '{self.source}'; leave it out")
        for key in named:
            if [columns[other] for other in named].count(columns[key]) > 1:
                raise ValueError(f"`{key}` names column '{columns[key]}', and another key does too; wanted two columns")
        if self.split is not None and "splits" in self.model_fields_set:
            raise ValueError("`split` says which row is in which split, so that shares say nothing; remove `splits`")
        return self

    def _check_images(self) -> DataConfig:
        if isinstance(self.image_size, list) and len(self.image_size) != 2:
            raise ValueError(f"`image_size` is {self.image_size}; wanted one number, or [height, width]")
        of_tables = {"label", "stream", "split", "group", "key", "features", "context"} & self.model_fields_set
        if wrong := sorted(key for key in of_tables if getattr(self, key) not in (None, ["*"])):
            raise ValueError(
                f"`{wrong[0]}` is of a table, and `image_size` says that the data are images, whose classes are their "
                "folders; remove one"
            )
        return self

    def keep_as_features(self, columns: list[str], named_contexts: bool) -> list[str]:
        """Return the columns that can be features.

        Args:
            columns: All of the data.
            named_contexts: Whether the column of contexts holds names.
        """
        never = {self.label, self.split}
        context = self.context.column if self.context is not None and named_contexts else None
        on_request = {self.group, self.key, context} - set(self.features)
        return [name for name in columns if name not in never and name not in on_request]
