"""A claim of a paper, what was run for it, and the verdict that its numbers give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["holds", "holds under an extra condition", "fails"]


@dataclass(frozen=True)
class Line:
    """One line of a picture: points (x, y), and how they are drawn ("-", "--", "o", ...)."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = "-"


@dataclass(frozen=True)
class Picture:
    """A small plot: name of its file, axes and lines."""

    name: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_log: bool = False
    y_log: bool = False


@dataclass(frozen=True)
class Claim:
    """What a paper states, and what an experiment says of it.

    number: of the statement. statement: in one sentence. ran: the experiment. found: its numbers, in words. verdict:
    computed from them by ``judge``. condition: what is needed besides, where something is. counterexample: what
    breaks the claim as it is stated, with its numbers. tightness: whether the rate or bound is reached. reading: how
    the claim was read where the paper leaves it open. numbers: by name, for tests.
    """

    number: str
    statement: str
    ran: str
    found: str
    verdict: Verdict
    condition: str = ""
    counterexample: str = ""
    tightness: str = ""
    reading: str = ""
    picture: Picture | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


def judge(as_stated: bool, under_condition: bool = False) -> Verdict:
    """Return the verdict of two findings: whether all that the claim covers came out, or all under its condition."""
    if as_stated:
        return "holds"
    return "holds under an extra condition" if under_condition else "fails"


def say_tight(reached: bool) -> str:
    """Return the first word of a claim's tightness: whether the bound or rate was reached by something that was run."""
    return "Tight" if reached else "Not tight"
