"""Loss of each position of a chunk, and its derivatives in closed form.

With s the student's distribution, q the target, both softened, and D = log q - log s,

                  loss L                              gradient in the logits / T        a = dL/dq up to a constant
    forward KL    sum q D                             s - q                             D
    reverse KL    -sum s D                            -s (D + L)                        -s / q
    JS            b sum q log(q/m)                    (1 - b) s (log(s/m) - KL(s||m))   b log(q/m)
                    + (1 - b) sum s log(s/m)          with m = b q + (1 - b) s

all times T^2.  ``u = a - E_q a`` is what weights see (``_chunk_pools``).  Terms with a probability of zero are zero.
Axes: C positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...divergences import ForwardKL, JensenShannon, ReverseKL, TemperedDivergence
from ...errors import InvalidInput

_FAR = 100.0  # exp(-100) is 0 in float32: beyond, the mixture is one of its two sides


@dataclass
class ChunkLoss:
    """Losses of a chunk, and what their gradient is made of.

    Attributes:
        loss_C: One loss a position, without T^2.
        gradient_CV: Gradient in the student's logits over T, (C, V); None where it was not asked for.
        u_CV: ``a - E_q a`` times q, (C, V), whose sum over V is 0; None where weights do not learn.
    """

    loss_C: Tensor
    gradient_CV: Tensor | None
    u_CV: Tensor | None


def require_divergence(divergence: object) -> TemperedDivergence:
    """Return the divergence, if its derivatives are known here.

    Args:
        divergence: What was given.

    Raises:
        InvalidInput: It is another one.
    """
    if isinstance(divergence, (ForwardKL, ReverseKL, JensenShannon)):
        return divergence
    raise InvalidInput(
        f"`divergence` is {divergence!r}; wanted ForwardKL(), ReverseKL() or JSD(beta): the gradients of a vocabulary "
        "are worked out in closed form."
    )


def compare_chunk(
    divergence: TemperedDivergence,
    log_s_CV: Tensor,
    s_CV: Tensor,
    log_q_CV: Tensor,
    q_CV: Tensor,
    *,
    scale_C: Tensor | None,
    share: float,
    gradient: bool,
    learns: bool,
    out_CV: Tensor | None = None,
) -> ChunkLoss:
    """Return losses and derivatives of a chunk; its arguments are used up.

    Args:
        divergence: One of the three.
        log_s_CV: The student's log-probabilities.
        s_CV: And the probabilities.
        log_q_CV: The target's.
        q_CV: The target.
        scale_C: What the gradient gains besides, in units of s; None for nothing.
        share: 1, or 0 where the divergence is only measured and the gradient is ``scale_C s``.
        gradient: Whether the gradient in the logits is asked for.
        learns: Whether weights learn.
        out_CV: Takes the gradient; None for a buffer of its own.
    """
    D_CV = log_q_CV.sub_(log_s_CV)
    beta, u_CV, gradient_CV = None, None, None
    if isinstance(divergence, ForwardKL):
        loss_C = expect(q_CV, D_CV)
        if learns:
            u_CV = (D_CV - loss_C[:, None]).mul_(q_CV).nan_to_num_(nan=0.0)
        if gradient:
            if scale_C is not None or share != 1:
                s_CV.mul_(share if scale_C is None else (scale_C + share)[:, None])
            gradient_CV = torch.sub(s_CV, q_CV, alpha=share, out=s_CV if out_CV is None else out_CV)
        return ChunkLoss(_clear(loss_C), gradient_CV, u_CV)
    if isinstance(divergence, JensenShannon):
        beta = divergence.beta
        # far apart the mixture is one of the two; both absent: -inf - -inf, whose term is 0
        D_CV = D_CV.nan_to_num_(nan=0.0).clamp_(-_FAR, _FAR)
        log_s_m_CV = D_CV.clamp_min(0.0).add_(_mix(D_CV, beta)).neg_()
        of_student_C = expect(s_CV, log_s_m_CV)
        log_q_m_CV = D_CV.add_(log_s_m_CV)
        of_target_C = expect(q_CV, log_q_m_CV)
        loss_C = beta * of_target_C + (1 - beta) * of_student_C
        u_CV = (log_q_m_CV - of_target_C[:, None]).mul_(q_CV).mul_(beta) if learns else None
        slope_CV, offset_C, factor = log_s_m_CV, -of_student_C, share * (1 - beta)
    else:
        loss_C = -expect(s_CV, D_CV)
        u_CV = q_CV - s_CV if learns else None
        slope_CV, offset_C, factor = D_CV, loss_C, -share
    if gradient:
        if factor != 1:
            slope_CV.mul_(factor)
        added_C = factor * offset_C if scale_C is None else factor * offset_C + scale_C
        gradient_CV = torch.mul(slope_CV.add_(added_C[:, None]), s_CV, out=slope_CV if out_CV is None else out_CV)
        if beta is None:  # 0 times infinity
            gradient_CV.nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
    return ChunkLoss(_clear(loss_C), gradient_CV, u_CV)


def expect(p_CV: Tensor, value_CV: Tensor, product_CV: Tensor | None = None) -> Tensor:
    """Return the expectation of a function of the token, (C,); 0 times infinity is 0.

    Args:
        p_CV: Probabilities.
        value_CV: Values.
        product_CV: Takes their product; memory for it is asked for where it is left out.
    """
    mean_C: Tensor  # neither way by bmm, which is not made for single rows: six times as slow
    if product_CV is None:
        mean_C = torch.linalg.vecdot(p_CV, value_CV)
    else:
        mean_C = torch.mul(p_CV, value_CV, out=product_CV).sum(-1)
    odd_C = ~torch.isfinite(mean_C)
    if bool(odd_C.any()):
        p_RV, value_RV = p_CV[odd_C], value_CV[odd_C]
        mean_C[odd_C] = torch.where(p_RV == 0, 0.0, p_RV * value_RV).sum(-1)
    return mean_C


def _mix(D_CV: Tensor, beta: float) -> Tensor:
    """Return ``log(m / max(q, s))``, exactly 0 where q = s."""
    share_CV = torch.full_like(D_CV, beta).masked_fill_(D_CV > 0, 1 - beta)
    return D_CV.abs().neg_().expm1_().mul_(share_CV).log1p_()


def _clear(loss_C: Tensor) -> Tensor:
    """Return divergences without what rounding leaves below 0."""
    return torch.where(loss_C < 0, 0.0, loss_C)
