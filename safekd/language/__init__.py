"""Language models: several teachers pooled position by position, in bounded memory, under safety constraints.

    head = Head.of(student)                                            # the output matrix, tied or not
    out = distillation_loss(hidden, head, [Hidden(h, head_k), ...], weights=rule, labels=shift_labels(ids))
    out.loss.backward()                                                # gradients were known in the forward pass

The label of a position is the token that follows it.
"""

from importlib import import_module

from ..divergences import ForwardKL, JensenShannon, ReverseKL
from ..safety import LogTruthProbability
from .cache import CachedTeacher, describe_cache, verify_cache, write_cache
from .loss import Head, Hidden, LanguageLoss, Logits, TeacherOutput, TopK, distillation_loss, shift_labels
from .rollouts import (
    RolloutCounts,
    RolloutExamples,
    Rollouts,
    TextScore,
    WithoutStrings,
    WithoutTokens,
    Written,
    WrittenBatch,
    WrittenConstraint,
)
from .steps import LanguageStep, StepRecord
from .teachers import (
    CausalStudent,
    CausalTeacher,
    EncoderTeacher,
    LanguageTeacher,
    ModelTeacher,
    TeacherSet,
    TokenBatches,
    as_text_source,
    critical_tokens,
    require_same_tokenizer,
    shared_vocabulary,
)


def JSD(beta: float = 0.5) -> JensenShannon:  # noqa: N802
    """Return the generalized Jensen-Shannon divergence, by the name that language-model libraries have for it.

    Args:
        beta: The target's share of the mixture, above 0 and below 1: ``beta KL(q || m) + (1 - beta) KL(p || m)`` with
            ``m = beta q + (1 - beta) p`` of target q and student p.

    Source: generalized knowledge distillation, Agarwal et al. 2024.
    """
    return JensenShannon(beta=beta)


_FROM_HUGGING_FACE = ("SafeKDTrainer", "TrainerResult", "trace_trainer_frontier", "verify_trainer_frontier")


def __getattr__(name: str) -> object:
    """Return what needs transformers, which is imported at the first use."""
    if name in _FROM_HUGGING_FACE:
        return getattr(import_module(f"{__name__}.hugging_face"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "JSD",
    "CachedTeacher",
    "CausalStudent",
    "CausalTeacher",
    "EncoderTeacher",
    "ForwardKL",
    "Head",
    "Hidden",
    "LanguageLoss",
    "LanguageStep",
    "LanguageTeacher",
    "LogTruthProbability",
    "Logits",
    "ModelTeacher",
    "ReverseKL",
    "RolloutCounts",
    "RolloutExamples",
    "Rollouts",
    "SafeKDTrainer",
    "StepRecord",
    "TeacherOutput",
    "TeacherSet",
    "TextScore",
    "TokenBatches",
    "TopK",
    "TrainerResult",
    "WithoutStrings",
    "WithoutTokens",
    "Written",
    "WrittenBatch",
    "WrittenConstraint",
    "as_text_source",
    "critical_tokens",
    "describe_cache",
    "distillation_loss",
    "require_same_tokenizer",
    "shared_vocabulary",
    "shift_labels",
    "trace_trainer_frontier",
    "verify_cache",
    "verify_trainer_frontier",
    "write_cache",
]
