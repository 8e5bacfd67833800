"""Stationarity from random batches, where gradients of whole splits cost too much; and what full passes cost.

With S independent batches, each giving an unbiased gradient v_s, the mean of v_s . v_t over all pairs s != t is an
unbiased estimate of the squared norm of the true gradient (a U-statistic, Hoeffding 1948), which the squared norm of
the mean of v_s is not: noise alone makes that large.  Its standard error is the jackknife's (Arvesen 1969).

Axes: S batches, B examples of a batch, M constraints, n parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.kkt import gradients

from ..._precision import log_softmax, widen
from ..._torch_state import evaluation_mode
from ...data import ExampleSource
from ...errors import InvalidInput
from ...safety import Constraint
from .._full_pass import read_surrogate_factors
from .._objective import Objective


@dataclass(frozen=True)
class TracingSettings:
    """Numbers of the default interval between full passes.

    Attributes:
        cost_share: Share of the training's work that full passes may cost by the count of ``choose_trace_interval``;
            the goal of ``benchmarks.tracing`` is 0.03 of its time, which leaves a third for what the count leaves out.
    """

    cost_share: float = 0.02


SETTINGS = TracingSettings()


@dataclass(frozen=True)
class Sampled:
    """Estimate gradients of full passes from random batches, drawn with replacement.

    One gradient a batch is held in memory.

    Attributes:
        batches: How many, at least 4: fewer show no spread.
        batch_size: Examples of each, at least 1.

    Raises:
        InvalidInput: A number is out of range.

    >>> Sampled(batches=8, batch_size=32).examples
    256
    """

    batches: int = 16
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name, value, least in (("batches", self.batches, 4), ("batch_size", self.batch_size, 1)):
            if not isinstance(value, int) or value < least:
                raise InvalidInput(
                    f"`{name}` of Sampled is {value!r}; wanted a whole number, at least {least}, for example 16."
                )

    @property
    def examples(self) -> int:
        """How many examples an estimate reads of each split."""
        return self.batches * self.batch_size


@dataclass(frozen=True)
class SampledGradients:
    """Estimates of gradients of loss and constraints, and of their norms.

    Attributes:
        gradient_n: Mean gradient of the loss over batches, (n,).
        jacobian_Mn: Mean gradients of the constraints, (M, n).
        gradient_norm: Root of the unbiased squared norm of the loss's gradient, 0 where that comes out negative.
        constraint_norms: The same of each constraint, (M,).
        lagrangian_norm: The same of ``grad f + J^T lambda``.
        lagrangian_se: Half of what two standard errors of its square add to it: its standard error where it is far from
            zero, and no less near zero.
    """

    gradient_n: Tensor
    jacobian_Mn: Tensor
    gradient_norm: float
    constraint_norms: list[float]
    lagrangian_norm: float
    lagrangian_se: float


def estimate_gradients(
    objective: Objective,
    train: ExampleSource,
    splits: Mapping[str, ExampleSource],
    constraints: Sequence[Constraint],
    lambda_M: Tensor,
    sampled: Sampled,
    seed: int,
) -> SampledGradients:
    """Estimate gradients at the student as it is, in eval mode.

    Sums over a batch count as far as each example counts in its whole split, which makes them unbiased.

    Args:
        objective: Holds student and targets.
        train: Where the loss is read.
        splits: The others, by name.
        constraints: M of them.
        lambda_M: Multipliers, (M,).
        sampled: How many batches of which size.
        seed: The only source of chance.
    """
    variables = [p for p in objective.student.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(seed)
    where = {"train": train, **{rule.split: splits[rule.split] for rule in constraints if rule.split != "train"}}
    weight = torch.cat([torch.ones(1, dtype=torch.float64), lambda_M.detach().double().cpu()])
    size = sum(p.numel() for p in variables)
    total = torch.zeros(len(weight), size, dtype=torch.float64, device=variables[0].device)
    squares, lagrangian_Sn = torch.zeros(len(weight), dtype=torch.float64), []
    with evaluation_mode(objective.readers), torch.enable_grad():
        factors = read_surrogate_factors(objective, where, constraints)
        for _ in range(sampled.batches):
            scalars: dict[int, Tensor] = {}
            for name in sorted(where):
                split = where[name]
                inflate = len(split) / sampled.batch_size
                index = torch.randint(len(split), (sampled.batch_size,), generator=generator).to(split.device)
                batch = split.batch(index)
                logits_V = objective.logits(batch)
                if name == "train":
                    log_q_V = objective.target(split, batch, logits_V)
                    losses = objective.loss(log_q_V, logits_V)
                    scalars[0] = (
                        losses.mean() if batch.mask is None else batch.sum_positions(losses) * inflate / split.positions
                    )
                log_p_V = log_softmax(logits_V)
                for m, rule in enumerate(constraints):
                    if rule.split == name:
                        scalars[m + 1] = -inflate * (factors[m] * rule.sums(log_p_V, batch).surrogate_G).sum()
            rows = gradients([scalars[m] for m in range(len(weight))], variables)
            total += rows
            squares += rows.square().sum(1).cpu()
            lagrangian_Sn.append((weight.to(rows) @ rows).to(widen(variables[0][:0]).dtype))
    norm, error = estimate_mean_norm(torch.stack(lagrangian_Sn).double())
    unbiased = (total.square().sum(1).cpu() - squares) / (sampled.batches * (sampled.batches - 1))
    norms = unbiased.clamp_min(0).sqrt().tolist()
    mean = total / sampled.batches
    return SampledGradients(mean[0], mean[1:], norms[0], norms[1:], norm, error)


def estimate_mean_norm(v_Sn: Tensor) -> tuple[float, float]:
    """Return the norm of the mean that independent v_s have, and its standard error, as SampledGradients says.

    Args:
        v_Sn: One row a batch, (S, n).
    """
    size = len(v_Sn)
    own_S, sum_n = v_Sn.square().sum(1), v_Sn.sum(0)
    pairs = sum_n.square().sum() - own_S.sum()
    left_S = pairs - 2 * (v_Sn @ sum_n - own_S)  # the same over pairs without s
    without_S = left_S / ((size - 1) * (size - 2))
    error = float(((size - 1) / size * (without_S - without_S.mean()).square().sum()).sqrt())
    norm = math.sqrt(max(float(pairs) / (size * (size - 1)), 0.0)) if bool(pairs.isfinite()) else math.nan
    return norm, (math.sqrt(norm**2 + 2 * error) - norm) / 2


def choose_trace_interval(
    examples: Mapping[str, int],
    constrained: Mapping[str, int],
    batch_size: int,
    sampled: Sampled | None,
    *,
    reads_twice: bool = False,
    weighs_rows: bool = False,
) -> int:
    """Return how many steps apart full passes cost some two hundredths of the training between them.

    Counted in forward passes of one example, a backward pass as two.  A step reads a batch, and other splits on which
    constraints are posed whole; an evaluation reads every split, and goes back through it once for each gradient.
    A rule of sizes alone, so that the rows of a run do not depend on the machine.

    Args:
        examples: Size of each split that an evaluation reads, "train" among them.
        constrained: How many constraints each split has.
        batch_size: Examples a step.
        sampled: How gradients are estimated; None for exact ones.
        reads_twice: Whether a step reads its batch once more, in microbatches.
        weighs_rows: Whether an evaluation goes back once for all constraints of a split, weighed by multipliers.
    """
    step, evaluation = count_work(
        examples, constrained, batch_size, sampled, reads_twice=reads_twice, weighs_rows=weighs_rows
    )
    return max(1, math.ceil(evaluation / (SETTINGS.cost_share * step)))


def count_work(
    examples: Mapping[str, int],
    constrained: Mapping[str, int],
    batch_size: int,
    sampled: Sampled | None,
    *,
    reads_twice: bool = False,
    weighs_rows: bool = False,
) -> tuple[float, float]:
    """Return the work of a step and of an evaluation, as ``choose_trace_interval`` counts it.

    Args:
        examples: Size of each split that an evaluation reads, "train" among them.
        constrained: How many constraints each split has.
        batch_size: Examples a step.
        sampled: How gradients are estimated; None for exact ones.
        reads_twice: Whether a step reads its batch once more, in microbatches.
        weighs_rows: Whether an evaluation goes back once for all constraints of a split, weighed by multipliers.
    """
    forward = 2 if reads_twice else 1
    step, evaluation = (forward + 2.0) * batch_size, 0.0
    for name, size in examples.items():
        rows = constrained.get(name, 0)
        gradients_read = (min(rows, 1) if weighs_rows else rows) + (name == "train")
        evaluation += size
        if gradients_read:
            read = size if sampled is None or sampled.examples >= size else sampled.examples
            evaluation += 2 * gradients_read * read + (0 if read == size else read)
        if gradients_read and name != "train":
            step += (forward + 2) * size
    return step, evaluation
