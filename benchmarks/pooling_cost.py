"""What do weighting and pooling cost?  Operations, bytes and seconds over positions N, teachers K and classes V.

    python -m benchmarks.pooling_cost [--budget 0.5] [--out PATH]

Once of whole distributions, `EntropyDecay` and the arithmetic pool, and once of tables of the k most probable classes,
`pool_tables`.  Operations are counted by torch itself: numbers that each call writes; bytes are those that it reads and
writes, and those that it holds at its peak.  Exponents are slopes of logarithms, by least squares.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import safekd as kd

from ._timing import exponent, processor, report_path, time_calls, today, versions
from .projection._report import table

BASE = (512, 4, 2048, 64)  # N, K, V, k
DENSE = {"N": (128, 512, 2048), "K": (2, 4, 8, 16), "V": (512, 2048, 8192)}
TABLES = {"N": (128, 512, 2048), "K": (2, 4, 8, 16), "V": (2048, 32_768, 524_288), "k": (32, 128, 512)}
_HEAD = ["kind", "N", "K", "V", "k", "operations a position", "bytes a position", "held, bytes", "microseconds"]


@dataclass(frozen=True)
class PoolingCost:
    """What one call took: numbers written, bytes read and written, bytes held at the peak, and seconds."""

    kind: str
    N: int
    K: int
    V: int
    k: int
    operations: int
    bytes_moved: int
    bytes_held: int
    seconds: float


class CountedCalls(TorchDispatchMode):
    """Adds up what torch's own calls write and read.

    The mode stands in a private module, which is where torch documents it: there is no public name for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.bytes_moved = self.most_held = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call, and count tensors that go in and come out; views cost nothing."""
        answer = func(*args, **(kwargs or {}))
        inputs = {id(x): x for x in _list_tensors(args)}
        known = {x.untyped_storage().data_ptr() for x in inputs.values()}
        written = [x for x in _list_tensors(answer) if x.untyped_storage().data_ptr() not in known]
        if written:
            self.operations += sum(x.numel() for x in written)
            self.bytes_moved += sum(x.nbytes for x in (*written, *inputs.values()))
            self.most_held = max(self.most_held, sum(x.nbytes for x in (*written, *inputs.values())))
        return answer


def _list_tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _list_tensors(one)


def make_dense(N: int, K: int, V: int, k: int) -> Callable[[], object]:
    """Return weighting and pooling of whole distributions."""
    log_p = torch.randn(N, K, V, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    rule = kd.weights.Normalized(kd.weights.EntropyDecay())
    return lambda: kd.pooling.arithmetic_pool(log_p, rule(kd.weights.Signals(log_p=log_p)))


def make_tables(N: int, K: int, V: int, k: int) -> Callable[[], object]:
    """Return weighting and pooling of tables; their entropies are those of the table and its tail."""
    draw = torch.Generator().manual_seed(0)
    ids = _make_different(torch.randint(V, (N, K, k), generator=draw), V)
    log_p = (torch.randn(N, K, k + 1, generator=draw)).log_softmax(-1)
    kept, tail = log_p[..., :-1].contiguous(), log_p[..., -1].exp()

    def call() -> object:
        entropy = -(kept.exp() * kept).sum(-1) - tail * (tail / (V - k)).log()
        rule = kd.weights.Normalized(kd.weights.EntropyDecay())
        return kd.pooling.pool_tables(ids, kept, tail, rule(kd.weights.Signals(entropy=entropy)), V)

    return call


def _make_different(ids: torch.Tensor, V: int) -> torch.Tensor:
    """Return rising class numbers, each above the one before."""
    step = torch.arange(ids.shape[-1])
    return ((ids.sort(-1).values - step).cummax(-1).values.clamp(0, V - ids.shape[-1]) + step).long()


KINDS = {"whole": (make_dense, DENSE), "tables": (make_tables, TABLES)}


def measure(kind: str, N: int, K: int, V: int, k: int, budget: float) -> PoolingCost:
    """Count one call, then time it."""
    call = KINDS[kind][0](N, K, V, k)
    call()
    with CountedCalls() as counted:
        call()
    seconds = time_calls(call, budget).seconds
    return PoolingCost(kind, N, K, V, k, counted.operations, counted.bytes_moved, counted.most_held, seconds)


def sweep(kind: str, budget: float) -> dict[str, list[PoolingCost]]:
    """Return costs along each axis, the others at their base, which is measured once."""
    base, known = PoolingCost(kind, *BASE, 0, 0, 0, 0.0), dict[PoolingCost, PoolingCost]()
    found: dict[str, list[PoolingCost]] = {}
    for axis, sizes in KINDS[kind][1].items():
        points = [replace(base, **{axis: size}) for size in sizes]
        for point in points:
            if point not in known:
                known[point] = measure(kind, point.N, point.K, point.V, point.k, budget)
        found[axis] = [known[point] for point in points]
    return found


def fit_exponents(costs: dict[str, list[PoolingCost]], field: str) -> dict[str, float]:
    """Return the exponent of a cost along each axis."""
    return {
        axis: exponent([getattr(one, axis) for one in line], [getattr(one, field) for one in line]) or 0.0
        for axis, line in costs.items()
    }


def write_report(found: dict[str, dict[str, list[PoolingCost]]]) -> str:
    """Return the report."""
    facts = [["date", today()], ["processor", processor()], ["versions", versions(["torch"])]]
    fitted, lines = [], []
    for kind, costs in found.items():
        for field, what in (("operations", "operations"), ("bytes_moved", "bytes"), ("seconds", "seconds")):
            slopes = fit_exponents(costs, field)
            fitted.append([kind, what, *(f"{slopes[axis]:.2f}" if axis in slopes else "" for axis in "NKVk")])
        for one in dict.fromkeys(one for line in costs.values() for one in line):
            size = [str(one.N), str(one.K), str(one.V), str(one.k) if kind == "tables" else ""]
            each = [f"{one.operations / one.N:,.0f}", f"{one.bytes_moved / one.N:,.0f}"]
            lines.append([kind, *size, *each, f"{one.bytes_held:,}", f"{one.seconds * 1e6:,.0f}"])
    parts = [
        "# What do weighting and pooling cost?",
        "Written by `python -m benchmarks.pooling_cost`: `EntropyDecay` and the arithmetic pool, N positions, K "
        "teachers, V classes, float32, one thread. Whole: distributions over all classes. Its cost is proportional to "
        "N K V, with a part N V for the pool itself, as that of any exact pool must be: each of the K V probabilities "
        "of a position changes it. Tables: the k most probable classes of each teacher and a tail, pooled exactly by "
        "`kd.pooling.pool_tables`. Its cost does not grow with V; `bound_table_error` says what the tables lose.",
        "Operations are numbers that torch's calls write, bytes what they read and write, held the most that one call "
        "reads and writes. Exponents: the slope of the logarithm along each axis; seconds grow faster than operations "
        "where buffers outgrow the caches.",
        f"Operations of a position, whole: some {_describe_form(found['whole'])}.",
        table(["", ""], facts),
        table(["kind", "exponents of", "N", "K", "V", "k"], fitted),
        table(_HEAD, lines),
    ]
    return "\n\n".join(parts) + "\n"


def _describe_form(costs: dict[str, list[PoolingCost]]) -> str:
    """Return operations a position as a multiple of V: a part for each teacher, and a part of the pool."""
    first, *_, last = costs["K"]
    each = (last.operations / last.N - first.operations / first.N) / (last.V * (last.K - first.K))
    return f"({each:.0f} K + {first.operations / (first.N * first.V) - each * first.K:.0f}) V"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; return 0 where whole pools are linear in N K V and tables do not grow with V."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pooling_cost", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--budget", type=float, default=0.5, help="seconds for each point")
    parser.add_argument("--out", type=report_path, help="write the report here")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = {kind: sweep(kind, options.budget) for kind in KINDS}
    report = write_report(found)
    print(report)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
    return 0 if check(found) else 1


def check(found: dict[str, dict[str, list[PoolingCost]]]) -> bool:
    """Say whether the operations grow as they should."""
    whole = fit_exponents(found["whole"], "operations")
    return all(abs(whole[axis] - 1) < 0.3 for axis in "NKV") and fit_exponents(found["tables"], "operations")["V"] == 0


if __name__ == "__main__":
    raise SystemExit(main())
