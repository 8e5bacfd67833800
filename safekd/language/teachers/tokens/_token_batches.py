"""Batches of token lists of unequal lengths.  Axes: B batch, T positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ....data import IGNORED, Batch, GroupNames, build_batch
from ....errors import InvalidInput
from ...loss import shift_labels

_ROW_PARTS = ("context", "task", "numbers")
_KNOWN = ("input_ids", "labels", "attention_mask", "context", "task", "numbers", "index")


@dataclass(frozen=True)
class TokenBatches:
    """Makes batches of token lists: a collate function for a ``DataLoader``.

        DataLoader(examples, batch_size=8, collate_fn=TokenBatches(pad=tokenizer.pad_token_id))

    An example is a list of token numbers, or a dictionary that has them as ``input_ids`` and may have ``labels`` (as
    transformers takes them: the tokens themselves, -100 where one does not count), ``attention_mask`` (0 where a token
    is padding already), ``context`` and ``task`` (numbers, or names), and ``numbers`` or ``index``, the example's own.

    Attributes:
        pad: Token put where a shorter sequence has ended; nothing reads it.
        length: Positions that every batch has; None for those of its longest sequence.
        shift: Whether labels are shifted, as the next token is asked for; an encoder is asked about the token itself.

    Raises:
        InvalidInput: A number is out of range.
    """

    pad: int = 0
    length: int | None = None
    shift: bool = True

    def __post_init__(self) -> None:
        for name, value, least in (("pad", self.pad, 0), ("length", self.length, 1)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise InvalidInput(f"`{name}` of TokenBatches is {value!r}; wanted a whole number from {least}.")

    def __call__(self, examples: Sequence[Any]) -> dict[str, Any]:
        """Return the parts of a batch, as ``fit``, sources and ``DataLoader`` pass them on.

        Args:
            examples: At least one.

        Returns:
            ``inputs`` with ``input_ids`` and ``attention_mask``, ``labels`` (aligned with hidden states), all (B, T),
            and of ``context``, ``task`` and ``numbers`` what the examples have.

        Raises:
            InvalidInput: An example has no token list, parts of it have another length, or some lack what others have.
        """
        if not len(examples):
            raise InvalidInput("A batch of no examples was asked for; wanted at least one.")
        rows = [_read_example(example, number) for number, example in enumerate(examples)]
        longest = max(len(row["input_ids"]) for row in rows)
        if self.length is not None and longest > self.length:
            raise InvalidInput(
                f"A sequence has {longest} tokens, and `length` is {self.length}; cut it, as as_text_source(texts, "
                "tokenizer, length=...) does."
            )
        width = longest if self.length is None else self.length
        ids = self._pad([row["input_ids"] for row in rows], self.pad, width)
        mask = self._pad([row["attention_mask"] for row in rows], 0, width)
        labels = self._pad([row["labels"] for row in rows], IGNORED, width)
        labels = labels.masked_fill(mask == 0, IGNORED)
        parts: dict[str, Any] = {
            "inputs": {"input_ids": ids, "attention_mask": mask},
            "labels": shift_labels(labels) if self.shift else labels,
        }
        return parts | _gather_row_parts(rows)

    def batch(self, examples: Sequence[Any], names: GroupNames | None = None) -> Batch:
        """Return a batch as teachers, steps and losses take it.

        Args:
            examples: As for a call.
            names: What contexts and tasks are called, where examples have names of them.

        Raises:
            InvalidInput: As for a call.
        """
        return build_batch(self(examples), names or GroupNames("tokens"))

    def _pad(self, rows: list[Tensor], filling: int, width: int) -> Tensor:
        padded = pad_sequence(rows, batch_first=True, padding_value=filling)
        return torch.nn.functional.pad(padded, (0, width - padded.shape[1]), value=filling)


def read_token_list(value: Any, what: str) -> Tensor:
    """Return a list of token numbers as a tensor, int64 (T,).

    Args:
        value: A list, an array or a tensor.
        what: What messages call it.

    Raises:
        InvalidInput: It is none, or empty.
    """
    try:
        numbers = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        numbers = None
    if numbers is None or numbers.ndim != 1 or not len(numbers) or numbers.is_floating_point():
        shown = type(value).__name__ if numbers is None else f"of shape {tuple(numbers.shape)} ({numbers.dtype})"
        raise InvalidInput(f"{what} is {shown}; wanted a list of token numbers, at least one.")
    return numbers.long()


def _read_example(example: Any, number: int) -> dict[str, Any]:
    who = f"Example {number}"
    given: Mapping[str, Any] = example if isinstance(example, Mapping) else {"input_ids": example}
    strange = [str(name) for name in given if name not in _KNOWN]
    if strange or "input_ids" not in given:
        lack = f"a part '{strange[0]}'" if strange else "no input_ids"
        raise InvalidInput(f"{who} has {lack}; wanted parts of {', '.join(map(repr, _KNOWN))}.")
    ids = read_token_list(given["input_ids"], f"{who}: input_ids")
    if int(ids.min()) < 0:
        raise InvalidInput(f"{who}: input_ids holds {int(ids.min())}; wanted token numbers, from 0.")
    row: dict[str, Any] = {"input_ids": ids}
    for what, otherwise in (("labels", ids), ("attention_mask", torch.ones_like(ids))):
        value = given.get(what)
        row[what] = otherwise if value is None else read_token_list(value, f"{who}: {what}")
        if len(row[what]) != len(ids):
            raise InvalidInput(f"{who}: {what} has {len(row[what])} entries, input_ids {len(ids)}; wanted equal.")
    named = {**given, "numbers": given.get("numbers", given.get("index"))}
    return row | {what: named[what] for what in _ROW_PARTS if named.get(what) is not None}


def _gather_row_parts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for what in _ROW_PARTS:
        having = [row for row in rows if what in row]
        if having and len(having) < len(rows):
            raise InvalidInput(f"{len(having)} of {len(rows)} examples have a {what}; wanted all of them, or none.")
        if having:
            values = [row[what] for row in rows]
            text = isinstance(values[0], str)
            parts[what] = values if text else torch.tensor([int(value) for value in values])
    return parts
