"""Weights that follow changing signals with a bounded pace, and a bound on how far they lag behind.

    w_{n+1}  =  project( (1 - beta) w_n + beta u_n )

u_n are the weights of a rule on the n-th batch, averaged over the positions of one context (or task); rows come and
go, contexts stay, so there is one vector w for each.  Write P_n for the Euclidean projection onto the weights that
conform at step n, T_n for the step above, and w*_n = P_n(u_n), the weights that the rule itself asks for.

*w*_n is the one fixed point of T_n*, whatever beta in (0, 1]: w = P_n(w + beta (u_n - w)) says that u_n - w lies in
the normal cone of the set at w, and so does w = P_n(u_n).  *T_n contracts by 1 - beta*, since a projection onto a
convex set never moves two points apart.  Hence

    |w_n - w*_n|  =  |T_n w_{n-1} - T_n w*_n|  <=  (1 - beta) ( |w_{n-1} - w*_{n-1}| + |w*_n - w*_{n-1}| )

and, from w_0 on, writing d_i = |w*_i - w*_{i-1}| for the drift of the target and e_1 = |w_0 - w*_1|,

    |w_n - w*_n|  <=  (1 - beta)^n e_1  +  sum_{i=2..n} (1 - beta)^(n - i + 1) d_i

So a target that stands still is reached geometrically, one that drifts by at most d a step is followed at a distance
of at most d (1 - beta) / beta in the end, and a jump of size J is forgotten like (1 - beta)^n J.  While P stays the
same, |w*_n - w*_{n-1}| <= |u_n - u_{n-1}|.  What a small lag costs is noise: if the u_n scatter independently around
a standing target inside the set, the weights keep about beta / (2 - beta) of the variance.
Axes: ... positions, x those that count, G groups, P groups present in a batch, K teachers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from solvers.polytope import WeightPolytope
from solvers.projection import project
from solvers.short_repr import ShortRepr

from ..._number_checks import is_finite, is_whole
from ...data import expand_to_positions
from ...errors import InvalidInput, MissingSignal
from ..orderings import PositionOrderings, ScaleOrderings, require_compatible_orderings, resolve_orderings
from ..rules import Rule, RuleWrapper, require_rule
from ..signals import OrderedScale, Signals, average_rows
from ._conforming import normalize_scores
from ._product_bounds import Bounds


@dataclass(frozen=True)
class DriftSettings:
    """What a drift report looks at; ``tests/safekd/weights/test_tracking.py`` notices.

    Attributes:
        least_distance: Below this distance from the target a ratio of distances says little of the contraction: it is
            mostly rounding.
    """

    least_distance: float = 1e-6


_DRIFT = DriftSettings()


@dataclass(frozen=True, repr=False)
class DriftReport(ShortRepr):
    """How the weights of each group follow their target, NaN for groups never seen.

    Attributes:
        steps_G: Updates so far, (G,).
        contraction: 1 - beta.
        lag_G: Distance of the weights from the last target, (G,).
        bound_G: What the recursion promises of that distance, (G,).
        drift_G: How far the target moved at the last update, (G,).
        shrinkage_G: The largest factor by which an update shrank the distance to its target, (G,), where the distance
            is more than rounding; at most ``contraction``.
    """

    steps_G: Tensor
    contraction: float
    lag_G: Tensor
    bound_G: Tensor
    drift_G: Tensor
    shrinkage_G: Tensor

    def __str__(self) -> str:
        """Return a line for each group."""
        lines = [
            f"contraction factor {self.contraction:g}",
            "group  steps  lag        bound      last drift  shrinkage",
        ]
        columns = (self.steps_G, self.lag_G, self.bound_G, self.drift_G, self.shrinkage_G)
        for g, (steps, lag, bound, drift, shrinkage) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
            lines.append(f"{g:<5}  {steps:<5}  {lag:<9.3g}  {bound:<9.3g}  {drift:<10.3g}  {shrinkage:.3g}")
        return "\n".join(lines)


class Tracking(RuleWrapper, nn.Module):
    """A rule whose weights move a share ``beta`` of the way to where another rule wants them, a batch at a time.

    In training mode each call is one update of the groups in the batch; in evaluation mode (``eval()``) weights stand
    still. A group's orderings are those of the context scale that hold at all its positions in the batch; positions
    with further ones are projected once more, so that the weights returned conform everywhere.  Gradients flow through
    the present batch, not into earlier ones.  The state is in ``state_dict()``, in float64, on the module's device.

    Args:
        rule: Any callable from Signals to scores (..., K); a ``Unified`` or ``Conforming`` one too.
        polytope: Where the weights stay.
        beta: In (0, 1]; 1 follows at once.
        by: "context" or "task" keeps a vector for each of ``groups``; None keeps one for all.
        groups: G, how many contexts or tasks there are.
        start: Weights (K,) to start from, projected; None starts each group at its first target.
        ordered: As in ``Conforming``.
        orderings: As in ``Conforming``.

    Raises:
        InvalidInput: A beta outside (0, 1], a number of groups below 1, an unknown ``by``, or, when called, a position
            whose context or task is not among the groups.

    Source: the bound on the lag is derived at the top of the file.
    """

    state_GK: Tensor
    target_GK: Tensor
    steps_G: Tensor
    bound_G: Tensor
    drift_G: Tensor
    shrinkage_G: Tensor

    def __init__(
        self,
        rule: Rule,
        polytope: WeightPolytope,
        *,
        beta: float,
        by: Literal["context", "task"] | None = "context",
        groups: int = 1,
        start: Sequence[float] | None = None,
        ordered: bool = True,
        orderings: ScaleOrderings | None = None,
    ) -> None:
        super().__init__()
        if not is_finite(beta) or not 0 < beta <= 1:
            raise InvalidInput(f"`beta` of Tracking is {beta!r}; wanted a share above 0 and at most 1, such as 0.1.")
        if by not in ("context", "task", None):
            raise InvalidInput(f"`by` of Tracking is {by!r}; wanted 'context', 'task' or None, one vector for all.")
        if not is_whole(groups) or groups < 1 or (by is None and groups != 1):
            raise InvalidInput(
                f"`groups` of Tracking is {groups!r}; wanted how many {by or 'vector'}s there are, at least 1"
                + (", and just 1 with by=None." if by is None else ".")
            )
        require_rule("rule", rule)
        require_compatible_orderings(polytope, [] if orderings is None else [("`orderings`", orderings)])
        self.rule, self.polytope, self.beta, self.by = rule, polytope, float(beta), by
        self.ordered, self.orderings = ordered, orderings
        self.start = None if start is None else tuple(project(list(start), polytope).tolist())
        for name, shape in (("state_GK", (groups, polytope.n_teachers)), ("target_GK", (groups, polytope.n_teachers))):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("steps_G", torch.zeros(groups, dtype=torch.long))
        for name in ("bound_G", "drift_G", "shrinkage_G"):
            self.register_buffer(name, torch.zeros(groups, dtype=torch.float64))
        self.reset()

    @property
    def bounds(self) -> Bounds:
        """Lower and upper bound of each teacher's weight."""
        return self.polytope.lower, self.polytope.upper

    @property
    def contraction(self) -> float:
        """The factor 1 - beta by which an update shrinks the distance to a standing target, or more."""
        return 1 - self.beta

    def reset(self) -> None:
        """Forget everything, as if no batch had been seen."""
        for buffer in self.buffers(recurse=False):
            buffer.zero_()
        if self.start is not None:
            self.state_GK += torch.tensor(self.start, dtype=torch.float64, device=self.state_GK.device)

    def report(self) -> DriftReport:
        """Return how far each group lags behind its target, and what was promised."""
        seen_G = self.steps_G > 0
        lag_G = (self.state_GK - self.target_GK).norm(dim=-1)
        known = (torch.where(seen_G, x_G, math.nan) for x_G in (lag_G, self.bound_G, self.drift_G, self.shrinkage_G))
        return DriftReport(self.steps_G.clone(), self.contraction, *known)

    def forward(self, signals: Signals) -> Tensor:
        """Return conforming weights, after one update of the groups in the batch if in training mode.

        Args:
            signals: The signals of a batch.

        Returns:
            Weights, (..., K).
        """
        if signals.shape[-1] != self.polytope.n_teachers:
            raise InvalidInput(
                f"The signals have {signals.shape[-1]} teachers, the polytope of Tracking has "
                f"{self.polytope.n_teachers}; wanted equal."
            )
        raw_K = normalize_scores(self.rule(signals), signals, type(self.rule).__name__)
        group = self._number_positions(signals)
        present_P, row_x = torch.unique(signals.select_counted(group), return_inverse=True)
        if not len(present_P):
            return raw_K
        group_orderings = self._resolve_group_orderings(signals, present_P, row_x)
        asked_PK = average_rows(signals.select_counted(raw_K.double()), row_x, len(present_P))
        target_PK = group_orderings.project(asked_PK, "euclidean")
        weights_PK = self._update_groups(present_P, asked_PK, target_PK, group_orderings)
        own = {} if self.orderings is None else {self.orderings.scale: self.orderings}
        orders = resolve_orderings(signals, self.polytope, own, scored=self.ordered)
        # any row will do for a position that does not count
        row = torch.searchsorted(present_P, group.contiguous()).clamp_max(len(present_P) - 1)
        return orders.project(weights_PK[row].to(raw_K.dtype), "euclidean")

    def _update_groups(
        self, present_P: Tensor, asked_PK: Tensor, target_PK: Tensor, orders: PositionOrderings
    ) -> Tensor:
        new_P = self.steps_G[present_P] == 0
        starts_P1 = (new_P if self.start is None else torch.zeros_like(new_P)).unsqueeze(-1)
        before_PK = torch.where(starts_P1, target_PK, self.state_GK[present_P])
        if not self.training:
            return before_PK
        mixed_PK = (1 - self.beta) * before_PK + self.beta * asked_PK
        stepped_PK = orders.project(mixed_PK, "euclidean")
        after_PK = torch.where(starts_P1, target_PK, stepped_PK)  # the target is the fixed point of the step
        with torch.no_grad():
            last_PK = torch.where(new_P.unsqueeze(-1), target_PK, self.target_GK[present_P])
            drift_P = (target_PK - last_PK).norm(dim=-1)
            far_P, near_P = (before_PK - target_PK).norm(dim=-1), (after_PK - target_PK).norm(dim=-1)
            promised_P = torch.where(new_P, far_P, self.bound_G[present_P])
            shrunk_P = torch.where(far_P > _DRIFT.least_distance, near_P / far_P, 0.0)
            self.bound_G[present_P] = self.contraction * (promised_P + drift_P)
            self.drift_G[present_P] = drift_P
            self.shrinkage_G[present_P] = torch.maximum(self.shrinkage_G[present_P], shrunk_P)
            self.state_GK[present_P] = after_PK
            self.target_GK[present_P] = target_PK
            self.steps_G[present_P] += 1
        return after_PK

    def _number_positions(self, signals: Signals) -> Tensor:
        """Return the number of each position's group, (...,)."""
        lead, groups = signals.shape[:-1], len(self.steps_G)
        key: Tensor | None = None if self.by is None else getattr(signals, self.by)
        if key is None and groups > 1:
            raise MissingSignal(f"Tracking keeps weights for {groups} {self.by}s; pass `{self.by}` to tell them apart.")
        if key is None:
            return torch.zeros(lead, dtype=torch.long, device=signals.device)
        outside = key[(key < 0) | (key >= groups)]
        if outside.numel():
            raise InvalidInput(
                f"A position has {self.by} {int(outside[0])}, but Tracking keeps weights for {self.by} 0 to "
                f"{groups - 1} only; pass `groups`, the number of {self.by}s."
            )
        return expand_to_positions(key, lead)

    def _resolve_group_orderings(self, signals: Signals, present_P: Tensor, row_x: Tensor) -> PositionOrderings:
        """Return the context scale's orderings of each group: average safety, critical where all its positions are."""
        P, safety_PK, critical_P = len(present_P), None, None
        if signals.has_safety("context"):
            safety_K = signals.safety.expand(signals.shape).double()
            safety_PK = average_rows(signals.select_counted(safety_K), row_x, P)
        if signals.names_critical:
            critical = (
                signals.critical_positions("context") if signals.names_critical_on("context") else signals.critical
            )
            critical_P = average_rows(signals.select_counted(critical).double(), row_x, P) == 1
        group_orderings = Signals(
            entropy=torch.zeros(P, self.polytope.n_teachers, dtype=torch.float64, device=signals.device),
            context=present_P if self.by == "context" else None,
            safety=safety_PK,
            critical=critical_P,
        )
        given, own = self.orderings, dict[OrderedScale, ScaleOrderings]()
        if given is not None and given.scale == "context" and (self.by == "context" or not given.by_group):
            own = {"context": given}
        return resolve_orderings(group_orderings, self.polytope, own, scored=self.ordered)
