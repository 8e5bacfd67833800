"""The output matrix of a language model, from hidden states to logits.  Axes: ... positions, H width, V vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr

from ..._number_checks import is_finite
from ...errors import InvalidInput

# Names under which configurations keep a factor of the logits: multiplied by, and divided by
_FACTORS = ("logit_scale", "logits_scale", "output_multiplier_scale", "lm_head_multiplier")
_DIVISORS = ("logits_scaling",)
_SOFTCAPS = ("final_logit_softcapping",)


@dataclass(frozen=True, repr=False)
class Head(ShortRepr):
    """``logits = cap tanh(scale (W h + b) / cap)``, the last layer of a language model.

    Attributes:
        weight: W, (V, H); tied with the embeddings or not.
        bias: b, (V,), or None.
        scale: Factor of the logits.
        softcap: cap, above 0; None for ``logits = scale (W h + b)``.

    Raises:
        InvalidInput: Shapes do not fit each other, or a number is out of range.

    Source: soft caps as in Gemma 2, Gemma Team 2024; factors as in Cohere's and IBM's Granite models.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.weight, Tensor) or self.weight.ndim != 2 or not self.weight.is_floating_point():
            found = tuple(self.weight.shape) if isinstance(self.weight, Tensor) else type(self.weight).__name__
            raise InvalidInput(f"`weight` of a Head is {found}; wanted a matrix of floats, (vocabulary, width).")
        if self.bias is not None and self.bias.shape != self.weight.shape[:1]:
            raise InvalidInput(
                f"`bias` of a Head has shape {tuple(self.bias.shape)}; wanted one number a token, "
                f"{tuple(self.weight.shape[:1])}."
            )
        if not (is_finite(self.scale) and self.scale != 0):
            raise InvalidInput(f"`scale` of a Head is {self.scale!r}; wanted a finite number other than 0.")
        if self.softcap is not None and not (is_finite(self.softcap) and self.softcap > 0):
            raise InvalidInput(f"`softcap` of a Head is {self.softcap!r}; wanted a number above 0, or None.")

    @classmethod
    def of(cls, model: Any) -> Head:
        """Return the head of a Hugging Face causal model, or of any module that has ``get_output_embeddings()``.

        Args:
            model: The model; its configuration says the factor and the soft cap of its logits.

        Raises:
            InvalidInput: It has no output matrix.
        """
        layer = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        if layer is None or not isinstance(getattr(layer, "weight", None), Tensor):
            raise InvalidInput(
                f"{type(model).__name__} has no output matrix to read; wanted a causal language model whose "
                "get_output_embeddings() is a linear layer, or Head(weight, bias)."
            )
        config: Any = getattr(model, "config", None)
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        scale = 1.0
        for name in _FACTORS:
            scale *= float(getattr(config, name, None) or 1.0)
        for name in _DIVISORS:
            scale /= float(getattr(config, name, None) or 1.0)
        softcap = next((float(cap) for name in _SOFTCAPS if (cap := getattr(config, name, None))), None)
        return cls(layer.weight, getattr(layer, "bias", None), scale, softcap)

    @property
    def vocabulary(self) -> int:
        """How many tokens it scores, V."""
        return int(self.weight.shape[0])

    @property
    def width(self) -> int:
        """Size of the hidden states that it reads, H."""
        return int(self.weight.shape[1])

    def cut(self, vocabulary: int) -> Head:
        """Return the head of the first tokens alone: padded rows of a vocabulary are left out.

        Args:
            vocabulary: How many tokens.
        """
        if vocabulary == self.vocabulary:
            return self
        bias = None if self.bias is None else self.bias[:vocabulary]
        return replace(self, weight=self.weight[:vocabulary], bias=bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of hidden states.

        Args:
            hidden: (..., H).

        Returns:
            (..., V), of the weight's type.
        """
        raw = torch.nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias)
        raw = raw if self.scale == 1 else raw * self.scale
        return raw if self.softcap is None else self.softcap * torch.tanh(raw / self.softcap)


def require_head_type(head: object) -> None:
    """Refuse what is no head.

    Args:
        head: What was given.

    Raises:
        InvalidInput: It is something else.
    """
    if not isinstance(head, Head):
        raise InvalidInput(
            f"The head is a {type(head).__name__}; wanted Head.of(model), or Head(weight, bias) of an output layer."
        )
