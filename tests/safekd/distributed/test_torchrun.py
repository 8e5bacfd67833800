"""``torchrun -m safekd train``: as many processes as it starts, one of which prints and writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from safekd.cli import main

from ...support.rank_worker import free_port
from ..cli.test_cli_train import write_case

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
QUIET = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def torchrun(*arguments, folder):
    return subprocess.run(
        [*LAUNCH, f"--master-port={free_port()}", "-m", "safekd", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.processes
def test_two_processes_train_what_one_trains(tmp_path, monkeypatch, capsys):
    config = write_case(tmp_path) / "mine.toml"
    config.write_text(config.read_text().replace("epochs = 2000\n[frontier]", "epochs = 40\n[frontier]", 1))
    ran = torchrun("train", config, "--run-dir", tmp_path / "two", folder=tmp_path)
    monkeypatch.setattr(sys, "argv", ["safekd", "train", str(config), "--run-dir", str(tmp_path / "one")])
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code
    assert code == 1, capsys.readouterr()
    assert ran.stdout.count("data used:") == 1, ran.stdout + ran.stderr
    one, two = (json.loads((tmp_path / name / "verdict.json").read_text()) for name in ("one", "two"))
    assert two["status"] == one["status"]
    traces = [pd.read_csv(tmp_path / name / "trace.csv") for name in ("one", "two")]
    columns = ["distillation_loss", "lambda_sick", "rho_sick"]
    pd.testing.assert_frame_equal(traces[0][columns], traces[1][columns], rtol=1e-4)  # float32 students
    student = load_file(tmp_path / "two" / "student.safetensors")
    for name, value in load_file(tmp_path / "one" / "student.safetensors").items():
        assert torch.allclose(student[name], value, atol=1e-4)


@pytest.mark.slow
def test_a_run_that_one_process_refuses_two_refuse_without_a_traceback(tmp_path):
    config = write_case(tmp_path) / "mine.toml"
    config.write_text(config.read_text().replace("at_least = 0.8", 'at_least = "much"'))
    ran = torchrun("train", config, folder=tmp_path)
    assert ran.returncode != 0
    assert "at_least" in ran.stderr
    assert "safekd/cli" not in ran.stderr  # torchrun's own traceback has no line of ours


def test_one_process_imports_nothing_for_others():
    script = (
        "import sys, torch\n"
        "from tests.support.problems import at_least, one_each, trainer_for\n"
        "trainer_for(at_least(0.5)).fit(one_each(), epochs=3)\n"
        "own = [n for n in sys.modules if n.startswith('safekd.distributed._') and ('group' in n or 'sharded' in n)]\n"
        "assert not own and not torch.distributed.is_initialized(), own\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
