"""Passes over sequences without training on them: loss, perplexity, safety with standard errors, gradient norms.

The loss is the one of training, read without gradients and in the same bounded memory; measures are read where they
count.  What processes read is added up in one vector.  Axes: B sequences, T positions, G groups, M constraints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...._precision import widen
from ....data import Batch
from ....distributed import Ranks
from ....errors import InvalidInput
from ....safety import Constraint
from ....training.trace import ConstraintReading
from ...loss import Head, TeacherOutput
from ...loss._head_products import HeadProducts
from ...loss._memory_budget import count_rows, read_bytes
from ...rollouts import WrittenConstraint
from ._sequence_moments import SequenceMoments


@dataclass(frozen=True)
class SequenceAnswers:
    """What student and teachers say of a batch.

    Attributes:
        hidden: The student's last hidden states, (B, T, H).
        head: Reads them.
        teachers: One output a teacher.
    """

    hidden: Tensor
    head: Head
    teachers: Sequence[TeacherOutput]


@dataclass(frozen=True)
class SequenceReading:
    """What a pass reads.

    Attributes:
        loss: Distillation loss, nats a position.
        loss_se: Its standard error, clustered by batch.
        cross_entropy: Of the labels, nats a position.
        positions: How many were read.
        sequences: How many were read.
        readings: One a constraint, standard errors clustered by sequence.
    """

    loss: float
    loss_se: float
    cross_entropy: float
    positions: int
    sequences: int
    readings: Sequence[ConstraintReading]

    @property
    def perplexity(self) -> float:
        """Of the labels; infinite where it is beyond floating point."""
        return math.exp(self.cross_entropy) if self.cross_entropy < 700 else math.inf

    def as_metrics(self) -> dict[str, float]:
        """Return the numbers by the names under which trainers report them."""
        metrics = {"loss": self.loss, "cross_entropy": self.cross_entropy, "perplexity": self.perplexity}
        for reading in self.readings:
            metrics |= {
                f"safety_{reading.name}": reading.measured,
                f"safety_se_{reading.name}": reading.standard_error,
                f"violation_{reading.name}": reading.violation,
            }
        return metrics


Ask = Callable[[Batch], SequenceAnswers]
ReadLoss = Callable[[SequenceAnswers, Batch], tuple[float, float]]


class SequenceSums:
    """Adds up what a pass reads, over batches and processes.

    Args:
        constraints: M of them.
        rows: Positions whose logits are held at once.
    """

    def __init__(self, constraints: Sequence[Constraint], rows: int) -> None:
        self.constraints, self.rows = constraints, rows
        self.sizes = [sum(average.size for _, average in constraint.parts) for constraint in constraints]
        self.loss = SequenceMoments(1)
        self.cross_entropy, self.sequences = 0.0, 0.0
        self.surrogates = [torch.zeros(size, dtype=torch.float64) for size in self.sizes]
        self.moments = [SequenceMoments(size) for size in self.sizes]

    @torch.no_grad()
    def add(self, answers: SequenceAnswers, batch: Batch, loss: float, cross_entropy: float) -> None:
        """Take in one batch.

        Args:
            answers: What student and teachers say of it.
            batch: The sequences.
            loss: Sum of the distillation loss over its positions.
            cross_entropy: Sum of the cross-entropy over its labels.
        """
        self.loss.add(torch.tensor([[loss]]), torch.tensor([[float(batch.positions)]]))
        self.cross_entropy += cross_entropy
        self.sequences += len(batch)
        for m, constraint in enumerate(self.constraints):
            if isinstance(constraint, WrittenConstraint):  # of whole texts, whose scores are known
                total_B1, count_B1 = constraint.read_texts(batch)
                self.moments[m].add(total_B1, count_B1)
                self.surrogates[m] += total_B1.sum(0).cpu()
        spoken = [m for m, one in enumerate(self.constraints) if not isinstance(one, WrittenConstraint)]
        plain = [self.constraints[m] for m in spoken]
        read = measure_positions(answers.hidden, answers.head, batch, plain, self.rows)
        for m, (value_GBT, surrogate_GBT, inside_GBT) in zip(spoken, read, strict=True):
            total_BG = torch.where(inside_GBT, value_GBT, 0.0).sum(-1).T
            self.moments[m].add(total_BG, inside_GBT.sum(-1).T)
            self.surrogates[m] += torch.where(inside_GBT, surrogate_GBT, 0.0).sum((1, 2)).cpu()

    @property
    def length(self) -> int:
        """How long ``pack`` is."""
        return 2 + SequenceMoments.length_of(1) + sum(SequenceMoments.length_of(g) + g for g in self.sizes)

    def pack(self) -> Tensor:
        """Return all sums in one row."""
        few = torch.tensor([self.cross_entropy, self.sequences], dtype=torch.float64)
        return torch.cat([few, self.loss.pack(), *(moments.pack() for moments in self.moments), *self.surrogates])

    def unpack(self, packed: Tensor) -> None:
        """Take over a sum of what processes packed.

        Args:
            packed: The row.
        """
        lengths = [2, SequenceMoments.length_of(1), *map(SequenceMoments.length_of, self.sizes), *self.sizes]
        few, loss, *rest = torch.split(packed.cpu(), lengths)
        self.cross_entropy, self.sequences = few.tolist()
        self.loss.unpack(loss)
        for m, moments in enumerate(self.moments):
            moments.unpack(rest[m])
            self.surrogates[m] = rest[len(self.moments) + m]

    def total(self, split: str) -> SequenceReading:
        """Divide by counts.

        Args:
            split: What readings say they are of.
        """
        positions = float(self.loss.counts)
        readings = [
            _read_constraint(constraint, split, moments, surrogate_G)
            for constraint, moments, surrogate_G in zip(self.constraints, self.moments, self.surrogates, strict=True)
        ]
        return SequenceReading(
            loss=float(self.loss.means),
            loss_se=self.loss.standard_error(torch.ones(1, dtype=torch.float64)),
            cross_entropy=self.cross_entropy / positions if positions else math.nan,
            positions=int(positions),
            sequences=int(self.sequences),
            readings=readings,
        )


def count_reading_rows(budget: str | int, vocabulary: int, like: Tensor) -> int:
    """Return of how many positions the log-probabilities fit into a budget.

    Args:
        budget: Bytes, or text such as "64MiB".
        vocabulary: How many tokens there are.
        like: Of the device and the type of the head.
    """
    return count_rows(read_bytes(budget), 2, vocabulary, widen(like[:0]).dtype, like.device)


def read_sequences(
    batches: Iterable[Batch],
    ask: Ask,
    read_loss: ReadLoss,
    constraints: Sequence[Constraint],
    ranks: Ranks,
    *,
    rows: int,
    split: str,
) -> SequenceReading:
    """Read sequences without gradients.

    Args:
        batches: Those of this process.
        ask: Gives what student and teachers say.
        read_loss: Gives the sums of distillation loss and cross-entropy over the positions of a batch.
        constraints: What else is read.
        ranks: Who reads the others.
        rows: Positions whose logits are held at once.
        split: What readings say they are of.

    Raises:
        InvalidInput: No position counts.
    """
    sums = SequenceSums(constraints, rows)

    def add_up() -> Tensor:
        with torch.no_grad():
            for batch in batches:
                answers = ask(batch)
                sums.add(answers, batch, *read_loss(answers, batch))
        return sums.pack()

    sums.unpack(ranks.add_up(add_up, sums.length))
    if not float(sums.loss.counts):
        raise InvalidInput(
            f"No position of the {int(sums.sequences)} sequences of '{split}' counts: every label is -100 or padding. "
            "A sequence needs at least two tokens."
        )
    return sums.total(split)


@torch.no_grad()
def measure_positions(
    hidden: Tensor, head: Head, batch: Batch, constraints: Sequence[Constraint], rows: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return what each constraint reads of each position; the logits of some positions are held at a time.

    Args:
        hidden: The student's last hidden states, (B, T, H).
        head: Reads them.
        batch: The sequences.
        constraints: M of them.
        rows: Positions at a time.

    Returns:
        For each constraint: measured values and surrogates, (G, B, T), 0 where no group counts them, and which groups
        count them, bool (G, B, T).
    """
    averages = [[average for _, average in constraint.parts] for constraint in constraints]
    inside = [[average.members(batch) for average in parts] for parts in averages]
    flat_Ph, label_P = hidden.flatten(0, 1), batch.labels.flatten()
    covered = [members.any(0) for parts in inside for members in parts]
    if not covered:
        return []
    place_P = torch.stack(covered).any(0).flatten().nonzero()[:, 0]
    products = HeadProducts(head, widen(hidden[:0]).dtype)
    values = [[torch.zeros(2, len(label_P), dtype=torch.float64, device=hidden.device) for _ in p] for p in averages]
    for place in torch.split(place_P, rows):
        log_p_V = torch.log_softmax(products.logits(flat_Ph[place]), dim=-1)
        for parts, kept in zip(averages, values, strict=True):
            for average, value in zip(parts, kept, strict=True):
                measure, labels = average.measure, label_P[place]
                value[0, place] = measure.measured(log_p_V, labels).double()
                value[1, place] = (
                    value[0, place] if measure.is_differentiable else measure.surrogate(log_p_V, labels).double()
                )
    shape = (2, 1, *batch.labels.shape)
    read = []
    for kept, members in zip(values, inside, strict=True):
        spread = [v.reshape(shape).expand(-1, len(m), -1, -1) for v, m in zip(kept, members, strict=True)]
        both = torch.cat(spread, dim=1)
        read.append((both[0], both[1], torch.cat(members)))
    return read


def _read_constraint(
    constraint: Constraint, split: str, moments: SequenceMoments, surrogate_G: Tensor
) -> ConstraintReading:
    count_G, mean_G = moments.counts, moments.means
    smooth_G = surrogate_G / count_G
    if bool((count_G == 0).any()):  # a group without a position: the value is unknown
        gradient_G = smooth_gradient_G = torch.full_like(mean_G, math.nan)
    else:
        gradient_G = constraint.gradient(mean_G, count_G)
        smooth_gradient_G = constraint.gradient(smooth_G, count_G, surrogate=True)
    return ConstraintReading(
        name=constraint.name,
        split=split,
        measured=constraint.offset + float(gradient_G @ mean_G),
        surrogate=constraint.offset + float(smooth_gradient_G @ smooth_G),
        required=constraint.required,
        count=int(count_G.sum()),
        standard_error=moments.standard_error(gradient_G),
        equality=constraint.is_equality,
        resolution=constraint.resolution(gradient_G, count_G) if float(count_G.min()) else 0.0,
    )
