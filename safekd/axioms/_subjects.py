"""Whose weights an audit judges, and by which axioms.

A rule on its own is judged at its scale.  ``Unified`` is judged scale by scale and as a whole: the weights of one scale
are those that it gives with the other scales left out (left uniform), repair included, so that each axiom is asked of
what that scale does to the weights that are used; the whole answers to U.1 to U.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from solvers.polytope import WeightPolytope

from ..errors import InvalidInput
from ..weights import Conforming, Signals, Unified
from ._axioms import SCALES
from ._paths import Weights


@dataclass(frozen=True)
class Subject:
    """Weights to judge.

    name: what the report calls them.  scale: whose axioms.  weights: from signals to weights (..., K).  polytope: what
    they promise, if anything.  alone: the same rule before it was repaired, None if there is no repair.
    """

    name: str
    scale: str
    weights: Weights
    polytope: WeightPolytope | None
    alone: Weights | None = None


def subjects_of(
    rule: Callable[[Signals], Tensor], polytope: WeightPolytope | None, scale: str | None, as_weights: bool | None
) -> Iterator[Subject]:
    """Yield what there is to judge, the whole of a ``Unified`` last."""
    promised = polytope or _polytope_of(rule)
    if isinstance(rule, Unified):
        if scale is not None:
            raise InvalidInput("`scale` was given, but a Unified has scales of its own. Leave it out.")
        for name in SCALES:
            part = getattr(rule, name)
            if part is not None:
                others: dict[str, Any] = {other: None for other in SCALES if other != name}
                only = replace(rule, **others)
                yield Subject(f"{name} rule", name, only, promised, shares_of(part))
        yield Subject("unified weights", "unified", rule, promised)
        return
    if as_weights is None:
        as_weights = _polytope_of(rule) is not None
    own = str(getattr(rule, "scale", "any"))
    scale = scale or (own if own in SCALES else "token")
    alone = shares_of(rule.rule) if isinstance(rule, Conforming) else None
    yield Subject(f"{scale} rule", scale, rule if as_weights else shares_of(rule), promised, alone)


def shares_of(rule: Callable[[Signals], Tensor]) -> Weights:
    """Return the rule with its scores divided by their sum; what cannot be divided is judged as it comes, as NaN."""

    def weights(signals: Signals) -> Tensor:
        score_K = rule(signals)
        if score_K.shape != signals.shape:
            raise InvalidInput(
                f"{type(rule).__name__} gave scores of shape {tuple(score_K.shape)}; wanted {tuple(signals.shape)}, "
                "(..., teachers)."
            )
        return score_K / score_K.sum(-1, keepdim=True)

    return weights


def scales_left_out(rule: object) -> dict[str, str]:
    """Return why the scales that a rule does not have are not judged."""
    if isinstance(rule, Unified):
        return {name: f"There is no {name} rule; that scale is uniform." for name in SCALES}
    return {
        name: f"The weights are not of the {name} scale; pass scale='{name}' to judge them there." for name in SCALES
    }


def modules_in(rule: Any) -> Iterator[nn.Module]:
    """Yield the modules that a rule consists of."""
    if isinstance(rule, nn.Module):
        yield rule
    elif is_dataclass(rule) and not isinstance(rule, type):
        for field in fields(rule):
            yield from modules_in(getattr(rule, field.name))


def critical_rows(signals: Signals) -> Tensor | None:
    """Return where orderings apply, bool (...), None for everywhere, as ``Conforming`` has it."""
    return signals.critical if signals.names_critical else None


def ordering_scores(signals: Signals, polytope: WeightPolytope | None) -> Tensor | None:
    """Return safety (..., K) whose order weights must follow; None if there is none, or the polytope has orderings."""
    if polytope is not None and polytope.orderings:
        return None
    known = signals.evidence is not None or "safety" in vars(signals)
    return torch.as_tensor(signals.safety) if known else None


def _polytope_of(rule: object) -> WeightPolytope | None:
    found = getattr(rule, "polytope", None)
    return found if isinstance(found, WeightPolytope) else None
