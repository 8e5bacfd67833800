"""What the state of an engine is held in: numpy arrays on the processor, torch tensors elsewhere.

On the processor an operation on a few rows costs numpy a third of what it costs torch, and a step has some forty of
them.  So the rules are written once, in what both have: operators, ``clip``, and the functions of ``namespace_of``
(``maximum``, ``minimum``, ``where``, ``dot``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = Any  # float64 or bool, of numpy or of torch


def namespace_of(values: Array) -> Any:
    """Return the library whose functions these values are for."""
    return np if isinstance(values, np.ndarray) else torch


def to_array(values: Tensor, device: torch.device, dtype: torch.dtype = torch.float64) -> Array:
    """Return values without their gradient, as a state on that device holds them."""
    values = values.detach().to(device, dtype)
    return values.numpy() if values.is_cpu else values


def to_tensor(values: Array) -> Tensor:
    """Return the tensor that shares memory with an array, or is it."""
    return torch.from_numpy(values) if isinstance(values, np.ndarray) else values
