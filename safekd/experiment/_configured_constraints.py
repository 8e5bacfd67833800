"""Safety constraints from their configuration: names become numbers, unknown ones are refused with the known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..safety import MEASURES, Ball, ChiSquareBall, KLBall, SafetyConstraint, SafetyMeasure
from ._example_table import ExampleTable
from ._registries import build_registered
from .config import ConstraintConfig

_BALLS: dict[str, type[Ball]] = {"kl": KLBall, "chi_square": ChiSquareBall}


def build_constraints(config: ConstraintConfig, table: ExampleTable) -> list[SafetyConstraint]:
    """Return the constraint that a configuration states, or one for each context or class where it asks for that.

    Args:
        config: The constraint as the experiment file has it.
        table: The examples, whose classes and contexts it names.

    Raises:
        InvalidConfig: The data lack a class or context.
        InvalidInput: What it states does not fit together.
    """
    everywhere = list(range(len(table.contexts)))
    contexts = None if config.contexts is None else table.context_numbers(config.contexts)
    mix: dict[Any, float] | None = None
    if config.mix is not None:
        names = list(config.mix)
        numbers = table.class_numbers(names) if config.by == "class" else table.context_numbers(names)
        mix = dict(zip(numbers, config.mix.values(), strict=True))
    elif config.worst is not None and config.by == "context" and contexts is None:
        contexts = everywhere
    constraint = SafetyConstraint(
        config.name,
        _build_measure(config, table),
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
        return [replace(constraint, name=f"{constraint.name}: {table.contexts[c]}", contexts=[c]) for c in chosen]
    if config.each == "class":
        chosen = table.class_numbers(config.critical)
        return [replace(constraint, name=f"{constraint.name}: {table.classes[c]}", classes=[c]) for c in chosen]
    return [constraint]


def _build_measure(config: ConstraintConfig, table: ExampleTable) -> SafetyMeasure:
    """Return the measure that is named, with those of the configuration's keys that it takes."""
    given: dict[str, Any] = {"critical": table.class_numbers(config.critical), "k": config.k}
    given["unsafe"] = table.class_numbers(config.unsafe or [])
    given["of"] = None if config.of is None else table.class_numbers([config.of])[0]
    return build_registered(f"measure of constraint '{config.name}'", config.measure, MEASURES, given)
