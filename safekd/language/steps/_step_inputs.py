"""What a step and a trainer are given, checked before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..._number_checks import is_whole
from ...errors import InvalidInput
from ...safety import Constraint


def read_constraints(constraints: Any) -> list[Constraint]:
    """Return the constraints as a list.

    Args:
        constraints: One or several; None for none.

    Raises:
        InvalidInput: One is of another kind, or two have the same name.
    """
    several = [constraints] if isinstance(constraints, Constraint) else list(constraints or ())
    for constraint in several:
        if not isinstance(constraint, Constraint):
            raise InvalidInput(
                f"A constraint is a {type(constraint).__name__}; wanted kd.SafetyConstraint(name, measure, at_least)."
            )
    names = [constraint.name for constraint in several]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidInput(f"Two constraints are called '{twice[0]}'; give each a name of its own.")
    return several


def read_teacher_names(teachers: int | Sequence[Any]) -> list[str]:
    """Return what teachers are called.

    Args:
        teachers: How many, their names, or the teachers.

    Raises:
        InvalidInput: There are none.
    """
    if not is_whole(teachers) and (isinstance(teachers, (str, bool)) or not hasattr(teachers, "__iter__")):
        raise InvalidInput(f"`teachers` is {teachers!r}; wanted how many there are, or their names.")
    given = [f"teacher {k}" for k in range(teachers)] if is_whole(teachers) else list(teachers)  # type: ignore[arg-type]
    if not given:
        raise InvalidInput("There are no teachers; wanted how many there are, or their names.")
    return [str(getattr(one, "name", one)) for one in given]


def require_horizon(horizon: object) -> None:
    """Refuse a number of steps that is none.

    Args:
        horizon: How many steps a run takes; None where nobody knows.

    Raises:
        InvalidInput: It is no whole number from 1.
    """
    if horizon is not None and not (is_whole(horizon) and horizon >= 1):  # type: ignore[operator]
        raise InvalidInput(f"`horizon` is {horizon!r}; wanted how many steps the run takes, from 1, or None.")
