"""``safekd train`` stopped by signals and kills, and gone on with; ``safekd verify --repair``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.streamed_data import STREAM_CONFIG, write_parquet
from benchmarks.survive import contents_but_clock
from safekd.training.resume import CheckpointStore
from tests.support import ROOT
from tests.support.cli_runner import run_cli

from .test_cli_train import CONFIG, write_case

LONG = 200_000


def write_config(folder: Path, epochs: int) -> Path:
    write_case(folder)
    path = folder / "case.toml"
    path.write_text(CONFIG.replace("[training]\nepochs = 2000", f"[training]\nepochs = {epochs}\ntolerance = 1e-12"))
    return path


def write_stream(folder: Path) -> Path:
    """A Parquet file that is streamed, once, in 68 steps."""
    write_parquet(folder / "data.parquet", 3000)
    path = folder / "case.toml"
    path.write_text(STREAM_CONFIG.format(features=["x0", "x1"], rows=20).replace("'", '"'))
    return path


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "safekd", "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_checkpoint(folder, process, number=1):
    deadline = time.monotonic() + 120
    while len(CheckpointStore(folder).list_whole()) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


ENDED = [
    (signal.SIGINT, 4),
    pytest.param(signal.SIGTERM, 4, marks=pytest.mark.slow),
    pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("number", "code"), ENDED)
def test_a_command_that_was_stopped_goes_on(number, code, tmp_path, capsys):
    config, run = write_config(tmp_path, LONG), tmp_path / "run"
    with start(config, "--run-dir", run, "--checkpoint-every", "50") as process:
        wait_for_checkpoint(run, process)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == code
    step = CheckpointStore(run).find_latest().step
    if number != signal.SIGKILL:
        assert f"stopped at step {step}" in " ".join(said.split())
        assert "--resume" in said
    assert run_cli(capsys, "train", config, "--run-dir", run).refused(
        f"holds a run that was stopped at step {step}; go on with --resume"
    )
    assert f"The run goes on from step {step}." in run_cli(capsys, "verify", run).out
    config.write_text(config.read_text().replace(f"epochs = {LONG}", f"epochs = {step + 100}"))
    refused = run_cli(capsys, "train", config, "--run-dir", run, "--resume")
    assert refused.refused(f"`epochs` was {LONG} and is now {step + 100}", "--allow-change epochs")
    gone_on = run_cli(capsys, "train", config, "--run-dir", run, "--resume", "--allow-change", "epochs")
    assert gone_on.code in (0, 1), gone_on.err
    assert not (run / "checkpoints").exists()


def start_and_kill(config, run, checkpoints):
    with start(config, "--run-dir", run, "--checkpoint-every", "7") as process:
        wait_for_checkpoint(run, process, checkpoints)
        process.kill()
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder with a configuration and its run, ``stopped``, that was killed after two checkpoints."""
    folder = tmp_path_factory.mktemp("killed")
    start_and_kill(write_config(folder, 600), folder / "stopped", checkpoints=2)
    return folder


def assert_ends_as_if_undisturbed(folder, capsys):
    config = folder / "case.toml"
    assert run_cli(capsys, "train", config, "--run-dir", folder / "whole").code in (0, 1)
    assert run_cli(capsys, "train", config, "--run-dir", folder / "stopped", "--resume").code in (0, 1)
    assert contents_but_clock(folder / "stopped") == contents_but_clock(folder / "whole")


@pytest.mark.processes
def test_a_command_that_was_killed_ends_as_if_it_had_not_been(killed, tmp_path, capsys):
    assert_ends_as_if_undisturbed(shutil.copytree(killed, tmp_path / "copy"), capsys)


@pytest.mark.processes
def test_a_command_that_was_killed_as_it_streamed_ends_as_if_it_had_not_been(tmp_path, capsys):
    start_and_kill(write_stream(tmp_path), tmp_path / "stopped", checkpoints=1)
    assert_ends_as_if_undisturbed(tmp_path, capsys)


@pytest.mark.processes
def test_repair_sets_a_damaged_checkpoint_aside_and_says_what_was_lost(killed, tmp_path, capsys):
    run = shutil.copytree(killed / "stopped", tmp_path / "run")
    # a third is there where the kill came after a checkpoint was written and before the oldest was removed
    *_, first, last = CheckpointStore(run).list_whole()
    (last.folder / "state.json").write_text("{}")
    said = run_cli(capsys, "verify", run)
    assert said.code == 1
    assert "state.json is not what was written" in said.out
    repaired = run_cli(capsys, "verify", run, "--repair")
    assert repaired.code == 0
    assert f"{last.folder.name} was set aside" in repaired.out
    assert f"Steps lost: {last.step - first.step}." in repaired.out
    assert f"The run goes on from step {first.step}." in repaired.out
    assert run_cli(capsys, "verify", run).code == 0
