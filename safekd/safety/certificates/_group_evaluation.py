"""What a student shows on held-out examples, group by group, with the cluster and the weight of each value.

Axes: N examples, P values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..._number_checks import is_finite
from ..._torch_state import ask_module, evaluation_mode
from ...data import Batch, Split, expand_to_positions, require_class_count
from ...errors import InvalidInput
from .._safety_constraint import Constraint
from ._clustered_values import ClusteredValues


@dataclass(frozen=True)
class EvaluationSettings:
    """How much is held at once; ``tests/safekd/language/teachers/test_token_weights.py`` notices.

    Attributes:
        chunk_bytes: Log-probabilities of so many sequences, in float64; a vocabulary makes them large.
    """

    chunk_bytes: int = 2**28


SETTINGS = EvaluationSettings()
_ROUNDING = 1 + 1e-6  # of the largest weight, which may have been worked out in float32


def evaluate_groups(
    student: nn.Module,
    constraint: Constraint,
    data: Split,
    batch_size: int = 4096,
    *,
    largest_cluster: int | None = None,
    weights: Tensor | None = None,
    largest_weight: float | None = None,
) -> list[ClusteredValues]:
    """Return the measured values of each group of covered examples, all averages of the constraint one after the other.

    Args:
        student: Module from inputs (B, ...) to logits (B, ..., V); asked in eval mode.
        constraint: What is measured, and of which examples; on which split it is posed does not matter.
        data: The examples; those of one ``cluster`` belong together, and the positions of one example do.
        batch_size: How many examples the student sees at a time; fewer where they are sequences of large vocabularies.
        largest_cluster: How many examples a cluster can have at most; None where that is not known.
        weights: Importance weight of each example, (N,), see ``read_importance_weights``; None for ones.
        largest_weight: How large one can be at most; None where that is not known.

    Returns:
        Values of each group, on the CPU, in the order of the examples; those of weight 0 are left out.

    Raises:
        InvalidInput: The student gives NaN or too few classes, names of classes do not fit it, or a cluster is larger.
    """
    constraint = constraint.with_names(data.names)
    device = next((p.device for p in student.parameters()), torch.device("cpu"))
    cluster_N = torch.arange(len(data)) if data.cluster is None else data.cluster.cpu()
    averages = [average for _, average in constraint.parts]
    values: list[list[Tensor]] = [[] for average in averages for _ in range(average.size)]
    clusters: list[list[Tensor]] = [[] for _ in values]
    shares: list[list[Tensor]] = [[] for _ in values]
    weight_N = torch.ones(len(data), dtype=torch.float64) if weights is None else weights
    with evaluation_mode(student), torch.no_grad():
        for index in data.chunks(_count_rows_at_once(student, data, device, batch_size)):
            batch = data.batch(index).to(device)
            logits_V = batch.fill_uncounted(ask_module(student, batch.inputs, "The student"), 0.0)
            log_p_V = torch.log_softmax(logits_V.double(), dim=-1)
            _require_usable(log_p_V, batch, data)
            here, weight = (
                expand_to_positions(each[index.cpu()], batch.labels.shape) for each in (cluster_N, weight_N)
            )
            read_G = [value for average in averages for value in average.measured_values(log_p_V, batch)]
            inside_G = [inside for average in averages for inside in average.members(batch)]
            for group, (value, inside) in enumerate(zip(read_G, inside_G, strict=True)):
                values[group].append(value.cpu())
                clusters[group].append(here[inside.cpu()])
                shares[group].append(weight[inside.cpu()])
    groups = []
    for parts in zip(values, clusters, shares, strict=True):
        value_P, cluster_P, weight_P = map(torch.cat, parts)
        read = ClusteredValues(value_P.clamp(0, 1), cluster_P)  # exp(log_softmax) can pass 1
        read = replace(read, most=_limit_cluster(read, data, largest_cluster))
        groups.append(read if weights is None else _attach_weights(read, weight_P, largest_weight))
    return groups


def read_importance_weights(weights: Any, data: Split, largest_weight: float | None) -> Tensor:
    """Return importance weights, one an example, (N,), float64.

    Args:
        weights: Numbers of at least 0, in the order of the examples.
        data: N examples.
        largest_weight: None, or the most that one can be.

    Raises:
        InvalidInput: They are not one finite number of at least 0 an example, or one is above ``largest_weight``.
    """
    try:
        weight_N = torch.as_tensor(weights).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"`weights` is a {type(weights).__name__}; wanted one number an example.") from error
    if weight_N.shape != (len(data),):
        raise InvalidInput(
            f"`weights` has shape {tuple(weight_N.shape)}; wanted one number for each of the {len(data)} examples of "
            f"'{data.name}'."
        )
    if not bool((weight_N.isfinite() & (weight_N >= 0)).all()):
        bad = int((~(weight_N.isfinite() & (weight_N >= 0))).nonzero()[0])
        raise InvalidInput(
            f"`weights` holds {float(weight_N[bad])!r} for example {bad}; wanted finite numbers of at least 0: how "
            "much more often an example like that comes in use than in the data."
        )
    if largest_weight is not None:
        if not (is_finite(largest_weight) and largest_weight > 0):
            raise InvalidInput(f"`largest_weight` is {largest_weight!r}; wanted a finite number above 0.")
        if float(weight_N.max()) > largest_weight * _ROUNDING:
            raise InvalidInput(
                f"`largest_weight` is {float(largest_weight):g}, but an example of '{data.name}' has weight "
                f"{float(weight_N.max()):g}; wanted the most that any example can have, in these data or in others."
            )
    return weight_N


def _attach_weights(read: ClusteredValues, weight_P: Tensor, largest_weight: float | None) -> ClusteredValues:
    """Return values with their weights; those of weight 0 are no evidence of the mix in use."""
    values_each = 1.0 if read.are_independent else read.most
    most = None if values_each is None or largest_weight is None else values_each * largest_weight
    some = weight_P > 0
    return ClusteredValues(read.value_P[some], read.cluster_P[some], most, weight_P[some])


def _count_rows_at_once(student: nn.Module, data: Split, device: torch.device, most: int) -> int:
    """Return how many examples the student sees at a time: of sequences no more than fit, by the first one."""
    if data.labels.ndim == 1 or most == 1:
        return most
    first = data.batch(torch.arange(1, device=data.labels.device)).to(device)
    return max(1, min(most, SETTINGS.chunk_bytes // (8 * ask_module(student, first.inputs, "The student").numel())))


def _limit_cluster(read: ClusteredValues, data: Split, largest_cluster: int | None) -> int | None:
    """Return how many values a cluster can have, where that is known; padding is as long as the data happen to be."""
    largest, positions = read.largest_count, data.labels[0].numel()
    if largest_cluster is not None:
        if largest > largest_cluster * positions:
            raise InvalidInput(
                f"`largest_cluster` is {largest_cluster}, but a cluster of '{data.name}' has {largest} values; wanted "
                "the most examples that a cluster can have."
            )
        return largest_cluster * positions
    return positions if data.cluster is None and data.mask is None and largest == positions else None


def _require_usable(log_p_V: Tensor, batch: Batch, data: Split) -> None:
    if bool(torch.isnan(log_p_V).any()):  # an argmax would take NaN for the most probable class
        raise InvalidInput(f"The student gives values that are not finite on '{data.name}'; it cannot be certified.")
    top, known = int(batch.labels.max()), log_p_V.shape[-1]
    if top >= known:
        raise InvalidInput(f"A label of '{data.name}' is {top}, but the student knows only {known} classes.")
    require_class_count(data, known, "the student")
