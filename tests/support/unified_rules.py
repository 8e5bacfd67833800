"""Rules and polytopes that tests of unified weights share."""

from __future__ import annotations

import torch

from solvers.polytope import WeightPolytope

BOX = WeightPolytope(3, lower=0.1, upper=0.6)


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def says(*values):
    """Return a rule that gives these scores at every position."""
    return lambda signals: t(*values).expand(signals.shape)


def scores(*rows):
    """Return a rule that gives these scores, one row a position."""
    return lambda signals: t(*rows)
