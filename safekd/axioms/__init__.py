"""The axioms of the paper, and the audit that tells which of them weights obey.

    report = kd.audit(unified, signals)          # fifteen axioms: holds | violated | estimated | not applicable
    print(report); report["III.5"].evidence; report.holds(); report.to_json("audit.json")

``audit`` lists whose weights there are to judge, by which axioms; ``rows`` judges what each row shows, ``continuity``
searches for jumps, Pareto compatibility and the assumptions on the student have a file each; ``build_report`` puts the
findings in order.  Weights that came without a rule are judged by the row, in constant memory: ``RowAudit``.
"""

from ._audit_report import AuditReport, Finding, build_report
from ._audit_rule import audit
from ._axiom_list import ASSUMPTIONS, AXIOMS, UNIFIED, Axiom, find_axiom
from ._independence import Counterexample, counterexamples, independence_table
from .rows import RowAudit

__all__ = [
    "ASSUMPTIONS",
    "AXIOMS",
    "UNIFIED",
    "AuditReport",
    "Axiom",
    "Counterexample",
    "Finding",
    "RowAudit",
    "audit",
    "build_report",
    "counterexamples",
    "find_axiom",
    "independence_table",
]
