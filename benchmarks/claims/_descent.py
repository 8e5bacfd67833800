"""Stochastic gradient descent on a distillation loss whose every constant is known.

A student holds a row of logits for each of N inputs, so it can represent every target.  A step draws an input and a
class from the target (the stochastic gradient of the cross-entropy), and

    theta <- theta - eta_0 / (1 + t) (gradient + ridge theta)

With H the Hessian and S the covariance of the gradient at the optimum, mu the smallest eigenvalue of H,

    eta_0 mu > 1/2    t E[L(theta_t) - L*] -> 1/2 trace(H Sigma),
                      (eta_0 H - 1/2) Sigma + Sigma (eta_0 H - 1/2) = eta_0^2 S
    eta_0 mu < 1/2    E[L(theta_t) - L*] ~ t^(-2 eta_0 mu)

(Polyak and Juditsky 1992; Chung 1954).  No estimator of the targets from t samples is below N (V - 1) / (2 t) in the
limit (Cramer and Rao), which their observed frequencies reach.  Axes: R runs, N inputs, V classes, T marks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import solve_continuous_lyapunov

from safekd.theory import RateFit, fit_power

GROUPS = 20  # independent groups of runs, whose slopes give the band


def softmax(x: np.ndarray) -> np.ndarray:
    """Return softmax over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@dataclass(frozen=True)
class TabularProblem:
    """targets: (N, V), all above 0.  ridge: coefficient of |theta|^2 / 2."""

    targets: np.ndarray
    ridge: float = 0.0

    def loss(self, theta: np.ndarray) -> np.ndarray:
        """Return the expected loss of students (..., N, V): cross-entropy, averaged over inputs, and the ridge."""
        top = theta.max(-1, keepdims=True)
        log_p = theta - top - np.log(np.exp(theta - top).sum(-1, keepdims=True))
        return -(self.targets * log_p).sum(-1).mean(-1) + self.ridge / 2 * (theta**2).sum((-1, -2))

    @cached_property
    def optimum(self) -> np.ndarray:
        """The minimizer whose rows sum to 0, (N, V), by Newton's method."""
        theta = np.log(self.targets) - np.log(self.targets).mean(-1, keepdims=True)
        n, v = theta.shape
        for _ in range(50 if self.ridge else 0):
            p = softmax(theta)
            gradient = (p - self.targets) / n + self.ridge * theta
            for i in range(n):
                hessian = (np.diag(p[i]) - np.outer(p[i], p[i])) / n + self.ridge * np.eye(v)
                theta[i] -= np.linalg.solve(hessian, gradient[i])
        return theta

    @cached_property
    def hessian(self) -> np.ndarray:
        """The Hessian at the optimum on rows that sum to 0, (N (V - 1), N (V - 1))."""
        n, v = self.targets.shape
        p = softmax(self.optimum)
        whole = np.zeros((n * v, n * v))
        for i in range(n):
            whole[i * v : (i + 1) * v, i * v : (i + 1) * v] = (np.diag(p[i]) - np.outer(p[i], p[i])) / n
        basis = self._basis
        return basis.T @ (whole + self.ridge * np.eye(n * v)) @ basis

    @property
    def curvature(self) -> float:
        """Mu, the smallest eigenvalue of the Hessian at the optimum."""
        return float(np.linalg.eigvalsh(self.hessian)[0])

    def constant(self, eta_0: float) -> float:
        """Return the limit of ``t E[L(theta_t) - L*]``, where ``eta_0 mu > 1/2``."""
        n, v = self.targets.shape
        p = softmax(self.optimum)
        second, mean = np.zeros((n * v, n * v)), np.zeros(n * v)
        for i in range(n):
            rows = slice(i * v, (i + 1) * v)
            gap = p[i][None] - np.eye(v)  # one row a class that is drawn
            second[rows, rows] = (gap.T * self.targets[i]) @ gap / n
            mean[rows] = (p[i] - self.targets[i]) / n
        noise = self._basis.T @ (second - np.outer(mean, mean)) @ self._basis
        drift = eta_0 * self.hessian - np.eye(len(noise)) / 2
        sigma = solve_continuous_lyapunov(drift, eta_0**2 * noise)
        return float(np.trace(self.hessian @ sigma)) / 2

    @cached_property
    def _basis(self) -> np.ndarray:
        n, v = self.targets.shape
        row = np.linalg.qr(np.column_stack([np.ones(v), np.eye(v)[:, : v - 1]]))[0][:, 1:]
        return np.kron(np.eye(n), row)


@dataclass(frozen=True)
class Descent:
    """marks: step numbers, (T,).  excess: ``L(theta_t) - L*`` there, (R, T).  last: the students, (R, N, V)."""

    marks: np.ndarray
    excess: np.ndarray
    last: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Average excess over runs, (T,)."""
        return self.excess.mean(0)

    def rate(self, share: float = 1 / 30) -> RateFit:
        """Return the slope of log excess against log t over the marks from ``share`` of the steps on."""
        late = self.marks >= share * self.marks[-1]
        groups = np.array_split(self.excess[:, late], min(GROUPS, len(self.excess)))
        return fit_power(self.marks[late], np.array([group.mean(0) for group in groups]))


def mark_steps(steps: int) -> np.ndarray:
    """Return some twenty step numbers, evenly spread over the logarithm."""
    return np.unique(np.geomspace(10, steps, 24).astype(int))


def descend(problem: TabularProblem, eta_0: float, steps: int, runs: int, seed: int) -> Descent:
    """Run stochastic gradient descent with ``eta_t = eta_0 / (1 + t)`` from logits of 0, ``runs`` times."""
    random = np.random.default_rng(seed)
    n, v = problem.targets.shape
    theta, cumulated = np.zeros((runs, n, v)), problem.targets.cumsum(-1)
    best, marks, excess = problem.loss(problem.optimum), mark_steps(steps), []
    every, one, wanted = np.arange(runs), np.eye(v), set(marks.tolist())
    for t in range(steps):
        if t % 1024 == 0:
            input_TR, uniform_TR = random.integers(0, n, (1024, runs)), random.random((1024, runs))
        drawn = input_TR[t % 1024]
        label = (uniform_TR[t % 1024][:, None] > cumulated[drawn, :-1]).sum(-1)
        rate = eta_0 / (1 + t)
        gradient = softmax(theta[every, drawn]) - one[label]
        if problem.ridge:
            theta *= 1 - rate * problem.ridge
        theta[every, drawn] -= rate * gradient
        if t + 1 in wanted:
            excess.append(problem.loss(theta) - best)
    return Descent(marks, np.array(excess).T, theta)


def count_frequencies(problem: TabularProblem, steps: int, runs: int, seed: int) -> Descent:
    """Estimate the targets by the frequencies of what was drawn (half a count added to each class)."""
    random = np.random.default_rng(seed)
    n, v = problem.targets.shape
    counts, marks, excess, before = np.full((runs, n, v), 0.5), mark_steps(steps), [], 0
    cells = problem.targets.flatten() / n
    for mark in marks:
        counts += random.multinomial(mark - before, cells, runs).reshape(runs, n, v)
        before = mark
        excess.append(problem.loss(np.log(counts)) - problem.loss(problem.optimum))
    return Descent(marks, np.array(excess).T, np.log(counts))


def descend_scalar(gradient: object, eta_0: float, start: float, steps: int) -> np.ndarray:
    """Run gradient descent with ``eta_0 / (1 + t)`` on one parameter and return its path, up to an overflow."""
    path = [start]
    for t in range(steps):
        moved = path[-1] - eta_0 / (1 + t) * gradient(path[-1])  # type: ignore[operator]
        if not np.isfinite(moved) or abs(moved) > 1e100:
            path.append(float("inf"))
            break
        path.append(moved)
    return np.array(path)
