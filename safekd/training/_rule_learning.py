"""Training what learns inside a weighting rule, beside the student.

The student sees weights as numbers; the rule's parameters follow losses of their own, or the distillation loss through
target and projection.  Rule and student both move after the same forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..weights import Rule, StudentStep, collect_modules, learned_rules, load_rule_state, rule_state
from .diagnosis import find_rule_source, find_rule_step_source

_RULE, _OPTIMIZER = "rule.", "optimizer."  # prefixes of names on disk


@dataclass(frozen=True)
class RuleLearningSettings:
    """What learns a weighting rule where nobody says.

    Attributes:
        rate: Of Adam, where no optimizer is given: ten times its usual one, since rules have few parameters
            (``tests/safekd/training/test_learned_rules.py``, ``benchmarks.weightings``).
    """

    rate: float = 1e-2


SETTINGS = RuleLearningSettings()


class RuleLearning:
    """The modules inside one weighting rule, the optimizer of those that learn, and the state of both.

    Args:
        rule: Weighting rule; its modules are put on the device, in training mode.
        optimizer: Made on the rule's parameters; None for Adam with a rate of 0.01.
        students: The student's optimizer.
        device: Where to.

    Raises:
        InvalidInput: An optimizer holds what it should not.
    """

    def __init__(
        self,
        rule: Rule,
        optimizer: torch.optim.Optimizer | None,
        students: torch.optim.Optimizer,
        device: torch.device | str,
    ) -> None:
        self.rule, self.modules = rule, list(collect_modules(rule).values())
        for module in self.modules:
            module.to(device)
            if not module.training:
                module.train()
        self._modes = [(part, part.training) for module in self.modules for part in module.modules()]
        self.learners = learned_rules(rule)
        self._named = {
            f"{learner.place}.{name}".strip("."): p
            for learner in self.learners
            for name, p in learner.parameters.items()
        }
        held = {id(p) for group in students.param_groups for p in group["params"]}
        if shared := [name for name, p in self._named.items() if id(p) in held]:
            raise InvalidInput(
                f"The student's optimizer also holds '{shared[0]}' of the weighting rule, which learns from a loss "
                "of its own; pass weights_optimizer= for the rule, and make optimizer= from student.parameters() alone."
            )
        if optimizer is not None:
            own = {id(p) for p in self._named.values()}
            if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
                raise InvalidInput(
                    "`weights_optimizer` holds no parameter that learns inside the weighting rule; make it from the "
                    "rule's parameters(), or leave it out where no rule learns."
                )
        elif self._named:
            optimizer = torch.optim.Adam(self._named.values(), lr=SETTINGS.rate)
        self.optimizer = optimizer
        self._adding = False  # whether the gradients are those of a part of a step

    def train(self) -> None:
        """Put every module back into the mode in which the trainer found it."""
        for part, training in self._modes:
            part.training = training

    def eval(self) -> None:
        """Put every module into eval mode."""
        for module in self.modules:
            module.eval()

    def gradients(self, step: StudentStep, distillation: Callable[[], Tensor], share: float = 1.0) -> str | None:
        """Work out the gradient of every parameter; say what is not finite, or return None.

        Args:
            step: What the student's step shows.
            distillation: The distillation loss, with a gradient to the weights, for rules without a loss of their own.
            share: Of the step's positions that this part of it holds; below 1, the gradients count so much, and are
                added to those of other parts since the last ``step``.
        """
        empty = step.signals.mask is not None and not bool(step.signals.mask.any())  # which says nothing of any rule
        losses = [(learner, learner.loss(step)) for learner in self.learners if not empty]
        jobs = [(loss, [*learner.parameters.values()]) for learner, loss in losses if loss is not None]
        if shared := [p for learner, loss in losses if loss is None for p in learner.parameters.values()]:
            jobs.append((distillation(), shared))
        if share == 1 or not self._adding:
            for p in self._named.values():
                p.grad = None
        self._adding = share < 1
        for loss, parameters in jobs:
            if not loss.requires_grad:  # the polytope leaves the weights no room to move, say
                continue
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            for p, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    gradient = gradient if share == 1 else share * gradient
                    p.grad = gradient if p.grad is None else p.grad + gradient
        return find_rule_source(self.learners, {learner.place: loss for learner, loss in losses if loss is not None})

    def step(self) -> str | None:
        """Move the parameters; say what is not finite then, or return None."""
        self._adding = False
        if self.optimizer is None:
            return None
        self.optimizer.step()
        return find_rule_step_source(self.learners)

    def snapshot(self) -> Callable[[], None]:
        """Remember all that a step can change, which begins now; return what puts it back."""
        self._adding = False
        held = [*self._named.values(), *(value for module in self.modules for value in module.buffers())]
        values = [value.detach().clone() for value in held]
        moments = {} if self.optimizer is None else {p: _copy_moments(own) for p, own in self.optimizer.state.items()}

        @torch.no_grad()
        def restore() -> None:
            for tensor, value in zip(held, values, strict=True):
                tensor.copy_(value)
            if self.optimizer is not None:
                self.optimizer.state.clear()
                self.optimizer.state.update(moments)

        return restore

    def state(self) -> dict[str, Tensor]:
        """Return copies of the rule's state and of its optimizer's, by name; empty where the rule has none."""
        state = {_RULE + name: value for name, value in rule_state(self.rule).items()}
        for prefix, p in self._slots().items():
            moments = {} if self.optimizer is None else self.optimizer.state.get(p, {})
            values = {key: torch.as_tensor(value) for key, value in moments.items() if value is not None}
            state |= {prefix + key: value.detach().clone() for key, value in values.items()}
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what ``state`` returned; another kind of optimizer begins afresh.

        Args:
            state: Tensors by name.

        Raises:
            InvalidInput: It is the state of another rule.
        """
        load_rule_state(self.rule, {k.removeprefix(_RULE): v for k, v in state.items() if k.startswith(_RULE)})
        if self.optimizer is None:
            return
        number = {id(p): i for i, p in enumerate(p for g in self.optimizer.param_groups for p in g["params"])}
        slots = {}
        for prefix, p in self._slots().items():
            own = {k.removeprefix(prefix): v.clone() for k, v in state.items() if k.startswith(prefix)}
            if own and id(p) in number:
                slots[number[id(p)]] = own
        self.optimizer.load_state_dict({"state": slots, "param_groups": self.optimizer.state_dict()["param_groups"]})

    def _slots(self) -> dict[str, nn.Parameter]:
        """Return each parameter by what the names of its moments begin with."""
        kind = type(self.optimizer).__name__
        return {f"{_OPTIMIZER}{kind}.{name}.": p for name, p in self._named.items()}


def _copy_moments(moments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.clone() if isinstance(value, Tensor) else value for key, value in moments.items()}
