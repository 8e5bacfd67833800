"""What an audit of an operator, a pool or a softening, has to say: one finding an axiom, and numbers that refute."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .errors import InvalidInput, escape_controls

_WIDTH = 120
_SHOWN_DIGITS = 4


@dataclass(frozen=True)
class AxiomFinding:
    """One axiom of an operator, judged by a search for counterexamples.

    Attributes:
        axiom: Its name, such as "convexity".
        status: "holds" where no counterexample was found, "violated" where one was.
        worst: The largest violation that was found, in the unit that ``evidence`` names; 0 where there is none.
        evidence: What was looked at, and what was seen, in words.
        counterexample: The numbers of the worst violation, by what they are; empty where the axiom holds.
    """

    axiom: str
    status: Literal["holds", "violated"]
    worst: float
    evidence: str
    counterexample: Mapping[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether no counterexample was found."""
        return self.status == "holds"


@dataclass(frozen=True)
class OperatorAudit:
    """Which axioms an operator keeps, as a table with the numbers that refute the others.

    Attributes:
        subject: What was judged.
        findings: One an axiom.
        remarks: What the findings mean together.
    """

    subject: str
    findings: tuple[AxiomFinding, ...]
    remarks: tuple[str, ...] = ()

    def __getitem__(self, axiom: str) -> AxiomFinding:
        """Return the finding about an axiom.

        Args:
            axiom: Its name.

        Raises:
            InvalidInput: There is none of that name.
        """
        for finding in self.findings:
            if finding.axiom == axiom:
                return finding
        raise InvalidInput(
            f"This audit says nothing of '{axiom}'; it has {', '.join(finding.axiom for finding in self.findings)}."
        )

    def __iter__(self) -> Iterator[AxiomFinding]:
        """Go through the findings."""
        return iter(self.findings)

    @property
    def violated(self) -> tuple[AxiomFinding, ...]:
        """The findings that say "violated"."""
        return tuple(finding for finding in self.findings if not finding.holds)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, texts, lists and dictionaries, as JSON has them."""
        findings = [{**asdict(one), "counterexample": dict(one.counterexample)} for one in self.findings]
        return {"subject": self.subject, "findings": findings, "remarks": list(self.remarks)}

    def __rich__(self) -> Table:
        """Return the table that ``rich.print`` shows, with counterexamples and remarks beneath."""
        caption = Text(escape_controls("\n".join(self._list_remarks()), keep="\n"))
        table = Table(box=box.SIMPLE_HEAD, title=Text(f"Audit: {escape_controls(self.subject)}"), caption=caption)
        table.title_justify = table.caption_justify = "left"
        for name in ("axiom", "status", "worst", "evidence"):
            table.add_column(name, justify="right" if name == "worst" else "left")
        for one in self.findings:
            style = "green" if one.holds else "bold red"
            table.add_row(one.axiom, Text(one.status, style=style), f"{one.worst:.3g}", Text(one.evidence))
        return table

    def __str__(self) -> str:
        """Return the table, its counterexamples and remarks as plain text."""
        return render_plain(self)

    def _list_remarks(self) -> Iterator[str]:
        for one in self.violated:
            shown = ", ".join(f"{what} {_format_example(value)}" for what, value in one.counterexample.items())
            yield f"{one.axiom}, counterexample: {shown}"
        yield from self.remarks


def render_plain(renderable: Any, width: int = _WIDTH) -> str:
    """Return what rich would print, without colors and trailing blanks.

    Args:
        renderable: A table, or several of them in a group.
        width: Letters a line.
    """
    stream = io.StringIO()
    Console(file=stream, width=width, no_color=True, highlight=False, emoji=False, force_terminal=False).print(
        renderable
    )
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _format_example(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.{_SHOWN_DIGITS}g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{' '.join(_format_example(one) for one in value)}]"
    return str(value)
