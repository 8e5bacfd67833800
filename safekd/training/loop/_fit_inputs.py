"""What one fit is given besides the problem: data on the problem's device, and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from solvers.short_repr import ShortRepr

from ...data import (
    ExampleSource,
    Fields,
    RankShare,
    Split,
    SplitUse,
    StoredSplit,
    SurveyedSource,
    as_source,
    require_same_names,
    require_unshared,
    share_source,
)
from ...distributed import Ranks
from ...errors import InvalidInput
from ...safety import Constraint
from .._objective import Objective
from .._training_problem import TrainingProblem
from ..resume import RunCheckpoints
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
        patience: Evaluations in a row without a better student on the validation split that end the run; None for no
            such end.
        choose: Whether the student that is best on the validation split is kept; not where that split judges.
        callbacks: Told of the run, in order.
        evaluation_examples: How many examples of each source evaluations read; None for all, unless that costs too
            much of the training.
        checkpoints: Of the run; None to keep none.
    """

    epochs: int
    tolerance: float = 1e-3
    trace_every: int | None = None
    stationarity: Sampled | None = None
    snapshots: int | None = None
    patience: int | None = None
    choose: bool = True
    callbacks: Sequence[Callback] = ()
    evaluation_examples: int | None = None
    checkpoints: RunCheckpoints | None = None


@dataclass(frozen=True, repr=False)
class FitData(ShortRepr):
    """The splits of one fit, on one device.

    Attributes:
        train: Training split.
        splits: The others by name; "validation" first where it was given.
    """

    train: ExampleSource
    splits: Mapping[str, ExampleSource]

    @classmethod
    def place(
        cls,
        train: Any,
        validation: Any,
        splits: Mapping[str, Any],
        device: torch.device,
        fields: Fields | None = None,
    ) -> FitData:
        """Put data on a device.

        Args:
            train: Split, or what ``as_source`` takes.
            validation: The same; None where there is none.
            splits: Further ones, by name.
            device: Where to.
            fields: What the parts of those are that are no Split, as for ``as_split``.

        Raises:
            InvalidInput: ``splits`` gives a split that has an argument of its own, or two splits call one class by two
                names.
        """
        taken = {"train"} if validation is None else {"train", "validation"}
        if twice := sorted(taken & set(splits)):
            raise InvalidInput(f"`splits` names '{twice[0]}', which fit takes as an argument of its own; give it once.")
        named = dict(splits) if validation is None else {"validation": validation, **splits}
        placed = {name: as_source(data, name, fields, device) for name, data in {"train": train, **named}.items()}
        for split in placed.values():
            require_same_names(placed["train"].names, split.names)
        return cls(placed.pop("train"), placed)

    @property
    def by_name(self) -> dict[str, ExampleSource]:
        """Every split, the training split last."""
        return {**self.splits, "train": self.train}

    def share(self, ranks: Ranks) -> FitData:
        """Return what this process reads of the data: all of it where it is alone.

        Args:
            ranks: Who shares them.

        Raises:
            InvalidInput: Ranks were given parts whose classes, contexts or tasks are called differently.
        """
        if ranks.size == 1:
            return self
        return FitData(share_source(self.train, ranks), {n: share_source(s, ranks) for n, s in self.splits.items()})

    def sample(self, examples: int, seed: int) -> FitData:
        """Return a sample of each source that has more examples.

        Args:
            examples: How many of each at most.
            seed: The only source of chance.
        """
        splits = {name: source.sample(examples, seed) for name, source in self.splits.items()}
        return FitData(self.train.sample(examples, seed), splits)

    @property
    def whole(self) -> dict[str, ExampleSource] | None:
        """Every source as one process reads it, the training data last; None where each rank has a part of its own."""
        if any(isinstance(source, RankShare) and not source.same for source in self.by_name.values()):
            return None
        return {name: source.own for name, source in self.by_name.items()}

    def require_whole(self, why: str) -> None:
        """Refuse parts of data, one for each rank.

        Args:
            why: What needs the same data on every rank, in words.

        Raises:
            InvalidInput: A source is another one on another rank.
        """
        if self.whole is None:
            raise InvalidInput(f"{why} needs all data on every rank, and each was given a part of its own; give all.")

    def require_split(self, name: str, why: str) -> Split:
        """Return a split that is in memory.

        Args:
            name: Of the split.
            why: What needs it there, in words.

        Raises:
            InvalidInput: It is read as it is needed.
        """
        source = self.by_name[name].own
        if not isinstance(source, Split):
            raise InvalidInput(f"{why} needs the examples of '{name}' in memory; give them as a kd.Split.")
        return source

    def without_validation(self) -> FitData:
        """Return the data without the validation split."""
        return replace(self, splits={name: split for name, split in self.splits.items() if name != "validation"})

    def require_unseen(self, names: Sequence[str], constraints: Sequence[Constraint]) -> None:
        """Raise InvalidInput where data that judge hold examples that train the student, or each other's.

        A split on which a constraint is posed trains the student too, and judges nothing.

        Args:
            names: Of the splits that judge.
            constraints: Of the problem.
        """
        posed = {rule.split for rule in constraints}
        trained = {"train": self.train, **{name: self.splits[name] for name in self.splits if name in posed}}
        for name in names:
            if name not in posed:
                judge = self.splits[name]
                others = {n: one for n, one in trained.items() if isinstance(one, (Split, SurveyedSource))}
                if isinstance(judge, (Split, SurveyedSource)):
                    require_unshared(judge, others, name)

    def streams_beside(self, constraints: Sequence[Constraint]) -> bool:
        """Say whether a constraint is posed on another source than the training data that is not in memory.

        Args:
            constraints: Of the problem.
        """
        elsewhere = {rule.split for rule in constraints} - {"train"}
        return any(not isinstance(self.splits[name].own, Split) for name in elsewhere)

    def require_covered(self, constraints: Sequence[Constraint], objective: Objective) -> None:
        """Raise InvalidInput where a constraint's split is missing, or holds no example that it covers.

        Args:
            constraints: Of the problem.
            objective: Counts the examples of each, in one pass over the data.
        """
        for rule in constraints:
            if rule.split != "train" and rule.split not in self.splits:
                raise InvalidInput(
                    f"Constraint '{rule.name}' is posed on split '{rule.split}', which was not given; "
                    f"there is {['train', *self.splits]}. Pass it as fit(..., splits={{'{rule.split}': data}})."
                )
        for name, source in self.by_name.items():
            rules = [rule for rule in constraints if rule.split == name]
            for rule, count_G in zip(rules, objective.count_groups(rules, source), strict=True):
                rule.require_examples(source, count_G)

    def list_uses(self, problem: TrainingProblem, looks: int = 0) -> tuple[SplitUse, ...]:
        """Return what each split is used for, the training split first.

        Args:
            problem: What is trained on them.
            looks: How many students were compared on the validation split.
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
            used = split.used() if isinstance(split, RankShare) else split
            if roles and isinstance(used, (Split, StoredSplit, SurveyedSource)):
                use = SplitUse(used, tuple(roles))
                chooses = name == "validation" and looks > 1
                uses.append(use.add_looks(looks, "to choose the best student") if chooses else use)
        return tuple(uses)
