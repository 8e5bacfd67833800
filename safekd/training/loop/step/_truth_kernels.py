"""Loss and averages of the truth's probability of a small batch, and their gradient, each in one pass.

In a small batch most of a step is the bookkeeping of its operations, not their arithmetic.  With the log-probabilities
l = log_softmax(z), the shares s of the loss, the truth y and who is covered by constraint m, A_m,

    loss = (sum s l - entropy) / positions      total_m = sum of A_m exp(l_y)      g_m = required_m - each_m total_m

have the gradient ``G - softmax(z) sum(G)`` in z, G being what they have in l.  All of it is float64.
Axes: B batch, V classes, M constraints, L all positions of the batch in one row, R those of the split, X columns of
a table: V shares, M truth values, the entropy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from solvers.lagrangian import Floats
from solvers.projection.exact.cpu_kernels import cpu_kernel

Places = npt.NDArray[np.int64]


@cpu_kernel
def read_truth(
    logits_LV: Floats, row_L: Places, truth_L: Places, table_RX: Floats, p_LV: Floats, sum_X: Floats
) -> float:
    """Return the sum of shares times log-probabilities, less the entropy; NaN where a row of logits says nothing.

    Args:
        logits_LV: The student's.
        row_L: Rows of the table.
        truth_L: Class numbers.
        table_RX: Of the whole split.
        p_LV: Takes the probabilities.
        sum_X: Takes the total of each constraint, then how many positions it covers, (2 M,).
    """
    L, V = logits_LV.shape
    M = table_RX.shape[1] - V - 1
    sum_X[:] = 0.0
    loss = 0.0
    for k in range(L):
        row, largest = row_L[k], -np.inf
        for v in range(V):
            if not logits_LV[k, v] <= largest:  # NaN too
                largest = np.float64(logits_LV[k, v])
        total = 0.0
        for v in range(V):
            p_LV[k, v] = np.exp(logits_LV[k, v] - largest)
            total += p_LV[k, v]
        log_total = np.log(total)
        for v in range(V):
            p_LV[k, v] /= total
            if table_RX[row, v] != 0.0:  # 0 log 0 = 0
                loss += table_RX[row, v] * (logits_LV[k, v] - largest - log_total)
        loss -= table_RX[row, V + M]
        truth = p_LV[k, truth_L[k]]
        for m in range(M):
            sum_X[m] += table_RX[row, V + m] * truth
            sum_X[M + m] += table_RX[row, V + m]
    return loss


@cpu_kernel
def differentiate_truth(
    p_LV: Floats,
    row_L: Places,
    truth_L: Places,
    table_RX: Floats,
    by_loss: float,
    by_total_M: Floats,
    gradient_LV: Floats,
) -> None:
    """Write the gradient in the logits.

    Args:
        p_LV: Probabilities.
        row_L: Rows of the table.
        truth_L: Class numbers.
        table_RX: Of the whole split.
        by_loss: Gradient in what ``read_truth`` returns.
        by_total_M: Gradient in the totals.
        gradient_LV: Takes it.
    """
    L, V = p_LV.shape
    for k in range(L):
        row, truth, by_truth = row_L[k], truth_L[k], 0.0
        for m in range(len(by_total_M)):
            by_truth += by_total_M[m] * table_RX[row, V + m]
        by_truth *= p_LV[k, truth]
        total = by_truth
        for v in range(V):
            total += by_loss * table_RX[row, v]
        for v in range(V):
            gradient_LV[k, v] = by_loss * table_RX[row, v] - p_LV[k, v] * total
        gradient_LV[k, truth] += by_truth
