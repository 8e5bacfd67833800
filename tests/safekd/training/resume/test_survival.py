"""The short form of ``python -m benchmarks.survive``: kills, bit flips and truncations, and a judge that can say no."""

from __future__ import annotations

import os
import random
import signal

import pytest

from benchmarks.survive import __main__ as survive
from benchmarks.survive._damage import damage_files
from benchmarks.survive._kills import WAYS, Whole, kill_and_go_on, kill_many, read_whole, run_apart
from safekd.training.resume import StoredCheckpoint
from safekd.training.resume import _checkpoint_store as store_module

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the benchmark forks")


@pytest.mark.filterwarnings("ignore")
def test_runs_that_are_killed_end_as_if_they_had_not_been(tmp_path):
    outcomes = list(kill_many(4, 3, tmp_path))
    assert [outcome.fault for outcome in outcomes] == [""] * 4
    assert all(outcome.where for outcome in outcomes)


@pytest.mark.filterwarnings("ignore")
def test_every_flipped_bit_and_every_cut_is_found(tmp_path):
    damage = damage_files(tmp_path, 60, 3, 0)
    assert damage.unseen == []
    assert damage.flips == 60
    assert damage.lengths > 50
    text = survive.write_report([], damage, [])
    assert "60 of 60 flipped bits were found" in text


def test_a_kill_is_seen_in_the_status_of_the_process():
    status = run_apart(lambda: signal.pause(), 0.05)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert os.waitstatus_to_exitcode(run_apart(lambda: None, 0.5)) == 0


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_forgets_something_is_told(tmp_path):
    whole = read_whole(WAYS[0], tmp_path / "whole")
    whole = Whole({**whole.contents, "student.safetensors": b"another"}, whole.seconds, whole.calls)
    outcome = kill_and_go_on(WAYS[0], whole, tmp_path / "killed", random.Random(0), at_point=True)
    assert outcome.fault == "differs in student.safetensors"


@pytest.mark.filterwarnings("ignore")
def test_damage_that_nobody_looks_for_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "verify_checkpoint", lambda folder: StoredCheckpoint(folder, 1, 1, {}))
    damage = damage_files(tmp_path, 30, 0, 1)
    assert all(place.startswith("stopped/checkpoints/") for place in damage.unseen)
    assert damage.unseen
