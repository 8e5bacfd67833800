"""The training loop: student steps under multipliers, audited by full passes.

Axes: N examples, B batch, M constraints, V classes.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from solvers.kkt import kkt_residuals
from solvers.primal_dual import AugmentedLagrangian, DualMethod, PrimalDual

from ..data import Split, as_split
from ..divergences import ForwardKL
from ..errors import InvalidInput
from ..safety import SafetyConstraint
from ..teachers import Teacher, TeacherEnsemble
from ..tracer import Trace, TracePoint
from ..weights import Evidence, Rule, Uniform
from . import _culprit
from ._keeper import Keeper
from ._objective import FullPass, Loss, Objective, on_one_split
from ._result import FitResult, Verdict
from ._saving import save_run
from ._verdict import ending, is_converged


@dataclass(frozen=True)
class WarmStart:
    """Where a run begins: a student's parameters and the multipliers that belonged to them."""

    parameters: Mapping[str, Tensor]
    multipliers: Sequence[float]

    @classmethod
    def of(cls, result: FitResult) -> WarmStart:
        """Begin where ``result`` ended."""
        state = {name: value.detach().clone() for name, value in result.student.state_dict().items()}
        return cls(state, list(result.multipliers.values()))


class ConstrainedTrainer:
    """Distil teachers into a student, ``min L_KD  s.t.  safety_i >= at_least_i`` (Definition VIII.4).

    student: module from inputs (B, ...) to logits (B, ..., V).  teachers: a TeacherEnsemble or a list of Teacher.
    weights: rule from Signals to weights (..., K), for example ``Unified``; uniform if left out.
    constraints: SafetyConstraint, names all different.  optimizer: made on the student's parameters (weight decay moves
    the answer away from the KKT point of the stated problem: leave it 0).  dual: how multipliers move.
    divergence: (log target, logits) -> one loss a position.  evidence: measured teachers, for rules and orderings.
    critical_contexts: C_safe, where orderings apply besides positions with a critical label.
    batch_size: None for the whole training split a step.  seed: order of batches.
    Raises InvalidInput for anything that does not fit together.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: TeacherEnsemble | Sequence[Teacher],
        *,
        optimizer: torch.optim.Optimizer,
        weights: Rule | None = None,
        constraints: Sequence[SafetyConstraint] = (),
        dual: DualMethod | None = None,
        divergence: Loss | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        evidence: Evidence | None = None,
        critical_contexts: Collection[int] = (),
        batch_size: int | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        names = [constraint.name for constraint in constraints]
        if len(set(names)) < len(names):
            raise InvalidInput(f"Constraint names must differ; got {names}.")
        if batch_size is not None and batch_size < 1:
            raise InvalidInput(f"`batch_size` is {batch_size}; wanted at least 1, or None for the whole split.")
        if not any(p.requires_grad for p in student.parameters()):
            raise InvalidInput("The student has no parameters that require gradients; there is nothing to train.")
        ours = {id(p) for p in student.parameters()}
        if not any(id(p) in ours for group in optimizer.param_groups for p in group["params"]):
            raise InvalidInput("The optimizer holds no parameter of the student; make it from student.parameters().")
        self.student = student.to(device)
        if not student.training:
            student.train()
        self.modes = [(part, part.training) for part in student.modules()]  # a part that was frozen stays frozen
        self.optimizer, self.scheduler = optimizer, scheduler
        self.constraints, self.batch_size, self.seed = list(constraints), batch_size, seed
        self.device = torch.device(device)
        self._dual = AugmentedLagrangian() if dual is None else dual
        self.objective = Objective(
            student=self.student,
            ensemble=teachers if isinstance(teachers, TeacherEnsemble) else TeacherEnsemble(teachers),
            rule=Uniform() if weights is None else weights,
            divergence=ForwardKL() if divergence is None else divergence,
            evidence=evidence,
            critical_classes=frozenset().union(*(rule.measure.critical or () for rule in constraints)),
            critical_contexts=frozenset(critical_contexts),
        )

    def fit(
        self,
        train: Any,
        audit: Any = None,
        *,
        epochs: int,
        splits: Mapping[str, Any] | None = None,
        tolerance: float = 1e-3,
        trace_every: int | None = None,
        warm_start: WarmStart | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        on_trace: Callable[[TracePoint], None] | None = None,
    ) -> FitResult:
        """Train until the KKT residuals of two audits in a row are within ``tolerance``, or ``epochs`` are over.

        train, audit, splits: Split or what ``as_split`` takes; a constraint with ``split="audit"`` or a name in
        ``splits`` is posed there.  trace_every: steps between full passes (every 50 steps, or 20 times a short run).
        warm_start: where to begin.  run_dir: folder for trace.csv, student.safetensors and verdict.json.
        on_trace: called with every point, for progress bars.
        Raises InvalidInput for numbers out of range, a split that is missing or given twice, a constraint that covers
        no example, and a warm start of another problem.
        """
        if epochs < 1:
            raise InvalidInput(f"`epochs` is {epochs}; wanted at least 1.")
        if not (tolerance > 0 and math.isfinite(tolerance)):
            raise InvalidInput(f"`tolerance` is {tolerance!r}; it must be above 0 and finite, for example 1e-3.")
        if trace_every is not None and trace_every < 1:
            raise InvalidInput(f"`trace_every` is {trace_every}; wanted at least 1 step between full passes, or None.")
        run = _Run(self, train, audit, splits or {}, epochs, tolerance, trace_every, warm_start, on_trace)
        verdict = run.go()
        result = run.result(verdict)
        if run_dir is not None:
            save_run(result, run_dir)
        return result

    def dual_for(self, examples: int) -> DualMethod:
        """Return the dual method with its smoothing decided: none on full batches, 0.9 on minibatches."""
        if self._dual.ema is not None:
            return self._dual
        full = self.batch_size is None or self.batch_size >= examples
        chosen = copy.copy(self._dual)
        object.__setattr__(chosen, "ema", 0.0 if full else 0.9)
        return chosen


class _Run:
    """One call of ``fit``: what changes while it lasts."""

    def __init__(
        self,
        trainer: ConstrainedTrainer,
        train: Any,
        audit: Any,
        splits: Mapping[str, Any],
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
        self.train = _placed(train, "train", trainer.device)
        named = dict(splits) if audit is None else {"audit": audit, **splits}
        self.splits = {name: _placed(data, name, trainer.device) for name, data in named.items()}
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
            self._begin_at(warm_start)
        self.on_trace, self.trace, self.keeper = on_trace, Trace(), Keeper()
        self.started, self.step = time.perf_counter(), 0

    def go(self) -> Verdict:
        """Run to the end and judge."""
        for part, training in self.trainer.modes:
            part.training = training
        calm = 0
        last = self._audit(0)
        for epoch in range(1, self.epochs + 1):
            for index in torch.split(self._order(epoch), self.batch_size):
                culprit = self._step(index)
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
        return FitResult(
            verdict=verdict,
            student=self.trainer.student,
            best_feasible=self.keeper.best_feasible(self.trainer.student),
            most_feasible=self.keeper.most_feasible(self.trainer.student),
            multipliers=dict(zip(names, point.multipliers, strict=True)),
            residuals=point.residuals,
            point=point,
            trace=self.trace.table(),
        )

    def _begin_at(self, start: WarmStart) -> None:
        prices, wanted = torch.tensor(list(start.multipliers), dtype=torch.float64), self.engine.multipliers.numel()
        if len(prices) != wanted or not bool((torch.isfinite(prices) & (prices >= 0)).all()):
            raise InvalidInput(
                f"The warm start has multipliers {prices.tolist()}; wanted one for each of the {wanted} constraints, "
                "at least 0 and finite."
            )
        try:
            self.trainer.student.load_state_dict(start.parameters)
        except RuntimeError as error:
            raise InvalidInput(f"The warm start's parameters do not fit the student. {error}") from error
        self.engine.multipliers = prices.to(self.engine.multipliers)

    def _order(self, epoch: int) -> Tensor:
        """Return the order of examples, a function of (seed, epoch) alone; full batches keep the data's order."""
        if self.batch_size == len(self.train):
            return torch.arange(len(self.train), device=self.trainer.device)
        generator = torch.Generator().manual_seed(self.trainer.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.train), generator=generator).to(self.trainer.device)

    def _step(self, index: Tensor) -> str | None:
        """Take one primal-dual step; say what was not finite, everything left as it was before, or return None."""
        student = self.trainer.student
        buffers = {name: value.clone() for name, value in student.named_buffers()}
        culprit = self._try_step(index)
        if culprit is not None:
            for name, value in student.named_buffers():
                value.copy_(buffers[name])  # running averages moved in the forward pass
        return culprit

    def _try_step(self, index: Tensor) -> str | None:
        trainer, objective = self.trainer, self.objective
        logits = {"train": (self.train.batch(index), objective.logits(self.train.batch(index)))}
        loss = objective.loss(self.train, index, logits["train"][1]).mean()
        smooth, exact, present = self._constraint_values(logits)
        if not bool(torch.isfinite(loss)):
            return _culprit.of_loss(trainer.student, logits["train"][1])
        if not bool((torch.isfinite(smooth) & torch.isfinite(exact)).all()):
            return _culprit.of_values(trainer.constraints, smooth, exact)
        total = self.engine.step(loss, inequality=smooth, measured=exact, present=present)
        trainer.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.get_total_norm([p.grad for p in trainer.student.parameters() if p.grad is not None])
        if not bool(torch.isfinite(norm)):
            self.engine.undo()
            return _culprit.of_gradient(trainer.student)
        trainer.optimizer.step()
        if trainer.scheduler is not None:
            trainer.scheduler.step()
        return None

    def _constraint_values(self, logits: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Return g from surrogates, g as measured, and which constraints this step's data speak of, each (M,)."""
        smooth, exact, present = [], [], []
        for rule in self.trainer.constraints:
            if rule.split not in logits:
                batch = self.splits[rule.split].batch()
                logits[rule.split] = (batch, self.objective.logits(batch))
            batch, logits_V = logits[rule.split]
            soft, hard, count = rule.sums(torch.log_softmax(logits_V, dim=-1), batch)
            smooth.append(rule.at_least - soft / count.clamp_min(1))
            exact.append(rule.at_least - hard / count.clamp_min(1))
            present.append(count > 0)
        if not smooth:
            none = torch.zeros(0, device=self.trainer.device)
            return none, none, none.bool()
        return torch.stack(smooth), torch.stack(exact), torch.stack(present)

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


def _placed(data: Any, name: str, device: torch.device) -> Split:
    """Return the data on the device; the same Split if it is there already, since targets are kept by Split."""
    split = as_split(data, name)
    moved = split.to(device)
    parts = ("inputs", "labels", "task", "context")
    return split if all(getattr(moved, part) is getattr(split, part) for part in parts) else moved
