"""Four tasks: examples, stored probabilities of pooled teachers, and whom the constraints protect.

    breast cancer   scikit-learn; malignant cases, which one teacher hardly saw; groups by how large the tumor is
    digits          scikit-learn; 1, 3, 5, 8 and 9, of which one teacher saw a tenth
    drift           synthetic; the boundary turns from context to context, and the last one, which is critical, is rare
                    in what the teachers saw
    label noise     synthetic; three in ten labels of the critical class and one in ten of the other are wrong

Axes: N examples, D inputs, V classes, K teachers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from safekd.data import Split
from safekd.safety import SafetyConstraint, TruthProbability

_GROUPS = 5
_FLOOR = 1e-3  # under each pooled probability, so that no target asks for logits without end


@dataclass(frozen=True)
class Task:
    """What a student learns from.

    Args:
        name: One of ``_cells.TASKS``.
        train: The examples; contexts are the groups of the five constraints.
        q_NV: The target, pooled probabilities of the teachers; rows sum to 1.
        critical: Classes that constraints read; empty for all of them.
        one: Whom the single constraint covers: contexts, None for all.
        by_class: Whether five constraints go by class; by context otherwise.
        tokens: Into how many tokens a transformer cuts an example.
    """

    name: str
    train: Split
    q_NV: Tensor
    critical: Sequence[int]
    one: Sequence[int] | None
    by_class: bool
    tokens: int

    @property
    def classes(self) -> int:
        """V."""
        return int(self.q_NV.shape[-1])

    def constraints(self, threshold_M: Sequence[float]) -> list[SafetyConstraint]:
        """Return one constraint a threshold, one or five of them.

        Args:
            threshold_M: Least average probability of the truth, one a constraint.

        Returns:
            The constraints, in the order of the thresholds.
        """
        measure = TruthProbability(critical=list(self.critical) or None)
        if len(threshold_M) == 1:
            return [SafetyConstraint("critical", measure, threshold_M[0], contexts=self.one)]
        if self.by_class:
            each = zip(self.critical, threshold_M, strict=True)
            return [SafetyConstraint(f"class {c}", TruthProbability(critical=[c]), at_least) for c, at_least in each]
        return [
            SafetyConstraint(f"group {group}", measure, at_least, contexts=[group])
            for group, at_least in enumerate(threshold_M)
        ]


@functools.cache
def make_task(name: str) -> Task:
    """Return a task by its name; the same one each time.

    Args:
        name: One of ``_cells.TASKS``.

    Returns:
        The task.
    """
    makers = {
        "breast cancer": _breast_cancer,
        "digits": _digits,
        "drift": _drift,
        "label noise": _label_noise,
    }
    return makers[name](np.random.default_rng([7, list(makers).index(name)]))


def _breast_cancer(random: np.random.Generator) -> Task:
    x_ND, y_N = load_breast_cancer(return_X_y=True)
    x_ND = (x_ND - x_ND.mean(0)) / x_ND.std(0)
    rows = random.permutation(len(y_N))[:512]
    x_ND, y_N = x_ND[rows], y_N[rows]
    few = (y_N == 1) | (random.random(len(y_N)) < 0.1)
    teachers = [
        (LogisticRegression(C=0.01), x_ND, y_N),
        (_forest(40), x_ND[few], y_N[few]),
        (KNeighborsClassifier(15), x_ND[:128], _flip_labels(y_N[:128], 0.25, 0.0, random)),
    ]
    group_N = _quantile_groups(x_ND[:, 0], y_N == 0)
    return _task("breast cancer", x_ND, y_N, group_N, _pool(teachers, x_ND, 2), [0], None, False, 3)


def _digits(random: np.random.Generator) -> Task:
    x_ND, y_N = load_digits(return_X_y=True)
    rows = random.permutation(len(y_N))
    x_ND, y_N = x_ND[rows] / 16, y_N[rows]
    critical = [1, 3, 5, 8, 9]
    seen = slice(512, None)  # the teachers' own examples
    few = ~np.isin(y_N, critical) | (random.random(len(y_N)) < 0.1)
    few[:512] = False
    left = x_ND * (np.arange(64) % 8 < 4)
    pool_NV = _pool([(LogisticRegression(C=0.1, max_iter=500), x_ND[seen], y_N[seen])], x_ND[:512], 10)
    pool_NV = pool_NV + _pool([(_forest(60), left[seen], y_N[seen])], left[:512], 10)
    pool_NV = pool_NV + _pool([(KNeighborsClassifier(9), x_ND[few], y_N[few])], x_ND[:512], 10)
    group_N = np.zeros(512, dtype=np.int64)
    return _task("digits", x_ND[:512], y_N[:512], group_N, pool_NV / 3, critical, None, True, 4)


def _drift(random: np.random.Generator) -> Task:
    angle_G = np.deg2rad([0, 15, 30, 45, 110])

    def draw(share_G: Sequence[float], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        group_N = random.permutation(np.repeat(np.arange(_GROUPS), np.round(np.array(share_G) * count).astype(int)))
        x_ND = random.standard_normal((len(group_N), 20))
        x_ND[np.arange(len(group_N)), 10 + group_N] += 2.0  # so that a student can see where it is
        score_N = np.cos(angle_G[group_N]) * x_ND[:, 0] + np.sin(angle_G[group_N]) * x_ND[:, 1] + 0.5 * x_ND[:, 2]
        return x_ND, (score_N + 0.3 * random.standard_normal(len(score_N)) > 0).astype(np.int64), group_N

    x_ND, y_N, group_N = draw([0.25, 0.25, 0.25, 0.1875, 0.0625], 512)
    often_ND, often_N, _ = draw([0.4, 0.3, 0.2, 0.09, 0.01], 400)
    early_ND, early_N, _ = draw([0.6, 0.4, 0.0, 0.0, 0.0], 200)
    even_ND, even_N, _ = draw([0.2] * 5, 200)
    teachers = [
        (LogisticRegression(C=1.0), often_ND, often_N),
        (_forest(60), early_ND, early_N),
        (KNeighborsClassifier(15), even_ND, even_N),
    ]
    return _task("drift", x_ND, y_N, group_N, _pool(teachers, x_ND, 2), [], [4], False, 4)


def _label_noise(random: np.random.Generator) -> Task:
    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        x_ND = random.standard_normal((count, 20))
        score_N = x_ND[:, 0] + 0.7 * x_ND[:, 1] + 0.6 * x_ND[:, 2] * x_ND[:, 3]
        return x_ND, _flip_labels((score_N > 0).astype(np.int64), 0.1, 0.3, random)

    (x_ND, y_N), (more_ND, more_N), (few_ND, few_N) = draw(512), draw(600), draw(150)
    teachers = [
        (LogisticRegression(C=1.0), more_ND, more_N),
        (_forest(60), more_ND[:300], more_N[:300]),
        (KNeighborsClassifier(9), few_ND, few_N),
    ]
    group_N = _quantile_groups(x_ND[:, 1], y_N == 1)
    return _task("label noise", x_ND, y_N, group_N, _pool(teachers, x_ND, 2), [1], None, False, 4)


def _task(
    name: str,
    x_ND: np.ndarray,
    y_N: np.ndarray,
    group_N: np.ndarray,
    pool_NV: np.ndarray,
    critical: Sequence[int],
    one: Sequence[int] | None,
    by_class: bool,
    tokens: int,
) -> Task:
    floored_NV = np.maximum(pool_NV, _FLOOR)
    q_NV = torch.as_tensor(floored_NV / floored_NV.sum(1, keepdims=True), dtype=torch.float32)
    train = Split(
        "train",
        torch.as_tensor(x_ND, dtype=torch.float32),
        torch.as_tensor(y_N, dtype=torch.long),
        context=torch.as_tensor(group_N, dtype=torch.long),
    )
    return Task(name, train, q_NV, critical, one, by_class, tokens)


def _forest(trees: int) -> RandomForestClassifier:
    return RandomForestClassifier(trees, min_samples_leaf=3, random_state=0, n_jobs=1)


def _pool(teachers: Sequence[tuple[Any, np.ndarray, np.ndarray]], x_ND: np.ndarray, classes: int) -> np.ndarray:
    """Fit the teachers on their own examples, and return their mean probabilities, (N, V)."""
    total_NV = np.zeros((len(x_ND), classes))
    for made, seen_ND, seen_N in teachers:
        fitted = made.fit(seen_ND, seen_N)
        total_NV[:, fitted.classes_] += fitted.predict_proba(x_ND)
    return total_NV / len(teachers)


def _flip_labels(y_N: np.ndarray, up: float, down: float, random: np.random.Generator) -> np.ndarray:
    """Turn a share ``up`` of the zeros and a share ``down`` of the ones around."""
    chance_N = np.where(y_N == 0, up, down)
    return np.where(random.random(len(y_N)) < chance_N, 1 - y_N, y_N)


def _quantile_groups(score_N: np.ndarray, critical_N: np.ndarray) -> np.ndarray:
    """Return five groups by score, which hold equally many of the critical examples."""
    edges = np.quantile(score_N[critical_N], np.arange(1, _GROUPS) / _GROUPS)
    return np.searchsorted(edges, score_N).astype(np.int64)
