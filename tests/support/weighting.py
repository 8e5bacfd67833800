"""Signals, rules and a polytope for tests of weighting rules."""

from __future__ import annotations

from typing import Any

import torch

from solvers.polytope import WeightPolytope

BOX = WeightPolytope(3, lower=0.1, upper=0.6)


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def log_p(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).mul(3).log_softmax(-1)


def everything(seed: int, B: int = 4, K: int = 3, V: int = 5, P: int = 6) -> dict[str, Any]:
    """Return all that rules may ask for, random."""
    generator = torch.Generator().manual_seed(seed)
    scores = {
        name: torch.rand(B, K, generator=generator, dtype=torch.float64)
        for name in ("task_loss", "performance", "safety", "distance")
    }
    return {
        "log_p": log_p(seed, B, K, V),
        "log_p_passes": log_p(seed + 1, B, P, K, V),
        "student_log_p": log_p(seed + 2, B, V),
        "labels": torch.randint(V, (B,), generator=generator),
        "task": torch.arange(B) % 2,
        "critical": torch.arange(B) % 2 == 0,
        **scores,
    }


def of_teachers(given: dict[str, Any], teachers: torch.Tensor) -> dict[str, Any]:
    """Return the same readings of some of the teachers, in that order; one may come several times."""
    axis = {"log_p": -2, "log_p_passes": -2, "student_log_p": None, "labels": None, "task": None, "critical": None}
    chosen = {}
    for name, value in given.items():
        along = axis.get(name, -1)
        chosen[name] = value if along is None else value.index_select(along, teachers)
    return chosen


def says(*values):
    """Return a rule that gives these scores at every position."""
    return lambda signals: t(*values).expand(signals.shape)


def scores(*rows):
    """Return a rule that gives these scores, one row a position."""
    return lambda signals: t(*rows)
