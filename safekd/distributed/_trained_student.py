"""The student as a run of several processes trains it, and the plain module that everything else reads.

A step asks ``caller``, what was given: DistributedDataParallel, whose reducer adds gradients up while the backward pass
still goes on, a module sharded by ``fully_shard``, or a plain module, whose gradients are added up after it.  All else,
evaluations, multiplier scales, checkpoints and the answer, goes by ``module``: the same parameters, unwrapped, so that
reading a value waits for nobody.  Axes: B batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ._ranks import Ranks


class TrainedStudent:
    """A plain module, of one process or the same on each rank.

    Args:
        student: Trained in place.
        ranks: Who trains it.

    Attributes:
        caller: What a step calls with a batch, (B, ...) to (B, ..., V).
        module: What everything else reads.
        moved: The module whose parameters the optimizer moves.
        parameters: What the optimizer moves, by name; of a sharded student this rank's shards.
        keeps_step: Whether every rank has to call it equally often.
        gradient_factor: Number by which each rank multiplies its share of the loss: the ranks' number where gradients
            are averaged over them.
    """

    def __init__(self, student: nn.Module, ranks: Ranks) -> None:
        self.caller = student
        self.ranks = ranks
        self.module = self.moved = student
        self.parameters = dict(student.named_parameters())
        self.gradient_factor, self.keeps_step = 1.0, False

    def begin(self) -> None:
        """Give every rank the parameters and buffers of rank 0."""
        if self.ranks.size > 1:
            with torch.no_grad():
                self.ranks.broadcast([*self.module.parameters(), *self.module.buffers()])

    def accumulate(self, last: bool) -> AbstractContextManager[object]:
        """Return the context of one forward and backward pass: only the last of a step adds up over ranks.

        Args:
            last: Whether it is the last one of the step.
        """
        del last
        return nullcontext()

    @torch.no_grad()
    def add_up_gradients(self) -> None:
        """Leave the sum over ranks in each gradient, once a step's last backward pass is over."""
        if self.ranks.size == 1:
            return
        trained = [p for p in self.parameters.values() if p.requires_grad]
        used = torch.tensor([float(p.grad is not None) for p in trained], dtype=torch.float64)
        for p in trained:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        self.ranks.add_up_in_place([used, *(p.grad for p in trained if p.grad is not None)])
        for p, count in zip(trained, used.tolist(), strict=True):
            if not count:
                p.grad = None  # no rank used it: an optimizer is to leave it as it is

    def share_buffers(self) -> None:
        """Give every rank the running averages of rank 0, as DistributedDataParallel does before each forward pass."""
        buffers = list(self.module.buffers())
        if self.ranks.size > 1 and buffers:
            self.ranks.broadcast(buffers)

    def refresh(self) -> None:
        """Bring ``module`` up to what was trained, before it is read."""

    def write_back(self) -> None:
        """Bring what is trained to what ``module`` was set to."""

    def read_optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the state of the optimizer as one process would have it; every rank calls it.

        Args:
            optimizer: Of the student.
        """
        return {**optimizer.state_dict(), "state": map_tensors(optimizer.state_dict()["state"], read_whole)}

    def cut_optimizer_state(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return this rank's part of an optimizer's state.

        Args:
            optimizer: Of the student.
            state: As one process has it.
        """
        numbered = zip(
            [p for group in optimizer.param_groups for p in group["params"]],
            [number for group in state["param_groups"] for number in group["params"]],
            strict=False,  # whoever loads it says where it does not fit
        )
        cut = dict(state["state"])
        for p, number in numbered:
            if number in cut and is_shard(p):
                cut[number] = map_tensors(cut[number], partial(cut_shard, like=p))
        return {**state, "state": cut}


class DataParallelStudent(TrainedStudent):
    """A module inside DistributedDataParallel, whose reducer averages gradients over ranks.

    Args:
        student: The wrapper; the module in it is what is evaluated and saved.
        ranks: Who trains it.
    """

    def __init__(self, student: nn.parallel.DistributedDataParallel, ranks: Ranks) -> None:
        super().__init__(student.module, ranks)
        self.caller = self._wrapper = student
        self.gradient_factor = float(ranks.size)

    def begin(self) -> None:
        """Do nothing: the wrapper gave every rank the parameters of rank 0 when it was made."""

    def accumulate(self, last: bool) -> AbstractContextManager[object]:
        """Return the context of one forward and backward pass: only the last of a step adds up over ranks.

        Args:
            last: Whether it is the last one of the step.
        """
        return nullcontext() if last else self._wrapper.no_sync()

    def add_up_gradients(self) -> None:
        """Do nothing: the reducer did."""


class CompiledStudent(TrainedStudent):
    """What ``torch.compile`` made of a module: steps call it, and everything else reads the module itself.

    Evaluations are of other sizes than steps, and multiplier scales go back through a graph more than once.

    Args:
        student: As ``torch.compile`` returned it.
        ranks: Who trains it.
    """

    def __init__(self, student: nn.Module, ranks: Ranks) -> None:
        super().__init__(student.get_submodule(COMPILED), ranks)
        self.caller = student


COMPILED = "_orig_mod"
"""Where ``torch.compile`` puts the module, a name that its state dictionaries show; tried on torch 2.10 to 2.13
(``tests/safekd/training/test_awkward_students.py`` says what is to be done when it is gone)."""


def measure_total_norm(tensors: Sequence[Tensor]) -> float:
    """Return the Euclidean norm of some tensors together; of shards that of the whole, the same on every rank.

    Args:
        tensors: Plain ones, or shards (DTensor).
    """
    squares = 0.0
    for dtype in dict.fromkeys(x.dtype for x in tensors):
        for sharded in (False, True):
            some = [x for x in tensors if x.dtype == dtype and is_shard(x) == sharded]
            if some:
                norm = torch.nn.utils.get_total_norm(some)
                squares += float(norm.full_tensor() if is_shard(norm) else norm) ** 2  # type: ignore[attr-defined]
    return math.sqrt(squares)


def is_shard(tensor: Tensor) -> bool:
    """Say whether a tensor is one rank's part of a distributed one (DTensor), without importing what defines those.

    Args:
        tensor: Any.
    """
    return hasattr(tensor, "full_tensor")


def take_own_shard(tensor: Tensor) -> Tensor:
    """Return what this rank holds of a tensor, in the same memory: all of it, unless that is a shard (DTensor).

    Args:
        tensor: Any.
    """
    if not is_shard(tensor):
        return tensor
    local: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return local


def read_whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor; of a shard every rank calls it, and gets it.

    Args:
        tensor: Plain, or a shard (DTensor).
    """
    if not is_shard(tensor):
        return tensor
    whole: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return whole


def cut_shard(value: Tensor, like: Tensor) -> Tensor:
    """Return this rank's shard of a tensor; nothing is sent.

    Args:
        value: All of it.
        like: Sharded as it is wanted; where it is plain, or of another shape, the value stays as it is.
    """
    if not is_shard(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor  # whoever has shards has imported it

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    return distribute_tensor(value.to(like.device), mesh, placements, src_data_rank=None)


def map_tensors(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return nested dictionaries with every tensor changed.

    Args:
        state: Of any depth.
        change: What becomes of a tensor.
    """
    if isinstance(state, Tensor):
        return change(state)
    return {key: map_tensors(value, change) for key, value in state.items()} if isinstance(state, dict) else state
