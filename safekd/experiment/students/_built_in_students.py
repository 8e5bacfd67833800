"""The students that need no other package: a multilayer perceptron, and a small convolutional network for images.

Axes: B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ...errors import InvalidConfig
from ._student_registry import register_student


def build_mlp(inputs: int, hidden: Sequence[int], classes: int, seed: int) -> nn.Sequential:
    """Return a multilayer perceptron with tanh units: (B, inputs) to logits (B, classes).

    tanh because its loss is smooth, so that stationarity can be reached and measured.  Same seed, same parameters,
    whatever else drew random numbers before.

    Args:
        inputs: Number of features.
        hidden: Units of each hidden layer; none for a linear student.
        classes: Number of classes.
        seed: Of the parameters, at least 0.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return stack_mlp(inputs, classes, hidden)


@register_student("mlp")
def stack_mlp(inputs: int, classes: int, hidden: Sequence[int] = (32,)) -> nn.Sequential:
    """Return a multilayer perceptron with tanh units, its parameters drawn from torch's own random numbers.

    Args:
        inputs: Number of features.
        classes: Number of classes.
        hidden: Units of each hidden layer; none for a linear student.
    """
    sizes = [inputs, *hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


class ConvolutionalStudent(nn.Module):
    """Convolutions with tanh units, each followed by averages of 2 x 2 pixels, and a linear layer.

    Args:
        image_shape: Channels, height and width of the images that rows hold.
        classes: Number of classes.
        channels: Of each convolution.
        kernel: Side of their windows, odd.
    """

    def __init__(self, image_shape: Sequence[int], classes: int, channels: Sequence[int], kernel: int) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        depth, height, width = self.image_shape
        layers: list[nn.Module] = []
        for more in channels:
            layers += [nn.Conv2d(depth, more, kernel, padding=kernel // 2), nn.Tanh()]
            if min(height, width) >= 2:
                layers.append(nn.AvgPool2d(2))
                height, width = height // 2, width // 2
            depth = more
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(depth * height * width, classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits (B, classes) of rows (B, channels x height x width)."""
        logits: Tensor = self.layers(inputs.reshape(-1, *self.image_shape))
        return logits


@register_student("cnn")
def build_cnn(
    inputs: int,
    classes: int,
    image_shape: tuple[int, int, int] | None = None,
    channels: Sequence[int] = (16, 32),
    kernel: int = 3,
) -> nn.Module:
    """Return a small convolutional network, its parameters drawn from torch's own random numbers.

    Args:
        inputs: Number of features: pixels, channel by channel.
        classes: Number of classes.
        image_shape: Channels, height and width.
        channels: Of each convolution, 1 to 10 of at most 1024 each.
        kernel: Side of their windows, odd and at most 15.

    Raises:
        InvalidConfig: The data are no images, or an option is out of range.
    """
    if image_shape is None:
        raise InvalidConfig("student.kind is 'cnn', which reads images, and the data are none; take 'mlp'.")
    whole = isinstance(channels, (list, tuple)) and all(type(one) is int and 1 <= one <= 1024 for one in channels)
    if not whole or not 1 <= len(channels) <= 10:
        raise InvalidConfig(f"student.options.channels is {channels!r}; wanted 1 to 10 whole numbers from 1 to 1024.")
    if type(kernel) is not int or kernel not in range(1, 16, 2):
        raise InvalidConfig(f"student.options.kernel is {kernel!r}; wanted an odd number from 1 to 15.")
    return ConvolutionalStudent(image_shape, classes, channels, kernel)
