"""Pools of teachers that say only their most probable classes, at a cost that does not grow with the vocabulary.

A table holds k classes of V and the mass of the others, its tail, which they share alike.  The pool of K such teachers
is known at the classes of any table, at most K k of them, and is one number at all others.  So weights and pool cost
``O(K k log(K k))`` a position, however large V is, and the pool of the tables is exact.  What the tables left out of
the teachers is bounded by ``bound_table_error``.  Without leaving out anything, each of the K V probabilities changes
the pool, so all must be read: ``O(K V)`` is the least of any exact pool.

Axes: ... positions, K teachers, k classes a table, M = K k classes of the pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr

from .._number_checks import is_whole
from .._precision import widen
from ..errors import InvalidInput


@dataclass(frozen=True, repr=False)
class PooledTable(ShortRepr):
    """A distribution over V classes, known one by one at some of them.

    Attributes:
        ids_M: The classes, (..., M); -1 where there is none.
        log_q_M: Their log-probabilities, (..., M); minus infinity where there is none.
        tail: Mass of all others together, (...), which they share alike.
        vocabulary: V.
    """

    ids_M: Tensor
    log_q_M: Tensor
    tail: Tensor
    vocabulary: int

    def to_dense(self) -> Tensor:
        """Return log-probabilities of all classes, (..., V)."""
        known_M = self.ids_M >= 0
        rest = (self.vocabulary - known_M.sum(-1)).clamp_min(1)
        each = (self.tail / rest).log().unsqueeze(-1)
        dense_V = each.expand(*self.ids_M.shape[:-1], self.vocabulary + 1).clone()  # the last takes what is none
        dense_V.scatter_(-1, self.ids_M.where(known_M, self.vocabulary), self.log_q_M)
        return dense_V[..., :-1]


def pool_tables(
    ids_Kk: Tensor, log_p_Kk: Tensor, tail_K: Tensor, w_K: Tensor, vocabulary: int, *, pool: str = "arithmetic"
) -> PooledTable:
    """Return the pool of teachers that are known by their most probable classes; it differentiates in the weights.

    Args:
        ids_Kk: Classes of each table, (..., K, k), all different within one.
        log_p_Kk: Their log-probabilities, (..., K, k).
        tail_K: Mass that each table leaves out, (..., K).
        w_K: Weights, (..., K), at least 0, sum 1.
        vocabulary: V, at least k.
        pool: "arithmetic" or "geometric".

    Returns:
        The pool at the classes of all tables, and its tail.

    Raises:
        InvalidInput: Shapes do not fit, a class is none or stands twice in a table, or there is no such pool.

    >>> ids = torch.tensor([[7, 2], [2, 5]])
    >>> log_p = torch.tensor([[0.6, 0.3], [0.5, 0.4]]).log()
    >>> q = pool_tables(ids, log_p, torch.tensor([0.1, 0.1]), torch.tensor([0.5, 0.5]), vocabulary=50_000)
    >>> q.ids_M[:3], q.log_q_M[:3].exp()
    (tensor([2, 5, 7]), tensor([0.4000, 0.2000, 0.3000]))
    """
    if pool not in ("arithmetic", "geometric"):
        raise InvalidInput(f"`pool` is {pool!r}; wanted 'arithmetic' or 'geometric': tables are pooled by these.")
    _require_tables(ids_Kk, log_p_Kk, tail_K, w_K, vocabulary)
    log_p_Kk, tail_K = widen(log_p_Kk), widen(tail_K).to(widen(log_p_Kk))
    w_K, k = widen(w_K).to(log_p_Kk), ids_Kk.shape[-1]
    each_K = tail_K / max(vocabulary - k, 1)
    sorted_M, order_M = ids_Kk.flatten(-2).sort(-1)
    if bool((ids_Kk.sort(-1).values.diff(dim=-1) == 0).any()):
        raise InvalidInput("A table holds a class twice; wanted each once.")
    begins_M = torch.ones_like(sorted_M, dtype=torch.bool)
    begins_M[..., 1:] = sorted_M[..., 1:] != sorted_M[..., :-1]
    place_M = begins_M.cumsum(-1) - 1  # which class of the pool each entry adds to
    count = begins_M.sum(-1, keepdim=True)
    known_M = torch.arange(sorted_M.shape[-1], device=sorted_M.device) < count
    out_M = torch.full_like(sorted_M, -1).scatter(-1, place_M, sorted_M)
    if pool == "arithmetic":
        gain_M = (w_K.unsqueeze(-1) * (log_p_Kk.exp() - each_K.unsqueeze(-1))).flatten(-2).gather(-1, order_M)
        base = (w_K * each_K).sum(-1)
        q_M = torch.zeros_like(gain_M).scatter_add(-1, place_M, gain_M) + base.unsqueeze(-1)
        tail = base * (vocabulary - count.squeeze(-1))
        return PooledTable(out_M, q_M.where(known_M, 1.0).log().masked_fill(~known_M, -torch.inf), tail, vocabulary)
    log_each_K1 = each_K.log().masked_fill(each_K == 0, 0.0).unsqueeze(-1)
    absent_Kk = torch.isneginf(log_p_Kk)
    gain_Kk = w_K.unsqueeze(-1) * (log_p_Kk.masked_fill(absent_Kk, 0.0) - log_each_K1)
    total_M = torch.zeros_like(gain_Kk).flatten(-2).scatter_add(-1, place_M, gain_Kk.flatten(-2).gather(-1, order_M))
    # a teacher without tail, and with a weight, has a veto over what its table lacks
    strict_K1 = ((each_K == 0) & (w_K > 0)).unsqueeze(-1)
    voices_Kk = (strict_K1 & ~absent_Kk).to(gain_Kk) - (~strict_K1 & absent_Kk & (w_K.unsqueeze(-1) > 0)).to(gain_Kk)
    voice_M = torch.zeros_like(total_M).scatter_add(-1, place_M, voices_Kk.flatten(-2).gather(-1, order_M))
    strict = strict_K1.sum((-2, -1)).to(gain_Kk)
    base = (w_K * log_each_K1.squeeze(-1)).sum(-1)
    log_q_M = (total_M + base.unsqueeze(-1)).masked_fill(~known_M | (voice_M < strict.unsqueeze(-1)), -torch.inf)
    log_rest = base + (vocabulary - count.squeeze(-1)).to(base).log()
    log_rest = log_rest.masked_fill(strict > 0, -torch.inf)
    log_Z = torch.logsumexp(torch.cat([log_q_M, log_rest.unsqueeze(-1)], dim=-1), dim=-1)
    if bool(torch.isneginf(log_Z).any()):
        raise InvalidInput("The tables leave out every class between them; give them tails, or take 'arithmetic'.")
    return PooledTable(out_M, log_q_M - log_Z.unsqueeze(-1), (log_rest - log_Z).exp(), vocabulary)


def bound_table_error(least_p_K: Tensor, tail_K: Tensor, w_K: Tensor, kept: int, vocabulary: int) -> Tensor:
    """Return how far the arithmetic pool of tables is from that of the teachers themselves, at most: total variation.

    ``sum_k w_k t_k max(0, 1 - t_k / (n p_k))`` with t the tail, n = V - k classes in it, and p the least probability
    that the table keeps: no class of the tail has more, so it spreads over t / p classes at least.  The gradient of the
    forward divergence in the student's logits, at temperature 1, is off by twice that in sum at most.  It is reached
    where all teachers have their tails on the same t / p classes, a whole number of them.

    Args:
        least_p_K: The least probability that each table keeps, (..., K).
        tail_K: Mass that each table leaves out, (..., K).
        w_K: Weights, (..., K), or (K,).
        kept: k.
        vocabulary: V.

    Returns:
        The bound, (...).

    Raises:
        InvalidInput: Shapes do not fit, or the numbers are none of tables.
    """
    if least_p_K.shape != tail_K.shape or w_K.shape not in (tail_K.shape, tail_K.shape[-1:]):
        raise InvalidInput(
            f"Least probabilities {tuple(least_p_K.shape)}, tails {tuple(tail_K.shape)} and weights {tuple(w_K.shape)} "
            "do not fit; wanted one number a teacher each."
        )
    if not is_whole(kept) or not is_whole(vocabulary) or not 0 < kept <= vocabulary:
        raise InvalidInput(f"`kept` is {kept!r} of `vocabulary` {vocabulary!r}; wanted whole numbers, 0 < k <= V.")
    rest, tail_K, least_p_K = vocabulary - kept, tail_K.double(), least_p_K.double()
    if rest == 0:
        return torch.zeros_like(tail_K[..., 0])
    spread_K = torch.where(tail_K > 0, tail_K / (rest * least_p_K.clamp_min(torch.finfo(torch.float64).tiny)), 0.0)
    return (w_K.double() * tail_K * (1 - spread_K).clamp_min(0.0)).sum(-1)


def _require_tables(ids_Kk: Tensor, log_p_Kk: Tensor, tail_K: Tensor, w_K: Tensor, vocabulary: int) -> None:
    shapes = (tuple(ids_Kk.shape), tuple(log_p_Kk.shape), tuple(tail_K.shape), tuple(w_K.shape))
    if ids_Kk.ndim < 2 or shapes[1] != shapes[0] or shapes[2] != shapes[0][:-1] or shapes[3] != shapes[2]:
        raise InvalidInput(
            f"Classes {shapes[0]}, log-probabilities {shapes[1]}, tails {shapes[2]} and weights {shapes[3]} do not "
            "fit; wanted (..., K, k) twice and (..., K) twice."
        )
    if not is_whole(vocabulary) or vocabulary < ids_Kk.shape[-1]:
        raise InvalidInput(f"`vocabulary` is {vocabulary!r} for tables of {ids_Kk.shape[-1]}; wanted at least that.")
    if ids_Kk.is_floating_point() or bool(((ids_Kk < 0) | (ids_Kk >= vocabulary)).any()):
        raise InvalidInput(f"A table holds a class that is none; wanted whole numbers from 0 to {vocabulary - 1}.")
    mass_K = log_p_Kk.double().exp().sum(-1) + tail_K
    if not bool(((mass_K - 1).abs() < 1e-2).all() and (tail_K >= 0).all()):
        worst = float(mass_K.flatten()[(mass_K - 1).abs().nan_to_num(torch.inf).argmax()])
        raise InvalidInput(f"A table and its tail sum to {worst:g}; wanted log-probabilities and a tail, together 1.")
    if not bool((w_K >= 0).all() and ((w_K.double().sum(-1) - 1).abs() < 1e-2).all()):
        raise InvalidInput("Weights are negative or do not sum to 1; project them first.")
