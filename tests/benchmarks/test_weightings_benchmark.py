"""The comparison of weighting rules: its numbers by hand, and a short run from end to end."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from benchmarks.weightings import __main__ as weightings
from benchmarks.weightings._rules import RULES
from benchmarks.weightings._tasks import DEGRADED, TASKS


def test_a_difference_by_hand():
    """Gaps of 1, 2 and 3 around a mean of 2: 4.303 standard errors of 1 / sqrt(3) are 2.484, so zero is inside."""
    base = pd.Series([0.0, 0.0, 0.0])
    found = weightings.difference(pd.Series([1.0, 2.0, 3.0]), base)
    assert (found.mean, found.half) == pytest.approx((2.0, 2.4841377))
    assert not found.real
    sure = weightings.difference(pd.Series([2.0, 2.1, 1.9]), base)
    assert sure.real
    assert sure.text.startswith("**+2.000")


def test_one_seed_proves_nothing():
    assert not weightings.difference(pd.Series([1.0]), pd.Series([0.0])).real


def test_a_short_run_has_a_line_a_rule_and_conforming_weights_break_nothing(capsys, tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    out = tmp_path / "weightings.md"
    options = ["--seeds", "2", "--tasks", "digits", "--rules", "EntropyInverse", "MetaTeacher", "family C"]
    try:
        assert weightings.main([*options, "--epochs", "2", "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    text = out.read_text()
    assert text in capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    arms = {(line[0], line[1]): line for line in lines if line[1] in ("raw", "conforming")}
    assert {name for name, _ in arms} == {"Uniform", "EntropyInverse", "MetaTeacher", "family C"}
    for name, kind in arms:
        order, bounds = arms[name, kind][6:8]
        if kind == "conforming":
            assert (order, bounds) == ("0.0%", "0.0%")
    assert arms["EntropyInverse", "raw"][7] != "0.0%"
    assert arms["Uniform", "raw"][3] == "0"


def test_digits_are_degraded_as_the_text_says():
    task = TASKS["digits"](0)
    share = {split.name: float((split.context == DEGRADED).double().mean()) for split in (task.train, task.use)}
    assert share["train"] == pytest.approx(0.05, abs=0.02)
    assert share["use"] == pytest.approx(0.6, abs=0.04)
    assert torch.equal(task.matters, task.use.context == DEGRADED)


def test_every_rule_can_be_made_for_a_task():
    task = TASKS["digits"](1)
    polytope = weightings.WeightPolytope(len(task.ensemble), weightings.LOWER, weightings.UPPER)
    assert all(callable(make(task, polytope)) for make in RULES.values())
