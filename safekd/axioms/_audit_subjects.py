"""Whose weights an audit judges, and by which axioms.

A rule on its own is judged at its scale.  ``Unified`` is judged scale by scale and as a whole: the weights of one scale
are those that it gives with the other scales left out (left uniform), repair included, so that each axiom is asked of
what that scale does to the weights that are used; the whole answers to U.1 to U.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from solvers.polytope import WeightPolytope
from solvers.short_repr import ShortRepr

from ..errors import InvalidInput
from ..weights import SCALES, Conforming, Signals, Unified, require_scores
from .continuity import Weights


@dataclass(frozen=True, repr=False)
class Subject(ShortRepr):
    """Weights to judge.

    Attributes:
        name: What the report calls them.
        scale: Whose axioms.
        weights: From signals to weights (..., K).
        polytope: What they promise, if anything.
        alone: The same rule before it was repaired, None if there is no repair.
        rule: What ``weights`` came from, None for weights that were given.
    """

    name: str
    scale: str
    weights: Weights
    polytope: WeightPolytope | None
    alone: Weights | None = None
    rule: object = None


def list_subjects(
    rule: Callable[[Signals], Tensor], polytope: WeightPolytope | None, scale: str | None, as_weights: bool | None
) -> Iterator[Subject]:
    """Yield what there is to judge, the whole of a ``Unified`` last."""
    promised = polytope or _find_carried_polytope(rule)
    if isinstance(rule, Unified):
        if scale is not None:
            raise InvalidInput("`scale` was given, but a Unified has scales of its own. Leave it out.")
        for name in SCALES:
            part = getattr(rule, name)
            if part is not None:
                others: dict[str, Any] = {other: None for other in SCALES if other != name}
                only = replace(rule, **others)
                yield Subject(f"{name} rule", name, only, promised, divide_by_sum(part), only)
        yield Subject("unified weights", "unified", rule, promised, rule=rule)
        return
    if as_weights is None:
        as_weights = _find_carried_polytope(rule) is not None
    own = str(getattr(rule, "scale", "any"))
    scale = scale or (own if own in SCALES else "token")
    alone = divide_by_sum(rule.rule) if isinstance(rule, Conforming) else None
    weights = require_weight_shape(rule) if as_weights else divide_by_sum(rule)
    yield Subject(f"{scale} rule", scale, weights, promised, alone, rule)


def require_weight_shape(rule: Callable[[Signals], Tensor]) -> Weights:
    """Return the rule, its answer looked at for its shape."""

    def weights(signals: Signals) -> Tensor:
        w_K = rule(signals)
        require_scores(w_K, signals, type(rule).__name__)
        return w_K

    return weights


def divide_by_sum(rule: Callable[[Signals], Tensor]) -> Weights:
    """Return the rule with its scores divided by their sum; what cannot be divided is judged as it comes, as NaN."""
    checked = require_weight_shape(rule)

    def weights(signals: Signals) -> Tensor:
        score_K = checked(signals)
        total = score_K.sum(-1, keepdim=True)
        return score_K / torch.where(total > 0, total, torch.nan)  # two negative numbers must not pass as a share

    return weights


def explain_missing_scales(rule: object) -> dict[str, str]:
    """Return why the scales that a rule does not have are not judged."""
    if isinstance(rule, Unified):
        return {name: f"There is no {name} rule; that scale is uniform." for name in SCALES}
    return {
        name: f"The weights are not of the {name} scale; pass scale='{name}' to judge them there." for name in SCALES
    }


def _find_carried_polytope(rule: object) -> WeightPolytope | None:
    polytope = getattr(rule, "polytope", None)
    return polytope if isinstance(polytope, WeightPolytope) else None
