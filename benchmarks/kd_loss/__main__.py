"""What does distillation over a vocabulary take?  Seconds and memory beside plain torch, TRL and Liger.

    python -m benchmarks.kd_loss [--full] [--rounds 3] [--threads N] [--out PATH]

By default N = 1,024 positions, V = 49,152 tokens, H = 576, one and three teachers, off and on weights that learn:
minutes.  ``--full`` takes K in {1, 2, 4, 8}, V in {32k, 49k, 128k}, N in {512, 2048, 8192}: hours.  Contenders take
turns, so that a slow minute of the machine slows all; of each the least seconds count, and the largest peak.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence

import torch

from .._timing import ChildDied, in_child, processor, report_path, today, versions
from ._cells import Cost, measure
from ._contenders import Size, read_self_distances
from ._report import write_report

_PATIENCE = 1800.0  # seconds between two calls
_SHIFTS = (0.0, -10.0, -20.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; return 1 where a goal is missed."""
    options = _read(arguments)
    costs = list(_run_all(options))
    threads = options.threads or torch.get_num_threads()
    facts = f"{today()}; {processor()}, {threads} threads; {versions(['torch', 'trl', 'liger-kernel'])}."
    report, missed = write_report(costs, read_self_distances(_SHIFTS), facts, by_processor=threads == 1)
    print(report)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
    return int(bool(missed))


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kd_loss", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--full", action="store_true", help="the whole grid, hours")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender is timed")
    parser.add_argument("--threads", type=int, help="threads of torch; as many as it takes by itself if left out")
    parser.add_argument("--positions", type=int, default=1024, help="N, without --full")
    parser.add_argument("--vocabulary", type=int, default=49_152, help="V, without --full")
    parser.add_argument("--width", type=int, default=576, help="H")
    parser.add_argument("--out", type=report_path, help="write the report here")
    return parser.parse_args(arguments)


def list_sizes(full: bool, N: int, V: int, H: int) -> list[Size]:
    """Return the sizes that are measured."""
    if not full:
        return [Size(K, V, N, H, learned) for K, learned in itertools.product((1, 3), (False, True))]
    grid = itertools.product((1, 2, 4, 8), (32_768, 49_152, 131_072), (512, 2048, 8192), (False, True))
    return [Size(K, V, N, H, learned) for K, V, N, learned in grid]


def _run_all(options: argparse.Namespace) -> Iterator[Cost]:
    for size in list_sizes(options.full, options.positions, options.vocabulary, options.width):
        with_rule = not size.learned and size.K > 1
        try:
            for cost in in_child(measure, size, options.rounds, options.threads, with_rule, patience=_PATIENCE):
                what = cost.note or f"{cost.seconds:.2f} s, {(cost.bytes or 0) / 2**20:.0f} MiB"
                print(f"{cost.size} {cost.way}: {what}", flush=True)
                yield cost
        except ChildDied as error:
            print(f"{size}: {error}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
