"""Measures of safety as one writes them by hand in a training loop, beside the library's.

Each constraint is on the examples of one class k, and asks for the same as the library's measure by the same surrogate;
values as measured, which the library reads beside, are left out by hand.  Axes: B batch, V classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from safekd.safety import Margin, Recall, SafetyMeasure, TopK, TruthProbability, UnsafeMass

TRUTH = "truth"
_SHARPNESS, _K = 4.0, 2


def _read_truth(log_p_BV: Tensor, labels_B: Tensor) -> Tensor:
    return log_p_BV.gather(-1, labels_B.unsqueeze(-1)).squeeze(-1)


def _hide_truth(log_p_BV: Tensor, labels_B: Tensor) -> Tensor:
    return log_p_BV.masked_fill(one_hot(labels_B, log_p_BV.shape[-1]).bool(), -math.inf)


def _margin(log_p_BV: Tensor, labels_B: Tensor) -> Tensor:
    return (1 + _read_truth(log_p_BV, labels_B).exp() - _hide_truth(log_p_BV, labels_B).amax(-1).exp()) / 2


def _rate(log_p_BV: Tensor, labels_B: Tensor, k: int) -> Tensor:
    others_BV = _hide_truth(log_p_BV, labels_B)
    if k > 1:
        others_BV = others_BV.scatter(-1, others_BV.topk(k - 1, dim=-1).indices, -math.inf)
    truth = _SHARPNESS * _read_truth(log_p_BV, labels_B)
    return 1 / (1 + softplus(torch.logsumexp(_SHARPNESS * others_BV, dim=-1) - truth) / math.log(2))


BY_NAME: dict[str, tuple[Callable[[int], SafetyMeasure], Callable[[Tensor, Tensor], Tensor]]] = {
    TRUTH: (lambda k: TruthProbability(critical=[k]), lambda log_p_BV, y_B: _read_truth(log_p_BV, y_B).exp()),
    "unsafe mass": (
        lambda k: UnsafeMass([7, 8, 9], critical=[k]),
        lambda log_p_BV, y_B: 1 - log_p_BV[..., [7, 8, 9]].exp().sum(-1),
    ),
    "margin": (lambda k: Margin(critical=[k]), _margin),
    "recall": (lambda k: Recall(critical=[k]), lambda log_p_BV, y_B: _rate(log_p_BV, y_B, 1)),
    "top 2": (lambda k: TopK(_K, critical=[k]), lambda log_p_BV, y_B: _rate(log_p_BV, y_B, _K)),
}
