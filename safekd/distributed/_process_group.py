"""Ranks over a process group of torch.distributed: gloo on processors, NCCL on GPUs.

A rank can end in three ways that the others must hear of:

- an exception where sums are made: its vector says so, all ranks meet once more, and each raises with that reason;
- it dies (killed, out of memory): its connections close, which gloo reports within milliseconds and NCCL's watchdog
  after its time-out; whoever waits for it raises, and says which rank is gone where that can be found out;
- it hangs: the group's own time-out, as given to ``init_process_group`` or ``join_ranks``, ends the wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import RankFailure, SafekdError
from ._ranks import Answer, Ranks, hash_tensors

_REQUESTS = ("stop", "save")
_TAG = 1738  # of the messages by which survivors ask who is still there


@dataclass(frozen=True)
class ProcessGroupSettings:
    """Numbers of a group.

    Attributes:
        answer_within: Seconds that a rank may take to answer once another one was lost: all have stopped by then
            (``tests/safekd/distributed/test_lost_ranks.py``).
    """

    answer_within: float = 5.0


SETTINGS = ProcessGroupSettings()


class ProcessGroupRanks(Ranks):
    """The processes of a group that is there.

    Args:
        group: The group; None for the default one.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._asked, self._known = dict.fromkeys(_REQUESTS, False), dict.fromkeys(_REQUESTS, False)
        self._on_cpu = "gloo" in dist.get_backend(group)
        self.device = torch.device("cpu") if self._on_cpu else torch.device("cuda", torch.cuda.current_device())

    def add_up(self, compute: Callable[[], Tensor], length: int) -> Tensor:
        """Return the sum over all ranks of one vector each, (n,), float64; the same bits on every rank.

        Args:
            compute: Gives this rank's vector, (n,), float64, without gradient.
            length: n, so that a rank on which that fails can tell the others before it raises.

        Raises:
            RankFailure: It failed on another rank, whose reason the message has, or a rank does not answer.
        """
        failure: Exception | None = None
        asked = [float(self._asked[what]) for what in _REQUESTS]
        mine = torch.tensor([0.0] * length + [*asked, 0.0], dtype=torch.float64)  # the last: how many ranks failed
        device = mine.device
        try:
            value = compute()
            device = value.device
            if value.shape != (length,):
                raise ValueError(f"sums of shape {tuple(value.shape)}, wanted {length} numbers")
            mine = torch.cat([value.double(), mine[length:].to(device)])
        except Exception as error:
            failure, mine[-1] = error, 1.0
        total = mine.to(self.device)
        with self.watch():
            dist.all_reduce(total, group=self.group)
        total = total.to(device)
        if total[-1] != 0:
            self._raise_together(failure)
        for what, count in zip(_REQUESTS, total[length:-1].tolist(), strict=True):
            self._known[what] = self._known[what] or count > 0
        return total[:length]

    @torch.no_grad()
    def add_up_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors, such as gradients, with their sums over all ranks, each in its own type of number.

        Args:
            tensors: Alike in number, shapes and types on every rank.

        Raises:
            RankFailure: A rank does not answer.
        """
        for some in _group_by_type(tensors):
            flat = torch.cat([x.detach().reshape(-1) for x in some]).to(self.device)
            with self.watch():
                dist.all_reduce(flat, group=self.group)
            _write_pieces(flat, some)

    def ask(self, what: str, wanted: bool) -> bool:
        """Ask all ranks for something, such as to stop; say whether any has asked that all know of by now.

        What is asked travels with the sums of the next ``add_up``, so it costs nothing, and all learn of it at once.

        Args:
            what: "stop" or "save".
            wanted: Whether this rank asks for it.
        """
        self._asked[what] = self._asked[what] or wanted
        known = self._known[what]
        if known:
            self._asked[what] = self._known[what] = False
        return known

    def gather(self, value: Answer) -> list[Answer]:
        """Return one value of every rank, in order.

        Args:
            value: This rank's, plain data, which is sent.

        Raises:
            RankFailure: A rank does not answer.
        """
        values = [value] * self.size
        with self.watch():
            dist.all_gather_object(values, value, group=self.group)
        return values

    def gather_rows(self, rows: Tensor, counts_R: Sequence[int]) -> Tensor:
        """Return the rows of all ranks, one rank after the other.

        Args:
            rows: This rank's, (B, ...); those of other ranks differ in number alone.
            counts_R: How many rows each rank has.

        Raises:
            RankFailure: A rank does not answer.
        """
        same = rows.detach().to(torch.uint8) if rows.dtype == torch.bool else rows.detach()
        padded = same.new_zeros(max(counts_R), *rows.shape[1:]).to(self.device)
        padded[: len(rows)] = same
        parts = [torch.empty_like(padded) for _ in counts_R]
        with self.watch():
            dist.all_gather(parts, padded, group=self.group)
        return torch.cat([part[:count] for part, count in zip(parts, counts_R, strict=True)]).to(rows)

    def ask_first(self, compute: Callable[[], Answer]) -> Answer:
        """Return what rank 0 works out, on every rank; the others wait for it.

        Args:
            compute: Called on rank 0 alone; gives plain data, which is sent.

        Raises:
            RankFailure: It failed there, or a rank does not answer.
        """
        failure: Exception | None = None
        answer: list[Any] = [None, ""]
        if self.is_first:
            try:
                answer[0] = compute()
            except Exception as error:
                failure, answer[1] = error, _describe_failure(error)
        with self.watch():
            dist.broadcast_object_list(answer, self._global_first(), group=self.group)
        if failure is not None:
            raise failure
        if answer[1]:
            raise RankFailure(f"Rank 0 of {self.size} stopped, and all others with it: {answer[1]}")
        given: Answer = answer[0]
        return given

    @torch.no_grad()
    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors with those of rank 0, one message a type of number.

        Args:
            tensors: Alike in number, shapes and types on every rank; changed in place.

        Raises:
            RankFailure: A rank does not answer.
        """
        for some in _group_by_type(tensors):
            flat = torch.cat([x.detach().reshape(-1) for x in some]).to(self.device)
            with self.watch():
                dist.broadcast(flat, self._global_first(), group=self.group)
            _write_pieces(flat, some)

    def require_alike(self, what: str, values: Iterable[Tensor]) -> None:
        """Compare a hash of some tensors over all ranks.

        Args:
            what: What messages call them.
            values: The same number of tensors on every rank.

        Raises:
            RankFailure: They are not the same to the last bit, or a rank does not answer.
        """
        own = hash_tensors(values)
        both = torch.tensor([own, -own], dtype=torch.float64, device=self.device)
        with self.watch():
            dist.all_reduce(both, op=dist.ReduceOp.MAX, group=self.group)
        if both[0] == -both[1]:
            return
        hashes = self.gather(f"{own:012x}")
        other = next(rank for rank, text in enumerate(hashes) if text != hashes[0])
        raise RankFailure(
            f"{what} are not the same on every rank: rank {other} of {self.size} has other ones than rank 0 (hashes "
            f"{', '.join(hashes)}). All ranks must be given the same problem, seed and versions; begin again from the "
            "last checkpoint, and report it where they were."
        )

    def wait(self) -> None:
        """Wait until every rank has come here.

        Raises:
            RankFailure: A rank does not answer.
        """
        with self.watch():
            dist.barrier(group=self.group)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Raise RankFailure where the block fails because another rank has gone.

        Yields:
            Nothing.
        """
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, SafekdError) or not _is_lost_connection(error):
                raise
            raise RankFailure(self._describe_loss(error)) from error

    def _global_first(self) -> int:
        return 0 if self.group is None else dist.get_global_rank(self.group, 0)

    def _raise_together(self, failure: Exception | None) -> None:
        """Tell every rank why one of them stops; each raises, that one its own exception."""
        reasons = self.gather("" if failure is None else _describe_failure(failure))
        if failure is not None:
            raise failure
        rank = next(rank for rank, text in enumerate(reasons) if text)
        raise RankFailure(f"Rank {rank} of {self.size} stopped, and all others with it: {reasons[rank]}")

    def _describe_loss(self, error: RuntimeError) -> str:
        lost = self._find_lost()
        who = f"Rank {', '.join(map(str, lost))} of {self.size}" if lost else f"One of {self.size} ranks"
        reason = " ".join(str(error).split()).partition(". This is typically")[0]
        return (
            f"{who} does not answer any more, so rank {self.rank} stops too ({reason}). That process's last message "
            "says why: it was killed, ran out of memory, or failed. Begin again from the last checkpoint."
        )

    def _find_lost(self) -> list[int]:
        """Return the ranks that do not answer, as far as that can be found out."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        if len(others) == 1 or not self._on_cpu:
            return others if len(others) == 1 else []
        lost, waiting = [], {}
        for other in others:
            peer = other if self.group is None else dist.get_global_rank(self.group, other)
            try:
                sent = dist.isend(torch.zeros(1), peer, group=self.group, tag=_TAG)
                waiting[other] = (sent, dist.irecv(torch.zeros(1), peer, group=self.group, tag=_TAG))
            except RuntimeError:
                lost.append(other)
        for other, works in waiting.items():
            try:
                for work in works:
                    if work is not None:
                        work.wait(timedelta(seconds=SETTINGS.answer_within))
            except RuntimeError:
                lost.append(other)
        return sorted(lost)


def _group_by_type(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    return [[x for x in tensors if x.dtype == dtype] for dtype in dict.fromkeys(x.dtype for x in tensors)]


def _write_pieces(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    for x, piece in zip(tensors, torch.split(flat, [x.numel() for x in tensors]), strict=True):
        x.copy_(piece.view_as(x))


def _is_lost_connection(error: RuntimeError) -> bool:
    """Say whether an error is one of communication; gloo raises plain RuntimeErrors, which name its files."""
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL"))


def _describe_failure(error: Exception) -> str:
    return str(error) if isinstance(error, SafekdError) else f"{type(error).__name__}: {error}"
