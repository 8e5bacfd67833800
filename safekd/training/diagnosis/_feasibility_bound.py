"""Feasibility bound: the best that any student could do for the constraints, over all distributions it might give.

A student is a function of the inputs: equal inputs get equal distributions.  Over all distributions that respect this,
concave measures lie below their tangents, and recall is linear in the class that is predicted; so the least violation
of the tangents is a linear program, and where it is above zero its weights prove that no student, of any size, meets
the thresholds.  Axes: M constraints, B positions, G groups of equal inputs, V classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solvers.infeasibility import solve_least_violation_on_simplices

from ..._torch_state import evaluation_mode
from ...data import Split
from ...safety import Constraint, Recall, SafetyConstraint
from .._constraint_layout import attainable_threshold, is_single_average
from .._objective import CHUNK, Objective
from .._parameter_vectors import Floats

_EXACT = 1e-9  # rounding of a tangent beside its measure
_CORNER = 1e-12  # corners of the simplex are read this far inside, where logarithms are finite


@dataclass(frozen=True)
class FeasibilityBoundSettings:
    """Sizes beyond which no bound is computed; ``tests/safekd/training/diagnosis/test_verdicts.py`` notices them.

    Attributes:
        largest_table: Numbers in all tangents: some 160 megabytes.
        largest_program: Numbers in the linear program after merging: some seconds of HiGHS.
        margin: Least violation that counts as a proof, and least weight that counts: above the rounding of the linear
            program.
        no_room: Room up to this is none: the rounding of the linear program itself.
    """

    largest_table: int = 20_000_000
    largest_program: int = 200_000
    margin: float = 1e-6
    no_room: float = 1e-7


SETTINGS = FeasibilityBoundSettings()


@dataclass(frozen=True)
class FeasibilityBound:
    """The best value that any student could reach, and the proof.

    Attributes:
        least: Every student leaves some constraint violated by at least this; negative is room.
        weights_M: Farkas' weights, (M,), at least 0, summing to 1.
        bound: The weighted safety of any student is at most this.
        wanted: Weighted thresholds.
        boundary: Constraints that can be met, but only by probabilities of exactly 0, which no softmax gives.
    """

    least: float
    weights_M: Floats
    bound: float
    wanted: float
    boundary: tuple[int, ...]

    @property
    def infeasible(self) -> bool:
        """Whether the weights prove that the thresholds cannot be met together."""
        return self.least > SETTINGS.margin


def bound_feasibility(
    objective: Objective, splits: Mapping[str, Split], constraints: Sequence[Constraint]
) -> FeasibilityBound | None:
    """Return the best that any student could do for the constraints.

    None where no constraint is one average of a concave measure or of a count, or the problem is too large.

    Args:
        objective: Holds the student, at which tangents are taken.
        splits: Those on which constraints are posed, by name.
        constraints: M of them.
    """
    named = [(m, rule) for m, rule in enumerate(constraints) if is_single_average(rule)]
    # the others get a weight of 0: what part of the constraints cannot do, all of them cannot
    named = [(m, rule) for m, rule in named if rule.measure.concave or _counts_argmax(rule)]
    numbers, rules = [m for m, _ in named], [rule for _, rule in named]
    posed = {rule.split: splits[rule.split] for rule in rules}
    if not rules:
        return None
    with evaluation_mode(objective.student), torch.no_grad():
        V = objective.logits(splits[rules[0].split].batch(torch.arange(1))).shape[-1]
    if len(rules) * 2 * V * sum(split.labels.numel() for split in posed.values()) > SETTINGS.largest_table:
        return None
    row_of, G = _number_inputs(posed)
    tangents = [_measure_tangent(objective, posed[rule.split], rule, row_of[rule.split], G) for rule in rules]
    known = [tangent for tangent in tangents if tangent is not None]
    if len(known) < len(rules):
        return None
    gain_MGV, wanted_M = _merge_groups(np.stack([gain for gain, _ in known])), np.array([wanted for _, wanted in known])
    if gain_MGV.size > SETTINGS.largest_program:
        return None
    proof = solve_least_violation_on_simplices(gain_MGV, wanted_M)
    if proof is None:
        return None
    y_M, least = proof.weights_C, proof.least_violation
    asked = float(y_M @ wanted_M)
    predicted_G = (gain_MGV[[_counts_argmax(rule) for rule in rules]] != 0).any((0, -1))
    boundary = _boundary(y_M, gain_MGV[:, ~predicted_G], least)
    weights_M = np.zeros(len(constraints))
    weights_M[numbers] = y_M
    return FeasibilityBound(least, weights_M, asked - least, asked, tuple(numbers[m] for m in boundary))


def _boundary(y_M: Floats, gain_MGV: Floats, least: float) -> tuple[int, ...]:
    """Return which constraints meet their threshold only where some probability is zero; G: distributions alone.

    With nothing to spare, every distribution that meets them puts all its mass where the weighted gain is largest.
    """
    value_GV = np.tensordot(y_M, gain_MGV, 1)
    spread_G = value_GV.max(-1) - value_GV.min(-1)
    if abs(least) > SETTINGS.no_room or not (spread_G > SETTINGS.margin).any():
        return ()
    return tuple(int(m) for m in np.flatnonzero(y_M > SETTINGS.margin))


def _counts_argmax(rule: SafetyConstraint) -> bool:
    return type(rule.measure)._measured is Recall._measured


def _number_inputs(splits: Mapping[str, Split]) -> tuple[dict[str, Tensor], int]:
    """Number the positions of every split so that equal inputs, at the same position in the row, have equal numbers."""
    group_of: dict[bytes, int] = {}
    row_of: dict[str, Tensor] = {}
    positions = max(max(1, split.labels[0].numel()) for split in splits.values())
    for name, split in splits.items():
        flat = (split.inputs.detach().cpu().contiguous() + 0).reshape(len(split), -1)
        head = f"{flat.dtype}{tuple(split.inputs.shape[1:])}".encode()
        row = [group_of.setdefault(head + line.tobytes(), len(group_of)) for line in flat.view(torch.uint8).numpy()]
        position = torch.arange(split.labels[0].numel()).reshape(split.labels.shape[1:])
        row_of[name] = torch.tensor(row).reshape(-1, *[1] * position.ndim) * positions + position
    return row_of, len(group_of) * positions


def _measure_tangent(
    objective: Objective, split: Split, rule: SafetyConstraint, row_B: Tensor, G: int
) -> tuple[Floats, float] | None:
    """Return a bound of the safety, linear in distributions: gains (2 G, V), and the threshold less its constant.

    The first G rows are distributions, the others predicted classes.  None where the bound turns out not to hold.
    """
    gain_GV: Tensor | None = None
    constant, count = 0.0, 0
    for index in split.chunks(CHUNK):
        batch = split.batch(index)
        covered = rule.covers(batch)
        if not bool(covered.any()):
            continue
        with evaluation_mode(objective.student), torch.no_grad():
            p_BV = torch.softmax(objective.logits(batch).double(), -1)[covered]
        labels_B = batch.labels[covered]
        bound = _tangent_planes(rule, p_BV, labels_B)
        if bound is None:
            return None
        gradient_BV, constant_B = bound
        if gain_GV is None:
            gain_GV = torch.zeros(2 * G, p_BV.shape[-1], dtype=torch.float64)
        rows = row_B[index.cpu()][covered.cpu()] + (G if _counts_argmax(rule) else 0)
        gain_GV.index_add_(0, rows, gradient_BV.cpu())
        constant, count = constant + float(constant_B.sum()), count + len(labels_B)
    if gain_GV is None:
        return None
    return (gain_GV / count).numpy(), float(attainable_threshold(rule, torch.tensor(count))) - constant / count


def _tangent_planes(rule: SafetyConstraint, p_BV: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return gradients (B, V) and constants (B,) with  f(p, y) <= constant + gradient . p  on the simplex, or None."""
    measure, V = rule.measure, p_BV.shape[-1]
    inside_VV = torch.eye(V, dtype=p_BV.dtype, device=p_BV.device) * (1 - V * _CORNER) + _CORNER
    at_corner_BV = torch.stack(
        [measure.measured(inside_VV[v].log().expand_as(p_BV), labels_B) for v in range(V)], -1
    ).detach()
    if _counts_argmax(rule):
        return at_corner_BV, torch.zeros_like(at_corner_BV[:, 0])
    p_BV = p_BV.clamp_min(_CORNER).requires_grad_()
    with torch.enable_grad():
        value_B = measure.measured(p_BV.log(), labels_B)
        (gradient_BV,) = (
            torch.autograd.grad(value_B.sum(), p_BV) if value_B.requires_grad else (torch.zeros_like(p_BV),)
        )
    constant_B = (value_B - (gradient_BV * p_BV).sum(-1)).detach()
    above_BV = constant_B.unsqueeze(-1) + gradient_BV - at_corner_BV
    # a measure that calls itself concave and is not shows it at a corner: there its tangent lies below it
    return (gradient_BV, constant_B) if bool((above_BV >= -_EXACT).all()) else None


def _merge_groups(gain_MGV: Floats) -> Floats:
    """Return fewer groups with the same maxima of every weighted sum.

    Groups that only one constraint reads take their maxima apart from all others, so their sorted gains add up; groups
    with the same gains count as many times as they occur.
    """
    read_MG = (gain_MGV != 0).any(-1)
    readers_G = read_MG.sum(0)
    alone_MMV = np.zeros((len(gain_MGV), *gain_MGV.shape[::2]))
    for m, row_GV in enumerate(gain_MGV):
        alone_MMV[m, m] = np.sort(row_GV[read_MG[m] & (readers_G == 1)], -1).sum(0)
    shared_GMV = gain_MGV[:, readers_G > 1].transpose(1, 0, 2)
    if len(shared_GMV):
        flat, count = np.unique(shared_GMV.reshape(len(shared_GMV), -1), axis=0, return_counts=True)
        shared_GMV = flat.reshape(-1, *shared_GMV.shape[1:]) * count[:, None, None]
    return np.concatenate([alone_MMV, shared_GMV.transpose(1, 0, 2)], 1)
