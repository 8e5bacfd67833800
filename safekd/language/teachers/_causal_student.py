"""A causal language model as a student: logits for those who want all of them, hidden states for the loss.

Axes: B batch, T positions, H width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..._torch_state import evaluation_mode
from ...data import Inputs
from ...errors import InvalidInput
from ..loss import Head
from ._model_body import (
    find_head_gap,
    read_hidden,
    read_token_inputs,
    require_causal,
    select_arguments,
    unwrap_adapters,
)


class CausalStudent(nn.Module):
    """A causal language model of transformers that gives logits, so that certificates, evaluations and
    ``ConstrainedTrainer`` take it as they take any other student.

        student = CausalStudent(model)
        logits = student(input_ids=ids, attention_mask=mask)                          # (B, T, V)
        loss = distillation_loss(student.hidden(batch.inputs), student.head, outputs, labels=batch.labels)

    Args:
        model: The model, or a ``peft.PeftModel`` of it, whose adapters are then what learns.

    Attributes:
        model: The same; what it learns it knows.

    Raises:
        InvalidInput: It is no module, or has no output matrix.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InvalidInput(f"A student's model is a {type(model).__name__}; wanted a model of transformers.")
        self.model = model
        self._checked = False
        require_causal(unwrap_adapters(model), "The student")
        Head.of(unwrap_adapters(model))

    @property
    def head(self) -> Head:
        """What turns its hidden states into logits; its matrix is the parameter that learns."""
        return Head.of(unwrap_adapters(self.model))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Any) -> Tensor:
        """Return logits, (B, T, V).

        Args:
            input_ids: Token numbers, (B, T).
            attention_mask: 1 at tokens, 0 at padding, (B, T); None where there is no padding.
            **others: Inputs that a teacher reads, and this model may not.
        """
        tokens = read_token_inputs({**others, "input_ids": input_ids, "attention_mask": attention_mask}, "The student")
        model = unwrap_adapters(self.model)
        logits = model(**select_arguments(model, {**tokens, "use_cache": False})).logits
        assert isinstance(logits, Tensor)
        return logits

    def hidden(self, inputs: Inputs) -> Tensor:
        """Return the hidden states that the head reads, with gradients; no logits are computed.

        Args:
            inputs: Those of a batch: token numbers (B, T), or a dictionary that has them as ``input_ids``.

        Returns:
            (B, T, H).

        Raises:
            InvalidInput: The head alone does not give the model's logits, which is found out on the first batch.
        """
        tokens, model = read_token_inputs(inputs, "The student"), unwrap_adapters(self.model)
        if not self._checked:
            with evaluation_mode(self.model):
                gap = find_head_gap(model, self.head, tokens, "The student")
            if gap:
                raise InvalidInput(
                    f"The student is a {type(model).__name__}: {gap}. Its hidden states alone do not say what it says; "
                    "give its logits to the loss: distillation_loss(student(**inputs), None, ...)."
                )
            self._checked = True
        return read_hidden(model, tokens, "The student")
