"""Three small students whose forward pass is a function of a list of parameters.

Contenders move lists of tensors, our trainer moves a module: both use the same function and the same start.
Axes: B batch, D inputs, T tokens, W width, V classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._tasks import Task

_HIDDEN = 32
_WIDTH = 16
Forward = Callable[[Sequence[Tensor], Tensor], Tensor]


class Student(nn.Module):
    """A module around a forward pass and its parameters.

    Args:
        forward_pass: From parameters and inputs (B, D) to logits (B, V).
        start: The parameters to begin with.
    """

    def __init__(self, forward_pass: Forward, start: Sequence[Tensor]) -> None:
        super().__init__()
        self.forward_pass = forward_pass
        self.weights = nn.ParameterList(nn.Parameter(part) for part in start)

    def forward(self, inputs_BD: Tensor) -> Tensor:
        """Return logits.

        Args:
            inputs_BD: Examples, (B, D).

        Returns:
            Logits, (B, V).
        """
        return self.forward_pass(list(self.weights), inputs_BD)


def make_student(model: str, task: Task, seed: int) -> Student:
    """Return a fresh student.

    Args:
        model: "linear", "MLP" or "transformer".
        task: Gives the numbers of inputs, classes and tokens.
        seed: Of the initial parameters.

    Returns:
        The student; the same seed gives the same parameters.
    """
    random, inputs = torch.Generator().manual_seed(seed), task.train.inputs.shape[1]

    def dense(rows: int, columns: int) -> Tensor:
        return (2 * torch.rand(rows, columns, generator=random) - 1) / columns**0.5

    def head(columns: int) -> list[Tensor]:
        return [dense(task.classes, columns), torch.zeros(task.classes)]

    if model == "linear":
        return Student(linear, head(inputs))
    if model == "MLP":
        return Student(mlp, [dense(_HIDDEN, inputs), torch.zeros(_HIDDEN), *head(_HIDDEN)])
    width, tokens = _WIDTH, task.tokens
    place_TW = 0.1 * torch.randn(tokens, width, generator=random)
    start = [dense(width, inputs // tokens), place_TW, torch.ones(width), torch.zeros(width)]
    start += [dense(3 * width, width), dense(width, width), torch.ones(width), torch.zeros(width)]
    start += [dense(width, width), torch.zeros(width), dense(width, width), torch.zeros(width)]
    return Student(functools.partial(transformer, tokens=tokens), [*start, *head(width)])


def linear(x: Sequence[Tensor], inputs_BD: Tensor) -> Tensor:
    """Return the logits of softmax regression.

    Args:
        x: Weights (V, D) and biases (V,).
        inputs_BD: Examples.

    Returns:
        Logits, (B, V).
    """
    return functional.linear(inputs_BD, x[0], x[1])


def mlp(x: Sequence[Tensor], inputs_BD: Tensor) -> Tensor:
    """Return the logits of one hidden layer of tanh units.

    Args:
        x: Weights and biases of both layers.
        inputs_BD: Examples.

    Returns:
        Logits, (B, V).
    """
    return functional.linear(torch.tanh(functional.linear(inputs_BD, x[0], x[1])), x[2], x[3])


def transformer(x: Sequence[Tensor], inputs_BD: Tensor, tokens: int) -> Tensor:
    """Return the logits of one pre-norm attention block with a mean over tokens.

    Args:
        x: Embedding, places, first norm, queries with keys and values, projection, second norm, two layers, head.
        inputs_BD: Examples; each is cut into tokens of equal length.
        tokens: T.

    Returns:
        Logits, (B, V).
    """
    embed, place_TW, scale, shift, attend, project, scale2, shift2, up, up_bias, down, down_bias, out, out_bias = x
    h_BTW = functional.linear(inputs_BD.reshape(len(inputs_BD), tokens, -1), embed) + place_TW
    query, key, value = functional.linear(functional.layer_norm(h_BTW, (_WIDTH,), scale, shift), attend).chunk(3, -1)
    mix_BTT = torch.softmax(query @ key.transpose(1, 2) / _WIDTH**0.5, dim=-1)
    h_BTW = h_BTW + functional.linear(mix_BTT @ value, project)
    inner = functional.linear(functional.layer_norm(h_BTW, (_WIDTH,), scale2, shift2), up, up_bias)
    h_BTW = h_BTW + functional.linear(functional.gelu(inner), down, down_bias)
    return functional.linear(h_BTW.mean(1), out, out_bias)
