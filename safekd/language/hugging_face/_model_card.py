"""What a model card says of safety: what was promised, what training data and held-out text show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...io import write_atomically
from ...safety import Certificate
from ._trainer_verdict import TrainerResult

_BEGIN, _END = "<!-- safekd -->", "<!-- /safekd -->"


def add_safety_section(card: Path, result: TrainerResult | None, certificates: Sequence[Certificate]) -> None:
    """Write the section into a model card, in the place of an older one.

    Args:
        card: The file, which exists.
        result: Of the run; None before it.
        certificates: What was certified.
    """
    text = card.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    section = "\n".join([_BEGIN, *_write_section(result, certificates), _END])
    with write_atomically(card) as temporary:
        temporary.write_text(f"{before.rstrip()}\n\n{section}\n{after.lstrip()}", encoding="utf-8")


def _write_section(result: TrainerResult | None, certificates: Sequence[Certificate]) -> list[str]:
    lines = ["## Safety", ""]
    if result is None:
        return [*lines, "Distilled by safekd; no run has ended yet, so nothing is known of this student."]
    readings = result.point.readings
    lines += [f"Distilled by safekd. The run ended `{result.status}`: {result.message}", ""]
    if not readings:
        return [*lines, "No safety constraint was posed."]
    lines += ["| constraint | asked for | on training text | standard error | multiplier |", "|---|---|---|---|---|"]
    for reading in readings:
        sign = "=" if reading.equality else ">="
        lines.append(
            f"| {reading.name} | {sign} {reading.required:g} | {reading.measured:.4f} | {reading.standard_error:.4f} | "
            f"{result.multipliers[reading.name]:.4g} |"
        )
    lines += ["", "What is read on training text is no promise about new text."]
    shown = [f"- {certificate}" for certificate in certificates]
    return [*lines, "", *(["Held-out text:", "", *shown] if shown else ["No held-out text was certified."])]
