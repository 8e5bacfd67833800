"""Gradients from random batches: unbiased squares, errors that cover, and verdicts that mind them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import safekd as kd
from safekd.teachers import StoredTeacher
from safekd.training import Sampled, read_full_pass
from safekd.training.diagnosis import is_converged
from safekd.training.loop import _gradient_sampling
from safekd.training.loop._gradient_sampling import choose_trace_interval, estimate_gradients, estimate_mean_norm
from solvers.kkt import gradients
from tests.support.problems import at_least, trainer_for

from ..diagnosis.test_endings import point, reading


def test_the_estimate_is_the_mean_over_all_pairs():
    v_Sn = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    pairs = [float(v_Sn[s] @ v_Sn[t]) for s in range(6) for t in range(6) if s != t]
    norm, error = estimate_mean_norm(v_Sn)
    assert norm**2 == pytest.approx(np.mean(pairs), rel=1e-12)
    left = [
        np.mean([float(v_Sn[s] @ v_Sn[t]) for s in range(6) for t in range(6) if s != t and k not in (s, t)])
        for k in range(6)
    ]
    jackknife = np.sqrt(5 / 6 * np.sum((np.array(left) - np.mean(left)) ** 2))
    assert norm + 2 * error == pytest.approx(np.sqrt(norm**2 + 2 * jackknife), rel=1e-12)


@pytest.mark.parametrize("length", [0.0, 0.3, 3.0])
def test_the_square_is_unbiased_and_two_errors_cover_the_truth(length):
    """2000 draws of 16 vectors in 20 dimensions of known mean; the square of their mean would be 20 / 16 too large."""
    draw = torch.Generator().manual_seed(1)
    mean_n = torch.zeros(20, dtype=torch.float64)
    mean_n[0] = length
    squares, covered = [], 0
    for _ in range(2000):
        v_Sn = mean_n + torch.randn(16, 20, generator=draw, dtype=torch.float64)
        squares.append(float((v_Sn.sum(0).square().sum() - v_Sn.square().sum()) / (16 * 15)))
        norm, error = estimate_mean_norm(v_Sn)
        covered += norm + 2 * error >= length
    assert np.mean(squares) == pytest.approx(length**2, abs=4 * np.std(squares) / 2000**0.5)
    assert covered / 2000 >= 0.95


def teacher_of(train):
    draw = torch.Generator().manual_seed(4)
    return StoredTeacher("t", torch.softmax(torch.randn(len(train), 2, generator=draw).double(), -1))


def task():
    """600 examples of which an eighth is critical, some of it on a second split."""
    draw = torch.Generator().manual_seed(3)

    def split(name, examples):
        labels = (torch.rand(examples, generator=draw) < 0.125).long()
        return kd.Split(name, torch.randn(examples, 4, generator=draw, dtype=torch.float64), labels)

    train, ward = split("train", 600), split("ward", 300)
    teacher = teacher_of(train)
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    rules = at_least(0.6, critical=1), at_least(0.5, "there", split="ward")
    return train, ward, trainer_for(*rules, student=student, teachers=[teacher], lr=0.1)


def test_batches_estimate_the_gradients_of_whole_splits():
    train, ward, trainer = task()
    rules = trainer.constraints
    full = read_full_pass(trainer.objective, train, {"ward": ward}, rules, with_gradients=True)
    lambda_M = torch.tensor([0.5, 2.0]).double()
    gradient_n = full.gradient_n + full.jacobian_Mn.T @ lambda_M

    def estimate(seed, sampled):
        return estimate_gradients(trainer.objective, train, {"ward": ward}, rules, lambda_M, sampled, seed)

    estimates = [estimate(seed, Sampled(8, 50)) for seed in range(30)]
    mean_n = torch.stack([one.gradient_n for one in estimates]).mean(0)
    mean_Mn = torch.stack([one.jacobian_Mn for one in estimates]).mean(0)
    assert float((mean_n - full.gradient_n).norm()) < 0.1 * float(full.gradient_n.norm())
    assert ((mean_Mn - full.jacobian_Mn).norm(dim=1) < 0.15 * full.jacobian_Mn.norm(dim=1)).all()
    assert sum(one.lagrangian_norm + 2 * one.lagrangian_se >= gradient_n.norm() for one in estimates) >= 28
    many = estimate(0, Sampled(200, 100))
    assert many.lagrangian_norm == pytest.approx(float(gradient_n.norm()), rel=0.05)
    assert many.gradient_norm == pytest.approx(float(full.gradient_n.norm()), rel=0.1)
    assert many.constraint_norms == pytest.approx(full.jacobian_Mn.norm(dim=1).tolist(), rel=0.1)
    assert torch.equal(estimate(7, Sampled(8, 50)).gradient_n, estimates[7].gradient_n)  # the seed alone decides


class Halved(nn.Sequential):
    """A student in bfloat16 that takes any inputs."""

    def forward(self, x):
        return super().forward(x.bfloat16())


def test_sums_of_a_bfloat16_students_gradients_are_wider(monkeypatch):
    """Gradient plus .3 times the constraint's, which bfloat16 would round at the third digit."""
    train, _, _ = task()
    torch.manual_seed(0)
    student = Halved(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).bfloat16()
    trainer = trainer_for(at_least(0.9, critical=1), student=student, teachers=[teacher_of(train)], lr=0.1)
    rows = []
    monkeypatch.setattr(_gradient_sampling, "gradients", lambda *given: rows.append(gradients(*given)) or rows[-1])
    lambda_M = torch.tensor([0.3], dtype=torch.float64)
    estimate = estimate_gradients(trainer.objective, train, {}, trainer.constraints, lambda_M, Sampled(8, 50), 0)
    norm, error = estimate_mean_norm(torch.stack([row[0] + 0.3 * row[1] for row in rows]))
    assert estimate.lagrangian_norm == pytest.approx(norm, rel=1e-5)
    assert estimate.lagrangian_se == pytest.approx(error, rel=1e-4)


def test_a_run_says_which_gradients_it_read_and_the_rest_stays_exact():
    runs = {}
    for how in (None, Sampled(8, 32), Sampled(16, 64)):
        train, ward, trainer = task()
        runs[how] = trainer.fit(train, epochs=20, splits={"ward": ward}, trace_every=10, stationarity=how).trace
    exact, sampled, all_of_it = runs.values()
    assert (
        set(exact["gradients"]) == set(all_of_it["gradients"]) == {"exact"}
    )  # 1024 draws of 600 examples save nothing
    assert set(sampled["gradients"]) == {"sampled"}
    assert (sampled["kkt_stationarity_se"] > 0).all()
    differ = {c for c in exact if not exact[c].equals(sampled[c])} - {"wall_s", "memory_bytes", "peak_memory_bytes"}
    assert differ == {
        "gradients",
        "gradient_norm",
        "gradient_norm_first",
        "gradient_norm_there",
        "kkt_stationarity",
        "kkt_stationarity_se",
    }


def test_an_estimate_converges_only_with_two_errors_to_spare():
    small = point(reading(), multipliers=[1.0], residuals=(5e-4, 0, 0, 0))
    assert is_converged(small, 1e-3)
    assert is_converged(replace(small, sampled=True, stationarity_se=2.4e-4), 1e-3)
    for error in (2.6e-4, float("nan")):
        assert not is_converged(replace(small, sampled=True, stationarity_se=error), 1e-3)


@pytest.mark.parametrize("wrong", [{"batches": 3}, {"batch_size": 0}, {"batches": 8.5}])
def test_batches_that_show_no_spread_are_refused(wrong):
    with pytest.raises(
        kd.InvalidInput, match=f"`{next(iter(wrong))}` of Sampled is {next(iter(wrong.values()))}; wanted"
    ):
        Sampled(**wrong)


def test_the_interval_by_hand():
    """Full batches: 1 forward and 2 (M + 1) backward of an validation for 3 of a step; 50 times that."""
    assert choose_trace_interval({"train": 90}, {"train": 1}, 90, None) == 84  # ceil(50 * 5 / 3)
    assert choose_trace_interval({"train": 90}, {}, 90, None) == 50
    assert choose_trace_interval({"train": 90}, {"train": 1}, 9, None) == 834
    assert choose_trace_interval({"train": 90, "validation, all": 90}, {"train": 1}, 90, None) == 100
    assert choose_trace_interval({"train": 90, "ward": 30}, {"ward": 1}, 90, None) == 50  # 270 + 90 either way
    assert choose_trace_interval({"train": 9000}, {"train": 1}, 90, Sampled(10, 9)) == 50 * (9000 + 90 + 360) // 270
