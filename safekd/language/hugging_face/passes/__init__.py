"""What the trainer reads of sequences, training or not.

In this order: rows of a data set become batches (``SequenceCollator``, ``split_columns``); the student gives its hidden
states without logits (``capture_hidden``); ``DistillationTerms`` is the loss of the run; ``read_sequences`` reads loss,
perplexity and safety of a whole data set, ``GradientNorms`` what the KKT residuals need.
"""

from ._distillation_terms import DistillationTerms
from ._gradient_norms import GradientNorms
from ._sequence_columns import (
    SequenceCollator,
    SequenceColumns,
    name_groups,
    number_rows,
    split_columns,
)
from ._sequence_moments import SequenceMoments
from ._sequence_pass import (
    Answers,
    SequenceReading,
    SequenceSums,
    count_reading_rows,
    measure_positions,
    read_sequences,
)
from ._student_states import capture_hidden, require_head, require_same_logits

__all__ = [
    "Answers",
    "DistillationTerms",
    "GradientNorms",
    "SequenceCollator",
    "SequenceColumns",
    "SequenceMoments",
    "SequenceReading",
    "SequenceSums",
    "count_reading_rows",
    "measure_positions",
    "name_groups",
    "number_rows",
    "capture_hidden",
    "read_sequences",
    "require_head",
    "require_same_logits",
    "split_columns",
]
