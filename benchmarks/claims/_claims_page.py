"""The page of claims, for somebody who knows the papers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from ..projection._report import table
from ._claim import Claim

_HEAD = """# The papers' claims, run

The papers behind this library are theory. `python -m benchmarks.claims --out docs/claims.md --images
docs/images/claims` runs an experiment for each of their claims and writes this page: what is stated, what was run,
what was found. A verdict is computed from the numbers beside it, never written by hand, and each is a test as well
(`tests/benchmarks/claims`), in a smaller form; `--seed 100` runs everything on other draws.

**Holds**: in everything that was run. **Holds under an extra condition**: something that the statement covers breaks
it, and everything under the condition named came out. **Fails**: a counterexample, and no condition that was found
saves it. Experiments do not prove; a counterexample does. Numbers in brackets are 95 % bands.

{counts}"""

_SILENT = """## What was read into the papers

Of the sibling papers the abstracts alone were read: their axioms of ensembles, recursion and temperature stand here
as this library takes them, and a verdict is of that reading. Where the main paper leaves something open (which
assumptions are "standard", what a weight update is, under which weights a loss is read), the section says what was
taken, and where two readings part, both were run.

One of its open questions has no row here: computational cost, the second. A projection costs O(K log K) a position
([measured](benchmarks/projection.md)), and one pass over one pooled target is enough
([language losses](benchmarks/kd_loss.md)); no lower bound is shown. Tightness, the sixth, stands in the rows of the
rates and bounds that it is about."""


def format_table(claims: Sequence[Claim]) -> str:
    """Return a row a claim."""
    rows = [[_link(claim), claim.statement, f"**{claim.verdict}**", claim.condition] for claim in claims]
    return table(["", "claim", "verdict", "condition"], rows)


def format_page(claims: Mapping[str, Sequence[Claim]]) -> str:
    """Return the page."""
    every = [claim for group in claims.values() for claim in group]
    counted = Counter(claim.verdict for claim in every)
    counts = (
        f"Of {len(every)} rows " + ", ".join(f"{n} {_say(verdict, n)}" for verdict, n in counted.most_common()) + "."
    )
    parts = [_HEAD.format(counts=counts), format_table(every)]
    for group, members in claims.items():
        parts.append(f"## {group}")
        parts += [_describe(claim) for claim in members]
    return "\n\n".join([*parts, _SILENT]) + "\n"


def _say(verdict: str, n: int) -> str:
    plural = {"holds": "hold", "holds under an extra condition": "hold under an extra condition", "fails": "fail"}
    return verdict if n == 1 else plural[verdict]


def _describe(claim: Claim) -> str:
    lines = [f"### {claim.number}", f"*{claim.statement}*"]
    named = {
        "Reading": claim.reading,
        "Run": claim.ran,
        "Found": claim.found,
        "Verdict": f"**{claim.verdict}**." + (f" {claim.condition}" if claim.condition else ""),
        "Counterexample": claim.counterexample,
        "Tightness": claim.tightness,
    }
    lines += [f"{name}: {_end(text)}" for name, text in named.items() if text]
    if claim.picture is not None:
        lines.append(
            f"![{claim.number}: {claim.picture.y_label} against "
            f"{claim.picture.x_label}](images/claims/{claim.picture.name}.svg)"
        )
    return "\n\n".join(lines)


def _end(text: str) -> str:
    return text if text.endswith((".", "*", ")")) and not text.endswith("..") else f"{text}."


def _link(claim: Claim) -> str:
    """Return the number, linked to its section as the site names it."""
    anchor = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", claim.number).strip().lower())
    return f"[{claim.number}](#{anchor})"
