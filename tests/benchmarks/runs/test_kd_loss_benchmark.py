"""The benchmark of the loss: contenders agree where they can, goals are judged by hand, and a short run."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.kd_loss import __main__ as command
from benchmarks.kd_loss._cells import Cost, measure
from benchmarks.kd_loss._contenders import (
    RULE,
    STRAIGHT,
    Problem,
    Size,
    compute_stacked,
    compute_straight,
    make_ours,
    make_ruled,
    read_self_distances,
)
from benchmarks.kd_loss._report import judge, summarize, write_report

SMALL = Size(2, 300, 40, 8)


@pytest.mark.parametrize("learned", [False, True])
def test_ours_is_the_straightforward_loss_with_its_gradients(learned):
    found = []
    for compute in (compute_straight, *([] if learned else [compute_stacked]), make_ours(64)):
        problem = Problem(Size(3, 300, 40, 8, learned))
        loss = compute(problem)
        loss.backward()
        found.append((loss.detach(), problem.hidden.grad, problem.weight.grad, problem.scores.grad))
    for other in found[1:]:
        for plain, own in zip(found[0], other, strict=True):
            assert (plain is None) == (own is None)
            if plain is not None:
                torch.testing.assert_close(own, plain, rtol=1e-4, atol=1e-6)


def test_libraries_of_one_teacher_give_the_same_loss_for_one_teacher():
    pytest.importorskip("trl", exc_type=ImportError)
    pytest.importorskip("liger_kernel", exc_type=ImportError)
    from benchmarks.kd_loss._contenders import compute_trl, make_liger

    found = []
    for compute in (compute_straight, compute_trl, make_liger(16), make_ours(64)):
        problem = Problem(Size(1, 300, 40, 8))
        compute(problem).backward()
        found.append(problem.weight.grad)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-3, atol=1e-6)


def test_a_rule_and_measures_take_part():
    problem = Problem(Size(3, 300, 40, 8))
    make_ruled(64)(problem).backward()
    assert bool(torch.isfinite(problem.weight.grad).all())


def test_the_default_is_short_and_the_grid_is_that_of_the_goals():
    assert len(command.list_sizes(False, 1024, 49_152, 576)) == 4
    grid = command.list_sizes(True, 1024, 49_152, 576)
    assert len(grid) == 72
    assert {size.K for size in grid} == {1, 2, 4, 8}
    assert {size.N for size in grid} == {512, 2048, 8192}


def make_cost(size, way, seconds, mib, note=""):
    return Cost(size, way, seconds, seconds, int(mib * 2**20), 1.0, note)


def test_goals_by_hand():
    three, one = Size(3, 49_152, 1024, 576), Size(1, 49_152, 1024, 576)
    costs = [
        make_cost(three, STRAIGHT, 10.0, 1600),
        make_cost(three, STRAIGHT, 12.0, 1700),
        make_cost(three, "ours, 64 MiB", 9.0, 75),
        make_cost(three, "ours, 128 MiB", 8.8, 140),
        make_cost(three, f"ours, 64 MiB, {RULE}", 9.1, 75),
        make_cost(one, "ours, 64 MiB", 4.0, 75),
        make_cost(one, "TRL", 5.0, 900),
        make_cost(one, "Liger, 128 rows", 3.9, 250),
    ]
    said = {what: (measured, met) for what, _, measured, met in judge(summarize(costs), False)}
    assert said["K = 3, 64 MiB: memory"] == ("75 MiB", True)
    assert said["K = 3, 64 MiB: memory of straightforward over it"] == ("22.7", True)
    assert said["K = 3, 64 MiB: time over that of straightforward"] == ("0.90", True)
    assert said["K = 3, 128 MiB: time over that of straightforward"] == ("0.88", False)
    assert said["K = 1, 64 MiB: time and memory over those of TRL"] == ("0.80, 0.08", True)
    assert said["K = 1, 64 MiB: time and memory over those of Liger, 128 rows"] == ("1.03, 0.30", False)
    text, missed = write_report(costs, [(0.0, 1.0, 0.0)], "today.", by_processor=False)
    assert len(missed) == 2
    assert "| straightforward | 10.00 | 1.00 | 10.00 | 1.00 | 1700 | 1.00 |" in text
    assert "**missed**" in text


def test_what_was_not_measured_is_said():
    size = Size(8, 131_072, 8192, 576)
    text, missed = write_report(
        [make_cost(size, STRAIGHT, math.nan, 0, "needs some 24 GiB")], [(0.0, 1.0, 1e-9)], "today.", by_processor=False
    )
    assert "| straightforward | needs some 24 GiB |" in text
    assert missed == ["distance of a model from itself, padded and shifted"]


def test_each_contender_is_timed_in_turns(monkeypatch):
    monkeypatch.setattr(
        "benchmarks.kd_loss._cells.list_contenders",
        lambda *_: {STRAIGHT: compute_straight, "ours, 64 MiB": make_ours(64)},
    )
    costs = list(measure(SMALL, 2, None, False))
    assert [cost.way for cost in costs] == [STRAIGHT, "ours, 64 MiB"] * 2
    assert all(cost.seconds > 0 for cost in costs)
    assert costs[0].loss == pytest.approx(costs[1].loss, rel=1e-4)


def test_what_does_not_fit_into_memory_is_skipped(monkeypatch):
    monkeypatch.setattr("benchmarks.kd_loss._cells.available_memory", lambda: 1.0)
    monkeypatch.setattr("benchmarks.kd_loss._cells.list_contenders", lambda *_: {STRAIGHT: compute_straight})
    (cost,) = measure(SMALL, 2, None, False)
    assert cost.note.startswith("needs some")


def test_a_model_is_at_distance_zero_from_itself_and_not_by_padding_with_zeros():
    pytest.importorskip("liger_kernel", exc_type=ImportError)
    for _, theirs, ours in read_self_distances((0.0, -20.0)):
        assert ours == 0
        assert theirs > 0.01
