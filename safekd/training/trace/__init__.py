"""The trace of a run: one point an evaluation, as a table, as CSV and as JSON lines, and callbacks.

    result = trainer.fit(train, epochs=100, callbacks=[JsonlWriter("trace.jsonl")])
    result.trace                             # a DataFrame, one row a point
    read_trace("trace.jsonl")                # the same table, bit for bit

Numbers of a point come from full passes over whole splits; standard errors beside them are from the spread over
examples.  Two kinds do not, and say so: columns ``ema_<constraint>`` are running averages over batches, and where the
column ``gradients`` says "sampled", gradient norms and stationarity are estimates with ``kkt_stationarity_se``.
"""

from ._callbacks import Callback, Callbacks, JsonlWriter, OnTrace, RunInfo, StopTraining
from ._memory import Memory
from ._packed_points import pack_points, unpack_points
from ._trace_files import read_trace, write_jsonl
from ._trace_points import FEASIBLE, MACHINE_COLUMNS, ConstraintReading, Trace, TracePoint

__all__ = [
    "FEASIBLE",
    "MACHINE_COLUMNS",
    "Callback",
    "Callbacks",
    "ConstraintReading",
    "JsonlWriter",
    "Memory",
    "OnTrace",
    "RunInfo",
    "StopTraining",
    "Trace",
    "TracePoint",
    "pack_points",
    "read_trace",
    "unpack_points",
    "write_jsonl",
]
