"""Cooper and humancompatible-train, each as its own documentation recommends.

Cooper's FAQ: the primal optimizer as without constraints; plain gradient ascent on the multipliers, at ten times the
primal learning rate divided by the number of constraints; dual before primal (``AlternatingDualPrimalOptimizer``).
Its tutorials: nuPI with lr 0.01 and Kp 10; the augmented Lagrangian method, in which the dual rate equals the penalty
coefficient, from 1, with a ``MultiplicativePenaltyCoefficientUpdater`` of growth 1.001 and tolerance 1e-4.
humancompatible-train: ``forward_update`` with the values of its own benchmark and defaults.
Everything is made in the dtype of the problem, so that nobody loses digits.  Axes: M inequalities, E equalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._problems import Problem, Sample
from ._steps import Build, Contender, Walker


@dataclass
class _Now:
    """The sample of this step."""

    sample: Sample


class _Cooper:
    """Rolls a constrained problem of Cooper's, which evaluates the sample that ``now`` holds."""

    def __init__(self, problem: Problem, now: _Now, roller: Any, cmp: Any, updater: Any, cost: int) -> None:
        self.now, self.samples = now, problem.stream()
        self.roller, self.cmp, self.updater, self.cost = roller, cmp, updater, cost

    def step(self) -> None:
        self.now.sample = next(self.samples)
        rolled = self.roller.roll()
        if self.updater is not None:
            self.updater.step(rolled.cmp_state.observed_constraints)

    def multipliers(self) -> tuple[Tensor, Tensor]:
        none = torch.zeros(0)
        held = {name: multiplier.weight.detach() for name, multiplier in self.cmp.named_multipliers()}
        return held.get("inequality", none), held.get("equality", none)


def cooper_problem(evaluate: Any, M: int, E: int, dtype: torch.dtype, augmented: bool) -> Any:
    """Return a CMP whose state ``evaluate`` works out: a function without arguments that returns f, g and h."""
    import cooper

    kinds = {
        "inequality": (M, cooper.ConstraintType.INEQUALITY),
        "equality": (E, cooper.ConstraintType.EQUALITY),
    }

    class Stated(cooper.ConstrainedMinimizationProblem):
        def __init__(self) -> None:
            super().__init__()
            for name, (size, kind) in kinds.items():
                if size:
                    setattr(self, name, _constraint(cooper, size, kind, dtype, augmented))

        def compute_cmp_state(self) -> Any:
            f, g_M, h_E = evaluate()
            values = {"inequality": g_M, "equality": h_E}
            observed = {
                constraint: cooper.ConstraintState(violation=values[name])
                for name, constraint in self.named_constraints()
            }
            return cooper.CMPState(loss=f, observed_constraints=observed)

    return Stated()


def _constraint(cooper: Any, size: int, kind: Any, dtype: torch.dtype, augmented: bool) -> Any:
    multiplier = cooper.multipliers.DenseMultiplier(num_constraints=size, dtype=dtype)
    if not augmented:
        return cooper.Constraint(constraint_type=kind, multiplier=multiplier)
    coefficient = cooper.penalty_coefficients.DensePenaltyCoefficient(init=torch.ones(size, dtype=dtype))
    return cooper.Constraint(
        constraint_type=kind,
        formulation_type=cooper.formulations.AugmentedLagrangian,
        multiplier=multiplier,
        penalty_coefficient=coefficient,
    )


def _cooper(kind: str) -> Build:
    def build(problem: Problem, x: Sequence[Tensor], scale: float) -> Walker:
        import cooper

        now = _Now(Sample(problem.evaluate))

        def evaluate() -> Any:
            return now.sample.evaluate(x)

        cmp = cooper_problem(evaluate, problem.M, problem.E, x[0].dtype, kind == "augmented")
        duals, rows = list(cmp.dual_parameters()), problem.M + problem.E
        fast = 10 * problem.rate / rows * scale
        roller, updater = cooper.optim.AlternatingDualPrimalOptimizer, None
        primal: Any = problem.optimizer(x)
        if kind == "nuPI":
            dual = cooper.optim.nuPI(duals, lr=0.01 * scale, Kp=10.0, maximize=True)
        elif kind == "augmented":
            dual = torch.optim.SGD(duals, lr=scale, maximize=True)
            updater = cooper.penalty_coefficients.MultiplicativePenaltyCoefficientUpdater(
                growth_factor=1.001, violation_tolerance=1e-4
            )
        elif kind == "extragradient":
            roller = cooper.optim.ExtrapolationConstrainedOptimizer
            primal = cooper.optim.ExtraAdam(x, lr=problem.rate)
            dual = cooper.optim.ExtraSGD(duals, lr=fast, maximize=True)
        else:
            dual = torch.optim.SGD(duals, lr=fast, maximize=True)
        rolls = roller(cmp=cmp, primal_optimizers=primal, dual_optimizers=dual)
        return _Cooper(problem, now, rolls, cmp, updater, cost=2 if kind == "extragradient" else 1)

    return build


class _Humancompatible:
    """The problem's optimizer under one of humancompatible-train's dual ones, inequalities in its first group."""

    cost = 1

    def __init__(self, problem: Problem, x: Sequence[Tensor], dual: Any) -> None:
        self.problem, self.x, self.dual = problem, x, dual
        self.optimizer, self.samples = problem.optimizer(x), problem.stream()

    def step(self) -> None:
        f, g_M, h_E = next(self.samples).evaluate(self.x)
        loss = self.dual.forward_update(f, torch.cat([g_M, h_E]))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def multipliers(self) -> tuple[Tensor, Tensor]:
        duals = self.dual.duals.detach()
        return duals[: self.problem.M].clone(), duals[self.problem.M :].clone()


def _humancompatible(kind: str) -> Build:
    def build(problem: Problem, x: Sequence[Tensor], scale: float) -> Walker:
        from humancompatible.train import dual_optim

        made, settings = {
            "ALM": (dual_optim.ALM, {"lr": 0.01 * scale, "penalty": 1.0}),
            "nuPI": (dual_optim.nuPI, {"ki": 0.01 * scale, "kp": scale, "nu": 0.01}),
        }[kind]
        dtype, wide = x[0].dtype, (-1e4, 1e4)
        sizes = [(size, is_ineq) for size, is_ineq in ((problem.M, True), (problem.E, False)) if size]
        dual = None
        for size, is_ineq in sizes:
            start = torch.zeros(size, dtype=dtype)
            if dual is None:
                dual = made(m=size, init_duals=start, is_ineq=is_ineq, dual_range=wide, **settings)
            else:
                dual.add_constraint_group(m=size, init_duals=start, is_ineq=is_ineq, dual_range=wide)
        return _Humancompatible(problem, x, dual)

    return build


def _pbm(problem: Problem, x: Sequence[Tensor], scale: float) -> Walker:
    from humancompatible.train import dual_optim

    if problem.E:
        raise NotImplementedError("it has no equalities")
    dtype = x[0].dtype
    # it multiplies its multipliers, so they start above zero; gamma keeps that share of the old ones a step
    dual = dual_optim.PBM(
        m=problem.M,
        penalty_mult=0.9,
        gamma=0.9 if scale == 1 else (0.99 if scale < 1 else 0.5),
        init_duals=torch.full((problem.M,), 0.01, dtype=dtype),
        init_penalties=torch.ones(problem.M, dtype=dtype),
        dual_range=(1e-9, 1e4),
        gamma_annealing=False,
        penalty_annealing=False,
    )
    return _Humancompatible(problem, x, dual)


_FAQ = "Cooper's FAQ"
PEERS = [
    Contender(
        "Cooper, Lagrangian",
        _cooper("lagrangian"),
        "dual first, SGD at 10 times the primal rate / rows; grid 0.1 and 10 times that",
        _FAQ,
        "cooper-optim",
    ),
    Contender(
        "Cooper, augmented",
        _cooper("augmented"),
        "dual first, penalty from 1, growth 1.001 above 1e-4, dual SGD at lr 1; grid lr 0.1 and 0.01",
        "Cooper's tutorial",
        "cooper-optim",
        scales=(1.0, 0.1, 0.01),
    ),
    Contender(
        "Cooper, nuPI",
        _cooper("nuPI"),
        "dual first, nuPI(lr=0.01, Kp=10, Ki=1); grid lr 0.001 and 0.1",
        "Cooper's tutorial",
        "cooper-optim",
    ),
    Contender(
        "Cooper, extragradient",
        _cooper("extragradient"),
        "ExtraAdam and ExtraSGD at 10 times the primal rate / rows; two evaluations a step; grid as above",
        _FAQ,
        "cooper-optim",
    ),
    Contender(
        "humancompatible, ALM",
        _humancompatible("ALM"),
        "lr=0.01, penalty=1 (HPR), multipliers up to 1e4; grid lr 0.001 and 0.1",
        "its benchmark",
        "humancompatible-train",
    ),
    Contender(
        "humancompatible, nuPI",
        _humancompatible("nuPI"),
        "ki=0.01, kp=1, nu=0.01, its defaults, multipliers up to 1e4; grid both 0.1 and 10 times that",
        "its defaults",
        "humancompatible-train",
    ),
    Contender(
        "humancompatible, PBM",
        _pbm,
        "penalty_mult=0.9, gamma=0.9, no annealing (there are no epochs), multipliers from 0.01; grid gamma 0.99, 0.5",
        "its benchmark",
        "humancompatible-train",
    ),
]
