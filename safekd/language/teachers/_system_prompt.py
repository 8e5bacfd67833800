"""A system prompt makes another teacher of the same model: it stands before every sequence, and is not answered for.

Axes: B batch, T positions, P tokens of the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InvalidInput
from ._model_body import find_body, has_padding_on_left, select_arguments


def read_prompt(
    prompt: str | Sequence[int] | Tensor | None, system: str | None, template: str | None, tokenizer: Any, who: str
) -> tuple[int, ...]:
    """Return the tokens of a prompt; none where there is no prompt.

    Args:
        prompt: Text, written as it stands after the tokens with which the tokenizer begins a text, or token numbers.
        system: What the system says, put into the tokenizer's chat template.
        template: A chat template in place of the tokenizer's.
        tokenizer: That of the model.
        who: What messages call the teacher.

    Raises:
        InvalidInput: Both are given, a text needs a tokenizer or a template that is not there, or tokens are none.
    """
    if prompt is not None and system is not None:
        raise InvalidInput(f"{who} has `prompt` and `system`; give one of them.")
    if system is not None:
        return _read_system(system, template, tokenizer, who)
    if template is not None:
        raise InvalidInput(f"{who} has a `template` and no `system`, so nothing stands in it; give system='...'.")
    if prompt is None:
        return ()
    if isinstance(prompt, str):
        if tokenizer is None:
            raise InvalidInput(f"{who} has a prompt in words and no tokenizer; give tokenizer=, or token numbers.")
        begins = tokenizer("")["input_ids"][:1]
        end = getattr(tokenizer, "eos_token_id", None)
        begins = [token for token in begins if token != end or token == getattr(tokenizer, "bos_token_id", None)]
        tokens = [*begins, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    else:
        tokens = _read_token_numbers(prompt, who)
    if not tokens:
        raise InvalidInput(f"{who}: `prompt` has no tokens; wanted at least one, or None.")
    return tuple(int(token) for token in tokens)


def _read_token_numbers(prompt: object, who: str) -> list[int]:
    try:
        given = torch.as_tensor(prompt)
    except (TypeError, ValueError, RuntimeError):  # words in a list, rows of several lengths
        given = torch.empty(1, 1)
    if given.ndim != 1 or (len(given) and (given.is_floating_point() or given.dtype == torch.bool)):
        raise InvalidInput(f"{who}: `prompt` is {prompt!r}; wanted a text, or a list of token numbers.")
    numbers: list[int] = given.tolist()
    return numbers


def _read_system(system: str, template: str | None, tokenizer: Any, who: str) -> tuple[int, ...]:
    if tokenizer is None or not (template or getattr(tokenizer, "chat_template", None)):
        lacks = "no tokenizer" if tokenizer is None else "a tokenizer without a chat template"
        raise InvalidInput(
            f"{who} has `system` and {lacks}; give template='...' with a tokenizer, or the whole text as prompt='...'."
        )
    talk = [{"role": "system", "content": system}]
    try:
        text = tokenizer.apply_chat_template(talk, chat_template=template, tokenize=False)
    except Exception as error:  # the template is code of somebody else
        raise InvalidInput(
            f"{who}: the chat template does not take a system's turn alone ({type(error).__name__}: {error}); give the "
            "whole text as prompt='...', or another template='...'."
        ) from error
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]  # a template writes special tokens itself
    if not tokens:
        raise InvalidInput(f"{who}: the chat template leaves out what the system says; give it as prompt='...'.")
    return tuple(int(token) for token in tokens)


def put_in_front(inputs: Mapping[str, Tensor], prompt: Sequence[int], who: str) -> tuple[dict[str, Tensor], Tensor]:
    """Return inputs with a prompt before the first token of each row that is no padding.

    Args:
        inputs: ``input_ids`` and ``attention_mask``, (B, T).
        prompt: Its tokens, P of them.
        who: What messages call the teacher.

    Returns:
        The inputs, (B, P + T), with ``position_ids`` where there is padding on the left; and where each of the T
        positions is among them, (B, T).

    Raises:
        InvalidInput: The inputs count their positions themselves, as several sequences in one row do.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    if "position_ids" in inputs and not has_padding_on_left(mask):
        raise InvalidInput(
            f"{who} has a prompt, and the batch counts `position_ids` of its own, as sequences packed into one row do; "
            "wanted one sequence a row."
        )
    (B, T), P = ids.shape, len(prompt)
    first_B = torch.where(mask.any(-1), mask.argmax(-1), 0)
    at_T, at_P = torch.arange(T, device=ids.device), torch.arange(P, device=ids.device)
    place_BT = at_T + P * (at_T >= first_B.unsqueeze(-1))
    place_BP = first_B.unsqueeze(-1) + at_P
    front_BP = torch.tensor(prompt, device=ids.device).expand(B, P)
    long_ids = ids.new_zeros(B, P + T).scatter(1, place_BT, ids).scatter(1, place_BP, front_BP)
    long_mask = mask.new_zeros(B, P + T).scatter(1, place_BT, mask).scatter(1, place_BP, torch.ones_like(front_BP))
    longer = {"input_ids": long_ids, "attention_mask": long_mask}
    if has_padding_on_left(long_mask):
        longer["position_ids"] = (long_mask.cumsum(-1) - 1).clamp_min(0)
    return longer, place_BT


def read_hidden_after(model: nn.Module, inputs: Mapping[str, Tensor], prompt: Sequence[int], who: str) -> Tensor | None:
    """Return hidden states after a prompt that is read once for all rows; None where that is not simple.

    It is not with padding on the left, or where the model keeps something else than all keys and values.

    Args:
        model: A causal language model of transformers, in eval mode.
        inputs: ``input_ids`` and ``attention_mask``, (B, T), as they are without the prompt.
        prompt: Its tokens.
        who: What messages call the model.

    Returns:
        (B, T, H), or None.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    ids, mask, body = inputs["input_ids"], inputs["attention_mask"], find_body(model, who)
    known = select_arguments(body, {"cache": 0, "past_key_values": 0, "use_cache": 0})  # it was renamed in 5.2x
    word = next((name for name in ("cache", "past_key_values") if name in known), None)
    if len(ids) == 1 or "position_ids" in inputs or word is None or "use_cache" not in known:
        return None
    front = torch.tensor([list(prompt)], device=ids.device)
    output = body(input_ids=front, use_cache=True)
    kept = output.get(word) if isinstance(output, Mapping) else getattr(output, word, None)
    if type(kept) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in kept.layers):
        return None
    kept.batch_repeat_interleave(len(ids))
    whole = torch.cat([mask.new_ones(len(ids), len(prompt)), mask], dim=-1)
    again = body(input_ids=ids, attention_mask=whole, use_cache=True, **{word: kept})
    hidden = again.last_hidden_state
    return hidden if isinstance(hidden, Tensor) else None
