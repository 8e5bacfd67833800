"""Pieces of work, each for a process of its own: one contender with all its settings on one cell from one seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ._cells import Cell
from ._contenders import CONTENDERS, NAMES, TRAINER, label
from ._figures import Row, make_row
from ._problem import count_steps, set_up_cell
from ._run import run_contender
from ._thresholds import SETTINGS, set_thresholds
from ._trainer import run_trainer

_QUICK_REFERENCE = 200  # steps of the reference runs where it is only to be shown that it works


@dataclass(frozen=True)
class Piece:
    """One contender on one cell from one seed.

    Args:
        cell: The cell.
        seed: Of student and batches.
        contender: Its name.
        threshold_M: What the constraints ask for.
        quick: Whether few steps will do.
        defaults: Whether only the documented setting runs.
    """

    cell: Cell
    seed: int
    contender: str
    threshold_M: tuple[float, ...]
    quick: bool = False
    defaults: bool = False


def plan(cells: Sequence[Cell], seeds: int, quick: bool, defaults: bool) -> Iterator[Piece]:
    """Yield all work, cell by cell; a cell's thresholds are set before its first piece.

    Args:
        cells: Which.
        seeds: How many; the first is 0.
        quick: Whether few steps will do.
        defaults: Whether only documented settings run.

    Yields:
        The pieces.
    """
    settings = replace(SETTINGS, steps=_QUICK_REFERENCE) if quick else SETTINGS
    for cell in cells:
        threshold_M = set_thresholds(cell, settings).threshold_M
        for seed in range(seeds):
            for name in NAMES:
                yield Piece(cell, seed, name, threshold_M, quick, defaults)


def measure_piece(piece: Piece) -> list[Row]:
    """Run a contender at all its settings.

    Args:
        piece: Who, where, from which seed.

    Returns:
        One row a setting, the documented one first.
    """
    setup = set_up_cell(piece.cell, piece.seed, piece.threshold_M, count_steps(piece.cell, piece.quick))
    if piece.contender == TRAINER:
        return [make_row(setup, TRAINER, "default", True, run_trainer(setup))]
    who = next(who for who in CONTENDERS if who.name == piece.contender)
    scales = who.scales[:1] if piece.defaults or not who.grid else who.scales
    return [
        make_row(setup, who.name, label(scale), scale == who.scales[0], run_contender(setup, who, scale))
        for scale in scales
    ]
