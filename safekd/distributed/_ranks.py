"""The processes of a run, and what they tell each other.

Every rank trains the same student on its own part of each batch.  What a step decides by, sums and counts, is added up
over all of them in one float64 vector, so every rank takes the same decision from the same numbers, bit for bit.  A
process alone takes part in nothing: ``Ranks`` itself is that case.  Axes: n numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

Answer = TypeVar("Answer")


class Ranks:
    """One process alone: every sum is its own, and nobody has to be told.

    Attributes:
        rank: Which process this is, from 0.
        size: How many there are.

    >>> Ranks().add_up(lambda: torch.tensor([1.0, 2.0]).double(), 2)
    tensor([1., 2.], dtype=torch.float64)
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes for all."""
        return self.rank == 0

    def take_own(self, index: Tensor) -> Tensor:
        """Return this rank's part of a batch: every ``size``-th example, from the ``rank``-th on; perhaps none.

        Args:
            index: Places of the whole batch, (B,), the same on every rank.
        """
        return index[self.rank :: self.size]

    def add_up(self, compute: Callable[[], Tensor], length: int) -> Tensor:
        """Return the sum over all ranks of one vector each, (n,), float64; the same bits on every rank.

        Args:
            compute: Gives this rank's vector, (n,), float64, without gradient.
            length: n, so that a rank on which that fails can tell the others before it raises.

        Raises:
            RankFailure: It failed on another rank, whose reason the message has, or a rank does not answer.
        """
        del length
        return compute()

    def add_up_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors, such as gradients, with their sums over all ranks, each in its own type of number.

        Args:
            tensors: Alike in number, shapes and types on every rank.

        Raises:
            RankFailure: A rank does not answer.
        """

    def agree(self, text: str | None) -> str | None:
        """Return what the first rank that has something to say says; None where none has.

        Args:
            text: This rank's; None for nothing.

        Raises:
            RankFailure: A rank does not answer.
        """
        return next((said for said in self.gather(text or "") if said), None)

    def ask(self, what: str, wanted: bool) -> bool:
        """Ask all ranks for something, such as to stop; say whether any has asked that all know of by now.

        What is asked travels with the sums of the next ``add_up``, so it costs nothing, and all learn of it at once.

        Args:
            what: "stop" or "save".
            wanted: Whether this rank asks for it.
        """
        del what
        return wanted

    def gather(self, value: Answer) -> list[Answer]:
        """Return one value of every rank, in order.

        Args:
            value: This rank's, plain data, which is sent.

        Raises:
            RankFailure: A rank does not answer.
        """
        return [value]

    def gather_rows(self, rows: Tensor, counts_R: Sequence[int]) -> Tensor:
        """Return the rows of all ranks, one rank after the other.

        Args:
            rows: This rank's, (B, ...); those of other ranks differ in number alone.
            counts_R: How many rows each rank has.

        Raises:
            RankFailure: A rank does not answer.
        """
        del counts_R
        return rows

    def ask_first(self, compute: Callable[[], Answer]) -> Answer:
        """Return what rank 0 works out, on every rank; the others wait for it.

        Args:
            compute: Called on rank 0 alone; gives plain data, which is sent.

        Raises:
            RankFailure: It failed there, or a rank does not answer.
        """
        return compute()

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors with those of rank 0.

        Args:
            tensors: Alike in number, shapes and types on every rank; changed in place.

        Raises:
            RankFailure: A rank does not answer.
        """

    def require_alike(self, what: str, values: Iterable[Tensor]) -> None:
        """Compare a hash of some tensors over all ranks.

        Args:
            what: What messages call them.
            values: The same number of tensors on every rank.

        Raises:
            RankFailure: They are not the same to the last bit, or a rank does not answer.
        """

    def wait(self) -> None:
        """Wait until every rank has come here.

        Raises:
            RankFailure: A rank does not answer.
        """

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Raise RankFailure where the block fails because another rank has gone.

        Yields:
            Nothing.
        """
        yield


def hash_tensors(values: Iterable[Tensor]) -> int:
    """Return 48 bits of a hash of some tensors' bytes: as many as float64 holds exactly.

    Args:
        values: Any, on any device.
    """
    digest = hashlib.blake2b(digest_size=6)
    for value in values:
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return int.from_bytes(digest.digest(), "little")
