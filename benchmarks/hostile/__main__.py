"""Does any input bring a traceback, a hang, an abort, a lost file, or a wrong value that is accepted?

    python -m benchmarks.hostile [--inputs 20000] [--seed 0] [--kind cache] [--shells 50] [--out report.md]
    python -m benchmarks.hostile --seed 0 --only 1234       # one input again, with what came of it

Inputs are drawn by seed and number: CSV and Parquet files of weights, rule sets and experiment files, calls of the
library, tables of stored teachers, folders of runs, sweeps and teacher caches, frontiers, paths that lead to no file.
Each knows what it must lead to.  They run in a process that is started anew when an input kills it; some run
in shells of their own too.  The exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from .._timing import processor, report_path, today, versions
from ..projection._report import table
from ._judge import KINDS, SECONDS, compare_with_a_shell, draw_input, judge_input, warm_up

PACKAGES = ("numpy", "pandas", "pyarrow", "torch", "scikit-learn", "rich", "typer")
_SILENCE = 180.0  # seconds after which an input hangs, on a machine that others use too

_FAULTS = """\
A fault is a traceback, an exception that is not safekd's own, a hang, an abort, a file that was lost, changed or left
behind, code in a file that ran, more than a gibibyte of memory, a refusal that does not name its file, a value accepted
that is wrong by what the input's author knows of it, an input refused that is right or accepted that is wrong, or a
character printed that a terminal obeys."""


@dataclass
class Tally:
    """What came of all inputs."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    memory: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, record: dict[str, Any]) -> None:
        """Count one input."""
        self.outcomes[record["kind"]][record["outcome"]] += 1
        self.outcomes[record["kind"]]["faulty"] += bool(record["faults"])
        for most, name in ((self.seconds, "seconds"), (self.memory, "memory")):
            most[record["kind"]] = max(most[record["kind"]], record.get(name, 0))
        place = f"{record['number']}, {record['kind']}, {record['story']!r}"
        self.faults += [f"{place}: {fault}" for fault in record["faults"]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, run, judge; print and write; return the exit status."""
    options = _read(arguments)
    if options.only is not None:
        options.start, options.inputs = options.only, options.only + 1
        return _work(options, chatty=True)
    if options.worker:
        return _work(options)
    start, tally = perf_counter(), Tally()
    for done, record in enumerate(_run_workers(options), 1):
        tally.add(record)
        for fault in record["faults"]:
            print(f"{record['number']}, {record['kind']}, {record['story']}: {fault}", file=sys.stderr, flush=True)
        if done % 500 == 0:
            print(f"{done} of {options.inputs}", file=sys.stderr, flush=True)
    shells = _compare_shells(options, tally)
    report = write_report(tally, options, shells, perf_counter() - start)
    print(report)
    if options.out is not None:
        options.out.write_text(report, encoding="utf-8")
    return 1 if tally.faults else 0


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--inputs", "--cases", type=int, default=20_000, help="how many")
    add("--seed", type=int, default=0, help="another seed, other inputs")
    add("--shells", type=int, default=50, help="how many run in a shell of their own too")
    add("--only", type=int, help="the number of one input: run it alone")
    add("--kind", choices=list(KINDS), help="inputs of one kind alone")
    add("--out", type=report_path, help="write the report here")
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    add("--start", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _work(options: argparse.Namespace, chatty: bool = False) -> int:
    """Run inputs one after the other, saying on the standard output which one begins and what came of it."""
    faulty = 0
    for step in warm_up():
        print(step, flush=True)  # a sign of life
    for number in range(options.start, options.inputs):
        one = draw_input(options.seed, number, options.kind)
        record: dict[str, Any] = {"number": number, "kind": one.kind, "story": one.story}
        _say({**record, "outcome": "begun"})
        with tempfile.TemporaryDirectory(prefix="hostile-") as name:
            judged = judge_input(one, Path(name), SECONDS)
        taken = {"seconds": judged.seconds, "memory": judged.memory}
        _say({**record, **taken, "outcome": judged.outcome, "faults": judged.faults})
        faulty += bool(judged.faults)
        if chatty:
            print("safekd", *one.arguments, f"(wanted: {one.wanted})")
            print(*(f"--- {name}\n{data[:2000]!r}" for name, data in one.files.items()), sep="\n")
    return 1 if faulty and chatty else 0


def _say(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def _run_workers(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what came of each input, of those that killed or stopped their process too."""
    start = 0
    while start < options.inputs:
        bounds = ["--start", str(start), "--inputs", str(options.inputs), "--seed", str(options.seed)]
        bounds += ["--kind", options.kind] if options.kind else []
        command = [sys.executable, "-m", "benchmarks.hostile", "--worker", *bounds]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            begun: dict[str, Any] | None = None
            for line in _read_lines(process):
                if not line.startswith("{"):
                    continue  # of a library that prints
                record = json.loads(line)
                if record["outcome"] == "begun":
                    begun = record
                    continue
                begun, start = None, record["number"] + 1
                yield record
            silent = process.poll() is None
            if silent:
                process.kill()
        if begun is None and start < options.inputs:
            begun = {"number": start, "kind": "csv", "story": "the process ended between two inputs"}
        if begun is not None:
            end = f"hung for {_SILENCE:.0f} seconds" if silent else f"killed its process: {process.returncode}"
            yield {**begun, "outcome": "no outcome", "faults": [end]}
            start = begun["number"] + 1


def _read_lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield lines until the process ends or is silent for too long."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=_SILENCE)
        except queue.Empty:
            return
        if line is None:
            process.wait()
            return
        yield line


def _compare_shells(options: argparse.Namespace, tally: Tally) -> int:
    """Run some inputs in shells of their own; return how many."""
    done = 0
    for number in range(options.inputs):
        if done >= options.shells:
            break
        one = draw_input(options.seed, number * 7919 % options.inputs, options.kind)
        if not one.arguments:
            continue
        done += 1
        with tempfile.TemporaryDirectory(prefix="here-") as here, tempfile.TemporaryDirectory(prefix="there-") as there:
            faults = compare_with_a_shell(one, Path(here), Path(there))
        tally.faults += [f"{number * 7919 % options.inputs}, {one.kind}, {one.story!r}: {fault}" for fault in faults]
    return done


def write_report(tally: Tally, options: argparse.Namespace, shells: int, seconds: float) -> str:
    """Return what was found, as Markdown."""
    head = ["kind", "inputs", "accepted", "refused", "faulty", "slowest, s", "most memory, MiB"]
    rows = []
    for kind in KINDS:
        counts = tally.outcomes[kind]
        outcomes = [counts["accepted"], counts["refused"]]
        took = [f"{tally.seconds[kind]:.1f}", str(tally.memory[kind] >> 20)]
        count = sum(counts.values()) - counts["faulty"]
        if options.kind in (None, kind):
            rows.append([kind, str(count), *map(str, outcomes), str(counts["faulty"]), *took])
    faults = "\n".join(f"- {fault}" for fault in tally.faults[:100]) or "None."
    command = f"python -m benchmarks.hostile --inputs {options.inputs} --seed {options.seed}"
    command += f" --kind {options.kind}" if options.kind else ""
    facts = f"{shells} of them in shells of their own too; {seconds / 60:.0f} minutes on {processor()}"
    return (
        f"# Hostile inputs\n\n`{command}`, {today()}; {facts}; {versions(PACKAGES)}.\n\n{_FAULTS}\n\n"
        f"{table(head, rows)}\n\n## Faults\n\n{faults}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
