"""Random constrained distillation problems whose truth a convex solver knows.

A student of free logits gives one distribution for each input, so its problem is convex in the distributions:

    min  sum_r share_r KL(q_r || p_r)   s.t.   mean over the covered examples of p(y)  >=  s,   p_r in the simplex

Axes: N examples, R inputs, K teachers, V classes, M constraints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cvxpy as cp
import numpy as np
import torch

import safekd as kd
from safekd.safety import TruthProbability
from safekd.teachers import StoredTeacher

from .problems import FreeLogits

KINDS = ("slack", "tight", "hard", "conflict", "impossible", "edge")


@dataclass(frozen=True)
class RandomProblem:
    """kind: how thresholds were drawn.  q_RV: pooled target of each input.  gain_MRV: weight of each probability."""

    kind: str
    split: kd.Split
    teachers: Sequence[StoredTeacher]
    constraints: Sequence[kd.SafetyConstraint]
    q_RV: np.ndarray
    share_R: np.ndarray
    gain_MRV: np.ndarray

    @property
    def wanted(self) -> np.ndarray:
        """Thresholds, (M,)."""
        return np.array([constraint.at_least for constraint in self.constraints])

    def student(self) -> FreeLogits:
        return FreeLogits(self.q_RV.shape[1], self.q_RV.shape[0])


@dataclass(frozen=True)
class Truth:
    """room: how far the worst constraint can be cleared, negative if it cannot; loss, multipliers: at the optimum."""

    room: float
    loss: float
    multipliers: np.ndarray


def draw_problem(seed: int) -> RandomProblem:
    """Draw teachers, data, constraints and thresholds; seeds walk through the kinds."""
    draw = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    V, K, R = (int(draw.integers(2, 5)) for _ in range(3))
    R = 1 if kind == "conflict" else R - 1
    M = 2 if kind == "conflict" else min(int(draw.integers(1, 4)), V - 1)
    if kind == "impossible":  # one class alone can always be given everything
        V, M = max(V, 3), 2
    per = int(draw.integers(V, 3 * V))
    label_N = np.concatenate([np.r_[np.arange(V), draw.integers(0, V, per - V)] for _ in range(R)])
    row_N = np.repeat(np.arange(R), per)
    inputs = torch.tensor(row_N[:, None], dtype=torch.float32)
    split = kd.Split("train", inputs, torch.tensor(label_N), context=torch.tensor(row_N))
    p_KRV = draw.dirichlet(np.full(V, 2.0), (K, R)) * 0.94 + 0.06 / V
    teachers = [StoredTeacher(f"t{k}", torch.tensor(p_KRV[k][row_N])) for k in range(K)]
    q_RV = p_KRV.mean(0)
    classes = draw.permutation(V)[:M]
    measures = [TruthProbability(critical=[int(c)]) for c in classes]
    everywhere = kind in ("conflict", "impossible")
    contexts = [None if everywhere or draw.random() < 0.6 else [int(draw.integers(R))] for _ in range(M)]
    constraints = [
        kd.SafetyConstraint(f"class {c}", f, 0.5, contexts=where)
        for c, f, where in zip(classes, measures, contexts, strict=True)
    ]
    gain_MRV = np.stack([_gain(constraint, split, R, V) for constraint in constraints])
    problem = RandomProblem(kind, split, teachers, constraints, q_RV, np.bincount(row_N) / len(row_N), gain_MRV)
    return replace(problem, constraints=_thresholds(problem, draw))


def _gain(constraint: kd.SafetyConstraint, split: kd.Split, R: int, V: int) -> np.ndarray:
    covered = constraint.covers(split.batch()).numpy()
    gain_RV = np.zeros((R, V))
    np.add.at(gain_RV, (split.context.numpy()[covered], split.labels.numpy()[covered]), 1 / covered.sum())
    return gain_RV


def _thresholds(problem: RandomProblem, draw: np.random.Generator) -> list[kd.SafetyConstraint]:
    """Move all from what the teachers do towards, onto or past the most that can be had of all together."""
    start_M = np.einsum("mrv,rv->m", problem.gain_MRV, problem.q_RV)
    most = room(problem.gain_MRV, start_M)
    move = {
        "slack": draw.uniform(-0.6, -0.1) * most,
        "tight": draw.uniform(0.1, 0.5) * most,
        "hard": draw.uniform(0.5, 0.9) * most,
        "conflict": most + draw.uniform(0.02, 0.2),
        "impossible": most + draw.uniform(0.005, 0.1),
        "edge": most,
    }[problem.kind]
    wanted_M = (start_M + move).clip(0.02, 1.0)
    return [constraint.with_threshold(float(s)) for constraint, s in zip(problem.constraints, wanted_M, strict=True)]


def room(gain_MRV: np.ndarray, wanted_M: np.ndarray) -> float:
    """Return how far the worst constraint can be cleared by any distributions: a linear program."""
    M, R, V = gain_MRV.shape
    p_RV, t = cp.Variable((R, V), nonneg=True), cp.Variable()
    rows = [cp.sum(cp.multiply(gain_MRV[m], p_RV)) >= wanted_M[m] + t for m in range(M)]
    cp.Problem(cp.Maximize(t), [*rows, cp.sum(p_RV, axis=1) == 1]).solve(solver=cp.CLARABEL)
    return float(t.value)


def truth_of(problem: RandomProblem) -> Truth:
    """Solve the problem on the distributions, by exponential cones; nan where it cannot be met."""
    gain_MRV, wanted_M = problem.gain_MRV, problem.wanted
    free = room(gain_MRV, wanted_M)
    M, R, V = gain_MRV.shape
    if free < 1e-6:
        return Truth(free, float("nan"), np.full(M, np.nan))
    p_RV = cp.Variable((R, V))
    rows = [cp.sum(cp.multiply(gain_MRV[m], p_RV)) >= wanted_M[m] for m in range(M)]
    loss = cp.sum(cp.multiply(problem.share_R[:, None], cp.rel_entr(problem.q_RV, p_RV)))
    program = cp.Problem(cp.Minimize(loss), [*rows, cp.sum(p_RV, axis=1) == 1])
    program.solve(solver=cp.CLARABEL)
    assert program.status == cp.OPTIMAL
    return Truth(free, float(loss.value), np.array([float(row.dual_value) for row in rows]))


def trainer_of(problem: RandomProblem) -> kd.ConstrainedTrainer:
    """A trainer at its defaults, the same for every problem."""
    student = problem.student()
    return kd.ConstrainedTrainer(
        student,
        problem.teachers,
        constraints=problem.constraints,
        optimizer=torch.optim.Adam(student.parameters(), lr=0.05),
    )
