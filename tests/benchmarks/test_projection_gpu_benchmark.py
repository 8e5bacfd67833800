"""The GPU benchmark where there is no GPU: it says so; its problems are sound and its table can be read."""

from __future__ import annotations

import pytest
import torch

from benchmarks.projection import gpu as gpu
from solvers.projection.exact._torch_rows import project_by_operations


def line(seconds=2e-3, mode="forward", operations=0.1):
    return gpu.Line("chain", 8, "float32", mode, 1 << 24, seconds, 1e-3, operations, 1 << 30, 1 << 30)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so(tmp_path, capsys):
    out = tmp_path / "report.md"
    assert gpu.main(["--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith("No CUDA device is at hand")
    assert not out.exists()


@pytest.mark.parametrize(("seconds", "word"), [(1.6e-3, "62%, met"), (2e-3, "50%, MISSED")])
def test_the_verdict_follows_the_measurement(seconds, word):
    report = gpu.markdown([line(seconds)], {"device": "some device", "date": "2026-01-01"})
    assert f"Measured: {word}." in report
    assert "| device | some device |" in report


def test_the_table_compares_with_copy_and_tensor_operations():
    report = gpu.markdown([line(), line(mode="backward", operations=None)], {})
    forward, backward = report.strip().splitlines()[-2:]
    assert [cell.strip() for cell in forward.strip("|").split("|")] == [
        *("chain", "8", "float32", "forward", "16,777,216", "2", "537", "1,074", "50%", "50x"),
    ]
    assert backward.endswith("|  |")


def test_a_share_counts_the_bytes_that_were_moved():
    """A kernel that moves half as much again in the copy's time and a half is as fast as the copy."""
    assert gpu.Line("", 8, "", "", 1, 1.5, 1.0, None, 3, 2).share == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["chain", "bounds", "tiers", "chain, kl"])
def test_problems_are_sound(name):
    problem = gpu.problem_of(name, 4, torch.float32, 50, device="cpu")
    w_BK, _ = project_by_operations(problem.v_BK, problem.order, *problem.bounds, problem.kl)
    torch.testing.assert_close(w_BK.sum(dim=-1), torch.ones(50))
