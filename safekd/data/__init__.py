"""Labeled examples, batches of them, and which of them a run has used for what.

    train = Split("train", inputs_NF, labels_N)     # or any data set of torch: ``as_split``
    train.batch(index)                              # a Batch: inputs, labels, task, context, index
    find_unseen(held_out, uses)                     # which examples nothing has trained on or looked at

A ``SplitCache`` keeps what is worked out once a split; ``SplitUse`` says what a split was used for, and is told from
copies by what is in its examples.
"""

from ._data_provenance import SplitUse, StoredSplit, Trained, find_unseen, hash_examples
from ._split import Batch, Split, as_split, expand_to_positions, move_split
from ._split_cache import SplitCache

__all__ = [
    "Batch",
    "Split",
    "SplitCache",
    "SplitUse",
    "StoredSplit",
    "Trained",
    "as_split",
    "expand_to_positions",
    "find_unseen",
    "hash_examples",
    "move_split",
]
