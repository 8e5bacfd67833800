"""Torch modules, asked without disturbing them: eval mode for a while, threads for a while, the logits of an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ._precision import widen
from .errors import InvalidInput


def require_device(device: torch.device | str) -> torch.device:
    """Return a device, if this machine has it.

    Args:
        device: torch's name of it, such as "cpu" or "cuda:0".

    Raises:
        InvalidInput: There is no such device here.
    """
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, TypeError) as error:
        here = ["'cpu'", *(f"'cuda:{i}'" for i in range(torch.cuda.device_count()))]
        raise InvalidInput(
            f"`device` is {str(device)!r}, which this machine does not have; use {' or '.join(here)}."
        ) from error


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
        count: How many threads, at least 1; None leaves torch's own choice.

    Yields:
        Nothing.
    """
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def extract_logits(output: Any, who: str) -> Tensor:
    """Return the logits in what a module gave, float32 or wider: softmax in half types is off by half a percent.

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
    return widen(logits)
