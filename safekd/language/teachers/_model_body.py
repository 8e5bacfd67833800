"""The hidden states that a language model's head reads, without its logits.  Axes: B batch, T positions, H width.

``read_hidden`` runs the model below its head; ``find_head_gap`` checks on a few tokens that the head, put on top, gives
the model's own logits.  Both are used for teachers and for students.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...data import Batch
from ...errors import InvalidInput
from ..loss import Head


@dataclass(frozen=True)
class HeadCheckSettings:
    """How a head is checked; ``tests/safekd/language/teachers/test_causal_teacher.py`` notices.

    Attributes:
        tokens: Length of the sequence on which it is, at most.
        rounding: Gap that passes, in units of the last place of the largest logit: the same product of matrices may be
            added up in another order for another number of rows.
    """

    tokens: int = 8
    rounding: float = 32.0


CHECK = HeadCheckSettings()


def require_batch(batch: object, who: str) -> Batch:
    """Return what a teacher is asked about, if it is a batch.

    Args:
        batch: What was given.
        who: Is asked.

    Raises:
        InvalidInput: It is something else.
    """
    if isinstance(batch, Batch):
        return batch
    shape = f" of shape {tuple(batch.shape)}" if isinstance(batch, Tensor) else ""
    raise InvalidInput(
        f"{who} was asked about a {type(batch).__name__}{shape}; wanted a Batch: "
        "kd.language.TokenBatches().batch(token_lists), or split.batch() of "
        "kd.language.as_text_source(token_lists)."
    )


def unwrap_adapters(model: nn.Module) -> nn.Module:
    """Return the transformers model inside a peft model, adapters in place; any other model is itself.

    Args:
        model: A model, in a ``PeftModel`` or not.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return inner if isinstance(inner, nn.Module) else model


def read_token_inputs(inputs: Any, who: str) -> dict[str, Tensor]:
    """Return ``input_ids`` and ``attention_mask``, (B, T) each, and ``position_ids`` where they matter or are given.

    Positions are counted from the first token of each row that is no padding, so that padding on the left is none to a
    model that learned places.

    Args:
        inputs: Those of a batch: token numbers (B, T), or a dictionary that has them as ``input_ids``.
        who: What messages call the model.

    Raises:
        InvalidInput: There are no token numbers, or the mask has another shape.
    """
    given: Mapping[str, Any] = inputs if isinstance(inputs, Mapping) else {"input_ids": inputs}
    ids = given.get("input_ids")
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.is_floating_point() or ids.dtype == torch.bool:
        what = f"`input_ids` of shape {tuple(ids.shape)} ({ids.dtype})" if isinstance(ids, Tensor) else "no `input_ids`"
        raise InvalidInput(
            f"{who} was given {what}; wanted a batch whose inputs are "
            '{"input_ids": token numbers (B, T), "attention_mask": (B, T)}.'
        )
    mask = given.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    if mask.shape != ids.shape:
        raise InvalidInput(
            f"{who} was given an attention_mask of shape {tuple(mask.shape)} for input_ids of shape "
            f"{tuple(ids.shape)}; wanted equal: 1 at tokens, 0 at padding."
        )
    read = {"input_ids": ids.long(), "attention_mask": mask.long()}
    if given.get("position_ids") is not None:
        return {**read, "position_ids": given["position_ids"]}
    if has_padding_on_left(read["attention_mask"]):
        read["position_ids"] = (read["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    return read


def has_padding_on_left(mask: Tensor) -> bool:
    """Tell whether a token comes after padding in any row.

    Args:
        mask: 1 at tokens, 0 at padding, (B, T).
    """
    return bool((mask[:, 1:] > mask[:, :-1]).any())


def require_causal(model: nn.Module, who: str) -> None:
    """Refuse a model that encodes before it decodes.

    Args:
        model: A transformers model.
        who: What messages call it.

    Raises:
        InvalidInput: It does.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise InvalidInput(
            f"{who} is a {type(model).__name__}, which reads one text and writes another; wanted a causal language "
            "model, which goes on with the text it reads."
        )


def find_body(model: nn.Module, who: str) -> nn.Module:
    """Return the part of a causal language model below its head.

    Args:
        model: A transformers model.
        who: What messages call it.

    Raises:
        InvalidInput: It has none.
    """
    body = getattr(model, "base_model", None)
    if body is None or body is model:
        body = model.get_decoder() if hasattr(model, "get_decoder") else None  # type: ignore[operator]
    if not isinstance(body, nn.Module) or body is model:
        raise InvalidInput(
            f"{who} is a {type(model).__name__}, whose part below the head was not found; wanted a causal language "
            "model of transformers (AutoModelForCausalLM), or gives='logits'."
        )
    return body


def read_hidden(model: nn.Module, inputs: Mapping[str, Tensor], who: str) -> Tensor:
    """Return the hidden states that the head reads; no logits are computed.

    Args:
        model: A causal language model of transformers.
        inputs: As ``read_token_inputs`` gives them.
        who: What messages call the model.

    Returns:
        (B, T, H), of the model's type.

    Raises:
        InvalidInput: There is no such part below the head.
    """
    body = find_body(model, who)
    output = body(**select_arguments(body, {**inputs, "use_cache": False}))
    hidden = getattr(output, "last_hidden_state", None)
    if not isinstance(hidden, Tensor):
        raise InvalidInput(f"{who}: {type(body).__name__} gave no `last_hidden_state`; ask it with gives='logits'.")
    return hidden


def select_arguments(module: nn.Module, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a module's ``forward`` takes.

    Args:
        module: What is to be called.
        values: By name.
    """
    known = inspect.signature(module.forward).parameters
    return {name: value for name, value in values.items() if name in known}


@torch.no_grad()
def find_head_gap(model: nn.Module, head: Head, inputs: Mapping[str, Tensor], who: str) -> str:
    """Say how the head's logits differ from the model's on the first tokens of a batch; nothing where they are equal.

    Args:
        model: A causal language model, in eval mode.
        head: What ``Head.of`` read of it.
        inputs: As ``read_token_inputs`` gives them.
        who: What messages call the model.

    Returns:
        Words; empty up to rounding.
    """
    row = int(inputs["attention_mask"].sum(-1).argmax())
    ids = inputs["input_ids"][row][inputs["attention_mask"][row] > 0][: CHECK.tokens].unsqueeze(0)
    if not ids.numel():
        return ""
    own = model(**select_arguments(model, {"input_ids": ids, "use_cache": False})).logits
    hidden = read_hidden(model, {"input_ids": ids}, who)
    if hidden.shape[-1] != head.width:
        return f"its head reads width {head.width}, and its hidden states have {hidden.shape[-1]}"
    again = head.logits(hidden)
    if own.shape != again.shape:
        return f"its logits have shape {tuple(own.shape)}, and its head gives {tuple(again.shape)}"
    gap, size = float((own.double() - again.double()).abs().max()), float(own.double().abs().max())
    if gap <= CHECK.rounding * torch.finfo(own.dtype).eps * max(size, 1e-3):
        return ""
    return f"its logits and those of its head differ by up to {gap:.3g}, where they are up to {size:.3g}"
