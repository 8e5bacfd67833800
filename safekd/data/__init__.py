"""Labeled examples, batches of them, and which of them a run has used for what.

    train = Split("train", inputs_NF, labels_N)     # arrays, lists and names too; a torch dataset: ``as_split``
    train.batch(index)                              # a Batch: inputs, labels, task, context, index
    find_unseen(held_out, uses)                     # which examples nothing has trained on or looked at
    require_unshared(validation, {"train": train})  # data that judge are none of those that trained

A ``SplitCache`` keeps what is worked out once a split; ``SplitUse`` says what a split was used for, and is told from
copies by what is in its examples.
"""

from ._batch import Batch
from ._bit_mixing import rank_places
from ._build_batch import build_batch
from ._column_values import IGNORED
from ._data_sources import Fields, as_split, move_split
from ._example_source import ExampleSource
from ._group_names import PLURAL, Group, GroupNames, Key, find_name, mark_groups, require_same_names, show_groups
from ._inputs import Inputs, list_inputs, map_inputs, name_inputs
from ._position_mask import fill_uncounted
from ._rank_share import RankShare, read_evenly, read_stream, share_source
from ._split import Split, expand_to_positions, require_class_count
from ._split_cache import SplitCache
from .provenance import (
    SeenExamples,
    SplitUse,
    StoredSplit,
    Trained,
    drop_shared,
    find_unseen,
    hash_examples,
    require_unshared,
)
from .sources import DatasetSource, StreamSource, SurveyedSource, as_source

__all__ = [
    "IGNORED",
    "PLURAL",
    "Batch",
    "DatasetSource",
    "ExampleSource",
    "Fields",
    "Group",
    "GroupNames",
    "Inputs",
    "Key",
    "RankShare",
    "SeenExamples",
    "Split",
    "SplitCache",
    "SplitUse",
    "StoredSplit",
    "StreamSource",
    "SurveyedSource",
    "Trained",
    "as_source",
    "as_split",
    "build_batch",
    "drop_shared",
    "expand_to_positions",
    "fill_uncounted",
    "find_name",
    "find_unseen",
    "hash_examples",
    "list_inputs",
    "map_inputs",
    "mark_groups",
    "move_split",
    "name_inputs",
    "rank_places",
    "read_evenly",
    "read_stream",
    "require_class_count",
    "require_same_names",
    "require_unshared",
    "share_source",
    "show_groups",
]
