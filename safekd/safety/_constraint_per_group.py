"""One constraint for each class, context or task."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..data import PLURAL, Group, Key
from ..errors import InvalidInput
from ._safety_constraint import SafetyConstraint
from ._safety_measure import SafetyMeasure, sort_classes

Groups = Collection[Group] | Mapping[int, str]
Thresholds = float | Mapping[Group, float]


def constrain_each_class(
    name: str, measure: SafetyMeasure, at_least: Thresholds, classes: Groups | None = None, **more: Any
) -> list[SafetyConstraint]:
    """Return one constraint a class: the critical classes of ``measure``, or those named.

    Args:
        name: What they are called, followed by "class 3" or a name.
        measure: What is read.
        at_least: One threshold for all, or one each by number or name.
        classes: Numbers or names, or a mapping from numbers to names; None for the critical classes of ``measure``.
        **more: Further settings of SafetyConstraint.

    Returns:
        One constraint each, called "name: class 3" or "name: that name".

    Raises:
        InvalidInput: No class, or no threshold for one, is known.
    """
    groups = measure.critical if classes is None else classes
    if groups is None:
        raise InvalidInput(
            f"'{name}' is wanted for each class, but {measure!r} names no critical classes; pass classes=."
        )
    return _constrain_each_group("class", name, measure, at_least, groups, more)


def constrain_each_context(
    name: str, measure: SafetyMeasure, at_least: Thresholds, contexts: Groups, **more: Any
) -> list[SafetyConstraint]:
    """Return one constraint a context; ``contexts=dict(enumerate(split.context_names))`` is all.

    Args:
        name: What they are called, followed by "context 3" or a name.
        measure: What is read.
        at_least: One threshold for all, or one each by number or name.
        contexts: Numbers or names, or a mapping from numbers to names.
        **more: Further settings of SafetyConstraint.

    Returns:
        One constraint each.

    Raises:
        InvalidInput: No context, or no threshold for one, is known.
    """
    return _constrain_each_group("context", name, measure, at_least, contexts, more)


def constrain_each_task(
    name: str, measure: SafetyMeasure, at_least: Thresholds, tasks: Groups, **more: Any
) -> list[SafetyConstraint]:
    """Return one constraint a task.

    Args:
        name: What they are called, followed by "task 3" or a name.
        measure: What is read.
        at_least: One threshold for all, or one each by number or name.
        tasks: Numbers or names, or a mapping from numbers to names.
        **more: Further settings of SafetyConstraint.

    Returns:
        One constraint each.

    Raises:
        InvalidInput: No task, or no threshold for one, is known.
    """
    return _constrain_each_group("task", name, measure, at_least, tasks, more)


def _constrain_each_group(
    key: Key, name: str, measure: SafetyMeasure, at_least: Thresholds, groups: Groups, more: dict[str, Any]
) -> list[SafetyConstraint]:
    plural = PLURAL[key]
    if len(groups) == 0:
        raise InvalidInput(f"'{name}' is wanted for each {key}, but {plural} is empty; name at least one.")
    if isinstance(at_least, Mapping) and (missing := [group for group in groups if group not in at_least]):
        raise InvalidInput(
            f"'{name}': at_least has no threshold for {key} {missing[0]}; it has them for {list(at_least)}."
        )
    named = (
        groups
        if isinstance(groups, Mapping)
        else {group: group if isinstance(group, str) else f"{key} {group}" for group in sort_classes(groups)}
    )
    return [
        SafetyConstraint(
            f"{name}: {called}",
            measure,
            at_least[group] if isinstance(at_least, Mapping) else at_least,
            **{plural: [group]},  # type: ignore[arg-type]  # one of three settings of one kind
            **more,
        )
        for group, called in named.items()
    ]
