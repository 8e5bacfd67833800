"""What an experiment file says of its data, as frozen and strict models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...io import is_parquet

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Strict(BaseModel):
    """Frozen; unknown keys, other types and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ContextConfig(Strict):
    """Contexts cut from one numeric column at its quantiles, lowest first."""

    column: str = Field(description="a numeric column of the data")
    names: list[str] = Field(min_length=2, description="at least two names, lowest values first; as many equal shares")


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
    """Where examples come from: the built-in breast-cancer cases, or a CSV or Parquet file with a label column."""

    source: str = Field(description='"breast_cancer", or the path of a CSV or Parquet file')
    label: str | None = Field(default=None, description="label column of the file")
    stream: bool | None = Field(
        default=None,
        description="whether training reads a Parquet file as it goes, in constant memory; left out: where it has more "
        "than 100000 rows",
    )
    split: str | None = Field(
        default=None,
        min_length=1,
        description="column of a Parquet file that says to which split each row belongs: train, validation, certify, "
        "test or safety; left out: drawn at random by the shares",
    )
    features: list[str] = Field(default=["*"], min_length=1, description="column names or patterns such as 'mean *'")
    context: ContextConfig | None = Field(default=None, description="a table [data.context]; one context if left out")
    splits: SplitsConfig = Field(default=SplitsConfig(), description="a table [data.splits] of shares that sum to 1")

    @model_validator(mode="after")
    def _check_labels(self) -> DataConfig:
        if self.source != "breast_cancer" and self.label is None:
            raise ValueError("a file needs `label`, the name of its label column")
        if not is_parquet(Path(self.source)) and (self.stream or self.split is not None):
            given = "stream" if self.stream else "split"
            raise ValueError(f"`{given}` is of a Parquet file, and source is '{self.source}'")
        return self
