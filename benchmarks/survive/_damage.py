"""Files of runs that are damaged: is every changed bit found, and every length that is not what was written?"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import safekd as kd
from safekd.training.resume import CheckpointStore

from ._kills import WAYS, fit, run_apart


@dataclass
class Damage:
    """What was done to files, and what of it nobody noticed.

    Attributes:
        flips: Bits that were flipped, one at a time.
        lengths: Lengths that files were cut to, or grown by a byte, one at a time.
        unseen: Each change that was not found, in words.
    """

    flips: int = 0
    lengths: int = 0
    unseen: list[str] = field(default_factory=list)


def leave_checkpoints(folder: Path) -> None:
    """Train, and be gone before the end.

    Args:
        folder: Of the run; it then holds checkpoints.
    """
    real, calls = CheckpointStore.save, iter(range(2))

    def save(self, *given):  # type: ignore[no-untyped-def]
        path = real(self, *given)
        if next(calls, None) is None:
            os._exit(0)
        return path

    CheckpointStore.save = save  # type: ignore[method-assign]
    fit(WAYS[0], folder, 11)


def damage_files(folder: Path, flips: int, cuts: int | None, seed: int) -> Damage:
    """Change files of a finished run and of one with checkpoints, each change by itself; count what is not found.

    Args:
        folder: For the runs.
        flips: How many bits.
        cuts: How many lengths of each file; None for all.
        seed: Draws them.
    """
    run_apart(lambda: fit(WAYS[0], folder / "finished", 11))
    run_apart(lambda: leave_checkpoints(folder / "stopped"))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_listed(path)]
    draw, done = random.Random(seed), Damage()
    for _ in range(flips):
        file = draw.choice(files)
        whole = file.read_bytes()
        bit = draw.randrange(8 * len(whole))
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        done.flips += 1
        _try(folder, file, whole, bytes(changed), f"bit {bit}", done)
    for file in files:
        whole = file.read_bytes()
        lengths = range(len(whole)) if cuts is None else draw.sample(range(len(whole)), min(cuts, len(whole)))
        for length in lengths:
            done.lengths += 1
            _try(folder, file, whole, whole[:length], f"cut to {length}", done)
        done.lengths += 1
        _try(folder, file, whole, whole + b"\n", "one byte more", done)
    return done


def _is_listed(path: Path) -> bool:
    """Say whether a hash was written of a file: of the growing trace of a run that was stopped there is none."""
    return path.parent.name == "finished" or path.parent.parent.name == "checkpoints"


def _try(folder: Path, file: Path, whole: bytes, changed: bytes, what: str, done: Damage) -> None:
    run = folder / file.relative_to(folder).parts[0]
    file.write_bytes(changed)
    try:
        found = not kd.verify_files(run).holds()
    except kd.InvalidInput:
        found = True
    file.write_bytes(whole)
    if not found:
        done.unseen.append(f"{file.relative_to(folder)}: {what}")
