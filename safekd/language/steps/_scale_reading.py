"""Multiplier scales of a language model's constraints, read off the gradients in its hidden states.

What ``solvers.primal_dual`` reads off gradients in the parameters is read here one layer earlier, in the hidden states
that the head turns into logits: a second backward pass through the model would break distributed wrappers, and the loss
has these gradients anyway.  For a constraint they are nonzero at critical positions alone.  The curvature of the loss
along d is ``sum_p c Var_s(W d_p)``, s the student's distribution at position p and c what a position counts.
Axes: P positions that count, R critical ones, H width, V vocabulary, C constraints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvers.primal_dual import MultiplierScales, combine_scales

from ...data import Batch
from ...safety import Average
from ..loss import Head

_ROWS = 64  # positions whose distributions are looked at once
_FARTHEST = 10.0  # norms of the hidden states that training may carry them: what farther rows ask for waits


@dataclass(frozen=True)
class ScaleSums:
    """Sums over microbatches and processes that scales are made of, float64.

    Attributes:
        squares: |h|^2 and |df/dh|^2, (2,).
        rows: |dg/dh|^2, curvature and product with df/dh of each constraint, (3, C).
    """

    squares: Tensor
    rows: Tensor

    @classmethod
    def zeros(cls, constraints: int, device: torch.device) -> ScaleSums:
        """Return sums of nothing.

        Args:
            constraints: C.
            device: Where they are.
        """
        none = torch.zeros(3 * constraints + 2, dtype=torch.float64, device=device)
        return cls.unpack(none)

    def __add__(self, other: ScaleSums) -> ScaleSums:
        return ScaleSums(self.squares + other.squares, self.rows + other.rows)

    def pack(self) -> Tensor:
        """Return all numbers in one vector, (2 + 3 C,)."""
        return torch.cat([self.squares, self.rows.flatten()])

    @classmethod
    def unpack(cls, vector: Tensor) -> ScaleSums:
        """Return the sums that ``pack`` put into a vector.

        Args:
            vector: (2 + 3 C,).
        """
        return cls(vector[:2], vector[2:].reshape(3, -1))

    def read(self, distance_C: Tensor) -> MultiplierScales:
        """Return the scales.

        Args:
            distance_C: How far off each constraint is, at least 0.
        """
        h_norm, f_norm = self.squares.sqrt()
        norm_C = self.rows[0].sqrt()
        return combine_scales(
            f_norm, norm_C, self.rows[1], self.rows[2], distance_C, largest_distance=_FARTHEST * float(h_norm)
        )


def read_scale_sums(
    hidden: Tensor,
    head: Head,
    of_loss_PH: Tensor,
    kept: Tensor | None,
    batch: Batch,
    parts: Sequence[Sequence[tuple[Average, Tensor]]],
    unit: float,
    multipliers: Tensor,
) -> ScaleSums:
    """Return what one microbatch adds.

    Args:
        hidden: The student's hidden states, (..., H).
        head: Its head, cut to the vocabulary.
        of_loss_PH: Gradient of the whole objective in the hidden states that count.
        kept: Places of those among all; None where all count.
        batch: Labels and groups of all positions.
        parts: The averages of each constraint, each with what one unit of a group's sum adds to its value, (G,).
        unit: What one position's divergence counts in the objective, which is the loss less ``multipliers . values``.
        multipliers: (C,).
    """
    flat_NH = hidden.detach().flatten(0, -2)
    total_NH = torch.zeros_like(flat_NH, dtype=of_loss_PH.dtype)
    if kept is None:
        total_NH.copy_(of_loss_PH)
    else:
        total_NH[kept] = of_loss_PH
    of_constraint = [_differentiate_constraint(flat_NH, head, batch, averages) for averages in parts]
    for multiplier, (place_R, gradient_RH, _) in zip(multipliers.tolist(), of_constraint, strict=True):
        total_NH.index_add_(0, place_R, gradient_RH.to(total_NH), alpha=multiplier)  # what the constraints took off
    counted_NH = flat_NH if kept is None else flat_NH[kept]
    squares = torch.stack([counted_NH.double().square().sum(), total_NH.double().square().sum()])
    columns = [
        torch.stack([g.double().square().sum(), unit * bent, (total_NH[place].double() * g.double()).sum()])
        for place, g, bent in of_constraint
    ]
    rows = torch.stack(columns, dim=-1) if columns else squares.new_zeros(3, 0)
    return ScaleSums(squares, rows)


def _differentiate_constraint(
    flat_NH: Tensor, head: Head, batch: Batch, averages: Sequence[tuple[Average, Tensor]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return positions (R,), the gradient of the value there (R, H), and the sum of Var_s(W g)."""
    head = replace(head, weight=head.weight.detach(), bias=None if head.bias is None else head.bias.detach())
    label_N = batch.labels.flatten()
    bent = torch.zeros((), dtype=torch.float64, device=flat_NH.device)
    places, gradients = [label_N[:0]], [flat_NH[:0].float()]
    for average, coefficient_G in averages:
        inside_GN = average.members(batch).flatten(1)
        critical_N = inside_GN.any(0) & average.measure.is_critical(label_N)
        for place_r in torch.split(critical_N.nonzero()[:, 0], _ROWS):
            if not len(place_r):
                continue
            with torch.enable_grad(), torch.autocast(flat_NH.device.type, enabled=False):
                leaf = flat_NH[place_r].to(head.weight.dtype).requires_grad_()
                log_p_rV = torch.log_softmax(head.logits(leaf).float(), dim=-1)
                value_r = average.measure.surrogate_everywhere(log_p_rV, label_N[place_r])
                weight_r = (coefficient_G[:, None] * inside_GN[:, place_r]).sum(0)
                (gradient_rH,) = torch.autograd.grad(value_r, leaf, weight_r.to(value_r))
            with torch.no_grad():
                moved_rV = (gradient_rH @ head.weight.t()).float() * head.scale
                p_rV = log_p_rV.exp()
                mean_r = (p_rV * moved_rV).sum(-1, keepdim=True)
                bent += (p_rV * (moved_rV - mean_r).square()).sum(dtype=torch.float64)
            places.append(place_r)
            gradients.append(gradient_rH.float())
    return torch.cat(places), torch.cat(gradients), bent
