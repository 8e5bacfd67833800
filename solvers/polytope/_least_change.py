"""The least change of the settings that makes room.

    minimize sum(slack)   subject to   rows w - (slack of the row's setting) <= bounds,   slack >= 0

A scalar `lower` or `upper` is one setting for all teachers, and so is `margin`.  Uniform weights fit once every
setting has given way, so there is always an answer.  Axes: K teachers, M rules, S slacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog

from ._polytope_fields import PolytopeFields
from ._polytope_rules import Rule, stack_rules

_Setting = tuple[str, int | None]


@dataclass(frozen=True)
class LeastChangeSettings:
    """What advice leaves out; the tests of infeasible polytopes compare its words.

    Attributes:
        negligible: Slack, in units of the setting, up to which a setting is not worth naming.
        digits: Decimal digits of numbers in advice.
    """

    negligible: float = 1e-9
    digits: int = 4


_SETTINGS = LeastChangeSettings()


def describe_least_change(polytope: PolytopeFields, rules: Sequence[Rule]) -> str:
    """Return advice in words: the settings to change and their new values."""
    rows_MK, bounds_M, equal_M = stack_rules(rules)
    settings = [_name_setting(polytope, rule) for rule in rules]
    names = sorted({s for s in settings if s is not None}, key=str)
    slack_MS = np.array([[float(s == name) for name in names] for s in settings])
    room_S = [_find_largest_slack(polytope, name) for name in names]
    K, S = polytope.n_teachers, len(names)
    # an equality gives way in both directions, so its slack is split in two
    equal_MS = slack_MS * equal_M[:, None]
    result = linprog(
        np.r_[np.zeros(K), np.ones(2 * S)],
        A_ub=np.hstack([rows_MK, -slack_MS, np.zeros_like(slack_MS)])[~equal_M],
        b_ub=bounds_M[~equal_M],
        A_eq=np.hstack([rows_MK, -equal_MS, equal_MS])[equal_M],
        b_eq=bounds_M[equal_M],
        bounds=[(0, None)] * K + [(0, room) for room in room_S] * 2,
        method="highs",
    )
    if result.status != 0:
        return "Take one of them out."
    slack_S: npt.NDArray[np.float64] = result.x[K : K + S] - result.x[K + S :]
    moves = [
        _advise_on(polytope, name, slack)
        for name, slack in zip(names, slack_S, strict=True)
        if abs(slack) > _SETTINGS.negligible
    ]
    return f"The least change that makes room: {', and '.join(moves)}." if moves else "Take one of them out."


def _name_setting(polytope: PolytopeFields, rule: Rule) -> _Setting | None:
    if rule.kind == "sum" or (rule.kind == "ordering" and not polytope.margin):
        return None
    if rule.kind == "ordering":
        return "margin", None
    if rule.kind in ("lower", "upper"):
        shared = len(set(getattr(polytope, rule.kind))) == 1
        return rule.kind, None if shared else rule.index
    return ("b" if rule.kind == "linear" else "d"), rule.index


def _find_largest_slack(polytope: PolytopeFields, setting: _Setting) -> float | None:
    name, index = setting
    if name == "margin":
        return polytope.margin
    return polytope.lower[index or 0] if name == "lower" else None


def _advise_on(polytope: PolytopeFields, setting: _Setting, slack: float) -> str:
    name, index = setting
    if name == "margin":
        return f"lower `margin` to at most {round_down(max(polytope.margin - slack, 0.0))}"
    on = "" if index is None else f" on teacher {index}"
    if name == "lower":
        return f"lower `lower`{on} to at most {round_down(max(polytope.lower[index or 0] - slack, 0.0))}"
    if name == "upper":
        return f"raise `upper`{on} to at least {round_up(polytope.upper[index or 0] + slack)}"
    if name == "b":
        return f"raise b[{index}] to at least {round_up(polytope.linear.b[index or 0] + slack)}"
    return f"set d[{index}] to {polytope.linear.d[index or 0] + slack:.12g}"


def round_up(value: float) -> str:
    """Return ``value`` in 4 digits, not below it: rounded to the side on which the advice still works."""
    return _round_to_digits(value, ROUND_CEILING)


def round_down(value: float) -> str:
    """Return ``value`` in 4 digits, not above it."""
    return _round_to_digits(value, ROUND_FLOOR)


def _round_to_digits(value: float, rounding: str) -> str:
    # 12 digits first: 0.1 + 0.2 is meant as 0.3, not as something just above it
    tidy = Context(prec=12).create_decimal(Decimal(value))
    return f"{float(Context(prec=_SETTINGS.digits, rounding=rounding).create_decimal(tidy)):g}"
