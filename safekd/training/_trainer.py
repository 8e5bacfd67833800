"""The trainer: poses a training problem, and fits it.  Axes: B batch, ... positions, V classes."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from solvers.primal_dual import DualMethod, PIGain

from .._number_checks import require_seed
from .._registry import find_operator
from .._torch_state import keep_modes, require_device
from ..data import Batch, ExampleSource, Fields, Group
from ..distributed import Ranks, adopt_student, find_ranks
from ..errors import InvalidInput
from ..pooling import POOLS, follow_schedule
from ..safety import Constraint
from ..teachers import Perturbation, Teacher, TeacherEnsemble
from ..weights import Rule, TeacherEvidence, Uniform
from ._fit_result import FitResult
from ._objective import CHUNK, Loss, Objective
from ._rule_learning import RuleLearning
from ._student_checks import require_dense_gradients, warn_of_weight_decay
from ._trainer_checks import (
    find_divergence,
    read_autocast,
    require_batch_sizes,
    require_evaluation_examples,
    require_fit_numbers,
    require_patience_split,
    require_plain_step,
    require_polytope_names,
    require_step_numbers,
)
from ._training_problem import TrainingProblem, require_distinct_names
from ._warm_start import WarmStart
from .checkpoints import RunFolder, open_on_first_rank
from .diagnosis import EvidenceBudget
from .generalization import CrossFit, OnRound, Tighten, TighteningRounds
from .loop import FitData, FitOptions, Sampled, begin_checkpoints, fit_once
from .resume import Resume, ResumeOptions
from .trace import Callback, OnTrace, TracePoint


class ConstrainedTrainer:
    """Distil teachers into a student, ``min L_KD  s.t.  safety_i >= at_least_i`` (Definition VIII.4).

    Modules inside the weighting rule learn beside the student, each from a loss of its own or from the distillation
    loss; the student's KKT residuals then refer to the weights as they are at that point, which may still move.  So may
    teachers that say so (``moving=True``).

    Args:
        student: Module from inputs (B, ...) to logits (B, ..., V), or log-probabilities; trained in place, and moved to
            ``device``; ``fit`` gives it back in the mode in which it came.  A last Softmax is warned of, sparse
            embeddings are refused.
        teachers: A TeacherEnsemble, or K of Teacher.
        optimizer: Made on the student's parameters; one whose ``step`` needs no closure.  Weight decay moves the answer
            away from the KKT point of the stated problem: leave it 0; beside constraints it is warned of.
        weights: Weighting rule from Signals to weights (B, ..., K), for example ``Unified``; uniform if left out.
        weights_optimizer: Made on the rule's parameters; Adam with a rate of 0.01 if left out.
        features: What rules that learn from a representation see of a Batch, (B, ..., D), taken without gradient; the
            inputs, each flattened, if left out.
        perturbation: Noise with which teachers are asked again for rules that need their variance.
        constraints: SafetyConstraint or Budget, names all different.
        dual: How multipliers move; ``PIGain`` if left out.
        divergence: A name of ``kd.divergences.DIVERGENCES``, "forward_kl", "reverse_kl" or "jensen_shannon", built at
            its defaults; or one of them; or (log target, logits), both (B, ..., V) -> one loss a position (B, ...).
            ``ForwardKL`` if left out.
        pool: How teachers become one target: a name of ``kd.pooling.POOLS``, such as "geometric"; a pool of
            ``kd.pooling``, such as ``PowerPool(0.5)``, or ``SoftenedPool``, with temperatures by teacher and step; or
            (log-probabilities (B, ..., K, V), weights (B, ..., K)) -> log of the target (B, ..., V).
        scheduler: Of the optimizer's rate, stepped once an optimizer step.
        evidence: Measured teachers, for rules and orderings.
        critical_classes: S, classes where orderings apply, numbers or names, besides the critical classes of the
            constraints.
        critical_contexts: C_safe, contexts where orderings apply as well, numbers or names.
        batch_size: Examples a step; None for the whole training split.  A student with batch normalization, which needs
            two, gets a last example that would be alone with the batch before.
        microbatch_size: Examples that go through the student at once, where a step's do not fit into memory together:
            constraints are sums and counts over the whole step, so the answer is the same, for a forward pass more.
            Evaluations read as many at once.
        clip_norm: Longest gradient of a step, above 0; longer ones are shortened to it, and the trace counts them.
        ema: Share of the past, such as 0.999, that stays from step to step in the averaged student, which evaluations
            read and ``fit`` hands back; left out, the average of about the last tenth of a run in minibatches.
        autocast: "bfloat16" or "float16", in which the student computes where torch's autocast lets it; loss and
            measures are computed in float32.  With float16 the loss is scaled, and steps whose gradients overflow are
            left out and counted.
        independent_batches: Whether multipliers and penalties see values of another batch than the one whose gradients
            they weigh, which takes the bias out of the penalty term and costs a forward pass a step.
        evidence_budget: Memory and time that each probe may take once a run has ended; the default if left out.
        device: Where student and data are put.
        seed: Order of batches, a whole number from 0.
        ranks: The processes that train this student; those of torch's default process group if left out, where there is
            one; ``kd.distributed.Ranks()`` for this one alone.

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
        divergence: Loss | str | None = None,
        pool: Loss | str = "arithmetic",
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        evidence: TeacherEvidence | None = None,
        critical_classes: Collection[Group] = (),
        critical_contexts: Collection[Group] = (),
        batch_size: int | None = None,
        microbatch_size: int | None = None,
        clip_norm: float | None = None,
        ema: float | None = None,
        autocast: str | torch.dtype | None = None,
        independent_batches: bool = False,
        evidence_budget: EvidenceBudget | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        ranks: Ranks | None = None,
    ) -> None:
        require_distinct_names(constraints)
        require_device(device)
        rows = require_batch_sizes(batch_size, microbatch_size)
        require_step_numbers(clip_norm, ema)
        half = read_autocast(autocast)
        require_plain_step(optimizer)
        if independent_batches and batch_size is None:
            raise InvalidInput("`independent_batches` needs minibatches: give `batch_size`, or leave it out.")
        if not any(p.requires_grad for p in student.parameters()):
            raise InvalidInput("The student has no parameters that require gradients; there is nothing to train.")
        require_dense_gradients(student)
        own = {id(p) for p in student.parameters()}
        if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
            raise InvalidInput("The optimizer holds no parameter of the student; make it from student.parameters().")
        trains = student.training  # parts in eval mode are meant to stay so, unless the whole student came in it
        trained = adopt_student(student.to(device), find_ranks() if ranks is None else ranks)
        student, parts = trained.module, dict.fromkeys([*trained.module.modules(), *trained.caller.modules()])
        pooling, scheduler = follow_schedule(find_operator(pool, POOLS, "pool"), scheduler)
        objective = Objective(
            student=student,
            ensemble=teachers if isinstance(teachers, TeacherEnsemble) else TeacherEnsemble(teachers),
            rule=Uniform() if weights is None else weights,
            divergence=find_divergence(divergence),
            evidence=evidence,
            critical_classes=frozenset(critical_classes).union(*(rule.critical for rule in constraints)),
            critical_contexts=frozenset(critical_contexts),
            features=features,
            perturbation=Perturbation() if perturbation is None else perturbation,
            pooling=pooling,
            rows=min(CHUNK, rows or CHUNK),
            autocast=half,
        )
        require_polytope_names(objective)
        self.problem = TrainingProblem(
            objective=objective,
            constraints=tuple(constraints),
            optimizer=optimizer,
            scheduler=scheduler,
            dual=PIGain() if dual is None else dual,
            learning=RuleLearning(objective.rule, weights_optimizer, optimizer, torch.device(device)),
            batch_size=None if batch_size is None else int(batch_size),
            independent_batches=independent_batches,
            device=torch.device(device),
            seed=require_seed(seed),
            evidence_budget=EvidenceBudget() if evidence_budget is None else evidence_budget,
            microbatch_size=None if microbatch_size is None else int(microbatch_size),
            clip_norm=None if clip_norm is None else float(clip_norm),
            ema=None if ema is None else float(ema),
            scaler=torch.amp.GradScaler(torch.device(device).type) if half == torch.float16 else None,
            modes=tuple((part, part.training or not trains) for part in parts),
            trained=trained,
        )

    @property
    def student(self) -> nn.Module:
        """What is trained, without what wraps it."""
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

    def with_names(self, splits: Mapping[str, ExampleSource]) -> ConstrainedTrainer:
        """Return a trainer of the same student with numbers in place of names of classes, contexts and tasks.

        ``fit`` does so itself.

        Args:
            splits: Those on which constraints are posed, by name, "train" among them.

        Raises:
            InvalidInput: A split has no such name; the message has those that it has.
        """
        return self._with_problem(self.problem.with_names(splits))

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
        fields: Fields | None = None,
        tolerance: float = 1e-3,
        trace_every: int | None = None,
        stationarity: Sampled | None = None,
        snapshots: int | None = None,
        patience: int | None = None,
        evaluation_examples: int | None = None,
        warm_start: WarmStart | None = None,
        tighten: Tighten | CrossFit | None = None,
        run_dir: str | os.PathLike[str] | RunFolder | None = None,
        checkpoint_every: int | None = None,
        resume: Resume = "auto",
        allow_change: Sequence[str] = (),
        on_trace: Callable[[TracePoint], object] | None = None,
        on_round: OnRound | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> FitResult:
        """Train until two full passes in a row find the run at rest, or ``epochs`` are over.

        At rest: KKT residuals within ``tolerance``, and a loss that fell by no more than five times that share over the
        last tenth of the steps.  In minibatches passes read the averaged student (``AveragedIterate``).

        Args:
            train: Training data: a Split, or what ``kd.data.as_source`` takes: tensors, a torch or Hugging Face
                dataset, a DataLoader, a list of batches, a function that opens a stream; see docs/data.md.
            validation: Split that is read beside, and on which constraints with ``split="validation"`` are posed; where
                none is, it must not hold training examples.
            epochs: Passes over the training data at most.
            splits: Further splits by name; a constraint whose ``split`` is that name is posed there.
            fields: What the parts of data are that are no Split, ``("inputs", None, "labels")`` say; see ``as_split``.
            tolerance: KKT residuals up to this are none.
            trace_every: Optimizer steps between full passes; left out, as many as make them cost some two hundredths of
                the training, by a count of sizes alone (every 84 steps of full batches with one constraint).  Only what
                is read there is kept, called converged, or stopped, so ask for more where runs are short.
            stationarity: How to estimate gradients where those of the whole split cost too much; None for exact ones.
            snapshots: How many students to keep, besides the best, to make ``FitResult.mixture`` of; None for none.
            patience: Evaluations in a row without a better student on the validation split (safer there, then of less
                loss) after which the run ends; None to go on.
            evaluation_examples: How many examples of each source evaluations read, the same random sample each time;
                values then have its standard errors, and the verdict says so.  Left out, all; but where a source has
                more than 65,536 and reading them at the first and the last step would cost more than 2 % of the
                training, as many as cost that in all, 4,096 at least.
            warm_start: Where to begin; None for where the student is.
            tighten: How thresholds are raised so that new data show what was asked for, as a rule
                ``CrossFit(also=["validation"])``; ``epochs`` are those of one training, and the trace is that of the
                student handed back.
            run_dir: Folder that keeps the run, as ``FitResult.save`` writes it; checked before anything is trained,
                and locked while the run lasts.  trace.jsonl grows meanwhile; a finished run that lies there stays as
                it is until this one is whole.  If it cannot be written in the end, ``FitResult.save_note`` says why.
                Of an open RunFolder whoever opened it calls ``keep``.  With a folder, Ctrl-C and SIGTERM let the step
                at hand finish and a checkpoint be written before they stop the run; a second one stops it at once.
            checkpoint_every: Optimizer steps between checkpoints in that folder; left out, a minute, or as much longer
                as keeps them below two hundredths of the time.  What a run comes to does not depend on it.
            resume: "auto" goes on from the folder's newest whole checkpoint where there is one, and ends as it would
                have ended, to the last bit; "must" refuses to begin anew, "never" begins anew.
            allow_change: Keys of what may differ from the run that is gone on with, ``["optimizer.lr"]`` say; a run
                whose data, teachers, constraints or settings have changed otherwise is refused, naming them.
            on_trace: Called with every TracePoint, for progress bars.
            on_round: Called with every row of the rounds, columns as ``ROUND_COLUMNS`` explains them.
            callbacks: Told of the run in order, after ``on_trace``; see ``kd.training.trace.Callback``.

        Returns:
            The student with its trace and a verdict.

        Raises:
            InvalidInput: A number is out of range, a split is missing or given twice, a constraint covers no example or
                names what the split does not have, data that judge hold training examples, a warm start is of another
                problem, a callback is none, or the folder cannot be written to, is in use, or holds checkpoints of
                another run.
            KeyboardInterrupt: Ctrl-C was pressed; with ``run_dir`` the checkpoint is written by then.
        """
        self.check_fit(
            epochs=epochs, tolerance=tolerance, trace_every=trace_every, snapshots=snapshots, patience=patience
        )
        require_patience_split(patience, validation, tighten)
        require_evaluation_examples(evaluation_examples)
        data = FitData.place(train, validation, splits or {}, self.problem.device, fields)
        problem = self.problem.with_names(data.by_name)
        read = data.share(problem.ranks)
        if tighten is not None:
            read.require_whole("`tighten`")
        problem.trained.refresh()
        problem.objective.recheck({"train": data.train, **{n: s for n, s in data.splits.items() if n == "validation"}})
        read.require_covered(problem.constraints, problem.objective)  # which surveys what is not in memory
        data.require_unseen([name for name in data.splits if name == "validation"], problem.constraints)
        problem = problem.with_source(read.train)
        warn_of_weight_decay(problem.optimizer, problem.constraints)
        resumes = ResumeOptions(checkpoint_every, resume, allow_change)
        with (
            keep_modes(self.student),
            keep_modes(problem.trained.caller),
            open_on_first_rank(run_dir, self.student, problem.ranks) as folder,
        ):
            options = FitOptions(
                epochs=epochs,
                tolerance=tolerance,
                trace_every=trace_every,
                stationarity=stationarity,
                snapshots=snapshots,
                patience=patience,
                evaluation_examples=evaluation_examples,
                callbacks=[*([] if on_trace is None else [OnTrace(on_trace)]), *callbacks],
            )
            if run_dir is None:
                return _train(problem, data if tighten else read, options, warm_start, tighten, on_round)
            told = {"tighten": tighten, "warm_start": warm_start, **vars(options)}
            checkpoints = begin_checkpoints(
                None if folder is None else folder.folder, problem, data.by_name, told, resumes
            )
            writers = [] if folder is None else [folder.trace_writer]
            options = replace(options, callbacks=[*writers, *options.callbacks], checkpoints=checkpoints)
            with checkpoints.interrupts.catch():
                result = _train(problem, data if tighten else read, options, warm_start, tighten, on_round)
                return result if folder is run_dir or folder is None else folder.keep(result)

    def check_fit(
        self,
        *,
        epochs: int,
        tolerance: float,
        trace_every: int | None = None,
        snapshots: int | None = None,
        patience: int | None = None,
    ) -> None:
        """Raise InvalidInput for numbers that ``fit`` would refuse, without training anything.

        Args:
            epochs: At least 1.
            tolerance: Above 0, finite.
            trace_every: At least 1, or None.
            snapshots: At least two more than there are constraints, or None.
            patience: At least 1, or None.

        Raises:
            InvalidInput: A number is out of range.
        """
        require_fit_numbers(epochs, tolerance, trace_every, snapshots, patience, len(self.constraints))


def _train(
    problem: TrainingProblem,
    data: FitData,
    options: FitOptions,
    warm_start: WarmStart | None,
    tighten: Tighten | CrossFit | None,
    on_round: OnRound | None,
) -> FitResult:
    if tighten is None:
        return fit_once(problem, data, options, warm_start)
    return tighten.run(TighteningRounds(problem, data, options, warm_start, on_round))
