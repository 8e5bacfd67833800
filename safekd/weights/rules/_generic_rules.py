"""Rules that belong to no scale.  Axes: ... positions, K teachers, V classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..._number_checks import is_whole
from ...data import expand_to_positions
from ...errors import InvalidInput, MissingSignal
from ...pooling import arithmetic_pool
from ..signals import Signals, soften
from ._weight_rule import register_rule, require_number


@dataclass(frozen=True)
class DivergenceDescentSettings:
    """When exponentiated gradient stops; ``tests/safekd/weights/test_weighting_rules.py`` compares it with cvxpy.

    Attributes:
        steps: How many steps at most; at strength 1 each halves the distance from the optimum, 40 reach rounding.
        tolerance: Largest change of a weight in a step at which it has arrived.
    """

    steps: int = 500
    tolerance: float = 1e-10


@register_rule
@dataclass(frozen=True)
class Uniform:
    """Every teacher alike, 1/K: classical distillation.

    Source: Proposition VI.6.
    """

    scale: ClassVar[str] = "any"
    needs: ClassVar[frozenset[str]] = frozenset()
    continuous: ClassVar[bool] = True

    def __call__(self, signals: Signals) -> Tensor:
        """Return 1/K, (..., K).

        Args:
            signals: The signals of a batch.
        """
        return signals.ones() / signals.shape[-1]


@register_rule
@dataclass(frozen=True)
class Routed:
    """All weight to one teacher, by the position's context or task: what is called multi-teacher routing.

    Multi-teacher on-policy distillation (MOPD) sends each prompt to one of several teachers; that is this rule, with
    the prompts' contexts or tasks.  A polytope with lower bounds turns it into a mixture in which the chosen teacher
    has the most: with ``lower=l`` the projection gives the others l and the chosen one ``1 - (K - 1) l``.

    Attributes:
        table: Number of the teacher of each group: a sequence, whose place c is group c, or a mapping from group.
        by: What a group is, "context" or "task".

    Raises:
        InvalidInput: The table is empty or holds what is no teacher's number; when read, a position's group is not in
            it, or its teacher is not there.
    """

    table: Sequence[int] | Mapping[int, int]
    by: Literal["context", "task"] = "context"
    scale: ClassVar[str] = "any"
    continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.by not in ("context", "task"):
            raise InvalidInput(f"`by` of Routed is {self.by!r}; wanted 'context' or 'task'.")
        if not self._pairs or not all(is_whole(n) and n >= 0 for pair in self._pairs.items() for n in pair):
            raise InvalidInput(
                f"`table` of Routed is {self.table!r}; wanted the number of the teacher of each {self.by}, from 0, "
                "such as [0, 1] or {0: 0, 7: 1}."
            )

    @property
    def needs(self) -> frozenset[str]:
        """The groups."""
        return frozenset({self.by})

    def __call__(self, signals: Signals) -> Tensor:
        """Return 1 for the group's teacher and 0 for the others, (..., K).

        Args:
            signals: The signals of a batch.

        Raises:
            MissingSignal: They name no contexts, or no tasks.
        """
        group = getattr(signals, self.by)
        if group is None:
            raise MissingSignal(f"Routed sends each position to the teacher of its {self.by}; pass `{self.by}`.")
        group, K = expand_to_positions(group, signals.shape[:-1]), signals.shape[-1]
        counted = torch.ones_like(group, dtype=torch.bool) if signals.mask is None else signals.mask
        numbers, teachers = torch.tensor(sorted(self._pairs.items()), device=group.device).T.contiguous()
        place = torch.searchsorted(numbers, group.contiguous()).clamp_max(len(numbers) - 1)
        if bool((strange := counted & (numbers[place] != group)).any()):
            raise InvalidInput(f"Routed knows no teacher for {self.by} {int(group[strange][0])}; add it to `table`.")
        chosen = teachers[place]
        if bool((beyond := counted & (chosen >= K)).any()):
            raise InvalidInput(
                f"Routed sends {self.by} {int(group[beyond][0])} to teacher {int(chosen[beyond][0])}, but there are "
                f"only {K} teachers, numbered from 0."
            )
        one_hot_K = torch.nn.functional.one_hot(chosen.clamp_max(K - 1), K).to(signals.ones())
        return torch.where(counted.unsqueeze(-1), one_hot_K, 1 / K)

    @property
    def _pairs(self) -> dict[int, int]:
        """Number of the teacher by number of the group."""
        table: Any = self.table
        is_list = isinstance(table, Sequence) and not isinstance(table, str)
        return dict(table.items() if isinstance(table, Mapping) else enumerate(table) if is_list else ())


@register_rule
@dataclass(frozen=True)
class MinDivergence:
    """Weights of the mixture that the student is nearest to, by exponentiated gradient.

    They solve ``argmin_w KL(sum_k w_k p_k || p_s) + 1/strength sum_k w_k log w_k``.  A mixture's divergence is no more
    than its weights', so the objective is smooth, and strongly convex, relative to the entropy of the weights: a step
    of ``strength / (1 + strength)`` brings the divergence from the optimum down by that same factor each time.  No
    gradient flows through the weights.

    Attributes:
        strength: Above 0: large ones follow the divergence, small ones stay near uniform weights.
        temperature: Above 0; softens teachers and student.
        descent: When the iteration stops.

    Source: Principle 3 of the paper; the rate is that of Lu, Freund and Nesterov 2018.
    """

    strength: float = 1.0
    temperature: float = 1.0
    descent: DivergenceDescentSettings = field(default=DivergenceDescentSettings(), repr=False)
    scale: ClassVar[str] = "any"
    needs: ClassVar[frozenset[str]] = frozenset({"log_p", "student_log_p"})
    continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_number(self, "strength", self.strength, above=0)
        require_number(self, "temperature", self.temperature, above=0)

    def __call__(self, signals: Signals) -> Tensor:
        """Return weights, (..., K), that sum to one.

        Args:
            signals: The signals of a batch.
        """
        log_p_KV = soften(signals.log_p.detach().double(), self.temperature)
        log_s_V = soften(signals.student_log_p.detach().double(), self.temperature)
        p_KV, step = log_p_KV.exp(), self.strength / (1 + self.strength)
        log_w_K = torch.zeros_like(p_KV[..., 0])
        w_K = torch.softmax(log_w_K, dim=-1)
        for _ in range(self.descent.steps):
            log_ratio_V = torch.nan_to_num(arithmetic_pool(log_p_KV, w_K) - log_s_V, neginf=0.0, posinf=0.0)
            gradient_K = (p_KV * log_ratio_V.unsqueeze(-2)).sum(-1)
            # log w - step (gradient + log w / strength): the entropy's own gradient joins in
            log_w_K = (1 - step / self.strength) * torch.log_softmax(log_w_K, dim=-1) - step * gradient_K
            before_K, w_K = w_K, torch.softmax(log_w_K, dim=-1)
            if not bool(((w_K - before_K).abs() > self.descent.tolerance).any()):
                break
        return w_K.to(signals.ones())
