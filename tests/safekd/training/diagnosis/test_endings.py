"""Which verdict a hand-made trace is given, and which students a run keeps."""

from __future__ import annotations

import math

import numpy as np
import torch

import safekd as kd
from safekd.safety import Recall
from safekd.training._attainable import attainable
from safekd.training._objective import FullPass
from safekd.training.checkpoints._best_iterates import Keeper
from safekd.training.diagnosis._feasibility_bound import Outlook
from safekd.training.diagnosis._lagrangian_curvature import Curvature
from safekd.training.diagnosis._status import Ended, ending, is_converged
from safekd.training.diagnosis._student_restoration import Restoration
from safekd.training.trace import ConstraintReading, TracePoint
from solvers.kkt import KKTResiduals
from tests.support.problems import FreeLogits, at_least


def reading(measured=0.8, required=0.8, name="a", count=100):
    return ConstraintReading(name, "train", measured, measured, required, count, 0.01)


def point(*readings, prices, residuals=(0.0, 0.0, 0.0, 0.0), step=0, loss=1.0):
    return TracePoint(step, step, loss, readings, prices, [10.0] * len(prices), KKTResiduals(*residuals), 1.0, 0.0)


def test_convergence_is_never_granted_to_what_is_violated_or_not_a_number():
    assert is_converged(point(reading(), prices=[1.0]), 1e-3)
    for residuals in [(0.1, 0, 0, 0), (0, 0.1, 0, 0), (0, 0, 0.1, 0), (0, 0, 0, 0.1), (math.nan, 0, 0, 0)]:
        assert not is_converged(point(reading(), prices=[1.0], residuals=residuals), 1e-3)


def test_what_a_count_can_reach():
    counted, smooth = kd.SafetyConstraint("a", Recall(critical=[0]), 0.75), at_least(0.75, "a")
    for count, wanted in [(10, 0.8), (4, 0.75), (1, 1.0), (20, 0.75), (3, 1.0)]:
        assert float(attainable(counted, torch.tensor(count))) == wanted
        assert float(attainable(smooth, torch.tensor(count))) == 0.75
    third = kd.SafetyConstraint("a", Recall(critical=[0]), 0.1 * 3)  # a little above 3/10 in floating point
    assert float(attainable(third, torch.tensor(10))) == 0.3


class Told:
    """Evidence that is given, and counts how often it was asked for."""

    def __init__(self, outlook=None, seen=None, tried=None, hidden=((), 0.0)):
        self.outlook_, self.seen, self.tried, self.hidden = outlook, seen, tried, hidden

    def outlook(self):
        return self.outlook_

    def curvature(self, point, jacobian_Mn, tolerance, passes):
        return self.seen

    def restoration(self, passes):
        return self.tried

    def hidden_drop(self, point, passes):
        return self.hidden


def restored(least, slope=0.0, pull=0.0, dead=0.0):
    full = FullPass(1.0, 0.0, [reading(0.9 - least, 0.9)], torch.zeros(2), torch.zeros(1, 2))
    return Restoration(full, least, slope, pull, dead, 30)


def run_of(violations, prices, slope=0.0, stationarity=1.0, capped=()):
    points = [
        point(reading(0.9 - v, 0.9), prices=[p], residuals=(stationarity, v, 0.0, v), step=i)
        for i, (v, p) in enumerate(zip(violations, prices, strict=True))
    ]
    return Ended(points, torch.tensor([[slope, 0.0]]).double(), 1e-3, list(capped))


GROWING = [1.0, 10.0, 100.0, 1000.0, 1e4]


def test_infeasible_by_itself_needs_a_violation_that_stands_still_and_descents_that_ended():
    def status(violations, tried, prices=GROWING):
        return ending(run_of(violations, prices), Told(tried=tried)).status

    assert status([0.4] * 5, restored(0.4)) == "infeasible"
    assert status([0.4] * 5, restored(0.4), [1.0] * 5) == "infeasible"
    assert status([0.4] * 5, restored(0.4, slope=0.1)) == "budget_spent"  # it could still fall
    assert status([0.4] * 5, restored(0.4, pull=0.1)) == "budget_spent"
    assert status([0.4] * 5, restored(0.4, dead=0.1)) == "budget_spent"
    assert status([0.4] * 5, restored(0.4, slope=math.nan)) == "budget_spent"
    assert status([0.4] * 5, restored(0.0)) == "budget_spent"  # it can be met
    assert status([0.4, 0.38, 0.36, 0.34, 0.32], restored(0.4)) == "budget_spent"  # it still falls
    assert status([0.4] * 3, restored(0.4), GROWING[:3]) == "budget_spent"  # too little was seen


def test_proofs_come_before_caps_and_caps_before_local_evidence():
    proof = Outlook(0.3, np.array([1.0]), 0.6, 0.9, ())
    run = run_of([0.4] * 5, GROWING, capped=["a"])
    assert ending(run, Told(outlook=proof, tried=restored(0.4))).status == "infeasible"
    assert ending(run, Told(tried=restored(0.4))).status == "cap_active"
    roomy = Outlook(-0.1, np.array([1.0]), 1.0, 0.9, ())
    assert ending(run_of([0.4] * 5, GROWING), Told(outlook=roomy, tried=restored(0.4))).status == "infeasible"
    edge = Outlook(0.0, np.array([1.0]), 0.9, 0.9, (0,))
    assert ending(run_of([0.4] * 5, GROWING), Told(outlook=edge)).status == "no_multiplier"


def test_no_multiplier_needs_a_force_that_stays_while_the_price_grows():
    """Price times slope is 1 at every point; the violation falls to nothing."""
    falling, prices = [2.0**-i for i in range(9)], [2.0 ** (i / 2) for i in range(9)]
    assert ending(run_of(falling, prices, 1 / 16, stationarity=0.0), Told()).status == "no_multiplier"
    calm = Told(tried=restored(0.4))
    assert ending(run_of(falling, prices, 1 / 16, stationarity=1.0), calm).status == "budget_spent"  # only slow
    assert ending(run_of(falling, [16.0] * 9, 1 / 16, stationarity=0.0), calm).status == "budget_spent"
    assert ending(run_of(falling, prices, 0.0, stationarity=0.0), calm).status == "budget_spent"  # no force
    assert ending(run_of([0.5] * 9, prices, 1 / 16, stationarity=0.0), calm).status == "infeasible"


def test_converged_needs_a_look_at_curvature():
    run = run_of([0.0] * 5, [1.0] * 5, stationarity=0.0)
    flat = Curvature(0.0, 1.0, 0.0)
    assert ending(run, Told(seen=flat)).status == "converged"
    assert ending(run, Told(seen=Curvature(-1.0, 1.0, 0.0))).status == "converged"  # no step down was found
    for told in (Told(seen=Curvature(-1.0, 1.0, 0.1)), Told(seen=Curvature(0.0, 0.0, 0.0, "not twice"))):
        assert ending(run, told).status == "stationary_unverified"
    assert ending(run, Told(seen=flat, hidden=(["w"], 0.1))).status == "stationary_unverified"


def test_a_reading_that_is_no_number_never_counts_as_feasible():
    student, keeper = FreeLogits(), Keeper()
    keeper.see(student, point(reading(0.9), reading(math.nan, name="b"), prices=[0.0, 0.0]))
    keeper.see(student, point(reading(0.9), prices=[0.0], loss=math.nan))
    assert keeper.best_feasible(student) is None
    keeper.see(student, point(reading(0.9), prices=[0.0]))
    assert keeper.best_feasible(student) is not None
