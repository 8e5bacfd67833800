"""The benchmark of the tracer: its share by hand, and a short run from end to end."""

from __future__ import annotations

import pytest
import torch

from benchmarks import tracing


def test_a_share_by_hand():
    """An validation of 2 s after 49 steps of 2 s is one fiftieth."""
    cost = tracing.Cost("MLP", None, 1, False, 2.0, 2.0, 49)
    assert cost.share == pytest.approx(0.02)


def test_the_report_says_whether_the_goal_is_met():
    good = tracing.Cost("MLP", 64, 3, True, 1e-3, 2e-3, 100)
    bad = tracing.Cost("transformer", None, 1, False, 1e-3, 5e-3, 10)
    assert "Worst: 1.96%, met." in tracing.markdown([good])
    text = tracing.markdown([good, bad])
    assert "Worst: 33.33%, missed." in text
    assert "| MLP | 64 | 3 | sampled | 1.00 | 2.00 | 100 | 1.96% |" in text
    assert "| transformer | all | 1 | exact |" in text


@pytest.mark.parametrize("kind", ["MLP", "transformer"])
def test_a_short_run_measures_a_step_an_evaluation_and_the_default_interval(kind):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        cost = tracing.measure(kind, None, 1, examples=64, count=3)
    finally:
        torch.set_num_threads(threads)
    assert cost.interval == 84
    assert (cost.student, cost.batch, cost.constraints, cost.sampled) == (kind, None, 1, False)
