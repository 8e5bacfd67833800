"""Functions that published curves of problems are made of, shared by tests of the minimiser and of frontiers."""

from __future__ import annotations

import torch

ROOT = 3**-0.5


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def full(n, value):
    return torch.full((n,), value, dtype=torch.float64)


def square(x):
    return (x**2).sum()


def spread(x):
    return 1 + 9 * x[1:].mean()


def gauss(x, centre):
    return 1 - torch.exp(-square(x - centre))
