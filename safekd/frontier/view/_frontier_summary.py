"""A frontier in a few lines of text."""

from __future__ import annotations

import numpy as np

from ...errors import InvalidInput
from ..table import RatedFrontier, list_setting_columns


def summarize_frontier(frontier: RatedFrontier) -> str:
    """Return what was traced, how it went and what safety costs."""
    table, name = frontier.table, frontier.constraint
    if len(table) == 0:
        return f"Frontier over '{name}': no rows."
    split = ", ".join(dict.fromkeys(table["split"].astype(str)))
    lines = [f"Frontier: distillation loss against safety '{name}' ({split} split){_describe_settings(frontier)}"]
    counts = table["status"].value_counts(sort=False)
    best = frontier.nondominated()
    rows = f"{len(table)} row" + ("s" if len(table) != 1 else "")
    lines.append(f"{rows}: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    flags = {
        "duplicate": table["duplicate"].sum(),
        "with a contradicted multiplier": table["multiplier_contradicted"].sum(),
    }
    flagged = "".join(f", {count} {what}" for what, count in flags.items() if count)
    lines.append(f"{int(table['feasible'].sum())} feasible, {len(best)} nondominated{flagged}")
    if len(frontier.points) == 0:
        return "\n".join([*lines, "no feasible point, so nothing is known of what safety costs"])
    safety, loss = best[f"safety_{name}"], best["distillation_loss"]
    lines.append(
        f"safety {safety.min():.4f} to {safety.max():.4f} costs {loss.min():.6g} to {loss.max():.6g} nats"
        + _describe_knee(frontier)
    )
    corner = frontier.reference
    try:
        lines.append(f"hypervolume {frontier.hypervolume(corner):.6g} against ({corner[0]:.6g}, {corner[1]:.6g})")
    except InvalidInput as error:  # a reference in the meta that is none
        lines.append(str(error))
    return "\n".join(lines)


def _describe_settings(frontier: RatedFrontier) -> str:
    settings = []
    for column in list_setting_columns(frontier.table, "method"):
        values = frontier.table[column].drop_duplicates().tolist()
        shown = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values[:5])
        more = f" and {len(values) - 5} more" if len(values) > 5 else ""
        settings.append(f"{column.replace('held_', 'held ')} {shown}{more}")
    return "; " + "; ".join(settings)


def _describe_knee(frontier: RatedFrontier) -> str:
    try:
        knee = frontier.knee()
    except InvalidInput:
        return ""
    multiplier = "" if np.isnan(knee.multiplier) else f", multiplier {knee.multiplier:.4g}"
    return f"; knee at safety {knee.safety:.4f} (loss {knee.loss:.6g}{multiplier})"
