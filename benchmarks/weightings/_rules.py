"""The rules that are compared, each made for a task and a polytope: all in the registry, and the paper's families."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from safekd import weights
from safekd.weights import Rule, family_a, family_b, family_c
from solvers import WeightPolytope

from ._tasks import Task


def _fit_to_task(make: Callable[..., Rule]) -> Callable[[Task, WeightPolytope], Rule]:
    def fitted(task: Task, polytope: WeightPolytope) -> Rule:
        known: dict[str, Any] = {"n_teachers": len(task.ensemble), "features": task.train.inputs[0].numel()}
        asked = inspect.signature(make).parameters
        return make(**{name: value for name, value in known.items() if name in asked})

    return fitted


RULES: dict[str, Callable[[Task, WeightPolytope], Rule]] = {
    **{
        make.__name__: _fit_to_task(make)
        for of_scale in weights.RULES.values()
        for make in of_scale.values()
        if make not in (weights.Stored, weights.Routed)  # their weights are the user's own
    },
    "family A": lambda task, polytope: family_a(polytope),
    "family B": lambda task, polytope: family_b(polytope),
    "family C": lambda task, polytope: family_c(polytope),
}
