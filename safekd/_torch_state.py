"""Torch modules, asked without disturbing them: eval mode for a while, threads for a while, the logits of an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InvalidInput

_MOST_THREADS = 256


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode for a while; each submodule gets its own mode back, a frozen batch norm too.

    Args:
        module: What is asked inside the block.

    Yields:
        Nothing.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def limit_threads(count: int | None) -> Iterator[None]:
    """Let torch use a number of threads inside the block.

    A student of a few hundred units is faster on one thread, and waits for no other program on a busy machine.

    Args:
        count: How many threads, from 1 to 256; None leaves torch's own choice.

    Yields:
        Nothing.

    Raises:
        InvalidInput: It is another number: many thousands of threads would abort the process.
    """
    if count is not None and not 1 <= count <= _MOST_THREADS:
        raise InvalidInput(f"{count} processor threads were asked for; wanted 1 to {_MOST_THREADS}.")
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def extract_logits(output: Any, who: str) -> Tensor:
    """Return the logits in what a module gave.

    Args:
        output: A tensor (..., V), or a record with such a field ``logits``.
        who: What messages call the module, such as "The student".

    Returns:
        The logits, (..., V).

    Raises:
        InvalidInput: It is neither; the message names ``who``.
    """
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise InvalidInput(
            f"{who} gave a {type(output).__name__}; wanted a tensor of logits, or a record with .logits."
        )
    return logits
