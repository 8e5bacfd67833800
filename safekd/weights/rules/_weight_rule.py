"""What a weighting rule is: signals in, scores out, with a label that says what it looks at."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar, get_args, runtime_checkable

from torch import Tensor

from ..._number_checks import is_finite
from ..._registry import snake_case
from ...errors import InvalidInput
from ..signals import Signals
from ._rule_tree import walk_rule

Rule = Callable[[Signals], Tensor]
Scale = Literal["token", "task", "context"]
SCALES: tuple[Scale, ...] = get_args(Scale)

RULES: dict[str, dict[str, Callable[..., Rule]]] = {scale: {} for scale in SCALES}

RuleClass = TypeVar("RuleClass", bound=type[Any])


def register_rule(rule: RuleClass) -> RuleClass:
    """Enter a class into ``RULES`` under its scale and its name in snake case; a decorator.

    Args:
        rule: A class whose objects are weighting rules, and whose ``scale`` is "token", "task", "context" or, for all
            three, "any".

    Returns:
        The same class.
    """
    for scale in SCALES if rule.scale == "any" else (rule.scale,):
        RULES[scale][snake_case(rule.__name__)] = rule
    return rule


@runtime_checkable
class WeightRule(Protocol):
    """A rule that says what it looks at.  Any callable from Signals to scores (..., K) can be used as a rule.

    Attributes:
        scale: "token", "task", "context" or "any", the scale it is meant for.
        needs: Names of the signals that it asks for.
        continuous: Whether its scores are continuous in those signals.
    """

    @property
    def scale(self) -> str:
        """The scale it is meant for."""

    @property
    def needs(self) -> frozenset[str]:
        """The signals that it asks for."""

    @property
    def continuous(self) -> bool:
        """Whether its scores are continuous in those signals."""

    def __call__(self, signals: Signals) -> Tensor:
        """Return scores, (..., K), at least 0 and not all 0 at one position.

        Args:
            signals: The signals of a batch.
        """


LABELED = frozenset({"labels", "cross_entropy"})
OF_THE_STUDENT = frozenset({"student_log_p", "features"})


def collect_needs(rule: object) -> frozenset[str]:
    """Return the signals that a rule asks for, or that the rules inside it do; none are known of a plain function.

    Args:
        rule: A rule, wrapped or not.

    Returns:
        Names of signals.
    """
    parts = walk_rule(rule, lambda part: _declared_needs(part) is None)
    return frozenset().union(*(_declared_needs(part) or () for _, part in parts))


def needs_labels(rule: object) -> bool:
    """Say whether a rule can only be used where true classes are known.

    Args:
        rule: A rule, wrapped or not.

    Returns:
        True if it, or a rule inside it, looks at labels.
    """
    return bool(collect_needs(rule) & LABELED)


def looks_at_student(rule: object) -> bool:
    """Say whether a rule's scores change as the student learns.

    Args:
        rule: A rule, wrapped or not.

    Returns:
        True if it, or a rule inside it, looks at the student's distributions or features.
    """
    return bool(collect_needs(rule) & OF_THE_STUDENT)


class RuleWrapper:
    """What a wrapper says of itself: what the rule inside says."""

    rule: Rule

    @property
    def scale(self) -> str:
        """The scale of the rule inside."""
        return str(getattr(self.rule, "scale", "any"))

    @property
    def needs(self) -> frozenset[str]:
        """The signals that the rule inside asks for."""
        return collect_needs(self.rule)

    @property
    def continuous(self) -> bool:
        """Whether the rule inside says that it is continuous, which a projection keeps."""
        return bool(getattr(self.rule, "continuous", False))


def require_rule(name: str, rule: object) -> None:
    """Refuse what cannot be called with signals.

    Args:
        name: What messages call the argument.
        rule: An object or a function.

    Raises:
        InvalidInput: It is a class, or cannot be called.
    """
    if isinstance(rule, type):
        raise InvalidInput(
            f"`{name}` is the class {rule.__name__}; wanted a rule: {rule.__name__}(), with its parameters."
        )
    if not callable(rule):
        raise InvalidInput(f"`{name}` is {rule!r}; wanted a rule, a callable from Signals to scores (..., K).")


def require_scores(score_K: object, signals: Signals, who: str) -> None:
    """Refuse what is no tensor of scores.

    Args:
        score_K: What a rule gave; wanted (..., K).
        signals: What it was given.
        who: What messages call the rule.

    Raises:
        InvalidInput: It is no tensor, or of another shape; the message names the rule.
    """
    if not isinstance(score_K, Tensor):
        raise InvalidInput(
            f"{who} gave a {type(score_K).__name__}; wanted a tensor of scores of shape {tuple(signals.shape)}."
        )
    if score_K.shape != signals.shape:
        raise InvalidInput(
            f"{who} gave scores of shape {tuple(score_K.shape)}; wanted {tuple(signals.shape)}, (..., teachers)."
        )


def require_number(
    rule: object, name: str, value: Any, *, above: float = -math.inf, least: float = -math.inf, why: str = ""
) -> None:
    """Refuse a setting of a rule that is out of range.

    Args:
        rule: The rule, for the message.
        name: Name of the setting.
        value: What was given.
        above: It must be above this number.
        least: It must be at least this number.
        why: A reason for the message.

    Raises:
        InvalidInput: It is no finite number in that range.
    """
    if not (is_finite(value) and value > above and value >= least):
        bound = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
        reason = f", {why}" if why else ""
        raise InvalidInput(f"`{name}` of {type(rule).__name__} is {value!r}; it must be {bound} and finite{reason}.")


def _declared_needs(part: object) -> frozenset[str] | None:
    needs = getattr(part, "needs", None)
    return frozenset(needs) if isinstance(needs, (frozenset, set, tuple, list)) else None
