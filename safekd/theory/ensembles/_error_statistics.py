"""Errors of teachers, and what they make of a linear pool.  Axes: N positions, K teachers, V classes.

The error of a teacher at a position is ``e_k = p_k - y``, a vector over classes, with y the label or a distribution
that is known.  Its bias is the mean error, its covariance with another teacher's error is summed over classes:

    b_k = E e_k        Sigma_kj = E (e_k - b_k).(e_j - b_j)        E |e_k|^2 = Sigma_kk + |b_k|^2, the Brier score

so a linear pool of weights w has bias ``sum_k w_k b_k`` and variance ``w' Sigma w``, whatever the distributions are.
Labels bring noise of their own, which all teachers share: it is in every entry of Sigma, and makes teachers look more
alike than they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr
from solvers.simplex_qp import minimize_quadratic

from ...errors import InvalidInput


@dataclass(frozen=True, repr=False)
class ErrorStatistics(ShortRepr):
    """Bias and covariance of the teachers' errors.

    Attributes:
        bias_KV: Mean error of each teacher, (K, V).
        covariance_KK: Covariance of the errors about their means, summed over classes, (K, K).
        positions: Over how many positions.
    """

    bias_KV: Tensor
    covariance_KK: Tensor
    positions: int

    def compute_correlation(self) -> Tensor:
        """Return covariances over standard deviations, (K, K); 0 beside a teacher whose error is constant."""
        deviation_K = self.covariance_KK.diagonal().clamp_min(0).sqrt()
        product_KK = deviation_K[:, None] * deviation_K
        ratio_KK = torch.where(product_KK > 0, self.covariance_KK / product_KK, 0.0)
        return ratio_KK.fill_diagonal_(1.0)

    def predict_variance(self, w_K: Tensor, *, independent: bool = False) -> float:
        """Return the variance of a linear pool, ``w' Sigma w``.

        Args:
            w_K: Weights, (K,).
            independent: Whether to leave out covariances, as if errors had nothing to do with each other.

        Raises:
            InvalidInput: There are not K weights.
        """
        w_K = self._read_weights(w_K)
        if independent:
            return float(w_K.square() @ self.covariance_KK.diagonal())
        return max(float(w_K @ self.covariance_KK @ w_K), 0.0)

    def count_effective(self, w_K: Tensor) -> float:
        """Return as how many independent teachers they count: mean variance over the variance of the pool.

        K where K alike teachers are independent, 1 where all make the same errors, less where the weights are on those
        that vary most, more than K where errors offset each other.

        Args:
            w_K: Weights, (K,).

        Raises:
            InvalidInput: There are not K weights.
        """
        w_K = self._read_weights(w_K)
        of_one, of_pool = float(w_K @ self.covariance_KK.diagonal()), self.predict_variance(w_K)
        if of_one <= 0:
            return 1 / float(w_K.square().sum())  # nothing varies
        return of_one / of_pool if of_pool > 0 else float("inf")

    def attenuate_bias(self, w_K: Tensor) -> float:
        """Return the size of the pool's bias over the mean size of the teachers', at most 1; 1 where none has a bias.

        Args:
            w_K: Weights, (K,).

        Raises:
            InvalidInput: There are not K weights.
        """
        w_K = self._read_weights(w_K)
        of_teachers = float(w_K @ self.bias_KV.norm(dim=-1))
        return min(float((w_K @ self.bias_KV).norm()) / of_teachers, 1.0) if of_teachers > 0 else 1.0

    def average_brier(self, w_K: Tensor) -> float:
        """Return the weighted mean of the teachers' Brier scores.

        Args:
            w_K: Weights, (K,).

        Raises:
            InvalidInput: There are not K weights.
        """
        w_K = self._read_weights(w_K)
        return float(w_K @ (self.covariance_KK.diagonal() + self.bias_KV.square().sum(-1)))

    def measure_ambiguity(self, w_K: Tensor) -> float:
        """Return how far teachers are from their linear pool, ``E sum_k w_k |p_k - q|^2``.

        It is exactly what their mean Brier score is above the pool's (Krogh and Vedelsby 1995).

        Args:
            w_K: Weights, (K,).

        Raises:
            InvalidInput: There are not K weights.
        """
        w_K = self._read_weights(w_K)
        pooled = self.predict_variance(w_K) + float((w_K @ self.bias_KV).square().sum())
        return max(self.average_brier(w_K) - pooled, 0.0)

    def minimize_error(self) -> Tensor:
        """Return the weights of the linear pool with the least Brier score on these positions, (K,).

        They are chosen on the data that they are judged by: confirm them on others.
        """
        error_KK = self.covariance_KK + self.bias_KV @ self.bias_KV.T
        return minimize_quadratic(error_KK[None], torch.zeros(1, len(error_KK), dtype=torch.float64))[0]

    def _read_weights(self, w_K: Tensor) -> Tensor:
        w_K = torch.as_tensor(w_K, dtype=torch.float64)
        if w_K.shape != (len(self.covariance_KK),):
            raise InvalidInput(
                f"`w_K` has shape {tuple(w_K.shape)}; wanted one weight a teacher, ({len(self.covariance_KK)},)."
            )
        return w_K


class ErrorSums:
    """Adds up errors some positions at a time; nothing of them is kept.

    Args:
        teachers: K, pools among them.
        classes: V.
    """

    def __init__(self, teachers: int, classes: int) -> None:
        self._sum_KV = torch.zeros(teachers, classes, dtype=torch.float64)
        self._product_KK = torch.zeros(teachers, teachers, dtype=torch.float64)
        self._count = 0

    def add(self, p_NKV: Tensor, target: Tensor) -> None:
        """Add some positions.

        Args:
            p_NKV: Probabilities, (N, K, V).
            target: Labels, (N,), or distributions that are known, (N, V).
        """
        error_NKV = p_NKV.detach().double()
        if target.is_floating_point():
            error_NKV = error_NKV - target.double().unsqueeze(-2)
        else:
            error_NKV = error_NKV - torch.nn.functional.one_hot(target, p_NKV.shape[-1]).unsqueeze(-2)
        self._sum_KV += error_NKV.sum(0).cpu()
        self._product_KK += torch.einsum("nkv,njv->kj", error_NKV, error_NKV).cpu()
        self._count += len(error_NKV)

    def finish(self) -> ErrorStatistics:
        """Return bias and covariance over all that was added."""
        bias_KV = self._sum_KV / self._count
        return ErrorStatistics(bias_KV, self._product_KK / self._count - bias_KV @ bias_KV.T, self._count)


def measure_errors(log_p_NKV: Tensor, target: Tensor) -> ErrorStatistics:
    """Return bias and covariance of the errors of teachers.

    Args:
        log_p_NKV: Log-probabilities, (N, K, V).
        target: Labels, (N,), or the distributions that are true, (N, V), where they are known.

    Returns:
        Their statistics, float64.

    Raises:
        InvalidInput: Shapes do not fit, or there are no positions.

    Source: covariance of an ensemble, Ueda and Nakano 1996.

    >>> log_p = torch.tensor([[[0.9, 0.1], [0.7, 0.3]], [[0.6, 0.4], [0.8, 0.2]]]).log()
    >>> errors = measure_errors(log_p, torch.tensor([0, 0]))
    >>> round(errors.predict_variance(torch.tensor([0.5, 0.5])), 4)
    0.005
    """
    fits = log_p_NKV.ndim == 3 and target.shape in (log_p_NKV.shape[:1], log_p_NKV[:, 0].shape)
    if not fits or not len(log_p_NKV):
        raise InvalidInput(
            f"`target` has shape {tuple(target.shape)} for teachers of shape {tuple(log_p_NKV.shape)}; wanted "
            "log-probabilities (N, K, V) and labels (N,), or distributions (N, V), at least one of them."
        )
    sums = ErrorSums(*log_p_NKV.shape[1:])
    sums.add(log_p_NKV.detach().double().exp(), target)
    return sums.finish()
