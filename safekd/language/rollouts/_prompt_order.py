"""Which prompts come next: every epoch all of them in another order, each rank its own part.

Axes: R prompts of a round, P tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._number_checks import is_whole
from ...errors import InvalidInput


def combine_seeds(*numbers: int) -> int:
    """Return one seed out of several numbers, such as a seed, a rank and the number of a round.

    Args:
        numbers: At least 0.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def draw_order(size: int, seed: int, epoch: int) -> Tensor:
    """Return the order of an epoch, (size,).

    Args:
        size: How many there are.
        seed: Of all epochs.
        epoch: Which one, from 0.
    """
    return torch.randperm(size, generator=torch.Generator().manual_seed(combine_seeds(seed, epoch)))


class PromptOrder:
    """Prompts in the order in which students write after them.

    Args:
        prompts: Token numbers of each prompt: lists or tensors (P,), one tensor (N, P) of equally long ones, or what a
            tokenizer gives, whose padding is left out.
        context: Context of each prompt; 0 for all where left out.
        task: Task of each prompt; 0 for all where left out.
        seed: Of the order.
        rank: Which process this is.
        ranks: How many there are.

    Raises:
        InvalidInput: There are no prompts, one is empty or holds what is no token number, or contexts and tasks are not
            as many.
    """

    def __init__(
        self,
        prompts: Sequence[Any] | Mapping[str, Any] | Tensor,
        context: Sequence[int] | Tensor | None,
        task: Sequence[int] | Tensor | None,
        seed: int,
        rank: int,
        ranks: int,
    ) -> None:
        prompts = _leave_out_padding(prompts) if isinstance(prompts, Mapping) else prompts
        if isinstance(prompts, str) or len(prompts) == 0:
            raise InvalidInput(
                f"`prompts` is {type(prompts).__name__} of length {len(prompts)}; wanted a list of prompts, each "
                "a list of token numbers, such as tokenizer(texts).input_ids."
            )
        self.prompts = [_read_prompt(n, prompt) for n, prompt in enumerate(prompts)]
        self.context = _read_groups("context", context, len(self.prompts))
        self.task = _read_groups("task", task, len(self.prompts))
        self._seed, self._rank, self._ranks = seed, rank, ranks

    def take(self, start: int, count: int) -> Tensor:
        """Return the places of this rank's next prompts, (count,).

        Args:
            start: How many this rank has taken.
            count: How many it takes.
        """
        size, places = len(self.prompts), []
        orders: dict[int, Tensor] = {}
        for n in range(start, start + count):
            epoch, place = divmod(n * self._ranks + self._rank, size)
            if epoch not in orders:
                orders[epoch] = draw_order(size, self._seed, epoch)
            places.append(int(orders[epoch][place]))
        return torch.tensor(places, dtype=torch.long)

    def pad_left(self, places: Tensor, padding: int) -> tuple[Tensor, Tensor]:
        """Return prompts of one length, as generation wants them.

        Args:
            places: Which, (R,).
            padding: The token in front of shorter ones.

        Returns:
            Token numbers and which of them are a prompt's, int64 (R, P) each.
        """
        chosen = [self.prompts[int(place)] for place in places]
        longest = max(len(prompt) for prompt in chosen)
        ids_RP = torch.tensor([[padding] * (longest - len(p)) + list(p) for p in chosen])
        length_R = torch.tensor([len(p) for p in chosen])
        return ids_RP, (torch.arange(longest) >= longest - length_R[:, None]).long()


def _leave_out_padding(encoded: Mapping[str, Any]) -> list[list[int]]:
    """Return the prompts of what a tokenizer gives."""
    if "input_ids" not in encoded:
        raise InvalidInput(
            f"`prompts` has {', '.join(map(repr, encoded))} and no 'input_ids'; wanted what a tokenizer gives."
        )
    rows = [torch.as_tensor(row) for row in encoded["input_ids"]]
    masks = encoded.get("attention_mask")
    kept = [torch.ones_like(row) for row in rows] if masks is None else [torch.as_tensor(mask) for mask in masks]
    return [row[mask.bool()].tolist() for row, mask in zip(rows, kept, strict=True)]


def _read_prompt(number: int, prompt: Any) -> tuple[int, ...]:
    ids = prompt.tolist() if isinstance(prompt, (Tensor, np.ndarray)) else prompt
    if isinstance(ids, str) or not isinstance(ids, Sequence) or not ids or not all(is_whole(i) and i >= 0 for i in ids):
        said = repr(ids if len(repr(ids)) < 60 else repr(ids)[:60] + "...")
        raise InvalidInput(
            f"Prompt {number} is {said}; wanted a list of token numbers, at least one. Turn text into numbers first: "
            "tokenizer(texts).input_ids."
        )
    return tuple(int(i) for i in ids)


def _read_groups(what: str, given: Sequence[int] | Tensor | None, size: int) -> Tensor:
    if given is None:
        return torch.zeros(size, dtype=torch.long)
    try:
        value = torch.as_tensor(given)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"`{what}` is {given!r:.80}; wanted one number from 0 a prompt, ({size},).") from error
    if value.shape != (size,) or value.is_floating_point() or not bool((value >= 0).all()):
        raise InvalidInput(
            f"`{what}` has shape {tuple(value.shape)} and type {value.dtype}; wanted one number from 0 a prompt, "
            f"({size},)."
        )
    return value.long()
