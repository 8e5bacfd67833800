"""A multiplier that exploded, a loss above its start, and counted constraints that leave a student alone."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.training.diagnosis._overpenalty import describe_flat, find_exploded, find_overpenalty
from safekd.training.loop import _fit_loop
from safekd.training.trace import ConstraintReading, TracePoint
from solvers.kkt import KKTResiduals
from solvers.primal_dual import AugmentedLagrangian, PlainAscent


def point(loss, multiplier, measured, norm=1.0, **more):
    reading = ConstraintReading("a", "train", measured, measured, 0.9, 100, 0.01)
    more["constraint_gradient_norms"] = [norm]
    return TracePoint(0, 0, loss, [reading], [multiplier], [1.0], KKTResiduals(1, 0, 0, 0), 1.0, 0.0, **more)


def test_a_multiplier_explodes_where_the_tolerance_outweighs_every_loss():
    points = [point(3.0, 0.0, 0.1), point(1.0, 29_000.0, 0.5)]
    assert find_exploded(points, 1e-3) == []  # 29 nats for a thousandth, beside ten times 3
    points[-1] = point(1.0, 31_000.0, 0.5)
    assert find_exploded(points, 1e-3) == [0]
    assert find_exploded([point(0.001, 9_000.0, 0.5)], 1e-3) == []  # small losses count as one nat


def test_a_loss_above_its_start_is_excess_unless_the_constraint_explains_it():
    start = point(0.1, 0.0, 0.4)
    assert find_overpenalty([start, point(0.5, 1.0, 0.9)], 1e-3).excess == 0  # 1 nat a unit bought half a unit
    assert find_overpenalty([start, point(0.7, 1.0, 0.9)], 1e-3).excess == pytest.approx(0.1)
    assert find_overpenalty([start, point(0.7, 0.0, 0.9)], 1e-3).excess == pytest.approx(0.6)
    assert find_overpenalty([start, point(0.105, 0.0, 0.9)], 1e-3).excess == 0  # noise
    assert not find_overpenalty([start, point(0.7, 0.0, 0.9)], 1e-3, targets_move=True)


def test_a_constraint_is_blamed_only_where_its_weight_and_its_force_can_have_raised_the_loss():
    def look(weight, norm=1.0, scale=math.nan):
        more = {"peak_weights": [weight], "multiplier_scales": [scale]}
        return find_overpenalty([point(0.1, 0.0, 0.9, norm), point(0.5, 0.0, 0.9, norm, **more)], 1e-3)

    assert look(0.1).excess == pytest.approx(0.4)
    assert look(0.1, 30.0).caused == pytest.approx(0.1)  # safety moves by at most 1
    assert look(0.1, 30.0).acquits
    assert not look(0.6).acquits
    assert look(0.6, 0.5).acquits  # it pushes .3 times as hard as the loss
    assert not look(0.6, 0.5, scale=0.1).acquits  # six times as hard, by batches that violated it
    assert look(0.6, 9.0, scale=6.0).acquits
    assert not find_overpenalty([point(0.1, 0.0, 0.9), point(0.5, 0.0, 0.9)], 1e-3).acquits  # weights nobody knows


def test_a_flat_surrogate_is_named():
    assert "surrogate of 'a' has next to no gradient" in describe_flat(point(1.0, 0.0, 0.5, norm=1e-7))
    assert describe_flat(point(1.0, 0.0, 0.5)) == describe_flat(point(1.0, 0.0, 0.95, norm=1e-7)) == ""


# of whole runs -------------------------------------------------------------------------------------------------------


def clouds(classes=22, each=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    center_VD = 2 * torch.randn(classes, 16, generator=generator)
    y_N = torch.arange(classes).repeat_interleave(each)
    x_ND = center_VD[y_N] + torch.randn(len(y_N), 16, generator=generator)
    return kd.Split("train", x_ND, y_N), (-(torch.cdist(x_ND, center_VD) ** 2) / 2).softmax(-1)


def steep(log_p_V, labels):
    """A surrogate that is flat far below one half."""
    return torch.sigmoid(50 * (log_p_V.gather(-1, labels[..., None])[..., 0].exp() - 0.5))


def recalled(log_p_V, labels):
    return (log_p_V.argmax(-1) == labels).to(log_p_V.dtype)


MEASURES = {
    "recall": kd.safety.Recall([0, 1, 2]),
    "top 3": kd.safety.TopK(3, [0, 1, 2]),
    "avoids": kd.safety.Avoids([21], [0, 1, 2]),
    "counted": kd.safety.Counted(lambda log_p_V, y: log_p_V.gather(-1, y[..., None])[..., 0] + 2.3, critical=[0, 1, 2]),
    "steep surrogate": kd.safety.Custom(recalled, steep, critical=[0, 1, 2], binary=True),
}
OPTIMIZERS = {
    "Adam 1e-2": lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
    "Adam 1e-3": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.5),
}


def fit(measure, optimizer, dual=None, epochs=250, **more):
    train, q_NV = clouds()
    torch.manual_seed(1)
    student = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 22))
    rules = [] if measure is None else [kd.SafetyConstraint("counted", measure, 0.9)]
    trainer = kd.ConstrainedTrainer(
        student,
        [kd.teachers.StoredTeacher("t", q_NV)],
        optimizer=optimizer(student.parameters()),
        constraints=rules,
        dual=dual,
    )
    result = trainer.fit(train, epochs=epochs, **more)
    with torch.no_grad():
        return result, float((result.student(train.inputs).argmax(-1) == train.labels).double().mean())


@functools.cache
def fit_freely(optimizer):
    return fit(None, OPTIMIZERS[optimizer])[1]


EACH = [(name, "Adam 1e-2") for name in MEASURES] + [("recall", "Adam 1e-3"), ("recall", "SGD"), ("top 3", "SGD")]


@pytest.mark.parametrize(("name", "optimizer"), EACH)
def test_a_counted_constraint_that_is_met_anyway_leaves_a_fresh_student_of_22_classes_alone(name, optimizer):
    result, accuracy = fit(MEASURES[name], OPTIMIZERS[optimizer])
    assert accuracy >= fit_freely(optimizer) - 0.01
    assert result.feasible
    assert result.status in ("converged", "budget_spent")


def test_a_dual_step_that_makes_the_multiplier_explode_ends_the_run_with_a_status_of_its_own():
    result, _ = fit(MEASURES["recall"], OPTIMIZERS["Adam 1e-2"], PlainAscent(step=1e6), trace_every=5)
    assert result.status == "overpenalized"
    assert result.point.step == 10  # two evaluations in a row
    assert "The multiplier exploded, of 'counted' to" in result.message
    assert "Lower the learning rate, now 0.01; train without constraints first" in result.next_move
    assert result.verdict.evidence["exploded"] == ["counted"]


def test_without_a_largest_distance_a_flat_surrogate_explodes(monkeypatch):
    monkeypatch.setattr(_fit_loop, "SETTINGS", dataclasses.replace(_fit_loop.SETTINGS, largest_distance=float("inf")))
    result, accuracy = fit(MEASURES["steep surrogate"], OPTIMIZERS["Adam 1e-2"], trace_every=10)
    assert result.status == "overpenalized"
    assert accuracy < 0.5


# a student that was trained before, on small batches with long steps: its loss rises with and without constraints ----


@functools.cache
def pretrain():
    train, q_NV = clouds()
    torch.manual_seed(1)
    student = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 22))
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(student(train.inputs), q_NV).backward()
        optimizer.step()
    return student


def go_on(rate, constraints, dual=None):
    train, q_NV = clouds()
    student = copy.deepcopy(pretrain())
    trainer = kd.ConstrainedTrainer(
        student,
        [kd.teachers.StoredTeacher("t", q_NV)],
        optimizer=torch.optim.Adam(student.parameters(), lr=rate),
        constraints=constraints,
        dual=dual,
        batch_size=16,
    )
    return trainer.fit(train, epochs=20, trace_every=50)


def require(measure, threshold):
    return [kd.SafetyConstraint("counted", measure, threshold)]


@pytest.mark.parametrize("threshold", [None, 0.5, 0.9])
def test_a_loss_that_long_steps_raise_is_not_blamed_on_a_constraint_that_hardly_pushed(threshold):
    """At .9 batches violate it, and it pushes, yet the loss is lower than without it."""
    constraints = [] if threshold is None else require(kd.safety.Recall([0, 1, 2]), threshold)
    result = go_on(0.3, constraints)
    assert result.status == "loss_rose", result.message
    assert "it rose by the steps themselves" in result.message
    assert result.next_move.startswith("Lower the learning rate, now 0.3, or take batches of more than 16 examples")
    assert result.verdict.evidence["force"] < 0.2
    assert (max(result.point.peak_weights, default=0.0) > 1) == (threshold == 0.9)


def test_a_loss_that_penalties_raised_is_blamed_on_them():
    """Without them the loss falls with the same steps."""
    constraints = require(kd.safety.Avoids([0], [0, 1, 2]), 0.9)  # an example of class 0 may not be called one
    assert go_on(1e-2, []).status == "converged"
    result = go_on(1e-2, constraints, AugmentedLagrangian(rho=1e3))
    assert result.status == "overpenalized", result.message
    assert "more than the constraints explain at their multipliers" in result.message
    assert result.verdict.evidence["force"] > 10
    assert not result.verdict.evidence["exploded"]
