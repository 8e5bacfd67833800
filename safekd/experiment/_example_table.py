"""Examples from a table: the built-in cases or a CSV file, cut into splits.

Axes: N examples, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from solvers.short_repr import ShortRepr

from ..data import Split, drop_shared
from ..errors import InvalidConfig, InvalidInput
from ..io import is_nameless, parse_numbers, read_table
from .config import DataConfig

Array = NDArray[Any]


@dataclass(frozen=True, repr=False)
class ExampleTable(ShortRepr):
    """Examples before they are split.

    Attributes:
        x_NF: Features.
        label_N: Numbers of classes.
        context_N: Numbers of contexts.
        features: Names of the F features.
        classes: Names of the classes, by number.
        contexts: Names of the contexts, by number.
        context_cuts: Where the column of contexts is cut, lowest first; empty where there is one context.
    """

    x_NF: Array
    label_N: Array
    context_N: Array
    features: list[str]
    classes: list[str]
    contexts: list[str]
    context_cuts: tuple[float, ...] = ()

    def columns(self, patterns: list[str]) -> list[int]:
        """Return the numbers of the features that match a pattern, in the table's order.

        Args:
            patterns: Names, in which '*' is any text.

        Raises:
            InvalidConfig: One of them matches none.
        """
        for pattern in patterns:
            if not any(fnmatchcase(feature, pattern) for feature in self.features):
                raise InvalidConfig(f"No feature matches '{pattern}'; there are: {', '.join(self.features)}.")
        return [i for i, name in enumerate(self.features) if any(fnmatchcase(name, p) for p in patterns)]

    def class_numbers(self, names: list[str]) -> list[int]:
        """Return the numbers of classes.

        Args:
            names: Their names.

        Raises:
            InvalidConfig: There is no class of that name.
        """
        return _find_numbers(names, self.classes, "class")

    def context_numbers(self, names: list[str]) -> list[int]:
        """Return the numbers of contexts.

        Args:
            names: Their names.

        Raises:
            InvalidConfig: There is no context of that name.
        """
        return _find_numbers(names, self.contexts, "context")


@dataclass(frozen=True, repr=False)
class FeatureScaling(ShortRepr):
    """What is done to features before a student sees them: their means and standard deviations in training.

    Attributes:
        mean_F: Subtracted from each feature.
        spread_F: Divides it then; above 0.
    """

    mean_F: Array
    spread_F: Array

    @classmethod
    def of(cls, x_NF: Array) -> FeatureScaling:
        """Return the scaling that standardizes examples; a feature that is constant is only centered.

        Args:
            x_NF: The examples.
        """
        spread_F = x_NF.std(0)
        return cls(x_NF.mean(0), np.where(spread_F > 0, spread_F, 1.0))

    def scale(self, x_NF: Array) -> Array:
        """Return examples as a student sees them, float32.

        Args:
            x_NF: As they stand in a table.
        """
        return ((x_NF - self.mean_F) / self.spread_F).astype(np.float32)


def load_examples(config: DataConfig, folder: Path) -> ExampleTable:
    """Read the examples that a configuration names.

    Args:
        config: Source, label, features and contexts.
        folder: Where a relative path starts.

    Raises:
        InvalidInput: A value cannot be used; the message names its line and column.
        InvalidConfig: A column that ``config`` names is not there.
    """
    if config.source == "breast_cancer":
        from sklearn.datasets import load_breast_cancer

        cases = load_breast_cancer()
        frame = pd.DataFrame(cases.data, columns=[str(name) for name in cases.feature_names])
        labels, classes = cases.target, [str(name) for name in cases.target_names]
    else:
        frame = read_table(folder / config.source)
        if config.label not in frame.columns:
            raise InvalidInput(
                f"{config.source} has no label column '{config.label}'; it has: {', '.join(frame.columns)}."
            )
        named = frame.pop(str(config.label)).str.strip()
        if (named == "").any():
            line = named.index[(named == "").to_numpy()][0]
            raise InvalidInput(
                f"{config.source}, line {line}: no label in column '{config.label}'; fill it or drop the row."
            )
        classes = sorted(named.unique())
        labels = named.map({name: i for i, name in enumerate(classes)}).to_numpy(dtype=np.int64)
    context_N, names, cuts = _cut_contexts(frame, config)
    chosen = choose_features([str(name) for name in frame.columns], config)
    x_NF = parse_numbers(frame[chosen], config.source)
    return ExampleTable(x_NF, np.asarray(labels), context_N, chosen, classes, names, cuts)


def choose_features(columns: list[str], config: DataConfig) -> list[str]:
    """Return the columns that are features, in their order.

    Args:
        columns: All but the label.
        config: Names or patterns of the features.

    Raises:
        InvalidConfig: None is, or one has no name.
    """
    chosen = [c for c in columns if any(fnmatchcase(c, pattern) for pattern in config.features)]
    if not chosen:
        raise InvalidConfig(f"data.features {config.features} match no column; there are: {', '.join(columns)}.")
    nameless = [name for name in chosen if is_nameless(name)]
    if nameless:
        others = ", ".join(f'"{name}"' for name in chosen if name not in nameless)
        raise InvalidConfig(
            f"{config.source} has a column without a name ('{nameless[0]}'), most likely the index of a table, which "
            f"would count as a feature. Take it out, or name the features: data.features = [{others}]."
        )
    return chosen


def split_examples(
    table: ExampleTable, config: DataConfig, seed: int
) -> tuple[dict[str, Split], dict[str, Array], FeatureScaling]:
    """Cut a table into splits, stratified by (class, context), features standardized by the training split.

    Args:
        table: The examples.
        config: Shares of the splits.
        seed: Of the permutation in each stratum, at least 0.

    Returns:
        The splits and the rows of the table that each holds, both by name, and how features were standardized.

    Raises:
        InvalidInput: A split would be empty.
    """
    shares = {name: share for name, share in config.splits.model_dump().items() if share > 0}
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Array]] = {name: [] for name in shares}
    stratum_N = table.label_N * len(table.contexts) + table.context_N
    for stratum in np.unique(stratum_N):
        members = rng.permutation(np.flatnonzero(stratum_N == stratum))
        ends = np.round(np.cumsum(list(shares.values())) * len(members)).astype(int)
        for name, part in zip(shares, np.split(members, ends[:-1]), strict=True):
            parts[name].append(part)
    index = {name: np.sort(np.concatenate(strata)) for name, strata in parts.items()}
    for name, rows in index.items():
        if len(rows) == 0:
            raise InvalidInput(
                f"Split '{name}' is empty: {len(table.label_N)} examples are too few for a share of {shares[name]:g}."
            )
    scaling = FeatureScaling.of(table.x_NF[index["train"]])
    splits = make_splits(table, index, scaling)
    # rows that a file holds twice train the student, and judge nothing
    unseen = {name: split if name == "train" else drop_shared(split, splits["train"]) for name, split in splits.items()}
    return unseen, index, scaling


def make_splits(
    table: ExampleTable, index: dict[str, Array], scaling: FeatureScaling, number_N: Array | None = None
) -> dict[str, Split]:
    """Return some rows of a table as splits, features standardized.

    Args:
        table: The examples.
        index: Rows of each split, by its name.
        scaling: How features are standardized.
        number_N: What batches call the examples, (N,); None for their places in the split.
    """
    x_NF = scaling.scale(table.x_NF)
    return {
        name: Split(
            name,
            torch.tensor(x_NF[rows]),
            torch.tensor(table.label_N[rows]),
            context=torch.tensor(table.context_N[rows]),
            context_names=table.contexts,
            numbers=None if number_N is None else torch.tensor(number_N[rows]),
            class_names=table.classes,
        )
        for name, rows in index.items()
    }


def _cut_contexts(frame: pd.DataFrame, config: DataConfig) -> tuple[Array, list[str], tuple[float, ...]]:
    if config.context is None:
        return np.zeros(len(frame), dtype=np.int64), ["all"], ()
    column, names = config.context.column, config.context.names
    if column not in frame.columns:
        raise InvalidConfig(f"data.context.column is '{column}'; {config.source} has: {', '.join(frame.columns)}.")
    value_N = parse_numbers(frame[[column]], config.source)[:, 0]
    cuts = np.quantile(value_N, np.arange(1, len(names)) / len(names))
    return np.digitize(value_N, cuts), names, tuple(cuts.tolist())


def _find_numbers(names: list[str], known: list[str], what: str) -> list[int]:
    for name in names:
        if name not in known:
            raise InvalidConfig(f"There is no {what} '{name}'; there are: {', '.join(known)}.")
    return [known.index(name) for name in names]
