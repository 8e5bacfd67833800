"""Labeled examples, batches of them, and which of them a run has used for what.

train = Split("train", inputs_NF, labels_N)     # or any data set of torch: ``as_split``
train.batch(index)                              # a Batch: inputs, labels, task, context, index
find_unseen(held_out, uses)                          # which examples nothing has trained on or looked at
"""

from ._data_provenance import SplitUse, Trained, find_unseen, hash_examples
from ._split import Batch, Split, SplitCache, as_split, extract_logits, move_split

__all__ = [
    "Batch",
    "Split",
    "SplitCache",
    "SplitUse",
    "Trained",
    "as_split",
    "extract_logits",
    "find_unseen",
    "hash_examples",
    "move_split",
]
