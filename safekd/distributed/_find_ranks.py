"""How a process finds out which others take part in its run."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from ..errors import InvalidInput
from ._ranks import Ranks


def find_ranks() -> Ranks:
    """Return the processes of this run: those of the default process group where one is there, else this one alone.

    Raises:
        InvalidInput: torchrun started several processes, and nobody has joined them yet.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        if torch.distributed.get_world_size() == 1:
            return Ranks()
        from ._process_group import ProcessGroupRanks  # a process alone imports nothing for others

        return ProcessGroupRanks()
    if _count_started() > 1:
        raise InvalidInput(
            f"This is process {os.environ['RANK']} of {_count_started()} that torchrun started, and they are not "
            "joined, so each would train a student of its own. Put the training inside "
            "`with kd.distributed.join_ranks():`, or call torch.distributed.init_process_group first."
        )
    return Ranks()


@contextmanager
def join_ranks(device: torch.device | str = "cpu", timeout: timedelta | None = None) -> Iterator[Ranks]:
    """Join the processes that torchrun started for the length of a block; one alone stays so.

    Args:
        device: Where students are: processors talk by gloo, GPUs by NCCL, each process to the GPU of its LOCAL_RANK.
        timeout: How long a rank may keep the others waiting; None for the backend's default, half an hour of gloo, ten
            minutes of NCCL.

    Yields:
        The processes.

    Raises:
        InvalidInput: They cannot be joined.
    """
    if _count_started() == 1 or (torch.distributed.is_available() and torch.distributed.is_initialized()):
        yield find_ranks()
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        torch.distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise InvalidInput(
            f"The {_count_started()} processes could not be joined: {error}. Start them by torchrun, which says where "
            "they meet: `torchrun --nproc-per-node=N script.py`, or `... -m safekd train ...`."
        ) from error
    try:
        yield find_ranks()
    finally:
        torch.distributed.destroy_process_group()
        gc.collect()  # what an error's frames hold of the group would end the process in its own way, with abort


def _count_started() -> int:
    """Return how many processes torchrun started, by the variables that it sets."""
    size = os.environ.get("WORLD_SIZE", "1")
    return int(size) if "RANK" in os.environ and size.isdecimal() else 1
