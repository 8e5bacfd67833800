"""What the general path needs of a polytope, worked out once and kept.

Axes: K teachers, M rules.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog

from solvers.polytope import WeightPolytope, stack_rules

from .backends._moreau_backend import MoreauModel, open_moreau

if TYPE_CHECKING:
    from .backends._cvxpy_backend import CvxpyModel

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CanonicalFormSettings:
    """How many forms are kept; a call on more polytopes than that compiles anew.

    Attributes:
        most_kept: Forms, each with a compiled cvxpy problem, about a megabyte.
    """

    most_kept: int = 128


_SETTINGS = CanonicalFormSettings()
_cache: OrderedDict[tuple[WeightPolytope, str], CanonicalForm] = OrderedDict()
_cache_lock = threading.Lock()


@dataclass(frozen=True)
class CanonicalForm:
    """A polytope as ``rows w <= bounds``, with its compiled model.

    Attributes:
        metric: "euclidean" or "kl".
        rows: Coefficients, shape (M, K).
        bounds: Right-hand sides, shape (M,).
        equal: Which are equalities, shape (M,).
        eligible: Inequalities that may bind at an answer, shape (M,).
        support: Shape (K,), 1.0 for teachers that can weigh anything, 0.0 for those the rules force to zero; the KL
            metric has no derivative there, so they stay out of it.
        model: The back end for one row.
        batch: The back end for many rows at once, where there is one for this metric.
    """

    metric: str
    rows: Floats
    bounds: Floats
    equal: Mask
    eligible: Mask
    support: Floats
    model: CvxpyModel
    batch: MoreauModel | None


def find_canonical_form(polytope: WeightPolytope, metric: str) -> CanonicalForm:
    """Return the form, built at the first call for this polytope and metric; threads may share it."""
    key = (polytope, metric)
    with _cache_lock:
        if key not in _cache:
            _cache[key] = _build_form(polytope, metric)
            while len(_cache) > _SETTINGS.most_kept:
                _cache.popitem(last=False)
        _cache.move_to_end(key)
        return _cache[key]


def _build_form(polytope: WeightPolytope, metric: str) -> CanonicalForm:
    from .backends._cvxpy_backend import (
        CvxpyModel,  # cvxpy takes seconds to import, and half a gigabyte with its back ends
    )

    rows_MK, bounds_M, equal_M = stack_rules(polytope.rules)
    support_K = np.ones(polytope.n_teachers)
    eligible_M = ~equal_M
    if metric == "kl":
        support_K = find_support(rows_MK, bounds_M, equal_M)
        # the KL answer is positive wherever it can be, so `w >= 0` never binds there
        at_zero_M = np.array([rule.kind == "lower" for rule in polytope.rules]) & (bounds_M == 0)
        eligible_M = eligible_M & ~at_zero_M
    model = CvxpyModel(rows_MK, bounds_M, equal_M, metric)
    batch = open_moreau(rows_MK, bounds_M, equal_M) if metric == "euclidean" else None
    return CanonicalForm(metric, rows_MK, bounds_M, equal_M, eligible_M, support_K, model, batch)


def find_support(rows_MK: Floats, bounds_M: Floats, equal_M: Mask) -> Floats:
    K = rows_MK.shape[1]
    largest_K = [
        linprog(
            -np.eye(K)[k],
            A_ub=rows_MK[~equal_M],
            b_ub=bounds_M[~equal_M],
            A_eq=rows_MK[equal_M],
            b_eq=bounds_M[equal_M],
            bounds=(None, None),
        ).fun
        for k in range(K)
    ]
    return np.array([0.0 if value is not None and -value <= 1e-9 else 1.0 for value in largest_K])
