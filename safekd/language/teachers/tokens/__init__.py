"""Token numbers: batches of them, texts cut into sequences, which tokens are critical, whether vocabularies are one.

TokenBatches(pad=0)                                     # token lists of any length, as batches: a collate function
as_text_source(texts, tokenizer, length=256)            # a Split, one cluster a text
critical_tokens(tokenizer, ["bomb", 17])                # numbers for SafetyMeasure(critical=...)
require_same_tokenizer(teachers, tokenizer)             # or say which token differs
"""

from ._critical_tokens import critical_tokens
from ._same_tokenizer import require_same_tokenizer, shared_vocabulary
from ._text_source import as_text_source
from ._token_batches import TokenBatches, read_token_list

__all__ = [
    "TokenBatches",
    "as_text_source",
    "critical_tokens",
    "read_token_list",
    "require_same_tokenizer",
    "shared_vocabulary",
]
