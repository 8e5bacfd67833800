"""Calls of the library with every kind of value in every place.

Axes: N rows, K teachers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

import safekd as kd

from ._input import ACCEPTED, EITHER, REFUSED, HostileInput, project_rows_by_hand

Rng = np.random.Generator
ANYTHING: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 10**30, 0.5, -0.5, math.nan, math.inf, -math.inf, 1e300, 1e-320),
    *("x", "", b"x", [], [0.5], [[0.5]], [0.2, 0.3, 0.5], {}, {"a": 1}, {1, 2}, object(), lambda: 1, 1 + 1j),
    *(Fraction(1, 2), range(3), np.float32(0.5), np.int8(1), np.array(0.5), np.array([]), np.array(["a"])),
    *(np.array([None]), np.zeros((0, 3)), np.array([[math.nan, 0.5, 0.5]]), np.array([1, 2, 3], np.uint8)),
    *(np.array([1j]), np.array([0], "datetime64[s]"), torch.tensor(0.5), torch.tensor([]), torch.zeros(2, 3, 4)),
    *(torch.zeros(2, 3, dtype=dtype) for dtype in (torch.float64, torch.bfloat16, torch.int64, torch.bool)),
    *(torch.zeros(3, dtype=torch.complex64), torch.full((2, 3), math.nan), torch.zeros(2, 3).to_sparse()),
    *(torch.zeros(2, 3, device="meta"), torch.zeros(2, 3, requires_grad=True)),
]


def draw_api_input(rng: Rng) -> HostileInput:
    """Return one call."""
    makers = (_project_well, _project, _project, _polytope, _polytope, _rules, _constraint, _split, _certify, _bounds)
    return makers[int(rng.integers(len(makers)))](rng)


def _pick(rng: Rng) -> Any:
    return ANYTHING[int(rng.integers(len(ANYTHING)))]


def _describe(value: object) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"


def _either(story: str, call: Callable[[], object]) -> HostileInput:
    def run(folder: Path) -> str:
        call()
        return ""

    return HostileInput("api", story, EITHER, call=run)


def _conforms(w: Any, K: int, lower: float, upper: float) -> str:
    w_NK = torch.as_tensor(w).detach().double().reshape(-1, K)
    if w_NK.numel() == 0:
        return ""
    eps = 4 * K * (torch.finfo(torch.as_tensor(w).dtype).eps if torch.as_tensor(w).is_floating_point() else 1e-12)
    good = bool((w_NK >= lower - eps).all() and (w_NK <= upper + eps).all() and ((w_NK.sum(-1) - 1).abs() <= eps).all())
    return "" if good else f"rows that do not conform: {w_NK.tolist()[:3]}"


def _project_well(rng: Rng) -> HostileInput:
    """Scores of every dtype, layout and size: the answer is that of a bisection."""
    K, N = int(rng.integers(1, 9)), int(rng.integers(0, 20))
    dtype = [torch.float64, torch.float32, torch.float16, torch.bfloat16][int(rng.integers(4))]
    v_NK = torch.from_numpy(rng.normal(size=(N, K)) * 10.0 ** int(rng.integers(-3, 4))).to(dtype)
    lower, upper = float(rng.choice([0.0, 0.4 / K])), float(rng.choice([1.0, min(1.0, 1.6 / K)]))
    layout = [
        lambda v: v,
        lambda v: v.t().contiguous().t(),
        lambda v: v.numpy() if v.dtype != torch.bfloat16 else v,
        lambda v: v.tolist(),
    ]
    given = layout[int(rng.integers(4))](v_NK)

    def run(folder: Path) -> str:
        w = kd.project(given, kd.WeightPolytope(K, lower=lower, upper=upper))
        if N == 0:
            return ""
        off = abs(torch.as_tensor(w).double().numpy() - project_rows_by_hand(v_NK.double().numpy(), lower, upper)).max()
        worst = 1e-9 if dtype == torch.float64 else 4 * torch.finfo(dtype).eps * max(1.0, float(v_NK.abs().max()))
        return "" if off <= worst else f"weights are off by {off}"

    return HostileInput(
        "api", f"project {N} x {K} of {dtype}", ACCEPTED if N and not isinstance(given, list) else EITHER, call=run
    )


def _project(rng: Rng) -> HostileInput:
    P, given = kd.WeightPolytope(3, lower=0.1, upper=0.6), _pick(rng)
    name = str(rng.choice(["v", "lower", "upper", "safety", "critical", "metric", "engine"]))
    good = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0]], dtype=torch.float64)
    arguments = {"v": good} | {name: given}

    def run(folder: Path) -> str:
        w = kd.project(arguments.pop("v"), P, **arguments)
        return _conforms(w, 3, 0.0, 1.0)

    return HostileInput("api", f"project({name}={_describe(given)})", EITHER, call=run)


def _polytope(rng: Rng) -> HostileInput:
    name = str(rng.choice(["n_teachers", "lower", "upper", "orderings", "margin", "linear", "ties"]))
    given: Any = _pick(rng)
    if name == "orderings" and rng.random() < 0.5:
        given = [(int(i), int(j)) for i, j in rng.integers(-1, 5, (int(rng.integers(1, 6)), 2))]
    if name == "linear" and rng.random() < 0.5:
        given = {str(rng.choice(["A", "b", "C", "x"])): _pick(rng), "b": [0.5]}

    def run(folder: Path) -> str:
        P = kd.WeightPolytope(**{"n_teachers": 3, name: given})
        if P.n_teachers > 100:
            return ""
        return _conforms(kd.project(torch.rand(2, P.n_teachers, dtype=torch.float64), P), P.n_teachers, 0.0, 1.0)

    return HostileInput("api", f"WeightPolytope({name}={_describe(given)})", EITHER, call=run)


def _rules(rng: Rng) -> HostileInput:
    """Rules as a mapping: what a TOML file cannot say either."""
    key = str(
        rng.choice(
            ["teachers", "lower", "upper", "order", "margin", "ties", "metric", "linear", "critical_column", "z", ""]
        )
    )
    given = _pick(rng)

    def run(folder: Path) -> str:
        kd.project_file(folder / "in.csv", folder / "out.csv", {key: given})
        return _conforms(np.loadtxt(folder / "out.csv", delimiter=",", skiprows=1, ndmin=2), 3, 0.0, 1.0)

    files = {"in.csv": b"a,b,c\n0.5,0.3,0.2\n0.2,0.7,0.1\n"}
    story = f"project_file(rules={{{key!r}: {_describe(given)}}})"
    return HostileInput("api", story, EITHER, files, call=run, appears=("out.csv",))


def _constraint(rng: Rng) -> HostileInput:
    name = str(rng.choice(["name", "measure", "at_least", "exactly", "split", "worst"]))
    given = _pick(rng)
    good: dict[str, Any] = {"name": "safe", "measure": kd.safety.TruthProbability(critical=[0]), "at_least": 0.8}
    if name == "exactly":
        del good["at_least"]
    return _either(f"SafetyConstraint({name}={_describe(given)})", lambda: kd.SafetyConstraint(**{**good, name: given}))


def _split(rng: Rng) -> HostileInput:
    name = str(rng.choice(["name", "inputs", "labels", "context", "context_names"]))
    given = _pick(rng)
    good: dict[str, Any] = {"name": "train", "inputs": torch.zeros(4, 2), "labels": torch.tensor([0, 1, 0, 1])}
    return _either(f"Split({name}={_describe(given)})", lambda: kd.Split(**{**good, name: given}))


def _certify(rng: Rng) -> HostileInput:
    student, held_out = torch.nn.Linear(2, 2), kd.Split("held_out", torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
    rule = kd.SafetyConstraint("safe", kd.safety.Recall(critical=[0]), 0.8)
    name = str(rng.choice(["constraint", "confidence", "method", "correction", "weights", "largest_weight", "seed"]))
    good: dict[str, Any] = (
        {"constraint": rule, "weights": np.ones(4)} if name == "largest_weight" else {"constraint": rule}
    )
    given = _pick(rng)
    return _either(
        f"certify({name}={_describe(given)})",
        lambda: kd.certify(student, held_out=held_out, **{**good, name: given}),
    )


def _bounds(rng: Rng) -> HostileInput:
    """Bounds a row that leave no room are refused, and those that do are kept to."""
    low, high = sorted(rng.uniform(-0.2, 1.2, 2).tolist())
    room = low >= 0 and 3 * low <= 1 <= 3 * high
    clear = min(abs(low), abs(3 * low - 1), abs(3 * high - 1)) > 1e-6

    def run(folder: Path) -> str:
        w_NK = kd.project(np.array([[0.9, 0.3, -0.4]]), kd.WeightPolytope(3, lower=low, upper=high))
        return _conforms(w_NK, 3, low, high)

    wanted = EITHER if not clear else ACCEPTED if room else REFUSED
    return HostileInput("api", f"bounds {low:.3f} to {high:.3f}", wanted, call=run)
