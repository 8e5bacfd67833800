"""Rules with parameters of their own, which learn while the student does.

A learned rule is a module that is also a rule.  After each forward pass of the student it is shown the step, and
returns a loss for its parameters, or None where the distillation loss itself, through target and projection, is what
teaches it.
Axes: B batch, ... positions, K teachers, V classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from ..._number_checks import is_whole
from ...data import Inputs
from ...errors import InvalidInput
from ..rules import WeightRule, walk_rule
from ..signals import Signals


@dataclass(frozen=True)
class StudentStep:
    """One step of the student, before it is taken, as a rule that learns from it sees it.

    Attributes:
        signals: The signals of the batch, labels and ``student_log_p`` (without gradient) among them.
        weights_K: The weights that pooled the teachers, (..., K), after composition and projection; they carry the
            gradient to the rule's parameters.
        student: The module; whoever runs it leaves modes, gradients and running averages as they were.
        inputs: What it was given, (B, ...), or a dictionary of them.
        rate: Learning rate of the student's optimizer.
    """

    signals: Signals
    weights_K: Tensor
    student: nn.Module
    inputs: Inputs
    rate: float


@runtime_checkable
class LearnedRule(WeightRule, Protocol):
    """A rule that is an ``nn.Module`` and says what its parameters learn from."""

    def learn(self, step: StudentStep) -> Tensor | None:
        """Return what trains the rule's parameters.

        Args:
            step: The step that the student is about to take.

        Returns:
            A scalar whose gradient trains the parameters; None where the distillation loss does.
        """


@dataclass(frozen=True)
class Learner:
    """A module inside a rule, where it stands, and the parameters that it alone answers for.

    Attributes:
        place: Where it stands in the rule, "token.rule"; "" is the rule itself.
        module: The module.
        parameters: Its trainable parameters by name.
    """

    place: str
    module: nn.Module
    parameters: Mapping[str, nn.Parameter]

    @property
    def name(self) -> str:
        """How messages call it."""
        kind = type(self.module).__name__
        return f"{kind} at '{self.place}'" if self.place else kind

    def loss(self, step: StudentStep) -> Tensor | None:
        """Return the module's own loss.

        Args:
            step: The step that the student is about to take.

        Returns:
            A scalar, or None where the module has no loss of its own.

        Raises:
            InvalidInput: It gave more than one number.
        """
        learn = getattr(self.module, "learn", None)
        loss: Tensor | None = None if learn is None else learn(step)
        if loss is not None and loss.ndim:
            raise InvalidInput(
                f"learn() of {self.name} gave a loss of shape {tuple(loss.shape)}; wanted a scalar, e.g. its mean."
            )
        return loss


def learned_rules(rule: object) -> list[Learner]:
    """Return what learns inside a rule, however deep: modules with ``learn``, and others by the parameters they own.

    Wrappers are looked into: dataclasses such as Unified and Conforming, modules, containers, objects that can be
    called.  A function hides what it uses: write a dataclass instead.

    Args:
        rule: A rule, wrapped or not.

    Returns:
        One learner a module that has trainable parameters.
    """
    learners = []
    for place, part in walk_rule(rule, lambda part: not _has_own_loss(part)):
        if isinstance(part, nn.Module):
            named = part.named_parameters(recurse=_has_own_loss(part))
            trainable = {name: p for name, p in named if p.requires_grad}
            if trainable:
                learners.append(Learner(place, part, trainable))
    return learners


def _has_own_loss(part: object) -> bool:
    return isinstance(part, nn.Module) and callable(getattr(part, "learn", None))


def require_counts(rule: nn.Module, **counts: int) -> None:
    """Refuse settings that are no whole numbers of at least 1.

    Args:
        rule: The rule, for the message.
        **counts: The settings by name.

    Raises:
        InvalidInput: One is no such number.
    """
    for name, value in counts.items():
        if not is_whole(value) or value < 1:
            raise InvalidInput(
                f"`{name}` of {type(rule).__name__} is {value!r}; it must be a whole number, at least 1."
            )


def require_teachers(rule: nn.Module, K: int, signals: Signals) -> None:
    """Raise InvalidInput where a rule with parameters for each teacher meets another number of them."""
    if signals.shape[-1] != K:
        raise InvalidInput(
            f"{type(rule).__name__} was made for {K} teachers, the signals have {signals.shape[-1]}; "
            f"make it with n_teachers={signals.shape[-1]}."
        )
