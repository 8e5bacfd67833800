"""The trainer: what is trained, on what, under which constraints.  Axes: B batch, ... positions, V classes."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from solvers.primal_dual import DualMethod, PIGain

from .._number_checks import is_number, is_whole
from ..data import Batch
from ..divergences import ForwardKL
from ..errors import InvalidInput
from ..safety import Constraint
from ..teachers import Perturbation, Teacher, TeacherEnsemble
from ..weights import Rule, TeacherEvidence, Uniform
from ._crossfit import CrossFit
from ._learning import RuleLearning
from ._objective import Loss, Objective
from ._result import FitResult
from ._rounds import OnRound, Rounds
from ._run import Run
from ._sampling import Sampled
from ._saving import TRACE_LINES, save_run
from ._tighten import Tighten
from ._warm_start import WarmStart
from .trace import Callback, JsonlWriter, OnTrace, TracePoint


class ConstrainedTrainer:
    """Distil teachers into a student, ``min L_KD  s.t.  safety_i >= at_least_i`` (Definition VIII.4).

    student: module from inputs (B, ...) to logits (B, ..., V).  teachers: a TeacherEnsemble or a list of Teacher.
    weights: rule from Signals to weights (..., K), for example ``Unified``; uniform if left out.  Modules inside it
    learn beside the student, each from a loss of its own or from the distillation loss; the student's KKT residuals
    then refer to the weights as they are at that point, which may still move.  weights_optimizer: made on the rule's
    parameters; Adam with a rate of 0.01 if left out.  features: what rules that learn from a representation see of a
    Batch, (B, ..., D), taken without gradient; the inputs, each flattened, if left out.  perturbation: noise with which
    teachers are asked again for rules that need their variance.
    constraints: SafetyConstraint or Budget, names all different.  optimizer: made on the student's parameters (weight
    decay moves the answer away from the KKT point of the stated problem: leave it 0).  dual: how multipliers move.
    divergence: (log target, logits) -> one loss a position.  evidence: measured teachers, for rules and orderings.
    critical_classes: S, where orderings apply, besides the critical classes of the constraints.  critical_contexts:
    C_safe, where they apply as well.
    batch_size: None for the whole training split a step.  independent_batches: whether multipliers and penalties see
    values of another batch than the one whose gradients they weigh, which takes the bias out of the penalty term and
    costs a forward pass a step.  seed: order of batches.
    Raises InvalidInput for anything that does not fit together.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: TeacherEnsemble | Sequence[Teacher],
        *,
        optimizer: torch.optim.Optimizer,
        weights: Rule | None = None,
        weights_optimizer: torch.optim.Optimizer | None = None,
        features: Callable[[Batch], Tensor] | None = None,
        perturbation: Perturbation | None = None,
        constraints: Sequence[Constraint] = (),
        dual: DualMethod | None = None,
        divergence: Loss | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        evidence: TeacherEvidence | None = None,
        critical_classes: Collection[int] = (),
        critical_contexts: Collection[int] = (),
        batch_size: int | None = None,
        independent_batches: bool = False,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        names = [constraint.name for constraint in constraints]
        if len(set(names)) < len(names):
            raise InvalidInput(f"Constraint names must differ; got {names}.")
        if batch_size is not None and batch_size < 1:
            raise InvalidInput(f"`batch_size` is {batch_size}; wanted at least 1, or None for the whole split.")
        if independent_batches and batch_size is None:
            raise InvalidInput("`independent_batches` needs minibatches: give `batch_size`, or leave it out.")
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
        self.independent_batches = independent_batches
        self.device = torch.device(device)
        self.use_dual(PIGain() if dual is None else dual)
        self.objective = Objective(
            student=self.student,
            ensemble=teachers if isinstance(teachers, TeacherEnsemble) else TeacherEnsemble(teachers),
            rule=Uniform() if weights is None else weights,
            divergence=ForwardKL() if divergence is None else divergence,
            evidence=evidence,
            critical_classes=frozenset(critical_classes).union(*(rule.critical for rule in constraints)),
            critical_contexts=frozenset(critical_contexts),
            features=features,
            perturbation=Perturbation() if perturbation is None else perturbation,
        )
        self.learning = RuleLearning(self.objective.rule, weights_optimizer, optimizer, self.device)

    def fit(
        self,
        train: Any,
        validation: Any = None,
        *,
        epochs: int,
        splits: Mapping[str, Any] | None = None,
        tolerance: float = 1e-3,
        trace_every: int | None = None,
        stationarity: Sampled | None = None,
        snapshots: int | None = None,
        warm_start: WarmStart | None = None,
        tighten: Tighten | CrossFit | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        on_trace: Callable[[TracePoint], object] | None = None,
        on_round: OnRound | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> FitResult:
        """Train until two full passes in a row find the run at rest, or ``epochs`` are over.

        At rest: KKT residuals within ``tolerance``, and a loss that fell by no more than five times that share over the
        last tenth of the steps.  In minibatches passes read the averaged student (``AveragedIterate``).

        train, validation, splits: Split or what ``as_split`` takes; a constraint with ``split="validation"`` or a name
        in ``splits`` is posed there.  trace_every: steps between full passes; left out, as many as make them cost some
        two hundredths of the training, by a count of sizes alone (every 84 steps of full batches with one constraint).
        Only what is read there is kept, called converged, or stopped, so ask for more where runs are short.
        stationarity: how to estimate gradients where those of the whole split cost too much; None for exact ones.
        snapshots: how many students to keep, besides those three, to make ``FitResult.mixture`` of; None for none.
        warm_start: where to begin.  tighten: how thresholds are raised so that new data show what was asked for,
        ``CrossFit(also=["validation"])`` as a rule; ``epochs`` are those of one training, and the trace is that of the
        student handed back.
        run_dir: folder for trace.jsonl, which grows while the run lasts, trace.csv, student.safetensors, verdict.json
        and, where the weighting rule has a state, weights.safetensors, where thresholds were raised, tightening.csv.
        on_trace: called with every point, for progress bars.  on_round: called with every row of the rounds.
        callbacks: told of the run in order, after on_trace; see ``kd.training.trace.Callback``.
        Raises InvalidInput for numbers out of range, a split that is missing or given twice, a constraint that covers
        no example, a warm start of another problem, and a callback that is none.
        """
        self.check_fit(epochs=epochs, tolerance=tolerance, trace_every=trace_every, snapshots=snapshots)
        told = [JsonlWriter(Path(run_dir) / TRACE_LINES)] if run_dir is not None else []

        def once(
            train: Any, validation: Any, splits: Mapping[str, Any] | None, warm_start: WarmStart | None
        ) -> FitResult:
            run = Run(
                self,
                train,
                validation,
                splits or {},
                epochs=epochs,
                tolerance=tolerance,
                trace_every=trace_every,
                stationarity=stationarity,
                snapshots=snapshots,
                warm_start=warm_start,
                callbacks=[*told, *([] if on_trace is None else [OnTrace(on_trace)]), *callbacks],
            )
            verdict = run.go()
            result = run.result(verdict)
            run.callbacks.end(result)
            return result

        if tighten is None:
            result = once(train, validation, splits, warm_start)
        else:
            result = tighten.run(Rounds(self, train, validation, splits or {}, warm_start, once, on_round))
        if run_dir is not None:
            save_run(result, run_dir)
        return result

    def check_fit(
        self, *, epochs: int, tolerance: float, trace_every: int | None = None, snapshots: int | None = None
    ) -> None:
        """Raise InvalidInput for numbers that ``fit`` would refuse, without training anything."""
        if not is_whole(epochs) or epochs < 1:
            raise InvalidInput(f"`epochs` is {epochs!r}; wanted at least 1, a whole number.")
        if not is_number(tolerance) or not 0 < tolerance < math.inf:
            raise InvalidInput(f"`tolerance` is {tolerance!r}; it must be above 0 and finite, for example 1e-3.")
        if trace_every is not None and (not is_whole(trace_every) or trace_every < 1):
            raise InvalidInput(
                f"`trace_every` is {trace_every!r}; wanted at least 1 step between full passes, or None."
            )
        rows = len(self.constraints) + 2
        if snapshots is not None and (not is_whole(snapshots) or snapshots < rows):
            raise InvalidInput(
                f"`snapshots` is {snapshots!r}; wanted at least {rows}, since the best mixture under "
                f"{len(self.constraints)} constraints may need {rows - 1} of them, or None."
            )

    def use_dual(self, dual: DualMethod) -> None:
        """Let multipliers move by ``dual`` from the next ``fit`` on."""
        self.dual = dual

    def dual_for(self, examples: int) -> DualMethod:
        """Return the dual method with its smoothing decided: none on full batches, 0.9 on minibatches."""
        if self.dual.ema is not None:
            return self.dual
        full = self.batch_size is None or self.batch_size >= examples
        chosen = copy.copy(self.dual)
        object.__setattr__(chosen, "ema", 0.0 if full else 0.9)
        return chosen
