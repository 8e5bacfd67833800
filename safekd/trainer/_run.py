"""The training loop: student steps under multipliers, audited by full passes.

Axes: N examples, M constraints.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solvers.kkt import kkt_residuals
from solvers.primal_dual import PrimalDual

from ..data import placed
from ..errors import InvalidInput
from ..tracer import Trace, TracePoint
from ._data_use import data_use
from ._keeper import Keeper
from ._objective import FullPass, on_one_split
from ._result import FitResult, Verdict
from ._step import Stepper
from ._verdict import ending, is_converged
from ._warm_start import WarmStart

if TYPE_CHECKING:
    from ._trainer import ConstrainedTrainer


class Run:
    """One call of ``fit``: what changes while it lasts."""

    def __init__(
        self,
        trainer: ConstrainedTrainer,
        train: Any,
        audit: Any,
        splits: Mapping[str, Any],
        *,
        epochs: int,
        tolerance: float,
        trace_every: int | None,
        warm_start: WarmStart | None,
        on_trace: Callable[[TracePoint], None] | None,
    ) -> None:
        self.trainer, self.objective, self.tolerance = trainer, trainer.objective, tolerance
        taken = {"train"} if audit is None else {"train", "audit"}
        if twice := sorted(taken & set(splits)):
            raise InvalidInput(f"`splits` names '{twice[0]}', which fit takes as an argument of its own; give it once.")
        self.train = placed(train, "train", trainer.device)
        named = dict(splits) if audit is None else {"audit": audit, **splits}
        self.splits = {name: placed(data, name, trainer.device) for name, data in named.items()}
        for rule in trainer.constraints:
            if rule.split != "train" and rule.split not in self.splits:
                raise InvalidInput(
                    f"Constraint '{rule.name}' is posed on split '{rule.split}', which was not given; "
                    f"there is {['train', *self.splits]}. Pass it as fit(..., splits={{'{rule.split}': data}})."
                )
            where = self.train if rule.split == "train" else self.splits[rule.split]
            if not bool(rule.covers(where.batch()).any()):
                raise InvalidInput(
                    f"Constraint '{rule.name}' covers no example of split '{rule.split}'; nothing would be constrained."
                )
        self.batch_size = min(trainer.batch_size or len(self.train), len(self.train))
        per_epoch = math.ceil(len(self.train) / self.batch_size)
        self.epochs, self.steps = epochs, epochs * per_epoch
        self.trace_every = max(1, min(50, self.steps // 20)) if trace_every is None else trace_every
        # steps between looks at whether a violation stands still: fewer than ten show only the size of a step
        self.patience = max(10, min(50, self.steps // 20))
        self.next_look = 0
        self.engine = PrimalDual(
            len(trainer.constraints), method=trainer.dual_for(len(self.train)), device=trainer.device
        )
        if warm_start is not None:
            warm_start.begin(trainer.student, self.engine, trainer.learning)
        self.stepper = Stepper(trainer, self.engine, self.train, self.splits)
        self.on_trace, self.trace, self.keeper = on_trace, Trace(), Keeper()
        self.started, self.step = time.perf_counter(), 0

    def go(self) -> Verdict:
        """Run to the end and judge."""
        for part, training in self.trainer.modes:
            part.training = training
        self.trainer.learning.train()
        calm = 0
        last = self._audit(0)
        for epoch in range(1, self.epochs + 1):
            for index in torch.split(self._order(epoch), self.batch_size):
                culprit = self.stepper.take(index)
                if culprit is not None:
                    if self.trace.points[-1].step < self.step:
                        self._audit(epoch)  # so that the result's numbers are those of its student
                    return Verdict(
                        "diverged",
                        f"{culprit} at step {self.step + 1}; the student was left as it was before that step.",
                        "Lower the learning rate or the dual step, or mend what is named.",
                    )
                self.step += 1
                if self.step % self.trace_every == 0 or self.step == self.steps:
                    last = self._audit(epoch)
                    point = self.trace.points[-1]
                    if not point.finite:
                        return Verdict(
                            "diverged",
                            f"Not finite in the full pass after step {self.step}: {point.unusable}.",
                            "Lower the learning rate; result.most_feasible is a student from before that happened.",
                        )
                    calm = calm + 1 if is_converged(point, self.trainer.constraints, self.tolerance) else 0
                    if calm == 2:
                        break
            if calm == 2:
                break
        names = [rule.name for rule in self.trainer.constraints]
        capped = [name for name, at_cap in zip(names, self.engine.capped.tolist(), strict=True) if at_cap]
        return ending(self.trace.points, self.trainer.constraints, last.jacobian_Mn, self.tolerance, capped)

    def result(self, verdict: Verdict) -> FitResult:
        """Put the answer together."""
        point = self.trace.points[-1]
        names = [rule.name for rule in self.trainer.constraints]
        self.trainer.student.eval()  # the mode in which all its numbers were read
        self.trainer.learning.eval()
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
            uses=data_use(self.trainer, self.train, self.splits),
        )

    def _order(self, epoch: int) -> Tensor:
        """Return the order of examples, a function of (seed, epoch) alone; full batches keep the data's order."""
        if self.batch_size == len(self.train):
            return torch.arange(len(self.train), device=self.trainer.device)
        generator = torch.Generator().manual_seed(self.trainer.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.train), generator=generator).to(self.trainer.device)

    def _audit(self, epoch: int) -> FullPass:
        """Read everything exactly, record it, keep the student if it is the best so far."""
        rules = self.trainer.constraints
        full = self.objective.full_pass(self.train, self.splits, rules, with_gradients=True)
        g_M = torch.tensor(
            [r.required - r.measured for r in full.readings], dtype=torch.float64, device=self.trainer.device
        )
        if self.step >= self.next_look:  # not at every audit: reading more often must not change the run
            self.engine.audit(g_M, self.tolerance)
            self.next_look = self.step + self.patience
        price_M = self.engine.multipliers
        residuals = kkt_residuals(
            full.gradient_n, jacobian_Mn=full.jacobian_Mn, g_M=g_M, lambda_M=price_M.to(full.gradient_n)
        )
        audit = None
        if "audit" in self.splits:
            audit = self.objective.full_pass(self.splits["audit"], {}, on_one_split(rules), with_gradients=False)
        point = TracePoint(
            step=self.step,
            epoch=epoch,
            loss=full.loss,
            readings=full.readings,
            multipliers=price_M.tolist(),
            rho=self.engine.rho.tolist(),
            residuals=residuals,
            gradient_norm=float(full.gradient_n.norm()),
            wall_s=time.perf_counter() - self.started,
            audit_loss=None if audit is None else audit.loss,
            audit=() if audit is None else [dataclasses.replace(r, split="audit") for r in audit.readings],
        )
        self.trace.record(point)
        self.keeper.see(self.trainer.student, point)
        if self.on_trace is not None:
            self.on_trace(point)
        return full
