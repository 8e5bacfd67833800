"""A student's parameters as one vector, and copies of a module's state.  Axes: n parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Floats = npt.NDArray[np.float64]


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of a module's parameters and buffers, by name.

    Args:
        module: Left as it is.
    """
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def split_vector(v_n: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Return a vector as one tensor a parameter, alike in shape and type.

    Args:
        v_n: As long as the parameters together, (n,).
        parameters: Give shapes, types and devices.
    """
    pieces = torch.split(v_n, [p.numel() for p in parameters])
    return [piece.view_as(p).to(p) for piece, p in zip(pieces, parameters, strict=True)]


def read_vector(parameters: Sequence[nn.Parameter]) -> Floats:
    """Return parameters as one float64 vector, (n,).

    Args:
        parameters: Left as they are.
    """
    x_n: Floats = torch.cat([p.detach().reshape(-1).double().cpu() for p in parameters]).numpy()
    return x_n


@torch.no_grad()
def write_vector(parameters: Sequence[nn.Parameter], x_n: Floats) -> None:
    """Put parameters at a vector.

    Args:
        parameters: Changed in place.
        x_n: Where to, (n,).
    """
    pieces = split_vector(torch.from_numpy(np.array(x_n)), parameters)
    for p, piece in zip(parameters, pieces, strict=True):
        p.copy_(piece)
