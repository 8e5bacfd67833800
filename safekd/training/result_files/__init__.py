"""The files of a result: tensors that cannot carry code, and the parts of a result that are made of them again.

``FitResult.save`` writes them and ``FitResult.load`` reads them: trace.csv and trace.jsonl, verdict.json, a
safetensors file for each state that differs from those before it, and a manifest with the hash of each.
"""

from ._result_record import (
    POINT_FIELDS,
    USED_EXAMPLES,
    build_checked,
    read_rounds,
    restore_mixture,
    restore_numbers,
    restore_uses,
)
from ._stale_report import REPORT, REPORT_MARK, remove_stale_report
from ._student_files import (
    ROUNDS,
    RUN,
    TRACE_LINES,
    TRACE_TABLE,
    VERDICT,
    describe_structure,
    load_tensors,
    read_state,
    require_same_student,
    require_tensors,
    save_student,
    save_tensors,
    write_states,
)

__all__ = [
    "POINT_FIELDS",
    "REPORT",
    "REPORT_MARK",
    "ROUNDS",
    "RUN",
    "TRACE_LINES",
    "TRACE_TABLE",
    "USED_EXAMPLES",
    "VERDICT",
    "build_checked",
    "describe_structure",
    "load_tensors",
    "read_rounds",
    "read_state",
    "remove_stale_report",
    "require_same_student",
    "require_tensors",
    "restore_mixture",
    "restore_numbers",
    "restore_uses",
    "save_student",
    "save_tensors",
    "write_states",
]
