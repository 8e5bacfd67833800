"""Feasibility bound: the best that any student could do for the constraints, over all distributions it might give.

A student is a function of the inputs: equal inputs get equal distributions.  Over all distributions that respect this,
concave measures lie below their tangents, and recall is linear in the class that is predicted; so the least violation
of the tangents is a linear program, and where it is above zero its weights prove that no student, of any size, meets
the thresholds.  Memory and time grow with positions times classes: no step needs classes times classes.

Axes: M constraints, B positions, G groups of equal inputs, V classes, C of them that count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solvers.infeasibility import solve_least_violation_on_simplices

from ..._torch_state import evaluation_mode
from ...data import ExampleSource, Split, name_inputs
from ...safety import Constraint, Recall, SafetyConstraint
from .._constraint_layout import attainable_threshold, is_single_average
from .._parameter_vectors import Floats
from ._evidence_budget import BeyondBudget, EvidenceBudget, EvidenceMeter, LogitSource

_EXACT = 1e-9  # rounding of a tangent beside its measure
_CORNER = 1e-12  # corners of the simplex are read this far inside, where logarithms are finite


@dataclass(frozen=True)
class FeasibilityBoundSettings:
    """Numbers of the bound; ``tests/safekd/training/diagnosis/test_verdicts.py`` notices them.

    Attributes:
        table_copies: How often all gains are held at once, tangents being read and merged.
        largest_program: Numbers in the linear program after merging: some seconds of HiGHS.
        margin: Least violation that counts as a proof, and least weight that counts: above the rounding of the linear
            program.
        no_room: Room up to this is none: the rounding of the linear program itself.
        most_corners: Corners of the simplex at which a measure is held against its tangent; of more classes, those at
            which it is likeliest to lie above it.
        most_labels: Examples, of different labels, at which it is held so where there are more classes than that.
    """

    table_copies: int = 4
    largest_program: int = 200_000
    margin: float = 1e-6
    no_room: float = 1e-7
    most_corners: int = 256
    most_labels: int = 8


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
    objective: LogitSource,
    splits: Mapping[str, ExampleSource],
    constraints: Sequence[Constraint],
    meter: EvidenceMeter | None = None,
    number_inputs: Callable[[Mapping[str, Split]], tuple[dict[str, Tensor], int]] | None = None,
) -> FeasibilityBound | None:
    """Return the best that any student could do for the constraints.

    None where no constraint is one average of a concave measure or of a count.

    Args:
        objective: Gives the student's logits, at which tangents are taken.
        splits: Those on which constraints are posed, by name.
        constraints: M of them.
        meter: Holds it to a budget; to the default one if left out.
        number_inputs: Gives each position of each split a number, equal where a student sees equal inputs, and says how
            many there are; equal rows see equal inputs if left out.

    Raises:
        BeyondBudget: It would take more.
    """
    meter = EvidenceMeter(EvidenceBudget()) if meter is None else meter
    named = [(m, rule) for m, rule in enumerate(constraints) if is_single_average(rule)]
    # the others get a weight of 0: what part of the constraints cannot do, all of them cannot
    named = [(m, rule) for m, rule in named if rule.measure.concave or _counts_argmax(rule)]
    numbers, rules = [m for m, _ in named], [rule for _, rule in named]
    if not rules:
        return None
    posed = {rule.split: _require_split(splits[rule.split]) for rule in rules}
    with evaluation_mode(objective.student), torch.no_grad():
        V = objective.logits(next(iter(posed[rules[0].split].batches(1)))).shape[-1]
    kinds = sorted({_counts_argmax(rule) for rule in rules})  # distributions, predicted classes, or both
    row_of, G = (number_inputs or _number_inputs)(posed)
    meter.require_memory(SETTINGS.table_copies * len(rules) * len(kinds) * V * G)
    known = []
    for rule in rules:
        first = kinds.index(_counts_argmax(rule)) * G
        tangent = _measure_tangent(
            objective, posed[rule.split], rule, row_of[rule.split] + first, G * len(kinds), meter
        )
        if tangent is None:
            return None
        known.append(tangent)
    gain_MGC = _merge_groups(np.stack([gain for gain, _, _ in known]))
    constant_M, threshold_M = np.array([rest for _, *rest in known]).T
    if gain_MGC.size > SETTINGS.largest_program:
        raise BeyondBudget(
            f"its linear program would hold {gain_MGC.size:,} numbers, and {SETTINGS.largest_program:,} are allowed"
        )
    proof = solve_least_violation_on_simplices(gain_MGC, threshold_M - constant_M)
    if proof is None:
        return None
    y_M, least = proof.weights_C, proof.least_violation
    asked = float(y_M @ threshold_M)
    predicted_G = (gain_MGC[[_counts_argmax(rule) for rule in rules]] != 0).any((0, -1))
    boundary = _boundary(y_M, gain_MGC[:, ~predicted_G], least)
    weights_M = np.zeros(len(constraints))
    weights_M[numbers] = y_M
    return FeasibilityBound(least, weights_M, asked - least, asked, tuple(numbers[m] for m in boundary))


def _require_split(source: ExampleSource) -> Split:
    """Refuse data that are read as they are needed: equal inputs are found among all of them at once."""
    if not isinstance(source, Split):
        raise BeyondBudget(f"it needs the examples of '{source.name}' in memory")
    return source


def _boundary(y_M: Floats, gain_MGC: Floats, least: float) -> tuple[int, ...]:
    """Return which constraints meet their threshold only where some probability is zero; G: distributions alone.

    With nothing to spare, every distribution that meets them puts all its mass where the weighted gain is largest.
    """
    value_GC = np.tensordot(y_M, gain_MGC, 1)
    spread_G = value_GC.max(-1) - value_GC.min(-1)
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
        named = name_inputs(split.inputs)
        kinds = [f"{what}{value.dtype}{tuple(value.shape[1:])}" for what, value in named.items()]
        head = hashlib.blake2b("".join(kinds).encode(), digest_size=32).digest()
        flat = [(value.detach().cpu().contiguous() + 0).reshape(len(split), -1) for value in named.values()]
        bytes_N = np.concatenate([part.view(torch.uint8).numpy() for part in flat], axis=1)
        row = [
            group_of.setdefault(hashlib.blake2b(line.tobytes(), key=head).digest(), len(group_of)) for line in bytes_N
        ]
        position = torch.arange(split.labels[0].numel()).reshape(split.labels.shape[1:])
        row_of[name] = torch.tensor(row).reshape(-1, *[1] * position.ndim) * positions + position
    return row_of, len(group_of) * positions


def _measure_tangent(
    objective: LogitSource, split: Split, rule: SafetyConstraint, row_B: Tensor, rows: int, meter: EvidenceMeter
) -> tuple[Floats, float, float] | None:
    """Return a bound of the safety, linear in distributions: gains (rows, V), a constant, and the threshold.

    None where the bound turns out not to hold.
    """
    gain_GV: Tensor | None = None
    constant, count = 0.0, 0
    for batch in split.batches(meter.most_rows(objective, split)):
        meter.require_time()
        covered = rule.covers(batch)
        if not bool(covered.any()):
            continue
        with evaluation_mode(objective.student), torch.no_grad():
            p_BV = torch.softmax(objective.logits(batch)[covered].double(), -1)
        bound = _tangent_planes(rule, p_BV, batch.labels[covered])
        if bound is None:
            return None
        gradient_BV, constant_B = bound
        if gain_GV is None:
            gain_GV = torch.zeros(rows, p_BV.shape[-1], dtype=torch.float64)
        assert batch.place is not None  # the split is in memory
        gain_GV.index_add_(0, row_B[batch.place.cpu()][covered.cpu()], gradient_BV.cpu())
        constant, count = constant + float(constant_B.sum()), count + len(constant_B)
    if gain_GV is None:
        return None
    return (gain_GV / count).numpy(), constant / count, float(attainable_threshold(rule, torch.tensor(count)))


def _tangent_planes(rule: SafetyConstraint, p_BV: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return gradients (B, V) and constants (B,) with  f(p, y) <= constant + gradient . p  on the simplex, or None."""
    if _counts_argmax(rule):  # 1 where the predicted class is the label
        right_BV = torch.zeros_like(p_BV).scatter(-1, labels_B.unsqueeze(-1), 1.0)
        return right_BV, p_BV.new_zeros(len(p_BV))
    p_BV = p_BV.clamp_min(_CORNER).requires_grad_()
    with torch.enable_grad():
        value_B = rule.measure.measured(p_BV.log(), labels_B)
        (gradient_BV,) = (
            torch.autograd.grad(value_B.sum(), p_BV) if value_B.requires_grad else (torch.zeros_like(p_BV),)
        )
    constant_B = (value_B - (gradient_BV * p_BV).sum(-1)).detach()
    # a measure that calls itself concave and is not shows it at a corner: there its tangent lies below it
    return (gradient_BV, constant_B) if _lies_above(rule, gradient_BV, constant_B, labels_B) else None


def _lies_above(rule: SafetyConstraint, gradient_BV: Tensor, constant_B: Tensor, labels_B: Tensor) -> bool:
    """Say whether tangents lie above the measure at corners of the simplex: at all of them, if they are few."""
    V, most = gradient_BV.shape[-1], SETTINGS.most_corners
    corners = torch.arange(V, device=labels_B.device)
    if most < V:
        firsts = {int(label): b for b, label in reversed(list(enumerate(labels_B.tolist())))}
        some = torch.tensor(sorted(firsts.values())[: SETTINGS.most_labels], device=labels_B.device)
        gradient_BV, constant_B, labels_B = gradient_BV[some], constant_B[some], labels_B[some]
        steepest = [gradient_BV.amax(0).topk(most // 4).indices, (-gradient_BV.amin(0)).topk(most // 4).indices]
        corners = torch.cat([labels_B, *steepest])
    for corner in set(corners.tolist()):
        inside_V = gradient_BV.new_full((V,), _CORNER)
        inside_V[corner] += 1 - V * _CORNER
        value_B = rule.measure.measured(inside_V.log().expand_as(gradient_BV), labels_B)
        if not bool((constant_B + gradient_BV @ inside_V - value_B >= -_EXACT).all()):
            return False
    return True


def _merge_groups(gain_MGV: Floats) -> Floats:
    """Return fewer groups, of fewer classes, with the same maxima of every weighted sum.

    Groups that only one constraint reads take their maxima apart from all others, so their largest gains add up, and
    their least; groups with the same gains count as many times as they occur, classes with the same gains once.
    """
    read_MG = (gain_MGV != 0).any(-1)
    readers_G = read_MG.sum(0)
    alone_MM2 = np.zeros((len(gain_MGV), len(gain_MGV), 2))
    for m, row_GV in enumerate(gain_MGV):
        here_GV = row_GV[read_MG[m] & (readers_G == 1)]
        alone_MM2[m, m] = here_GV.max(-1).sum(), here_GV.min(-1).sum()
    shared_GMV = gain_MGV[:, readers_G > 1].transpose(1, 0, 2)
    if not len(shared_GMV):
        return alone_MM2
    flat, count = np.unique(shared_GMV.reshape(len(shared_GMV), -1), axis=0, return_counts=True)
    distinct = [np.unique(gain_MV, axis=1) for gain_MV in flat.reshape(-1, *shared_GMV.shape[1:])]
    classes = max(2, *(gain_MC.shape[1] for gain_MC in distinct))
    padded = [np.pad(gain_MC, ((0, 0), (0, classes - gain_MC.shape[1])), mode="edge") for gain_MC in distinct]
    shared_GMC = np.stack(padded) * count[:, None, None]
    alone_MMC = np.pad(alone_MM2, ((0, 0), (0, 0), (0, classes - 2)), mode="edge")
    return np.concatenate([alone_MMC, shared_GMC.transpose(1, 0, 2)], 1)
