"""Loss and averages of measures of a small batch, and their gradient, each in one pass.

In a small batch most of a step is the bookkeeping of its operations, not their arithmetic.  With the probabilities p =
softmax(z), the shares s of the loss, measures f_k(p, y), and who is covered by constraint m, A_m, which reads f_k(m),

    loss = (sum s log p - entropy) / positions      total_m = sum of A_m f_k(m)      g_m = required_m - each_m total_m

A measure whose derivative in p is a has the gradient ``p (a - p . a)`` in z, and the loss ``s - p sum(s)``.  All of it is
float64.
Axes: B batch, V classes, M constraints, K measures, L all positions of the batch in one row, R those of the split, X
columns of a table: V shares, M truth values, the entropy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from solvers.lagrangian import Floats
from solvers.projection.exact.cpu_kernels import cpu_kernel

Places = npt.NDArray[np.int64]
TRUTH, MARGIN, BRIER, UNSAFE, CALIBRATION = range(5)  # measures, by what stands in ``read_measures``


@cpu_kernel
def read_measures(
    logits_LV: Floats,
    row_L: Places,
    truth_L: Places,
    table_RX: Floats,
    kind_K: Places,
    chosen_KV: Floats,
    measure_M: Places,
    p_LV: Floats,
    slope_LKV: Floats,
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
        measure_M: Which measure each constraint reads.
        p_LV: Takes the probabilities.
        slope_LKV: Takes the gradient of each measure in the logits.
        sum_X: Takes the total of each constraint, then how many positions it covers, (2 M,).
    """
    L, V = logits_LV.shape
    K, M = len(kind_K), len(measure_M)
    value_K = np.zeros(K)
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
            value_K[k] = 0.0
            rest, ties = -1.0, 0.0
            if kind_K[k] == MARGIN:
                for v in range(V):
                    if v != y and p_LV[i, v] > rest:
                        rest, ties = p_LV[i, v], 1.0
                    elif v != y and p_LV[i, v] == rest:
                        ties += 1.0
            mean = 0.0  # p . a
            for v in range(V):
                p, is_truth = p_LV[i, v], 1.0 if v == y else 0.0
                if kind_K[k] == TRUTH:
                    a, part = is_truth, is_truth * p
                elif kind_K[k] == MARGIN:
                    leads = 1.0 / ties if v != y and p == rest else 0.0
                    a, part = (is_truth - leads) / 2, (is_truth - leads) / 2 * p
                elif kind_K[k] == BRIER:
                    a, part = is_truth - p, -((p - is_truth) ** 2) / 2
                elif kind_K[k] == UNSAFE:
                    a, part = -chosen_KV[k, v], -chosen_KV[k, v] * p
                else:
                    a, part = chosen_KV[k, v] / 2, chosen_KV[k, v] * (p - is_truth) / 2
                slope_LKV[i, k, v] = a
                mean += p * a
                value_K[k] += part
            if kind_K[k] == BRIER or kind_K[k] == UNSAFE:
                value_K[k] += 1.0
            elif kind_K[k] != TRUTH:
                value_K[k] += 0.5
            for v in range(V):
                slope_LKV[i, k, v] = p_LV[i, v] * (slope_LKV[i, k, v] - mean)
        for m in range(M):
            sum_X[m] += table_RX[row, V + m] * value_K[measure_M[m]]
            sum_X[M + m] += table_RX[row, V + m]
    return loss


@cpu_kernel
def differentiate_measures(
    p_LV: Floats,
    slope_LKV: Floats,
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
        slope_LKV: Of ``read_measures``.
        row_L: Rows of the table.
        table_RX: Of the whole split.
        measure_M: Which measure each constraint reads.
        by_loss: Gradient in what ``read_measures`` returns.
        by_total_M: Gradient in the totals.
        gradient_LV: Takes it.
    """
    L, V = p_LV.shape
    K = slope_LKV.shape[1]
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
                by_z += by_value_K[k] * slope_LKV[i, k, v]
            gradient_LV[i, v] = by_z
