"""Safety constraints from their configuration: names become numbers, unknown ones are refused with the known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...errors import InvalidConfig
from ...safety import MEASURES, Ball, ChiSquareBall, KLBall, SafetyConstraint, SafetyMeasure
from .._example_table import ExampleTable
from .._registries import build_registered
from ..config import MEASURE_KEYS, ConstraintConfig

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
    thresholds = _list_thresholds(config, table)
    first = next(iter(thresholds.values()))
    constraint = SafetyConstraint(
        config.name,
        _build_measure(config, table),
        first if config.exactly is None else None,
        contexts,
        config.split,
        config.average,
        first if config.exactly is not None else None,
        mix=mix,
        by=config.by,
        worst=None if config.worst is None else _BALLS[config.worst.ball](config.worst.radius),
    )
    if config.each is not None:
        return [
            replace(_cover_group(constraint, config, table, name), name=f"{config.name}: {name}").with_threshold(asked)
            for name, asked in thresholds.items()
        ]
    return [constraint]


def _cover_group(
    constraint: SafetyConstraint, config: ConstraintConfig, table: ExampleTable, name: str
) -> SafetyConstraint:
    """Return the constraint on one context or class."""
    if config.each == "class":
        return replace(constraint, classes=table.class_numbers([name]))
    return replace(constraint, contexts=table.context_numbers([name]))


def _list_thresholds(config: ConstraintConfig, table: ExampleTable) -> dict[str, float]:
    """Return the threshold of each constraint, by the name of its context or class; by none where there is one."""
    key = "at_least" if config.exactly is None else "exactly"
    given = getattr(config, key)
    if config.each is None:
        return {"": given}
    named = config.critical if config.each == "class" else config.contexts or table.contexts
    if not isinstance(given, dict):
        return dict.fromkeys(named, given)
    who = f"Constraint '{config.name}': {key}"
    known = table.classes if config.each == "class" else table.contexts
    where = "critical" if config.each == "class" else "contexts"
    for name in given:
        if name not in known:
            raise InvalidConfig(f"{who} names {config.each} '{name}'; there are: {', '.join(known)}.")
        if name not in named:
            raise InvalidConfig(f"{who} names {config.each} '{name}', which is not in `{where}`: {', '.join(named)}.")
    if missing := [name for name in named if name not in given]:
        raise InvalidConfig(
            f"{who} names no threshold for {config.each} '{missing[0]}', which would be promised nothing; give one, or "
            f"list in `{where}` those that count."
        )
    return {name: given[name] for name in named}


def _build_measure(config: ConstraintConfig, table: ExampleTable) -> SafetyMeasure:
    """Return the measure that is named, with those of the configuration's keys that it takes."""
    given: dict[str, Any] = {key: getattr(config, key) for key in MEASURE_KEYS if getattr(config, key) is not None}
    given["critical"] = table.class_numbers(config.critical)
    given["unsafe"] = table.class_numbers(config.unsafe or [])
    if config.of is not None:
        given["of"] = table.class_numbers([config.of])[0]
    return build_registered(f"measure of constraint '{config.name}'", config.measure, MEASURES, given)
