"""Students that a configuration can name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


def mlp(inputs: int, hidden: Sequence[int], classes: int, seed: int) -> nn.Sequential:
    """Return a multilayer perceptron with tanh units: (B, inputs) to logits (B, classes).

    tanh because its loss is smooth, so that stationarity can be reached and measured.  Same seed, same parameters,
    whatever else drew random numbers before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = [inputs, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))
