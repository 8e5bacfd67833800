"""One number read from a student: the average of a measure over some examples, or over a mix of groups of them.

    plain     mean over all that are covered
    mix       sum_g share_g mean_g, the groups weighed as in use and not as in the data (importance weights)
    worst     min over mixes q in a ball of sum_g q_g mean_g

All are ``sum_g gradient_g mean_g`` with a gradient that adds up to 1 (for ``worst`` by the envelope theorem), so all
that is ever kept of data is sums and counts a group, which batches and ranks can add up before dividing.  Axes: G
groups, ... positions, V classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from .._number_checks import is_finite
from ..data import PLURAL, Batch, Group, GroupNames, Key, expand_to_positions, mark_groups, show_groups
from ..errors import InvalidInput
from ._mix_balls import Ball
from ._safety_measure import SafetyMeasure


@dataclass(frozen=True, eq=False)
class GroupSums:
    """Sums over the covered positions of each group, float64; only the surrogate's carry a gradient.

    Attributes:
        surrogate_G: Sums of the surrogate, (G,).
        measured_G: Sums of the measured values, (G,).
        measured_squares_G: Sums of their squares, (G,).
        count_G: Positions, (G,).
    """

    surrogate_G: Tensor
    measured_G: Tensor
    measured_squares_G: Tensor
    count_G: Tensor

    def __add__(self, other: GroupSums) -> GroupSums:
        return GroupSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @classmethod
    def concatenate(cls, parts: Iterable[GroupSums]) -> GroupSums:
        """Return the groups of several sums one after the other.

        Args:
            parts: Sums of G_1, G_2, ... groups.

        Returns:
            Sums of all of them.
        """
        several = list(parts)
        if len(several) == 1:
            return several[0]
        return cls(*(torch.cat([getattr(part, f.name) for part in several]) for f in fields(cls)))

    def detach(self) -> GroupSums:
        """Return the same numbers without gradient."""
        return GroupSums(*(getattr(self, f.name).detach() for f in fields(self)))

    def require_gradient(self) -> GroupSums:
        """Return the same numbers, the surrogates' sums as leaves, whose gradient is what each sum counts."""
        return replace(self.detach(), surrogate_G=self.surrogate_G.detach().clone().requires_grad_())

    def means(self) -> Tensor:
        """Return the averages of the measured values, (G,); not a number where a group has no example."""
        return self.measured_G / self.count_G

    def variances(self) -> Tensor:
        """Return the squared standard errors of ``means``, (G,); not a number below two examples."""
        variance_G = (self.measured_squares_G - self.measured_G * self.means()).clamp_min(0) / (self.count_G - 1)
        return torch.where(self.count_G > 1, variance_G / self.count_G, torch.nan)


@dataclass(frozen=True)
class Average:
    """A measure, averaged over the examples of some contexts, tasks and classes.

    Attributes:
        measure: What is read.
        contexts: Only examples of these contexts count, numbers or names; None for all.
        tasks: Only examples of these tasks count; None for all.
        classes: Only examples with these labels count; None for all.
        average: "critical" averages over examples with a critical label, "all" counts every other example as 1
            (Definition VIII.3).
        mix: What share each group has in use, by number or name, above 0, sum 1; examples of other groups do not count.
        by: What a group is, "context", "task" or "class".
        worst: The worst mix in this ball around ``mix``, or, without one, around the shares that the groups have in the
            data; the groups are then those that ``contexts``, ``tasks`` or ``classes`` name, or the critical classes.
        who: What messages call it.

    Raises:
        InvalidInput: Settings do not fit together.

    Source: Definition VIII.3; mixes and balls are ours.
    """

    measure: SafetyMeasure
    contexts: Collection[Group] | None = None
    tasks: Collection[Group] | None = None
    classes: Collection[Group] | None = None
    average: str = "critical"
    mix: Mapping[Group, float] | None = None
    by: Key = "context"
    worst: Ball | None = None
    who: str = field(default="Average", repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.measure, SafetyMeasure):
            raise InvalidInput(
                f"{self.who}: measure is a {type(self.measure).__name__}; "
                "wanted a safety measure such as kd.safety.TruthProbability(critical=[0])."
            )
        for key, what in PLURAL.items():
            named = getattr(self, what)
            if named is not None and (isinstance(named, str) or not isinstance(named, Collection)):
                raise InvalidInput(f"{self.who}: {what} is {named!r}; wanted a list of them, such as [{named!r}].")
            if named is not None and len(tuple(named)) == 0:
                raise InvalidInput(
                    f"{self.who}: {what} is empty, so nobody is covered; "
                    f"name at least one {key}, or leave it out for all."
                )
        if not isinstance(self.average, str) or self.average not in ("critical", "all"):
            raise InvalidInput(f"{self.who}: average is {self.average!r}; wanted 'critical' or 'all'.")
        if not isinstance(self.by, str) or self.by not in PLURAL:
            raise InvalidInput(f"{self.who}: by is {self.by!r}; wanted 'context', 'task' or 'class'.")
        if self.worst is not None and not isinstance(self.worst, Ball):
            raise InvalidInput(f"{self.who}: worst is {self.worst!r}; wanted a ball such as kd.safety.KLBall(0.1).")
        if self.mix is not None:
            self._require_mix(self.mix)
        elif self.worst is not None:
            self._require_groups()

    def with_names(self, names: GroupNames) -> Average:
        """Return the same average with numbers in place of names of classes, contexts and tasks.

        Args:
            names: Of the split on which it is read.

        Raises:
            InvalidInput: The split has no such name; the message has those that it has.
        """
        if not self.measure.class_names and not self._named_groups:
            return self
        chosen = {what: getattr(self, what) for what in PLURAL.values()}
        numbers: dict[str, Any] = {
            what: None if chosen[what] is None else names.numbers(key, chosen[what]) for key, what in PLURAL.items()
        }
        numbers["mix"] = None if self.mix is None else names.number_keys(self.by, self.mix)
        return replace(self, measure=self.measure.with_names(names), **numbers)

    @property
    def _named_groups(self) -> list[str]:
        """Contexts, tasks and classes that are given by name, not yet by number."""
        given = [getattr(self, what) or () for what in PLURAL.values()] + [self.mix or ()]
        return [group for groups in given for group in groups if isinstance(group, str)]

    @property
    def _given_groups(self) -> Collection[Group]:
        """The groups that are read apart, as they were given."""
        if self.mix is not None or self.worst is None:
            return self.mix or ()
        named: Collection[Group] | None = getattr(self, PLURAL[self.by])
        if named is None and self.by == "class" and self.average == "critical":
            named = self.measure.critical
        return named or ()

    @property
    def groups(self) -> tuple[int, ...]:
        """Numbers of the groups that are read apart, in order; empty where there is one average over all."""
        return self._read_numbers(self._given_groups)

    @property
    def size(self) -> int:
        """How many sums of each kind this average keeps, G."""
        return max(1, len(self._given_groups))

    def _read_numbers(self, groups: Collection[Group]) -> tuple[int, ...]:
        if named := [group for group in groups if isinstance(group, str)]:
            raise InvalidInput(
                f"{self.who} names '{named[0]}'; which number that is says a split: "
                "constraint.with_names(split.names), for Split(..., context_names=[...])."
            )
        return tuple(sorted(int(group) for group in groups))

    def members(self, batch: Batch) -> Tensor:
        """Say which positions each group averages over.

        Args:
            batch: Examples.

        Returns:
            Bool, (G, ...).
        """
        covered = self._candidates(batch)
        if not self.groups:
            return covered.unsqueeze(0)
        value = _group_numbers(batch, self.by)
        return torch.stack([covered & (value == group) for group in self.groups])

    def _candidates(self, batch: Batch) -> Tensor:
        """Say which positions count, in whichever group."""
        if self.average == "critical":
            covered = self.measure.is_critical(batch.labels)
        else:
            covered = torch.ones_like(batch.labels, dtype=torch.bool)
        if batch.mask is not None:
            covered = covered & batch.mask
        for key, what in PLURAL.items():
            named = getattr(self, what)
            if named is not None:
                value = _group_numbers(batch, key)
                covered = covered & mark_groups(value, frozenset(self._read_numbers(named)))
        return covered

    def covers(self, batch: Batch) -> Tensor:
        """Say which positions of a batch are averaged.

        Args:
            batch: Examples.

        Returns:
            Bool, shape of the labels.
        """
        return self.members(batch).any(0) if self.groups else self._candidates(batch)

    def sums(self, log_p_V: Tensor, batch: Batch) -> GroupSums:
        """Return each group's sums over a batch; of positions that are not covered not even a NaN gets in.

        Args:
            log_p_V: The student's log-probabilities, (..., V); finite where a position does not count, or the gradient
                is not, which is what ``Batch.fill_uncounted`` is for.
            batch: The examples that they are about.

        Returns:
            Sums, (G,) each.
        """
        surrogate = self.measure.surrogate(log_p_V, batch.labels).double()
        with torch.no_grad():
            measured = (
                surrogate if self.measure.is_differentiable else self.measure.measured(log_p_V, batch.labels).double()
            )
        if not self.groups:  # the most common, in the fewest operations: it is read at every step
            inside = self.covers(batch)
            surrogate = torch.where(inside, surrogate, 0.0)
            measured = surrogate.detach() if self.measure.is_differentiable else torch.where(inside, measured, 0.0)
            return GroupSums(*(x.sum().reshape(1) for x in (surrogate, measured, measured * measured, inside.double())))
        inside_G = self.members(batch).flatten(1)
        each = torch.stack([surrogate, measured, measured * measured]).flatten(1)
        sum_Gx = torch.where(inside_G.unsqueeze(1), each, 0.0).sum(-1)
        _, measured_G, measured_squares_G = sum_Gx.detach().unbind(1)
        return GroupSums(sum_Gx[:, 0], measured_G, measured_squares_G, inside_G.sum(-1).double())

    def measured_values(self, log_p_V: Tensor, batch: Batch) -> list[Tensor]:
        """Return the measured values of each group's positions.

        Args:
            log_p_V: The student's log-probabilities, (..., V).
            batch: The examples that they are about.

        Returns:
            One tensor (n,) a group, float64.
        """
        measured = self.measure.measured(log_p_V, batch.labels).double()
        return [measured[inside] for inside in self.members(batch)]

    def surrogate_values(self, log_p_V: Tensor, batch: Batch) -> Tensor:
        """Return the surrogate of each position that counts, in whichever group.

        Args:
            log_p_V: The student's log-probabilities, (..., V).
            batch: The examples that they are about.

        Returns:
            Values, (n,).
        """
        return self.measure.surrogate(log_p_V, batch.labels)[self.covers(batch)]

    def gradient(self, mean_G: Tensor, count_G: Tensor, *, surrogate: bool = False) -> Tensor:
        """Return the gradient of the average by the groups' means: the mix at which they are read.

        Args:
            mean_G: Means, (G,).
            count_G: Examples of each group in the data, whose shares are the center of the ball where no mix is given,
                (G,).
            surrogate: Whether to take the mix that training follows in place of the worst one, whose value has kinks;
                see Ball.

        Returns:
            Shares that sum to 1, (G,), float64, without gradient.
        """
        if not self.groups:
            return torch.ones(1, dtype=torch.float64, device=mean_G.device)
        share_G = count_G / count_G.sum() if self.mix is None else self._shares().to(mean_G.device)
        if self.worst is None:
            return share_G
        mix = self.worst.surrogate if surrogate else self.worst.worst
        q_G = mix(mean_G.detach().cpu().numpy(), share_G.cpu().numpy())
        return torch.from_numpy(q_G).to(mean_G.device)

    def names(self, names: GroupNames) -> list[str]:
        """Return what messages call the groups.

        Args:
            names: Of the split on which it is read.

        Returns:
            One name a group, "context 3 ('night')"; one empty name where there are no groups.
        """
        return [names.describe(self.by, group) for group in self.groups] or [""]

    def _shares(self) -> Tensor:
        mix = self.mix or {}
        share_G = torch.tensor([float(mix[group]) for group in self.groups], dtype=torch.float64)
        return share_G / share_G.sum()

    def _require_mix(self, mix: Mapping[Group, float]) -> None:
        if not isinstance(mix, Mapping) or not mix:
            raise InvalidInput(
                f"{self.who}: mix is {mix!r}; wanted the share of each {self.by}, such as {{0: 0.4, 1: 0.6}}."
            )
        for group, share in mix.items():
            if not (is_finite(share) and share > 0):
                raise InvalidInput(
                    f"{self.who}: {self.by} {group} has share {share!r} in the mix; wanted a number above 0. "
                    "Leave groups out that do not occur."
                )
        if abs(sum(mix.values()) - 1) > 1e-6:
            raise InvalidInput(
                f"{self.who}: the shares of the mix sum to {sum(mix.values()):g}; wanted 1. Divide them by their sum, "
                f"or add the {self.by} that is missing."
            )
        if getattr(self, PLURAL[self.by]) is not None:
            raise InvalidInput(
                f"{self.who}: mix says already which {PLURAL[self.by]} count; leave {PLURAL[self.by]}= out."
            )
        if self.by == "class" and self.average == "critical" and self.measure.critical is not None:
            strange = sorted(set(mix) - self.measure.critical, key=str)
            if strange and not self.measure.class_names and not self._named_groups:
                raise InvalidInput(
                    f"{self.who}: class {strange[0]} has a share in the mix, but is not among the critical classes "
                    f"{show_groups(self.measure.critical)} of {self.measure!r}."
                )

    def _require_groups(self) -> None:
        if len(self._given_groups) < 2:
            raise InvalidInput(
                f"{self.who}: the worst mix of {len(self._given_groups)} groups was asked for; wanted at least two. "
                f"Name the groups: mix={{0: 0.4, 1: 0.6}}, or {PLURAL[self.by]}=[0, 1]."
            )


def _group_numbers(batch: Batch, key: str) -> Tensor:
    """Return each position's context, task or class, shape of the labels."""
    if key == "class":
        return batch.labels
    return expand_to_positions(batch.context if key == "context" else batch.task, batch.labels.shape)
