"""Which context an example is in: a column of names, or a column of numbers that is cut.  Axes: N examples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from solvers.short_repr import ShortRepr

from ..errors import InvalidConfig
from ..io import Block, list_names, parse_numbers, refuse_cell
from .config import ContextConfig

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class ContextSettings:
    """How many contexts a column can name; ``tests/safekd/experiment/test_context_columns.py`` notices.

    Attributes:
        most_names: Different names at most: more are those of rows.
        most_numbers: Different numbers that are taken for names at most: more are measurements, which want cuts.
    """

    most_names: int = 1000
    most_numbers: int = 20


_SETTINGS = ContextSettings()


@dataclass(frozen=True, repr=False)
class ContextRule(ShortRepr):
    """How the context of an example follows from one of its columns.

    Attributes:
        names: Of the contexts, by number.
        column: Which column says it; None where there is one context.
        cuts: Where a column of numbers is cut, lowest first; empty where the column holds the names.
    """

    names: list[str] = field(default_factory=lambda: ["all"])
    column: str | None = None
    cuts: tuple[float, ...] = ()

    @property
    def is_named(self) -> bool:
        """Whether the column holds the names of contexts."""
        return self.column is not None and not self.cuts

    def cut(self, value_N: NDArray[np.floating]) -> Numbers:
        """Return the numbers of contexts, (N,).

        Args:
            value_N: What the column holds, numbers.
        """
        number_N: Numbers = np.digitize(value_N, self.cuts).astype(np.int64)
        return number_N

    def read_block(self, block: Block) -> Numbers:
        """Return the numbers of contexts of some rows of a file, (N,).

        Args:
            block: The rows.

        Raises:
            InvalidInput: A cell is no number, or the name of no context; it is named.
        """
        if self.column is None:
            return np.zeros(block.rows, np.int64)
        if not self.is_named:
            return self.cut(block.numbers([self.column])[:, 0])
        number_N = find_places([cell.strip() for cell in block.texts(self.column)], self.names)
        wrong = np.flatnonzero(number_N < 0)
        if len(wrong):
            raise block.explain_refusal(int(wrong[0]), self.column, f"one of the contexts {list_names(self.names)}")
        return number_N


def find_places(names_N: Sequence[str], known: Sequence[str]) -> Numbers:
    """Return which of some known names each one is, -1 where it is none, (N,).

    Args:
        names_N: Names.
        known: All that there are.
    """
    place = {name: number for number, name in enumerate(known)}
    return np.array([place.get(name, -1) for name in names_N], dtype=np.int64)


def read_contexts(config: ContextConfig, frame: pd.DataFrame, source: str) -> tuple[Numbers, ContextRule]:
    """Return the number of each row's context, and the rule that it follows.

    Args:
        config: Column, names and cuts.
        frame: Columns of the data, numbers or text cells with the lines of their file as index.
        source: What messages call it.

    Raises:
        InvalidConfig: There is no such column, or its numbers want cuts.
        InvalidInput: A cell is empty, no number among numbers, or none of the names that are given.
    """
    column = config.column
    if column not in frame.columns:
        raise InvalidConfig(f"data.context.column is '{column}'; {source} has: {list_names(list(frame.columns))}.")
    cells = frame[column]
    if is_numeric_dtype(cells) or is_cut(config, {str(cell).strip() for cell in cells}):
        value_N = parse_numbers(frame[[column]], source)[:, 0]
        rule = cut_numbers(config, value_N, source)
        return rule.cut(value_N), rule
    texts = [str(cell).strip() for cell in cells]
    names = list_context_names(config, sorted(set(texts) - {""}), source)
    number_N = find_places(texts, names)
    wrong = np.flatnonzero(number_N < 0)
    if len(wrong):
        place = f"{source}, line {cells.index[wrong[0]]}, column '{column}'"
        others = list_names(sorted({texts[n] for n in wrong}))
        more = f" ({len(wrong)} rows hold others: {others})" if config.names else ""
        raise refuse_cell(place, texts[wrong[0]], f"one of the contexts {list_names(names)}{more}")
    return number_N, ContextRule(names, column)


def cut_numbers(config: ContextConfig, value_N: NDArray[np.floating], source: str) -> ContextRule:
    """Return the rule that cuts a column of numbers: where the file says, or at its quantiles.

    Args:
        config: Names and cuts.
        value_N: What the column holds.
        source: What messages call it.

    Raises:
        InvalidConfig: It gives no names.
    """
    if config.names is None:
        raise _ask_for_names(config, source)
    share_C = np.arange(1, len(config.names)) / len(config.names)
    cuts = np.quantile(value_N, share_C).tolist() if config.cuts is None else config.cuts
    return ContextRule(config.names, config.column, tuple(cuts))


def list_context_names(config: ContextConfig, found: list[str], source: str) -> list[str]:
    """Return the names of contexts in the order of their numbers.

    Args:
        config: Names, where they are given.
        found: All that the column holds, in the order of the alphabet.
        source: What messages call it.

    Raises:
        InvalidConfig: There are too many to be contexts.
    """
    if config.names is not None:
        return config.names
    if len(found) > _SETTINGS.most_numbers and all(reads_as_number(name) for name in found):
        raise _ask_for_names(config, source)
    if len(found) > _SETTINGS.most_names:
        raise InvalidConfig(
            f"data.context.column is '{config.column}', which holds {len(found):,} different names in {source}; wanted "
            f"at most {_SETTINGS.most_names:,}. Is it the column of contexts?"
        )
    return found


def is_cut(config: ContextConfig, distinct: Collection[str]) -> bool:
    """Return whether a column is one of numbers to be cut: most of what it holds are, and none that is a name.

    Args:
        config: Names and cuts.
        distinct: The different cells of the column, as text.
    """
    numbers = sum(reads_as_number(cell) for cell in set(distinct) - set(config.names or ()))
    if config.cuts is not None or config.names is not None:
        return config.cuts is not None or 2 * numbers > len(distinct)
    return numbers == len(distinct) > _SETTINGS.most_numbers


def _ask_for_names(config: ContextConfig, source: str) -> InvalidConfig:
    return InvalidConfig(
        f"data.context.column is '{config.column}', a column of numbers in {source}; give `names`, lowest values "
        "first, for as many equal shares, and `cuts` to say where they meet."
    )


def reads_as_number(text: str) -> bool:
    """Return whether a text is that of a number.

    Args:
        text: A cell or a name.
    """
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
