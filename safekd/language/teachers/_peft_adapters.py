"""Adapters of one base model as teachers of their own: switched on for a question, and everything put back after it.

A peft model holds its base once and any number of adapters; ``adapter=None`` is the base without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ...errors import InvalidInput
from ._model_body import unwrap_adapters


def require_adapter(model: nn.Module, adapter: str | None, who: str) -> None:
    """Refuse an adapter that a model does not hold, or that is no change of its layers.

    Args:
        model: A ``peft.PeftModel``, or a model without adapters.
        adapter: Name of the adapter; None for the base.
        who: What messages call the teacher.

    Raises:
        InvalidInput: There is no such adapter.
    """
    held: Mapping[str, Any] = getattr(model, "peft_config", None) or {}
    if held and not hasattr(model, "get_base_model"):
        raise InvalidInput(
            f"{who}: the model holds adapters that load_adapter() put on it; wanted a peft model, whose adapters can "
            f"be switched: peft.PeftModel.from_pretrained(model, '{next(iter(held))}')."
        )
    if adapter is not None and adapter not in held:
        known = ", ".join(map(repr, held)) or "none: it is no peft.PeftModel"
        raise InvalidInput(f"{who}: adapter is {adapter!r}; the model holds {known}.")
    for name, config in held.items():
        if getattr(config, "is_prompt_learning", False):
            raise InvalidInput(
                f"{who}: adapter '{name}' learns a prompt, which stands before the text and not in the layers; wanted "
                "adapters of layers, such as LoRA, or prompt='...' for a prompt in words."
            )


@contextmanager
def switch_adapter(model: nn.Module, adapter: str | None, who: str) -> Iterator[None]:
    """Answer with one adapter inside the block, or with the base; which one is active and what learns is put back.

    Args:
        model: A ``peft.PeftModel``, or a model without adapters.
        adapter: Name of the adapter; None for the base.
        who: What messages call the teacher.

    Yields:
        Nothing.

    Raises:
        InvalidInput: An adapter has been merged into the base, which is then no longer there.
    """
    if not hasattr(model, "get_base_model"):
        yield
        return
    peft: Any = model
    status = peft.get_model_status()
    if status.merged_adapters:
        raise InvalidInput(
            f"{who}: an adapter has been merged into the base ({status.merged_adapters}), so the base is no longer "
            "there; call model.unmerge_adapter() first."
        )
    active, learns = list(peft.active_adapters), [(value, value.requires_grad) for value in model.parameters()]
    try:
        if adapter is None:
            peft.base_model.disable_adapter_layers()
        else:
            peft.set_adapter(adapter)
            peft.base_model.enable_adapter_layers()
        yield
    finally:
        peft.set_adapter(active[0])
        if len(active) > 1:
            peft.base_model.set_adapter(active)
        peft.base_model.enable_adapter_layers() if status.enabled else peft.base_model.disable_adapter_layers()
        for value, before in learns:
            value.requires_grad_(before)


def list_base_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and kept buffers of a model without its adapters, by the names that they have there.

    Args:
        model: A ``peft.PeftModel``, or a model without adapters.
    """
    adapters: Mapping[str, Any] = getattr(model, "peft_config", None) or {}
    inner = unwrap_adapters(model)
    own = {id(value) for name in adapters for value in list_adapter_weights(model, name).values()}
    kept, seen = {}, set(own)
    for name, value in inner.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor) and id(value) not in seen:  # tied weights count once
            seen.add(id(value))
            kept[name.replace(".base_layer", "").replace(".original_module", "")] = value
    return kept


def list_adapter_weights(model: nn.Module, adapter: str) -> dict[str, Tensor]:
    """Return the weights of one adapter, by peft's names for them.

    Args:
        model: A ``peft.PeftModel``.
        adapter: Name of the adapter.
    """
    from peft import get_peft_model_state_dict

    everything = model.state_dict(keep_vars=True)
    weights = get_peft_model_state_dict(model, state_dict=everything, adapter_name=adapter, save_embedding_layers=False)
    return dict(weights)
