"""Which axioms of pools one keeps: a search for counterexamples.  Axes: N rows, K teachers, V classes.

Convexity and temperature coherence cannot both hold of a pool that lets two teachers count.  A pool in the convex hull
of two teachers is ``(1 - s) p + s r``; one that commutes with every temperature is, in the limit of high temperatures,
where the hull is straight in the log-odds, ``p^(1-t) r^t / Z``.  Both at once ask ``(1 - s) + s x = c x^t`` of the
ratio ``x = r / p`` of each class: a line meets a strictly concave curve at most twice, so where three classes have
three ratios, one of the two teachers is all there is.  With two classes both can hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from .._number_checks import is_whole, require_seed
from .._operator_audit import AxiomFinding, OperatorAudit
from .._registry import find_operator
from ..errors import InvalidInput, SafekdError
from ..softening import PowerSoftening
from ._named_pools import POOLS
from ._pool_weights import PoolFunction


@dataclass(frozen=True)
class PoolAuditSettings:
    """What is tried; ``tests/safekd/pooling/test_pool_audit.py`` notices.

    Attributes:
        rows: Rows that are drawn, or taken of those given: one problem of least squares each.
        temperatures: At which coherence is looked at.
        shares: Through which the weight of a teacher is raised, from as it is to all.
        hull_weight: How heavily the nearest point of the hull is held to weights that sum to 1.
        halvings: How often the stretch with the largest change between two rows is halved in the search for a jump.
        jump: Total variation over the last stretch that is a jump, and none of a steep, continuous pool.
        small_weight: A weight next to 0, for what happens as a teacher that leaves out a class loses its last weight.
    """

    rows: int = 64
    temperatures: tuple[float, ...] = (0.25, 0.5, 2.0, 4.0)
    shares: int = 16
    hull_weight: float = 1e3
    halvings: int = 40
    jump: float = 1e-4
    small_weight: float = 1e-9


_SETTINGS = PoolAuditSettings()


def audit_pool(
    pool: PoolFunction | str,
    log_p_NKV: Tensor | None = None,
    w_NK: Tensor | None = None,
    *,
    teachers: int = 3,
    classes: int = 4,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> OperatorAudit:
    """Judge the five axioms of a pool by a search for counterexamples, on drawn teachers or your own.

    *convexity*: the pool lies in the teachers' convex hull.  *positivity*: a class to which all teachers give a
    probability has one.  *continuity*, in teachers and weights, where all are above 0.  *weight monotonicity*: more
    weight for a teacher, out of all others alike, never takes the pool farther from it.  *temperature coherence*:
    softening each teacher and then pooling is pooling and then softening.

    Args:
        pool: From log-probabilities (..., K, V) and weights (..., K) to log-probabilities (..., V); or a name of
            ``kd.pooling.POOLS``.
        log_p_NKV: Teachers to try it on, (N, K, V), of which a sample is taken; some are drawn if left out.
        w_NK: Weights, (N, K) or (K,), above 0, sum 1; drawn if left out.
        teachers: K of those that are drawn.
        classes: V of them.
        tolerance: Difference of probability, or nats, that is none.
        seed: Of what is drawn.

    Returns:
        A printable report with the numbers that refute what is violated, and what the two axioms that exclude each
        other mean here.

    Raises:
        InvalidInput: The pool cannot be called, or gives no distributions; or rows and weights do not fit each other.

    Source: the five axioms of arXiv:2601.09165, read as ``docs/ensembles.md`` says.
    """
    function: PoolFunction = find_operator(pool, POOLS, "pool")
    log_p_NKV, w_NK = _read_pooled_rows(log_p_NKV, w_NK, teachers, classes, seed)
    N, K, V = log_p_NKV.shape
    search = _PoolSearch(function, log_p_NKV, w_NK, tolerance)
    findings = tuple(search.judge())
    name = getattr(function, "__name__", repr(function))
    return OperatorAudit(
        f"{name} on {N} rows of {K} teachers and {V} classes", findings, (_explain_exclusion(findings, V),)
    )


def _explain_exclusion(findings: tuple[AxiomFinding, ...], classes: int) -> str:
    """Say what convexity and temperature coherence mean together."""
    kept = {one.axiom: one.holds for one in findings}
    convex, coherent = kept["convexity"], kept["temperature coherence"]
    exclude = "Convexity and temperature coherence exclude each other where three classes or more tell teachers apart"
    if convex and coherent:
        if classes == 2:
            return "Convexity and temperature coherence both hold: with two classes they can. With three they cannot."
        return f"{exclude}; here both hold, so a single teacher is all that the pool gives, or teachers are alike."
    if convex or coherent:
        has, lacks = ("convexity", "temperature coherence") if convex else ("temperature coherence", "convexity")
        return f"{exclude}: this pool has {has}, so it cannot have {lacks}."
    return f"{exclude}; this pool has neither."


def _read_pooled_rows(
    log_p_NKV: Tensor | None, w_NK: Tensor | None, teachers: int, classes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Return teachers and weights in float64, no more than are looked at."""
    generator = torch.Generator().manual_seed(require_seed(seed))
    if log_p_NKV is None:
        for name, size in (("teachers", teachers), ("classes", classes)):
            if not is_whole(size) or size < 2:
                raise InvalidInput(f"`{name}` is {size!r}; wanted a whole number of at least 2.")
        scale_N11 = torch.logspace(-0.5, 0.7, _SETTINGS.rows, dtype=torch.float64)[:, None, None]
        drawn_NKV = torch.randn(_SETTINGS.rows, teachers, classes, generator=generator, dtype=torch.float64)
        log_p_NKV = (scale_N11 * drawn_NKV).log_softmax(-1)
    if log_p_NKV.ndim < 2 or log_p_NKV.shape[-2] < 2 or log_p_NKV.shape[-1] < 2:
        raise InvalidInput(
            f"`log_p_NKV` has shape {tuple(log_p_NKV.shape)}; wanted (N, K, V) of at least two teachers and classes."
        )
    K = log_p_NKV.shape[-2]
    log_p_NKV = log_p_NKV.detach().double().flatten(0, -3) if log_p_NKV.ndim > 2 else log_p_NKV.double()[None]
    if not bool(((log_p_NKV.exp().sum(-1) - 1).abs() < 1e-2).all()):
        raise InvalidInput("`log_p_NKV` holds rows whose exponentials do not sum to 1; wanted log-probabilities.")
    log_p_NKV = log_p_NKV.log_softmax(-1)
    if w_NK is None:
        w_NK = 0.2 / K + 0.8 * torch.rand(len(log_p_NKV), K, generator=generator, dtype=torch.float64).log().neg()
        w_NK = w_NK / w_NK.sum(-1, keepdim=True)
    if w_NK.shape not in ((K,), (len(log_p_NKV), K)):
        raise InvalidInput(f"`w_NK` has shape {tuple(w_NK.shape)}; wanted ({K},) or ({len(log_p_NKV)}, {K}).")
    w_NK = w_NK.detach().double().expand(len(log_p_NKV), K)
    if not bool((w_NK > 0).all() and ((w_NK.sum(-1) - 1).abs() < 1e-3).all()):
        raise InvalidInput("`w_NK` holds weights that are not above 0, or do not sum to 1; the axioms are about those.")
    chosen = torch.randperm(len(log_p_NKV), generator=generator)[: _SETTINGS.rows].sort().values
    return log_p_NKV[chosen], w_NK[chosen] / w_NK[chosen].sum(-1, keepdim=True)


class _PoolSearch:
    def __init__(self, pool: PoolFunction, log_p_NKV: Tensor, w_NK: Tensor, tolerance: float) -> None:
        self._pool, self._log_p, self._w, self._tolerance = pool, log_p_NKV, w_NK, tolerance
        # of rows with zeros, what axioms about full support are read on
        self._full = log_p_NKV.exp().clamp_min(1e-12).log().log_softmax(-1)
        self._q = self._ask(log_p_NKV, w_NK)

    def judge(self) -> Iterator[AxiomFinding]:
        """Yield one finding an axiom."""
        yield self._judge_convexity()
        yield self._judge_positivity()
        yield self._judge_continuity()
        yield self._judge_monotonicity()
        yield self._judge_coherence()

    def _ask(self, log_p_NKV: Tensor, w_NK: Tensor) -> Tensor:
        try:
            answer = self._pool(log_p_NKV, w_NK)
        except SafekdError:
            raise
        except Exception as error:
            raise InvalidInput(f"The pool fails with {type(error).__name__}: {error}.") from error
        wanted = (*log_p_NKV.shape[:-2], log_p_NKV.shape[-1])
        if not isinstance(answer, Tensor) or answer.shape != wanted:
            found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise InvalidInput(f"The pool gives {found}; wanted the log of one distribution a row, {wanted}.")
        total = answer.double().exp().sum(-1)
        if not bool(((total - 1).abs() <= 1e-3).all()):
            worst = float(total.flatten()[(total - 1).abs().nan_to_num(torch.inf).argmax()])
            raise InvalidInput(f"The exponentials of what the pool gives sum to {worst:g}; wanted log-probabilities.")
        return answer.detach().double()

    def _find(self, axiom: str, worst: float, most: float, evidence: str, example: dict[str, Any]) -> AxiomFinding:
        if worst <= most:
            return AxiomFinding(axiom, "holds", max(worst, 0.0), evidence)
        return AxiomFinding(axiom, "violated", worst, evidence, example)

    def _example(self, n: int) -> dict[str, Any]:
        return {"teachers": self._log_p[n].exp().tolist(), "weights": self._w[n].tolist()}

    def _judge_convexity(self) -> AxiomFinding:
        nearest = [_find_nearest(p_KV, q_V) for p_KV, q_V in zip(self._log_p.exp(), self._q.exp(), strict=True)]
        gap = [float((q_V - at_V).abs().sum()) / 2 for q_V, at_V in zip(self._q.exp(), nearest, strict=True)]
        n = int(np.argmax(gap))
        example = {**self._example(n), "pool": self._q[n].exp().tolist(), "nearest in the hull": nearest[n].tolist()}
        evidence = "total variation from the nearest mixture of the teachers"
        return self._find("convexity", gap[n], self._tolerance, evidence, example)

    def _judge_positivity(self) -> AxiomFinding:
        q_NV = self._ask(self._full, self._w)
        least_N = q_NV.amin(-1)
        n = int(least_N.argmin())
        bad = bool(torch.isneginf(least_N[n]))
        cut_NKV = self._full.clone()
        cut_NKV[:, 0, 0] = -torch.inf
        try:
            vetoed = bool(torch.isneginf(self._ask(cut_NKV.log_softmax(-1), self._w)[:, 0]).any())
            veto = "has a veto: the pool leaves it out too" if vetoed else "has no veto: the pool keeps it"
        except SafekdError:
            veto = "is refused"
        evidence = f"classes to which all teachers give a probability; a teacher that leaves one out {veto}"
        example = {"teachers": self._full[n].exp().tolist(), "weights": self._w[n].tolist(), "pool": q_NV[n].exp()}
        example["pool"] = q_NV[n].exp().tolist()
        return self._find("positivity", 1.0 if bad else 0.0, 0.0, evidence, example)

    def _judge_continuity(self) -> AxiomFinding:
        other_NKV, other_NK = self._full.roll(1, 0), self._w.roll(1, 0)

        def at(t_N: Tensor) -> Tensor:
            p_NKV = ((1 - t_N[:, None, None]) * self._full + t_N[:, None, None] * other_NKV).log_softmax(-1)
            return self._ask(p_NKV, (1 - t_N[:, None]) * self._w + t_N[:, None] * other_NK).exp()

        low_N = torch.zeros(len(self._full), dtype=torch.float64)
        high_N = torch.ones_like(low_N)
        q_low, q_high = at(low_N), at(high_N)
        for _ in range(_SETTINGS.halvings):
            middle_N = (low_N + high_N) / 2
            q_middle = at(middle_N)
            left_N = (q_middle - q_low).abs().sum(-1) >= (q_high - q_middle).abs().sum(-1)
            high_N, low_N = torch.where(left_N, middle_N, high_N), torch.where(left_N, low_N, middle_N)
            q_high = torch.where(left_N[:, None], q_middle, q_high)
            q_low = torch.where(left_N[:, None], q_low, q_middle)
        jump_N = (q_high - q_low).abs().sum(-1) / 2
        n = int(jump_N.argmax())
        w_K = (1 - low_N[n]) * self._w[n] + low_N[n] * other_NK[n]
        p_KV = ((1 - low_N[n]) * self._full[n] + low_N[n] * other_NKV[n]).softmax(-1)
        example = {"teachers": p_KV.tolist(), "weights": w_K.tolist(), "pool": q_low[n].tolist()}
        example["pool a step of 1e-12 on"] = q_high[n].tolist()
        evidence = f"total variation left where paths between rows were halved 40 times; {self._look_at_boundary()}"
        return self._find("continuity", float(jump_N[n]), _SETTINGS.jump, evidence, example)

    def _look_at_boundary(self) -> str:
        """Say whether the pool jumps as a teacher that leaves out a class loses its last weight."""
        p_NKV = self._full.clone()
        p_NKV[:, 0, 0] = -torch.inf
        p_NKV, small = p_NKV.log_softmax(-1), _SETTINGS.small_weight
        others_NK = torch.cat([torch.zeros_like(self._w[:, :1]), self._w[:, 1:]], dim=-1)
        others_NK = others_NK / others_NK.sum(-1, keepdim=True)
        almost_NK = (1 - small) * others_NK
        almost_NK[:, 0] = small
        try:
            jump = (
                float((self._ask(p_NKV, others_NK).exp() - self._ask(p_NKV, almost_NK).exp()).abs().sum(-1).max()) / 2
            )
        except SafekdError:
            return "zeros of probability are refused"
        if jump <= _SETTINGS.jump:
            return "no jump where weights and probabilities reach 0 either"
        return f"where a teacher that leaves out a class loses its last weight, the pool jumps by {jump:.2g}"

    def _judge_monotonicity(self) -> AxiomFinding:
        worst, place = -np.inf, (0, 0, 0)
        shares = torch.linspace(0, 1, _SETTINGS.shares + 1, dtype=torch.float64)[:-1]
        weights = []
        for k in range(self._w.shape[-1]):
            raised = torch.zeros_like(self._w)
            raised[:, k] = 1.0
            weights.append([(1 - t) * self._w + t * raised for t in shares])
            p_NV = self._full[:, k]
            far_TN = torch.stack([(p_NV.exp() * (p_NV - self._ask(self._full, w_NK))).sum(-1) for w_NK in weights[k]])
            rise_TN = far_TN.diff(dim=0).nan_to_num(nan=torch.inf)
            if (rise := float(rise_TN.max())) > worst:
                worst, place = rise, (k, *divmod(int(rise_TN.argmax()), rise_TN.shape[1]))
        k, t, n = place
        before, after = weights[k][t][n], weights[k][t + 1][n]
        example = {"teachers": self._full[n].exp().tolist(), f"weights, teacher {k} raised from": before.tolist()}
        example |= {"to": after.tolist(), "nats farther from it": worst}
        evidence = "largest rise of KL(teacher || pool), nats, as the teacher's weight rises"
        return self._find("weight monotonicity", worst, self._tolerance, evidence, example)

    def _judge_coherence(self) -> AxiomFinding:
        soften, found = PowerSoftening(), []
        for T in _SETTINGS.temperatures:
            first_NV = self._ask(soften(self._full, T), self._w).exp()
            after_NV = soften(self._ask(self._full, self._w), T).exp()
            gap_N = (first_NV - after_NV).abs().sum(-1) / 2
            n = int(gap_N.argmax())
            found.append((float(gap_N[n]), T, n, first_NV[n].tolist(), after_NV[n].tolist()))
        worst, T, n, first, after = max(found)
        example = {"teachers": self._full[n].exp().tolist(), "weights": self._w[n].tolist(), "T": T}
        example |= {"softened, then pooled": first, "pooled, then softened": after}
        evidence = "total variation between softening before and after the pool"
        return self._find("temperature coherence", worst, self._tolerance, evidence, example)


def _find_nearest(p_KV: Tensor, q_V: Tensor) -> Tensor:
    """Return the mixture of some distributions that is nearest to another one in the Euclidean sense."""
    heavy = _SETTINGS.hull_weight
    A = np.vstack([p_KV.T.numpy(), np.full((1, len(p_KV)), heavy)])
    a_K, _ = nnls(A, np.append(q_V.numpy(), heavy))
    return torch.from_numpy(a_K / a_K.sum()) @ p_KV
