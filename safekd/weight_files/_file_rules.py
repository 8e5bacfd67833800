"""A rule set tied to the columns of a file.  Axes: N rows of a block, K teachers."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.polytope import LinearRows, WeightPolytope

from ..errors import InvalidInput
from ..experiment.config import LinearConfig, RulesConfig, load_rules, read_rules
from ..io import ASK_SEPARATOR, Block, Table, list_names
from ._guessed_teachers import GuessedTeachers

Rules = RulesConfig | Mapping[str, Any] | str | os.PathLike[str]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class FileRules:
    """What the weights of a file must obey, and where in the file what decides on it stands.

    Attributes:
        teachers: Columns, in the order of the polytope's teachers.
        polytope: The set of weights that obey.
        metric: "euclidean" or "kl".
        safety: Columns of the teachers' scores, or None.
        critical: The column that says where orderings apply, or None for everywhere.
        guess: Watches whether the teachers are teachers where nobody named them; None where somebody did.
    """

    teachers: tuple[str, ...]
    polytope: WeightPolytope
    metric: str
    safety: tuple[str, ...] | None
    critical: str | None
    guess: GuessedTeachers | None = None

    def weights(self, block: Block) -> Floats:
        """Return the weights of a block, (N, K).

        Args:
            block: Some rows of the file.

        Raises:
            InvalidInput: A cell is no number, or a column that nobody named is no teacher's.
        """
        if self.guess is None:
            return block.numbers(self.teachers)
        try:
            w_NK = block.numbers(self.teachers)
        except InvalidInput as error:
            raise self.guess.explain(error, block) from error
        self.guess.add(w_NK)
        return w_NK

    def ordering(self, block: Block) -> dict[str, Any]:
        """Return what decides on the order of each row, as `project` takes it: critical (N,), safety (N, K).

        Args:
            block: Some rows of the file.
        """
        given: dict[str, Any] = {}
        if self.critical is not None:
            given["critical"] = block.truths(self.critical)
        if self.safety is not None:
            given["safety"] = block.numbers(self.safety)
        return given


def read_rule_set(rules: Rules) -> RulesConfig:
    """Return a rule set given as such, as a mapping, or as the path of a TOML file.

    Args:
        rules: One of these.

    Raises:
        InvalidConfig: A key is unknown, or a value out of range.
    """
    if isinstance(rules, RulesConfig):
        return rules
    if not isinstance(rules, (Mapping, str, os.PathLike)):
        raise InvalidInput(f"The rules are a {type(rules).__name__}; wanted a mapping, or the path of a TOML file.")
    return read_rules(rules) if isinstance(rules, Mapping) else load_rules(rules)


def bind_rules(config: RulesConfig, table: Table, key_labels: Mapping[str, str] | None = None) -> FileRules:
    """Tie a rule set to a table.

    Args:
        config: The rule set.
        table: The file, open.
        key_labels: What messages call a key of the rule set, where not by its own name ("order" may be "--order").

    Raises:
        InvalidInput: A column is not there, or two rules contradict each other.
        InfeasiblePolytope: No weights meet them.
    """
    columns = {name: c for c, name in enumerate(table.columns)}
    return _Binder(config, columns, table.path, key_labels or {}).bind()


@dataclass(frozen=True)
class _Binder:
    """Reads a rule set against the columns of a file."""

    config: RulesConfig
    columns: Mapping[str, int]
    path: Path
    key_labels: Mapping[str, str]

    def bind(self) -> FileRules:
        config = self.config
        safety = None if config.safety_columns is None else self._columns("safety_columns", config.safety_columns)
        critical = None if config.critical_column is None else self._column("critical_column", config.critical_column)
        others, guess = {*(safety or ()), critical}, None
        if config.teachers is None:
            teachers = tuple(name for name in self.columns if name not in others)
            guess = GuessedTeachers(teachers, self.path, self._name("teachers"))
        else:
            teachers = self._columns("teachers", config.teachers)
        self._require_sense(teachers, safety, critical)
        number_of = {name: k for k, name in enumerate(teachers)}
        pairs = [pair for text in config.order for pair in self._pairs(text, number_of)]
        bounds = {name: self._bounds(name, getattr(config, name), number_of) for name in ("lower", "upper")}
        linear = self._linear(config.linear, number_of)
        try:
            polytope = WeightPolytope(
                len(teachers), orderings=pairs, margin=config.margin, ties=config.ties, linear=linear, **bounds
            )
        except InvalidInput as error:
            raise type(error)(f"{error}{_number_teachers(str(error), teachers)}") from error
        return FileRules(teachers, polytope, config.metric, safety, critical, guess)

    def _require_sense(self, teachers: Sequence[str], safety: Sequence[str] | None, critical: str | None) -> None:
        if not teachers:
            raise InvalidInput(f"{self.path} has no column of a teacher; name them by {self._name('teachers')}.")
        twice = [name for name, count in Counter(teachers).items() if count > 1]
        if twice:
            raise InvalidInput(f"{self._name('teachers')}: column '{min(twice)}' is named twice; once is enough.")
        weighed = set(teachers)
        for name, key in [*((one, "safety_columns") for one in safety or ()), (critical, "critical_column")]:
            if name in weighed:
                raise InvalidInput(f"{self._name(key)}: column '{name}' is that of a teacher; name another.")
        if safety is not None and len(safety) != len(teachers):
            raise InvalidInput(
                f"{self._name('safety_columns')} names {len(safety)} columns for {len(teachers)} teachers "
                f"({list_names(teachers)}); name one for each, in the same order."
            )
        if self.config.margin > 0 and safety is None and not self.config.order:
            raise InvalidInput(
                f"{self._name('margin')} says by how much ordered weights differ, but there are no orderings; give "
                f"{self._name('order')} or {self._name('safety_columns')} too."
            )
        if safety is not None and self.config.order:
            raise InvalidInput(
                f"{self._name('safety_columns')} and {self._name('order')} are both given; use one of the two: either "
                "each row follows its own scores, or all rows follow one order."
            )
        if critical is not None and safety is None and not self.config.order:
            raise InvalidInput(
                f"{self._name('critical_column')} says where orderings apply, but there are none; give "
                f"{self._name('order')} or {self._name('safety_columns')} too."
            )

    def _pairs(self, text: str, number_of: Mapping[str, int]) -> list[tuple[int, int]]:
        """Return the pairs that "a>=b" or "a>=b>=c" states, as positions among the teachers."""
        parts = [part.strip() for part in text.split(">=")]
        label = f'{self._name("order")} "{text}"'
        if len(parts) < 2 or not all(parts):
            raise InvalidInput(f'{label} is not understood; wanted "a>=b" with two teacher columns.')
        return list(pairwise(self._teacher(label, part, number_of) for part in parts))

    def _bounds(self, key: str, value: float | list[float] | dict[str, float], number_of: Mapping[str, int]) -> Any:
        if isinstance(value, dict):
            bound_K = [float(RulesConfig.model_fields[key].default)] * len(number_of)
            for name, number in value.items():
                bound_K[self._teacher(self._name(key), name, number_of)] = number
            return bound_K
        if isinstance(value, list) and len(value) != len(number_of):
            raise InvalidInput(
                f"{self._name(key)} has {len(value)} numbers for {len(number_of)} teachers "
                f"({list_names(list(number_of))}); give one number, or one for each."
            )
        return value

    def _linear(self, rules: Sequence[LinearConfig], number_of: Mapping[str, int]) -> LinearRows | None:
        if not rules:
            return None
        rows: dict[str, list[Any]] = {"A": [], "b": [], "C": [], "d": []}
        for rule in rules:
            row_K = [0.0] * len(number_of)
            for name, factor in rule.weights.items():
                row_K[self._teacher(self._name("linear"), name, number_of)] = factor
            if rule.equals is not None:
                rows["C"].append(row_K)
                rows["d"].append(rule.equals)
            elif rule.at_most is not None:
                rows["A"].append(row_K)
                rows["b"].append(rule.at_most)
            else:
                rows["A"].append([-factor for factor in row_K])
                rows["b"].append(-(rule.at_least or 0.0))
        return LinearRows(**{name: value for name, value in rows.items() if value})

    def _teacher(self, label: str, name: str, number_of: Mapping[str, int]) -> int:
        self._require(label, name, number_of, "teacher column")
        return number_of[name]

    def _columns(self, key: str, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(self._column(key, name) for given in names for name in self._parse_list(given))

    def _parse_list(self, given: str) -> list[str]:
        """Return one column, or those that "a,b,c" lists."""
        return [given] if given in self.columns or "," not in given else [name.strip() for name in given.split(",")]

    def _column(self, key: str, name: str) -> str:
        self._require(self._name(key), name, self.columns, "teacher column" if key == "teachers" else "column")
        return name

    def _require(self, label: str, name: str, known: Mapping[str, int], what: str) -> None:
        if name in known:
            return
        hint = ""
        if len(self.columns) == 1 and re.search(r"\W", "".join(self.columns)):
            hint = f" If another sign separates its columns, {ASK_SEPARATOR}."
        raise InvalidInput(f"{label}: {self.path} has no {what} '{name}'; it has: {list_names(list(known))}.{hint}")

    def _name(self, key: str) -> str:
        return self.key_labels.get(key, f"`{key}`")


def _number_teachers(message: str, teachers: Sequence[str]) -> str:
    """Return which teacher has which number, if a message about a polytope names any by number."""
    if not re.search(r"teachers? \d|\d >= \d", message):
        return ""
    told = {int(number) for number in re.findall(r"(?<![\d.])\d{1,9}(?![\d.]*\d)", message)}
    numbered = [f"{k}: {name}" for k, name in enumerate(teachers) if len(teachers) <= 20 or k in told]
    return f" By number, the teachers are {list_names(numbered)}."
