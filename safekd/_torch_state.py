"""What a module or torch itself is set to for a while, and back: eval mode, number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode for a while; each submodule gets its own mode back, a frozen batch norm too."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def limit_threads(count: int | None) -> Iterator[None]:
    """Let torch use ``count`` threads inside the block; None leaves its own choice.

    A student of a few hundred units is faster on one thread, and waits for no other program on a busy machine.
    """
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
