"""The trainer: poses a training problem, and fits it.  Axes: B batch, ... positions, V classes."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
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
from ._fit_result import FitResult
from ._objective import Loss, Objective
from ._rule_learning import RuleLearning
from ._training_problem import TrainingProblem, require_distinct_names
from ._warm_start import WarmStart
from .checkpoints import open_run_folder
from .generalization import CrossFit, OnRound, Tighten, TighteningRounds
from .loop import FitData, FitOptions, Sampled, fit_once
from .trace import Callback, OnTrace, TracePoint


class ConstrainedTrainer:
    """Distil teachers into a student, ``min L_KD  s.t.  safety_i >= at_least_i`` (Definition VIII.4).

    Modules inside the weighting rule learn beside the student, each from a loss of its own or from the distillation
    loss; the student's KKT residuals then refer to the weights as they are at that point, which may still move.

    Args:
        student: Module from inputs (B, ...) to logits (B, ..., V); trained in place, and moved to ``device``.
        teachers: A TeacherEnsemble, or K of Teacher.
        optimizer: Made on the student's parameters.  Weight decay moves the answer away from the KKT point of the
            stated problem: leave it 0.
        weights: Weighting rule from Signals to weights (B, ..., K), for example ``Unified``; uniform if left out.
        weights_optimizer: Made on the rule's parameters; Adam with a rate of 0.01 if left out.
        features: What rules that learn from a representation see of a Batch, (B, ..., D), taken without gradient; the
            inputs, each flattened, if left out.
        perturbation: Noise with which teachers are asked again for rules that need their variance.
        constraints: SafetyConstraint or Budget, names all different.
        dual: How multipliers move; ``PIGain`` if left out.
        divergence: (log target, logits), both (B, ..., V) -> one loss a position (B, ...), nats; ``ForwardKL`` if left
            out.
        scheduler: Of the optimizer's rate, stepped once an optimizer step.
        evidence: Measured teachers, for rules and orderings.
        critical_classes: S, class numbers where orderings apply, besides the critical classes of the constraints.
        critical_contexts: C_safe, context numbers where orderings apply as well.
        batch_size: Examples a step; None for the whole training split.
        independent_batches: Whether multipliers and penalties see values of another batch than the one whose gradients
            they weigh, which takes the bias out of the penalty term and costs a forward pass a step.
        device: Where student and data are put.
        seed: Order of batches.

    Attributes:
        problem: The TrainingProblem that was posed.

    Raises:
        InvalidInput: Something does not fit together; the message names it.
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
        require_distinct_names(constraints)
        if batch_size is not None and batch_size < 1:
            raise InvalidInput(f"`batch_size` is {batch_size}; wanted at least 1, or None for the whole split.")
        if independent_batches and batch_size is None:
            raise InvalidInput("`independent_batches` needs minibatches: give `batch_size`, or leave it out.")
        if not any(p.requires_grad for p in student.parameters()):
            raise InvalidInput("The student has no parameters that require gradients; there is nothing to train.")
        own = {id(p) for p in student.parameters()}
        if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
            raise InvalidInput("The optimizer holds no parameter of the student; make it from student.parameters().")
        student = student.to(device)
        if not student.training:
            student.train()
        objective = Objective(
            student=student,
            ensemble=teachers if isinstance(teachers, TeacherEnsemble) else TeacherEnsemble(teachers),
            rule=Uniform() if weights is None else weights,
            divergence=ForwardKL() if divergence is None else divergence,
            evidence=evidence,
            critical_classes=frozenset(critical_classes).union(*(rule.critical for rule in constraints)),
            critical_contexts=frozenset(critical_contexts),
            features=features,
            perturbation=Perturbation() if perturbation is None else perturbation,
        )
        self.problem = TrainingProblem(
            objective=objective,
            constraints=tuple(constraints),
            optimizer=optimizer,
            scheduler=scheduler,
            dual=PIGain() if dual is None else dual,
            learning=RuleLearning(objective.rule, weights_optimizer, optimizer, torch.device(device)),
            batch_size=batch_size,
            independent_batches=independent_batches,
            device=torch.device(device),
            seed=seed,
            modes=tuple((part, part.training) for part in student.modules()),  # a part that was frozen stays frozen
        )

    @property
    def student(self) -> nn.Module:
        """What is trained."""
        return self.problem.student

    @property
    def objective(self) -> Objective:
        """The distillation loss."""
        return self.problem.objective

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What the student is to meet."""
        return self.problem.constraints

    def with_constraints(self, constraints: Sequence[Constraint]) -> ConstrainedTrainer:
        """Return a trainer of the same student under other constraints, such as the same ones ``at`` other thresholds.

        Args:
            constraints: Names all different; their critical classes are added to this trainer's.

        Raises:
            InvalidInput: Two names are alike.
        """
        return self._with_problem(self.problem.with_constraints(constraints))

    def with_dual(self, dual: DualMethod) -> ConstrainedTrainer:
        """Return a trainer of the same student with another dual method.

        Args:
            dual: How multipliers move.
        """
        return self._with_problem(replace(self.problem, dual=dual))

    def _with_problem(self, problem: TrainingProblem) -> ConstrainedTrainer:
        trainer = copy.copy(self)
        trainer.problem = problem
        return trainer

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

        Args:
            train: Training split: a Split, or what ``as_split`` takes.
            validation: Split that is read beside, and on which constraints with ``split="validation"`` are posed.
            epochs: Passes over the training data at most.
            splits: Further splits by name; a constraint whose ``split`` is that name is posed there.
            tolerance: KKT residuals up to this are none.
            trace_every: Optimizer steps between full passes; left out, as many as make them cost some two hundredths of
                the training, by a count of sizes alone (every 84 steps of full batches with one constraint).  Only what
                is read there is kept, called converged, or stopped, so ask for more where runs are short.
            stationarity: How to estimate gradients where those of the whole split cost too much; None for exact ones.
            snapshots: How many students to keep, besides the best, to make ``FitResult.mixture`` of; None for none.
            warm_start: Where to begin; None for where the student is.
            tighten: How thresholds are raised so that new data show what was asked for, as a rule
                ``CrossFit(also=["validation"])``; ``epochs`` are those of one training, and the trace is that of the
                student handed back.
            run_dir: Folder that keeps the run, as ``FitResult.save`` writes it; checked before anything is trained,
                and locked while the run lasts.  trace.jsonl grows meanwhile; a finished run that lies there stays as
                it is until this one is whole.  If it cannot be written in the end, ``FitResult.save_note`` says why.
            on_trace: Called with every TracePoint, for progress bars.
            on_round: Called with every row of the rounds, columns as ``ROUND_COLUMNS`` explains them.
            callbacks: Told of the run in order, after ``on_trace``; see ``kd.training.trace.Callback``.

        Returns:
            The student with its trace and a verdict.

        Raises:
            InvalidInput: A number is out of range, a split is missing or given twice, a constraint covers no example, a
                warm start is of another problem, a callback is none, or the folder cannot be written to or is in use.
        """
        self.check_fit(epochs=epochs, tolerance=tolerance, trace_every=trace_every, snapshots=snapshots)
        data = FitData.place(train, validation, splits or {}, self.problem.device)
        with nullcontext() if run_dir is None else open_run_folder(run_dir) as folder:
            writers = []
            if folder is not None:
                folder.require_fits(self.student)
                writers.append(folder.trace_writer)
            options = FitOptions(
                epochs=epochs,
                tolerance=tolerance,
                trace_every=trace_every,
                stationarity=stationarity,
                snapshots=snapshots,
                callbacks=[*writers, *([] if on_trace is None else [OnTrace(on_trace)]), *callbacks],
            )
            if tighten is None:
                result = fit_once(self.problem, data, options, warm_start)
            else:
                result = tighten.run(TighteningRounds(self.problem, data, options, warm_start, on_round))
            return result if folder is None else folder.keep(result)

    def check_fit(
        self, *, epochs: int, tolerance: float, trace_every: int | None = None, snapshots: int | None = None
    ) -> None:
        """Raise InvalidInput for numbers that ``fit`` would refuse, without training anything.

        Args:
            epochs: At least 1.
            tolerance: Above 0, finite.
            trace_every: At least 1, or None.
            snapshots: At least two more than there are constraints, or None.

        Raises:
            InvalidInput: A number is out of range.
        """
        if not is_whole(epochs) or epochs < 1:
            raise InvalidInput(f"`epochs` is {epochs!r}; wanted at least 1, a whole number.")
        if not is_number(tolerance) or not 0 < tolerance < math.inf:
            raise InvalidInput(f"`tolerance` is {tolerance!r}; it must be above 0 and finite, for example 1e-3.")
        if trace_every is not None and (not is_whole(trace_every) or trace_every < 1):
            raise InvalidInput(
                f"`trace_every` is {trace_every!r}; wanted at least 1 step between full passes, or None."
            )
        needed = len(self.constraints) + 2
        if snapshots is not None and (not is_whole(snapshots) or snapshots < needed):
            raise InvalidInput(
                f"`snapshots` is {snapshots!r}; wanted at least {needed}, since the best mixture under "
                f"{len(self.constraints)} constraints may need {needed - 1} of them, or None."
            )
