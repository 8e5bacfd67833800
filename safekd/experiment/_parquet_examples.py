"""Examples from a Parquet file: surveyed in one pass, and then streamed, in memory that does not grow with the file.

The survey finds classes, contexts, means and standard deviations, and holds a random sample of each split: on that of
the training split teachers are fitted, and those of the others judge.  Axes: N rows, F features, B batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.short_repr import ShortRepr

from ..data import StreamSource, rank_places
from ..errors import InvalidConfig, InvalidInput
from ..io import ParquetBlock, ParquetTable, open_table
from ._example_table import Array, ExampleTable, FeatureScaling, choose_features
from .config import DataConfig


@dataclass(frozen=True)
class ParquetSettings:
    """Sizes; ``tests/safekd/experiment/test_parquet_examples.py`` notices.

    Attributes:
        large: Rows above which a file is streamed where nobody says; its sample is then far smaller than the file.
        sample_rows: Rows of a split that are held at most: what certificates and teachers of the demo's kind need.
        sample_bytes: Size of the features of all samples at most.
        run_rows: Rows that are read from one place of the file before the next is drawn; within blocks of as many they
            are shuffled.
        most_classes: Different labels at most: more are numbers of rows, or measurements.
    """

    large: int = 100_000
    sample_rows: int = 2**16
    sample_bytes: int = 2**27
    run_rows: int = 2**17
    most_classes: int = 10_000


SETTINGS = ParquetSettings()
_SPLITS = ("train", "validation", "certify", "test", "safety")


@dataclass(frozen=True, repr=False)
class ParquetSurvey(ShortRepr):
    """What the first pass over a file showed.

    Attributes:
        table: The rows that are held, in the order of the file; their classes and contexts are those of all rows.
        row_N: Numbers of these rows in the file, from 0.
        index: Places in the table of each split's rows, by the split's name.
        scaling: Mean and standard deviation of each feature over all rows of the training split.
        rows: Of the file.
        streamed: Whether not all of them are held.
        reader: Reads rows anew.
    """

    table: ExampleTable
    row_N: Array
    index: dict[str, Array]
    scaling: FeatureScaling
    rows: int
    streamed: bool
    reader: ParquetReader

    def stream(self, batch_rows: int, seed: int) -> StreamSource:
        """Return the rows of the training split, standardized, as a stream of batches.

        Args:
            batch_rows: Rows of a batch.
            seed: Of the order of rows, with the epoch.
        """
        table = self.table
        known = {name: number for number, name in enumerate(table.classes)}
        batches = ParquetBatches(self.reader, known, self.scaling, batch_rows, seed)
        return StreamSource("train", batches, class_names=table.classes, context_names=table.contexts)


@dataclass(frozen=True, repr=False)
class ParquetReader(ShortRepr):
    """How rows of a file are read.

    Attributes:
        path: The file.
        config: Names of its columns.
        features: Names of the features.
        seed: By which rows are drawn into splits.
        cuts: Where contexts are cut; none where there is one.
    """

    path: Path
    config: DataConfig
    features: list[str]
    seed: int
    cuts: Array | None = None

    @property
    def columns(self) -> list[str]:
        """All columns that are read, each once."""
        context = None if self.config.context is None else self.config.context.column
        named = [*self.features, self.config.label, self.config.split, context]
        return list(dict.fromkeys(name for name in named if name is not None))

    def assign_splits(self, block: ParquetBlock) -> NDArray[np.int64]:
        """Return the number of each row's split, (N,).

        Args:
            block: Rows.

        Raises:
            InvalidInput: The file names a split that there is not.
        """
        if self.config.split is not None:
            names, number_N = block.names(self.config.split)
            unknown = [name for name in names if name not in _SPLITS]
            if unknown:
                row = int((number_N == names.index(unknown[0])).argmax())
                raise block.explain_refusal(row, self.config.split, f"one of {', '.join(_SPLITS)}")
            return np.array([_SPLITS.index(name) for name in names])[number_N]
        shares = self.config.splits.model_dump()
        ends = np.cumsum([shares[name] for name in _SPLITS])
        drawn_N = rank_places(number_rows(block), self.seed).astype(np.float64) / 2.0**64
        return np.minimum(np.searchsorted(ends, drawn_N, side="right"), len(_SPLITS) - 1)

    def read_context(self, block: ParquetBlock) -> Array:
        """Return the values that contexts are cut from, (N,); zeros where there is one context."""
        if self.config.context is None:
            return np.zeros(block.rows)
        return block.numbers([self.config.context.column])[:, 0].astype(np.float64)


class ParquetBatches:
    """The rows of the training split, batch by batch, in another order each epoch.

    Args:
        reader: Of the file.
        classes: Numbers of the classes, by name.
        scaling: How features are standardized.
        batch_rows: Rows of a batch.
        seed: Of the order, with the epoch.
    """

    def __init__(
        self,
        reader: ParquetReader,
        classes: dict[str, int],
        scaling: FeatureScaling,
        batch_rows: int,
        seed: int,
    ) -> None:
        self.reader, self.classes, self.scaling = reader, classes, scaling
        self.batch_rows, self.seed, self.epoch = batch_rows, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next.

        Args:
            epoch: From 0.
        """
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Array]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        held: dict[str, Array] = {}
        with open_table(self.reader.path) as table:
            assert isinstance(table, ParquetTable)
            runs = table.list_runs(SETTINGS.run_rows)
            for number in rng.permutation(len(runs)):
                for block in table.blocks(runs[number], self.reader.columns):
                    rows = self._read(block, rng)
                    held = {name: np.concatenate([held[name], part]) if held else part for name, part in rows.items()}
                    whole = len(held["labels"]) // self.batch_rows * self.batch_rows
                    for start in range(0, whole, self.batch_rows):
                        yield {name: part[start : start + self.batch_rows] for name, part in held.items()}
                    held = {name: part[whole:] for name, part in held.items()}
        if len(held.get("labels", ())):
            yield held

    def _read(self, block: ParquetBlock, rng: np.random.Generator) -> dict[str, Array]:
        """Return the training rows of a block, shuffled."""
        reader = self.reader
        mine = np.flatnonzero(reader.assign_splits(block) == _SPLITS.index("train"))
        mine = rng.permutation(mine)
        x_NF = block.numbers(reader.features)[mine]
        names, number_N = block.names(str(reader.config.label))
        if new := [name for name in names if name not in self.classes]:
            row = int((number_N == names.index(new[0])).argmax())
            raise block.explain_refusal(row, str(reader.config.label), "a class that the file had when it was surveyed")
        label_N = np.array([self.classes[name] for name in names], dtype=np.int64)[number_N[mine]]
        value_N = reader.read_context(block)[mine]
        context_N = np.zeros(len(mine), np.int64) if reader.cuts is None else np.digitize(value_N, reader.cuts)
        return {
            "inputs": self.scaling.scale(x_NF),
            "labels": label_N,
            "context": context_N.astype(np.int64),
            "numbers": number_rows(block)[mine].astype(np.int64),
        }


def survey_parquet(config: DataConfig, path: Path, seed: int) -> ParquetSurvey:
    """Read a Parquet file once.

    Args:
        config: Names of columns, shares of splits.
        path: The file.
        seed: By which rows are drawn into splits and samples.

    Raises:
        InvalidInput: A cell cannot be used, or a split has no row.
        InvalidConfig: A column that is named is not there.
    """
    with open_table(path) as table:
        if not isinstance(table, ParquetTable):
            raise InvalidInput(f"{path} is no Parquet file; wanted one, as its name says.")
        for name in (config.label, config.split, None if config.context is None else config.context.column):
            if name is not None and name not in table.columns:
                raise InvalidInput(f"{config.source} has no column '{name}'; it has: {', '.join(table.columns)}.")
        features = choose_features([c for c in table.columns if c not in (config.label, config.split)], config)
        streamed = config.stream if config.stream is not None else int(table.total or 0) > SETTINGS.large
        reader = ParquetReader(path, config, features, seed)
        limit = max(1, min(SETTINGS.sample_rows, SETTINGS.sample_bytes // (8 * len(features) * len(_SPLITS))))
        classes: dict[str, int] = {}
        moments = _Moments(len(features))
        samples = [_RowSample(limit if streamed else None, seed) for _ in _SPLITS]
        for block in table.blocks(None, reader.columns):
            rows = _read_survey_rows(reader, block, classes)
            split_N = reader.assign_splits(block)
            moments.add(rows["x"][split_N == 0])
            for number, sample in enumerate(samples):
                sample.add({name: part[split_N == number] for name, part in rows.items()})
        return _summarize_survey(reader, samples, classes, moments, streamed, int(table.total or 0))


def number_rows(block: ParquetBlock) -> NDArray[np.uint64]:
    """Return the numbers of a block's rows in the file, from 0, (N,).

    Args:
        block: Rows.
    """
    return np.arange(block.done - block.rows, block.done, dtype=np.uint64)


def _read_survey_rows(reader: ParquetReader, block: ParquetBlock, classes: dict[str, int]) -> dict[str, Array]:
    names, number_N = block.names(str(reader.config.label))
    for name in names:
        classes.setdefault(name, len(classes))
    if len(classes) > SETTINGS.most_classes:
        raise InvalidInput(
            f"{reader.path}, column '{reader.config.label}': more than {SETTINGS.most_classes:,} different labels; "
            "is it the label column?"
        )
    label_N = np.array([classes[name] for name in names], dtype=np.int64)[number_N]
    x_NF = block.numbers(reader.features).astype(np.float64)
    return {"x": x_NF, "label": label_N, "value": reader.read_context(block), "row": number_rows(block)}


def _summarize_survey(
    reader: ParquetReader,
    samples: Sequence[_RowSample],
    found: dict[str, int],
    moments: _Moments,
    streamed: bool,
    rows: int,
) -> ParquetSurvey:
    config, parts = reader.config, {name: sample.rows() for name, sample in zip(_SPLITS, samples, strict=True)}
    for name in _SPLITS[:4]:
        if not len(parts[name]["row"]):
            raise InvalidInput(f"Split '{name}' is empty: {reader.path} has no row for it.")
    whole = {what: np.concatenate([part[what] for part in parts.values()]) for what in ("x", "label", "value", "row")}
    split_N = np.repeat(np.arange(len(_SPLITS)), [len(part["row"]) for part in parts.values()])
    order = np.argsort(whole["row"])
    whole, split_N = {what: part[order] for what, part in whole.items()}, split_N[order]
    classes = sorted(found)
    place = np.array([classes.index(name) for name in found], dtype=np.int64)
    contexts, cuts = ["all"], None
    if config.context is not None:
        contexts = config.context.names
        cuts = np.quantile(whole["value"], np.arange(1, len(contexts)) / len(contexts))
    context_N = np.zeros(len(order), dtype=np.int64) if cuts is None else np.digitize(whole["value"], cuts)
    held = () if cuts is None else tuple(cuts.tolist())
    table = ExampleTable(whole["x"], place[whole["label"]], context_N, reader.features, classes, contexts, held)
    index = {name: np.flatnonzero(split_N == number) for number, name in enumerate(_SPLITS)}
    index = {name: places for name, places in index.items() if len(places)}
    return ParquetSurvey(
        table,
        whole["row"].astype(np.int64),
        index,
        FeatureScaling(moments.mean_F, moments.measure_spread()),
        rows,
        streamed,
        replace(reader, cuts=cuts),
    )


class _Moments:
    """Mean and standard deviation of columns that come in parts.  Source: Chan, Golub and LeVeque 1979."""

    def __init__(self, features: int) -> None:
        self.count, self.mean_F, self._squares_F = 0, np.zeros(features), np.zeros(features)

    def add(self, x_NF: Array) -> None:
        if not len(x_NF):
            return
        mean_F, total = x_NF.mean(0), self.count + len(x_NF)
        apart_F = mean_F - self.mean_F
        self._squares_F += np.square(x_NF - mean_F).sum(0) + apart_F**2 * self.count * len(x_NF) / total
        self.mean_F = self.mean_F + apart_F * len(x_NF) / total
        self.count = total

    def measure_spread(self) -> Array:
        """Return the standard deviations, 1 where a feature is constant, (F,)."""
        spread_F = np.sqrt(self._squares_F / max(self.count, 1))
        return np.where(spread_F > 0, spread_F, 1.0)


class _RowSample:
    """Rows of the lowest ranks, all where there is no limit."""

    def __init__(self, limit: int | None, seed: int) -> None:
        self._limit, self._seed = limit, seed + 1  # other ranks than those by which splits are drawn
        self._parts: list[dict[str, Array]] = []
        self._held = 0

    def add(self, rows: dict[str, Array]) -> None:
        self._parts.append(rows)
        self._held += len(rows["row"])
        if self._limit is not None and self._held > 2 * self._limit:
            self._cut(self._limit)

    def rows(self) -> dict[str, Any]:
        if self._limit is not None:
            self._cut(self._limit)
        return self._join()

    def _join(self) -> dict[str, Array]:
        return {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}

    def _cut(self, limit: int) -> None:
        whole = self._join()
        rank_N = rank_places(whole["row"], self._seed)
        kept = np.argpartition(rank_N, limit)[:limit] if len(rank_N) > limit else np.arange(len(rank_N))
        self._parts, self._held = [{name: part[kept] for name, part in whole.items()}], len(kept)


def require_batch_size(size: int | None) -> int:
    """Return how many rows a step reads.

    Args:
        size: As configured.

    Raises:
        InvalidConfig: It is left out.
    """
    if size is None:
        raise InvalidConfig(
            "training.batch_size is left out, and the data are streamed, of which no step reads all; give one, 256 for "
            "example, or data.stream = false."
        )
    return size
