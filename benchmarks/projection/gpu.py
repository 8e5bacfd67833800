"""How close does the projection on a GPU come to copying its rows?

    python -m benchmarks.projection.gpu [--rows N] [--out docs/benchmarks/projection_gpu.md]

The kernels read each number once and write each once, so a plain ``copy_`` of the same rows is the best that memory
allows.  Each line measures both, and the tensor operations that serve where Triton is missing, by CUDA events in one
run.  Prints a Markdown report; with ``--out`` also writes it.  Without a CUDA device it says so and exits with 2.
Asserts nothing about time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers import WeightPolytope, project
from solvers.projection._projection_orders import RowOrder, make_own_order
from solvers.projection._projection_plan import find_exact_order
from solvers.projection.exact._torch_rows import project_by_operations, project_on_device
from solvers.projection.exact.gpu._triton_launch import can_use_triton, pull_back_on_triton

from .._timing import report_path, today
from ._cases import case_of
from ._report import number, table

GOAL = 0.6  # of the bandwidth of a copy
_NUMBERS = 1 << 27  # in a batch: 2^24 rows of 8
_REPEATS = 20
_OPERATIONS_SHARE = 16  # tensor operations get a 16th of the rows, or their temporaries would take minutes


@dataclass(frozen=True)
class Line:
    """One measurement.

    seconds, copy, operations: of ours, of a copy of the rows, of tensor operations, for B rows each.
    moved, copied: bytes that ours and the copy read and write.
    """

    case: str
    K: int
    dtype: str
    mode: str
    B: int
    seconds: float
    copy: float
    operations: float | None
    moved: int
    copied: int

    @property
    def share(self) -> float:
        """Bandwidth of ours as a part of the copy's."""
        return (self.moved / self.seconds) / (self.copied / self.copy)


@dataclass(frozen=True)
class Problem:
    """Rows on the device, and the rules for them."""

    name: str
    v_BK: Tensor
    polytope: WeightPolytope
    order: RowOrder
    kl: bool

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound, as numbers of the scores' dtype."""
        ends = self.polytope.lower[0], self.polytope.upper[0]
        return tuple(float(torch.tensor(end, dtype=self.v_BK.dtype)) for end in ends)  # type: ignore[return-value]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = _read(arguments)
    if not torch.cuda.is_available():
        print(
            "No CUDA device is at hand, so there is nothing to measure; run this on a machine with one.",
            file=sys.stderr,
        )
        return 2
    if not can_use_triton(torch.ones(1, 8, device="cuda")):
        print(
            "Triton is missing or does not work here, so the kernels cannot run: pip install triton.", file=sys.stderr
        )
        return 2
    lines = []
    for problem in problems(options.rows):
        for line in measure(problem):
            lines.append(line)
            print(f"{line.case}, K={line.K}, {line.dtype}, {line.mode}: {line.share:.0%} of a copy", file=sys.stderr)
    report = markdown(lines, facts())
    print(report)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
    return 0


def _give_up(why: str) -> int:
    print(why, file=sys.stderr)
    return 2


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.projection.gpu", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--rows", type=int, default=_NUMBERS // 8, help="rows of 8 teachers; others get as many numbers"
    )
    parser.add_argument("--out", type=report_path, help="write the report here")
    return parser.parse_args(arguments)


def problems(rows: int) -> Iterator[Problem]:
    """Yield what is measured, one problem in memory at a time."""
    for name in ("chain", "bounds", "tiers", "chain, kl"):
        yield problem_of(name, 8, torch.float32, rows)
    for K in (2, 4, 16):
        yield problem_of("chain", K, torch.float32, rows * 8 // K)
    for name in ("chain", "bounds"):
        yield problem_of(name, 8, torch.float64, rows)


def problem_of(name: str, K: int, dtype: torch.dtype, rows: int, device: str = "cuda") -> Problem:
    """Return one of the cases of ``benchmarks/projection/_cases.py``, or "tiers": each row ranked by scores of its own
    in 0, 1, 2.
    """
    case = case_of("bounds" if name == "tiers" else name.removesuffix(", kl"), K)
    generator = torch.Generator(device).manual_seed(K)
    v_BK = torch.randn(rows, K, generator=generator, device=device, dtype=dtype).mul_(case.spread / K).add_(1 / K)
    kl = name.endswith("kl")
    order = find_exact_order(case.polytope)
    if name == "tiers":
        order = make_own_order(torch.randint(0, 3, (rows, K), generator=generator, device=device).double())
    assert order is not None
    return Problem(name, v_BK.exp_() if kl else v_BK, case.polytope, order, kl)


def measure(problem: Problem) -> Iterator[Line]:
    """Yield forward, forward with labels, backward, and the front door where it has nothing to add."""
    v_BK, order, kl, (low, high) = problem.v_BK, problem.order, problem.kl, problem.bounds
    few_BK, few = v_BK[: len(v_BK) // _OPERATIONS_SHARE], order
    if len(order.tier_RK) > 1:
        few = make_own_order(order.tier_RK[: len(few_BK)])
    w_BK, block_BK = project_on_device(v_BK, order, low, high, kl)
    copy = seconds(lambda: w_BK.copy_(v_BK))
    w_BK = project_on_device(v_BK, order, low, high, kl)[0]
    operations = seconds(lambda: project_by_operations(few_BK, few, low, high, kl), 3) * len(v_BK) / len(few_BK)
    size, ranks = _bytes(v_BK), _bytes(order.tier_RK) if len(order.tier_RK) > 1 else 0
    labels = 0 if block_BK.stride(0) == 0 else _bytes(block_BK)

    def line(mode: str, moved: int, call: Callable[[], object], beside: float | None = None) -> Line:
        dtype = str(v_BK.dtype).removeprefix("torch.")
        return Line(problem.name, v_BK.shape[1], dtype, mode, len(v_BK), seconds(call), copy, beside, moved, 2 * size)

    yield line("forward", 2 * size + ranks, lambda: project_on_device(v_BK, order, low, high, kl, False), operations)
    yield line("forward, labels", 2 * size + ranks + labels, lambda: project_on_device(v_BK, order, low, high, kl))
    moved = (4 if kl else 3) * size + labels
    yield line("backward", moved, lambda: pull_back_on_triton(v_BK, v_BK, w_BK, block_BK, low, high, kl))
    if not ranks:
        metric = "kl" if kl else "euclidean"
        yield line("project()", 2 * size, lambda: project(v_BK, problem.polytope, metric=metric, check_finite=False))


def seconds(call: Callable[[], object], repeats: int = _REPEATS) -> float:
    """Return the median time of one call on the device, after warm-up."""
    call()
    times = []
    for _ in range(repeats):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    return statistics.median(times)


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def facts() -> dict[str, str]:
    """Return what a reader needs to judge the numbers."""
    import triton

    return {
        "date": today(),
        "device": torch.cuda.get_device_name(),
        "versions": f"torch {torch.__version__}, triton {triton.__version__}",
    }


def markdown(lines: Sequence[Line], known: dict[str, str]) -> str:
    """Return the report."""
    goal = [line for line in lines if (line.case, line.K, line.dtype, line.mode) == ("chain", 8, "float32", "forward")]
    verdicts = [
        f"Goal: at least {GOAL:.0%} of the bandwidth of a copy, chain, K = 8, float32, forward. "
        f"Measured: {line.share:.0%}, {'met' if line.share >= GOAL else 'MISSED'}."
        for line in goal
    ]
    rows = [
        [
            line.case,
            str(line.K),
            line.dtype,
            line.mode,
            f"{line.B:,}",
            number(line.seconds * 1e3),
            number(line.moved / line.seconds / 1e9),
            number(line.copied / line.copy / 1e9),
            f"{line.share:.0%}",
            "" if line.operations is None else f"{number(line.operations / line.seconds)}x",
        ]
        for line in lines
    ]
    head = ["case", "K", "dtype", "mode", "B", "ms", "GB/s", "copy, GB/s", "of the copy", "tensor operations"]
    parts = [
        "# Projection on a GPU: ours beside a plain copy",
        "Written by `python -m benchmarks.projection.gpu`. Cases as `benchmarks/projection/_cases.py` states them; "
        "*tiers*: each row ranked by scores of its own, float64, which are read as well. Medians of CUDA events after "
        "warm-up. GB/s: bytes that have to be read and written, over the time. Last column: how many times as long "
        "tensor operations take.",
        table(["", ""], [[name, fact] for name, fact in known.items()]),
        *verdicts,
        table(head, rows),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
