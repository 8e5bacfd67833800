"""Problems with bounds only, or without any, that are no fits: curved valleys, singular minima, saddles, bad scales.

Sources: Hock and Schittkowski 1981 by their numbers; Moré, Garbow and Hillstrom 1981; CUTEst by its names.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._problem import define


def _rosenbrock(x: Tensor, y: Tensor) -> Tensor:
    return 100 * (y - x**2) ** 2 + (1 - x) ** 2


def _rosenbrock_chain(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def _wood(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    valleys = 100 * (b - a**2) ** 2 + (1 - a) ** 2 + 90 * (d - c**2) ** 2 + (1 - c) ** 2
    return valleys + 10.1 * ((b - 1) ** 2 + (d - 1) ** 2) + 19.8 * (b - 1) * (d - 1)


def _helix(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    turn = torch.atan2(y, x) / (2 * math.pi)
    return 100 * ((z - 10 * turn) ** 2 + ((x**2 + y**2).sqrt() - 1) ** 2) + z**2


def _hs110(x: Tensor) -> Tensor:
    return ((x - 2).log() ** 2 + (10 - x).log() ** 2).sum() - x.prod() ** 0.2


def _variably_dimensioned(x: Tensor) -> Tensor:
    sum_ = (torch.arange(1, len(x) + 1) * (x - 1)).sum()
    return ((x - 1) ** 2).sum() + sum_**2 + sum_**4


def _trigonometric(x: Tensor) -> Tensor:
    i = torch.arange(1, len(x) + 1)
    return (len(x) - x.cos().sum() + i * (1 - x.cos()) - x.sin()).square().sum()


def _brown_almost_linear(x: Tensor) -> Tensor:
    return (x[:-1] + x.sum() - (len(x) + 1)).square().sum() + (x.prod() - 1) ** 2


def _penalty_1(x: Tensor) -> Tensor:
    return 1e-5 * ((x - 1) ** 2).sum() + ((x**2).sum() - 0.25) ** 2


def _hatflda(x: Tensor) -> Tensor:
    return (x[0] - 1) ** 2 + ((x[:-1] - x[1:].sqrt()) ** 2).sum()


def _quartic(x: Tensor) -> Tensor:
    return (torch.arange(1, len(x) + 1) * x**4).sum()


BOUNDED = [
    define("HS1", _rosenbrock, [-2, 1], 0.0, low=[-math.inf, -1.5]),
    define("HS2", _rosenbrock, [-2, 1], 0.0504261879, low=[-math.inf, 1.5], local=[4.941229318]),
    define("HS3", lambda x, y: y + 1e-5 * (y - x) ** 2, [10, 1], 0.0, low=[-math.inf, 0]),
    define("HS4", lambda x, y: (x + 1) ** 3 / 3 + y, [1.125, 0.125], 8 / 3, low=[1, 0]),
    define(
        "HS5",
        lambda x, y: torch.sin(x + y) + (x - y) ** 2 - 1.5 * x + 2.5 * y + 1,
        [0, 0], -(3**0.5) / 2 - math.pi / 3, low=[-1.5, -3], high=[4, 3],
    ),
    define("HS38", _wood, [-3, -1, -3, -1], 0.0, low=-10, high=10),
    define("HS45", lambda x: 2 - x.prod() / 120, [2] * 5, 1.0, low=0, high=[1, 2, 3, 4, 5], vector=True),
    define("HS110", _hs110, [9] * 10, -45.77846971, low=2.001, high=9.999, vector=True),
    define("Rosenbrock", _rosenbrock, [-1.2, 1], 0.0),
    define("Rosenbrock's chain", _rosenbrock_chain, [-1.2, 1] * 5, 0.0, vector=True, local=[3.98657911]),
    define("Wood", _wood, [-3, -1, -3, -1], 0.0),
    define(
        "Beale",
        lambda x, y: (1.5 - x * (1 - y)) ** 2 + (2.25 - x * (1 - y**2)) ** 2 + (2.625 - x * (1 - y**3)) ** 2,
        [1, 1], 0.0,
    ),
    define(
        "Brown, badly scaled",
        lambda x, y: (x - 1e6) ** 2 + (y - 2e-6) ** 2 + (x * y - 2) ** 2,
        [1, 1], 0.0,
    ),
    define(
        "Powell, badly scaled",
        lambda x, y: (1e4 * x * y - 1) ** 2 + (torch.exp(-x) + torch.exp(-y) - 1.0001) ** 2,
        [0, 1], 0.0,
    ),
    define(
        "Powell, singular",
        lambda a, b, c, d: (a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4,
        [3, -1, 0, 1], 0.0,
    ),
    define("Helical valley", _helix, [-1, 0.1, 0], 0.0),
    define(
        "Freudenstein and Roth",
        lambda x, y: (-13 + x + ((5 - y) * y - 2) * y) ** 2 + (-29 + x + ((y + 1) * y - 14) * y) ** 2,
        [0.5, -2], 0.0, local=[48.98425368],
    ),
    define("Variably dimensioned", _variably_dimensioned, [1 - i / 10 for i in range(1, 11)], 0.0, vector=True),
    define("Trigonometric", _trigonometric, [0.1] * 10, 0.0, vector=True, local=[2.795056122e-5]),
    define("Brown, almost linear", _brown_almost_linear, [0.5] * 5, 0.0, vector=True),
    define("Penalty I", _penalty_1, [1, 2, 3, 4], 2.249975e-5, vector=True),
    define("HATFLDA", _hatflda, [0.1] * 4, 0.0, low=1e-7, vector=True),
    define(
        "six-hump camel",
        lambda x, y: (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (-4 + 4 * y**2) * y**2,
        [1.1, 1.1], -1.031628453, low=[-3, -1.5], high=[3, 1.5], local=[-0.2154638244, 2.104250310],
    ),
    define("Himmelblau", lambda x, y: (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2, [1, 1], 0.0),
    define("saddle", lambda x, y: x**2 - y**2 + y**4 / 4, [1, 0], -1.0),
    define("variables of different size", lambda x, y: (x - 1) ** 2 + (y / 1e8 - 1) ** 2, [0, 0], 0.0),
    define("quartic", _quartic, [2] * 10, 0.0, vector=True),
    define("cliff", lambda x, y: ((x - 3) / 100) ** 2 - (x - y) + torch.exp(20 * (x - y)), [0, -1], 0.199786613),
    define("cube", lambda x, y: (x - 1) ** 2 + 100 * (y - x**3) ** 2, [-1.2, 1], 0.0),
    define(
        "MDHOLE", lambda x, y: 100 * (torch.sin(x) - y) ** 2 + x, [10, 1], 0.0, low=[0, -math.inf],
    ),
    define("Maratos, unconstrained", lambda x, y: x + 1e6 * (x**2 + y**2 - 1) ** 2, [1.1, 0.1], -1.00000006),
    define("STREG", lambda a, b, c, d: 100 * (b - a**2) ** 2 + (1 - a) ** 2 + c**2 + d**2, [-1.2, 1, 1e10, 1e10], 0.0),
]  # fmt: skip
