"""Several processes that train one student, as ``torchrun`` starts them.

In order: ``find_ranks`` says who takes part (``join_ranks`` joins them), ``adopt_student`` takes the student out of its
wrapper, each rank reads its own rows of every batch, and ``Ranks.add_up`` makes of their sums and counts one float64
vector that is the same on every rank.  Multipliers move by that vector alone, so they are the same to the last bit.

A process alone takes none of this in: ``Ranks`` is its own, ``TrainedStudent`` the module itself.
"""

from ._adopt_student import adopt_student
from ._find_ranks import find_ranks, join_ranks
from ._ranks import Ranks
from ._trained_student import (
    TrainedStudent,
    cut_shard,
    is_shard,
    measure_total_norm,
    read_whole,
    take_own_shard,
)

__all__ = [
    "Ranks",
    "TrainedStudent",
    "adopt_student",
    "cut_shard",
    "find_ranks",
    "is_shard",
    "join_ranks",
    "measure_total_norm",
    "read_whole",
    "take_own_shard",
]
