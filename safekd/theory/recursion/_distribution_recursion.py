"""Recursive meta-distillation of distributions alone, without training (arXiv 2601.13100).

    arithmetic   q_{n+1} = (1 - a) A(q_n) + a p
    geometric    q_{n+1} ~ A(q_n)^(1 - a) p^a

A is what a student makes of its target, the identity for a perfect one.  Then, for A = identity,

    KL(p || q_{n+1}) <= (1 - a) KL(p || q_n)       arithmetic, by convexity; equality is approached where p leaves out a
                                                   class: p = (1, 0), q = (s, 1 - s), s -> 1
    log q_{n+1} - log p = (1 - a) (log q_n - log p) + const       geometric, exactly

Axes: N generations, V classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr

from ..._number_checks import is_number, is_whole
from ...errors import InvalidInput

Form = Literal["arithmetic", "geometric"]
_SUM_ERROR = 1e-6  # how far given probabilities may sum beside 1: float32 rounds by less


@dataclass(frozen=True, repr=False)
class DistributionRecursion(ShortRepr):
    """The path of a recursion.

    Attributes:
        q: Distribution of each generation, (N + 1, ..., V), the start first.
        kl_to_anchor: ``KL(p || q_n)``, (N + 1, ...), nats.
        moved: Total variation between a generation and the one before, (N, ...).
        anchors: The share a of each step, N numbers.
        form: "arithmetic" or "geometric".
    """

    q: Tensor
    kl_to_anchor: Tensor
    moved: Tensor
    anchors: tuple[float, ...]
    form: Form

    @property
    def bound(self) -> Tensor:
        """``prod (1 - a) KL(p || q_0)``, what convexity promises a perfect student's recursion, (N + 1, ...)."""
        kept = torch.tensor([1.0, *(1 - a for a in self.anchors)], dtype=self.q.dtype, device=self.q.device).cumprod(0)
        return kept.reshape(-1, *[1] * (self.kl_to_anchor.ndim - 1)) * self.kl_to_anchor[0]

    @property
    def factors(self) -> Tensor:
        """``KL(p || q_{n+1}) / KL(p || q_n)``, (N, ...); NaN where both are zero."""
        return self.kl_to_anchor[1:] / self.kl_to_anchor[:-1]


def recurse_distributions(
    start: Tensor,
    base: Tensor,
    *,
    anchor: float | Sequence[float] = 0.3,
    generations: int = 20,
    form: Form = "arithmetic",
    student: Callable[[Tensor], Tensor] | None = None,
) -> DistributionRecursion:
    """Follow anchored recursion of distributions, ``q_{n+1} = (1 - a) A(q_n) + a p`` or its geometric form.

    Args:
        start: q_0, probabilities (..., V).
        base: p, the base teachers' pool, probabilities (..., V).
        anchor: The share a of the base teachers in each target, from 0 (unanchored) to 1; or one for each generation.
        generations: N, at least 1.
        form: "arithmetic" or "geometric".
        student: A, from probabilities (..., V) to probabilities (..., V); left out, the identity.

    Returns:
        The path.

    Raises:
        InvalidInput: Something is no distribution, shapes differ, or a number is out of range.

    Source: arXiv 2601.13100; the bound is convexity of the divergence (Cover and Thomas 2006, theorem 2.7.2).

    >>> p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.1, 0.2, 0.7])
    >>> run = recurse_distributions(q, p, anchor=0.5, generations=3)
    >>> bool((run.kl_to_anchor <= run.bound + 1e-12).all())
    True
    """
    shares = require_recursion(anchor, generations, form)
    p_V, q_V = require_distributions(base, "base"), require_distributions(start, "start")
    if p_V.shape[-1:] != q_V.shape[-1:]:
        raise InvalidInput(f"`start` has {q_V.shape[-1]} classes, `base` has {p_V.shape[-1]}; wanted the same.")
    shape = (q_V + p_V).shape
    q_V, p_V = q_V.expand(shape), p_V.expand(shape)
    path = [q_V]
    for share in shares:
        made_V = q_V if student is None else require_distributions(student(q_V), "what `student` gives")
        q_V = mix_with_anchor(made_V, p_V, share, form)
        path.append(q_V)
    q_NV = torch.stack(path)
    return DistributionRecursion(
        q=q_NV,
        kl_to_anchor=divergence_from(p_V, q_NV),
        moved=(q_NV[1:] - q_NV[:-1]).abs().sum(-1) / 2,
        anchors=shares,
        form=form,
    )


def mix_with_anchor(made_V: Tensor, base_V: Tensor, anchor: float, form: Form) -> Tensor:
    """Return the target of the next generation, (..., V).

    Args:
        made_V: Probabilities that the last generation gives, (..., V).
        base_V: Those of the base teachers, (..., V).
        anchor: The share of the base teachers.
        form: "arithmetic" or "geometric".
    """
    if form == "arithmetic":
        return (1 - anchor) * made_V + anchor * base_V
    shares = torch.tensor([1 - anchor, anchor], dtype=base_V.dtype, device=base_V.device)
    log_V = torch.xlogy(shares[0], made_V) + torch.xlogy(shares[1], base_V)  # a share of 0 asks nobody
    return torch.softmax(log_V, -1)


def divergence_from(p_V: Tensor, q_V: Tensor) -> Tensor:
    """Return ``KL(p || q)``, (...), nats; infinite where q leaves out a class of p.

    Args:
        p_V: Probabilities, (..., V).
        q_V: Probabilities, (..., V).
    """
    return (torch.xlogy(p_V, p_V) - torch.xlogy(p_V, q_V)).sum(-1).clamp_min(0)


def require_recursion(anchor: Any, generations: Any, form: Any) -> tuple[float, ...]:
    """Return the share of the base teachers for each generation.

    Args:
        anchor: From 0 to 1, or a sequence of such numbers, one a generation.
        generations: At least 1.
        form: "arithmetic" or "geometric".

    Raises:
        InvalidInput: One of them is none.
    """
    if not is_whole(generations) or generations < 1:
        raise InvalidInput(f"`generations` is {generations!r}; wanted a whole number, at least 1.")
    if form not in get_args(Form):
        raise InvalidInput(f"`form` is {form!r}; wanted 'arithmetic' or 'geometric'.")
    shares = [anchor] * int(generations) if is_number(anchor) else anchor
    if not isinstance(shares, (list, tuple)) or not all(is_number(a) and 0 <= a <= 1 for a in shares):
        raise InvalidInput(
            f"`anchor` is {anchor!r}; wanted the base teachers' share of each target, from 0 (unanchored) to 1, or a "
            "list of one for each generation."
        )
    if len(shares) != generations:
        raise InvalidInput(f"`anchor` has {len(shares)} shares for {generations} generations; wanted one each.")
    return tuple(float(a) for a in shares)


def require_distributions(p: Any, name: str) -> Tensor:
    """Return probabilities as float64, (..., V).

    Args:
        p: Numbers.
        name: What messages call them.

    Raises:
        InvalidInput: They are no distributions.
    """
    p_V = torch.as_tensor(p, dtype=torch.float64)
    if p_V.ndim < 1 or not bool((p_V >= 0).all()) or not bool(((p_V.sum(-1) - 1).abs() <= _SUM_ERROR).all()):
        raise InvalidInput(f"{name} holds what is no distribution; wanted probabilities (..., V), at least 0, sum 1.")
    return p_V
