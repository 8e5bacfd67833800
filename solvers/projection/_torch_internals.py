"""What torch offers only under ``torch._C``, in one place: transforms of torch.func, and autograd inside operators.

There is no public way to ask whether a torch.func transform (vmap, grad, ...) is at work, to leave it for a moment, or
to let autograd see what happens inside a custom operator.  Tried on torch 2.13.  Should a name be gone,
``tests/solvers/projection/test_torch_internals.py`` fails first and says what each function stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

are_transforms_active = torch._C._are_functorch_transforms_active  # inside them tensors hold no numbers yet


def leave_transforms() -> AbstractContextManager[object]:
    """Return a context in which torch.func is not at work: constants are ordinary tensors there."""
    context: AbstractContextManager[object] = torch._C._DisableFuncTorch()
    return context


def unwrap_constant(value: Tensor) -> Tensor | None:
    """Return a constant without the wrappers of torch.func, or None if vmap maps it."""
    while torch._C._functorch.is_functorch_wrapped_tensor(value):
        if torch._C._functorch.is_batchedtensor(value):
            return None
        value = torch._C._functorch.get_unwrapped(value)
    return value


@contextmanager
def differentiate_inside_operator() -> Iterator[None]:
    """Let autograd see what happens: inside an operator it is switched off, below its own layer of the dispatcher."""
    layers = [torch._C.DispatchKey.AutogradFunctionality, torch._C.DispatchKey.ADInplaceOrView]
    were = [torch._C._dispatch_tls_is_dispatch_key_excluded(layer) for layer in layers]
    for layer in layers:
        torch._C._dispatch_tls_set_dispatch_key_excluded(layer, False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for layer, was in zip(layers, were, strict=True):
            torch._C._dispatch_tls_set_dispatch_key_excluded(layer, was)
