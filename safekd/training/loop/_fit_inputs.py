"""What one fit is given besides the problem: data on the problem's device, and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from solvers.short_repr import ShortRepr

from ...data import Split, SplitUse, move_split
from ...errors import InvalidInput
from ...safety import Constraint
from .._training_problem import TrainingProblem
from ..trace import Callback
from ._gradient_sampling import Sampled


@dataclass(frozen=True)
class FitOptions:
    """How long a fit lasts, and what it reads on the way.

    Attributes:
        epochs: Passes over the training data at most.
        tolerance: KKT residuals up to this are none.
        trace_every: Optimizer steps between full passes; None for a share of the training's cost.
        stationarity: How to estimate gradients in full passes; None for exact ones.
        snapshots: How many students to keep for a mixture; None for none.
        callbacks: Told of the run, in order.
    """

    epochs: int
    tolerance: float = 1e-3
    trace_every: int | None = None
    stationarity: Sampled | None = None
    snapshots: int | None = None
    callbacks: Sequence[Callback] = ()


@dataclass(frozen=True, repr=False)
class FitData(ShortRepr):
    """The splits of one fit, on one device.

    Attributes:
        train: Training split.
        splits: The others by name; "validation" first where it was given.
    """

    train: Split
    splits: Mapping[str, Split]

    @classmethod
    def place(cls, train: Any, validation: Any, splits: Mapping[str, Any], device: torch.device) -> FitData:
        """Put data on a device.

        Args:
            train: Split, or what ``as_split`` takes.
            validation: The same; None where there is none.
            splits: Further ones, by name.
            device: Where to.

        Raises:
            InvalidInput: ``splits`` gives a split that has an argument of its own.
        """
        taken = {"train"} if validation is None else {"train", "validation"}
        if twice := sorted(taken & set(splits)):
            raise InvalidInput(f"`splits` names '{twice[0]}', which fit takes as an argument of its own; give it once.")
        named = dict(splits) if validation is None else {"validation": validation, **splits}
        return cls(
            move_split(train, "train", device), {name: move_split(data, name, device) for name, data in named.items()}
        )

    @property
    def by_name(self) -> dict[str, Split]:
        """Every split, the training split last."""
        return {**self.splits, "train": self.train}

    def without_validation(self) -> FitData:
        """Return the data without the validation split."""
        return replace(self, splits={name: split for name, split in self.splits.items() if name != "validation"})

    def require_covered(self, constraints: Sequence[Constraint]) -> None:
        """Raise InvalidInput where a constraint's split is missing, or holds no example that it covers.

        Args:
            constraints: Of the problem.
        """
        for rule in constraints:
            if rule.split != "train" and rule.split not in self.splits:
                raise InvalidInput(
                    f"Constraint '{rule.name}' is posed on split '{rule.split}', which was not given; "
                    f"there is {['train', *self.splits]}. Pass it as fit(..., splits={{'{rule.split}': data}})."
                )
            rule.require_examples(self.by_name[rule.split])

    def list_uses(self, problem: TrainingProblem) -> tuple[SplitUse, ...]:
        """Return what each split is used for, the training split first.

        Args:
            problem: What is trained on them.
        """
        evidence = problem.objective.evidence
        uses = []
        for name, split in {"train": self.train, **self.splits}.items():
            roles = ["gradient steps"] if name == "train" else []
            roles += [f"constraint '{rule.name}'" for rule in problem.constraints if rule.split == name]
            if evidence is not None and evidence.source == split.name:
                roles.append("measuring the teachers")
            if name == "validation":
                roles.append("readings of the trace")
            if roles:
                uses.append(SplitUse(split, tuple(roles)))
        return tuple(uses)
