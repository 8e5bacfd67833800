"""An optimizer step that can be taken back.

A copy of every parameter and moment each step would cost memory and time, so one is made only where a step could leave
the range of its number type: where rate times gradient comes within three orders of magnitude of its square root, which
leaves twenty orders more (float32) to momentum and decay.  Gradients whose squares overflow were refused before.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ....distributed import Ranks, is_shard, measure_total_norm
from ...diagnosis import find_non_finite_parameter


@dataclass(frozen=True)
class RollbackSettings:
    """When a step is taken without a copy of what it changes.

    Attributes:
        safe_share: Of the square root of the largest number of the type: rate times gradient within it leaves twenty
            orders of magnitude (float32) to momentum and decay
            (``tests/safekd/training/diagnosis/test_divergence.py``).
    """

    safe_share: float = 1e-3


SETTINGS = RollbackSettings()


def gradient_norm(parameters: Sequence[Tensor], total: Tensor) -> float:
    """Return the norm of the gradient, infinite where it, its square or ``total`` is not finite.

    All of it is read at once: a GPU is waited for once.

    Args:
        parameters: Those with a gradient count.
        total: The value that was differentiated, a scalar.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    types = {(type(p), p.dtype) for p in gradients}
    if any(kind is not Tensor for kind, _ in types) and any(is_shard(p) for p in gradients):
        norm, whole = measure_total_norm(gradients), float(total)
    else:
        norms = [torch.linalg.vector_norm(p) for p in gradients] if len(types) > 1 else torch._foreach_norm(gradients)
        *sizes, whole = _list_scalars([*norms, total])
        norm = math.hypot(*sizes)
    largest = min((torch.finfo(dtype).max for _, dtype in types), default=math.inf)
    return norm if math.isfinite(norm + whole) and norm * norm < largest else math.inf


def _list_scalars(scalars: Sequence[Tensor]) -> list[float]:
    if scalars[-1].is_cpu:
        return [value.item() for value in scalars]
    return torch.stack([value.to(scalars[-1]) for value in scalars]).tolist()


def clear_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Clear gradients as ``zero_grad`` does, whose hooks for the profiler cost time; somebody's own is called.

    Args:
        optimizer: Holds the parameters.
    """
    if type(optimizer).zero_grad is not torch.optim.Optimizer.zero_grad:
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = None


def step_or_rollback(
    optimizer: torch.optim.Optimizer, student: nn.Module, norm: float, ranks: Ranks | None = None
) -> str | None:
    """Take one optimizer step, or leave parameters and moments as they were where it would not be finite.

    Args:
        optimizer: Takes the step.
        student: Whose parameters are checked.
        norm: Of the gradient, finite.
        ranks: The processes that take it; each may hold a shard of the parameters.

    Returns:
        What would not have been finite; None where the step was taken.
    """
    held = [p for group in optimizer.param_groups for p in group["params"]]
    rates = [float(group.get("lr", 1.0)) for group in optimizer.param_groups]
    limit = SETTINGS.safe_share * min(torch.finfo(dtype).max for dtype in {p.dtype for p in held}) ** 0.5
    if all(max(rate, 1.0) * (1 + norm) <= limit and rate == rate for rate in rates):
        optimizer.step()
        return None
    values = [p.detach().clone() for p in held]
    moments = {p: copy.deepcopy(own) for p, own in optimizer.state.items()}
    optimizer.step()
    source = find_non_finite_parameter(student)
    source = source if ranks is None else ranks.agree(source)
    if source is not None:
        with torch.no_grad():
            for p, value in zip(held, values, strict=True):
                p.copy_(value)
        optimizer.state.clear()
        optimizer.state.update(moments)
    return source
