"""What does the base install weigh, and how long does a command line wait for its imports?

    python -m benchmarks.install [--rounds 5] [--out PATH]

Run it in an environment in which safekd was installed without extras; what else is there is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from ._timing import processor, report_path, today, versions

CALLS = {
    "python -c pass": ["-c", "pass"],
    "import safekd": ["-c", "import safekd"],
    "safekd --version": ["-m", "safekd", "--version"],
    "safekd --help": ["-m", "safekd", "--help"],
    "import torch": ["-c", "import torch"],
    "safekd.project": ["-c", "import safekd; safekd.project"],
    "safekd.ConstrainedTrainer": ["-c", "import safekd; safekd.ConstrainedTrainer"],
}
NEEDED_FOR = {
    "torch": "students, gradients",
    "numpy": "rows of numbers",
    "scipy": "feasibility, exact bounds",
    "pandas": "tables",
    "pyarrow": "CSV files to the last bit, Parquet",
    "cvxpy": "polytopes without an exact kernel",
    "safetensors": "student files",
    "scikit-learn": "the demo's data and teachers",
    "matplotlib": "frontier.png",
    "pydantic": "experiment files",
    "tomli-w": "experiment files, written",
    "typer": "the command line",
    "rich": "tables, progress bars",
    "pillow": "images; matplotlib brings it",
    "numba": "projection kernels",
    "llvmlite": "projection kernels",
    "joblib": "sweeps side by side; scikit-learn brings it",
    "lazy_loader": "the instant import",
    "moocore": "hypervolume of a frontier",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=report_path, default=None)
    options = parser.parse_args(arguments)
    text = write_report(measure_sizes(), time_commands(options.rounds), options.rounds)
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")


def measure_sizes() -> dict[str, tuple[float, float]]:
    """Return MB of each direct dependency, alone and with what it alone brings, by name; "safekd" for ourselves."""
    direct = list_requirements("safekd")
    everything = collect({"safekd"})
    sizes = {name: size_of(name) for name in everything}
    weights = {"safekd": (sizes["safekd"], sizes["safekd"])}
    for name in direct:
        without = collect({"safekd"}, leave_out=name)
        weights[name] = (sizes[name], sum(sizes[other] for other in everything - without))
    return weights | {"all": (sum(sizes.values()), sum(sizes.values()))}


def collect(names: set[str], leave_out: str = "") -> set[str]:
    """Return the distributions that these need, themselves among them."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or name == leave_out:
            continue
        found.add(name)
        waiting += list_requirements(name)
    return found


def list_requirements(name: str) -> list[str]:
    """Return what a distribution needs here, without extras; what is not installed is left out."""
    requirements = [Requirement(line) for line in metadata.requires(name) or []]
    needed = [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [_spell(one.name) for one in needed if _is_installed(one.name)]


def size_of(name: str) -> float:
    """Return the MB of a distribution's files, compiled Python apart."""
    files = [file.locate() for file in metadata.files(name) or [] if file.suffix != ".pyc"]
    return sum(Path(str(file)).stat().st_size for file in files if Path(str(file)).exists()) / 1e6


def _spell(name: str) -> str:
    plain = name.lower().replace("_", "-").replace(".", "-")
    return "lazy_loader" if plain == "lazy-loader" else plain


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def time_commands(rounds: int) -> dict[str, float]:
    """Return median seconds of each command in a process of its own; commands take turns."""
    for call in CALLS.values():
        run(call)
    times: dict[str, list[float]] = {name: [] for name in CALLS}
    for _ in range(rounds):
        for name, call in CALLS.items():
            times[name].append(run(call))
    return {name: statistics.median(values) for name, values in times.items()}


def run(call: Sequence[str]) -> float:
    """Return the seconds that one call of Python takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *call], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def write_report(sizes: dict[str, tuple[float, float]], times: dict[str, float], rounds: int) -> str:
    """Return the report as Markdown."""
    return "\n".join(_lines(sizes, times, rounds)) + "\n"


def _lines(sizes: dict[str, tuple[float, float]], times: dict[str, float], rounds: int) -> Iterator[str]:
    yield "# What the base install weighs, and how long it takes to import\n"
    yield (
        "Written by `python -m benchmarks.install` in an environment with the wheel and no extras. MB alone: of the "
        "package's own files. MB it brings: of all that would not be there without it. Seconds: of a whole process, "
        f"median of {rounds}, commands in turns; what Python itself takes stands in the first line. "
        "Nothing here is needed by an extra alone: extras bring moreau, transformers, onnxruntime, trackers.\n"
    )
    yield "|  |  |\n| --- | --- |"
    yield f"| date | {today()} |\n| processor | {processor()} |\n| python | {sys.version.split()[0]} |"
    yield f"| versions | {versions(['torch', 'numpy', 'typer', 'lazy_loader'])} |\n"
    yield "| package | MB alone | MB it brings | needed for |\n| --- | --- | --- | --- |"
    for name, (alone, brings) in sorted(sizes.items(), key=lambda item: -item[1][1]):
        yield f"| {name} | {alone:.1f} | {brings:.1f} | {NEEDED_FOR.get(name, '')} |"
    yield "\n| command | seconds |\n| --- | --- |"
    for name, seconds in times.items():
        yield f"| `{name}` | {seconds:.2f} |"


if __name__ == "__main__":
    main()
