"""What a batch needs of its examples, looked up: who is covered by which constraint, and the targets.

Axes: N examples, B batch, ... positions, V classes, M constraints, K measures, L all positions of a batch in one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from solvers.lagrangian import Floats

from ...._precision import log_softmax
from ....data import Batch, Split
from ....divergences import ForwardKL
from ....safety import (
    Calibration,
    Margin,
    OneMinusBrier,
    Recall,
    SafetyConstraint,
    SafetyMeasure,
    TopK,
    TruthProbability,
    UnsafeMass,
)
from ..._objective import CHUNK, Objective
from . import _measure_kernels as kernels


@dataclass(frozen=True)
class BatchTableSettings:
    """Where a table of targets pays.

    Attributes:
        most_numbers: Logits of a batch up to which its operations cost more than their arithmetic
            (``python -m benchmarks.primal_dual --families overhead``).
        most_bytes: Of the table.
    """

    most_numbers: int = 2**14
    most_bytes: int = 2**26


SETTINGS = BatchTableSettings()
_KERNELS = {
    TruthProbability: kernels.TRUTH,
    Margin: kernels.MARGIN,
    OneMinusBrier: kernels.BRIER,
    UnsafeMass: kernels.UNSAFE,
    Calibration: kernels.CALIBRATION,
    Recall: kernels.AMONG_FIRST,
    TopK: kernels.AMONG_FIRST,
}


class BatchAverages:
    """``g = required - mean of the measure over the covered examples`` of all constraints, from part of a split.

    Args:
        rules: On averages over examples of the split.
        train: The split.
    """

    def __init__(self, rules: Sequence[SafetyConstraint], train: Split) -> None:
        measures: dict[tuple[object, ...], SafetyMeasure] = {}
        number_M = []
        for rule in rules:
            ((_, average),) = rule.parts
            measure = average.measure
            settings = [name for name in measure.class_settings if name != "critical"]
            settings += ["k", "sharpness"] if isinstance(measure, TopK) else []
            key = (type(measure), *(getattr(measure, name) for name in settings))
            measures.setdefault(key, measure)  # where it is read is known without it
            number_M.append([*measures].index(key))
        self.measures = [*measures.values()]
        inside = [find_covered(rule, train) for rule in rules]
        none_NM = torch.zeros(*train.labels.shape, 0, dtype=torch.float64, device=train.device)
        self.inside_NM = torch.stack(inside, -1) if inside else none_NM
        count_M = self.inside_NM.flatten(0, -2).sum(0)
        self.number_M = torch.tensor([number_M], device=count_M.device)
        self.required_M = count_M.new_tensor([rule.required for rule in rules])
        self.each_M = len(train) / count_M
        self.have_kernels = all(type(measure) in _KERNELS for measure in self.measures)

    def read(self, log_p_V: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return g of the surrogates, g as measured, and which constraints the batch says anything of, (M,) each.

        Args:
            log_p_V: The student's, (B, ..., V).
            batch: The examples.
        """
        values = [measure.surrogate_everywhere(log_p_V, batch.labels).reshape(-1) for measure in self.measures]
        inside_LM = self.inside_NM[batch.place].reshape(-1, len(self.each_M))
        total_KM = torch.stack(values).double() @ inside_LM
        total_M = total_KM.gather(0, self.number_M).squeeze(0)
        surrogate_M = torch.addcmul(self.required_M, total_M, self.each_M, value=-1 / len(batch))
        here_M, measured_M = inside_LM.sum(0), total_M.detach()
        if any(measure.binary for measure in self.measures):
            with torch.no_grad():
                counted = [
                    measure.measured_everywhere(log_p_V, batch.labels).reshape(-1) if measure.binary else value
                    for measure, value in zip(self.measures, values, strict=True)
                ]
                measured_M = (torch.stack(counted).double() @ inside_LM).gather(0, self.number_M).squeeze(0)
        return surrogate_M, self.required_M - measured_M / here_M.clamp_min(1), here_M > 0


class BatchReading(NamedTuple):
    """What a table says of a batch; float64.

    Attributes:
        loss: A scalar.
        g_M: Of the surrogates.
        measured_M: The same as measured.
        present_M: Which constraints the batch says anything of.
        p_LV: The student's probabilities.
        gradient_LKV: Gradients of the measures in the logits.
        row_L: Rows of the table.
    """

    loss: Tensor
    g_M: Tensor
    measured_M: Tensor
    present_M: Tensor
    p_LV: Floats
    gradient_LKV: Floats
    row_L: Any


class BatchTable:
    """Targets and coverage of a split whose batches are small, one row a position: shares | covered | entropy.

    A step on such a batch goes by the gradients of ``_measure_kernels`` instead of a graph.

    Args:
        table_RX: The rows, float64, (R, V + M + 1).
        averages: Of the constraints.
        each: Positions of an example.
    """

    def __init__(self, table_RX: Tensor, averages: BatchAverages, each: int) -> None:
        self._table_RX, self._position_P = table_RX.numpy(), np.arange(each)
        self._required_M, self._each_M = averages.required_M.numpy(), averages.each_M.numpy()
        self._measure_M = averages.number_M.reshape(-1).numpy().astype(np.int64)
        self._kind_K = np.array([_KERNELS[type(measure)] for measure in averages.measures], dtype=np.int64)
        self._chosen_KV = np.zeros((len(self._kind_K), table_RX.shape[-1] - len(self._each_M) - 1))
        for chosen_V, measure in zip(self._chosen_KV, averages.measures, strict=True):
            chosen_V[_list_named(measure)] = 1.0
        first = [(m.k, m.sharpness) if isinstance(m, TopK) else (0, 0.0) for m in averages.measures]
        self._first_K2 = np.array(first, dtype=np.float64).reshape(-1, 2)

    @classmethod
    @torch.no_grad()
    def fill(
        cls, objective: Objective, divergence: ForwardKL, averages: BatchAverages, train: Split, logits_V: Tensor
    ) -> BatchTable | None:
        """Return the table of a split whose targets are in memory, where it fits; None elsewhere.

        Args:
            objective: Holds the targets.
            divergence: The objective's.
            averages: Of the constraints.
            train: The split.
            logits_V: The student's for a batch, (B, ..., V).
        """
        V, M, R = logits_V.shape[-1], len(averages.each_M), train.labels.numel()
        small = logits_V.numel() <= SETTINGS.most_numbers and SETTINGS.most_bytes >= 8 * R * (V + M + 1)
        fits = averages.have_kernels and divergence.temperature == 1 and logits_V.is_cpu
        if not (small and fits and objective.holds_targets(train)):
            return None
        example = train.batch(torch.arange(min(1, len(train))))
        for measure in averages.measures:  # which refuses classes that the student does not have
            measure.surrogate_everywhere(log_softmax(torch.zeros(*example.labels.shape, V)), example.labels)
        rows = []
        for batch in train.batches(CHUNK):
            q_V = divergence.soften(objective.target(train, batch, logits_V).double())
            entropy = torch.special.entr(q_V).sum(-1, keepdim=True)
            parts = batch.fill_uncounted(torch.cat([divergence.shares(q_V, 1), entropy], -1), 0.0)
            rows.append(torch.cat([parts[..., :-1], averages.inside_NM[batch.place], parts[..., -1:]], -1))
        return cls(torch.cat(rows).reshape(R, -1), averages, R // len(train))

    def read(self, logits_V: Tensor, batch: Batch) -> BatchReading:
        """Return loss and constraints of a batch.

        Args:
            logits_V: The student's, (B, ..., V).
            batch: The examples.
        """
        V, M, place = logits_V.shape[-1], len(self._each_M), batch.place
        assert place is not None
        row_L = place.numpy()
        if len(self._position_P) > 1:
            row_L = (row_L[:, None] * len(self._position_P) + self._position_P).reshape(-1)
        logits_LV = logits_V.detach().numpy().reshape(-1, V)
        p_LV, sum_X, truth_L = np.empty(logits_LV.shape), np.empty(3 * M), batch.labels.numpy().reshape(-1)
        gradient_LKV = np.empty((len(p_LV), len(self._kind_K), V))
        total = kernels.read_measures(
            logits_LV,
            row_L,
            truth_L,
            self._table_RX,
            self._kind_K,
            self._chosen_KV,
            self._first_K2,
            self._measure_M,
            p_LV,
            gradient_LKV,
            sum_X,
        )
        loss = total / max(batch.positions, 1)
        total_M, here_M, counted_M = sum_X[:M], sum_X[M : 2 * M], sum_X[2 * M :]
        g_M = self._required_M - total_M * self._each_M * (1.0 / len(place))
        measured_M = self._required_M - counted_M / np.maximum(here_M, 1.0)
        return BatchReading(
            torch.tensor(loss, dtype=torch.float64),
            torch.from_numpy(g_M),
            torch.from_numpy(measured_M),
            torch.from_numpy(here_M > 0),
            p_LV,
            gradient_LKV,
            row_L,
        )

    def differentiate(self, read: BatchReading, weight_M: Tensor, batch: Batch, logits_V: Tensor) -> Tensor:
        """Return the gradient of ``loss + weight . g`` in the logits.

        Args:
            read: What ``read`` gave.
            weight_M: Of the constraints.
            batch: The examples.
            logits_V: The student's.
        """
        gradient_V = torch.empty_like(logits_V, memory_format=torch.contiguous_format)
        by_total_M = weight_M.numpy() * self._each_M * (-1.0 / len(batch))
        by_loss = 1.0 / max(batch.positions, 1)
        out_LV = gradient_V.numpy().reshape(read.p_LV.shape)
        kernels.differentiate_measures(
            read.p_LV, read.gradient_LKV, read.row_L, self._table_RX, self._measure_M, by_loss, by_total_M, out_LV
        )
        return gradient_V


def _list_named(measure: SafetyMeasure) -> list[int]:
    """Return the classes that a measure names besides the critical ones."""
    if isinstance(measure, Calibration):
        return [int(measure.of)]
    return list(measure.columns or ())


def find_covered(rule: SafetyConstraint, train: Split) -> Tensor:
    """Return which positions of a split a constraint covers, as float64, (N, ...).

    Args:
        rule: The constraint.
        train: The split.
    """
    return torch.cat([rule.covers(batch) for batch in train.batches(CHUNK)]).double()
