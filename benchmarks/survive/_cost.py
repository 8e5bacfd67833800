"""What a checkpoint costs beside ``torch.save`` of the same state, with and without a flush to the disk."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from safekd.training.resume import CHECKPOINTS, CheckpointStore


@dataclass(frozen=True)
class Cost:
    """Seconds for one state.

    Attributes:
        what: The state, in words.
        size: Its bytes.
        checkpoint: Seconds of a checkpoint, the median.
        torch_save: Seconds of ``torch.save`` and fsync.
        unflushed: Seconds of ``torch.save`` alone, whose bytes are then in the system's memory.
    """

    what: str
    size: int
    checkpoint: float
    torch_save: float
    unflushed: float


def measure_costs(folder: Path, repeats: int, largest: int) -> list[Cost]:
    """Return the cost of states of several sizes, as Adam leaves them.

    Args:
        folder: For the files.
        repeats: Of each, both ways in turn.
        largest: Parameters of the largest student.
    """
    costs, parameters = [], 10**5
    while parameters <= largest:
        costs.append(_measure(folder, parameters, repeats))
        parameters *= 10
    return costs


def _measure(folder: Path, parameters: int, repeats: int) -> Cost:
    width = max(int((parameters / 10) ** 0.5), 1)
    student = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(10)))
    optimizer = torch.optim.Adam(student.parameters())
    student(torch.randn(2, width)).sum().backward()
    optimizer.step()
    state = {"student": dict(student.state_dict()), "optimizer": optimizer.state_dict(), "run": {"step": 1}}
    place = folder / "cost"

    def by_torch() -> None:
        unflushed()
        handle = os.open(place / "state.pt", os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)

    def unflushed() -> None:
        torch.save(state, place / "state.pt")

    ways = {"ours": lambda: CheckpointStore(place).save(1, state), "torch": by_torch, "unflushed": unflushed}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, write in ways.items():
            times[name].append(_time(place, write))
    size = 3 * sum(p.numel() * p.element_size() for p in student.parameters())
    return Cost(f"{parameters:,} parameters, Adam", size, *(statistics.median(times[name]) for name in ways))


def _time(place: Path, write: Callable[[], Any]) -> float:
    shutil.rmtree(place, ignore_errors=True)
    (place / CHECKPOINTS).mkdir(parents=True)  # there for all but the first checkpoint of a run
    os.sync()  # what others left to be written is no cost of this
    began = time.perf_counter()
    write()
    return time.perf_counter() - began
