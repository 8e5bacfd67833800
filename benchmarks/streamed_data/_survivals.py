"""Runs on a stream that are killed in the middle and gone on with, beside the run that nobody killed.

Each run is a process of its own.  Its end and its resident peak are what the system says of the dead process, so
nothing is measured from within.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..survive import contents_but_clock
from ._made_data import FEATURES, make_stream, make_trainer

ROOT = Path(__file__).parents[2]
Command = Callable[[Path, bool], list[str]]  # from the folder of the run, and whether it is gone on with
STREAM_CONFIG = """
[data]
source = "data.parquet"
label = "label"
stream = true
[[teachers]]
name = "fitted"
kind = "logistic_regression"
features = {features}
[student]
hidden = [32]
[[constraints]]
name = "unsafe"
critical = ["unsafe"]
at_least = 0.7
[training]
epochs = 1
tolerance = 1e-12
batch_size = {rows}
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: As ``os.wait4`` says.
        seconds: That it lasted.
        peak: Its resident peak, bytes.
        step: The newest checkpoint that it left, 0 where it left none.
    """

    status: int
    seconds: float
    peak: int
    step: int

    @property
    def killed(self) -> bool:
        """Whether it was killed, and did not end by itself."""
        return os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL


@dataclass
class Survival:
    """A run that was killed, and the one that nobody killed.

    Attributes:
        what: The data, in words.
        examples: How many.
        whole: The run that nobody killed.
        killed: Each process that was killed.
        last: The one that went on to the end.
        differs: Files that are not the same, but for readings of clock and memory.
    """

    what: str
    examples: int
    whole: Ended
    killed: list[Ended] = field(default_factory=list)
    last: Ended | None = None
    differs: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every kill happened, and the run ended with the same bytes."""
        return all(one.killed for one in self.killed) and self.last is not None and not self.differs


def train_made(folder: str, examples: int, rows: int, every: int) -> None:
    """Train on examples that are made as they are read; go on where the folder holds a checkpoint.

    Args:
        folder: Of the run.
        examples: How many.
        rows: Of a batch.
        every: Steps between checkpoints.
    """
    import torch

    torch.set_num_threads(1)
    stream = make_stream(examples, rows)
    make_trainer().fit(stream, epochs=1, tolerance=1e-12, run_dir=folder, checkpoint_every=every)


def kill_made(folder: Path, examples: int, rows: int, every: int, places: Sequence[float]) -> Survival:
    """Kill a run on examples that are made as they are read, by the library.

    Args:
        folder: For both runs.
        examples: How many.
        rows: Of a batch.
        every: Steps between checkpoints.
        places: Where it is killed, each a share of the steps.
    """

    def command(run: Path, resume: bool) -> list[str]:
        call = f"train_made({str(run)!r}, {examples}, {rows}, {every})"
        return [sys.executable, "-c", f"from benchmarks.streamed_data._survivals import train_made; {call}"]

    return _kill("made as they are read, `fit`", folder, command, examples, -(-examples // rows), places)


def kill_command(folder: Path, examples: int, rows: int, every: int, places: Sequence[float]) -> Survival:
    """Kill ``safekd train`` on a Parquet file, and go on with ``--resume``.

    Args:
        folder: Holds ``data.parquet``, of which a share of 0.45 trains; takes both runs.
        examples: Rows of that file.
        rows: Of a batch.
        every: Steps between checkpoints.
        places: Where it is killed, each a share of the steps.
    """
    features = [f"x{f}" for f in range(FEATURES)]
    (folder / "case.toml").write_text(STREAM_CONFIG.format(features=features, rows=rows).replace("'", '"'))

    def command(run: Path, resume: bool) -> list[str]:
        start = [sys.executable, "-m", "safekd", "train", str(folder / "case.toml"), "--run-dir", str(run)]
        return [*start, "--checkpoint-every", str(every), *(["--resume"] if resume else [])]

    return _kill("a Parquet file, `safekd train`", folder, command, examples, int(0.45 * examples / rows), places)


def _kill(
    what: str,
    folder: Path,
    command: Command,
    examples: int,
    steps: int,
    places: Sequence[float],
) -> Survival:
    whole = run_until(command(folder / "whole", False), folder / "whole")
    survival = Survival(what, examples, whole)
    for number, place in enumerate(places):
        step = int(place * steps)
        survival.killed.append(run_until(command(folder / "killed", number > 0), folder / "killed", step))
    survival.last = run_until(command(folder / "killed", bool(places)), folder / "killed")
    before, after = (contents_but_clock(folder / name) for name in ("whole", "killed"))
    survival.differs = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return survival


def run_until(command: Sequence[str], folder: Path, step: int | None = None) -> Ended:
    """Run a process; kill it once its folder holds a checkpoint of that step or a later one.

    Args:
        command: What it is started with.
        folder: Of its run.
        step: None to let it end.

    Raises:
        RuntimeError: It failed by itself.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        if step is not None:
            while find_newest_step(folder) < step and process.poll() is None:
                time.sleep(0.01)
            process.kill()
        ended = process.returncode  # not None: before it was to be killed
        _, status, usage = os.wait4(process.pid, 0) if ended is None else (0, ended << 8, None)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        said = errors.read()
    if code not in (0, 1, -signal.SIGKILL) or "Traceback" in said:
        raise RuntimeError(f"{' '.join(command)} ended with {code}: {said[-2000:]}")
    peak = 0 if usage is None else usage.ru_maxrss * 1024
    return Ended(status, time.perf_counter() - began, peak, find_newest_step(folder))


def find_newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint by its name, 0 where there is none.

    Args:
        folder: Of a run.
    """
    names = [path.name for path in (folder / "checkpoints").glob("step-*")]
    return max((int(found[1]) for name in names if (found := re.fullmatch(r"step-(\d+)", name))), default=0)
