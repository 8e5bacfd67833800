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

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import RankFailure, SafekdError
from ._ranks import Ranks, hash_tensors

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
        mine = torch.zeros(length + 1, dtype=torch.float64)  # the last number: how many ranks failed
        device = mine.device
        try:
            value = compute()
            device = value.device
            if value.shape != (length,):
                raise ValueError(f"sums of shape {tuple(value.shape)}, wanted {length} numbers")
            mine = torch.cat([value.double(), value.new_zeros(1, dtype=torch.float64)])
        except Exception as error:
            failure, mine[-1] = error, 1.0
        total = mine.to(self.device)
        with self.watch():
            dist.all_reduce(total, group=self.group)
        total = total.to(device)
        if total[-1] != 0:
            self._raise_together(failure)
        return total[:-1]

    def add_up_gradient(self, flat_n: Tensor) -> Tensor:
        """Return the sum over all ranks of a gradient, in its own type of number.

        Args:
            flat_n: This rank's, (n,); may be overwritten.

        Raises:
            RankFailure: A rank does not answer.
        """
        total = flat_n.to(self.device)
        with self.watch():
            dist.all_reduce(total, group=self.group)
        return total.to(flat_n.device)

    def gather_texts(self, text: str) -> list[str]:
        """Return one text of every rank, in order.

        Args:
            text: This rank's.

        Raises:
            RankFailure: A rank does not answer.
        """
        texts = [""] * self.size
        with self.watch():
            dist.all_gather_object(texts, text, group=self.group)
        return texts

    @torch.no_grad()
    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors with those of rank 0, one message a type of number.

        Args:
            tensors: Alike in number, shapes and types on every rank; changed in place.

        Raises:
            RankFailure: A rank does not answer.
        """
        source = 0 if self.group is None else dist.get_global_rank(self.group, 0)
        for dtype in dict.fromkeys(x.dtype for x in tensors):
            some = [x for x in tensors if x.dtype == dtype]
            flat = torch.cat([x.detach().reshape(-1) for x in some]).to(self.device)
            with self.watch():
                dist.broadcast(flat, source, group=self.group)
            for x, piece in zip(some, flat.split([x.numel() for x in some]), strict=True):
                x.copy_(piece.view_as(x))

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
        hashes = self.gather_texts(f"{own:012x}")
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

    def _raise_together(self, failure: Exception | None) -> None:
        """Tell every rank why one of them stops; each raises, that one its own exception."""
        reasons = self.gather_texts("" if failure is None else _describe_failure(failure))
        if failure is not None:
            raise failure
        rank = next(rank for rank, text in enumerate(reasons) if text)
        raise RankFailure(f"Rank {rank} of {self.size} stopped, and all others with it: {reasons[rank]}")

    def _describe_loss(self, error: RuntimeError) -> str:
        lost = self._find_lost()
        who = f"Rank {', '.join(map(str, lost))} of {self.size}" if lost else f"One of {self.size} ranks"
        reason = " ".join(str(error).split()).partition(". This is typically")[0]
        return (
            f"{who} does not answer any more, so rank {self.rank} stops too ({reason}). That process's own last message "
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


def _is_lost_connection(error: RuntimeError) -> bool:
    """Say whether an error is one of communication; gloo raises plain RuntimeErrors, which name its files."""
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL"))


def _describe_failure(error: Exception) -> str:
    return str(error) if isinstance(error, SafekdError) else f"{type(error).__name__}: {error}"
