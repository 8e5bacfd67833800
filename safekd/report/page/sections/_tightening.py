"""How thresholds were raised until other data showed what was asked for, round by round."""

from __future__ import annotations

from .._elements import Element, format_number, make, make_table
from .._read_run import ReportedRun

_HEADS = ["round", "constraint", "asked", "posed", "measured", "judged", "cases", "lower bound", "clears"]


def show_tightening(run: ReportedRun) -> Element | None:
    """Return the section; None where thresholds were not raised.

    Args:
        run: Whose rounds.
    """
    raised = run.tightening
    if raised is None:
        return None
    judged = "out of fold" if raised.on == "crossfit" else f"on the {raised.on} split"
    rows = [
        [
            str(row["round"]),
            str(row["constraint"]),
            *(format_number(row[name]) for name in ("asked", "posed", "measured", "judged")),
            f"{row['cases']:,}",
            format_number(row["lower_bound"]),
            "yes" if row["cleared"] else "no",
            format_number(row["distillation_loss"]),
            str(row["status"]).replace("_", " "),
            "✓ kept" if row["kept"] else "",
        ]
        for row in raised.rounds.to_dict("records")
    ]
    return make(
        "section",
        make("h2", "How thresholds were raised"),
        make("p", raised.message),
        make(
            "p",
            f"Each round trained a student under the thresholds posed and judged it {judged}; {raised.looks:,} looks "
            "at data that judge, and the bounds allow for them. “Asked” contains the margin.",
            class_="soft",
        ),
        make_table([*_HEADS, "loss, nats", "training", "student"], rows, "Rounds of the tightening"),
    )
