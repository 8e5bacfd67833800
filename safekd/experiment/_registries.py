"""What a configuration can name, by its name in snake case: safety measures, and weighting rules by scale.

Whoever enters a class into a registry needs no other line for it to be checked, suggested and built.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from ..errors import InvalidConfig
from ..weights import RULES, Rule, Stored

T = TypeVar("T")


def find_rules(scale: str) -> dict[str, Callable[..., Rule]]:
    """Return the weighting rules that a configuration can name: all but learned and stored ones.

    A learned rule is trained beside its student, so each run of a sweep needs one of its own; one that is built once
    would carry what it learned from run to run.  Stored weights have a key of their own, ``weights.stored``.

    Args:
        scale: "token", "task" or "context".
    """
    rules = RULES[scale]
    learned = {name for name, rule in rules.items() if inspect.isclass(rule) and issubclass(rule, nn.Module)}
    return {name: rule for name, rule in rules.items() if name not in learned and rule is not Stored}


def build_registered(key: str, name: str, registry: Mapping[str, Callable[..., T]], given: Mapping[str, Any]) -> T:
    """Return what a name in a registry stands for, built with those of some settings that it takes.

    Args:
        key: Where the configuration names it, as messages say it.
        name: The name.
        registry: Classes or functions by name.
        given: Settings that there are, by the names of parameters.

    Raises:
        InvalidConfig: It needs a setting that is not given.
    """
    build = registry[name]
    takes = inspect.signature(build).parameters
    for setting, parameter in takes.items():
        if parameter.default is inspect.Parameter.empty and setting not in given:
            raise InvalidConfig(
                f"{key} is '{name}', which needs `{setting}`; a configuration cannot state that. Build it in Python."
            )
    return build(**{setting: given[setting] for setting in takes if setting in given})
