"""The cells: student, task, batch, optimizer, threshold and number of constraints, as one name each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MODELS = ("linear", "MLP", "transformer")
TASKS = ("breast cancer", "digits", "drift", "label noise")
OPTIMIZERS = ("Adam 1e-2", "Adam 1e-3", "SGD 0.1", "AdamW 3e-3")
BATCHES: tuple[int | None, ...] = (None, 64)
THRESHOLDS = ("near", "far")
COUNTS = (1, 5)


@dataclass(frozen=True)
class Cell:
    """One comparison.

    Args:
        model: One of MODELS.
        task: One of TASKS.
        optimizer: One of OPTIMIZERS, with its learning rate.
        batch: Examples a step, None for all of them.
        threshold: "near" what the student gets without constraints, or "far" from it.
        M: How many constraints.
    """

    model: str
    task: str
    optimizer: str
    batch: int | None
    threshold: str
    M: int

    @property
    def name(self) -> str:
        """What tables and ``--only`` call it."""
        batch = "full batch" if self.batch is None else f"batch {self.batch}"
        return f"{self.model}, {self.task}, {batch}, {self.optimizer}, {self.threshold}, {self.M}"


def product() -> list[Cell]:
    """Return all cells there are, in a fixed order."""
    every = itertools.product(MODELS, TASKS, OPTIMIZERS, BATCHES, THRESHOLDS, COUNTS)
    return [Cell(*values) for values in every]


# every pair of student and task once, each optimizer three times, every other value six times
FIXED = [
    Cell("linear", "breast cancer", "Adam 1e-2", 64, "far", 5),
    Cell("MLP", "digits", "Adam 1e-2", 64, "far", 1),
    Cell("transformer", "drift", "Adam 1e-2", None, "near", 5),
    Cell("linear", "label noise", "Adam 1e-3", 64, "near", 1),
    Cell("MLP", "breast cancer", "Adam 1e-3", None, "near", 5),
    Cell("transformer", "digits", "Adam 1e-3", None, "far", 5),
    Cell("linear", "drift", "SGD 0.1", 64, "far", 1),
    Cell("MLP", "label noise", "SGD 0.1", None, "near", 5),
    Cell("transformer", "breast cancer", "SGD 0.1", 64, "far", 1),
    Cell("linear", "digits", "AdamW 3e-3", None, "near", 1),
    Cell("MLP", "drift", "AdamW 3e-3", 64, "near", 5),
    Cell("transformer", "label noise", "AdamW 3e-3", None, "far", 1),
]


def draw_cells(seed: int, count: int = 12) -> list[Cell]:
    """Return cells drawn without repetition from those that are not fixed.

    Args:
        seed: The draw; the same seed gives the same cells.
        count: How many.

    Returns:
        The cells, in the order in which they were drawn.
    """
    rest = [cell for cell in product() if cell not in FIXED]
    return [rest[i] for i in np.random.default_rng(seed).choice(len(rest), count, replace=False)]


def choose(draw: int, only: Sequence[str] = ()) -> list[Cell]:
    """Return the fixed cells and the drawn ones.

    Args:
        draw: Seed of the draw.
        only: Parts of names; a cell stays if its name holds one of them.  Empty for all cells.

    Returns:
        The cells, fixed ones first.
    """
    cells = [*FIXED, *draw_cells(draw)]
    return [cell for cell in cells if not only or any(part in cell.name for part in only)]
