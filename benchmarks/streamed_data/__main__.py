"""Does memory stay constant while ten million examples stream, and does such a run survive being killed?

    python -m benchmarks.streamed_data [--examples 10000000] [--parquet]
    python -m benchmarks.streamed_data --kill [--examples 10000000] [--out docs/benchmarks/streamed_data.md]

The first prints resident memory after the first pass over a tenth of the examples, after the whole survey, and at the
end of an epoch of training under one constraint, beside what the examples would take in memory.  The second kills such
a run in the middle and again later, goes on with it, and compares every file with those of the run that nobody killed;
by the library on examples that are made as they are read, and by ``safekd train`` on a Parquet file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from safekd.data import StreamSource
from safekd.training.trace import Memory

from .._timing import processor, report_path, today, versions
from ..projection._report import table
from ._made_data import FEATURES, make_stream, make_trainer, write_parquet
from ._survivals import Ended, Survival, kill_command, kill_made

PLACES = (0.5, 0.75)  # shares of the steps at which a run is killed
# bytes by which ten times the examples may raise the peak: what is held up to a limit, such as keys and then a filter
# of examples that were seen, and a sample of each split, is filled on the way from one million to ten
MOST_GROWTH = 128 * 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Stream, or kill; return 1 where a run did not survive, or grew with its data."""
    given = _read(arguments)
    if not given.kill:
        print_memory(given.examples, given.rows, given.parquet)
        return 0
    small, large = ([*kill_both(count, given.rows)] for count in (given.examples // 10, given.examples))
    text = write_report(small, large, given.rows)
    print(text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    return int(not all(one.holds for one in (*small, *large)) or bool(find_growth(small, large)))


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    what = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streamed_data", description=what)
    parser.add_argument("--examples", type=int, default=10_000_000, help="how many")
    parser.add_argument("--rows", type=int, default=1024, help="of a batch")
    parser.add_argument("--parquet", action="store_true", help="from a Parquet file")
    parser.add_argument("--kill", action="store_true", help="kill runs, of so many examples and of a tenth")
    parser.add_argument("--out", type=report_path, help="write the report of killed runs here")
    return parser.parse_args(arguments)


def kill_both(examples: int, rows: int) -> Iterator[Survival]:
    """Kill a run of the library, and one of the command line.

    Args:
        examples: How many stream.
        rows: Of a batch.
    """
    every = max(1, examples // rows // 50)
    with TemporaryDirectory() as folder:
        yield kill_made(Path(folder), examples, rows, every, PLACES)
    with TemporaryDirectory() as folder:
        write_parquet(Path(folder) / "data.parquet", examples)
        yield kill_command(Path(folder), examples, rows, every, PLACES)


def find_growth(small: Sequence[Survival], large: Sequence[Survival]) -> list[str]:
    """Return in words where ten times the examples took more memory.

    Args:
        small: Runs of a tenth of the examples.
        large: The same kinds, of all.
    """
    pairs = zip(small, large, strict=True)
    grown = [(b.what, max(b.whole.peak, b.last.peak if b.last else 0) - a.whole.peak) for a, b in pairs]
    return [f"{what}: {_mib(more)} MiB more than a tenth of the examples" for what, more in grown if more > MOST_GROWTH]


def write_report(small: Sequence[Survival], large: Sequence[Survival], rows: int) -> str:
    """Return the report as Markdown.

    Args:
        small: Runs of a tenth of the examples.
        large: The same kinds, of all.
        rows: Of a batch.
    """
    lines = [_row(one) for one in (*small, *large)]
    faults = [f"- {one.what}, {one.examples:,}: {_tell_fault(one)}" for one in (*small, *large) if not one.holds]
    faults += [f"- {text}" for text in find_growth(small, large)]
    head = [
        "data",
        "examples",
        "whole, s",
        "whole, MiB",
        "killed after step",
        "last part, s",
        "last part, MiB",
        "files",
    ]
    return "\n".join(
        [
            "# Streams that are killed",
            "",
            f"`python -m benchmarks.streamed_data --kill`, {today()}, {processor()}, {versions(['torch'])}.",
            "",
            f"One epoch in batches of {rows:,}, to its end, one thread, some fifty checkpoints. Each run is killed",
            "(SIGKILL) twice, at a checkpoint of half and of three quarters of the steps, and gone on with. Memory is",
            "the resident peak that the system keeps of the dead process. Files are compared byte by byte with those",
            "of the run that nobody killed, but for readings of clock and memory: student, trace, verdict.",
            "",
            table(head, lines),
            "",
            *(
                ["Faults:", "", *faults]
                if faults
                else [
                    f"Every run ended with the same files, in memory that ten times the examples raised by at most "
                    f"{_mib(MOST_GROWTH)} MiB."
                ]
            ),
            "",
        ]
    )


def _row(one: Survival) -> list[str]:
    last = one.last or Ended(0, 0.0, 0, 0)
    return [
        one.what,
        f"{one.examples:,}",
        f"{one.whole.seconds:.0f}",
        _mib(one.whole.peak),
        ", ".join(f"{killed.step:,}" for killed in one.killed),
        f"{last.seconds:.0f}",
        _mib(last.peak),
        "differ" if one.differs else "the same",
    ]


def _tell_fault(one: Survival) -> str:
    alive = sum(not killed.killed for killed in one.killed)
    return f"{alive} kills did not happen" if alive else f"differs in {', '.join(one.differs)}"


def _mib(number: int) -> str:
    return f"{number / 2**20:,.0f}"


def print_resident(what: str, started: float) -> float:
    """Print memory and time; return the memory, MiB."""
    resident = Memory.read(torch.device("cpu")).resident / 2**20
    print(f"{what:<58} {resident:8.0f} MiB {time.perf_counter() - started:8.0f} s", flush=True)
    return resident


def print_memory(examples: int, rows: int, parquet: bool) -> None:
    """Stream, and say how much memory that took."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    print_resident("before", started)
    with TemporaryDirectory() as folder:
        if parquet:
            stream = _open_parquet(Path(folder), examples, rows)
        else:
            stream = make_stream(examples, rows)
            len(make_stream(examples // 10, rows))
            print_resident(f"a pass over {examples // 10:,} examples", started)
        print(f"{len(stream):,} examples in {stream.survey.batches:,} batches", flush=True)
        print_resident("the survey of all of them", started)
        result = make_trainer().fit(
            stream, epochs=1, on_trace=lambda point: print_resident(f"step {point.step:,}", started)
        )
    print_resident("the end", started)
    print(f"in memory they would take {examples * (FEATURES * 4 + 8) / 2**20:,.0f} MiB; {result.status}")
    print(result.message)


def _open_parquet(folder: Path, examples: int, rows: int) -> StreamSource:
    from safekd.experiment import _parquet_examples
    from safekd.experiment.config import DataConfig

    started = time.perf_counter()
    write_parquet(folder / "data.parquet", examples)
    print_resident("a Parquet file is written", started)
    config = DataConfig(source="data.parquet", label="label")
    survey = _parquet_examples.survey_parquet(config, folder / "data.parquet", seed=0)
    print_resident("classes, means and samples are read", started)
    return survey.stream(rows, seed=0)


if __name__ == "__main__":
    raise SystemExit(main())
