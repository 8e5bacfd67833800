"""What an audit has to say: one finding a line, a table, and files.  ``build_report`` puts findings into a report."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from solvers.short_repr import ShortRepr

from ..errors import InvalidInput, escape_controls
from ..io import write_atomically, write_csv
from ._axiom_list import ASSUMPTIONS, AXIOMS, LINEAR, UNIFIED, Axiom, find_axiom

Status = Literal["holds", "violated", "estimated", "not_applicable"]
_COLORS = {"holds": "green", "violated": "bold red", "estimated": "cyan", "not_applicable": "dim"}
_WIDTH = 120


@dataclass(frozen=True)
class Finding:
    """One axiom, judged.

    Attributes:
        axiom: Its id, "III.5" say.
        subject: Whose weights were judged, "token rule" say.
        status: "holds" and "violated" are exact over the data given, "estimated" is what a search saw, "not_applicable"
            has its reason in ``evidence``.
        evidence: What was seen, in words.
        worst: The worst violation, in units of weight, 0 if it holds; for "estimated" the estimate; NaN if a weight is
            no number; None if there is nothing to measure.
        where: Index of the worst position in the leading axes, None if there is none.
        rows: How many positions violate it.
        judged: How many positions were judged.
        remedy: The next move, empty if there is nothing to mend.
    """

    axiom: str
    subject: str
    status: Status
    evidence: str
    worst: float | None = None
    where: tuple[int, ...] | None = None
    rows: int = 0
    judged: int = 0
    remedy: str = ""

    @property
    def scale(self) -> str:
        """The scale of the axiom: "token", "task", "context", "unified" or "all"."""
        return find_axiom(self.axiom).scale

    @property
    def name(self) -> str:
        """The short name of the axiom."""
        return find_axiom(self.axiom).name


@dataclass(frozen=True, repr=False)
class AuditReport(ShortRepr):
    """The fifteen axioms of the paper, and what else was judged, a finding each.

    ``report["III.5"]`` is one finding, ``for finding in report`` all of them.  ``str(report)`` is a table.

    Attributes:
        findings: In the order of the paper.
    """

    findings: tuple[Finding, ...]

    def __getitem__(self, axiom: str) -> Finding:
        """Return the finding on one axiom.

        Args:
            axiom: "III.1" to "III.22", "U.1" to "U.5", "P", "A1" to "A4".

        Raises:
            InvalidInput: It was not judged.
        """
        for finding in self.findings:
            if finding.axiom == axiom:
                return finding
        judged = ", ".join(finding.axiom for finding in self.findings)
        raise InvalidInput(f"This report says nothing of '{axiom}'; it has {judged}.")

    def __iter__(self) -> Iterator[Finding]:
        """Go through the findings, the fifteen axioms first."""
        return iter(self.findings)

    def __len__(self) -> int:
        """Return how many findings there are."""
        return len(self.findings)

    @property
    def violated(self) -> tuple[Finding, ...]:
        """The findings that say "violated"."""
        return tuple(finding for finding in self.findings if finding.status == "violated")

    def holds(self) -> bool:
        """Tell whether nothing is violated and something was judged; an estimate counts as no violation."""
        judged = any(finding.status != "not_applicable" for finding in self.findings)
        return judged and not self.violated

    def to_frame(self) -> pd.DataFrame:
        """Return one row a finding: its fields, and scale and name of its axiom."""
        return pd.DataFrame([_tabulate_finding(finding) for finding in self.findings], columns=_COLUMNS)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write ``to_frame()``; the file appears whole or not at all.

        Args:
            path: Where to.
        """
        write_csv(self.to_frame(), path)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write {"holds": ..., "findings": [...]}; numbers that JSON has not are text ("nan", "inf").

        Args:
            path: Where to; the file appears whole or not at all.
        """
        records = [{**_tabulate_finding(finding), "where": _list_place(finding.where)} for finding in self.findings]
        clean = [{key: _make_json_safe(value) for key, value in record.items()} for record in records]
        text = json.dumps({"holds": self.holds(), "findings": clean}, indent=2, allow_nan=False)
        with write_atomically(path) as temporary:
            temporary.write_text(f"{text}\n", encoding="utf-8")

    def __rich__(self) -> Table:
        """Return the table that ``rich.print`` shows, with remarks beneath."""
        bad = len(self.violated)
        verdict = f"{bad} violated" if bad else "nothing violated" if self.holds() else "nothing judged"
        remarks = Text(escape_controls("\n".join(_list_remarks(self.findings)), keep="\n"))
        table = Table(box=box.SIMPLE_HEAD, title=f"Audit: {verdict}", caption=remarks)
        table.title_justify = table.caption_justify = "left"
        for name in ("axiom", "scale", "name", "judged on", "status", "worst", "where", "violating"):
            table.add_column(name, justify="right" if name in ("worst", "violating") else "left")
        for finding in self.findings:
            table.add_row(
                finding.axiom,
                finding.scale,
                finding.name,
                Text(escape_controls(finding.subject), overflow="fold"),
                Text(finding.status.replace("_", " "), style=_COLORS[finding.status]),
                "" if finding.worst is None else f"{finding.worst:.3g}",
                _describe_place(finding.where),
                f"{finding.rows} of {finding.judged}" if finding.judged else "",
            )
        return table

    def __str__(self) -> str:
        """Return the table and its remarks as plain text."""
        stream = io.StringIO()
        Console(file=stream, width=_WIDTH, no_color=True, highlight=False, emoji=False, force_terminal=False).print(
            self
        )
        return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def locate_row(row: int, lead: Sequence[int] | None) -> tuple[int, ...]:
    """Return the index of a row in the leading axes; rows that have no other place are counted.

    Args:
        row: Number of the row.
        lead: Shape of the leading axes; None where rows are just numbered.

    Returns:
        One index an axis.
    """
    if lead is None:
        return (row,)
    index = []
    for size in reversed(lead):
        row, i = divmod(row, size)
        index.append(i)
    return tuple(reversed(index))


def build_report(findings: Iterable[Finding], absent: str | Mapping[str, str] = "") -> AuditReport:
    """Return a report of findings, in the order of the paper, with a line for each of the fifteen axioms.

    Args:
        findings: One an axiom, in any order.
        absent: Why an axiom without a finding was not judged, one reason for all or one for each scale.

    Returns:
        The report.

    Raises:
        InvalidInput: Two findings are about one axiom.
    """
    given: dict[str, Finding] = {}
    for finding in findings:
        find_axiom(finding.axiom)
        if finding.axiom in given:
            raise InvalidInput(f"Two findings are about {finding.axiom}; a report has one a line.")
        given[finding.axiom] = finding
    lines = [given.get(axiom.id) or _state_not_judged(axiom, absent) for axiom in AXIOMS]
    return AuditReport((*lines, *(given[axiom.id] for axiom in (*UNIFIED, LINEAR, *ASSUMPTIONS) if axiom.id in given)))


def _state_not_judged(axiom: Axiom, absent: str | Mapping[str, str]) -> Finding:
    reason = absent if isinstance(absent, str) else absent.get(axiom.scale, "")
    return Finding(axiom.id, "", "not_applicable", reason or f"No weights of the {axiom.scale} scale were given.")


_COLUMNS = ["axiom", "scale", "name", "subject", "status", "worst", "where", "rows", "judged", "evidence", "remedy"]


def _tabulate_finding(finding: Finding) -> dict[str, Any]:
    record = {**asdict(finding), "scale": finding.scale, "name": finding.name, "where": _describe_place(finding.where)}
    return {column: record[column] for column in _COLUMNS}


def _describe_place(where: tuple[int, ...] | None) -> str:
    return "" if where is None else str(where[0]) if len(where) == 1 else str(where)


def _list_place(where: tuple[int, ...] | None) -> list[int] | None:
    return None if where is None else list(where)


def _make_json_safe(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _list_remarks(findings: tuple[Finding, ...]) -> Iterator[str]:
    """Yield what the table has no room for: evidence of all that is not plainly fine, one line a reason."""
    lines: dict[str, list[str]] = {}
    for finding in findings:
        if finding.evidence and finding.status != "holds":
            lines.setdefault(f"{finding.evidence} {finding.remedy}".strip(), []).append(finding.axiom)
    for text, axioms in lines.items():
        yield f"{', '.join(axioms)}: {text}"
