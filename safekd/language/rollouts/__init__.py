"""On policy: the student writes, all teachers score every position, and what it writes is held to constraints.

In this order: ``_prompt_order`` says which prompts come next, ``_text_writer`` has the student write after them,
``_text_scores`` says of whole texts how safe they are, ``_written_text`` keeps them and makes batches of them,
``Rollouts`` hands those out, mixed with fixed data, none too old, and ``WrittenConstraint`` holds the scores of whole
texts to a threshold.
"""

from ._rollout_counts import RolloutCounts
from ._rollouts import RolloutExamples, Rollouts
from ._text_scores import TextScore, WithoutStrings, WithoutTokens
from ._written_constraint import WrittenConstraint
from ._written_text import Written, WrittenBatch

__all__ = [
    "RolloutCounts",
    "RolloutExamples",
    "Rollouts",
    "TextScore",
    "WithoutStrings",
    "WithoutTokens",
    "Written",
    "WrittenBatch",
    "WrittenConstraint",
]
