"""The last hidden states of a causal language model, read in its own forward pass and without its logits.

The output layer is handed no position at all, so the model's logits have shape (B, 0, V) and cost nothing; what it
would have read is what the fused loss reads.  Wrappers see an ordinary forward pass: DistributedDataParallel finds the
output matrix in the graph and reduces its gradient with all others.  Axes: B batch, T positions, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...._torch_state import evaluation_mode
from ....errors import InvalidInput
from ...loss import Head


@dataclass(frozen=True)
class LogitCheckSettings:
    """How the head is compared with the model's own logits; ``test_students.py`` notices.

    Attributes:
        tokens: Length of the sequence that is asked.
        relative: Largest difference as a share of the largest logit, in float32 and wider: summation orders differ.
        relative_half: The same where some of it is computed in float16 or bfloat16.
    """

    tokens: int = 4
    relative: float = 1e-3
    relative_half: float = 5e-2


SETTINGS = LogitCheckSettings()


def capture_hidden(model: nn.Module, student: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Return the hidden states that the student's output layer reads.

    Args:
        model: The student, or the wrapper that reduces its gradients.
        student: The student itself.
        inputs: What it is asked.

    Returns:
        (B, T, H), with their graph.

    Raises:
        InvalidInput: The model's forward pass does not call its output layer once.
    """
    with _empty_head(student, keep=slice(0, 0)) as read:
        model(**inputs)
    if len(read) != 1:
        raise InvalidInput(
            f"{type(student).__name__} called its output layer {len(read)} times in a forward pass; wanted once. "
            "Students are causal language models whose get_output_embeddings() makes the logits."
        )
    return read[0]


@contextmanager
def _empty_head(student: Any, keep: slice) -> Iterator[list[Tensor]]:
    """Note what the output layer is given, and give it only some positions."""
    read: list[Tensor] = []

    def take(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        read.append(given[0])
        return (given[0][..., keep, :], *given[1:])

    handle = student.get_output_embeddings().register_forward_pre_hook(take)
    try:
        yield read
    finally:
        handle.remove()


def require_head(student: Any) -> None:
    """Refuse a student whose output layer ``Head.of`` would misread.

    Args:
        student: The model.

    Raises:
        InvalidInput: It has none, an adapter sits on it, or the model is of another kind.
    """
    Head.of(student)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise InvalidInput("No parameter of the student may move: all have requires_grad=False; free those that learn.")
    layer = student.get_output_embeddings()
    if hasattr(layer, "base_layer"):
        raise InvalidInput(
            "The student's output layer carries an adapter, which is no matrix; leave it out of `target_modules`, or "
            "merge the adapter first (merge_and_unload)."
        )


@torch.no_grad()
def require_same_logits(student: Any, inputs: Mapping[str, Any]) -> None:
    """Refuse a student whose logits are not what its head makes of its hidden states.

    Args:
        student: The model.
        inputs: A batch; the first tokens of its first sequence are asked.

    Raises:
        InvalidInput: They differ, so that another model would be trained than the one that is used later.
    """
    few = {"input_ids": inputs["input_ids"][:1, : SETTINGS.tokens]}
    with evaluation_mode(student), _empty_head(student, keep=slice(None)) as read:
        logits = student(**few).logits.float()
    own = Head.of(student).logits(read[0]).float()
    half = any(torch.equal(logits, logits.to(kind).float()) for kind in (torch.float16, torch.bfloat16))
    allowed = (SETTINGS.relative_half if half else SETTINGS.relative) * (1 + float(own.abs().max()))
    if own.shape != logits.shape or not float((own - logits).abs().max()) <= allowed:
        raise InvalidInput(
            f"The logits of {type(student).__name__} are not those of its output matrix with the factor and soft cap "
            "in its configuration, so another model would be trained than is used. Give a model whose logits are "
            "cap tanh(scale (W h + b) / cap)."
        )
