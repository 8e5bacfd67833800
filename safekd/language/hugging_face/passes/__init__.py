"""What the trainer reads of sequences, training or not.

In this order: rows of a data set become batches (``SequenceCollator``, ``make_sequence_batch``); the student gives its
hidden states without logits (``capture_hidden``); ``DistillationTerms`` is the loss of the run; ``read_sequences``
reads loss, perplexity and safety of a whole data set, ``GradientNorms`` what the KKT residuals need, on the sequences
that ``sample_rows`` chooses; ``describe_data`` says what a data set holds, ``bound_sample`` what
any student could reach.
"""

from ._data_content import describe_data
from ._distillation_terms import DistillationTerms
from ._gradient_norms import GradientNorms
from ._sample_bound import SampleLogits, bound_sample
from ._sequence_columns import (
    NumberedRows,
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
from ._training_sample import TrainingSample, sample_rows

__all__ = [
    "DistillationTerms",
    "GradientNorms",
    "NumberedRows",
    "SampleLogits",
    "SequenceAnswers",
    "SequenceCollator",
    "SequenceColumns",
    "SequenceMoments",
    "SequenceReading",
    "SequenceSums",
    "TrainingSample",
    "add_row_numbers",
    "bound_sample",
    "capture_hidden",
    "count_reading_rows",
    "describe_data",
    "make_sequence_batch",
    "measure_positions",
    "name_groups",
    "read_sequences",
    "require_head",
    "require_same_logits",
    "sample_rows",
]
