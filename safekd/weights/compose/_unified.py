"""Weights of three scales, composed and repaired (Definition IV.1).

    w_unified  =  normalize(w_token * w_task * w_context),  then projected

The product of conforming weights does not conform: it can break bounds and turn an ordering that both safety-aware
scales respect (token = context = (.40, .35, .25), task = (.20, .50, .30) gives (.286, .547, .167)).  So the
composed weights are projected into the polytope that the user asked for, with the orderings of S and C_safe.
Axes: ... positions, K teachers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from solvers.polytope import WeightPolytope, number_orderings
from solvers.short_repr import ShortRepr

from ...data import fill_uncounted
from ...errors import InvalidInput
from ..orderings import (
    Metric,
    PositionOrderings,
    ScaleOrderings,
    merge_orderings,
    require_compatible_orderings,
    require_polytope,
    resolve_orderings,
)
from ..rules import Rule, collect_needs, require_rule
from ..rules._generic_rules import Uniform
from ..signals import ORDERED_SCALES, OrderedScale, Signals
from ._conforming import normalize_scores
from ._product_bounds import Bounds, bound_product

Orderings = ScaleOrderings | Iterable[tuple[int, int]]


@dataclass(frozen=True, repr=False)
class Repair(ShortRepr):
    """What the repair did to one batch.

    Attributes:
        composed: Product weights before the repair, (..., K).
        weights: Conforming weights after it, (..., K).
        distance: Euclidean distance between them, (...).
        violations_before: Bool, (...), where ``composed`` breaks an ordering that holds at the position, as where a
            safer teacher counts less at a critical position, which is any position if the signals name none.
        violations_after: The same of ``weights``.
        contradictions: Bool, (...), where token and context scale rank two teachers differently; there the order of the
            scale ``wins`` holds together with the polytope's own, and of the other's what does not go against them.
        counted: How many positions count; nothing is said of the others, where ``distance`` is 0.
        wins: "token" or "context".
        bounds: Lower and upper bound of each teacher's weight in ``composed`` that follow from those of the parts, None
            if a part has no bounds.
    """

    composed: Tensor
    weights: Tensor
    distance: Tensor
    violations_before: Tensor
    violations_after: Tensor
    contradictions: Tensor
    wins: OrderedScale
    bounds: Bounds | None
    counted: int

    @property
    def repaired(self) -> Tensor:
        """Where weights had to move by more than rounding, bool (...)."""
        return self.distance > 8 * self.weights.shape[-1] * torch.finfo(self.weights.dtype).eps

    @property
    def repaired_fraction(self) -> float:
        """Share of positions that had to move by more than rounding."""
        return int(self.repaired.sum()) / self.counted if self.counted else math.nan

    def __str__(self) -> str:
        """Return the counts in words."""
        if not self.counted:
            return "no positions"
        distance = self.distance.detach()
        lines = [
            f"{int(self.repaired.sum())} of {self.counted} positions repaired, moved by "
            f"{float(distance.sum()) / self.counted:.4g} on average and {float(distance.max()):.4g} at most",
            f"orderings broken at {int(self.violations_before.sum())} positions before, "
            f"at {int(self.violations_after.sum())} after",
        ]
        if bool(self.contradictions.any()):
            first = tuple(int(i) for i in self.contradictions.nonzero()[0])
            lines.append(
                f"token and context scale contradict each other at {int(self.contradictions.sum())} positions, "
                f"the first is {first}: the {self.wins} scale won"
            )
        if self.bounds is not None:
            lines.append(
                f"the parts' bounds keep the product within {min(self.bounds[0]):.4g} and {max(self.bounds[1]):.4g}"
            )
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Unified:
    """Product of up to three rules, normalized, and repaired into ``polytope``; a missing scale is uniform.

    Attributes:
        polytope: Where to the product is repaired.
        token: Rule of the token scale, from Signals to scores (..., K), at least 0.
        task: Rule of the task scale.
        context: Rule of the context scale.
        metric: In which geometry the nearest point is meant, "euclidean" or "kl".
        token_orderings: Pairs (i, j) that hold on S, or ``ScaleOrderings`` for those that differ by class; orderings of
            a ``Conforming`` token rule are added to them.  A scale without any follows its safety scores
            (``token_safety``, ``safety``) instead; ``resolve_orderings`` has the details.
        context_orderings: The same for C_safe and contexts.
        wins: Which scale's order holds at a position where the two rank teachers differently.

    Raises:
        InvalidInput: No scale is given, or orderings that hold everywhere contradict each other (with a polytope that
            allows ties, such teachers weigh the same instead).

    Source: Definition IV.1; the repair is ours, since Theorem IV.2 promises normalization, boundedness and convexity
    only.
    """

    polytope: WeightPolytope
    token: Rule | None = None
    task: Rule | None = None
    context: Rule | None = None
    metric: Metric = "euclidean"
    token_orderings: Orderings | None = None
    context_orderings: Orderings | None = None
    wins: OrderedScale = "context"

    def __post_init__(self) -> None:
        rules = self._rules()
        if not rules:
            raise InvalidInput("Unified has no scale; give at least one of token=, task=, context= (Uniform() counts).")
        if self.wins not in ORDERED_SCALES:
            raise InvalidInput(f"`wins` is {self.wins!r}; wanted 'context' or 'token'.")
        require_polytope(self.polytope)
        for name, rule in rules.items():
            require_rule(name.removesuffix(" rule"), rule)
            own = getattr(rule, "polytope", self.polytope)
            if own.n_teachers != self.polytope.n_teachers:
                raise InvalidInput(
                    f"The {name} is for {own.n_teachers} teachers, the polytope of Unified has "
                    f"{self.polytope.n_teachers}; wanted equal."
                )
        for scale in ORDERED_SCALES:
            given = getattr(self, f"{scale}_orderings")
            object.__setattr__(
                self, f"{scale}_orderings", None if given is None else self._as_scale_orderings(scale, given)
            )
        require_compatible_orderings(
            self.polytope, [source for sources in self._sources.values() for source in sources]
        )

    @property
    def bounds(self) -> Bounds:
        """Lower and upper bound of each teacher's weight, after the repair."""
        return self.polytope.lower, self.polytope.upper

    @property
    def implied_bounds(self) -> Bounds | None:
        """What the bounds of the parts say about the product, before the repair; None if a part has no bounds."""
        parts = [getattr(rule, "bounds", None) for rule in self._rules().values() if not isinstance(rule, Uniform)]
        if not parts:
            return ((1 / self.polytope.n_teachers,) * self.polytope.n_teachers,) * 2
        return None if None in parts else bound_product(part for part in parts if part is not None)

    @property
    def needs(self) -> frozenset[str]:
        """The signals that the rules inside ask for."""
        return collect_needs(self._rules())

    def __call__(self, signals: Signals) -> Tensor:
        """Return conforming weights, (..., K).

        Args:
            signals: The signals of a batch.
        """
        return self.orders(signals).project(self.compose(signals), self.metric)

    def orders(self, signals: Signals) -> PositionOrderings:
        """Return the orderings that hold at each position.

        Args:
            signals: The signals of a batch.
        """
        own = {
            scale: merge_orderings(scale, [orderings for _, orderings in named])
            for scale, named in self._sources.items()
            if named
        }
        return resolve_orderings(signals, self.polytope, own, wins=self.wins)

    def compose(self, signals: Signals) -> Tensor:
        """Return the normalized product, which need not conform.  Sums of logs: nothing underflows.

        Args:
            signals: The signals of a batch.

        Returns:
            Weights, (..., K).

        Raises:
            InvalidInput: At some position every teacher has weight 0 at some scale.

        Source: Definition IV.1, and IV.3 for the logs.
        """
        parts = [_log_weights(normalize_scores(rule(signals), signals, name)) for name, rule in self._rules().items()]
        log_w_K = torch.stack(parts).sum(0)
        if bool(torch.isneginf(log_w_K).all(-1).any()):
            where = tuple(int(i) for i in torch.isneginf(log_w_K).all(-1).nonzero()[0])
            raise InvalidInput(
                f"At position {where} every teacher has weight 0 at some scale, so the product leaves none. "
                "Make each rule conforming first, Conforming(rule, polytope) with lower > 0."
            )
        return torch.softmax(log_w_K, dim=-1)

    def repair(self, signals: Signals) -> Repair:
        """Return the weights together with what it took to make them conform.

        Args:
            signals: The signals of a batch.
        """
        composed, orders = self.compose(signals), self.orders(signals)
        weights = orders.project(composed, self.metric)
        return Repair(
            composed=composed,
            weights=weights,
            distance=fill_uncounted((weights - composed).norm(dim=-1), signals.mask, 0.0),
            violations_before=fill_uncounted(orders.find_violations(composed), signals.mask, False),
            violations_after=fill_uncounted(orders.find_violations(weights), signals.mask, False),
            contradictions=fill_uncounted(orders.contradicts, signals.mask, False),
            wins=self.wins,
            bounds=self.implied_bounds,
            counted=weights.shape[:-1].numel() if signals.mask is None else int(signals.mask.sum()),
        )

    def _rules(self) -> dict[str, Rule]:
        named = {"token rule": self.token, "task rule": self.task, "context rule": self.context}
        return {name: rule for name, rule in named.items() if rule is not None}

    @cached_property
    def _sources(self) -> dict[OrderedScale, list[tuple[str, ScaleOrderings]]]:
        """The orderings of each scale, with where they come from for messages."""
        sources: dict[OrderedScale, list[tuple[str, ScaleOrderings]]] = {"token": [], "context": []}
        rules = {"token": self.token, "context": self.context}
        for scale in ORDERED_SCALES:
            rule, given = rules[scale], getattr(self, f"{scale}_orderings")
            inside = getattr(rule, "polytope", None)
            if inside is not None and inside.orderings:
                pairs = ScaleOrderings(scale, inside.n_teachers, inside.untied.orderings)
                sources[scale].append((f"the polytope of the {scale} rule", pairs))
            carried = getattr(rule, "orderings", None)
            if isinstance(carried, ScaleOrderings):
                sources[carried.scale].append((f"`orderings` of the {scale} rule", carried))
            if isinstance(given, ScaleOrderings):  # read at construction
                sources[scale].append((f"`{scale}_orderings`", given))
        return sources

    def _as_scale_orderings(self, scale: OrderedScale, given: Orderings) -> ScaleOrderings:
        if not isinstance(given, ScaleOrderings):
            pairs = number_orderings(given, self.polytope.names)
            return ScaleOrderings(scale, self.polytope.n_teachers, pairs)
        if given.scale != scale:
            raise InvalidInput(
                f"`{scale}_orderings` belong to the {given.scale} scale; pass them as `{given.scale}_orderings`."
            )
        return given


def _log_weights(w_K: Tensor) -> Tensor:
    """Return the logarithm, whose gradient at a weight of 0, where the product stays 0, is none and not 0 * inf."""
    none_K = w_K == 0
    return w_K.masked_fill(none_K, 1.0).log().masked_fill(none_K, -torch.inf)
