"""A student's parameters as one vector, descents on it, and copies of a module's state.  Axes: n parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize as scipy_minimize
from torch import Tensor, nn

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ProbeDescentSettings:
    """When a descent ends before its passes do.

    Attributes:
        gradient: Largest entry of the gradient that counts as none: far below what a verdict calls flat
            (``tests/safekd/training/diagnosis/test_verdicts.py``).
        decrease: Share of its value by which a function must fall from step to step; 0 for no such rule, since losses
            may stay the same to the last digit and then fall.
    """

    gradient: float = 1e-9
    decrease: float = 0.0


DESCENT = ProbeDescentSettings()
LBFGS_VECTORS = 32
"""Vectors that ``descend_lbfgs`` holds: ten pairs of scipy's memory, its workspace, and those of a pass."""


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of a module's parameters and buffers, by name.

    Args:
        module: Left as it is.
    """
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def parameter_norm(module: nn.Module) -> float:
    """Return the Euclidean norm of a module's parameters.

    Args:
        module: Left as it is.
    """
    squares = [torch.linalg.vector_norm(p.detach(), dtype=torch.float64).item() ** 2 for p in module.parameters()]
    return math.sqrt(sum(squares))


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


def descend_lbfgs(
    value_and_gradient: Callable[[Floats], tuple[float, Floats]], start_n: Floats, passes: int
) -> tuple[Floats, float]:
    """Return where L-BFGS ends, and the value there.

    Args:
        value_and_gradient: Of a vector, (n,).
        start_n: Where to begin, (n,).
        passes: Evaluations at most.

    Source: Byrd, Lu, Nocedal and Zhu 1995.
    """
    most = max(1, passes)
    limits = {"maxfun": most, "maxiter": most, "ftol": DESCENT.decrease, "gtol": DESCENT.gradient}
    answer = scipy_minimize(value_and_gradient, start_n, jac=True, method="L-BFGS-B", options=limits)
    end_n: Floats = answer.x
    return end_n, float(answer.fun)
