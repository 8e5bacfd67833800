"""What a teacher says about the next token, in any of the forms in which it can be had.

    Hidden(hidden, head)        its last hidden states and its output matrix: 1,152 bytes a token at H = 576 in bfloat16
    Logits(logits)              its logits, or log-probabilities
    TopK(ids, log_p, tail)      its k most probable tokens, and the mass of all others, spread evenly over them

Axes: ... positions, H width of the teacher, V vocabulary, k tokens kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr

from ...errors import InvalidInput
from ._head import Head, require_head_type


@dataclass(frozen=True, repr=False)
class Hidden(ShortRepr):
    """A teacher's last hidden states, with the head that reads them.

    Attributes:
        hidden: (..., H); those that the head reads, after the last normalization.
        head: The output matrix.

    Raises:
        InvalidInput: The head reads another width.
    """

    hidden: Tensor
    head: Head

    def __post_init__(self) -> None:
        require_tensor(self.hidden, "`hidden` of Hidden")
        require_head_type(self.head)
        if self.hidden.shape[-1:] != (self.head.width,):
            raise InvalidInput(
                f"Hidden states have shape {tuple(self.hidden.shape)}, and the head reads width {self.head.width}; "
                "wanted (..., width)."
            )

    @property
    def lead(self) -> torch.Size:
        """Shape of the positions, (...)."""
        return self.hidden.shape[:-1]


@dataclass(frozen=True, repr=False)
class Logits(ShortRepr):
    """A teacher's logits.

    Attributes:
        logits: (..., V); minus infinity is a probability of zero.

    Raises:
        InvalidInput: They are no tensor.
    """

    logits: Tensor

    def __post_init__(self) -> None:
        require_tensor(self.logits, "`logits` of Logits")

    @property
    def lead(self) -> torch.Size:
        """Shape of the positions, (...)."""
        return self.logits.shape[:-1]


@dataclass(frozen=True, repr=False)
class TopK(ShortRepr):
    """A teacher's k most probable tokens; the mass of the tail is spread evenly over all other tokens.

    Attributes:
        ids: Token numbers, (..., k), distinct at each position.
        log_p: Their log-probabilities at temperature 1, (..., k).
        tail: Mass of all other tokens, (...); what the k leave of 1 if left out.
        vocabulary: V, how many tokens the teacher scores; as many as are compared if left out.
        entropy: Entropy of the whole distribution, nats, (...), where it was kept: else that of the table is used.
        log_truth: log p(y) of the label at the position, (...), likewise.

    Raises:
        InvalidInput: Shapes do not fit each other.
    """

    ids: Tensor
    log_p: Tensor
    tail: Tensor | None = None
    vocabulary: int | None = None
    entropy: Tensor | None = None
    log_truth: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("ids", "log_p", "tail", "entropy", "log_truth"):
            if name in ("ids", "log_p") or getattr(self, name) is not None:
                require_tensor(getattr(self, name), f"`{name}` of TopK")
        if self.ids.is_floating_point():
            raise InvalidInput(f"`ids` of TopK are {self.ids.dtype}; wanted token numbers.")
        if self.ids.shape != self.log_p.shape or self.ids.ndim < 2:
            raise InvalidInput(
                f"`ids` of TopK has shape {tuple(self.ids.shape)}, `log_p` {tuple(self.log_p.shape)}; wanted (..., k) "
                "twice."
            )
        for name in ("tail", "entropy", "log_truth"):
            value = getattr(self, name)
            if value is not None and value.shape != self.lead:
                raise InvalidInput(
                    f"`{name}` of TopK has shape {tuple(value.shape)}; wanted one number a position, "
                    f"{tuple(self.lead)}."
                )

    @property
    def lead(self) -> torch.Size:
        """Shape of the positions, (...)."""
        return self.ids.shape[:-1]


def require_tensor(value: object, name: str) -> None:
    """Refuse what is no tensor.

    Args:
        value: What was given.
        name: What messages call it.

    Raises:
        InvalidInput: It is something else.
    """
    if not isinstance(value, Tensor):
        raise InvalidInput(f"{name} is a {type(value).__name__}; wanted a tensor.")


TeacherOutput = Hidden | Logits | TopK
