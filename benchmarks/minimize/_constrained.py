"""Problems with rows, of Hock and Schittkowski, Test Examples for Nonlinear Programming Codes, 1981, by their numbers.

Rows are stated as g <= 0 and h = 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._problem import define

x_dtype = torch.float64


def _hs44(x: Tensor) -> Tensor:
    a, b, c, d = x.unbind()
    return torch.stack([a + 2 * b - 8, 4 * a + b - 12, 3 * a + 4 * b - 12, 2 * c + d - 8, c + 2 * d - 8, c + d - 5])


_X_57 = (
    "8 8 10 10 10 10 12 12 12 12 14 14 14 16 16 16 18 18 20 20 20 22 "
    "22 22 24 24 24 26 26 26 28 28 30 30 30 32 32 34 36 36 38 38 40 42"
)
_Y_57 = (
    "0.49 0.49 0.48 0.47 0.48 0.47 0.46 0.46 0.45 0.43 0.45 0.43 0.43 0.44 0.43 "
    "0.43 0.46 0.45 0.42 0.42 0.43 0.41 0.41 0.40 0.42 0.40 0.40 0.41 0.40 0.41 "
    "0.41 0.40 0.40 0.40 0.38 0.41 0.40 0.40 0.41 0.38 0.40 0.40 0.39 0.39"
)


def _hs57(a: Tensor, b: Tensor) -> Tensor:
    x, y = (torch.tensor([float(number) for number in text.split()], dtype=x_dtype) for text in (_X_57, _Y_57))
    return (y - a - (0.49 - a) * torch.exp(-b * (x - 8))).square().sum()


RATES_112 = torch.tensor(
    [-6.089, -17.164, -34.054, -5.914, -24.721, -14.986, -24.100, -10.708, -26.662, -22.179], dtype=x_dtype
)


def _hs112(x: Tensor) -> Tensor:
    return (x * (RATES_112 + (x / x.sum()).log())).sum()


def _hs112_rows(x: Tensor) -> tuple[Tensor, ...]:
    return (
        x[0] + 2 * x[1] + 2 * x[2] + x[5] + x[9] - 2,
        x[3] + 2 * x[4] + x[5] + x[6] - 1,
        x[2] + x[6] + x[7] + 2 * x[8] + x[9] - 1,
    )


def _hs113(x: Tensor) -> Tensor:
    a, b, c, d, e, f, g, h, i, j = x.unbind()
    first = a**2 + b**2 + a * b - 14 * a - 16 * b + (c - 10) ** 2 + 4 * (d - 5) ** 2 + (e - 3) ** 2
    return first + 2 * (f - 1) ** 2 + 5 * g**2 + 7 * (h - 11) ** 2 + 2 * (i - 10) ** 2 + (j - 7) ** 2 + 45


def _hs113_rows(x: Tensor) -> tuple[Tensor, ...]:
    a, b, c, d, e, f, g, h, i, j = x.unbind()
    return (
        4 * a + 5 * b - 3 * g + 9 * h - 105,
        10 * a - 8 * b - 17 * g + 2 * h,
        -8 * a + 2 * b + 5 * i - 2 * j - 12,
        3 * (a - 2) ** 2 + 4 * (b - 3) ** 2 + 2 * c**2 - 7 * d - 120,
        5 * a**2 + 8 * b + (c - 6) ** 2 - 2 * d - 40,
        (a - 8) ** 2 / 2 + 2 * (b - 4) ** 2 + 3 * e**2 - f - 30,
        a**2 + 2 * (b - 2) ** 2 - 2 * a * b + 14 * e - 6 * f,
        -3 * a + 6 * b + 12 * (i - 8) ** 2 - 7 * j,
    )


def _hs117(x: Tensor) -> Tensor:
    return -(B_117 @ x[:10]) + x[10:] @ C_117 @ x[10:] + 2 * (D_117 * x[10:] ** 3).sum()


def _hs117_rows(x: Tensor) -> Tensor:
    return -(2 * C_117 @ x[10:] + 3 * D_117 * x[10:] ** 2 + E_117 - A_117.T @ x[:10])


A_117 = torch.tensor(
    [[-16, 2, 0, 1, 0], [0, -2, 0, 4, 2], [-3.5, 0, 2, 0, 0], [0, -2, 0, -4, -1], [0, -9, -2, 1, -2.8],
     [2, 0, -4, 0, 0],     [-1, -1, -1, -1, -1], [-1, -2, -3, -2, -1], [1, 2, 3, 4, 5], [1, 1, 1, 1, 1]], dtype=x_dtype,
)  # fmt: skip
B_117 = torch.tensor([-40, -2, -0.25, -4, -4, -1, -40, -60, 5, 1], dtype=x_dtype)
C_117 = torch.tensor(
    [[30, -20, -10, 32, -10], [-20, 39, -6, -31, 32], [-10, -6, 10, -6, -10], [32, -31, -6, 39, -20],
     [-10, 32, -10, -20, 30]], dtype=x_dtype,
)  # fmt: skip
D_117 = torch.tensor([4, 8, 10, 6, 2], dtype=x_dtype)
E_117 = torch.tensor([-15, -27, -36, -18, -12], dtype=x_dtype)


def _hs118(x: Tensor) -> Tensor:
    a, b, c = x[0::3], x[1::3], x[2::3]
    return (2.3 * a + 1e-4 * a**2 + 1.7 * b + 1e-4 * b**2 + 2.2 * c + 1.5e-4 * c**2).sum()


def _hs118_rows(x: Tensor) -> Tensor:
    steps = x[3:] - x[:-3] + 7 - 0.0  # 0 <= a_j+1 - a_j + 7 <= 13, b: <= 14, c: <= 13
    most = torch.tensor([13, 14, 13] * 4, dtype=x.dtype)
    sums = x.reshape(5, 3).sum(1)
    return torch.cat([-steps, steps - most, torch.tensor([60, 50, 70, 85, 100], dtype=x.dtype) - sums])


def _hs54(x: Tensor) -> Tensor:
    m = torch.tensor([1e4, 1, 2e6, 10, 1e-3, 1e8], dtype=x.dtype)
    s = torch.tensor([8e3, 1, 7e6, 50, 0.05, 5e8], dtype=x.dtype)
    u = (x - m) / s
    return -torch.exp(-((u[0] ** 2 + 0.4 * u[0] * u[1] + u[1] ** 2) / 0.96 + u[2:].square().sum()) / 2)


def _hs106(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor, g: Tensor, h: Tensor) -> object:
    return (
        0.0025 * (d + f) - 1,
        0.0025 * (e + g - d) - 1,
        0.01 * (h - e) - 1,
        -a * f + 833.33252 * d + 100 * a - 83333.333,
        -b * g + 1250 * e + b * d - 1250 * d,
        -c * h + 1250000 + c * e - 2500 * e,
    )


INF = math.inf
ROSENBROCK = lambda x, y: 100 * (y - x**2) ** 2 + (1 - x) ** 2  # noqa: E731
F43 = lambda a, b, c, d: a**2 + b**2 + 2 * c**2 + d**2 - 5 * a - 5 * b - 21 * c + 7 * d  # noqa: E731
F51 = lambda a, b, c, d, e: (a - b) ** 2 + (b + c - 2) ** 2 + (d - 1) ** 2 + (e - 1) ** 2  # noqa: E731
F52 = lambda a, b, c, d, e: (4 * a - b) ** 2 + (b + c - 2) ** 2 + (d - 1) ** 2 + (e - 1) ** 2  # noqa: E731
R52 = lambda a, b, c, d, e: (a + 3 * b, c + d - 2 * e, b - e)  # noqa: E731

CONSTRAINED = [
    define("HS6", lambda x, y: (1 - x) ** 2, [-1.2, 1], 0.0, h=lambda x, y: 10 * (y - x**2)),
    define(
        "HS7", lambda x, y: torch.log(1 + x**2) - y, [2, 2], -(3**0.5),
        h=lambda x, y: (1 + x**2) ** 2 + y**2 - 4,
    ),
    define(
        "HS9", lambda x, y: torch.sin(math.pi * x / 12) * torch.cos(math.pi * y / 16), [0, 0], -0.5,
        h=lambda x, y: 4 * x - 3 * y,
    ),
    define("HS10", lambda x, y: x - y, [-10, 10], -1.0, g=lambda x, y: 3 * x**2 - 2 * x * y + y**2 - 1),
    define("HS11", lambda x, y: (x - 5) ** 2 + y**2 - 25, [4.9, 0.1], -8.498464223, g=lambda x, y: x**2 - y),
    define(
        "HS12", lambda x, y: x**2 / 2 + y**2 - x * y - 7 * x - 7 * y, [0, 0], -30.0,
        g=lambda x, y: 4 * x**2 + y**2 - 25,
    ),
    define(
        "HS14", lambda x, y: (x - 2) ** 2 + (y - 1) ** 2, [2, 2], 9 - 2.875 * 7**0.5,
        g=lambda x, y: x**2 / 4 + y**2 - 1, h=lambda x, y: x - 2 * y + 1,
    ),
    define(
        "HS15", ROSENBROCK, [-2, 1], 306.5, g=lambda x, y: (1 - x * y, -x - y**2), high=[0.5, INF],
        local=[360.3797672],
    ),
    define(
        "HS16", ROSENBROCK, [-2, 1], 0.25, g=lambda x, y: (-x - y**2, -(x**2) - y), low=[-0.5, -INF], high=[0.5, 1],
        local=[23.14466094],
    ),
    define(
        "HS17", ROSENBROCK, [-2, 1], 1.0, g=lambda x, y: (x - y**2, y - x**2), low=[-0.5, -INF], high=[0.5, 1],
    ),
    define(
        "HS18", lambda x, y: 0.01 * x**2 + y**2, [2, 2], 5.0,
        g=lambda x, y: (25 - x * y, 25 - x**2 - y**2), low=[2, 0], high=50,
    ),
    define(
        "HS19", lambda x, y: (x - 10) ** 3 + (y - 20) ** 3, [20.1, 5.84], -6961.81381,
        g=lambda x, y: (100 - (x - 5) ** 2 - (y - 5) ** 2, (x - 6) ** 2 + (y - 5) ** 2 - 82.81),
        low=[13, 0], high=100,
    ),
    define(
        "HS20", ROSENBROCK, [-2, 1], 81.5 - 25 * 3**0.5,
        g=lambda x, y: (-x - y**2, -(x**2) - y, 1 - x**2 - y**2), low=[-0.5, -INF], high=[0.5, INF],
        local=[40.19872981],
    ),
    define(
        "HS21", lambda x, y: 0.01 * x**2 + y**2 - 100, [-1, -1], -99.96,
        g=lambda x, y: 10 - 10 * x + y, low=[2, -50], high=50,
    ),
    define(
        "HS22", lambda x, y: (x - 2) ** 2 + (y - 1) ** 2, [2, 2], 1.0, g=lambda x, y: (x + y - 2, x**2 - y),
    ),
    define(
        "HS23", lambda x, y: x**2 + y**2, [3, 1], 2.0,
        g=lambda x, y: (1 - x - y, 1 - x**2 - y**2, 9 - 9 * x**2 - y**2, y - x**2, x - y**2), low=-50, high=50,
    ),
    define(
        "HS24", lambda x, y: ((x - 3) ** 2 - 9) * y**3 / (27 * 3**0.5), [1, 0.5], -1.0,
        g=lambda x, y: (y - x / 3**0.5, -x - 3**0.5 * y, x + 3**0.5 * y - 6), low=0,
    ),
    define(
        "HS26", lambda a, b, c: (a - b) ** 2 + (b - c) ** 4, [-2.6, 2, 2], 0.0,
        h=lambda a, b, c: (1 + b**2) * a + c**4 - 3,
    ),
    define(
        "HS27", lambda a, b, c: 0.01 * (a - 1) ** 2 + (b - a**2) ** 2, [2, 2, 2], 0.04,
        h=lambda a, b, c: a + c**2 + 1,
    ),
    define("HS28", lambda a, b, c: (a + b) ** 2 + (b + c) ** 2, [-4, 1, 1], 0.0,
           h=lambda a, b, c: a + 2 * b + 3 * c - 1),
    define("HS29", lambda a, b, c: -a * b * c, [1, 1, 1], -16 * 2**0.5,
           g=lambda a, b, c: a**2 + 2 * b**2 + 4 * c**2 - 48),
    define(
        "HS30", lambda a, b, c: a**2 + b**2 + c**2, [1, 1, 1], 1.0, g=lambda a, b, c: 1 - a**2 - b**2,
        low=[1, -10, -10], high=10,
    ),
    define(
        "HS31", lambda a, b, c: 9 * a**2 + b**2 + 9 * c**2, [1, 1, 1], 6.0, g=lambda a, b, c: 1 - a * b,
        low=[-10, 1, -10], high=[10, 10, 1],
    ),
    define(
        "HS32", lambda a, b, c: (a + 3 * b + c) ** 2 + 4 * (a - b) ** 2, [0.1, 0.7, 0.2], 1.0,
        g=lambda a, b, c: a**3 - 6 * b - 4 * c + 3, h=lambda a, b, c: 1 - a - b - c, low=0,
    ),
    define(
        "HS33", lambda a, b, c: (a - 1) * (a - 2) * (a - 3) + c, [0, 0, 3], 2**0.5 - 6,
        g=lambda a, b, c: (a**2 + b**2 - c**2, 4 - a**2 - b**2 - c**2), low=0, high=[INF, INF, 5],
    ),
    define(
        "HS34", lambda a, b, c: -a, [0, 1.05, 2.9], -0.834032445,
        g=lambda a, b, c: (torch.exp(a) - b, torch.exp(b) - c), low=0, high=[100, 100, 10],
    ),
    define(
        "HS35",
        lambda a, b, c: 9 - 8 * a - 6 * b - 4 * c + 2 * a**2 + 2 * b**2 + c**2 + 2 * a * b + 2 * a * c,
        [0.5] * 3, 1 / 9, g=lambda a, b, c: a + b + 2 * c - 3, low=0,
    ),
    define("HS36", lambda a, b, c: -a * b * c, [10] * 3, -3300.0,
           g=lambda a, b, c: a + 2 * b + 2 * c - 72, low=0, high=[20, 11, 42]),
    define(
        "HS37", lambda a, b, c: -a * b * c, [10] * 3, -3456.0,
        g=lambda a, b, c: (a + 2 * b + 2 * c - 72, -a - 2 * b - 2 * c), low=0, high=42,
    ),
    define("HS39", lambda a, b, c, d: -a, [2] * 4, -1.0, h=lambda a, b, c, d: (b - a**3 - c**2, a**2 - b - d**2)),
    define(
        "HS40", lambda a, b, c, d: -a * b * c * d, [0.8] * 4, -0.25,
        h=lambda a, b, c, d: (a**3 + b**2 - 1, a**2 * d - c, d**2 - b),
    ),
    define(
        "HS41", lambda a, b, c, d: 2 - a * b * c, [2] * 4, 52 / 27, h=lambda a, b, c, d: a + 2 * b + 2 * c - d,
        low=0, high=[1, 1, 1, 2],
    ),
    define(
        "HS42", lambda a, b, c, d: (a - 1) ** 2 + (b - 2) ** 2 + (c - 3) ** 2 + (d - 4) ** 2, [1] * 4,
        28 - 10 * 2**0.5, h=lambda a, b, c, d: (a - 2, c**2 + d**2 - 2),
    ),
    define(
        "HS43", F43, [0] * 4, -44.0,
        g=lambda a, b, c, d: (
            a**2 + b**2 + c**2 + d**2 + a - b + c - d - 8,
            a**2 + 2 * b**2 + c**2 + 2 * d**2 - a - d - 10,
            2 * a**2 + b**2 + c**2 + 2 * a - b - d - 5,
        ),
    ),
    define(
        "HS44", lambda x: x[0] - x[1] - x[2] - x[0] * x[2] + x[0] * x[3] + x[1] * x[2] - x[1] * x[3], [0] * 4, -15.0,
        g=_hs44, low=0, vector=True, local=[-13.0],
    ),
    define(
        "HS46", lambda a, b, c, d, e: (a - b) ** 2 + (c - 1) ** 2 + (d - 1) ** 4 + (e - 1) ** 6,
        [0.5 * 2**0.5, 1.75, 0.5, 2, 2], 0.0,
        h=lambda a, b, c, d, e: (a**2 * d + torch.sin(d - e) - 1, b + c**4 * d**2 - 2),
    ),
    define(
        "HS47", lambda a, b, c, d, e: (a - b) ** 2 + (b - c) ** 3 + (c - d) ** 4 + (d - e) ** 4,
        [2, 2**0.5, -1, 2 - 2**0.5, 0.5], -0.02671418, local=[0.0],
        h=lambda a, b, c, d, e: (a + b**2 + c**3 - 3, b - c**2 + d - 1, a * e - 1),
    ),
    define(
        "HS48", lambda a, b, c, d, e: (a - 1) ** 2 + (b - c) ** 2 + (d - e) ** 2, [3, 5, -3, 2, -2], 0.0,
        h=lambda a, b, c, d, e: (a + b + c + d + e - 5, c - 2 * (d + e) + 3),
    ),
    define(
        "HS50", lambda a, b, c, d, e: (a - b) ** 2 + (b - c) ** 2 + (c - d) ** 4 + (d - e) ** 2, [35, -31, 11, 5, -5],
        0.0, h=lambda a, b, c, d, e: (a + 2 * b + 3 * c - 6, b + 2 * c + 3 * d - 6, c + 2 * d + 3 * e - 6),
    ),
    define("HS51", F51, [2.5, 0.5, 2, -1, 0.5], 0.0, h=lambda a, b, c, d, e: (a + 3 * b - 4, c + d - 2 * e, b - e)),
    define("HS52", F52, [2] * 5, 1859 / 349, h=R52),
    define("HS53", F51, [2] * 5, 176 / 43, h=R52, low=-10, high=10),
    define(
        "HS54", _hs54, [6e3, 1.5, 4e6, 2, 3e-3, 5e7], -0.9080747578, h=lambda x: x[0] + 4e3 * x[1] - 1.76e4,
        low=[0, -10, 0, 0, -1, 0], high=[2e4, 10, 1e7, 20, 1, 2e8], vector=True,
    ),
    define(
        "HS55", lambda a, b, c, d, e, f: a + 2 * b + 4 * e + torch.exp(a * d), [1, 2, 0, 0, 0, 2], 19 / 3,
        h=lambda a, b, c, d, e, f: (
            a + 2 * b + 5 * e - 6, a + b + c - 3, d + e + f - 2, a + d - 1, b + e - 2, c + f - 2,
        ),
        low=0, high=[1, INF, INF, 1, INF, INF], local=[20 / 3],
    ),
    define("HS57", _hs57, [0.42, 5], 0.02845966972, g=lambda a, b: a * b - 0.49 * b + 0.09, low=[0.4, -4]),
    define(
        "HS60", lambda a, b, c: (a - 1) ** 2 + (a - b) ** 2 + (b - c) ** 4, [2] * 3, 0.03256820025,
        h=lambda a, b, c: a * (1 + b**2) + c**4 - 4 - 3 * 2**0.5, low=-10, high=10,
    ),
    define(
        "HS61", lambda a, b, c: 4 * a**2 + 2 * b**2 + 2 * c**2 - 33 * a + 16 * b - 24 * c, [0] * 3, -143.6461422,
        h=lambda a, b, c: (3 * a - 2 * b**2 - 7, 4 * a - c**2 - 11),
    ),
    define(
        "HS62",
        lambda a, b, c: -32.174 * (
            255 * torch.log((a + b + c + 0.03) / (0.09 * a + b + c + 0.03))
            + 280 * torch.log((b + c + 0.03) / (0.07 * b + c + 0.03))
            + 290 * torch.log((c + 0.03) / (0.13 * c + 0.03))
        ),
        [0.7, 0.2, 0.1], -26272.51448, h=lambda a, b, c: a + b + c - 1, low=0, high=1,
    ),
    define(
        "HS63", lambda a, b, c: 1000 - a**2 - 2 * b**2 - c**2 - a * b - a * c, [2] * 3, 961.7151721,
        h=lambda a, b, c: (8 * a + 14 * b + 7 * c - 56, a**2 + b**2 + c**2 - 25), low=0,
    ),
    define(
        "HS64", lambda a, b, c: 5 * a + 50000 / a + 20 * b + 72000 / b + 10 * c + 144000 / c, [1] * 3, 6299.842428,
        g=lambda a, b, c: 4 / a + 32 / b + 120 / c - 1, low=1e-5,
    ),
    define(
        "HS65", lambda a, b, c: (a - b) ** 2 + (a + b - 10) ** 2 / 9 + (c - 5) ** 2, [-5, 5, 0], 0.9535288567,
        g=lambda a, b, c: a**2 + b**2 + c**2 - 48, low=[-4.5, -4.5, -5], high=[4.5, 4.5, 5],
    ),
    define(
        "HS66", lambda a, b, c: 0.2 * c - 0.8 * a, [0, 1.05, 2.9], 0.5181632741,
        g=lambda a, b, c: (torch.exp(a) - b, torch.exp(b) - c), low=0, high=[100, 100, 10],
    ),
    define(
        "HS71", lambda a, b, c, d: a * d * (a + b + c) + c, [1, 5, 5, 1], 17.0140173,
        g=lambda a, b, c, d: 25 - a * b * c * d, h=lambda a, b, c, d: a**2 + b**2 + c**2 + d**2 - 40, low=1, high=5,
    ),
    define(
        "HS72", lambda a, b, c, d: 1 + a + b + c + d, [1] * 4, 727.67937,
        g=lambda a, b, c, d: (
            4 / a + 2.25 / b + 1 / c + 0.25 / d - 0.0401, 0.16 / a + 0.36 / b + 0.64 / c + 0.64 / d - 0.010085,
        ),
        low=0.001, high=[4e5, 3e5, 2e5, 1e5],
    ),
    define(
        "HS76", lambda a, b, c, d: a**2 + b**2 / 2 + c**2 + d**2 / 2 - a * c + c * d - a - 3 * b + c - d, [0.5] * 4,
        -4.681818181,
        g=lambda a, b, c, d: (a + 2 * b + c + d - 5, 3 * a + b + 2 * c - d - 4, 1.5 - b - 4 * c), low=0,
    ),
    define(
        "HS77", lambda a, b, c, d, e: (a - 1) ** 2 + (a - b) ** 2 + (c - 1) ** 2 + (d - 1) ** 4 + (e - 1) ** 6, [2] * 5,
        0.2415051288,
        h=lambda a, b, c, d, e: (a**2 * d + torch.sin(d - e) - 2 * 2**0.5, b + c**4 * d**2 - 8 - 2**0.5),
    ),
    define(
        "HS78", lambda a, b, c, d, e: a * b * c * d * e, [-2, 1.5, 2, -1, -1], -2.91970041,
        h=lambda a, b, c, d, e: (a**2 + b**2 + c**2 + d**2 + e**2 - 10, b * c - 5 * d * e, a**3 + b**3 + 1),
    ),
    define(
        "HS79",
        lambda a, b, c, d, e: (a - 1) ** 2 + (a - b) ** 2 + (b - c) ** 2 + (c - d) ** 4 + (d - e) ** 4, [2] * 5,
        0.0787768209,
        h=lambda a, b, c, d, e: (
            a + b**2 + c**3 - 2 - 3 * 2**0.5, b - c**2 + d + 2 - 2 * 2**0.5, a * e - 2,
        ),
    ),
    define(
        "HS80", lambda a, b, c, d, e: torch.exp(a * b * c * d * e), [-2, 2, 2, -1, -1], 0.0539498478,
        h=lambda a, b, c, d, e: (a**2 + b**2 + c**2 + d**2 + e**2 - 10, b * c - 5 * d * e, a**3 + b**3 + 1),
        low=[-2.3, -2.3, -3.2, -3.2, -3.2], high=[2.3, 2.3, 3.2, 3.2, 3.2],
    ),
    define(
        "HS93",
        lambda a, b, c, d, e, f: 0.0204 * a * d * (a + b + c) + 0.0187 * b * c * (a + 1.57 * b + d)
        + 0.0607 * a * d * e**2 * (a + b + c) + 0.0437 * b * c * f**2 * (a + 1.57 * b + d),
        [5.54, 4.4, 12.02, 11.82, 0.702, 0.852], 135.075961,
        g=lambda a, b, c, d, e, f: (
            2.07 - 0.001 * a * b * c * d * e * f,
            0.00062 * a * d * e**2 * (a + b + c) + 0.00058 * b * c * f**2 * (a + 1.57 * b + d) - 1,
        ),
        low=0,
    ),
    define(
        "HS100",
        lambda a, b, c, d, e, f, g: (a - 10) ** 2 + 5 * (b - 12) ** 2 + c**4 + 3 * (d - 11) ** 2 + 10 * e**6 + 7 * f**2
        + g**4 - 4 * f * g - 10 * f - 8 * g,
        [1, 2, 0, 4, 0, 1, 1], 680.6300573,
        g=lambda a, b, c, d, e, f, g: (
            2 * a**2 + 3 * b**4 + c + 4 * d**2 + 5 * e - 127, 7 * a + 3 * b + 10 * c**2 + d - e - 282,
            23 * a + b**2 + 6 * f**2 - 8 * g - 196, 4 * a**2 + b**2 - 3 * a * b + 2 * c**2 + 5 * f - 11 * g,
        ),
    ),
    define(
        "HS106", lambda a, b, c, d, e, f, g, h: a + b + c, [5000, 5000, 5000, 200, 350, 150, 225, 425], 7049.24802,
        g=_hs106, low=[100, 1000, 1000, 10, 10, 10, 10, 10], high=[1e4] * 3 + [1e3] * 5,
    ),
    define("HS112", _hs112, [0.1] * 10, -47.76109026, h=_hs112_rows, low=1e-6, vector=True),
    define("HS113", _hs113, [2, 3, 5, 5, 1, 2, 7, 3, 6, 10], 24.3062091, g=_hs113_rows, vector=True),
    define("HS117", _hs117, [0.001] * 6 + [60] + [0.001] * 8, 32.34867897, g=_hs117_rows, low=0, vector=True),
    define(
        "HS118", _hs118, [20, 55, 15] + [20, 60, 20] * 4, 664.8204500, g=_hs118_rows,
        low=[8, 43, 3] + [0] * 12, high=[21, 57, 16] + [90, 120, 60] * 4, vector=True,
    ),
    define("TRY-B", lambda x, y: (x - 1) ** 2, [10, 10], 0.0, h=lambda x, y: (x - 1) ** 2 + (y - 10) ** 2 - 1, low=0),
    define(
        "BT8", lambda a, b, c, d, e: a**2 + b**2 + c**2, [1, 1, 1, 0, 0], 1.0,
        h=lambda a, b, c, d, e: (a - 1 - d**2 + b**2, a**2 + b**2 - 1 - e**2),
    ),
    define(
        "BT13", lambda a, b, c, d, e: e, [1] * 5, 0.0, low=[-math.inf] * 4 + [0],
        h=lambda a, b, c, d, e: a**2 + (a - 2 * b) ** 2 + (b - 3 * c) ** 2 + (c - 4 * d) ** 2 - e,
    ),
]  # fmt: skip
