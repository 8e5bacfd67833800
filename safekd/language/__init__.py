"""Language models: several teachers pooled position by position, in bounded memory, under safety constraints.

    head = Head.of(student)                                            # the output matrix, tied or not
    out = distillation_loss(hidden, head, [Hidden(h, head_k), ...], weights=rule, labels=shift_labels(ids))
    out.loss.backward()                                                # gradients were known in the forward pass

The label of a position is the token that follows it.
"""

from ..divergences import ForwardKL, JensenShannon, ReverseKL
from .cache import CachedTeacher, describe_cache, verify_cache, write_cache
from .loss import Head, Hidden, LanguageLoss, Logits, TeacherOutput, TopK, distillation_loss, shift_labels


def JSD(beta: float = 0.5) -> JensenShannon:  # noqa: N802
    """Return the generalized Jensen-Shannon divergence, by the name that language-model libraries have for it.

    Args:
        beta: The target's share of the mixture, above 0 and below 1: ``beta KL(q || m) + (1 - beta) KL(p || m)`` with
            ``m = beta q + (1 - beta) p`` of target q and student p.

    Source: generalized knowledge distillation, Agarwal et al. 2024.
    """
    return JensenShannon(beta=beta)


__all__ = [
    "JSD",
    "CachedTeacher",
    "ForwardKL",
    "Head",
    "Hidden",
    "LanguageLoss",
    "Logits",
    "ReverseKL",
    "TeacherOutput",
    "TopK",
    "describe_cache",
    "distillation_loss",
    "shift_labels",
    "verify_cache",
    "write_cache",
]
