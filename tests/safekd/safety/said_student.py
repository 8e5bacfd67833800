"""A student that says what it is told, and held-out rows for it."""

from __future__ import annotations

import torch
from torch import nn

import safekd as kd


class Said(nn.Module):
    """A student whose inputs are the probabilities that it gives the truth, class 0."""

    def forward(self, p):
        return torch.stack([p, 1 - p], -1).log()


def rows(p_N, **more) -> kd.Split:
    """Return examples of class 0, each with the probability that the student gives it."""
    p_N = torch.as_tensor(p_N, dtype=torch.float64)
    return kd.Split("certify", p_N, torch.zeros(len(p_N), dtype=torch.long), **more)
