"""Every verdict against the truth that a convex solver finds on the distributions themselves."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch

from safekd.training import FitResult
from tests.support.random_problems import RandomProblem, Truth, draw_problem, trainer_of, truth_of

CLEAR = 1e-3  # room on either side that makes the truth plain
FEW, MANY = range(10), range(10, 60)


def disagreement(problem: RandomProblem, truth: Truth, result: FitResult) -> str | None:
    """Say how a verdict contradicts the truth, or return None."""
    if truth.room < -CLEAR:
        return _not_infeasible(problem, truth, result)
    if truth.room <= CLEAR:
        fine = result.status in ("no_multiplier", "budget_spent")
        return None if fine else f"{result.status} at the very edge"
    if result.status != "converged":
        return f"{result.status} though it can be met: {result.message}"
    multiplier = np.array(list(result.multipliers.values()))
    if abs(result.point.loss - truth.loss) > 1e-3 * (1 + truth.multipliers.sum()):  # what the tolerance lets slip
        return f"loss {result.point.loss:g}, wanted {truth.loss:g}"
    if not np.allclose(multiplier, truth.multipliers, rtol=0.05, atol=0.01):
        return f"multipliers {multiplier}, wanted {truth.multipliers}"
    return None


def _not_infeasible(problem: RandomProblem, truth: Truth, result: FitResult) -> str | None:
    if result.status != "infeasible":
        return f"{result.status} though it cannot be met"
    if not proves(problem, np.array(result.verdict.evidence.get("farkas", [np.nan]))):
        return "the Farkas weights prove nothing"
    split = problem.split
    p_NV = torch.softmax(result.most_feasible(split.inputs).detach(), -1)
    safety = [
        float(rule.measure.measured(p_NV.log(), split.labels)[rule.covers(split.batch())].mean())
        for rule in problem.constraints
    ]
    if not np.allclose(safety, result.verdict.evidence["best_safety"], atol=1e-9):
        return f"most_feasible reaches {safety}, the evidence says otherwise"
    worst = max(problem.wanted - safety)
    return None if -truth.room - 1e-6 <= worst <= -1.5 * truth.room + 0.01 else f"worst {worst}, room {truth.room}"


def proves(problem: RandomProblem, farkas: np.ndarray) -> bool:
    """Say whether weights y show that  y . safety  stays below  y . threshold,  by a maximum over classes per input."""
    if farkas.shape != problem.wanted.shape or not (farkas >= 0).all() or not abs(farkas.sum() - 1) < 1e-6:
        return False
    most = np.einsum("m,mrv->rv", farkas, problem.gain_MRV).max(-1).sum()
    return bool(most < farkas @ problem.wanted - 1e-6)


@functools.cache
def judged(seed: int, epochs: int = 2000) -> tuple[RandomProblem, Truth, FitResult]:
    problem = draw_problem(seed)
    return problem, truth_of(problem), trainer_of(problem).fit(problem.split, epochs=epochs)


@pytest.mark.parametrize("seed", FEW)
def test_verdicts_agree_with_the_truth(seed):
    assert disagreement(*judged(seed)) is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_many_verdicts_agree_with_the_truth(seed):
    assert disagreement(*judged(seed, epochs=3000)) is None


def test_the_draw_has_problems_of_every_truth():
    rooms = [judged(seed)[1].room for seed in FEW]
    assert any(room < -CLEAR for room in rooms)
    assert any(abs(room) < CLEAR for room in rooms)
    assert sum(room > CLEAR for room in rooms) >= 4


def test_the_judge_refuses_other_verdicts():
    """A verdict that is exchanged for another, a wrong proof, a wrong loss, a wrong multiplier."""
    (can, truth, good), (cannot, none, bad) = judged(1), judged(3)
    assert disagreement(can, truth, good) is None
    assert disagreement(cannot, none, bad) is None

    def saying(result: FitResult, status: str) -> FitResult:
        return dataclasses.replace(result, verdict=dataclasses.replace(result.verdict, status=status))

    for status in ("infeasible", "budget_spent", "no_multiplier", "cap_active", "stationary_unverified"):
        assert disagreement(can, truth, saying(good, status)) is not None
    for status in ("converged", "budget_spent", "no_multiplier"):
        assert disagreement(cannot, none, saying(bad, status)) is not None
    for status in ("converged", "infeasible"):
        assert disagreement(can, dataclasses.replace(truth, room=0.0), saying(good, status)) is not None
    assert not proves(cannot, np.array([1.0, 0.0]))  # one class alone can have everything
    assert not proves(cannot, np.array([-1.0, 2.0]))
    assert not proves(cannot, np.array([0.0, 0.0]))
    assert "loss" in disagreement(can, dataclasses.replace(truth, loss=truth.loss + 0.1), good)
    assert "multipliers" in disagreement(can, dataclasses.replace(truth, multipliers=truth.multipliers * 1.2), good)
