"""What the trainer reads of sequences, training or not.

In this order: rows of a data set become batches (``SequenceCollator``, ``make_sequence_batch``); the student gives its
hidden states without logits (``capture_hidden``); ``DistillationTerms`` is the loss of the run; ``read_sequences``
reads loss, perplexity and safety of a whole data set, ``GradientNorms`` what the KKT residuals need.
"""

from ._distillation_terms import DistillationTerms
from ._gradient_norms import GradientNorms
from ._sequence_columns import (
    SequenceCollator,
    SequenceColumns,
    add_row_numbers,
    make_sequence_batch,
    name_groups,
)
from ._sequence_moments import SequenceMoments
from ._sequence_pass import (
    SequenceAnswers,
    SequenceReading,
    SequenceSums,
    count_reading_rows,
    measure_positions,
    read_sequences,
)
from ._student_states import capture_hidden, require_head, require_same_logits

__all__ = [
    "DistillationTerms",
    "GradientNorms",
    "SequenceAnswers",
    "SequenceCollator",
    "SequenceColumns",
    "SequenceMoments",
    "SequenceReading",
    "SequenceSums",
    "add_row_numbers",
    "capture_hidden",
    "count_reading_rows",
    "make_sequence_batch",
    "measure_positions",
    "name_groups",
    "read_sequences",
    "require_head",
    "require_same_logits",
]
