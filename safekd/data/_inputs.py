"""The inputs of examples: one tensor, or a dictionary of tensors, which a module gets as keywords."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from .._torch_state import Inputs as Inputs


def map_inputs(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Return the inputs with something done to each tensor.

    Args:
        inputs: One tensor, or several by name.
        change: What is done.
    """
    if isinstance(inputs, Mapping):
        return {name: change(value) for name, value in inputs.items()}
    return change(inputs)


def name_inputs(inputs: Inputs) -> dict[str, Tensor]:
    """Return each tensor by what messages call it: ``inputs``, or ``inputs['ids']`` of a dictionary, in its order.

    Args:
        inputs: One tensor, or several by name.
    """
    if isinstance(inputs, Mapping):
        return {f"inputs['{name}']": value for name, value in inputs.items()}
    return {"inputs": inputs}


def list_inputs(inputs: Inputs) -> list[Tensor]:
    """Return all tensors, those of a dictionary in the order of their names, which is the same for equal content.

    Args:
        inputs: One tensor, or several by name.
    """
    return [inputs[name] for name in sorted(inputs)] if isinstance(inputs, Mapping) else [inputs]
