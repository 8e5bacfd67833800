"""kill -9 in the middle of a sweep, then resume: the CSV is that of the undisturbed run, to the byte."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import safekd as kd
from tests.safekd.frontier import frontier_worker
from tests.support import ROOT
from tests.support.problems import one_each

pytestmark = pytest.mark.processes

POINTS = 5


@pytest.fixture(scope="module")
def worker():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.safekd.frontier.frontier_worker"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        yield process
        process.kill()  # it has nothing to put away


def swept(worker, folder: Path, points: int | None = None, wait: float = 0.0) -> list[str]:
    """Let a sweep run; kill it once so many points have landed and a little longer.  Return what it said."""
    worker.stdin.write(f"{folder}\n")
    said: list[str] = []
    child = None
    while (line := worker.stdout.readline().strip()) != "ended":
        assert line, "the worker is gone"
        if child is None and line.isdigit():  # fork's parent and child may speak in any order
            child = int(line)
        else:
            said.append(line)
        if points is not None and child is not None and len(said) >= points:
            time.sleep(wait)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            points = None
    return said


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    frontier_worker.run(str(folder))
    return (folder / "frontier.csv").read_bytes()


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_sweep_killed_at_random_moments_ends_as_an_undisturbed_one(kills, worker, undisturbed, tmp_path):
    folder, draw = tmp_path / "run", random.Random(kills)
    for number in range(kills):
        points = 1 + number * (POINTS - 2) // kills  # those that were finished before land again at once
        said = swept(worker, folder, points, draw.uniform(0.0, 0.1))
        assert "done" not in said
        assert not (folder / "frontier.csv").exists()
    assert "done" in swept(worker, folder)
    assert (folder / "frontier.csv").read_bytes() == undisturbed
    assert not list(folder.glob(".*"))
    assert kd.verify(folder, frontier_worker.make, one_each()).holds()
