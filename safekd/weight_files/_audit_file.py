"""Weights in a file, judged by the axioms that the rows themselves can show.  Axes: N rows of a block, K teachers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from .._torch_state import limit_threads
from ..axioms import AuditReport, Finding, RowAudit, build_report
from ..io import open_table
from ._file_rules import Rules, bind_rules, read_rule_set
from ._project_file import Progress

_OTHER_SCALE = "Only rows of the {scale} scale were judged; choose another with scale= or --scale."


def audit_file(
    path: str | os.PathLike[str],
    rules: Rules,
    *,
    scale: str = "token",
    separator: str | None = None,
    decimal: str = ".",
    key_labels: Mapping[str, str] | None = None,
    on_progress: Progress | None = None,
) -> AuditReport:
    """Judge the weights in a CSV or Parquet file: normalization, positivity, bounds, orderings, linear rows.

    Every rule is exact over all rows; where the report names a row, the first one is 1, and
    the evidence says where in the file that is.  Continuity and Pareto compatibility cannot be told from a file.

    Args:
        path: A CSV file with a header, or a Parquet file; one row a weighting.
        rules: A ``RulesConfig``, a mapping with its keys, or the path of a TOML file.
        scale: Whose axioms the report is about: "token", "task", "context" or "unified".
        separator: What separates the cells of a CSV file, as ``open_table`` takes it; left out, the file tells.
        decimal: The decimal sign of a CSV file, "point" or "comma".
        key_labels: What messages call a key of the rules, where not by its own name ("order" may be "--order").
        on_progress: Called with the number of rows done, and how much has been read of how much (None where unknown).

    Raises:
        InvalidInput: Something in the file is no weight; the message names line, column and cell.
        InfeasiblePolytope: No weights meet the rules.
    """
    config = read_rule_set(rules)
    with (
        open_table(path, separator=separator, decimal=decimal) as table,
        limit_threads(1),
    ):  # blocks are too short for torch's own
        bound = bind_rules(config, table, key_labels)
        audit = RowAudit(bound.polytope, scale, subject=table.path.name, names=bound.teachers)
        rows, places = 0, {}
        for block in table.blocks():
            audit.add(bound.weights(block), **bound.ordering(block), first_row=rows + 1)
            for tally in audit.tallies.values():
                if tally.rows and rows < tally.row <= rows + block.rows:  # the worst row so far is one of these
                    places[tally.row] = block.place(tally.row - rows - 1)
            rows += block.rows
            if on_progress is not None:
                on_progress(rows, block.done, table.total)
    findings = [_place_evidence(finding, places) for finding in audit.findings()]
    return build_report(findings, _OTHER_SCALE.format(scale=scale))


def _place_evidence(finding: Finding, places: Mapping[int, str]) -> Finding:
    """Return a finding whose evidence says where in the file its worst row is."""
    if finding.status != "violated" or not finding.where:
        return finding
    return replace(finding, evidence=f"{finding.evidence} Row {finding.where[0]} is {places[finding.where[0]]}.")
