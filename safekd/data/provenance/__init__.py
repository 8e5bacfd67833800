"""Which examples a run has used, told by what is in them and not by what they are called.

hash_examples(split)                            # a key an example, equal for equal inputs and labels
seen = SeenExamples(); seen.add(keys)           # the keys of a source, in constant memory
find_unseen(held_out, uses)                     # which examples nothing has trained on or looked at
require_unshared(validation, {"train": train})  # data that judge are none of those that trained
"""

from ._data_provenance import SplitUse, StoredSplit, Trained, find_unseen, hash_examples, read_seen_examples
from ._seen_examples import SeenExamples
from ._shared_examples import drop_shared, require_unshared

__all__ = [
    "SeenExamples",
    "SplitUse",
    "StoredSplit",
    "Trained",
    "drop_shared",
    "find_unseen",
    "hash_examples",
    "read_seen_examples",
    "require_unshared",
]
