"""Trace points: a student, its multipliers and its KKT residuals, read on whole splits.  Axes: M constraints."""

from __future__ import annotations

import dataclasses
import hashlib
import time

import torch
from torch import Tensor

from solvers.kkt import KKTResiduals, kkt_residuals, residuals_from_norms
from solvers.primal_dual import PrimalDual

from .._constraint_layout import ConstraintLayout
from .._full_pass import FullPass, measure_gaps, pose_all_on_train, read_full_pass
from .._training_problem import TrainingProblem
from ..trace import Memory, TracePoint
from ._averaged_iterate import AveragedIterate
from ._fit_inputs import FitData
from ._gradient_sampling import Sampled, SampledGradients, estimate_gradients
from .step import StudentMover

EPOCH_STRIDE = 1_000_003  # a prime beyond any number of epochs: seeds of two runs never meet


class PointReader:
    """Reads the student as it is into trace points.

    Args:
        problem: What is trained.
        data: Of the fit.
        engine: Holds multipliers and penalties.
        average: Holds the multipliers that go with the averaged student; None on full batches.
        sampled: How gradients are estimated; None for exact ones.
        mover: Counts clipped and skipped steps.
        partial: Whether ``data`` are a sample.
    """

    def __init__(
        self,
        problem: TrainingProblem,
        data: FitData,
        engine: PrimalDual,
        average: AveragedIterate | None,
        sampled: Sampled | None,
        mover: StudentMover,
        partial: bool = False,
    ) -> None:
        self._problem, self._data, self._engine, self._average = problem, data, engine, average
        self._mover, self._partial = mover, partial
        self._sampled, self._layout = sampled, ConstraintLayout(problem.constraints, problem.device)
        self._started = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, without those in which nothing ran."""
        return time.perf_counter() - self._started

    @elapsed.setter
    def elapsed(self, seconds: float) -> None:
        self._started = time.perf_counter() - seconds

    def read(self, step: int, epoch: int) -> tuple[FullPass, TracePoint]:
        """Return the full pass and the trace point made of it.

        Args:
            step: Optimizer steps so far.
            epoch: Passes over the training data so far.

        Raises:
            InvalidInput: A teacher changed that was not said to move.
        """
        problem, data = self._problem, self._data
        problem.objective.ensemble.require_unchanged()
        for p in problem.trained.parameters.values():
            p.grad = None  # a gradient less beside those that are read
        lambda_M = self.order_by_constraint(torch.cat(self._multipliers()))
        full, sampling = self._read_gradients(step, lambda_M)
        norm, norms, error = full.gradient_norm, list[float](), 0.0
        if sampling is None:
            residuals = self._residuals(full)
        else:  # noise would make the norm of a mean large
            residuals = self._residuals(full, sampling.gradient_norm, sampling.lagrangian_norm)
            norm, norms = sampling.gradient_norm, sampling.constraint_norms
            error = sampling.lagrangian_se / (1 + norm)
        if sampling is None and full.jacobian_Mn is not None:
            norms = full.jacobian_Mn.norm(dim=1).tolist()
        validation = None
        if "validation" in data.splits:
            rules = pose_all_on_train(problem.constraints)
            validation = read_full_pass(problem.objective, data.splits["validation"], {}, rules, with_gradients=False)
        readings = [] if validation is None else validation.readings
        point = TracePoint(
            step=step,
            epoch=epoch,
            loss=full.loss,
            readings=full.readings,
            multipliers=lambda_M.tolist(),
            rho=self._layout.join_kinds(self._engine.rho, self._engine.equality_rho).tolist(),
            residuals=residuals,
            gradient_norm=norm,
            wall_s=self.elapsed,
            validation_loss=None if validation is None else validation.loss,
            validation=[dataclasses.replace(r, split="validation") for r in readings],
            loss_se=full.loss_se,
            constraint_gradient_norms=norms,
            capped=self.order_by_constraint(self._engine.capped).tolist(),
            peak_weights=self.order_by_constraint(self._engine.peak_weights).tolist(),
            multiplier_scales=self.order_by_constraint(self._engine.multiplier_scales).tolist(),
            running=self.order_by_constraint(self._engine.smoothed).tolist(),
            sampled=sampling is not None or self._partial,
            stationarity_se=error,
            memory=Memory.read(problem.device),
            clipped_steps=self._mover.clipped,
            skipped_steps=self._mover.skipped,
        )
        return full, point

    def order_by_constraint(self, value_C: Tensor) -> Tensor:
        """Return what the engine holds in the order of the constraints, (M,).

        Args:
            value_C: One entry a constraint, inequalities first.
        """
        return self._layout.join_kinds(*value_C.tensor_split([len(self._layout.inequalities)]))

    def _multipliers(self) -> tuple[Tensor, Tensor]:
        """Return lambda (M,) and mu (E,) that go with the student that is read."""
        source = self._engine if self._average is None else self._average
        return source.multipliers, source.equality_multipliers

    def _read_gradients(self, step: int, lambda_M: Tensor) -> tuple[FullPass, SampledGradients | None]:
        """Read values exactly, and gradients either so or from random batches, where those are fewer examples."""
        problem, data, draw = self._problem, self._data, self._sampled
        exact = draw is None or draw.examples >= len(data.train)
        full = read_full_pass(
            problem.objective,
            data.train,
            data.splits,
            problem.constraints,
            with_gradients=exact,
            multipliers=None if problem.holds_jacobian else lambda_M,
        )
        if exact or draw is None:
            return full, None
        seed = mix_seed(problem.seed, step, odd=True)  # reading more often changes no row
        data.require_whole("`stationarity`")
        splits = {name: source.own for name, source in data.splits.items()}  # each rank draws the same, and all of it
        sampled = estimate_gradients(
            problem.objective, data.train.own, splits, problem.constraints, lambda_M, draw, seed
        )
        return dataclasses.replace(full, gradient_n=sampled.gradient_n, jacobian_Mn=sampled.jacobian_Mn), sampled

    def _residuals(
        self, full: FullPass, gradient_norm: float | None = None, lagrangian_norm: float | None = None
    ) -> KKTResiduals:
        """Return the residuals; norms that are given stand in for those of the pass."""
        g_M, h_E = self._layout.split_by_kind(measure_gaps(self._problem.constraints, full, self._problem.device))
        lambda_M, mu_E = self._multipliers()
        if lagrangian_norm is None or gradient_norm is None:
            gradient_norm, lagrangian_norm = full.gradient_norm, full.lagrangian_norm
        if lagrangian_norm is not None:
            return residuals_from_norms(gradient_norm, lagrangian_norm, g_M, lambda_M, h_E)
        gradient_n, jacobian = full.require_gradients()
        jacobian_Mn, jacobian_En = self._layout.split_by_kind(jacobian)
        return kkt_residuals(
            gradient_n,
            jacobian_Mn=jacobian_Mn,
            g_M=g_M,
            lambda_M=lambda_M,
            jacobian_En=jacobian_En,
            h_E=h_E,
            mu_E=mu_E,
        )


def mix_seed(seed: int, number: int, *, odd: bool = False) -> int:
    """Return a seed for one part of a run, such as an epoch, that every generator takes.

    Args:
        seed: Of the run, at least 0.
        number: Of the part, from 0.
        odd: Whether to take another sequence than that of the order of examples.
    """
    if seed >= 2**32:  # torch's generator looks at the lowest 32 bits
        seed = int.from_bytes(hashlib.blake2b(seed.to_bytes(8, "little"), digest_size=4).digest(), "little")
    mixed = seed * EPOCH_STRIDE + number
    return (mixed * 2 + 1 if odd else mixed) % 2**63
