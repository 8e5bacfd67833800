"""What is left of a scheme's promise once its weights conform.  Axes: K gradients, n parameters."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor

from solvers.polytope import WeightPolytope
from solvers.projection import project

from ...errors import InvalidInput
from ._scheme_rule import Weighting, weigh_gramian

_STEPS = 2000  # of the projected descent below; it ends earlier once nothing moves
_STILL = 1e-12


def compare_gradient_schemes(
    jacobian: Tensor, schemes: Mapping[str, Weighting], polytope: WeightPolytope
) -> pd.DataFrame:
    """Tell what each scheme's direction does for every loss, as it is and with its weights made conforming.

    The direction of weights w is ``d = sum_k w_k g_k``; a step against it lowers loss k to first order where
    ``<g_k, d> > 0``.

    Args:
        jacobian: One gradient a teacher or task, (K, n).
        schemes: By name, from a Gramian (K, K) to weights (K,): those of torchjd, or any function like them.
        polytope: What weights are to conform to; K teachers.

    Returns:
        A row for each scheme as it is and made conforming, and one for ``find_conforming_descent``.  Columns: scheme,
        conforming, weights (sum 1), least (smallest <g_k, d> / |d|, negative where a loss rises), norm (of d),
        moved (Euclidean distance that the projection moved the weights).

    Raises:
        InvalidInput: Shapes do not fit, or a scheme gives no weights.
    """
    j_Kn = jacobian.detach().double()
    if j_Kn.ndim != 2 or len(j_Kn) != polytope.n_teachers or not bool(torch.isfinite(j_Kn).all()):
        raise InvalidInput(
            f"`jacobian` has shape {tuple(jacobian.shape)}; wanted finite gradients, ({polytope.n_teachers}, n), one a "
            "teacher of the polytope."
        )
    gram_KK = j_Kn @ j_Kn.T
    rows = []
    for name, weighting in schemes.items():
        w_K = weigh_gramian(weighting, gram_KK).clamp_min(0)
        w_K = w_K / w_K.sum() if float(w_K.sum()) > 0 else torch.full_like(w_K, 1 / len(w_K))
        own_K = project(w_K, polytope)
        rows += [_describe_scheme(name, False, w_K, gram_KK, 0.0)]
        rows += [_describe_scheme(name, True, own_K, gram_KK, float((own_K - w_K).norm()))]
    best_K = find_conforming_descent(j_Kn, polytope)
    return pd.DataFrame([*rows, _describe_scheme("shortest conforming direction", True, best_K, gram_KK, 0.0)])


def find_conforming_descent(jacobian: Tensor, polytope: WeightPolytope) -> Tensor:
    """Return the conforming weights whose direction is shortest, ``argmin over the polytope of |sum_k w_k g_k|``.

    Its direction d lowers the loss of every conforming weighting: ``<sum_k v_k g_k, d> >= |d|^2`` for each v in the
    polytope (the variational inequality of a projection).  MGDA promises the same of the whole simplex, so of each
    single teacher, but its weights need not conform.

    Args:
        jacobian: One gradient a teacher, (K, n).
        polytope: What weights are to conform to.

    Returns:
        Weights, (K,), float64.

    Source: Desideri 2012, restricted to the polytope.

    >>> P = WeightPolytope(n_teachers=2, lower=0.3, upper=0.7)
    >>> find_conforming_descent(torch.tensor([[1.0, 0.0], [0.0, 4.0]]), P)
    tensor([0.7000, 0.3000], dtype=torch.float64)
    """
    j_Kn = jacobian.detach().double()
    gram_KK = j_Kn @ j_Kn.T
    length = 1 / max(float(torch.linalg.eigvalsh(gram_KK)[-1]), torch.finfo(torch.float64).tiny)
    w_K = project(torch.full((len(gram_KK),), 1 / len(gram_KK), dtype=torch.float64), polytope)
    ahead_K, momentum = w_K, 1.0
    for _ in range(_STEPS):  # accelerated projected gradient, Beck and Teboulle 2009
        moved_K = project(ahead_K - length * (gram_KK @ ahead_K), polytope)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        still = float((moved_K - w_K).abs().max()) <= _STILL and float((moved_K - ahead_K).abs().max()) <= _STILL
        ahead_K = moved_K + (momentum - 1) / following * (moved_K - w_K)
        w_K, momentum = moved_K, following
        if still:
            break
    return w_K


def _describe_scheme(name: str, conforming: bool, w_K: Tensor, gram_KK: Tensor, moved: float) -> dict[str, object]:
    inner_K, norm = gram_KK @ w_K, float((w_K @ gram_KK @ w_K).clamp_min(0).sqrt())
    least = float(inner_K.min()) / max(norm, torch.finfo(torch.float64).tiny)
    return {
        "scheme": name,
        "conforming": conforming,
        "weights": tuple(w_K.tolist()),
        "least": least,
        "norm": norm,
        "moved": moved,
    }
