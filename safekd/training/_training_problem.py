"""The training problem: what is trained, on which loss, under which constraints, by which methods."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from solvers.primal_dual import DualMethod
from solvers.short_repr import ShortRepr

from ..data import ExampleSource, Split, StreamSource
from ..distributed import Ranks, TrainedStudent
from ..errors import InvalidInput
from ..safety import Constraint
from ._objective import CHUNK, Objective
from ._rule_learning import RuleLearning
from .diagnosis import EvidenceBudget


@dataclass(frozen=True)
class MinibatchSettings:
    """What changes where a step reads a part of the training split.

    Attributes:
        smoothing: Share of the past in the values that multipliers see, where a dual method leaves it open: one batch
            is noise, and ten of them are less (``tests/safekd/training/test_trainer.py``).
    """

    smoothing: float = 0.9


MINIBATCHES = MinibatchSettings()
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True, repr=False)
class TrainingProblem(ShortRepr):
    """``min L_KD  s.t.  safety_i >= required_i`` over the parameters of a student, and what takes the steps.

    It is a record, made by ConstrainedTrainer: loops, steps and readers get it, or parts of it.  The student, the
    optimizer and the weighting rule in it are the caller's own and change as they train; the record does not.

    Attributes:
        objective: Distillation loss; holds student, teachers and weighting rule.
        constraints: M constraints with names all different.
        optimizer: Made on the student's parameters.
        scheduler: Of the optimizer's rate, stepped once an optimizer step; None for a rate that stays.
        dual: How multipliers move.
        learning: Modules inside the weighting rule, their optimizer, and the state of both.
        batch_size: Examples a step; None for the whole training split.
        independent_batches: Whether multipliers see values of another batch than the one whose gradients they weigh.
        device: Where student and data are.
        seed: Order of batches.
        evidence_budget: What each probe may cost once a run has ended.
        microbatch_size: Examples that go through the student at once; None for all of a step.
        clip_norm: Longest gradient of a step; None for any.
        ema: Share of the past in the averaged student; None for the average of the last part of the way.
        scaler: Of the loss, where the student computes in float16; None where it does not.
        modes: Each part of the student, and whether it was in training mode when the problem was posed.
        trained: The student as steps call it, and who trains it.
    """

    objective: Objective
    constraints: tuple[Constraint, ...]
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    dual: DualMethod
    learning: RuleLearning
    batch_size: int | None
    independent_batches: bool
    device: torch.device
    seed: int
    evidence_budget: EvidenceBudget
    modes: tuple[tuple[nn.Module, bool], ...]
    trained: TrainedStudent
    microbatch_size: int | None = None
    clip_norm: float | None = None
    ema: float | None = None
    scaler: torch.amp.GradScaler | None = None

    def begin(self) -> None:
        """Give every rank the same student and weighting rule to begin with: those of rank 0."""
        self.trained.write_back()
        self.trained.begin()
        modules = self.learning.modules
        self.ranks.broadcast([value for module in modules for value in (*module.parameters(), *module.buffers())])

    @property
    def ranks(self) -> Ranks:
        """The processes that train it."""
        return self.trained.ranks

    @property
    def student(self) -> nn.Module:
        """What is trained, without what wraps it."""
        return self.objective.student

    @property
    def holds_jacobian(self) -> bool:
        """Whether evaluations hold the gradient of each constraint: where all of them fit into the budget."""
        n = sum(p.numel() for p in self.student.parameters() if p.requires_grad)
        return self.evidence_budget.holds((len(self.constraints) + 1) * n)

    def with_constraints(self, constraints: Sequence[Constraint]) -> TrainingProblem:
        """Return the same problem under other constraints, such as the same ones ``at`` other thresholds.

        Student, optimizer and weighting rule are shared with this problem; critical classes are added to its own.

        Args:
            constraints: Names all different.

        Raises:
            InvalidInput: Two names are alike.
        """
        require_distinct_names(constraints)
        objective, known = self.objective, frozenset(self.objective.critical_classes)
        critical = known.union(*(rule.critical for rule in constraints))
        if critical != known:
            objective = replace(objective, critical_classes=critical)  # whose targets may be others
        return replace(self, constraints=tuple(constraints), objective=objective)

    def with_names(self, splits: Mapping[str, ExampleSource]) -> TrainingProblem:
        """Return the same problem with numbers in place of names of classes, contexts and tasks.

        Args:
            splits: Those on which constraints are posed, by name; "train", whose names decide for critical classes and
                contexts, among them.

        Raises:
            InvalidInput: A split has no such name; the message has those that it has.
        """
        objective, names = self.objective, splits["train"].names
        classes, contexts = objective.critical_classes, objective.critical_contexts
        if any(isinstance(group, str) for group in [*classes, *contexts]):
            objective = replace(
                objective,
                critical_classes=frozenset(names.numbers("class", classes)),
                critical_contexts=frozenset(names.numbers("context", contexts)),
            )
        # a constraint whose split is missing is told of later
        named = tuple(
            rule.with_names(splits[rule.split].names if rule.split in splits else names) for rule in self.constraints
        )
        return replace(self, constraints=named, objective=objective)

    def with_source(self, train: ExampleSource) -> TrainingProblem:
        """Return the same problem, whose evaluations read no more examples at a time than a step of training does.

        Args:
            train: Training data.

        Raises:
            InvalidInput: They come in batches of another size, in an order that does not go with independent batches,
                or are read as they are needed, and a step asks for all of them.
        """
        name, rows = train.name, self.batch_rows(train)
        if not isinstance(train.own, StreamSource):
            if self.batch_size is None and not isinstance(train.own, Split) and len(train) > CHUNK:
                raise InvalidInput(
                    f"`{name}` has {len(train):,} examples, read as they are needed, and each step would read all of "
                    "them; give the trainer a `batch_size`, 64 for instance."
                )
            return self
        if self.batch_size not in (None, rows):
            raise InvalidInput(
                f"`batch_size` is {self.batch_size}, and `{name}` comes in batches of {rows}; leave `batch_size` out: "
                "a step is a batch of the stream."
            )
        if self.independent_batches:
            raise InvalidInput(
                f"`independent_batches` reads two batches from opposite ends of the data, and `{name}` is a stream; "
                "give a dataset with random access, or leave it out."
            )
        objective = copy.copy(self.objective)  # which keeps what it has worked out
        objective.rows = min(rows, objective.rows)
        return replace(self, objective=objective)

    def is_full_batch(self, train: ExampleSource) -> bool:
        """Say whether a step reads the whole training data; a batch of a stream is never that.

        Args:
            train: Training data.
        """
        return not isinstance(train.own, StreamSource) and (self.batch_size is None or self.batch_size >= len(train))

    def batch_rows(self, train: ExampleSource) -> int:
        """Return how many examples a step reads at most.

        Args:
            train: Training data.
        """
        if isinstance(train.own, StreamSource):
            return max(train.ranks.gather(train.own.survey.batch_rows))
        return min(self.batch_size or len(train), len(train))

    def count_batches(self, train: ExampleSource) -> int:
        """Return how many steps an epoch has.

        Args:
            train: Training data; of several ranks the longest stream counts.
        """
        if not isinstance(train.own, StreamSource):
            return len(self.split_batches(torch.arange(len(train))))
        return max(train.ranks.gather(train.own.survey.batches))

    def split_batches(self, order: Tensor) -> tuple[Tensor, ...]:
        """Return the batches of one pass.

        One example alone says nothing to a batch normalization: where the student has one, it joins the batch before.

        Args:
            order: The examples, (N,).
        """
        batches = torch.split(order, min(self.batch_size or len(order), len(order)))
        if len(batches) > 1 and len(batches[-1]) == 1 and any(isinstance(part, BATCH_NORMS) for part, _ in self.modes):
            return (*batches[:-2], torch.cat(batches[-2:]))
        return batches

    def choose_dual(self, train: ExampleSource) -> DualMethod:
        """Return the dual method with its smoothing decided: none on full batches, 0.9 on minibatches.

        Args:
            train: Training data.
        """
        if self.dual.ema is not None:
            return self.dual
        chosen = copy.copy(self.dual)
        object.__setattr__(chosen, "ema", 0.0 if self.is_full_batch(train) else MINIBATCHES.smoothing)
        return chosen


def require_distinct_names(constraints: Sequence[Constraint]) -> None:
    """Raise InvalidInput where two constraints have the same name.

    Args:
        constraints: Any.
    """
    names = [constraint.name for constraint in constraints]
    if len(set(names)) < len(names):
        raise InvalidInput(f"Constraint names must differ; got {names}.")
