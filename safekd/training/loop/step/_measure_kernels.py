"""Loss and averages of measures of a small batch, and their gradient, each in one pass.

In a small batch most of a step is the bookkeeping of its operations, not their arithmetic.  With the probabilities p =
softmax(z), the shares s of the loss, measures f_k(p, y), and who is covered by constraint m, A_m, which reads f_k(m),

    loss = (sum s log p - entropy) / positions      total_m = sum of A_m f_k(m)      g_m = required_m - each_m total_m

A measure whose derivative in p is a has the gradient ``p (a - p . a)`` in z, and the loss ``s - p sum(s)``.  Whether
the truth is among the first k is counted, and followed by ``safekd.safety.TopK``'s surrogate.  All of it is float64.
Axes: B batch, V classes, M constraints, K measures, L all positions of the batch in one row, R those of the split, X
columns of a table: V shares, M truth values, the entropy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from solvers.lagrangian import Floats
from solvers.projection.exact.cpu_kernels import cpu_kernel

Places = npt.NDArray[np.int64]
TRUTH, MARGIN, BRIER, UNSAFE, CALIBRATION, AMONG_FIRST = range(6)  # measures, by what stands in ``read_measures``


@cpu_kernel
def _follow_rank(
    logits_V: Floats, y: int, first: int, sharpness: float, log_total: float, gradient_V: Floats
) -> tuple[float, float]:
    """Return the surrogate of ``safekd.safety.TopK`` and whether the truth is among the first, and write a gradient.

    Args:
        logits_V: Of one position.
        y: The truth.
        first: How many classes are the first.
        sharpness: s.
        log_total: Of the logits' exponentials: below -1e4 a log-probability counts as that, and has no gradient.
        gradient_V: Takes the gradient in the logits, and marks on the way who is among the ``first - 1`` others.
    """
    V, ahead = len(logits_V), 0
    for v in range(V):
        gradient_V[v] = 0.0
        if logits_V[v] > logits_V[y] or (logits_V[v] == logits_V[y] and v < y):
            ahead += 1
    for _ in range(first - 1):
        best = -1
        for v in range(V):
            if v != y and gradient_V[v] == 0.0 and (best < 0 or logits_V[v] > logits_V[best]):
                best = v
        gradient_V[best] = 1.0
    most = -np.inf
    for v in range(V):
        if v != y and gradient_V[v] == 0.0:
            most = max(most, max(logits_V[v] - log_total, -1e4))
    total = 0.0
    for v in range(V):
        if v != y and gradient_V[v] == 0.0:
            total += np.exp(sharpness * (max(logits_V[v] - log_total, -1e4) - most))
    odds = sharpness * (max(logits_V[y] - log_total, -1e4) - most) - np.log(total)
    bits = (np.log1p(np.exp(-abs(odds))) + max(-odds, 0.0)) / np.log(2.0)
    value = 1.0 / (1.0 + bits)
    by_odds = value * value / np.log(2.0) * (1.0 / (1.0 + np.exp(min(odds, 700.0))))
    lost = 0.0  # gradient in log-probabilities, summed: what it is in the logits besides
    for v in range(V):
        log_p = logits_V[v] - log_total
        share = 0.0
        if v == y:
            share = 1.0
        elif gradient_V[v] == 0.0:
            share = -np.exp(sharpness * (max(log_p, -1e4) - most)) / total
        gradient_V[v] = by_odds * sharpness * share if log_p >= -1e4 else 0.0
        lost += gradient_V[v]
    for v in range(V):
        gradient_V[v] -= np.exp(logits_V[v] - log_total) * lost
    return value, 1.0 if ahead < first else 0.0


@cpu_kernel
def _follow_probabilities(p_V: Floats, y: int, kind: int, chosen_V: Floats, gradient_V: Floats) -> float:
    """Return a measure that is a polynomial of the probabilities; its gradient in the logits goes to ``gradient_V``."""
    value, rest, ties = 0.0, -1.0, 0.0
    if kind == MARGIN:
        for v in range(len(p_V)):
            if v != y and p_V[v] > rest:
                rest, ties = p_V[v], 1.0
            elif v != y and p_V[v] == rest:
                ties += 1.0
    mean = 0.0  # p . a
    for v in range(len(p_V)):
        p, is_truth = p_V[v], 1.0 if v == y else 0.0
        if kind == TRUTH:
            a, part = is_truth, is_truth * p
        elif kind == MARGIN:
            leads = 1.0 / ties if v != y and p == rest else 0.0
            a, part = (is_truth - leads) / 2, (is_truth - leads) / 2 * p
        elif kind == BRIER:
            a, part = is_truth - p, -((p - is_truth) ** 2) / 2
        elif kind == UNSAFE:
            a, part = -chosen_V[v], -chosen_V[v] * p
        else:
            a, part = chosen_V[v] / 2, chosen_V[v] * (p - is_truth) / 2
        gradient_V[v] = a
        mean += p * a
        value += part
    if kind in (BRIER, UNSAFE):
        value += 1.0
    elif kind != TRUTH:
        value += 0.5
    for v in range(len(p_V)):
        gradient_V[v] = p_V[v] * (gradient_V[v] - mean)
    return value


@cpu_kernel
def read_measures(
    logits_LV: Floats,
    row_L: Places,
    truth_L: Places,
    table_RX: Floats,
    kind_K: Places,
    chosen_KV: Floats,
    first_K2: Floats,
    measure_M: Places,
    p_LV: Floats,
    gradient_LKV: Floats,
    sum_X: Floats,
) -> float:
    """Return the sum of shares times log-probabilities, less the entropy; NaN where a row of logits says nothing.

    Args:
        logits_LV: The student's.
        row_L: Rows of the table.
        truth_L: Class numbers.
        table_RX: Of the whole split.
        kind_K: What each measure is.
        chosen_KV: 1 at the classes that a measure names: the unsafe ones, or the one that is calibrated.
        first_K2: How many classes are the first, and the sharpness, of measures that count.
        measure_M: Which measure each constraint reads.
        p_LV: Takes the probabilities.
        gradient_LKV: Takes the gradient of each measure in the logits.
        sum_X: Takes the total of each constraint, how many positions it covers, and the total as measured, (3 M,).
    """
    L, V = logits_LV.shape
    K, M = len(kind_K), len(measure_M)
    value_K, counted_K = np.zeros(K), np.zeros(K)
    sum_X[:] = 0.0
    loss = 0.0
    for i in range(L):
        row, y, largest = row_L[i], truth_L[i], -np.inf
        for v in range(V):
            if not logits_LV[i, v] <= largest:  # NaN too
                largest = np.float64(logits_LV[i, v])
        total = 0.0
        for v in range(V):
            p_LV[i, v] = np.exp(logits_LV[i, v] - largest)
            total += p_LV[i, v]
        log_total = np.log(total)
        for v in range(V):
            p_LV[i, v] /= total
            if table_RX[row, v] != 0.0:  # 0 log 0 = 0
                loss += table_RX[row, v] * (logits_LV[i, v] - largest - log_total)
        loss -= table_RX[row, V + M]
        for k in range(K):
            if kind_K[k] == AMONG_FIRST:
                value_K[k], counted_K[k] = _follow_rank(
                    logits_LV[i], y, int(first_K2[k, 0]), first_K2[k, 1], largest + log_total, gradient_LKV[i, k]
                )
                continue
            value_K[k] = _follow_probabilities(p_LV[i], y, kind_K[k], chosen_KV[k], gradient_LKV[i, k])
            counted_K[k] = value_K[k]
        for m in range(M):
            sum_X[m] += table_RX[row, V + m] * value_K[measure_M[m]]
            sum_X[M + m] += table_RX[row, V + m]
            sum_X[2 * M + m] += table_RX[row, V + m] * counted_K[measure_M[m]]
    return loss


@cpu_kernel
def differentiate_measures(
    p_LV: Floats,
    gradient_LKV: Floats,
    row_L: Places,
    table_RX: Floats,
    measure_M: Places,
    by_loss: float,
    by_total_M: Floats,
    gradient_LV: Floats,
) -> None:
    """Write the gradient in the logits.

    Args:
        p_LV: Probabilities.
        gradient_LKV: Of ``read_measures``.
        row_L: Rows of the table.
        table_RX: Of the whole split.
        measure_M: Which measure each constraint reads.
        by_loss: Gradient in what ``read_measures`` returns.
        by_total_M: Gradient in the totals.
        gradient_LV: Takes it.
    """
    L, V = p_LV.shape
    K = gradient_LKV.shape[1]
    by_value_K = np.zeros(K)
    for i in range(L):
        row, total = row_L[i], 0.0
        by_value_K[:] = 0.0
        for m in range(len(by_total_M)):
            by_value_K[measure_M[m]] += by_total_M[m] * table_RX[row, V + m]
        for v in range(V):
            total += by_loss * table_RX[row, v]
        for v in range(V):
            by_z = by_loss * table_RX[row, v] - p_LV[i, v] * total
            for k in range(K):
                by_z += by_value_K[k] * gradient_LKV[i, k, v]
            gradient_LV[i, v] = by_z
