"""The rule set for weights in a file, as ``safekd project --rules`` and ``safekd audit --rules`` read it.

Keys that are left out have the values of an empty file; options of the command line override the file.

teachers = ["expert", "fast", "cheap"]      # columns; left out: every column that is not named below
lower = 0.05                                # one number, a list with one for each teacher, or {expert = 0.1}
upper = { cheap = 0.3 }                     # teachers that are not named keep 0 and 1
order = ["expert>=fast>=cheap"]             # who counts at least as much as whom; any partial order
margin = 0.0                                # by how much, in every ordering
ties = false                                # true: orderings may go in a circle, whose teachers weigh the same
metric = "euclidean"                        # or "kl", to keep ratios where it can
safety_columns = ["s_expert", "s_fast", "s_cheap"]      # instead of `order`: each row follows its own scores
critical_column = "urgent"                  # 0, 1, true, false: orderings apply where it says so

[[linear]]                                  # as often as needed
weights = { fast = 1, cheap = 1 }           # fast + cheap ...
at_most = 0.5                               # ... or at_least, or equals
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from ._config_models import Metric
from ._data_config import Strict

Bounds = float | list[float] | dict[str, float]
_BOUNDS = "a number, a list with one for each teacher, or { name = number }"
Columns = Annotated[list[str], Field(min_length=1)]


class LinearConfig(Strict):
    """A linear rule: a weighted sum of teachers' weights, and the number that it must keep to."""

    weights: dict[str, float] = Field(min_length=1, description="a factor for each teacher that counts")
    at_most: float | None = Field(default=None, description="the largest sum allowed")
    at_least: float | None = Field(default=None, description="the smallest sum allowed")
    equals: float | None = Field(default=None, description="the only sum allowed")

    @model_validator(mode="after")
    def _one(self) -> LinearConfig:
        given = [name for name in ("at_most", "at_least", "equals") if getattr(self, name) is not None]
        if len(given) != 1:
            named = " and ".join(given) or "none"
            raise ValueError(f"found {named} of at_most, at_least and equals; wanted exactly one")
        return self


class RulesConfig(Strict):
    """Everything that weights in a file must obey."""

    teachers: Columns | None = Field(default=None, description="names of columns, one a teacher")
    lower: Bounds = Field(default=0.0, description=_BOUNDS)
    upper: Bounds = Field(default=1.0, description=_BOUNDS)
    order: list[str] = Field(default=[], description='a list such as ["a>=b", "b>=c"]')
    margin: float = Field(default=0.0, ge=0, description="a number of at least 0")
    ties: bool = Field(default=False, description="whether orderings may go in a circle, whose teachers weigh the same")
    metric: Metric = Field(default="euclidean", description="euclidean, or kl to keep ratios where it can")
    safety_columns: Columns | None = Field(default=None, description="names of columns, one a teacher")
    critical_column: str | None = Field(default=None, description="the name of a column of 0, 1, true and false")
    linear: list[LinearConfig] = Field(default=[], description="tables [[linear]]")
