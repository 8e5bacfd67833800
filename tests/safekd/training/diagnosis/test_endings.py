"""Which verdict a hand-made trace is given, and which students a run keeps."""

from __future__ import annotations

import math

import numpy as np
import torch

import safekd as kd
from safekd.safety import Recall
from safekd.training import FullPass
from safekd.training._constraint_layout import attainable_threshold
from safekd.training.checkpoints import BestIterates
from safekd.training.diagnosis import (
    EndedRun,
    FeasibilityBound,
    LagrangianCurvature,
    RunFacts,
    StudentRestoration,
    is_converged,
    judge_run,
)
from safekd.training.trace import ConstraintReading, TracePoint
from solvers.kkt import KKTResiduals
from tests.support.problems import FreeLogits, at_least


def reading(measured=0.8, required=0.8, name="a", count=100):
    return ConstraintReading(name, "train", measured, measured, required, count, 0.01)


def point(*readings, multipliers, residuals=(0.0, 0.0, 0.0, 0.0), step=0, loss=1.0):
    return TracePoint(
        step, step, loss, readings, multipliers, [10.0] * len(multipliers), KKTResiduals(*residuals), 1.0, 0.0
    )


def test_convergence_is_never_granted_to_what_is_violated_or_not_a_number():
    assert is_converged(point(reading(), multipliers=[1.0]), 1e-3)
    for residuals in [(0.1, 0, 0, 0), (0, 0.1, 0, 0), (0, 0, 0.1, 0), (0, 0, 0, 0.1), (math.nan, 0, 0, 0)]:
        assert not is_converged(point(reading(), multipliers=[1.0], residuals=residuals), 1e-3)


def test_what_a_count_can_reach():
    counted, smooth = kd.SafetyConstraint("a", Recall(critical=[0]), 0.75), at_least(0.75, "a")
    for count, wanted in [(10, 0.8), (4, 0.75), (1, 1.0), (20, 0.75), (3, 1.0)]:
        assert float(attainable_threshold(counted, torch.tensor(count))) == wanted
        assert float(attainable_threshold(smooth, torch.tensor(count))) == 0.75
    third = kd.SafetyConstraint("a", Recall(critical=[0]), 0.1 * 3)  # a little above 3/10 in floating point
    assert float(attainable_threshold(third, torch.tensor(10))) == 0.3


class GivenProbes:
    """Probes whose answers are given."""

    def __init__(self, bound=None, curvature=None, restoration=None, dead=((), 0.0)):
        self.bound, self.curvature, self.restoration, self.dead = bound, curvature, restoration, dead
        self.not_examined = {}

    def bound_feasibility(self):
        return self.bound

    def measure_curvature(self, point, jacobian_Mn, tolerance, passes):
        return self.curvature

    def restore_student_feasibility(self, passes):
        return self.restoration

    def perturb_dead_parameters(self, point, passes):
        return self.dead


def restored(least, gradient=0.0, log_gradient=0.0, without=0.0):
    full = FullPass(1.0, 0.0, [reading(0.9 - least, 0.9)], 0.0, None, torch.zeros(2), torch.zeros(1, 2))
    return StudentRestoration(full, least, gradient, log_gradient, without, 30)


def run_of(violations, multipliers, gradient=0.0, stationarity=1.0, capped=()):
    points = [
        point(reading(0.9 - v, 0.9), multipliers=[p], residuals=(stationarity, v, 0.0, v), step=i)
        for i, (v, p) in enumerate(zip(violations, multipliers, strict=True))
    ]
    return EndedRun(points, torch.tensor([[gradient, 0.0]]).double(), 1e-3, list(capped), FACTS)


FACTS = RunFacts(examples=100, batch_size=100, rate=0.1, first_rate=0.1)
GROWING = [1.0, 10.0, 100.0, 1000.0, 1e4]


def test_infeasible_by_itself_needs_a_violation_that_stands_still_and_descents_that_ended():
    def status(violations, restoration, multipliers=GROWING):
        return judge_run(run_of(violations, multipliers), GivenProbes(restoration=restoration)).status

    assert status([0.4] * 5, restored(0.4)) == "infeasible"
    assert status([0.4] * 5, restored(0.4), [1.0] * 5) == "infeasible"
    assert status([0.4] * 5, restored(0.4, gradient=0.1)) == "budget_spent"  # it could still fall
    assert status([0.4] * 5, restored(0.4, log_gradient=0.1)) == "budget_spent"
    assert status([0.4] * 5, restored(0.4, without=0.1)) == "budget_spent"
    assert status([0.4] * 5, restored(0.4, gradient=math.nan)) == "budget_spent"
    assert status([0.4] * 5, restored(0.0)) == "budget_spent"  # it can be met
    assert status([0.4, 0.38, 0.36, 0.34, 0.32], restored(0.4)) == "budget_spent"  # it still falls
    assert status([0.4] * 3, restored(0.4), GROWING[:3]) == "budget_spent"  # too little was seen


def test_proofs_come_before_caps_and_caps_before_local_evidence():
    proof = FeasibilityBound(0.3, np.array([1.0]), 0.6, 0.9, ())
    run = run_of([0.4] * 5, GROWING, capped=["a"])
    assert judge_run(run, GivenProbes(bound=proof, restoration=restored(0.4))).status == "infeasible"
    assert judge_run(run, GivenProbes(restoration=restored(0.4))).status == "cap_active"
    roomy = FeasibilityBound(-0.1, np.array([1.0]), 1.0, 0.9, ())
    assert (
        judge_run(run_of([0.4] * 5, GROWING), GivenProbes(bound=roomy, restoration=restored(0.4))).status
        == "infeasible"
    )
    edge = FeasibilityBound(0.0, np.array([1.0]), 0.9, 0.9, (0,))
    assert judge_run(run_of([0.4] * 5, GROWING), GivenProbes(bound=edge)).status == "no_multiplier"


def test_no_multiplier_needs_a_force_that_stays_while_the_multiplier_grows():
    """Multiplier times gradient is 1 at every point; the violation falls to nothing."""
    falling, growing = [2.0**-i for i in range(9)], [2.0 ** (i / 2) for i in range(9)]
    assert judge_run(run_of(falling, growing, 1 / 16, stationarity=0.0), GivenProbes()).status == "no_multiplier"
    probes = GivenProbes(restoration=restored(0.4))
    assert judge_run(run_of(falling, growing, 1 / 16, stationarity=1.0), probes).status == "budget_spent"  # only slow
    assert judge_run(run_of(falling, [16.0] * 9, 1 / 16, stationarity=0.0), probes).status == "budget_spent"
    assert judge_run(run_of(falling, growing, 0.0, stationarity=0.0), probes).status == "budget_spent"  # no force
    assert judge_run(run_of([0.5] * 9, growing, 1 / 16, stationarity=0.0), probes).status == "infeasible"


def test_converged_needs_a_look_at_curvature():
    run = run_of([0.0] * 5, [1.0] * 5, stationarity=0.0)
    flat = LagrangianCurvature(0.0, 1.0, 0.0)
    assert judge_run(run, GivenProbes(curvature=flat)).status == "converged"
    assert (
        judge_run(run, GivenProbes(curvature=LagrangianCurvature(-1.0, 1.0, 0.0))).status == "converged"
    )  # no step down was found
    for probes in (
        GivenProbes(curvature=LagrangianCurvature(-1.0, 1.0, 0.1)),
        GivenProbes(curvature=LagrangianCurvature(0.0, 0.0, 0.0, "not twice")),
    ):
        assert judge_run(run, probes).status == "stationary_unverified"
    assert judge_run(run, GivenProbes(curvature=flat, dead=(["w"], 0.1))).status == "stationary_unverified"


def test_a_reading_that_is_no_number_never_counts_as_feasible():
    student, best = FreeLogits(), BestIterates()
    best.add(student, point(reading(0.9), reading(math.nan, name="b"), multipliers=[0.0, 0.0]))
    best.add(student, point(reading(0.9), multipliers=[0.0], loss=math.nan))
    assert best.best_feasible(student) is None
    best.add(student, point(reading(0.9), multipliers=[0.0]))
    assert best.best_feasible(student) is not None
