"""The text of an experiment file for own data: every choice with its reason, and what else could stand there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tomli_w


@dataclass(frozen=True)
class ExperimentDraft:
    """What is known of somebody's data.

    Attributes:
        source: Path of the data, seen from the experiment file.
        label: Column of labels.
        classes: Names of the classes with how many rows each has.
        features: Names of the features; None where they are all columns but the label.
        left_out: Columns that hold no numbers, and are no features.
        critical: Classes that must not be missed.
        at_least: Safety asked for.
        context: Column that contexts are cut from, None for one context.
        rows: How many rows there are.
        images: Whether the data are a folder of images, with a subfolder for each class.
    """

    source: str
    label: str
    classes: dict[str, int]
    features: list[str] | None
    left_out: list[str]
    critical: list[str]
    at_least: float
    context: str | None
    rows: int
    images: bool = False


def format_draft(draft: ExperimentDraft) -> str:
    """Return the text of the experiment file.

    Args:
        draft: What is known of the data.
    """
    return "\n".join(
        [
            "# An experiment of safekd.  Look at it without training: safekd validate THIS_FILE",
            "# Train: safekd train THIS_FILE          All keys: docs/experiment_files.md",
            "seed = 0                    # splits, teachers, student and batches follow from it",
            "",
            "[data]",
            *_format_data(draft),
            "",
            "[data.splits]               # shares of the rows, alike in classes and contexts",
            "train = 0.4                 # the student learns from it",
            "validation = 0.2            # measures teachers, and raises thresholds until it shows what was asked for",
            "certify = 0.25              # held out for the certificate, and read by nothing else",
            "test = 0.15                 # a last look",
            "",
            '[[teachers]]                # as many as you have; probabilities of your own models: kind = "stored",',
            'name = "logistic"           # path = "model.csv", one row an example and one column a class',
            'kind = "logistic_regression"',
            "",
            "[[teachers]]",
            'name = "forest"',
            'kind = "random_forest"      # or k_nearest_neighbors, gradient_boosting',
            "options = { n_estimators = 100, min_samples_leaf = 3 }",
            "",
            "[weights]                   # who counts how much, by rules that are projected into these bounds",
            'token = "entropy_decay"     # other rules: safekd list rules',
            'task = "inverse_loss"',
            'context = "ordinal_safety"',
            "lower = 0.1                 # no teacher vanishes",
            "upper = 0.9                 # none dominates",
            "",
            "[student]                   # others, and how to bring your own: safekd list students",
            'kind = "cnn"                # convolutions over the pixels'
            if draft.images
            else "hidden = [32]               # units of each hidden layer; [] for a linear student",
            "",
            "[[constraints]]             # what the student must reach, as often as needed",
            f"name = {_toml(' and '.join(draft.critical))}",
            'measure = "truth_probability"       # other measures: safekd list measures',
            f"critical = {_toml(draft.critical)}     # averaged over these classes",
            f"at_least = {draft.at_least}",
            "",
            "[tighten]                   # a threshold met in training is missed on new data: it is raised until",
            'on = "validation"           # this split shows what was asked for; leave the table out to train as asked',
            "",
            "[training]",
            "epochs = 1000               # at most",
            "learning_rate = 0.01        # of Adam",
            "",
        ]
    )


def _format_data(draft: ExperimentDraft) -> list[str]:
    source = f"source = {_toml(draft.source)}     # seen from this file; {draft.rows:,} "
    if draft.images:
        return [
            f"{source}images: {_list_counts(draft.classes)}",
            "image_size = 32             # all are scaled to it; [height, width] for others than squares",
            'color = "rgb"               # or grayscale',
        ]
    label = f"label = {_toml(draft.label)}     # {_list_counts(draft.classes)}"
    return [f"{source}rows", label, *_format_features(draft), *_format_context(draft)]


def _format_features(draft: ExperimentDraft) -> list[str]:
    if draft.features is None:
        return ['features = ["*"]            # every other column; names or patterns such as "lab *"']
    why = f"     # left out, since they hold no numbers: {', '.join(draft.left_out[:5])}" if draft.left_out else ""
    return [f"features = {_toml(draft.features)}{why}"]


def _format_context(draft: ExperimentDraft) -> list[str]:
    if draft.context is None:
        return [
            "# [data.context]            # contexts with orderings and thresholds of their own",
            '# column = "age"',
            '# names = ["young", "old"]',
        ]
    return [
        "",
        "[data.context]",
        f"column = {_toml(draft.context)}",
        'names = ["low", "high"]     # cut at the median; more names, more parts',
    ]


def _list_counts(counts: dict[str, int]) -> str:
    shown = [f"{name}: {number:,}" for name, number in list(counts.items())[:8]]
    return " ".join(", ".join(shown + ["..."] * (len(counts) > 8)).split())


def _toml(value: str | Sequence[str]) -> str:
    """Return a value as TOML writes it, on one line."""
    record: dict[str, Any] = {"x": value}
    if isinstance(value, str):
        return tomli_w.dumps(record).partition("=")[2].strip()
    return "[" + ", ".join(_toml(one) for one in value) + "]"
