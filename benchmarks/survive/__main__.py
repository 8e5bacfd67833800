"""Do runs survive?  Killed at any moment, at every write, flush and rename, they end as if nothing had happened.

    python -m benchmarks.survive [--kills 100] [--flips 1000] [--cuts N] [--seed 0] [--out docs/benchmarks/survive.md]

Half of the kills come at a random moment, half at a crash point: before, halfway through or after the N-th call of a
function of the system that changes files.  Each is proved by the status that the system keeps of the dead process; a
third of the runs is killed twice.  A run that is gone on with must end with the same files as the one that nobody
killed, but for readings of clock and memory.  Then bits are flipped, and files cut to every length.  The exit status is
1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from .._timing import processor, report_path, today, versions
from ..projection._report import table
from ._cost import Cost, measure_costs
from ._damage import Damage, damage_files
from ._kills import EVERY, WAYS, Outcome, kill_many

MOST_COST = 1.5  # of torch.save


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, damage, time; print and write; return the exit status."""
    options = _read(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="survive-", dir=options.folder) as name:
        folder, console = Path(name), Console(stderr=True)
        runs = kill_many(options.kills, options.seed, folder)
        outcomes = list(track(runs, "kills", options.kills, console=console))
        damage = damage_files(folder / "damage", options.flips, options.cuts, options.seed)
        costs = measure_costs(folder, options.repeats, options.largest)
    text = write_report(outcomes, damage, costs)
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    return int(any(outcome.fault for outcome in outcomes) or bool(damage.unseen))


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    what = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.survive", description=what)
    add = parser.add_argument
    add("--kills", type=int, default=100, help="runs that are killed")
    add("--flips", type=int, default=1000, help="bits that are flipped")
    add("--cuts", type=int, help="lengths that each file is cut to; all if left out")
    add("--repeats", type=int, default=7, help="of each timing")
    add("--largest", type=int, default=10**7, help="parameters of the largest student whose checkpoint is timed")
    add("--seed", type=int, default=0, help="draws kills and bits")
    add("--folder", help="where files are written meanwhile")
    add("--out", type=report_path, help="write the report here")
    return parser.parse_args(arguments)


def write_report(outcomes: Sequence[Outcome], damage: Damage, costs: Sequence[Cost]) -> str:
    """Return the report as Markdown.

    Args:
        outcomes: Of the runs that were killed.
        damage: What was done to files.
        costs: Of checkpoints.
    """
    faults = [f"- {one.way}, killed {' and '.join(one.where)}: {one.fault}" for one in outcomes if one.fault]
    faults += [f"- not found: {unseen}" for unseen in damage.unseen]
    head = [
        "# Runs that are killed, and files that are damaged",
        "",
        f"`python -m benchmarks.survive`, {today()}, {processor()}, {versions(['torch', 'safetensors'])}.",
        "",
    ]
    told = ["Faults:", "", *faults, ""] if faults else []
    return "\n".join([*head, *_tell_kills(outcomes), *_tell_damage(damage), *_tell_costs(costs), *told])


def _tell_kills(outcomes: Sequence[Outcome]) -> list[str]:
    killed = sum(len(outcome.where) for outcome in outcomes)
    same = sum(not outcome.fault for outcome in outcomes)
    rows = [
        [way.name, str(len(mine)), str(sum(len(one.where) for one in mine)), str(sum(not one.fault for one in mine))]
        for way in WAYS
        if (mine := [outcome for outcome in outcomes if outcome.way == way.name])
    ]
    places = [where for outcome in outcomes for where in outcome.where]
    points = Counter(where.partition(", after" if ", after" in where else " of ")[0] for where in places)
    return [
        f"**{same} of {len(outcomes)} runs that were killed ended as the run that nobody killed**, byte for byte",
        f"but for readings of clock and memory; {killed} kills, each proved by the status of the dead process. A",
        f"checkpoint was written every {EVERY} steps, a third of the runs was killed twice.",
        "",
        table(["kind of run", "runs", "kills", "same files"], rows),
        "",
        "Where the kills came:",
        "",
        table(["place", "kills"], [[place, str(count)] for place, count in sorted(points.items())]),
        "",
    ]


def _tell_damage(damage: Damage) -> list[str]:
    found = damage.flips - sum(": bit " in one for one in damage.unseen)
    cut = damage.lengths - sum(": bit " not in one for one in damage.unseen)
    return [
        f"**{found} of {damage.flips} flipped bits were found**, and {cut} of {damage.lengths} lengths that files",
        "were cut to or grown by a byte (`safekd verify`).",
        "",
    ]


def _tell_costs(costs: Sequence[Cost]) -> list[str]:
    rows = [
        [
            cost.what,
            f"{cost.size / 1e6:,.1f}",
            *(f"{number:.4f}" for number in (cost.checkpoint, cost.torch_save, cost.unflushed)),
            f"{cost.checkpoint / cost.torch_save:.2f}",
            f"{cost.checkpoint / cost.unflushed:.2f}",
        ]
        for cost in costs
    ]
    met = "met" if all(cost.checkpoint <= MOST_COST * cost.torch_save for cost in costs) else "missed"
    return [
        "What a checkpoint costs beside `torch.save` of the same state, seconds, medians. A checkpoint is flushed to",
        f"the disk, so `torch.save` with a flush of its file is its measure (goal at most {MOST_COST}: {met});",
        "`torch.save` alone leaves its bytes in the system's memory, where a power cut takes them.",
        "",
        table(["state", "MB", "checkpoint", "torch.save, flushed", "torch.save", "ratio", "to unflushed"], rows),
        "",
        "A checkpoint hashes what it writes: a large file in a thread beside its writing and its flush. Small",
        "files, the manifest and the folder are flushed at one moment, so that the disk is waited for once; the",
        "folder above is flushed after the rename, a second wait that `torch.save` does not have, and that makes a",
        "checkpoint be there whole or not at all.",
        "",
    ]


if __name__ == "__main__":
    raise SystemExit(main())
