"""Two populations of which as many cases can be drawn as wanted.  Axes: N cases, D inputs, C classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import safekd as kd
from safekd.teachers import CallableTeacher

from ._population import Teachers, split

Floats = NDArray[np.float64]
Sample = Callable[[int, np.random.Generator], tuple[Floats, NDArray[np.int64]]]
NEW = 20_000  # critical cases, so that the standard error of their average is at most 0.0035, and 0.002 as a rule
MIXED = 5_000


@dataclass(frozen=True)
class Population:
    """Draws cases; ``sizes``: of the splits by name."""

    seed: int
    classes: int
    sample: Sample
    teachers: Teachers
    sizes: Mapping[str, int]

    def draw(self, name: str) -> kd.Split:
        """Return the split of that name; a draw of its own."""
        order = ("train", "judge", "mixed", "new").index(name)
        rng = np.random.default_rng([self.seed, 1, order])
        return split(name, *self.sample(self.sizes[name], rng))

    def critical(self, rule: kd.SafetyConstraint) -> kd.Split:
        """Return new cases that the constraint covers, ``NEW`` of them."""
        rng, parts = np.random.default_rng([self.seed, 1, 3]), []
        while sum(map(len, parts)) < NEW:
            some = split("new", *self.sample(NEW, rng))
            parts.append(some.part(rule.covers(some.batch())))
        return kd.Split("new", torch.cat([p.inputs for p in parts])[:NEW], torch.cat([p.labels for p in parts])[:NEW])


def tabular(seed: int) -> Population:
    """Two classes, nearly linear; linear teachers with noise in their weights that lean to class 0."""
    rng, size = np.random.default_rng([seed, 0]), 15
    beta_D = rng.normal(size=size) * np.exp(-np.arange(size) / 5)
    beta_D *= 2 / np.linalg.norm(beta_D)

    def sample(count: int, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
        x_ND = rng.normal(size=(count, size))
        logit_N = x_ND @ beta_D + 0.6 * x_ND[:, 0] * x_ND[:, 1] - 1.6
        return x_ND, (rng.random(count) < 1 / (1 + np.exp(-logit_N))).astype(np.int64)

    def linear(number: int, bias: float) -> CallableTeacher:
        w_D = torch.as_tensor(beta_D + 0.5 * np.abs(beta_D).mean() * rng.normal(size=size), dtype=torch.float32)
        return CallableTeacher(f"linear {number}", lambda x: _two(x @ w_D + bias), gives="logits")

    teachers = [linear(k, bias) for k, bias in enumerate((-1.9, -1.1, -2.6))]
    return Population(seed, 2, sample, teachers, {"train": 350, "judge": 500, "mixed": MIXED})


def clusters(seed: int) -> Population:
    """Five classes of two clusters, 5 % of labels drawn anew; teachers were fitted before the clusters moved."""
    rng, size, classes = np.random.default_rng([seed, 0]), 10, 5
    center_C2D = 1.1 * rng.normal(size=(classes, 2, size))
    drift_C2D = 0.35 * rng.normal(size=(classes, 2, size))

    def sample_at(center_C2D: Floats) -> Sample:
        def sample(count: int, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
            label_N, cluster_N = rng.integers(classes, size=count), rng.integers(2, size=count)
            x_ND = center_C2D[label_N, cluster_N] + rng.normal(size=(count, size))
            return x_ND, np.where(rng.random(count) < 0.05, rng.integers(classes, size=count), label_N)

        return sample

    old_ND, label_N = sample_at(center_C2D)(1500, rng)
    kept_N = rng.random(len(label_N)) < np.where(label_N < 2, 0.5, 1.0)  # few of the critical ones
    forest = RandomForestClassifier(60, min_samples_leaf=5, random_state=seed).fit(old_ND[:, :6], label_N)
    logistic = LogisticRegression(max_iter=300).fit(old_ND[kept_N], label_N[kept_N])
    neighbors = KNeighborsClassifier(25).fit(old_ND, label_N)
    teachers = [
        CallableTeacher("neighbors", lambda x: neighbors.predict_proba(x.numpy()), floor=1e-4),
        CallableTeacher("forest", lambda x: forest.predict_proba(x[:, :6].numpy()), floor=1e-4),
        CallableTeacher("logistic", lambda x: logistic.predict_proba(x.numpy())),
    ]
    sample = sample_at(center_C2D + drift_C2D)
    return Population(seed, classes, sample, teachers, {"train": 500, "judge": 350, "mixed": MIXED})


def _two(logit_N: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.zeros_like(logit_N), logit_N], dim=1)
