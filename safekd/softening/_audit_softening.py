"""Which axioms a softening operator keeps, by a search for counterexamples.  Axes: N rows, V classes, S temperatures.

Read so: *rank*, two classes never change places; *continuity* in T; *entropy*, never falls as T rises; *identity* at
T = 1; *limit*, uniform over the classes that have a probability, or over all, as T grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._number_checks import require_seed
from .._operator_audit import AxiomFinding, OperatorAudit
from .._registry import find_operator
from ..errors import InvalidInput, SafekdError
from ._named_softenings import SOFTENINGS

Operator = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class SofteningAuditSettings:
    """What is tried; ``tests/safekd/softening/test_softening.py`` notices.

    Attributes:
        rows: Distributions that are drawn, from nearly uniform to nearly certain.
        classes: V of them.
        temperatures: At which they are softened, rising; operators that say so begin at their ``least``.
        hottest: The temperature that stands for infinity: within ``limit_error`` of uniform is in the limit.
        limit_error: Total variation from uniform that is none at the hottest temperature.
        halvings: How often each stretch of temperatures is halved, where it is steepest, in the search for a jump.
        jump: Total variation over the last stretch that is a jump, and none of a steep, continuous operator.
    """

    rows: int = 64
    classes: int = 6
    temperatures: tuple[float, ...] = (0.25, 0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0)
    hottest: float = 1e4
    limit_error: float = 1e-2
    halvings: int = 40
    jump: float = 1e-4


_SETTINGS = SofteningAuditSettings()


def audit_softening(
    operator: Operator | str, log_p_NV: Tensor | None = None, *, tolerance: float = 1e-6, seed: int = 0
) -> OperatorAudit:
    """Judge the five axioms of a softening operator by a search for counterexamples.

    Args:
        operator: From log-probabilities (..., V) and a temperature to log-probabilities (..., V): a ``Softening``, a
            name of ``SOFTENINGS``, or a function of your own.
        log_p_NV: Distributions to try it on, (N, V); some are drawn if left out.
        tolerance: Difference of probability that is none.
        seed: Of what is drawn.

    Returns:
        A printable report with the numbers that refute what is violated.

    Raises:
        InvalidInput: The operator cannot be called, or does not return distributions of the same shape.
    """
    function: Operator = find_operator(operator, SOFTENINGS, "operator")
    log_p_NV = draw_distributions(seed) if log_p_NV is None else log_p_NV.detach().double()
    if log_p_NV.ndim != 2 or not bool((log_p_NV.exp().sum(-1) - 1).abs().amax() < 1e-3):
        raise InvalidInput(f"`log_p_NV` has shape {tuple(log_p_NV.shape)}; wanted rows of log-probabilities, (N, V).")
    least = float(getattr(function, "least", 0.0))
    T_S = [T for T in _SETTINGS.temperatures if least <= T]
    q_SNV = torch.stack([_ask_softening(function, log_p_NV, T).exp() for T in T_S])
    judged = _Judged(function, log_p_NV, T_S, q_SNV, tolerance)
    subject = f"{function!r} on {len(log_p_NV)} distributions of {log_p_NV.shape[-1]} classes, T from {T_S[0]:g}"
    return OperatorAudit(subject, tuple(judged.judge()))


def draw_distributions(seed: int) -> Tensor:
    """Return log-probabilities from nearly uniform to nearly certain, (N, V), float64.

    Args:
        seed: Of what is drawn.
    """
    generator = torch.Generator().manual_seed(require_seed(seed))
    scale_N1 = torch.logspace(-1, 1, _SETTINGS.rows, dtype=torch.float64).unsqueeze(-1)
    drawn_NV = torch.randn(_SETTINGS.rows, _SETTINGS.classes, generator=generator, dtype=torch.float64)
    return (scale_N1 * drawn_NV).log_softmax(-1)


def _ask_softening(operator: Operator, log_p_NV: Tensor, T: float) -> Tensor:
    try:
        answer = operator(log_p_NV, T)
    except SafekdError:
        raise
    except Exception as error:
        raise InvalidInput(f"The operator fails at temperature {T:g} with {type(error).__name__}: {error}.") from error
    shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
    if not isinstance(answer, Tensor) or answer.shape != log_p_NV.shape:
        raise InvalidInput(f"The operator gives {shape} for {tuple(log_p_NV.shape)}; wanted the same shape.")
    total_N = answer.double().exp().sum(-1)
    if not bool(((total_N - 1).abs() <= 1e-3).all()):
        worst = float(total_N[(total_N - 1).abs().nan_to_num(torch.inf).argmax()])
        raise InvalidInput(
            f"At temperature {T:g} the operator's exponentials sum to {worst:g}; wanted log-probabilities, for "
            "instance torch.log_softmax(log_p / T, dim=-1)."
        )
    return answer.detach().double()


class _Judged:
    def __init__(self, operator: Operator, log_p_NV: Tensor, T_S: list[float], q_SNV: Tensor, tolerance: float) -> None:
        self._operator, self._log_p, self._T, self._q, self._tolerance = operator, log_p_NV, T_S, q_SNV, tolerance

    def judge(self) -> Iterator[AxiomFinding]:
        """Yield one finding an axiom."""
        yield self._judge_rank()
        yield self._judge_continuity()
        yield self._judge_entropy()
        yield self._judge_identity()
        yield self._judge_limit()

    def _find(self, axiom: str, worst: float, most: float, evidence: str, example: dict[str, Any]) -> AxiomFinding:
        if worst <= most:
            return AxiomFinding(axiom, "holds", max(worst, 0.0), evidence)
        return AxiomFinding(axiom, "violated", worst, evidence, example)

    def _example(self, s: int, n: int) -> dict[str, Any]:
        return {"p": self._log_p[n].exp().tolist(), "T": self._T[s], "softened": self._q[s, n].tolist()}

    def _judge_rank(self) -> AxiomFinding:
        order_NV = self._log_p.argsort(dim=-1, descending=True, stable=True)
        sorted_SNV = self._q.gather(-1, order_NV.expand_as(self._q))
        swap_SN = sorted_SNV.diff(dim=-1).amax(-1)
        s, n = divmod(int(swap_SN.argmax()), swap_SN.shape[1])
        evidence = "largest lead in probability of a class over one that was more probable before"
        return self._find("rank", float(swap_SN[s, n]), self._tolerance, evidence, self._example(s, n))

    def _judge_continuity(self) -> AxiomFinding:
        stretches = [self._narrow(s) for s in range(len(self._T) - 1)]
        low, high, q_low, q_high = max(stretches, key=lambda stretch: _far(*stretch[2:]))
        n = int((q_high - q_low).abs().sum(-1).argmax())
        example = {"p": self._log_p[n].exp().tolist(), "T": low, "softened": q_low[n].tolist()}
        example |= {"T a little above": high, "then": q_high[n].tolist()}
        evidence = "total variation that is left where each stretch of T was halved 40 times, where it is steepest"
        return self._find("continuity", _far(q_low, q_high), _SETTINGS.jump, evidence, example)

    def _narrow(self, s: int) -> tuple[float, float, Tensor, Tensor]:
        """Return the part of a stretch of temperatures in which most happens, and the distributions at its ends."""
        low, high, q_low, q_high = self._T[s], self._T[s + 1], self._q[s], self._q[s + 1]
        for _ in range(_SETTINGS.halvings):
            middle = (low + high) / 2
            q_middle = _ask_softening(self._operator, self._log_p, middle).exp()
            if _far(q_low, q_middle) >= _far(q_middle, q_high):
                high, q_high = middle, q_middle
            else:
                low, q_low = middle, q_middle
        return low, high, q_low, q_high

    def _judge_entropy(self) -> AxiomFinding:
        entropy_SN = -torch.where(self._q > 0, self._q * self._q.log(), 0.0).sum(-1)
        fall_SN = -entropy_SN.diff(dim=0)
        s, n = divmod(int(fall_SN.argmax()), fall_SN.shape[1])
        example = {**self._example(s, n), "T higher": self._T[s + 1], "then": self._q[s + 1, n].tolist()}
        evidence = "largest fall of entropy, nats, from one temperature to the next"
        return self._find("entropy", float(fall_SN[s, n]), self._tolerance, evidence, example)

    def _judge_identity(self) -> AxiomFinding:
        one_NV = _ask_softening(self._operator, self._log_p, 1.0).exp()
        off_N = (one_NV - self._log_p.exp()).abs().sum(-1) / 2
        n = int(off_N.argmax())
        example = {"p": self._log_p[n].exp().tolist(), "softened at T = 1": one_NV[n].tolist()}
        evidence = "total variation from the distribution itself at T = 1"
        return self._find("identity", float(off_N[n]), self._tolerance, evidence, example)

    def _judge_limit(self) -> AxiomFinding:
        hot_NV = _ask_softening(self._operator, self._log_p, _SETTINGS.hottest).exp()
        known_NV = ~torch.isneginf(self._log_p)
        there_NV = known_NV.double() / known_NV.sum(-1, keepdim=True)
        flat_NV = torch.full_like(hot_NV, 1 / hot_NV.shape[-1])
        off_N = torch.minimum((hot_NV - there_NV).abs().sum(-1), (hot_NV - flat_NV).abs().sum(-1)) / 2
        n = int(off_N.argmax())
        example = {"p": self._log_p[n].exp().tolist(), "T": _SETTINGS.hottest, "softened": hot_NV[n].tolist()}
        evidence = f"total variation from uniform at T = {_SETTINGS.hottest:g}"
        return self._find("limit", float(off_N[n]), _SETTINGS.limit_error, evidence, example)


def _far(a_NV: Tensor, b_NV: Tensor) -> float:
    """Return the largest total variation between two rows."""
    return float((a_NV - b_NV).abs().sum(-1).amax() / 2)
