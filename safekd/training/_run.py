"""The training loop: student steps under multipliers, evaluated by full passes.

Axes: N examples, M constraints.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solvers.kkt import KKTResiduals, kkt_residuals
from solvers.primal_dual import PrimalDual

from ..data import move_split
from ..errors import InvalidInput
from ._averaging import AveragedIterate
from ._closing import Closing
from ._data_use import data_use
from ._evidence import Evidence
from ._keeper import Keeper
from ._objective import FullPass, on_one_split
from ._outlook import Outlook
from ._result import FitResult, Verdict
from ._rows import Rows
from ._sampling import Sampled, SampledGradients, default_interval, sampled_gradients
from ._step import Stepper
from ._verdict import LEAST_POINTS, Ended, ending, is_converged
from ._warm_start import WarmStart
from .trace import Callback, Callbacks, Memory, RunInfo, Trace, TracePoint

if TYPE_CHECKING:
    from ._trainer import ConstrainedTrainer


_FINE = 0.01  # of a threshold: violations below this share of it are small
_REST = 5.0
_LEAST_LOSS = 0.01  # nats: a loss that falls to 0 would never be at rest by shares of itself


class Run:
    """One call of ``fit``: what changes while it lasts."""

    def __init__(
        self,
        trainer: ConstrainedTrainer,
        train: Any,
        validation: Any,
        splits: Mapping[str, Any],
        *,
        epochs: int,
        tolerance: float,
        trace_every: int | None,
        stationarity: Sampled | None,
        snapshots: int | None,
        warm_start: WarmStart | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self.trainer, self.objective, self.tolerance = trainer, trainer.objective, tolerance
        taken = {"train"} if validation is None else {"train", "validation"}
        if twice := sorted(taken & set(splits)):
            raise InvalidInput(f"`splits` names '{twice[0]}', which fit takes as an argument of its own; give it once.")
        self.train = move_split(train, "train", trainer.device)
        named = dict(splits) if validation is None else {"validation": validation, **splits}
        self.splits = {name: move_split(data, name, trainer.device) for name, data in named.items()}
        for rule in trainer.constraints:
            if rule.split != "train" and rule.split not in self.splits:
                raise InvalidInput(
                    f"Constraint '{rule.name}' is posed on split '{rule.split}', which was not given; "
                    f"there is {['train', *self.splits]}. Pass it as fit(..., splits={{'{rule.split}': data}})."
                )
            where = self.train if rule.split == "train" else self.splits[rule.split]
            rule.require_examples(where)
        self.batch_size = min(trainer.batch_size or len(self.train), len(self.train))
        per_epoch = math.ceil(len(self.train) / self.batch_size)
        self.epochs, self.steps = epochs, epochs * per_epoch
        self.sampled = stationarity
        self.trace_every = self._default_interval() if trace_every is None else trace_every
        self.rows = Rows(trainer.constraints, trainer.device)
        self.engine = PrimalDual(
            len(self.rows.inequalities),
            len(self.rows.equalities),
            method=trainer.dual_for(len(self.train)),
            device=trainer.device,
            least_range=[_FINE * abs(rule.required) for rule in self.rows.in_order(trainer.constraints)],
            horizon=self.steps,
        )
        if warm_start is not None:
            warm_start.begin(trainer.student, self.engine, self.rows, trainer.learning)
        self.average = AveragedIterate(trainer.student, self.engine) if self.batch_size < len(self.train) else None
        self.stepper = Stepper(trainer, self.engine, self.train, self.splits)
        self.closing = Closing(
            self.objective, self.train, self.splits, trainer.constraints, tolerance, not stationarity
        )
        self.callbacks, self.trace = Callbacks(callbacks), Trace()
        self.keeper = Keeper(trainer.learning.state, snapshots)
        self.evidence = Evidence(self.objective, {**self.splits, "train": self.train}, trainer.constraints, self.keeper)
        self.next_outlook = max(10, min(50, self.steps // 20))  # fewer steps than ten show little of a violation
        self.proof: Outlook | None = None
        self.started, self.step, self.first_gap = time.perf_counter(), 0, 0.0

    def go(self) -> Verdict:
        """Run to the end and judge."""
        for part, training in self.trainer.modes:
            part.training = training
        self.trainer.learning.train()
        self.callbacks.start(self._info())
        within = 0  # points in a row at which the run was at rest
        last = self._evaluate(0)
        if self.callbacks.stopped() is not None:
            return self._stopped()
        for epoch in range(1, self.epochs + 1):
            for index, other in self._batches(epoch):
                culprit = self.stepper.take(index, other)
                if culprit is not None:
                    return self._diverged(epoch, culprit)
                self.step += 1
                if self.average is not None:
                    self.average.add()
                if self.step % self.trace_every == 0 or self.step == self.steps:
                    last = self._evaluate(epoch)
                    point = self.trace.points[-1]
                    if not point.finite:
                        culprit = self.objective.complaint or point.unusable
                        return Verdict(
                            "diverged",
                            f"Not finite in the full pass after step {self.step}: {culprit}.",
                            "Lower the learning rate; result.most_feasible is a student from before that happened.",
                        )
                    within = within + 1 if self._at_rest(point) else 0
                    if within == 2 or self._as_feasible_as_any(point):
                        return self._ending(last)
                    if self.callbacks.stopped() is not None:
                        return self._stopped()
        return self._ending(last)

    def _diverged(self, epoch: int, culprit: str) -> Verdict:
        if self.trace.points[-1].step < self.step:
            self._evaluate(epoch)  # so that the result's numbers are those of its student
        return Verdict(
            "diverged",
            f"{culprit} at step {self.step + 1}; the student was left as it was before that step.",
            "Lower the learning rate or the dual step, or mend what is named.",
        )

    def _at_rest(self, point: TracePoint) -> bool:
        """Say whether all residuals are within tolerance, and the loss has no more to gain.

        Residuals of 1e-3 may be reached where the loss still falls by percents, slowly: it must have fallen by no more
        than ``_REST`` tolerances, as a share of itself, over the last tenth of the steps.
        """
        if not is_converged(point, self.tolerance):
            return False
        before = [past.loss for past in self.trace.points if past.step <= 0.9 * point.step]
        return not before or before[-1] - point.loss <= _REST * self.tolerance * max(abs(point.loss), _LEAST_LOSS)

    def _ending(self, last: FullPass) -> Verdict:
        if self.average is not None and self.step < self.steps:
            self.average.install()  # evidence is looked up for the student that the last point is about
        names = [rule.name for rule in self.trainer.constraints]
        at_cap = self._by_constraint(self.engine.capped).tolist()
        capped = [name for name, stands in zip(names, at_cap, strict=True) if stands]
        return ending(Ended(self.trace.points, last.jacobian_Mn, self.tolerance, capped), self.evidence)

    def _as_feasible_as_any(self, point: TracePoint) -> bool:
        """Say whether the thresholds are out of reach and the student as near to them as any student comes.

        Near is meant as the proof weighs violations.
        Asked at the first evaluation after so many steps, then after twice as many, and so on: an answer costs a pass.
        """
        if point.residuals.primal <= self.tolerance:
            return False
        if self.step >= self.next_outlook:
            self.next_outlook, outlook = 2 * self.step, self.evidence.outlook()
            if outlook is not None and outlook.impossible:
                self.proof = outlook
        if self.proof is None:
            return False
        gaps = [reading.required - reading.measured for reading in point.readings]
        weighed = sum(weight * gap for weight, gap in zip(self.proof.weights_M.tolist(), gaps, strict=True))
        return bool(weighed <= self.proof.least + self.tolerance)

    def result(self, verdict: Verdict) -> FitResult:
        """Put the answer together."""
        point = self.trace.points[-1]
        names = [rule.name for rule in self.trainer.constraints]
        if self.average is not None and self.step < self.steps:
            self.average.install()
        self.trainer.student.eval()  # the mode in which all its numbers were read
        self.trainer.learning.eval()
        mixture, note = self.keeper.mixture(self.trainer.student)
        return FitResult(
            verdict=verdict,
            student=self.trainer.student,
            best_feasible=self.keeper.best_feasible(self.trainer.student),
            most_feasible=self.keeper.most_feasible(self.trainer.student),
            multipliers=dict(zip(names, point.multipliers, strict=True)),
            residuals=point.residuals,
            point=point,
            trace=self.trace.table(),
            rule=self.objective.rule,
            weights=self.trainer.learning.state(),
            kept_weights=self.keeper.rule_states(),
            mixture=mixture,
            mixture_note=note,
            uses=data_use(self.trainer, self.train, self.splits),
        )

    def _default_interval(self) -> int:
        rules = self.trainer.constraints
        sizes = {"train": len(self.train)}
        sizes |= {name: len(self.splits[name]) for name in self.splits if name in {rule.split for rule in rules}}
        constrained = {name: sum(rule.split == name for rule in rules) for name in sizes}
        if "validation" in self.splits:  # read a second time, without gradients
            sizes["validation, all constraints"] = len(self.splits["validation"])
        few = math.ceil(self.steps / LEAST_POINTS)  # a verdict needs so many, in short runs too
        return min(few, default_interval(sizes, constrained, self.batch_size, self.sampled))

    def _info(self) -> RunInfo:
        rules = self.trainer.constraints
        return RunInfo(
            steps=self.steps,
            epochs=self.epochs,
            trace_every=self.trace_every,
            tolerance=self.tolerance,
            examples=len(self.train),
            batch_size=self.batch_size,
            constraints=[rule.name for rule in rules],
            required=[rule.required for rule in rules],
            splits=["train", *self.splits],
            seed=self.trainer.seed,
            device=str(self.trainer.device),
        )

    def _stopped(self) -> Verdict:
        found = dataclasses.asdict(self.trace.points[-1].residuals)
        numbers = ", ".join(f"{name} {value:.2g}" for name, value in found.items())
        return Verdict(
            "budget_spent",
            f"{self.callbacks.stopped()} (step {self.step} of {self.steps}: {numbers}).",
            "Go on from here with fit(..., warm_start=kd.WarmStart.of(result)), or take the student as it is.",
        )

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield each batch and, where that was asked for, the one half an epoch away."""
        order = self._order(epoch)
        batches = torch.split(order, self.batch_size)
        if not self.trainer.independent_batches or len(batches) < 2:
            return ((index, None) for index in batches)
        return zip(batches, torch.split(order.roll(len(order) // 2), self.batch_size), strict=True)

    def _order(self, epoch: int) -> Tensor:
        """Return the order of examples, a function of (seed, epoch) alone; full batches keep the data's order."""
        if self.batch_size == len(self.train):
            return torch.arange(len(self.train), device=self.trainer.device)
        generator = torch.Generator().manual_seed(self.trainer.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.train), generator=generator).to(self.trainer.device)

    def _evaluate(self, epoch: int) -> FullPass:
        """Read everything exactly, record it, keep the student if it is the best so far.

        In minibatches the averaged student is read; after the last step the best of what may be handed back.
        """
        if self.step == self.steps:
            full, point = self.closing.best(self.average, lambda: self._point(epoch), self.first_gap)
            self._record(point)
            return full
        with nullcontext() if self.average is None else self.average.installed():
            full, point = self._point(epoch)
            self._record(point)
        if self.step == 0:
            self.first_gap = max((reading.violation for reading in full.readings), default=0.0)
        return full

    def _record(self, point: TracePoint) -> None:
        self.trace.record(point)
        self.keeper.see(self.trainer.student, point)
        self.callbacks.trace(point)

    def _multipliers(self) -> tuple[Tensor, Tensor]:
        """Return lambda (M,) and mu (E,) that go with the student that is read."""
        source = self.engine if self.average is None else self.average
        return source.multipliers, source.equality_multipliers

    def _point(self, epoch: int) -> tuple[FullPass, TracePoint]:
        rules = self.trainer.constraints
        lambda_M = self._by_constraint(torch.cat(self._multipliers()))
        full, sampling = self._read(lambda_M)
        residuals = self._residuals(full, self.closing.gaps(full))
        norm, norms, error = float(full.gradient_n.norm()), full.jacobian_Mn.norm(dim=1).tolist(), 0.0
        if sampling is not None:  # noise would make the norm of a mean large
            norm, norms, error = (
                sampling.gradient_norm,
                sampling.norms,
                sampling.lagrangian_se / (1 + sampling.gradient_norm),
            )
            residuals = dataclasses.replace(residuals, stationarity=sampling.lagrangian_norm / (1 + norm))
        validation = None
        if "validation" in self.splits:
            validation = self.objective.full_pass(
                self.splits["validation"], {}, on_one_split(rules), with_gradients=False
            )
        point = TracePoint(
            step=self.step,
            epoch=epoch,
            loss=full.loss,
            readings=full.readings,
            multipliers=lambda_M.tolist(),
            rho=self.rows.together(self.engine.rho, self.engine.equality_rho).tolist(),
            residuals=residuals,
            gradient_norm=norm,
            wall_s=time.perf_counter() - self.started,
            validation_loss=None if validation is None else validation.loss,
            validation=()
            if validation is None
            else [dataclasses.replace(r, split="validation") for r in validation.readings],
            loss_se=full.loss_se,
            constraint_gradient_norms=norms,
            capped=self._by_constraint(self.engine.capped).tolist(),
            running=self._by_constraint(self.engine.smoothed).tolist(),
            sampled=sampling is not None,
            stationarity_se=error,
            memory=Memory.now(self.trainer.device),
        )
        return full, point

    def _read(self, lambda_M: Tensor) -> tuple[FullPass, SampledGradients | None]:
        """Read values exactly, and gradients either so or from random batches, where those are fewer examples."""
        rules, draw = self.trainer.constraints, self.sampled
        exact = draw is None or draw.examples >= len(self.train)
        full = self.objective.full_pass(self.train, self.splits, rules, with_gradients=exact)
        if exact or draw is None:
            return full, None
        seed = (self.trainer.seed * 1_000_003 + self.step) * 2 + 1  # reading more often changes no row
        found = sampled_gradients(self.objective, self.train, self.splits, rules, lambda_M, draw, seed)
        return dataclasses.replace(full, gradient_n=found.gradient_n, jacobian_Mn=found.jacobian_Mn), found

    def _by_constraint(self, value_C: Tensor) -> Tensor:
        """Return what the engine holds, inequalities first, in the order of the constraints."""
        return self.rows.together(*value_C.tensor_split([len(self.rows.inequalities)]))

    def _residuals(self, full: FullPass, g_M: Tensor) -> KKTResiduals:
        jacobian_Mn, jacobian_En = self.rows.apart(full.jacobian_Mn)
        inequality_M, h_E = self.rows.apart(g_M)
        lambda_M, mu_E = self._multipliers()
        return kkt_residuals(
            full.gradient_n,
            jacobian_Mn=jacobian_Mn,
            g_M=inequality_M,
            lambda_M=lambda_M,
            jacobian_En=jacobian_En,
            h_E=h_E,
            mu_E=mu_E,
        )
