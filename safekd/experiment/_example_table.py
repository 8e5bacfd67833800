"""Examples from a table: the built-in cases or a CSV file, cut into splits.

Axes: N examples, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from solvers.short_repr import ShortRepr

from ..errors import InvalidConfig, InvalidInput
from ..io import is_nameless, parse_numbers, read_table, refuse_cell
from ._context_rule import ContextRule, find_places, read_contexts
from ._key_matching import require_distinct_keys
from .config import DataConfig
from .images import ImageShape, list_labeled_images, name_pixels, read_images

Array = NDArray[Any]
SPLITS = ("train", "validation", "certify", "test", "safety")


@dataclass(frozen=True, repr=False)
class ExampleTable(ShortRepr):
    """Examples before they are split.

    Attributes:
        x_NF: Features.
        label_N: Numbers of classes.
        context_N: Numbers of contexts.
        features: Names of the F features.
        classes: Names of the classes, by number.
        context_rule: How contexts follow from a column.
        split_N: Numbers in ``SPLITS`` of the split that the data say each example is in; None where they do not.
        group_N: Which examples belong together, numbers from 0; None where each stands for itself.
        keys: What other files call the examples; None where nothing does.
        image_shape: Of the images that features are the pixels of; None where they are no pixels.
    """

    x_NF: Array
    label_N: Array
    context_N: Array
    features: list[str]
    classes: list[str]
    context_rule: ContextRule
    split_N: Array | None = None
    group_N: Array | None = None
    keys: list[str] | None = None
    image_shape: ImageShape | None = None

    @property
    def contexts(self) -> list[str]:
        """Names of the contexts, by number."""
        return self.context_rule.names

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
    def of(cls, x_NF: Array, features: Sequence[str]) -> FeatureScaling:
        """Return the scaling that standardizes examples; a feature that is constant is only centered.

        Args:
            x_NF: The examples.
            features: Their names, (F,).

        Raises:
            InvalidInput: A feature's numbers are so large that their squares overflow.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return cls.of_moments(x_NF.mean(0), x_NF.std(0), features)

    @classmethod
    def of_moments(cls, mean_F: Array, spread_F: Array, features: Sequence[str]) -> FeatureScaling:
        """Return the scaling by means and standard deviations; a feature that is constant is only centered.

        Args:
            mean_F: Means.
            spread_F: Standard deviations.
            features: Names, (F,).

        Raises:
            InvalidInput: A feature's numbers are so large that their squares overflow.
        """
        beyond_F = ~(np.isfinite(mean_F) & np.isfinite(spread_F))
        if beyond_F.any():
            raise InvalidInput(
                f"Column '{features[int(beyond_F.argmax())]}' holds numbers whose squares are beyond the largest "
                "float; wanted features below 1e150 or so. Divide the column by a constant."
            )
        return cls(mean_F, np.where(spread_F > 0, spread_F, 1.0))

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
    if config.image_size is not None:
        return _load_images(config, folder)
    if config.source == "breast_cancer":
        from sklearn.datasets import load_breast_cancer

        cases = load_breast_cancer()
        frame = pd.DataFrame(cases.data, columns=[str(name) for name in cases.feature_names])
        label_N, classes = cases.target, [str(name) for name in cases.target_names]
    else:
        frame = read_table(folder / config.source)
        for name in (config.label, config.split, config.group, config.key):
            if name is not None and name not in frame.columns:
                what = " label" * (name == config.label)
                raise InvalidInput(f"{config.source} has no{what} column '{name}'; it has: {', '.join(frame.columns)}.")
        classes, label_N = _number_cells(frame, str(config.label), config.source, "label")
    context_N, rule = np.zeros(len(frame), dtype=np.int64), ContextRule()
    if config.context is not None:
        context_N, rule = read_contexts(config.context, frame, config.source)
    split_N, group_N = _read_splits(frame, config), None
    if config.group is not None:
        groups, group_N = _number_cells(frame, config.group, config.source, "group")
        if split_N is not None:
            _require_whole_groups(frame, config, split_N, group_N, groups)
    keys = None
    if config.key is not None:
        names, key_N = _number_cells(frame, config.key, config.source, "key")
        keys = [names[number] for number in key_N]
        require_distinct_keys(keys, frame.index.tolist(), config.key, config.source)
    kept = config.keep_as_features([str(name) for name in frame.columns], rule.is_named)
    chosen = choose_features(kept, config)
    x_NF = parse_numbers(frame[chosen], config.source)
    return ExampleTable(x_NF, np.asarray(label_N), context_N, chosen, classes, rule, split_N, group_N, keys)


def _load_images(config: DataConfig, folder: Path) -> ExampleTable:
    """Return the images of a folder, in the order of their names."""
    size, channels = config.image_size, 1 if config.color == "grayscale" else 3
    assert size is not None
    shape = ImageShape(channels, *(size if isinstance(size, list) else (size, size)))
    files, labels = list_labeled_images(folder / config.source)
    x_NF = read_images(folder / config.source, files, shape)
    classes = sorted(set(labels))
    return ExampleTable(
        x_NF,
        find_places(labels, classes),
        np.zeros(len(files), dtype=np.int64),
        name_pixels(shape),
        classes,
        ContextRule(),
        keys=files,
        image_shape=shape,
    )


def _number_cells(frame: pd.DataFrame, column: str, source: str, what: str) -> tuple[list[str], Array]:
    """Return the different names in a column, in the order of the alphabet, and which each row has."""
    named = frame[column].str.strip()
    if (named == "").any():
        line = named.index[(named == "").to_numpy()][0]
        raise InvalidInput(f"{source}, line {line}: no {what} in column '{column}'; fill it or drop the row.")
    names = sorted(named.unique())
    return names, find_places(named.tolist(), names)


def _read_splits(frame: pd.DataFrame, config: DataConfig) -> Array | None:
    """Return the number of the split that each row names, (N,)."""
    if config.split is None:
        return None
    named = frame[config.split].str.strip().tolist()
    number_N = find_places(named, SPLITS)
    wrong = np.flatnonzero(number_N < 0)
    if len(wrong):
        place = f"{config.source}, line {frame.index[wrong[0]]}, column '{config.split}'"
        raise refuse_cell(place, named[wrong[0]], f"one of {', '.join(SPLITS)}")
    return number_N


def _require_whole_groups(
    frame: pd.DataFrame, config: DataConfig, split_N: Array, group_N: Array, groups: list[str]
) -> None:
    """Refuse splits that tear a group apart."""
    _, first_G = np.unique(group_N, return_index=True)
    torn = np.flatnonzero(split_N != split_N[first_G][group_N])
    if len(torn):
        row = torn[0]
        first = first_G[group_N[row]]
        raise refuse_torn_group(
            config,
            groups[group_N[row]],
            (SPLITS[split_N[first]], SPLITS[split_N[row]]),
            f" (lines {frame.index[first]} and {frame.index[row]})",
        )


def refuse_torn_group(config: DataConfig, name: str, splits: tuple[str, str], places: str) -> InvalidInput:
    """Return the error about a group whose rows are in two splits.

    Args:
        config: Names of the columns.
        name: Of the group.
        splits: Names of the two.
        places: Where the rows are, in brackets.
    """
    return InvalidInput(
        f"{config.source}: column '{config.split}' puts rows of group '{name}' (column '{config.group}') into "
        f"'{splits[0]}' and '{splits[1]}'{places}; wanted all rows of a group in one split, or certificates would be "
        "about cases that the student was trained on."
    )


def choose_features(columns: list[str], config: DataConfig) -> list[str]:
    """Return the columns that are features, in their order.

    Args:
        columns: Those that can be.
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


def _find_numbers(names: list[str], known: list[str], what: str) -> list[int]:
    for name in names:
        if name not in known:
            raise InvalidConfig(f"There is no {what} '{name}'; there are: {', '.join(known)}.")
    return [known.index(name) for name in names]
