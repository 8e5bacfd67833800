"""How long does a file of weights take, beside pandas reading and writing the same file?

    python -m benchmarks.files [--rows 10000000] [--teachers 4] [--rounds 3] [--out docs/benchmarks/files.md]

Contenders take turns on one file, each time in a process of its own, whose clock starts after its imports and a warm-up
on a hundred rows: ``pandas.read_csv`` and ``to_csv`` with nothing in between; ``project_file`` on CSV and on Parquet;
``audit_file``.  Every projected file is judged to the last bit before its time counts.  Asserts nothing about time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ._timing import in_child, processor, report_path, resident_peak, today, versions

_CHUNK = 1 << 18  # rows drawn at a time
_WARM_UP = 100  # rows


@dataclass(frozen=True)
class Run:
    """One contender, once: seconds, and the process's resident bytes at the peak, imports included."""

    contender: str
    seconds: float
    peak: int | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, take turns, print, write; 1 if a projected file does not conform."""
    options = _read(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        place = Path(folder)
        for rows, name in ((options.rows, "weights"), (_WARM_UP, "few")):
            draw(place / name, rows, options.teachers, seed=0)
        size = (place / "weights.csv").stat().st_size
        runs = [run for _ in range(options.rounds) for who in CONTENDERS for run in _one(who, place, options.teachers)]
        faults = [name for name in ("projected.csv", "projected.parquet") if not conforms(place / name, options)]
    report = markdown(runs, faults, facts(options, size))
    print(report)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
    return 1 if faults else 0


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--rows", type=int, default=10_000_000)
    add("--teachers", type=int, default=4)
    add("--rounds", type=int, default=3, help="turns that each contender takes; the median counts")
    add(
        "--folder", type=Path, help="where to put the files while it runs, some gigabytes; the system's own if left out"
    )
    add("--out", type=report_path, help="write the report here")
    return parser.parse_args(arguments)


def draw(path: Path, rows: int, teachers: int, seed: int) -> None:
    """Write random weights, beside a number and a text in each row, as ``path``.csv and ``path``.parquet."""
    random = np.random.default_rng(seed)
    names = _names(teachers)
    fields = [("id", pa.int64()), *((name, pa.float64()) for name in names), ("context", pa.string())]
    schema = pa.schema(fields)
    plain = pa.csv.WriteOptions(quoting_style="none")
    with (
        pa.csv.CSVWriter(path.with_suffix(".csv"), schema, write_options=plain) as as_csv,
        pq.ParquetWriter(path.with_suffix(".parquet"), schema) as as_parquet,
    ):
        for start in range(0, rows, _CHUNK):
            count = min(_CHUNK, rows - start)
            w_NK = random.dirichlet(np.ones(teachers), count)
            words = pa.array(["ward", "emergency"]).take(pa.array(random.integers(0, 2, count)))
            batch = pa.record_batch([pa.array(np.arange(start, start + count)), *w_NK.T.copy(), words], schema=schema)
            as_csv.write(batch)
            as_parquet.write(batch)


def _names(teachers: int) -> list[str]:
    return [f"teacher_{k}" for k in range(teachers)]


def _rules(teachers: int) -> dict[str, object]:
    """Bounds that bind often, and a chain through all teachers."""
    names = _names(teachers)
    return {"teachers": names, "lower": 0.2 / teachers, "upper": 2.4 / teachers, "order": [">=".join(names)]}


def _by_pandas(folder: Path, name: str, teachers: int) -> None:
    import pandas as pd

    pd.read_csv(folder / f"{name}.csv").to_csv(folder / "pandas.csv", index=False)


def _projected(suffix: str) -> Callable[[Path, str, int], None]:
    def run(folder: Path, name: str, teachers: int) -> None:
        from safekd.weight_files import project_file

        project_file(folder / f"{name}{suffix}", folder / f"projected{suffix}", _rules(teachers))

    return run


def _audited(folder: Path, name: str, teachers: int) -> None:
    from safekd.weight_files import audit_file

    audit_file(folder / f"{name}.csv", _rules(teachers))


PANDAS = "pandas read_csv + to_csv"
CONTENDERS: dict[str, Callable[[Path, str, int], None]] = {
    PANDAS: _by_pandas,
    "safekd project, CSV": _projected(".csv"),
    "safekd project, Parquet": _projected(".parquet"),
    "safekd audit, CSV": _audited,
}


def _one(who: str, folder: Path, teachers: int) -> Iterator[Run]:
    for seconds, peak in in_child(_timed, who, folder, teachers, patience=3600):
        print(f"{who}: {seconds:.1f} s", file=sys.stderr, flush=True)
        yield Run(who, seconds, peak)


def _timed(who: str, folder: Path, teachers: int) -> Iterator[tuple[float, int | None]]:
    call = CONTENDERS[who]
    call(folder, "few", teachers)
    start = perf_counter()
    call(folder, "weights", teachers)
    yield perf_counter() - start, resident_peak()


def conforms(path: Path, options: argparse.Namespace) -> bool:
    """Tell whether a projected file has all its rows and every rule holds in each of them, bounds and order exactly."""
    from safekd.weight_files import audit_file

    report = audit_file(path, _rules(options.teachers))
    return report.holds() and report["III.5"].judged == options.rows


def facts(options: argparse.Namespace, size: int) -> dict[str, str]:
    """Return what a reader needs to repeat the run."""
    return {
        "date": today(),
        "processor": processor(),
        "versions": versions(["pandas", "pyarrow", "numba", "numpy", "torch"]),
        "file": f"{options.rows:,} rows, {options.teachers} teachers, an id and a word; {size / 1e6:,.0f} MB as CSV",
        "rounds": str(options.rounds),
    }


_GOAL = 1.5
_MEMORY = 1 << 30


def markdown(runs: Sequence[Run], faults: Sequence[str], known: dict[str, str]) -> str:
    """Return the report."""
    from .projection._report import table  # not above: a child would hold torch while pandas is measured

    goal = next(line for line in _lines(runs) if line[0] == "safekd project, CSV")
    ratio, peak = float(goal[2]), [run.peak for run in runs if run.contender == goal[0]]
    most = max((one for one in peak if one is not None), default=None)
    verdicts = [
        f"Goal: project at most {_GOAL} times as long as pandas takes: {goal[2]}, {_met(ratio <= _GOAL)}.",
        f"Goal: peak memory below 1 GiB: {_memory(most)}, {_met(most is not None and most < _MEMORY)}.",
        f"Files that do not conform: {', '.join(faults)}." if faults else "Every projected row conforms.",
    ]
    parts = [
        "# Files of weights: ours beside pandas",
        "Written by `python -m benchmarks.files`. Contenders take turns, each in a fresh process whose clock starts "
        "after imports and a warm-up on a hundred rows (kernels are compiled once an installation). Medians of rounds; "
        "in brackets, the fastest and the slowest. Peak memory is that of the whole process, libraries included, "
        "the largest of its rounds. pandas reads the CSV file and writes it again, with nothing in between.",
        table(["", ""], [[name, fact] for name, fact in known.items()]),
        "\n".join(f"- {verdict}" for verdict in verdicts),
        table(["", "seconds", "times pandas", "peak memory"], _lines(runs)),
    ]
    return "\n\n".join(parts) + "\n"


def _met(met: bool) -> str:
    return "met" if met else "MISSED"


def _memory(peak: int | None) -> str:
    return "unknown" if peak is None else f"{peak / 2**20:,.0f} MiB"


def _lines(runs: Sequence[Run]) -> list[list[str]]:
    from .projection._report import number

    seconds = {who: [run.seconds for run in runs if run.contender == who] for who in CONTENDERS}
    lines = []
    for who, times in seconds.items():
        median = statistics.median(times)
        peaks = [run.peak for run in runs if run.contender == who and run.peak is not None]
        spread = f"{median:.3g} ({min(times):.3g} to {max(times):.3g})"
        ratio = number(median / statistics.median(seconds[PANDAS]))
        lines.append([who, spread, ratio, _memory(max(peaks, default=None))])
    return lines


if __name__ == "__main__":
    sys.exit(main())
