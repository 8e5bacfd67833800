"""Options that several commands share: one name and one meaning each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Weights = Annotated[
    Path, typer.Argument(help="CSV file with a header, or Parquet; one row a weighting, one column a teacher")
]
Teacher = Annotated[
    list[str] | None,
    typer.Option("--teacher", "--teachers", help="a teacher's column; repeatable, or a,b,c; all others if left out"),
]
Lower = Annotated[
    str | None, typer.Option(help="lightest weight allowed: 0.1, or 0.1,0.05,0.05 for each teacher, or by name: a=0.1")
]
Upper = Annotated[str | None, typer.Option(help="heaviest weight allowed, likewise")]
Order = Annotated[
    list[str] | None, typer.Option(help='"a>=b>=c": teacher a counts at least as much as b, b as c; repeatable')
]
Margin = Annotated[float | None, typer.Option(help="by how much, in every ordering")]
SafetyColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--safety-columns", "--safety-column", help="columns of safety scores, one a teacher: each row follows its own"
    ),
]
CriticalColumn = Annotated[str | None, typer.Option(help="column of 0, 1, true, false: where orderings apply")]
Separator = Annotated[
    str | None,
    typer.Option(help="what separates cells of a CSV file: comma, semicolon, tab, pipe, or a sign; the file tells"),
]
Decimal = Annotated[str, typer.Option(help="decimal sign of a CSV file: point or comma")]
RulesFile = Annotated[Path | None, typer.Option(help="rule set, TOML; options override it")]
Config = Annotated[Path, typer.Argument(help="experiment file, TOML; `safekd init` writes one")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object for machines, and nothing else")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="a key of the file and its value: training.epochs=500; repeatable"),
]
