"""Least squares problems with bounds only or without any: badly scaled, singular, with saddles on the way.

Sources: Moré, Garbow and Hillstrom, Testing Unconstrained Optimization Software, 1981; the fits of M. Palmer in CUTEst
(Gould 1990 and 1992); NIST, Statistical Reference Datasets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ._problem import TestProblem, define


def _t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _range(first: float, last: float, step: float = 1.0) -> Tensor:
    return torch.arange(first, last + step / 2, step, dtype=torch.float64)


# half of symmetric data: x, y
PALMER = {
    1: (
        _t(0, 1.788963, 1.745329, 1.658063, 1.570796, 1.48353, 1.396263, 1.308997, 1.218612, 1.134464, 1.047198,
           0.872665, 0.698132, 0.523599, 0.349066, 0.174533),
        _t(88.3995, 78.596218, 65.77963, 43.96947, 27.038816, 14.6126, 6.2614, 1.53833, 0, 1.188045, 4.6841, 16.9321,
           33.6988, 52.3664, 70.163, 83.4221),
    ),
    2: (
        _t(0, 0.174533, 0.349066, 0.523599, 0.698132, 0.872665, 0.937187, 1.047198, 1.22173, 1.396263, 1.570796,
           1.745329),
        _t(19.4529, 17.7149, 13.4291, 8.1080, 3.2043, 0.2730, 0, 0.8596, 6.4762, 18.8548, 40.149455, 72.676767),
    ),
    3: (
        _t(0, 0.174533, 0.349066, 0.523599, 0.698132, 0.766531, 0.872665, 1.047198, 1.22173, 1.396263, 1.570796,
           1.658063),
        _t(9.8919, 8.5519, 5.5191, 2.3029, 0.2177, 0, 0.59447, 4.6547, 13.4575, 28.2034, 50.46046, 64.87939),
    ),
    5: (
        _t(0, 1.570796, 1.396263, 1.308997, 1.22173, 1.125835, 1.047198, 0.872665, 0.698132, 0.523599, 0.349066,
           0.174533),
        _t(83.57418, 81.007654, 18.983286, 8.051067, 2.044762, 0, 1.170451, 10.479881, 25.785001, 44.126844, 62.822177,
           77.719674),
    ),
    7: (
        _t(0, 0.139626, 0.261799, 0.436332, 0.565245, 0.512942, 0.610865, 0.785398, 0.959931, 1.134464, 1.308997,
           1.48353, 1.658063),
        _t(4.419446, 3.564931, 2.139067, 0.404686, 0, 0.035152, 0.146813, 2.718058, 9.474417, 26.132221, 41.451561,
           72.283164, 117.630959),
    ),
}  # fmt: skip


def _palmer(series: int, kind: str, least: float, local: Sequence[float] = ()) -> TestProblem:
    """Return a fit of a rational (no letter, A, B), a polynomial (C) or an exponential (E) to one of the data sets."""
    x_N, y_N = PALMER[series]
    s_N = x_N**2
    weight_N = torch.where(x_N > 0, 2.0, 1.0) if series < 5 else torch.ones_like(x_N)
    inf, tiny = math.inf, 1e-5
    terms = {"": 1, "A": 4, "B": 2, "C": 8, "E": 6}[kind]
    P_NT = torch.stack([s_N**k for k in range(terms)], dim=1)
    models = {
        "": (lambda z: z[0] * s_N + z[1] / (z[2] + s_N / z[3]), 4, [-inf, tiny, tiny, tiny]),
        "A": (lambda z: P_NT @ z[:4] + z[4] / (z[5] + s_N), 6, [-inf] * 4 + [tiny] * 2),
        "B": (lambda z: z[0] * s_N + z[1] * s_N**2 + z[2] / (z[3] + s_N), 4, [-inf] * 2 + [tiny] * 2),
        "C": (lambda z: P_NT @ z, 8, [-inf] * 8),
        "E": (lambda z: P_NT @ z[:6] + z[7] * torch.exp(-z[6] * s_N), 8, [-inf] * 6 + [0.0, -inf]),
    }
    model, n, low = models[kind]
    return define(
        f"PALMER{series}{kind}",
        lambda z: (weight_N * (model(z) - y_N) ** 2).sum(),
        [1.0] * n,
        least,
        low=low,
        vector=True,
        local=local,
    )


U_99 = 25 + (-50 * (0.01 * _range(1, 99)).log()) ** (2 / 3)
BARD = _t(0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39)
KOWALIK_Y = _t(0.1957, 0.1947, 0.1735, 0.16, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246)
KOWALIK_U = _t(4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625)
MEYER = _t(34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872)
OSBORNE_1 = _t(
    0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751, 0.718, 0.685, 0.658, 0.628, 0.603,
    0.580, 0.558, 0.538, 0.522, 0.506, 0.490, 0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411,
    0.406,
)  # fmt: skip
OSBORNE_2 = _t(
    1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608, 0.655, 0.616, 0.606,
    0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661, 0.612, 0.558, 0.533, 0.495, 0.500, 0.423,
    0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428, 0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668,
    0.645, 0.632, 0.591, 0.559, 0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098,
    0.054,
)  # fmt: skip
MISRA_X = _t(77.6, 114.9, 141.1, 190.8, 239.9, 289, 332.8, 378.4, 434.8, 477.3, 536.8, 593.1, 689.1, 760)
MISRA_Y = _t(10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05, 61.01, 66.4, 75.47, 81.78)
HOBBS = _t(5.308, 7.24, 9.638, 12.866, 17.069, 23.192, 31.443, 38.558, 50.156, 62.948, 75.995, 91.972)
T_10, T_12, T_13, T_20 = 0.1 * _range(1, 10), _range(1, 12), 0.1 * _range(1, 13), _range(1, 20) / 5
TEN, T_33, T_65 = _range(1, 10), 10 * _range(0, 32), 0.1 * _range(0, 64)


def _osborne_2(z: Tensor) -> Tensor:
    bells = z[1:4, None] * torch.exp(-z[5:8, None] * (T_65 - z[8:11, None]) ** 2)
    return (OSBORNE_2 - z[0] * torch.exp(-T_65 * z[4]) - bells.sum(0)).square().sum()


def _biggs(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
    y = torch.exp(-T_13) - 5 * torch.exp(-10 * T_13) + 3 * torch.exp(-4 * T_13)
    fit = c * torch.exp(-T_13 * a) - d * torch.exp(-T_13 * b) + f * torch.exp(-T_13 * e)
    return (fit - y).square().sum()


def _bard(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    u, v = _range(1, 15), 16 - _range(1, 15)
    return (BARD - a - u / (v * b + torch.minimum(u, v) * c)).square().sum()


FITS = [
    _palmer(1, "", 11754.6025),
    _palmer(2, "", 3651.10916777),
    _palmer(3, "", 2265.958218, [2416.980323]),
    _palmer(1, "A", 0.03284216107),
    _palmer(2, "A", 0.01706458185),
    _palmer(3, "A", 0.0204314),
    _palmer(7, "A", 10.33491),
    _palmer(2, "B", 0.6232404775),
    _palmer(3, "B", 4.227647),
    _palmer(1, "C", 0.04335898921),
    _palmer(2, "C", 0.01437802662),
    _palmer(3, "C", 0.01953763851),
    _palmer(5, "C", 0.02208464341),
    _palmer(7, "C", 0.6019856723),
    _palmer(1, "E", 7.25025296e-4),
    _palmer(2, "E", 2.1187055e-4),
    _palmer(3, "E", 5.0740840e-5),
    _palmer(7, "E", 6.5735, [10.15389863]),
    define(
        "HS25",
        lambda a, b, c: (-0.01 * _range(1, 99) + torch.exp(-((U_99 - b) ** c) / a)).square().sum(),
        [100, 12.5, 3], 0.0, low=[0.1, 0, 0], high=[100, 25.6, 5],
    ),
    define("Bard", _bard, [1, 1, 1], 8.214877e-3),
    define(
        "Kowalik and Osborne",
        lambda a, b, c, d: (KOWALIK_Y - a * KOWALIK_U * (KOWALIK_U + b) / (KOWALIK_U * (KOWALIK_U + c) + d))
        .square().sum(),
        [0.25, 0.39, 0.415, 0.39], 3.075056e-4,
    ),
    define(
        "Meyer",
        lambda a, b, c: (a * torch.exp(b / (45 + 5 * _range(1, 16) + c)) - MEYER).square().sum(),
        [0.02, 4000, 250], 87.945855,
    ),
    define(
        "Osborne 1",
        lambda a, b, c, d, e: (OSBORNE_1 - a - b * torch.exp(-T_33 * d) - c * torch.exp(-T_33 * e)).square().sum(),
        [0.5, 1.5, -1, 0.01, 0.02], 5.464895e-5,
    ),
    define("Osborne 2", _osborne_2, [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5], 4.013774e-2, vector=True),
    define("Biggs EXP6", _biggs, [1, 2, 1, 1, 1, 1], 0.0),
    define(
        "Box in three dimensions",
        lambda a, b, c: (
            torch.exp(-T_10 * a) - torch.exp(-T_10 * b) - c * (torch.exp(-T_10) - torch.exp(-10 * T_10))
        ).square().sum(),
        [0, 10, 20], 0.0,
    ),
    define(
        "Jennrich and Sampson",
        lambda a, b: (2 + 2 * TEN - torch.exp(TEN * a) - torch.exp(TEN * b)).square().sum(),
        [0.3, 0.4], 124.362182,
    ),
    define(
        "Brown and Dennis",
        lambda a, b, c, d: (
            (a + T_20 * b - torch.exp(T_20)) ** 2 + (c + d * torch.sin(T_20) - torch.cos(T_20)) ** 2
        ).square().sum(),
        [25, 5, -5, -1], 85822.2016,
    ),
    define(
        "Misra 1a", lambda a, b: (a * (1 - torch.exp(-b * MISRA_X)) - MISRA_Y).square().sum(), [500, 1e-4], 0.12455139,
    ),
    define(
        "Hobbs' weeds, three variables",
        lambda a, b, c: (a / (1 + b * torch.exp(-c * T_12)) - HOBBS).square().sum(),
        [1, 1, 1], 2.587277, low=[0, 0, 0], high=[1000, 1000, 3],
    ),
]  # fmt: skip
