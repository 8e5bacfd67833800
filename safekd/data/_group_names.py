"""What classes, contexts and tasks are called, and the numbers behind the names."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from ..errors import InvalidInput

Key = Literal["class", "context", "task"]
Group = int | str  # the number of a class, context or task, or its name
PLURAL: dict[Key, str] = {"context": "contexts", "task": "tasks", "class": "classes"}
FIELDS: dict[Key, str] = {"class": "class_names", "context": "context_names", "task": "task_names"}
Share = TypeVar("Share")
_LONGEST_TABLE = 2**22  # bytes; the largest vocabularies have 2**18 tokens


@dataclass(frozen=True)
class GroupNames:
    """The names of one split's classes, contexts and tasks, in the order of their numbers.

    Attributes:
        split: Name of the split.
        classes: Of the labels; empty where they have none.
        contexts: Of the contexts.
        tasks: Of the tasks.
    """

    split: str
    classes: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def known(self, key: Key) -> tuple[str, ...]:
        """Return all names of one kind.

        Args:
            key: "class", "context" or "task".
        """
        return {"class": self.classes, "context": self.contexts, "task": self.tasks}[key]

    def number(self, key: Key, group: Group) -> int:
        """Return the number of a class, context or task.

        Args:
            key: "class", "context" or "task".
            group: Its name, or its number, which is handed back.

        Raises:
            InvalidInput: The split has no such name; the message has those that it has.
        """
        if not isinstance(group, str):
            return int(group)
        known = self.known(key)
        if not known:
            raise InvalidInput(
                f"'{group}' is the name of a {key}, but split '{self.split}' has no names for its {PLURAL[key]}; "
                f"give it Split(..., {FIELDS[key]}=[...]), or use numbers."
            )
        return find_name(group, known, key, f"split '{self.split}'")

    def numbers(self, key: Key, groups: Collection[Group]) -> list[int]:
        """Return the numbers of several classes, contexts or tasks, in the order given.

        Args:
            key: "class", "context" or "task".
            groups: Names or numbers.

        Raises:
            InvalidInput: The split has no such name.
        """
        return [self.number(key, group) for group in groups]

    def number_keys(self, key: Key, shares: Mapping[Group, Share]) -> dict[int, Share]:
        """Return a mapping by number in place of one by name.

        Args:
            key: "class", "context" or "task".
            shares: By name or number.

        Raises:
            InvalidInput: The split has no such name, or a name and a number mean the same.
        """
        numbers = self.numbers(key, shares)
        if len(set(numbers)) < len(numbers):
            raise InvalidInput(f"{list(shares)} names a {key} of split '{self.split}' twice; name each once.")
        return dict(zip(numbers, shares.values(), strict=True))

    def describe(self, key: Key, number: int) -> str:
        """Return what messages call a class, context or task: "context 3 ('night')".

        Args:
            key: "class", "context" or "task".
            number: Its number.
        """
        known = self.known(key)
        return f"{key} {number}" + (f" ('{known[number]}')" if number < len(known) else "")


def find_name(name: str, known: Sequence[str], what: str, where: str) -> int:
    """Return the place of a name among those that are known.

    Args:
        name: What is looked for.
        known: All names, in order.
        what: What is named: "class", "teacher".
        where: Who has those names, for the message.

    Raises:
        InvalidInput: It is not among them; the message has the nearest and all others.
    """
    if name in known:
        return list(known).index(name)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise InvalidInput(f"There is no {what} '{name}' in {where}; there is {', '.join(map(repr, known))}.{hint}")


def require_same_names(first: GroupNames, second: GroupNames) -> None:
    """Refuse two splits in which one number has two names.

    Args:
        first: Names of one split.
        second: Names of another.

    Raises:
        InvalidInput: A number has a name in each, and the names differ.
    """
    for key in FIELDS:
        pairs = zip(first.known(key), second.known(key), strict=False)
        for number, (here, there) in enumerate(pairs):
            if here != there:
                raise InvalidInput(
                    f"{key.capitalize()} {number} is '{here}' in split '{first.split}' and '{there}' in split "
                    f"'{second.split}'; give both the same {FIELDS[key]}=[...], in one order."
                )


def mark_groups(value: Tensor, numbers: frozenset[int]) -> Tensor:
    """Say which numbers are among some, looked up in a table that is kept: as quick for thousands of tokens as for one.

    Args:
        value: Numbers of classes, contexts or tasks, (...).
        numbers: Those that are looked for.

    Returns:
        Bool, (...).
    """
    value = value.long()  # unsigned numbers of few bits would compare with other ones
    if len(numbers) == 1:
        only: Tensor = value == next(iter(numbers))
        return only
    ordered, table = _tabulate(numbers, value.device)
    if table is None:
        return torch.isin(value, ordered)
    inside = (value >= 0) & (value < len(table))
    return table[torch.where(inside, value, 0)] & inside


@lru_cache(maxsize=32)
def _tabulate(numbers: frozenset[int], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return numbers in order, and a table of whether each number is one of them; None where that would be long."""
    ordered = torch.tensor(sorted(numbers), dtype=torch.long)
    if len(ordered) and int(ordered[-1]) > _LONGEST_TABLE:
        return ordered.to(device), None
    table = torch.zeros(int(ordered[-1]) + 1 if len(ordered) else 1, dtype=torch.bool)
    table[ordered] = True
    return ordered.to(device), table.to(device)


def show_groups(groups: Collection[Any], most: int = 12) -> str:
    """Return numbers in order, names after them, as messages show them: a few, and how many there are.

    Args:
        groups: Numbers or names.
        most: So many are shown all.
    """
    ordered = sorted(groups, key=lambda group: (isinstance(group, str), group))
    if len(ordered) <= most:
        return repr(ordered)
    return f"[{', '.join(map(repr, ordered[:3]))}, ... {len(ordered):,} in all]"
