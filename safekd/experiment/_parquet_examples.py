"""Examples from a Parquet file: surveyed in one pass, and then streamed, in memory that does not grow with the file.

The survey finds classes, contexts, means and standard deviations, and holds a random sample of each split: on that of
the training split teachers are fitted, and those of the others judge.  Axes: N rows, F features, B batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvers.short_repr import ShortRepr

from ..data import StreamSource, rank_places
from ..errors import InvalidConfig, InvalidInput
from ..io import ParquetBlock, ParquetTable, list_names, open_table
from ._context_rule import ContextRule, cut_numbers, is_cut, list_context_names
from ._example_table import SPLITS, Array, ExampleTable, FeatureScaling, choose_features, refuse_torn_group
from ._key_matching import require_distinct_keys
from ._survey_parts import GroupSplits, Moments, RowSample
from .config import ContextConfig, DataConfig


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
        most_groups: Groups of a file that names splits too: in which each one is stays in memory.
    """

    large: int = 100_000
    sample_rows: int = 2**16
    sample_bytes: int = 2**27
    run_rows: int = 2**17
    most_classes: int = 10_000
    most_groups: int = 10_000_000


SETTINGS = ParquetSettings()


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
        named_contexts: Whether the column of contexts holds names.
        keyed: Whether keys of rows are read.
        rule: How contexts follow from their column; None before the survey is done.
    """

    path: Path
    config: DataConfig
    features: list[str]
    seed: int
    named_contexts: bool = False
    keyed: bool = False
    rule: ContextRule | None = None

    @property
    def columns(self) -> list[str]:
        """All columns that are read, each once."""
        context = None if self.config.context is None else self.config.context.column
        key = self.config.key if self.keyed else None
        named = [*self.features, self.config.label, self.config.split, self.config.group, context, key]
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
            unknown = [name for name in names if name not in SPLITS]
            if unknown:
                row = int((number_N == names.index(unknown[0])).argmax())
                raise block.explain_refusal(row, self.config.split, f"one of {', '.join(SPLITS)}")
            return np.array([SPLITS.index(name) for name in names])[number_N]
        shares = self.config.splits.model_dump()
        ends = np.cumsum([shares[name] for name in SPLITS])
        drawn_by = number_rows(block) if self.config.group is None else self.hash_groups(block)
        drawn_N = rank_places(drawn_by, self.seed).astype(np.float64) / 2.0**64
        return np.minimum(np.searchsorted(ends, drawn_N, side="right"), len(SPLITS) - 1)

    def hash_groups(self, block: ParquetBlock) -> NDArray[np.uint64]:
        """Return a hash of each row's group, (N,).

        Args:
            block: Rows.

        Raises:
            InvalidInput: A row names no group.
        """
        names, number_N = block.names(str(self.config.group))
        hashes = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
        return np.frombuffer(b"".join(hashes), dtype="<u8").astype(np.uint64)[number_N]

    def read_context(self, block: ParquetBlock, names: dict[str, int]) -> Array:
        """Return what contexts follow from, (N,): numbers to be cut, or numbers of names; zeros where there is one.

        Args:
            block: Rows.
            names: Numbers of the names so far; new ones are entered.

        Raises:
            InvalidInput: A cell is no number among numbers, or none of the names that are given.
        """
        context = self.config.context
        if context is None:
            return np.zeros(block.rows)
        if not self.named_contexts:
            return block.numbers([context.column])[:, 0].astype(np.float64)
        found, number_N = block.names(context.column)
        for name in found:
            if context.names is not None and name not in context.names:
                row = int((number_N == found.index(name)).argmax())
                raise block.explain_refusal(row, context.column, f"one of the contexts {list_names(context.names)}")
            names.setdefault(name, len(names))
        list_context_names(context, list(names), self.config.source)  # too many are refused early
        return np.array([names[name] for name in found])[number_N]


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
        mine = np.flatnonzero(reader.assign_splits(block) == SPLITS.index("train"))
        mine = rng.permutation(mine)
        x_NF = block.numbers(reader.features)[mine]
        names, number_N = block.names(str(reader.config.label))
        if new := [name for name in names if name not in self.classes]:
            row = int((number_N == names.index(new[0])).argmax())
            raise block.explain_refusal(row, str(reader.config.label), "a class that the file had when it was surveyed")
        label_N = np.array([self.classes[name] for name in names], dtype=np.int64)[number_N[mine]]
        assert reader.rule is not None  # the survey is done
        return {
            "inputs": self.scaling.scale(x_NF),
            "labels": label_N,
            "context": reader.rule.read_block(block)[mine],
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
        assert isinstance(table, ParquetTable)  # as its name says, by which it was opened
        column = None if config.context is None else config.context.column
        for name in (config.label, config.split, config.group, config.key, column):
            if name is not None and name not in table.columns:
                raise InvalidInput(f"{config.source} has no column '{name}'; it has: {', '.join(table.columns)}.")
        named = config.context is not None and _holds_names(table, config.context)
        features = choose_features(config.keep_as_features(list(table.columns), named), config)
        streamed = config.stream if config.stream is not None else int(table.total or 0) > SETTINGS.large
        reader = ParquetReader(path, config, features, seed, named, config.key is not None and not streamed)
        limit = max(1, min(SETTINGS.sample_rows, SETTINGS.sample_bytes // (8 * len(features) * len(SPLITS))))
        classes: dict[str, int] = {}
        contexts: dict[str, int] = {}
        groups = GroupSplits()
        moments = Moments(len(features))
        samples = [RowSample(limit if streamed else None, seed) for _ in SPLITS]
        for block in table.blocks(None, reader.columns):
            rows = _read_survey_rows(reader, block, classes, contexts)
            split_N = reader.assign_splits(block)
            if config.group is not None and config.split is not None:
                _require_whole_groups_so_far(config, block, groups, rows["group"], split_N)
            moments.add(rows["x"][split_N == 0])
            for number, sample in enumerate(samples):
                sample.add({name: part[split_N == number] for name, part in rows.items()})
        return _summarize_survey(reader, samples, (classes, contexts), moments, streamed, int(table.total or 0))


def number_rows(block: ParquetBlock) -> NDArray[np.uint64]:
    """Return the numbers of a block's rows in the file, from 0, (N,).

    Args:
        block: Rows.
    """
    return np.arange(block.done - block.rows, block.done, dtype=np.uint64)


def _holds_names(table: ParquetTable, context: ContextConfig) -> bool:
    """Return whether a column of contexts holds their names, and no numbers that are to be cut, by its first rows."""
    if context.cuts is not None or table.holds_floats(context.column):
        return False
    if not table.holds_numbers(context.column):
        return True
    return not is_cut(context, next(table.blocks(None, [context.column])).names(context.column)[0])


def _require_whole_groups_so_far(
    config: DataConfig, block: ParquetBlock, groups: GroupSplits, hash_N: Array, split_N: Array
) -> None:
    """Refuse splits that tear a group apart."""
    torn = groups.add(hash_N, split_N)
    if torn is not None:
        row, other = torn
        names, number_N = block.names(str(config.group))
        raise refuse_torn_group(
            config, names[number_N[row]], (SPLITS[other], SPLITS[split_N[row]]), f" ({block.place(row)})"
        )
    if len(groups) > SETTINGS.most_groups:
        raise InvalidInput(
            f"{config.source}, column '{config.group}': more than {SETTINGS.most_groups:,} groups; whether each is in "
            "one split would take too much memory to check. Leave `split` out, so that groups are drawn into splits."
        )


def _read_survey_rows(
    reader: ParquetReader, block: ParquetBlock, classes: dict[str, int], contexts: dict[str, int]
) -> dict[str, Array]:
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
    value_N, row_N = reader.read_context(block, contexts), number_rows(block)
    group_N = row_N if reader.config.group is None else reader.hash_groups(block)
    rows = {"x": x_NF, "label": label_N, "value": value_N, "row": row_N, "group": group_N}
    if reader.keyed:
        names, number_N = block.names(str(reader.config.key))
        rows["key"] = np.array(names, dtype=object)[number_N]
    return rows


def _summarize_survey(
    reader: ParquetReader,
    samples: Sequence[RowSample],
    found: tuple[dict[str, int], dict[str, int]],
    moments: Moments,
    streamed: bool,
    rows: int,
) -> ParquetSurvey:
    config, parts = reader.config, {name: sample.rows() for name, sample in zip(SPLITS, samples, strict=True)}
    for name in SPLITS[:4]:
        if not len(parts[name]["row"]):
            raise InvalidInput(f"Split '{name}' is empty: {reader.path} has no row for it.")
    whole = {what: np.concatenate([part[what] for part in parts.values()]) for what in parts["train"]}
    split_N = np.repeat(np.arange(len(SPLITS)), [len(part["row"]) for part in parts.values()])
    order = np.argsort(whole["row"])
    whole, split_N = {what: part[order] for what, part in whole.items()}, split_N[order]
    classes, number_L = _sort_names(found[0])
    value_N, rule = whole["value"], ContextRule()
    if config.context is not None and reader.named_contexts:
        names = list_context_names(config.context, sorted(found[1]), config.source)
        rule, value_N = ContextRule(names, config.context.column), _sort_names(found[1], names)[1][value_N]
    elif config.context is not None:
        rule = cut_numbers(config.context, value_N, config.source)
        value_N = rule.cut(value_N)
    group_N = None if config.group is None else np.unique(whole["group"], return_inverse=True)[1]
    table = ExampleTable(
        whole["x"],
        number_L[whole["label"]],
        value_N.astype(np.int64),
        reader.features,
        classes,
        rule,
        group_N=group_N,
        keys=_list_keys(config, whole) if reader.keyed else None,
    )
    index = {name: np.flatnonzero(split_N == number) for number, name in enumerate(SPLITS)}
    index = {name: places for name, places in index.items() if len(places)}
    return ParquetSurvey(
        table,
        whole["row"].astype(np.int64),
        index,
        FeatureScaling.of_moments(moments.mean_F, moments.measure_spread(), reader.features),
        rows,
        streamed,
        replace(reader, rule=rule),
    )


def _list_keys(config: DataConfig, whole: dict[str, Array]) -> list[str]:
    """Return the keys of the rows that are held, which are all."""
    keys: list[str] = whole["key"].tolist()
    require_distinct_keys(keys, (whole["row"] + np.uint64(1)).tolist(), str(config.key), config.source)
    return keys


def _sort_names(found: dict[str, int], names: list[str] | None = None) -> tuple[list[str], Array]:
    """Return names in order, that of the alphabet if left out, and the place of each in it by its number so far."""
    names = sorted(found) if names is None else names
    return names, np.array([names.index(name) for name in found], dtype=np.int64)


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
