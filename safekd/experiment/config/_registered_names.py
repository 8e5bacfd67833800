"""Names that stand for something in a registry, and what was probably meant by one that stands for nothing.

Registries are imported when an experiment is checked: a rule set for weights in files needs none of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import AfterValidator


def find_measures() -> Mapping[str, Callable[..., Any]]:
    """Return the safety measures that a file can name."""
    from ...safety import MEASURES

    return MEASURES


def find_scale_rules(scale: str) -> Mapping[str, Callable[..., Any]]:
    """Return the weighting rules of a scale that a file can name.

    Args:
        scale: "token", "task" or "context".
    """
    from .._registries import find_rules

    return find_rules(scale)


def find_dual_methods() -> Mapping[str, Callable[..., Any]]:
    """Return the dual methods that a file can name."""
    from solvers.primal_dual import DUAL_METHODS

    return DUAL_METHODS


def find_divergences() -> Mapping[str, Callable[..., Any]]:
    """Return the divergences that a file can name."""
    from ...divergences import DIVERGENCES

    return DIVERGENCES


def find_pools() -> Mapping[str, Callable[..., Any]]:
    """Return the pools that a file can name."""
    from ...pooling import POOLS

    return POOLS


def find_students() -> Mapping[str, str]:
    """Return the students that a file can name, with who brings each."""
    from ..students import list_students

    return list_students()


def find_trackers() -> Mapping[str, Callable[..., Any]]:
    """Return the trackers that a file can name."""
    from ...training.trackers import TRACKERS

    return TRACKERS


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return "did you mean ...?" with the nearest known name, or nothing where none is near.

    Args:
        name: What was written.
        known: What could have been.
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else ""


def require_registered(what: str, find_known: Callable[[], Mapping[str, Any]]) -> AfterValidator:
    """Return the check that a name is in a registry.

    Args:
        what: What it is the name of.
        find_known: Returns the registry.
    """

    def require_known(name: str) -> str:
        known = sorted(find_known())
        if name not in known:
            hint = suggest_name(name, known) or "choose a known one."
            raise ValueError(f"there is no {what} of that name; {hint} Known: {', '.join(known)}")
        return name

    return AfterValidator(require_known)
