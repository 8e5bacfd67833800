"""The benchmark of constraints on new data: its tasks are what they say, its report counts what it was given."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

import safekd as kd
from benchmarks.generalization import __main__ as generalization
from benchmarks.generalization import _digits as digits
from benchmarks.generalization import _synthetic as synthetic
from benchmarks.generalization.__main__ import ARMS, Row
from benchmarks.generalization._report import LADDER, markdown
from benchmarks.generalization._tasks import DEFAULT, TASKS

LOSS = {"as asked": 0.1, LADDER: 0.5}


def row(seed: int, arm: str, new: float, said: str) -> Row:
    loss = LOSS.get(arm, 0.2)
    return Row("tabular", seed, arm, 0.9, 0.93, 0.93, new, 0.002, 120, loss, 0.6, said, "converged", 7, 2.0)


def test_the_report_counts():
    said = {0: "not cleared", 1: "cleared"}
    rows = [row(s, arm, 0.89 + 0.02 * s, "" if arm == "as asked" else said[s]) for s in (0, 1) for arm in ARMS]
    report = markdown(pd.DataFrame([vars(r) for r in rows]), 2, 300)
    line = next(line for line in report.splitlines() if line.startswith("| CrossFit() | 0.9"))
    assert "0.900 (0.890 to 0.910) | 0.002 | 1/2 | 0.200 (0.200 to 0.200) | +0.100 (25%) | 0.600 | 1/2, 1 met" in line
    asked = next(line for line in report.splitlines() if line.startswith("| as asked | 0.9"))
    assert asked.endswith("| +0.000 | 0.600 | - | 7.0 | 2.0 |")
    assert "New data hold 120 to 120 critical cases" in report


def test_the_names_that_the_report_compares_are_arms():
    assert {LADDER, "as asked", 'CrossFit(also=["judge"])'} <= set(ARMS)
    assert "breast cancer" in TASKS
    assert "breast cancer" not in DEFAULT


@pytest.mark.parametrize("name", TASKS)
def test_new_data_are_new_and_critical(name):
    draw = TASKS[name].make(0)
    used = torch.cat([draw.train.inputs, draw.judge.inputs])
    some = draw.new.inputs[:200]
    assert float(torch.cdist(some, used).min()) > 0
    assert bool(
        draw.rule.covers(draw.new.batch()).all() if name in DEFAULT else draw.rule.covers(draw.new.batch()).any()
    )
    if name in DEFAULT:
        assert len(draw.new) >= 20_000


def test_digits_are_split_by_original():
    """Without turns, moves and noise each case is its original: none is on both sides."""
    draw = digits.draw(0, [3, 8, 9])
    assert sum(digits.SIZES.values()) == 1797
    assert len(draw.origins) == len(draw.new) >= 20_000
    assert draw.origins.unique().numel() < 400  # cases are clustered, and the report's error knows
    assert draw.origins.max() < digits.SIZES["new"]


def test_a_population_is_drawn_alike_twice_and_otherwise_with_another_seed():
    one, same, other = (synthetic.tabular(seed).draw("train") for seed in (3, 3, 4))
    assert torch.equal(one.inputs, same.inputs)
    assert not torch.equal(one.inputs, other.inputs)


def test_cases_of_one_original_count_as_one():
    value_N = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert generalization._error(value_N, torch.tensor([5, 5, 7, 7])) == pytest.approx(0.5)
    assert generalization._error(value_N, None) == pytest.approx(float(value_N.std()) / 2)


def test_an_arm_is_trained_and_read(monkeypatch):
    monkeypatch.setitem(ARMS, "CrossFit()", kd.CrossFit(folds=2, rounds=1))
    draw = TASKS["tabular"].make(100)
    asked, ladder, crossed = (
        generalization.train(draw, draw.trainer(False), "tabular", arm, 100, 40)
        for arm in ("as asked", LADDER, "CrossFit()")
    )
    assert (asked.runs, crossed.runs) == (1, 3)
    assert ladder.runs > 1
    assert ladder.posed > asked.posed == 0.7
    assert ladder.said in ("cleared", "not cleared")
    assert asked.new < ladder.new
