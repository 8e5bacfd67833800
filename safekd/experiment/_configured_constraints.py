"""Safety constraints from their configuration: names become numbers, unknown ones are refused with the known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..safety import (
    Avoids,
    Ball,
    Calibration,
    ChiSquareBall,
    KLBall,
    Margin,
    OneMinusBrier,
    Recall,
    SafetyConstraint,
    SafetyMeasure,
    TopK,
    TruthProbability,
    UnsafeMass,
)
from ._example_table import Table
from .config import ConstraintConfig

_BALLS: dict[str, type[Ball]] = {"kl": KLBall, "chi_square": ChiSquareBall}


def constraints_of(config: ConstraintConfig, table: Table) -> list[SafetyConstraint]:
    """Return the constraint that ``config`` states, or one for each context or class where it asks for that.

    Raises InvalidConfig for a class or context that the data lack, InvalidInput for what does not fit together.
    """
    everywhere = list(range(len(table.contexts)))
    contexts = None if config.contexts is None else table.context_numbers(config.contexts)
    mix = None
    if config.mix is not None:
        names = list(config.mix)
        numbers = table.class_numbers(names) if config.by == "class" else table.context_numbers(names)
        mix = dict(zip(numbers, config.mix.values(), strict=True))
    elif config.worst is not None and config.by == "context" and contexts is None:
        contexts = everywhere
    rule = SafetyConstraint(
        config.name,
        _measure(config, table),
        config.at_least,
        contexts,
        config.split,
        config.average,
        exactly=config.exactly,
        mix=mix,
        by=config.by,
        worst=None if config.worst is None else _BALLS[config.worst.ball](config.worst.radius),
    )
    if config.each == "context":
        chosen = everywhere if contexts is None else contexts
        return [replace(rule, name=f"{rule.name}: {table.contexts[c]}", contexts=[c]) for c in chosen]
    if config.each == "class":
        chosen = table.class_numbers(config.critical)
        return [replace(rule, name=f"{rule.name}: {table.classes[c]}", classes=[c]) for c in chosen]
    return [rule]


def _measure(config: ConstraintConfig, table: Table) -> SafetyMeasure:
    critical = table.class_numbers(config.critical)
    unsafe = table.class_numbers(config.unsafe or [])
    kinds: dict[str, Callable[[], SafetyMeasure]] = {
        "truth_probability": lambda: TruthProbability(critical),
        "margin": lambda: Margin(critical),
        "one_minus_brier": lambda: OneMinusBrier(critical),
        "unsafe_mass": lambda: UnsafeMass(unsafe, critical),
        "calibration": lambda: Calibration(table.class_numbers([config.of or ""])[0], critical),
        "recall": lambda: Recall(critical),
        "top_k": lambda: TopK(config.k or 1, critical),
        "avoids": lambda: Avoids(unsafe, critical),
    }
    return kinds[config.measure]()
