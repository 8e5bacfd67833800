"""What do several processes cost?  Bytes that a step sends, and the share of the all-reduce in it, on two gloo ranks.

    python -m benchmarks.ranks [--steps 60] [--out PATH]

Two processes of this machine, one thread each, talk over the loopback device.  The vector is timed alone, for 1 to
10,000 constraints of one group each; then DistributedDataParallel trains with three of them, and a step is timed from
one optimizer step to the next.  Readings of multiplier scales, at steps 1, 2, 4, 8, ..., do not move the median.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from safekd import ConstrainedTrainer, SafetyConstraint, Split
from safekd.distributed import Ranks, join_ranks
from safekd.safety import TruthProbability
from safekd.teachers import StoredTeacher
from safekd.training import SumLayout

from ._timing import processor, report_path, today, versions
from .projection._report import table

RANKS, FEATURES, CLASSES, BATCH, EXAMPLES = 2, 64, 10, 256, 2048
COUNTS = (1, 10, 100, 1000, 10_000)
_BESIDE = 3  # numbers that travel with every vector: two requests, and whether a rank failed
_NUMBERS = 3  # loss, positions and examples


def count_bytes(constraints: int) -> int:
    """Return what one rank puts into the all-reduce of a step, for constraints of one group each."""
    rules = [SafetyConstraint("any", TruthProbability([0]), 0.5)] * constraints
    return 8 * (SumLayout(_NUMBERS, rules).length + _BESIDE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print or write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps of the timed run")
    parser.add_argument("--out", type=report_path, help="file of the report; printed if left out")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return _work(Path(options.worker), options.steps)
    text = markdown(measure(options.steps))
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text, encoding="utf-8")
    return 0


def measure(steps: int) -> dict[str, Any]:
    """Return what two processes measured."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    shared = {"WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.ranks", "--worker", folder, "--steps", str(steps)]
        workers = [
            subprocess.Popen(command, env={**os.environ, **shared, "RANK": str(r), "LOCAL_RANK": str(r)})
            for r in range(RANKS)
        ]
        codes = [worker.wait() for worker in workers]
        if any(codes):
            raise RuntimeError(f"the processes ended with {codes}")
        found: dict[str, Any] = json.loads((Path(folder) / "found.json").read_text())
    return found


def _work(folder: Path, steps: int) -> int:
    torch.set_num_threads(1)
    with join_ranks() as ranks:
        seconds = {}
        for constraints in COUNTS:
            length = count_bytes(constraints) // 8 - _BESIDE
            vector = torch.ones(length, dtype=torch.float64)
            seconds[str(constraints)] = _time(lambda vector=vector, length=length: ranks.add_up(lambda: vector, length))  # type: ignore[misc]
        found = {"seconds": seconds, **_time_steps(ranks, steps)}
    if ranks.is_first:
        (folder / "found.json").write_text(json.dumps(found))
    return 0


def _time(call: Callable[[], object], times: int = 240) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[times // 6 :])


def _time_steps(ranks: Ranks, steps: int) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(EXAMPLES, FEATURES, generator=draw)
    labels = torch.randint(CLASSES, (EXAMPLES,), generator=draw)
    rows = torch.softmax(torch.randn(EXAMPLES, CLASSES, generator=draw), -1)
    torch.manual_seed(0)
    layers = [nn.Linear(FEATURES, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, CLASSES)]
    student = nn.parallel.DistributedDataParallel(nn.Sequential(*layers))
    at: list[float] = []
    handle = register_optimizer_step_post_hook(lambda *_: at.append(time.perf_counter()))
    trainer = ConstrainedTrainer(
        student,
        [StoredTeacher("random", rows)],
        constraints=[SafetyConstraint(f"class {c}", TruthProbability([c]), 0.2) for c in range(3)],
        optimizer=torch.optim.Adam(student.parameters(), lr=1e-3),
        batch_size=BATCH,
    )
    trainer.fit(Split("train", inputs, labels), epochs=-(-steps * BATCH // EXAMPLES), trace_every=10**6)
    handle.remove()
    size = sum(p.numel() for p in student.parameters())
    step = statistics.median(b - a for a, b in pairwise(at))
    return {"step": step, "alone": _time_vector(ranks, 3), "parameters": size}


def _time_vector(ranks: Ranks, constraints: int) -> float:
    length = count_bytes(constraints) // 8 - _BESIDE
    vector = torch.ones(length, dtype=torch.float64)
    return _time(lambda: ranks.add_up(lambda: vector, length))


def markdown(found: dict[str, Any]) -> str:
    """Return the report."""
    facts = [["date", today()], ["processor", f"{processor()}, one thread a rank"], ["versions", versions(["torch"])]]
    sent = [[f"{M:,}", f"{count_bytes(M):,}", f"{1e3 * found['seconds'][str(M)]:.2f}"] for M in COUNTS]
    gradient = 4 * found["parameters"]
    share = found["alone"] / found["step"]
    parts = [
        "# What do several processes cost?",
        f"Written by `python -m benchmarks.ranks`: {RANKS} processes, gloo over the loopback device.",
        table(["", ""], facts),
        table(["constraints, one group each", "bytes a step", "all-reduce alone, ms"], sent),
        f"A student of {found['parameters']:,} parameters in DistributedDataParallel, {BATCH} examples a step, three "
        f"constraints: {1e3 * found['step']:.2f} ms a step, of which the vector of {count_bytes(3)} bytes is "
        f"{1e3 * found['alone']:.2f} ms, {share:.1%}. Its gradients are {gradient:,} bytes.",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
