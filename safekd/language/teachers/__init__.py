"""Language models as teachers and students, and the tokens between them.

    teacher = CausalTeacher(model, tokenizer)                       # Hidden(hidden, head) for each batch of tokens
    CausalTeacher(peft_model, tokenizer, adapter="legal")           # adapters of one base, which they share
    CausalTeacher(model, tokenizer, prompt="Answer with care.")     # a prompt makes another teacher
    CausalTeacher.load("folder or name", park="disk")               # in memory only while it is asked
    EncoderTeacher(masked_model)                                    # Logits at each position
    TeacherSet([a, b, c], tokenizer)                                # one after the other
    CausalStudent(model)                                            # logits, or hidden states and head

``_model_body`` runs a model below its head, ``_system_prompt`` puts a prompt in front, ``_peft_adapters`` switches
adapters, ``_parked_model`` moves weights, ``_weight_hashes`` and ``manifest()`` say what a teacher is; ``tokens`` holds
what needs no model.  transformers is imported where something is loaded.
"""

from ._causal_student import CausalStudent
from ._causal_teacher import CausalTeacher
from ._encoder_teacher import EncoderTeacher
from ._model_body import require_batch, unwrap_adapters
from ._model_teacher import ModelTeacher
from ._teacher_set import LanguageTeacher, TeacherSet, wrap_models
from ._weight_hashes import hash_tokenizer
from .tokens import (
    TokenBatches,
    as_text_source,
    critical_tokens,
    require_same_tokenizer,
    shared_vocabulary,
)

__all__ = [
    "CausalStudent",
    "CausalTeacher",
    "EncoderTeacher",
    "LanguageTeacher",
    "ModelTeacher",
    "TeacherSet",
    "TokenBatches",
    "as_text_source",
    "critical_tokens",
    "hash_tokenizer",
    "require_batch",
    "require_same_tokenizer",
    "shared_vocabulary",
    "unwrap_adapters",
    "wrap_models",
]
