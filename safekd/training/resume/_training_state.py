"""The state of what takes the steps: student, optimizer, schedule, loss scaling; put back to the last bit."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InvalidInput


def read_module_state(module: nn.Module) -> dict[str, Any]:
    """Return parameters and buffers of a module, those that ``state_dict`` leaves out too.

    Args:
        module: Any.
    """
    state = dict(module.state_dict())
    return state | {name: value for name, value in module.named_buffers() if name not in state}


@torch.no_grad()
def load_module_state(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Put parameters and buffers back.

    Args:
        module: Of the same making.
        state: Of ``read_module_state``.

    Raises:
        InvalidInput: The module is of another making.
    """
    own = module.state_dict()
    hidden = {name: value for name, value in module.named_buffers() if name not in own}
    try:
        module.load_state_dict({name: value for name, value in state.items() if name not in hidden})
        for name, buffer in hidden.items():
            buffer.copy_(state[name])
    except (RuntimeError, KeyError) as error:
        raise InvalidInput(f"The checkpoint is of another student. {' '.join(str(error).split())}") from error


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], changed: Sequence[str] = ()
) -> None:
    """Put an optimizer's state back; torch gives its tensors the type of their parameter, which may lose bits.

    Args:
        optimizer: Made as for the run, with the settings that are to hold from here on.
        state: Its ``state_dict()``.
        changed: Settings that are to stay as they are here; a rate that a schedule has moved since is moved in
            proportion.

    Raises:
        InvalidInput: It is of an optimizer with other parameters.
    """
    given = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(copy.deepcopy(dict(state)))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"The checkpoint is of another optimizer: {str(error).rstrip('.')}.") from error
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    for p, number in zip(parameters, numbers, strict=True):
        for name, kept in state["state"].get(number, {}).items():
            now = optimizer.state[p].get(name)
            if isinstance(kept, Tensor) and isinstance(now, Tensor) and now.dtype != kept.dtype:
                optimizer.state[p][name] = kept.to(now.device, copy=True)
    for group, mine in zip(optimizer.param_groups, given, strict=True):
        for name in changed:
            if name in ("lr", "initial_lr") and "initial_lr" in group and "initial_lr" in mine:
                group["lr"] = group["lr"] * (mine["initial_lr"] / group["initial_lr"])
                group["initial_lr"] = mine["initial_lr"]
            elif name in mine:
                group[name] = mine[name]


def load_scheduler_state(scheduler: Any, state: Mapping[str, Any], changed: Sequence[str] = ()) -> None:
    """Put a schedule's state back.

    Args:
        scheduler: Made as for the run.
        state: Its ``state_dict()``.
        changed: Settings of its optimizer that stay as they are here, see ``load_optimizer_state``.
    """
    base = getattr(scheduler, "base_lrs", None)
    scheduler.load_state_dict(copy.deepcopy(dict(state)))
    if base is not None and {"lr", "initial_lr"} & set(changed):
        scheduler.base_lrs = base
