"""Torch modules, asked without disturbing them: eval mode for a while, threads for a while, the logits of an answer."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ._precision import widen
from .errors import InvalidInput

Inputs = Tensor | Mapping[str, Tensor]

_MOST_THREADS = 256


def require_device(device: torch.device | str) -> torch.device:
    """Return a device, if this machine has it.

    Args:
        device: torch's name of it, such as "cpu" or "cuda:0".

    Raises:
        InvalidInput: There is no such device here.
    """
    try:
        torch.zeros(1, device=device).item()  # "meta" has tensors, and no numbers in them
        return torch.device(device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
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
    with keep_modes(module):
        module.eval()
        yield


def share_in_eval_mode(module: nn.Module) -> nn.Module:
    """Return a module of its own in eval mode, made of the same parameters and buffers.

    Args:
        module: Keeps its mode; what it learns from here on, the other one knows.
    """
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared).eval()


@contextmanager
def keep_modes(module: nn.Module) -> Iterator[None]:
    """Give each part of a module the mode back that it had before the block.

    Args:
        module: What may change its mode inside the block.

    Yields:
        Nothing.
    """
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Return the block in which a module computes in a half type where that is safe.

    Args:
        dtype: Such as torch.bfloat16; None for the module's own type.
        device: Where it computes.
    """
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


@dataclass(frozen=True)
class RandomState:
    """Where torch's random numbers are, on the processor and on one device.

    Attributes:
        device: The device.
        processor: State of the processor's generator.
        accelerator: State of the device's; None where that is the processor.
    """

    device: torch.device
    processor: Tensor
    accelerator: Tensor | None

    @classmethod
    def read(cls, device: torch.device) -> RandomState:
        """Return the state as it is.

        Args:
            device: Where a student is.
        """
        own = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(device, torch.get_rng_state(), own)

    def restore(self) -> None:
        """Draw the same numbers once more."""
        torch.set_rng_state(self.processor)
        if self.accelerator is not None:
            torch.cuda.set_rng_state(self.accelerator, self.device)


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


def call_module(module: Callable[..., Any], inputs: Inputs) -> Any:
    """Return what a module gives for some inputs; a dictionary of them are its keywords.

    Args:
        module: A module or a function of one.
        inputs: (B, ...), or several by name.
    """
    return module(**inputs) if isinstance(inputs, Mapping) else module(inputs)


def ask_module(module: nn.Module, inputs: Inputs, who: str) -> Tensor:
    """Return the logits that a module gives for some inputs; say in plain words why it could not, where that is known.

    Args:
        module: From inputs (B, ...) to logits (B, ..., V), or a record with such a field.
        inputs: (B, ...), or several by name, which the module gets as keywords.
        who: What messages call it, such as "The student".

    Returns:
        The logits, (B, ..., V).

    Raises:
        InvalidInput: The inputs have a dtype that it cannot read, or names that it does not know, a batch normalization
            is to be trained on one example, or it gives no logits; what it raises otherwise is its own.
    """
    try:
        output = call_module(module, inputs)
    except (RuntimeError, ValueError, TypeError) as error:
        told = isinstance(error, TypeError)
        explained = _explain_names(module, inputs) if told else _explain_refused_inputs(module, inputs, str(error))
        if explained is None:
            raise
        raise InvalidInput(f"{who} {explained}") from error
    return extract_logits(output, who)


def _explain_refused_inputs(module: nn.Module, inputs: Inputs, reason: str) -> str | None:
    """Say what a module cannot do, by what it raised; None where that is its own matter."""
    reason = " ".join(reason.split())
    if "more than 1 value per channel" in reason:
        return (
            "has a batch normalization in training mode, which one example says nothing to; wanted batches of at least "
            "two: raise `batch_size`, or freeze that layer, layer.eval() before the trainer is made."
        )
    named = inputs if isinstance(inputs, Mapping) else {"": inputs}
    own = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    for name, value in named.items():
        what = f"inputs['{name}']" if name else "inputs"
        if "indices" in reason and "Long" in reason and value.dtype not in (torch.int64, torch.int32):
            return (
                f"looks its inputs up in a table and cannot read {what} of {value.dtype}; give the split whole "
                f"numbers, {what}.long()."
            )
        if value.dtype != own and "type" in reason and (value.is_floating_point() or not name):
            wanted = f"{what}.float()" if own == torch.float32 else f"{what}.to({own})"
            other = f", or make it of that dtype: module.to({value.dtype})" * value.is_floating_point()
            return f"computes in {own} and cannot read {what} of {value.dtype}; give the split {wanted}{other}."
    return None


def _explain_names(module: nn.Module, inputs: Inputs) -> str | None:
    """Say that a module does not take a dictionary's names as its arguments, where that is so."""
    if not isinstance(inputs, Mapping):
        return None
    try:
        inspect.signature(module.forward).bind(**inputs)
    except TypeError as error:
        return (
            f"gets the dictionary of inputs as keywords, {', '.join(map(repr, inputs))}, and cannot take them: "
            f"{error}. Name the inputs after the arguments of its forward."
        )
    return None
