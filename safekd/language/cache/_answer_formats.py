"""How a teacher's answers are stored, a row of numbers a position that counts, and back.

    hidden    hidden (P, H) in bfloat16; the head lies beside them, once
    topk      ids and log_p (P, k), and entropy, log p(label) and tail mass (P, 1) in float32

Log-probabilities in half precision do not add up to what the tail leaves; they are shifted until they do when they are
read.  Axes: P positions that count, W width of a row, H width of hidden states, V vocabulary, k tokens kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ...data import Batch
from ...errors import InvalidInput, NotFinite
from ..loss import Head, Hidden, Logits, TeacherOutput, TopK
from ._example_keys import ExampleKeys
from ._token_ranking import rank_tokens

Kind = Literal["hidden", "topk"]
Precision = Literal["bfloat16", "float16", "float32"]
_DTYPES: dict[str, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}
_SHORT = 2**16  # up to so many tokens have numbers of two bytes


@dataclass(frozen=True)
class AnswerFormat:
    """What stands in the shards of one teacher.

    Attributes:
        kind: "hidden" or "topk".
        vocabulary: How many tokens the teacher scores, V.
        width: Of the hidden states, H; or how many tokens are kept, k.
        dtype: Of hidden states or log-probabilities.
    """

    kind: Kind
    vocabulary: int
    width: int
    dtype: Precision

    @property
    def columns(self) -> dict[str, tuple[torch.dtype, int]]:
        """Type and width of each tensor of a shard, by name."""
        dtype = _DTYPES[self.dtype]
        if self.kind == "hidden":
            return {"hidden": (dtype, self.width)}
        ids = torch.uint16 if self.vocabulary <= _SHORT else torch.int32
        numbers = dict.fromkeys(("entropy", "log_truth", "tail"), (torch.float32, 1))
        return {"ids": (ids, self.width), "log_p": (dtype, self.width), **numbers}

    @property
    def position_bytes(self) -> int:
        """Bytes of a position."""
        return sum(dtype.itemsize * width for dtype, width in self.columns.values())

    def encode(self, output: TeacherOutput, batch: Batch, keys: ExampleKeys, who: str) -> dict[str, Tensor]:
        """Return what is stored of an answer: a row a position that counts, one example after the other.

        Args:
            output: What the teacher said.
            batch: What it was asked about.
            keys: Of the batch.
            who: The teacher, for messages.

        Raises:
            InvalidInput: It says something else than it did at first, or its numbers do not fit into ``dtype``.
            NotFinite: It gave NaN, or an infinite hidden state; the message names the example.
        """
        counted = _select_positions(output, batch, keys, who)
        if self.kind == "hidden":
            if not isinstance(counted, Hidden) or counted.hidden.shape[-1] != self.width:
                raise InvalidInput(f"{who} gave {_describe_output(output)}; wanted hidden states, width {self.width}.")
            rows = {"hidden": counted.hidden}
        else:
            labels_P = batch.labels.reshape(len(batch), -1)[keys.counted_BT.to(batch.labels.device)]
            try:
                rows = rank_tokens(counted, labels_P, self.width, self.vocabulary)
            except InvalidInput as error:
                raise InvalidInput(f"{who}: {error}") from error
        _require_numbers(rows, batch, keys, who)
        return {name: self._narrow(value, name, who) for name, value in rows.items()}

    def decode(self, rows: Mapping[str, Tensor], batch: Batch, keys: ExampleKeys, head: Head | None) -> TeacherOutput:
        """Return a teacher's answer from stored rows; positions that do not count get harmless numbers.

        Args:
            rows: What ``encode`` returned for the same examples, by name.
            batch: What is asked about.
            keys: Of the batch.
            head: Of hidden states, on the batch's device.
        """
        device, shape = batch.labels.device, batch.labels.shape
        where_N = keys.counted_BT.reshape(-1).to(device)

        def lay_out(value_PW: Tensor, filling: Tensor) -> Tensor:
            laid_NW = filling.to(device, value_PW.dtype).expand(where_N.numel(), value_PW.shape[1]).clone()
            laid_NW[where_N] = value_PW.to(device)
            return laid_NW.reshape(*shape, -1)

        if self.kind == "hidden":
            assert head is not None
            return Hidden(lay_out(rows["hidden"], torch.zeros(1)), head)
        evenly = torch.tensor([-math.log(self.vocabulary)])
        log_p_Pk = rows["log_p"].float()
        shift_P1 = torch.log1p(-rows["tail"]) - log_p_Pk.logsumexp(-1, keepdim=True)
        log_p_Pk += torch.where(shift_P1.isfinite(), shift_P1, 0.0)
        return TopK(
            lay_out(rows["ids"].to(torch.int64), torch.arange(self.width)),
            lay_out(log_p_Pk, evenly),
            lay_out(rows["tail"], torch.tensor([1 - self.width / self.vocabulary]))[..., 0],
            self.vocabulary,
            lay_out(rows["entropy"], -evenly)[..., 0],
            lay_out(rows["log_truth"], evenly)[..., 0],
        )

    def _narrow(self, value: Tensor, name: str, who: str) -> Tensor:
        stored = value.to("cpu", self.columns[name][0])
        if name == "hidden" and not bool(torch.isfinite(stored).all()):
            raise InvalidInput(
                f"{who} gave a hidden state of size {float(value.abs().max()):.3g}, which {self.dtype} cannot hold; "
                "wanted dtype='bfloat16' or 'float32'."
            )
        return stored


def plan_format(output: object, kind: Kind, k: int, dtype: Precision, vocabulary: int, who: str) -> AnswerFormat:
    """Return how a teacher's answers are stored, by its first one.

    Args:
        output: What it said.
        kind: "hidden" or "topk".
        k: Tokens kept, of "topk"; of a smaller vocabulary all are.
        dtype: Of the numbers.
        vocabulary: How many tokens the teacher says that it scores.
        who: The teacher, for messages.

    Raises:
        InvalidInput: It gives no hidden states, or scores fewer tokens than it says.
    """
    if not isinstance(output, (Hidden, Logits, TopK)):
        raise InvalidInput(f"{who} gave a {type(output).__name__}; wanted Hidden, Logits or TopK of kd.language.")
    if kind == "hidden" and not isinstance(output, Hidden):
        raise InvalidInput(
            f"{who} gives {_describe_output(output)}, and no hidden states; wanted kind='topk', which any teacher has."
        )
    scored = _count_scored_tokens(output, vocabulary)
    if scored < vocabulary:
        raise InvalidInput(f"{who} scores {scored:,} tokens, and says that its vocabulary has {vocabulary:,}.")
    width = output.hidden.shape[-1] if isinstance(output, Hidden) and kind == "hidden" else min(k, vocabulary)
    return AnswerFormat(kind, vocabulary, width, dtype)


def read_precision(dtype: object, kind: Kind) -> Precision:
    """Return the name of a dtype.

    Args:
        dtype: Of torch, or its name; None for what is usual: bfloat16 hidden states, float16 log-probabilities.
        kind: Of what.

    Raises:
        InvalidInput: It is another one.
    """
    if dtype is None:
        return "bfloat16" if kind == "hidden" else "float16"
    for name, known in _DTYPES.items():
        if dtype in (name, known):
            return name  # type: ignore[return-value]  # a key of the table
    raise InvalidInput(f"`dtype` is {dtype!r}; wanted {', '.join(_DTYPES)}.")


def _count_scored_tokens(output: TeacherOutput, vocabulary: int) -> int:
    if isinstance(output, Hidden):
        return output.head.vocabulary
    return int(output.logits.shape[-1]) if isinstance(output, Logits) else output.vocabulary or vocabulary


def _describe_output(output: TeacherOutput) -> str:
    if isinstance(output, Hidden):
        return f"hidden states of width {output.hidden.shape[-1]}"
    return "logits" if isinstance(output, Logits) else "a table of its most probable tokens"


def _select_positions(output: TeacherOutput, batch: Batch, keys: ExampleKeys, who: str) -> TeacherOutput:
    """Return what a teacher said at the positions that count, (P, ...), without a graph."""
    if output.lead != batch.labels.shape:
        raise InvalidInput(
            f"{who} gave one answer a position of shape {tuple(output.lead)}, and the labels have shape "
            f"{tuple(batch.labels.shape)}; wanted equal."
        )
    where_N = keys.counted_BT.reshape(-1)

    def pick(value: Tensor, axes: int) -> Tensor:
        return value.detach().reshape(-1, *value.shape[value.ndim - axes :])[where_N.to(value.device)]

    if isinstance(output, Hidden):
        return replace(output, hidden=pick(output.hidden, 1))
    if isinstance(output, Logits):
        return Logits(pick(output.logits, 1))
    numbers = (output.tail, output.entropy, output.log_truth)
    tail, entropy, log_truth = (None if value is None else pick(value, 0) for value in numbers)
    return TopK(pick(output.ids, 1), pick(output.log_p, 1), tail, output.vocabulary, entropy, log_truth)


def _require_numbers(rows: Mapping[str, Tensor], batch: Batch, keys: ExampleKeys, who: str) -> None:
    """Raise NotFinite where a number is none: NaN, or infinite in a hidden state, whose logits would be NaN."""
    for name, value_PW in rows.items():
        if name == "ids":
            continue
        good_PW = torch.isfinite(value_PW) if name in ("hidden", "entropy") else ~torch.isnan(value_PW)
        if not bool(good_PW.all()):
            place = int((~good_PW).any(-1).nonzero()[0])
            row, position = keys.counted_BT.nonzero()[place].tolist()
            found = "NaN" if bool(value_PW[place].isnan().any()) else "an infinite number"
            raise NotFinite(
                f"{who} gave {found} for example {int(batch.index[row])}, position {position}", "finite numbers"
            )
