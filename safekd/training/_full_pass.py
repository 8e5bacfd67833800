"""Full passes: loss, constraints and their gradients, read over whole sources, batch by batch.

Axes: B batch, V classes, G groups of a constraint, M constraints, n parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.kkt import add_gradient
from solvers.short_repr import ShortRepr

from .._precision import log_softmax, widen
from .._torch_state import evaluation_mode
from ..data import Batch, ExampleSource, read_evenly
from ..distributed import Ranks
from ..safety import Constraint, GroupSums
from ._constraint_layout import SumLayout, attainable_threshold, is_single_average
from ._objective import Objective
from ._rank_pool import find_rank_target
from ._student_checks import explain_infinite_loss
from .trace import ConstraintReading


@dataclass(frozen=True, repr=False)
class FullPass(ShortRepr):
    """Values over whole sources: loss, readings, and, if asked for, gradients of loss and constraints.

    Attributes:
        loss: Distillation loss on the training data, nats.
        loss_se: Its standard error, from the spread over positions.
        readings: One a constraint, on the source on which it is posed.
        gradient_norm: Of the loss's gradient, 0 where none was asked for.
        lagrangian_norm: Of ``grad f + J^T lambda``; None where no multipliers were given.
        gradient_n: Gradient of the loss, (n,); None where none was asked for, or only norms were.
        jacobian_Mn: Gradients of ``g = required - surrogate``, (M, n), likewise.
    """

    loss: float
    loss_se: float
    readings: list[ConstraintReading]
    gradient_norm: float
    lagrangian_norm: float | None
    gradient_n: Tensor | None
    jacobian_Mn: Tensor | None

    def require_gradients(self) -> tuple[Tensor, Tensor]:
        """Return the gradient of the loss and the Jacobian, for a caller that asked for both."""
        assert self.gradient_n is not None
        assert self.jacobian_Mn is not None
        return self.gradient_n, self.jacobian_Mn


def read_full_pass(
    objective: Objective,
    train: ExampleSource,
    splits: Mapping[str, ExampleSource],
    constraints: Sequence[Constraint],
    *,
    with_gradients: bool,
    multipliers: Tensor | None = None,
) -> FullPass:
    """Read the loss and each constraint on the source it names, student and rule in eval mode.

    Gradients of loss and constraints, (M + 1) vectors of float64, cost a backward pass each.  Where multipliers are
    given, two vectors are held, ``grad f`` and ``J^T lambda``, for two backward passes, and only norms are handed back.

    Args:
        objective: Holds student and targets.
        train: Where the loss is read, and constraints posed on "train".
        splits: The others, by name.
        constraints: M of them.
        with_gradients: Whether gradients are wanted.
        multipliers: (M,), for the norm of the Lagrangian's gradient without the Jacobian.
    """
    variables: list[Tensor] = [p for p in objective.student.parameters() if p.requires_grad]
    names = sorted({"train"} | {rule.split for rule in constraints})
    sources = {name: train if name == "train" else splits[name] for name in names}
    objective.clear_non_finite_source()
    with evaluation_mode(objective.readers):
        factors = read_surrogate_factors(objective, sources, constraints) if with_gradients else None
        vectors = _choose_vectors(multipliers, len(constraints), variables) if with_gradients else None
        sums = _FullPassSums(constraints, factors, vectors)
        with torch.set_grad_enabled(with_gradients):
            sums.add_up(lambda: _read_sources(objective, sources, sums), train.ranks)
    return sums.total()


def _read_sources(objective: Objective, sources: Mapping[str, ExampleSource], sums: _FullPassSums) -> None:
    """Read all that this process reads of each source."""
    for name, source in sources.items():
        together = name == "train" and objective.looks_at_batches
        for batch, counts in read_evenly(source, objective.rows, together=together):
            logits_V = objective.logits(batch)
            loss = None
            if name == "train":
                log_q_V = find_rank_target(objective, source, batch, logits_V, counts)
            if not counts:
                continue
            if name == "train":
                losses = objective.loss(log_q_V, logits_V)
                loss = sums.add_losses(losses, batch, source.positions)
                if not bool(torch.isfinite(loss)):
                    objective.note_non_finite(explain_infinite_loss(log_q_V, logits_V, losses, batch.index))
            sums.add(name, batch, logits_V, loss)


def read_surrogate_factors(
    objective: Objective, sources: Mapping[str, ExampleSource], constraints: Sequence[Constraint]
) -> list[Tensor]:
    """Return by how much each group's sum of surrogates counts in each constraint's value, (G,) each.

    Where that depends on the means themselves, those are read in a pass of their own.

    Args:
        objective: Holds the student.
        sources: Those on which constraints are posed, by name.
        constraints: M of them.
    """
    factors = []
    for rule in constraints:
        split = sources[rule.split]
        (count_G,) = objective.count_groups([rule], split)
        mean_G = torch.full_like(count_G, torch.nan)
        if rule.gradient_depends_on_means:
            mean_G = _surrogate_means(objective, rule, split, count_G)
        factors.append(torch.where(count_G > 0, rule.gradient(mean_G, count_G, surrogate=True) / count_G, 0.0))
    return factors


def measure_gaps(constraints: Sequence[Constraint], full: FullPass, device: torch.device | str = "cpu") -> Tensor:
    """Return threshold less measured value of each constraint, (M,); of one that counts, to what it can attain.

    Args:
        constraints: In the order of the readings.
        full: What was read.
        device: Where the answer is wanted.
    """
    pairs = zip(constraints, full.readings, strict=True)
    gaps = [float(attainable_threshold(rule, torch.tensor(r.count))) - r.measured for rule, r in pairs]
    return torch.tensor(gaps, dtype=torch.float64, device=device)


def pose_all_on_train(constraints: Sequence[Constraint]) -> list[Constraint]:
    """Return the constraints as if all were posed on the split that is read as ``train``.

    Args:
        constraints: Any.
    """
    return [rule.with_split("train") for rule in constraints]


@torch.no_grad()
def _surrogate_means(objective: Objective, rule: Constraint, source: ExampleSource, count_G: Tensor) -> Tensor:
    total_G = torch.zeros_like(count_G)

    def add_up() -> Tensor:
        for batch in source.batches(objective.rows):
            total_G.add_(rule.sums(log_softmax(objective.logits(batch)), batch).surrogate_G)
        return total_G

    return source.ranks.add_up(add_up, len(total_G)) / count_G


def _choose_vectors(multipliers: Tensor | None, M: int, variables: list[Tensor]) -> _Jacobian | _TwoVectors:
    return _Jacobian(M, variables) if multipliers is None else _TwoVectors(multipliers, variables)


class _Jacobian:
    """The gradients of the loss and of each constraint, added up in float64."""

    def __init__(self, M: int, variables: list[Tensor]) -> None:
        self.variables = variables
        size, like = sum(p.numel() for p in variables), variables[0]
        self.gradient_n = torch.zeros(size, dtype=torch.float64, device=like.device)
        self.jacobian_Mn = torch.zeros(M, size, dtype=torch.float64, device=like.device)

    def add(self, loss: Tensor | None, value_by_row: Mapping[int, Tensor]) -> None:
        """Add gradients of one batch: of its share of the loss, and of constraints by their number."""
        if loss is not None:
            add_gradient(self.gradient_n, loss, self.variables)
        for m, value in value_by_row.items():
            add_gradient(self.jacobian_Mn[m], value, self.variables)

    def add_up(self, ranks: Ranks) -> None:
        """Add up over all processes."""
        ranks.add_up_in_place([self.gradient_n, self.jacobian_Mn])

    def total(self) -> tuple[float, float | None, Tensor | None, Tensor | None]:
        """Return the last four fields of a FullPass."""
        return float(self.gradient_n.norm()), None, self.gradient_n, self.jacobian_Mn


class _TwoVectors:
    """The gradients of the loss and of ``lambda . g``, added up parameter by parameter."""

    def __init__(self, multipliers: Tensor, variables: list[Tensor]) -> None:
        self.multipliers, self.variables = multipliers.tolist(), variables
        self.sums = [[torch.zeros_like(p, dtype=widen(p[:0]).dtype) for p in variables] for _ in range(2)]

    def add(self, loss: Tensor | None, value_by_row: Mapping[int, Tensor]) -> None:
        """Add gradients of one batch: of its share of the loss, and of constraints by their number."""
        weighed = [self.multipliers[m] * value for m, value in value_by_row.items() if self.multipliers[m]]
        values = [loss, torch.stack(weighed).sum() if weighed else None]
        asked = [(value, sums) for value, sums in zip(values, self.sums, strict=True) if value is not None]
        for number, (value, sums) in enumerate(asked, start=1):
            if not value.requires_grad:
                continue
            parts = torch.autograd.grad(value, self.variables, retain_graph=number < len(asked), allow_unused=True)
            for total, part in zip(sums, parts, strict=True):
                if part is not None:
                    total += part

    def add_up(self, ranks: Ranks) -> None:
        """Add up over all processes."""
        ranks.add_up_in_place([total for sums in self.sums for total in sums])

    def total(self) -> tuple[float, float | None, Tensor | None, Tensor | None]:
        """Return the last four fields of a FullPass."""
        loss, weighed = self.sums
        return _norm(loss), _norm([a + b for a, b in zip(loss, weighed, strict=True)]), None, None


def _norm(parts: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(torch.linalg.vector_norm(part, dtype=torch.float64)) ** 2 for part in parts))


class _FullPassSums:
    """Adds up losses, constraint values and their gradients over the batches of a full pass.

    factors: see ``read_surrogate_factors``; None where no gradient is wanted.
    """

    def __init__(
        self,
        constraints: Sequence[Constraint],
        factors: Sequence[Tensor] | None,
        vectors: _Jacobian | _TwoVectors | None,
    ) -> None:
        self.constraints, self.factors, self.vectors = constraints, factors, vectors
        self.loss, self.moments = 0.0, SampleMoments()
        self.sums: list[GroupSums | None] = [None] * len(constraints)

    def add_losses(self, losses: Tensor, batch: Batch, positions: int) -> Tensor:
        """Take in one loss a position, (B, ...); return the batch's share of the mean over all positions."""
        share = batch.sum_positions(losses) / positions
        values = losses if batch.mask is None else losses[batch.mask]
        self.moments.add(values.detach().double())
        self.loss += float(share.detach())
        return share

    def add(self, name: str, batch: Batch, logits_V: Tensor, loss: Tensor | None) -> None:
        """Add one batch of the source ``name``; ``loss`` is its share of the mean loss, on the training data."""
        log_p_V, value_by_row = log_softmax(logits_V), {}
        for m, rule in enumerate(self.constraints):
            if rule.split != name:
                continue
            sums = rule.sums(log_p_V, batch)
            if self.factors is not None:
                value_by_row[m] = -(self.factors[m] * sums.surrogate_G).sum()
            before, sums = self.sums[m], sums.detach()
            self.sums[m] = sums if before is None else before + sums
        if self.vectors is not None:
            self.vectors.add(loss, value_by_row)

    def add_up(self, read: Callable[[], None], ranks: Ranks) -> None:
        """Read, and add to it what other processes read: values in one vector, gradients, and the spread of losses."""
        if ranks.size == 1:
            read()
            return
        layout = SumLayout(1 + 3 * ranks.size, self.constraints)

        def pack() -> Tensor:
            read()
            moments = torch.zeros(ranks.size, 3, dtype=torch.float64)
            moments[ranks.rank] = self.moments.pack()
            numbers = torch.cat([torch.tensor([self.loss], dtype=torch.float64), moments.reshape(-1)])
            return layout.pack(numbers, {m: sums for m, sums in enumerate(self.sums) if sums is not None})

        numbers, groups = layout.unpack(ranks.add_up(pack, layout.length))
        self.loss, self.moments = float(numbers[0]), SampleMoments.join(numbers[1:].reshape(-1, 3))
        self.sums = [groups[m] for m in range(len(self.constraints))]
        if self.vectors is not None:
            self.vectors.add_up(ranks)

    def total(self) -> FullPass:
        """Divide by counts and hand over."""
        readings = [
            _constraint_reading(rule, sums)
            for rule, sums in zip(self.constraints, self.sums, strict=True)
            if sums is not None
        ]
        gradients_read = (0.0, None, None, None) if self.vectors is None else self.vectors.total()
        return FullPass(self.loss, self.moments.standard_error, readings, *gradients_read)


class SampleMoments:
    """Count, mean and squared deviations of numbers that come in parts.

    Source: Chan, Golub and LeVeque 1979.
    """

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, value_x: Tensor) -> None:
        """Take in some numbers.

        Args:
            value_x: Any shape, float64.
        """
        if not value_x.numel():
            return
        mean = float(value_x.mean())
        self._add(value_x.numel(), mean, float((value_x - mean).square().sum()))

    def _add(self, count: int, mean: float, squares: float) -> None:
        if not count:
            return
        apart, total = mean - self.mean, self.count + count
        self.squares += squares + apart**2 * self.count * count / total
        self.mean += apart * count / total
        self.count = total

    def pack(self) -> Tensor:
        """Return count, mean and squared deviations, (3,), float64."""
        return torch.tensor([self.count, self.mean, self.squares], dtype=torch.float64)

    @classmethod
    def join(cls, parts: Tensor) -> SampleMoments:
        """Return the moments of all numbers.

        Args:
            parts: What ``pack`` gave of several processes, (ranks, 3).
        """
        whole = cls()
        for count, mean, squares in parts.tolist():
            whole._add(int(count), mean, squares)
        return whole

    @property
    def standard_error(self) -> float:
        """Of the mean, were the numbers independent; no number below two."""
        return math.sqrt(self.squares / (self.count - 1) / self.count) if self.count > 1 else math.nan


def _constraint_reading(rule: Constraint, sums: GroupSums) -> ConstraintReading:
    mean_G, surrogate_G = sums.means(), sums.surrogate_G / sums.count_G
    factor_G = rule.gradient(mean_G, sums.count_G)
    surrogate_factor_G = (
        rule.gradient(surrogate_G, sums.count_G, surrogate=True) if rule.gradient_depends_on_means else factor_G
    )
    return ConstraintReading(
        name=rule.name,
        split=rule.split,
        measured=rule.offset + float(factor_G @ mean_G),
        surrogate=rule.offset + float(surrogate_factor_G @ surrogate_G),
        required=rule.required,
        count=int(sums.count_G.sum()),
        standard_error=float((factor_G.square() * sums.variances()).sum().sqrt()),
        equality=rule.is_equality,
        # a single average is posed at a value that it can attain
        resolution=0.0 if is_single_average(rule) else rule.resolution(factor_G, sums.count_G),
    )
