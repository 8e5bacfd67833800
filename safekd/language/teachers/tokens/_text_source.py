"""Texts as a split of sequences.  Axes: N sequences, T positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ....data import IGNORED, Split
from ....errors import InvalidInput
from ._token_batches import TokenBatches, read_token_list


def as_text_source(
    texts: Sequence[Any],
    tokenizer: Any = None,
    *,
    name: str = "texts",
    length: int | None = None,
    context: Sequence[Any] | Tensor | None = None,
    task: Sequence[Any] | Tensor | None = None,
    cluster: Sequence[Any] | Tensor | None = None,
    context_names: Sequence[str] = (),
    task_names: Sequence[str] = (),
    end: bool = False,
) -> Split:
    """Return texts as a split that trainers, certificates, frontiers and teacher caches read.

    A text of more than ``length`` tokens becomes several sequences, which stay one cluster: they are not independent of
    each other, and certificates count the text once.  The label of a position is the next token of the text, that of a
    sequence's last position being the first token of the next one.  A text of fewer than two tokens has no next token,
    and is left out.

    Args:
        texts: Texts, or lists of token numbers.
        tokenizer: That of the student; token numbers need none.
        name: Of the split.
        length: Tokens of a sequence, at most; None to leave texts whole, as long as the longest.
        context: One number or name a text.
        task: Likewise.
        cluster: Which texts belong together, by an author say; every text is one of its own when left out.
        context_names: What to call the contexts.
        task_names: What to call the tasks.
        end: Whether the tokenizer's end token comes after each text, for a student that is to learn where to stop.

    Returns:
        A split of inputs ``input_ids`` and ``attention_mask``, (N, T), and labels (N, T), -100 at padding.

    Raises:
        InvalidInput: There are no texts, a text needs a tokenizer, or parts have other lengths.
    """
    if isinstance(texts, str) or not len(texts):
        found = "one text" if isinstance(texts, str) else "empty"
        raise InvalidInput(f"`texts` is {found}; wanted a list of texts, or of lists of token numbers.")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 2):
        raise InvalidInput(f"`length` is {length!r}; wanted a whole number of tokens, at least 2.")
    given = {"context": context, "task": task, "cluster": cluster}
    for what, values in given.items():
        if values is not None and len(values) != len(texts):
            raise InvalidInput(f"`{what}` has {len(values)} entries, and there are {len(texts)} texts; wanted equal.")
    documents = [_read_tokens(text, tokenizer, number, end) for number, text in enumerate(texts)]
    examples, document = [], []
    for number, tokens in enumerate(documents):
        size = length or max(len(tokens), 1)
        for start in range(0, len(tokens) - 1, size):  # a single token at the end has no next one
            examples.append((tokens[start : start + size], tokens[start + 1 : start + size + 1]))
            document.append(number)
    if not examples:
        raise InvalidInput("No text has two tokens, so there is no next token to learn; give longer texts.")
    pad = next((one for one in map(_special(tokenizer), ("pad_token_id", "eos_token_id")) if one is not None), 0)
    inputs = TokenBatches(pad)([ids for ids, _ in examples])["inputs"]
    labels = torch.full_like(inputs["input_ids"], IGNORED)
    for row, (_, following) in enumerate(examples):
        labels[row, : len(following)] = following
    several = len(set(document)) < len(document)
    chosen: dict[str, Any] = {what: _pick(values, document) for what, values in given.items()}
    if chosen["cluster"] is None and several:
        chosen["cluster"] = torch.tensor(document)
    return Split(name, inputs, labels, **chosen, context_names=context_names, task_names=task_names)


def _read_tokens(text: Any, tokenizer: Any, number: int, end: bool) -> Tensor:
    if isinstance(text, str):
        if tokenizer is None:
            raise InvalidInput(f"Text {number} is words, and there is no tokenizer; give the student's, tokenizer=...")
        tokens = torch.tensor(tokenizer(text, verbose=False)["input_ids"], dtype=torch.long)
    else:
        tokens = read_token_list(text, f"Text {number}") if len(text) else torch.zeros(0, dtype=torch.long)
    if not end:
        return tokens
    stop = _special(tokenizer)("eos_token_id")
    if stop is None:
        raise InvalidInput("`end` is True, and the tokenizer has no end token (eos_token); give end=False.")
    return torch.cat([tokens, torch.tensor([stop])]) if len(tokens) else tokens


def _special(tokenizer: Any) -> Any:
    return lambda name: getattr(tokenizer, name, None)


def _pick(values: Any, places: list[int]) -> Any:
    if values is None:
        return None
    return values[torch.tensor(places)] if isinstance(values, Tensor) else [values[place] for place in places]
