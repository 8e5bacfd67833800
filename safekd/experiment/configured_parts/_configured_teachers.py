"""Teachers that a configuration can name: classifiers fitted on a slice of the training split, or stored rows."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data import Split
from ...errors import InvalidConfig, InvalidInput
from ...io import is_parquet, list_names, open_table, parse_numbers, read_table
from ...io.arrays import RowTable, SelectedRows, open_rows
from ...teachers import SklearnTeacher, StoredTeacher, Teacher
from .._example_table import Array, ExampleTable
from .._key_matching import match_keys
from ..config import FittedTeacherConfig, StoredTeacherConfig

_KINDS = {
    "logistic_regression": ("sklearn.linear_model", "LogisticRegression"),
    "random_forest": ("sklearn.ensemble", "RandomForestClassifier"),
    "k_nearest_neighbors": ("sklearn.neighbors", "KNeighborsClassifier"),
    "gradient_boosting": ("sklearn.ensemble", "GradientBoostingClassifier"),
}


def fit_configured_teacher(config: FittedTeacherConfig, table: ExampleTable, train: Split, seed: int) -> Teacher:
    """Fit one teacher on its slice of the training split.  Same seed, same teacher.

    Args:
        config: The classifier, its options, and what it is trained on.
        table: The examples, whose classes, contexts and features ``config`` names.
        train: The training split.
        seed: Of what the classifier and the choice of its examples draw, at least 0.

    Raises:
        InvalidConfig: It would see fewer than two classes, or scikit-learn refuses its options.
    """
    batch = train.batch()
    x_NF, label_N, context_N = batch.inputs.double().numpy(), batch.labels.numpy(), batch.context.numpy()
    taught_N = np.ones(len(label_N), dtype=bool)
    if config.contexts is not None:
        taught_N &= np.isin(context_N, table.context_numbers(config.contexts))
    rng = np.random.default_rng([seed, len(config.name)])
    for name, share in config.keep.items():
        (number,) = table.class_numbers([name])
        members = np.flatnonzero(taught_N & (label_N == number))
        dropped = rng.permutation(members)[max(1, round(share * len(members))) :]
        taught_N[dropped] = False
    if len(np.unique(label_N[taught_N])) < 2:
        raise InvalidConfig(
            f"Teacher '{config.name}' would see {int(taught_N.sum())} training examples of "
            f"{len(np.unique(label_N[taught_N]))} class; it needs at least two classes. Widen its contexts or its keep."
        )
    columns = table.columns(config.features)
    module, name_of_class = _KINDS[config.kind]
    classifier: Any = getattr(import_module(module), name_of_class)  # here: stored teachers need none of it
    _require_sizes(config, int(taught_N.sum()))
    try:
        fixed = {"random_state": seed} if "random_state" in classifier().get_params() else {}
        model = classifier(**{**fixed, **config.options}).fit(x_NF[taught_N][:, columns], label_N[taught_N])
        model.predict_proba(x_NF[:1][:, columns])  # some options are looked at only then
    except (ArithmeticError, AttributeError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise InvalidConfig(
            f"Teacher '{config.name}': scikit-learn's {classifier.__name__} refused its options: {reason}."
        ) from error
    return SklearnTeacher(config.name, model, classes=len(table.classes), columns=columns)


def _require_sizes(config: FittedTeacherConfig, examples: int) -> None:
    """Refuse options that would take the machine's memory or hours, before anything is made."""
    most = {"n_estimators": 10_000, "n_jobs": 256, "n_neighbors": examples, "max_iter": 1_000_000}
    for name, limit in most.items():
        value = config.options.get(name)
        if isinstance(value, int) and value > limit:
            why = f"its {examples} training examples" if name == "n_neighbors" else f"{limit:,}"
            raise InvalidConfig(f"Teacher '{config.name}': options.{name} is {value:,}; wanted at most {why}.")


def read_stored_teacher(
    config: StoredTeacherConfig, table: ExampleTable, index: dict[str, Array], folder: Path, rows: int | None = None
) -> Teacher:
    """Return a teacher of stored rows: one row an example of the whole table, one column a class.

    A CSV file is read whole; the rows of other files stay there until they are asked for.

    Args:
        config: Name and file of the teacher.
        table: The examples.
        index: Rows of the table that each split holds, by the split's name.
        folder: Where a relative path starts.
        rows: Of data that stream, of which the table is a sample; examples are then numbered by the rows of the whole.

    Raises:
        InvalidInput: The file has other classes or another number of rows than the data, or a cell is no number.
    """
    parts = {name: torch.as_tensor(rows) for name, rows in index.items()}
    path = folder / config.path
    if config.key is not None:
        p_NV = _read_keyed_rows(config, table, path, rows is not None)
        return StoredTeacher(config.name, {name: p_NV[rows] for name, rows in parts.items()}, gives=config.gives)
    if path.suffix.lower() in (".npy", ".safetensors") or is_parquet(path):
        whole = _open_stored_rows(config, table, path, len(table.label_N) if rows is None else rows)
        if rows is not None:
            return StoredTeacher(config.name, whole, gives=config.gives)
        return StoredTeacher(
            config.name, {name: SelectedRows(whole, rows) for name, rows in parts.items()}, gives=config.gives
        )
    if config.tensor is not None:
        raise InvalidConfig(f"Teacher '{config.name}': `tensor` is of a .safetensors file; {config.path} is none.")
    if rows is not None:
        raise InvalidConfig(
            f"Teacher '{config.name}': {config.path} would be read whole, and the data are streamed; write it as "
            "Parquet, .npy or .safetensors, whose rows stay in the file."
        )
    p_NV = _read_stored_table(config, table, path)
    return StoredTeacher(config.name, {name: p_NV[rows] for name, rows in parts.items()}, gives=config.gives)


def _read_keyed_rows(config: StoredTeacherConfig, table: ExampleTable, path: Path, streamed: bool) -> torch.Tensor:
    """Return the numbers of a CSV or Parquet file whose rows are found by their keys, in the order of the data."""
    who = f"Teacher '{config.name}'"
    place_N, _ = match_keys(path, str(config.key), None if streamed else table.keys, who)
    with open_table(path) as stored:
        if missing := [name for name in table.classes if name not in stored.columns]:
            raise InvalidInput(
                f"{who}: {config.path} has no column for class '{missing[0]}'; it has: {list_names(stored.columns)}. "
                f"Wanted one named after each class: {', '.join(table.classes)}."
            )
        p_MV = np.concatenate([block.numbers(table.classes) for block in stored.blocks()])
    return torch.from_numpy(p_MV[place_N])


def _open_stored_rows(config: StoredTeacherConfig, table: ExampleTable, path: Path, rows: int) -> RowTable:
    classes = table.classes if is_parquet(path) else None
    try:
        whole = open_rows(path, tensor=config.tensor, columns=classes)
    except InvalidInput as error:
        raise InvalidInput(f"Teacher '{config.name}': {error}") from error
    wanted = (rows, len(table.classes))
    if whole.shape != wanted:
        raise InvalidInput(
            f"Teacher '{config.name}': {config.path} holds a table of shape {whole.shape}; wanted {wanted}: one row an "
            f"example, in the same order, and one column a class, in this order: {', '.join(table.classes)}."
        )
    return whole


def _read_stored_table(config: StoredTeacherConfig, table: ExampleTable, path: Path) -> torch.Tensor:
    """Return the numbers of a CSV file, columns in the order of the classes."""
    frame = read_table(path)
    columns = [str(column) for column in frame.columns]
    if len(columns) != len(table.classes):
        raise InvalidInput(
            f"Teacher '{config.name}' gives {len(columns)} classes ({', '.join(columns)}), "
            f"the data have {len(table.classes)} ({', '.join(table.classes)}); "
            f"wanted one column a class in {config.path}."
        )
    if set(columns) != set(table.classes):
        raise InvalidInput(
            f"Teacher '{config.name}': {config.path} has columns {', '.join(columns)}; "
            f"wanted one named after each class: {', '.join(table.classes)}."
        )
    if len(frame) != len(table.label_N):
        raise InvalidInput(
            f"Teacher '{config.name}': {config.path} has {len(frame)} rows, the data have {len(table.label_N)}; "
            "wanted one row an example, in the same order."
        )
    return torch.tensor(parse_numbers(frame[table.classes], config.path))
