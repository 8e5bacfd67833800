"""What survives of a sweep: one folder a trained point, written whole or not at all, and read back to the last bit.

A run spec says what is asked for (``RunSpec``), a trained point what came of it (``TrainedPoint``); ``PointStore`` is
the sweep's folder: it refuses another sweep, reads what is finished, and says what is damaged.
"""

from ._point_store import (
    TABLE,
    FinishedSweep,
    PlaceOfPoints,
    PointStore,
    check_run_dir,
    is_sweep,
    read_finished_sweep,
    read_point,
    require_whole_point,
    write_point,
)
from ._trained_point import Parameters, RunSpec, TrainedPoint

__all__ = [
    "TABLE",
    "FinishedSweep",
    "Parameters",
    "PlaceOfPoints",
    "PointStore",
    "RunSpec",
    "TrainedPoint",
    "check_run_dir",
    "is_sweep",
    "read_finished_sweep",
    "read_point",
    "require_whole_point",
    "write_point",
]
