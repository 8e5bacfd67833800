"""What an experiment file says of safety: one requirement, or one for each context or class."""

from __future__ import annotations

import inspect
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ._data_config import Strict
from ._registered_names import find_measures, require_registered

Threshold = Annotated[float, Field(gt=0, le=1)]
MEASURE_KEYS = ("unsafe", "k", "of", "sharpness", "at")
Thresholds = dict[str, Threshold]


class WorstConfig(Strict):
    """The worst mix of groups that lies within a ball."""

    ball: Literal["kl", "chi_square"] = Field(default="kl", description="divergence that measures how far mixes lie")
    radius: float = Field(gt=0, le=1e6, description="how far mixes may lie from the given one: a number above 0")


class ConstraintConfig(Strict):
    """One safety requirement, or, with ``each``, one for each context or critical class."""

    name: str = Field(min_length=1, description="what tables and messages call it")
    measure: Annotated[str, require_registered("safety measure", find_measures)] = Field(
        default="truth_probability", description="what is read of a prediction"
    )
    critical: list[str] = Field(min_length=1, description="class names")
    unsafe: list[str] | None = Field(default=None, min_length=1, description="class names that a measure keeps off")
    k: int | None = Field(default=None, ge=1, description="how many classes top_k looks at, at least 1")
    of: str | None = Field(default=None, description="the class name whose calibration is read")
    sharpness: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="of the surrogate of a measure that counts (recall, top_k, avoids): the larger, the closer to the "
        "count and the flatter, above 0 and at most 1000; left out: 4",
    )
    at: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="the probability around which the surrogate of log_truth_probability is exact, above 0 and at most "
        "1; left out: 0.5",
    )
    at_least: Threshold | Thresholds | None = Field(
        default=None,
        description="threshold: a number above 0 and at most 1; with `each`, one for each name, such as "
        "{ day = 0.9, night = 0.8 }",
    )
    exactly: Threshold | Thresholds | None = Field(
        default=None,
        description="what is to be met from both sides: a number above 0 and at most 1, or, with `each`, one for each "
        "name",
    )
    contexts: list[str] | None = Field(default=None, min_length=1, description="contexts that count; all if left out")
    each: Literal["context", "class"] | None = Field(
        default=None, description="one constraint for each context, or each critical class"
    )
    mix: dict[str, Annotated[float, Field(gt=0, le=1)]] | None = Field(
        default=None, min_length=1, description="share of each context in use, by name; shares sum to 1"
    )
    by: Literal["context", "class"] = Field(default="context", description="what the names in mix and worst are of")
    worst: WorstConfig | None = Field(
        default=None, description="hold the worst mix of a ball round mix, or round the data's own shares"
    )
    average: Literal["critical", "all"] = Field(default="critical", description="which examples are averaged")
    split: Literal["train", "validation", "safety"] = Field(
        default="train", description="the data on which it is posed"
    )

    @model_validator(mode="after")
    def _whole(self) -> ConstraintConfig:
        if (self.at_least is None) == (self.exactly is None):
            which = "neither" if self.at_least is None else "both"
            raise ValueError(f"found {which} of at_least and exactly; wanted one, a number above 0 and at most 1")
        key = "at_least" if self.exactly is None else "exactly"
        if isinstance(getattr(self, key), dict) and self.each is None:
            raise ValueError(f'`{key}` names several thresholds; say what they are of: each = "context", or "class"')
        takes = inspect.signature(find_measures()[self.measure]).parameters
        for key in MEASURE_KEYS:
            given = getattr(self, key) is not None
            if not given and key in takes and takes[key].default is inspect.Parameter.empty:
                raise ValueError(f"measure '{self.measure}' needs `{key}`")
            if given and key not in takes:
                raise ValueError(f"`{key}` says nothing to measure '{self.measure}'; remove it")
        if self.each is not None and (self.mix is not None or self.worst is not None):
            raise ValueError("`each` makes one constraint a group, `mix` and `worst` one of all groups; wanted one way")
        return self
