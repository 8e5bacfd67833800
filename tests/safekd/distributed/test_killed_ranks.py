"""A rank is killed in the middle of a run: the other one says so, and both go on from the checkpoint."""

from __future__ import annotations

import pytest
import torch

from safekd.distributed import Ranks

from ...support.rank_worker import run_on_ranks
from . import training_cases as cases


def differs(one, other):
    return [name for name in one["trace"] if str(one["trace"][name]) != str(other["trace"][name])]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_killed_rank_ends_the_other_and_the_checkpoint_goes_on_to_the_same_result(tmp_path, kind):
    told = {"SAFEKD_TEST_FOLDER": str(tmp_path / "run"), "SAFEKD_TEST_KIND": kind}
    (first,) = run_on_ranks(
        2, cases.killed_and_resumed, killed=[1], environment={**told, "SAFEKD_TEST_KILL": "1"}, within=200
    )
    assert first[0]["failure"].startswith("Rank 1 of 2 does not answer any more, so rank 0 stops too")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if "10" in path.name]
    (resumed,) = run_on_ranks(2, cases.killed_and_resumed, environment=told, within=200)
    whole = {**told, "SAFEKD_TEST_FOLDER": str(tmp_path / "other")}
    (undisturbed,) = run_on_ranks(2, cases.killed_and_resumed, environment=whole, within=200)
    for given, expected in zip(resumed, undisturbed, strict=True):
        assert differs(given, expected) == []
        assert given["multipliers"] == expected["multipliers"]
        for name, value in expected["state"].items():
            assert torch.equal(given["state"][name], value)


@pytest.mark.slow
def test_the_checkpoint_of_two_ranks_goes_on_in_one_process(tmp_path):
    kind = "fsdp"
    told = {"SAFEKD_TEST_FOLDER": str(tmp_path / "run"), "SAFEKD_TEST_KIND": kind, "SAFEKD_TEST_KILL": "1"}
    run_on_ranks(2, cases.killed_and_resumed, killed=[1], environment=told, within=200)
    given = cases.run_with_folder(Ranks(), tmp_path / "run", "plain", killed_rank=None, resume="must")
    expected = cases.run_with_folder(Ranks(), tmp_path / "other", "plain", killed_rank=None)
    for name, value in expected["state"].items():
        assert torch.allclose(given["state"][name], value, rtol=0, atol=1e-10)
    assert given["multipliers"] == pytest.approx(expected["multipliers"], abs=1e-10)
