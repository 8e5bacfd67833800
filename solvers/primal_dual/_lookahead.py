"""The extragradient step: variables and multipliers move from where they are, by the gradients found one step ahead.

    x' = x - eta grad L(x, lambda),      lambda' = relu(lambda + step g(x))          look ahead
    x <- x - eta grad L(x', lambda'),    lambda <- relu(lambda + step g(x'))         step from where one was

"eta" is whatever the optimizer makes of a gradient: its own state is put back after the look, so that momentum and
averages see each step once.  Source: Korpelevich 1976.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ._engine import PrimalDual


def look_ahead(engine: PrimalDual, evaluate: Callable[[], dict[str, Any]], optimizer: torch.optim.Optimizer) -> Tensor:
    """Take one extragradient step; return the objective where it began."""
    variables = [p for group in optimizer.param_groups for p in group["params"]]
    here = [p.detach().clone() for p in variables]
    before = copy.deepcopy(optimizer.state_dict())
    start = engine.state_dict()

    values = evaluate()
    engine.respond(**values)  # the multipliers one step ahead
    ahead = engine.state_dict()
    _slope(_at(values, start, engine), optimizer)
    optimizer.step()

    there = evaluate()
    engine.load_state_dict(start)
    engine.respond(**there)  # the multipliers' own step, from where they were
    _slope(_at(there, ahead, engine), optimizer)  # while the variables are still where the graph saw them
    with torch.no_grad():
        for p, value in zip(variables, here, strict=True):
            p.copy_(value)
    optimizer.load_state_dict(before)
    optimizer.step()
    objective: Tensor = values["objective"].detach()
    return objective


def _at(values: dict[str, Any], state: dict[str, Tensor], engine: PrimalDual) -> Tensor:
    """Return the Lagrangian of some values at some multipliers."""
    rows = [values[name] for name in ("inequality", "equality") if values.get(name) is not None]
    total: Tensor = values["objective"]
    if not rows:
        return total
    rows_C = torch.cat(rows)
    price_C = state["price"]
    if values.get("index") is not None:
        index = values["index"]
        price_C = torch.cat([price_C[index] * (engine.M / max(len(index), 1)), price_C[engine.M :]])
    present = values.get("present")
    if present is not None:
        rows_C, price_C = torch.where(present, rows_C, 0.0), torch.where(present, price_C, 0.0)
    return total + torch.dot(price_C.to(rows_C), rows_C)


def _slope(total: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    if total.requires_grad:
        total.backward()  # type: ignore[no-untyped-call]
