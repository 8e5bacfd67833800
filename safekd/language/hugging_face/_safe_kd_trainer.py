"""``SafeKDTrainer``: a ``transformers.Trainer`` whose loss is distillation of several teachers under constraints.

transformers drives: batches, accumulation, mixed precision, DistributedDataParallel, schedules, logs, checkpoints.
This class says what the loss is, moves the multipliers after each optimizer step, and reads the trace.  In one step:

    get_batch_samples     all microbatches are known: the step's positions are counted over all processes
    compute_loss          teachers, the student's hidden states, the fused loss; the losses of microbatches add up
    on_optimizer_step     the multipliers move, by sums over all processes
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import TrainingArguments
from transformers.trainer_utils import TrainOutput

from solvers.primal_dual import DualMethod

from ...divergences import TemperedDivergence
from ...errors import InvalidInput
from ...pooling import PoolFunction
from ...safety import Constraint
from ...training.trace import Trace
from ...weights import Rule, TeacherEvidence
from ..loss import Head, require_loss_settings
from ..steps import LanguageStep, read_constraints
from ._language_run import LanguageRun
from ._model_card import add_safety_section
from ._reading_trainer import ReadingTrainer
from ._rollout_stream import find_rollouts, require_rollouts_for_run, require_written_scores
from ._step_callback import StepCallback
from ._trainer_arguments import (
    choose_vocabulary,
    copy_arguments,
    list_readable,
    number_names,
    read_teachers,
    require_on_training_data,
    require_rows,
    require_supported,
    require_trainer_numbers,
    require_training_data,
)
from ._trainer_checkpoint import describe_trainer_run, open_checkpoint, write_trainer_state
from ._trainer_verdict import TrainerFacts, TrainerResult, judge_trainer
from .passes import (
    DistillationTerms,
    SequenceCollator,
    SequenceColumns,
    TrainingSample,
    capture_hidden,
    make_sequence_batch,
    name_groups,
    require_head,
    require_same_logits,
)


class SafeKDTrainer(ReadingTrainer):
    """Distils several teachers into a causal language model, position by position, under safety constraints.

    Rows of a data set have ``input_ids``, perhaps ``attention_mask`` and ``labels`` (by default the tokens themselves;
    -100 leaves one out), and, for rules and constraints, a context, a task and a number.  Everything that
    ``transformers.Trainer`` does, it does: accumulation, ``bf16``, evaluation, DistributedDataParallel under torchrun,
    ``report_to``, checkpoints and going on from them, ``push_to_hub``.

    Args:
        model: The student, a causal language model.
        args: ``transformers.TrainingArguments``; they are copied.
        teachers: Objects such as ``kd.language.CausalTeacher(model)``, called with each batch.
        weights: Of the teachers: numbers, (K,), or a weighting rule; None weighs all alike.
        constraints: What the student must meet on what it is trained on; contexts, tasks and critical tokens by number
            or name.
        divergence: ``kd.language.ForwardKL()``, the default, ``ReverseKL()`` or ``JSD(beta)``.
        pool: A name of ``kd.pooling.POOLS``, a ``PowerPool`` or a ``LogLinearPool``.
        temperature: Of teachers and student; or one a teacher.
        temper: "teachers" softens each teacher, then pools; "pool" the other way round.
        cross_entropy: Share of the cross-entropy on the labels in the loss.
        dual: How multipliers move; None for ``kd.PIGain(ema=0.0)``.
        vocabulary: How many tokens are compared, where models are padded beyond their tokenizer.
        budget: Memory for distributions: bytes, or text such as "64MiB".
        evidence: What was measured of the teachers, for rules.
        critical_classes: Tokens at which safety orderings of the weights apply.
        critical_contexts: Contexts in which they apply.
        train_dataset: Rows by number, a stream of them, or ``Rollouts``, which the student writes as it learns.
        eval_dataset: What ``evaluate`` reads; several by name are read one after the other.
        held_out: What ``certify`` reads where it is told nothing else: text that nothing else sees.
        processing_class: The tokenizer, which is saved with the student.
        data_collator: Makes inputs and labels out of rows; None to pad them.
        context_column: Column of the context, numbers or names.
        task_column: Column of the task.
        index_column: Column of the number of a row, by which stored answers of teachers are found; made where absent.
        context_names: Names of the contexts by number; None for those in the data, in alphabetical order.
        task_names: The same for the tasks.
        weights_optimizer: Of a rule that learns; None for Adam with a rate of 0.01.
        trace_steps: Optimizer steps between two points of the trace; None for a tenth of the run.
        trace_sequences: How many sequences of the training data a point reads.
        tolerance: KKT residuals up to this are small, for the verdict.
        trainer: Further keyword arguments of ``transformers.Trainer``: callbacks, optimizers.

    Raises:
        InvalidInput: An argument cannot be used; the message says what can.

    Attributes:
        teachers: As given.
        terms: What the loss is made of.
        trace_sequences: As given.
        start_multipliers: With which the next run begins, one a constraint; None for where the last one ended, or 0.
    """

    loss_is_scaled_for_ga = True  # the losses of the microbatches of a step add up to the step's

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments | None = None,
        *,
        teachers: Any,
        weights: Tensor | Rule | None = None,
        constraints: Constraint | Sequence[Constraint] = (),
        divergence: TemperedDivergence | None = None,
        pool: str | PoolFunction = "arithmetic",
        temperature: float | Sequence[float] | None = None,
        temper: str = "teachers",
        cross_entropy: float = 0.0,
        dual: DualMethod | None = None,
        vocabulary: int | None = None,
        budget: str | int = "64MiB",
        evidence: TeacherEvidence | None = None,
        critical_classes: Collection[int] = (),
        critical_contexts: Collection[int] = (),
        train_dataset: Any = None,
        eval_dataset: Any = None,
        held_out: Any = None,
        processing_class: Any = None,
        data_collator: Any = None,
        context_column: str = "context",
        task_column: str = "task",
        index_column: str = "index",
        context_names: Sequence[str] | None = None,
        task_names: Sequence[str] | None = None,
        weights_optimizer: torch.optim.Optimizer | None = None,
        trace_steps: int | None = None,
        trace_sequences: int = 32,
        tolerance: float = 1e-2,
        **trainer: Any,
    ) -> None:
        require_supported(trainer)
        require_head(model)
        for what, data in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset)):
            require_rows(data, what, args)
        numbers = {"trace_steps": trace_steps, "trace_sequences": trace_sequences, "tolerance": tolerance}
        require_trainer_numbers(numbers, dual, weights_optimizer)
        several, given = read_teachers(teachers, processing_class), read_constraints(constraints)
        rollouts = find_rollouts(train_dataset)
        require_written_scores(given, rollouts)
        require_on_training_data(given)
        evaluated = eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]
        columns = name_groups(
            SequenceColumns(context_column, task_column, index_column),
            [data for data in (train_dataset, *evaluated) if data is not None],
            {"contexts": context_names, "tasks": task_names},
        )
        named = number_names(given, columns, processing_class)
        terms = DistillationTerms(
            names=tuple(several.names),
            weights=weights,
            constraints=tuple(named),
            divergence=divergence,
            pool=pool,
            temperature=temperature,
            temper=temper,
            cross_entropy=cross_entropy,
            vocabulary=choose_vocabulary(vocabulary, model, several, processing_class),
            budget=budget,
            evidence=evidence,
            critical_classes=critical_classes,
            critical_contexts=critical_contexts,
        )
        require_loss_settings(terms.settings(), len(terms.names))
        mine = copy_arguments(args)  # refuses what are none
        collator = SequenceCollator(
            columns,
            data_collator,
            list_readable(model, args),
            padding=getattr(processing_class, "pad_token_id", None) or 0,
            side=getattr(processing_class, "padding_side", None) or "right",
        )
        data = {"train_dataset": train_dataset, "eval_dataset": eval_dataset, "processing_class": processing_class}
        super().__init__(model, mine, several, terms, collator, held_out, {**trainer, **data})
        if rollouts is not None:
            require_rollouts_for_run(rollouts, self.args, self.student, self.ranks)
        self.model_accepts_loss_kwargs = True  # the step's positions are counted before its first microbatch
        self.dual, self.tolerance = dual, tolerance
        self._trace_steps, self.trace_sequences = trace_steps, trace_sequences
        self._weights_optimizer = weights_optimizer
        self.run: LanguageRun | None = None
        self._sample: TrainingSample | None = None
        self.start_multipliers: Sequence[float] | None = None
        self._resumed: Mapping[str, Any] | None = None
        self._head_is_checked = False
        self.add_callback(StepCallback(self._begin_run, self._finish_step, self._trace_step, self._end_run))

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
        *,
        allow_change: Sequence[str] = (),
    ) -> TrainOutput:
        """Train; see ``transformers.Trainer.train``.

        Args:
            resume_from_checkpoint: A folder that this trainer wrote, or True for the newest whole one in
                ``output_dir``: what a kill left half written is passed over, with a warning.
            trial: As for ``transformers.Trainer.train``.
            ignore_keys_for_eval: The same; there is nothing to ignore.
            allow_change: Keys of what may differ from the run that is gone on with, ``["data.content"]`` say, each with
                all below it; a refusal names the keys.

        Raises:
            InvalidInput: There are no training data or no such checkpoint, or it is of other teachers, constraints or
                data; the message names what differs.
        """
        require_training_data(self.train_dataset)
        path, self._resumed = open_checkpoint(
            resume_from_checkpoint, self.output_folder, self.ranks.size, self.describe_run, allow_change
        )
        output: TrainOutput = super().train(path, trial, ignore_keys_for_eval)
        return output

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """Return the microbatches of a step, whose positions are counted before the first is computed.

        Args:
            epoch_iterator: As for ``transformers.Trainer``.
            num_batches: The same.
            device: The same.
        """
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            self._require_run().step.begin([make_sequence_batch(batch) for batch in batches])
        return batches, items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the share of a microbatch in the step's loss; the shares of all add up to it.

        Args:
            model: The student, or the wrapper that reduces its gradients.
            inputs: What the collator made.
            return_outputs: Whether the hidden states are wanted too.
            num_items_in_batch: Not used: positions are counted by ``get_batch_samples``.
        """
        batch = make_sequence_batch(inputs)
        if not self._head_is_checked:
            require_same_logits(self.student, batch.inputs)
            self._head_is_checked = True
        teachers = self._ask_teachers(batch)
        hidden = capture_hidden(model, self.student, batch.inputs)
        loss = self._require_run().step.loss(hidden, Head.of(self.student), teachers, batch)
        loss = loss * self.ranks.size  # DistributedDataParallel averages what processes give, and these are shares
        return (loss, {"hidden_states": hidden}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; beside the loss of the last steps stand safety, thresholds and multipliers.

        Args:
            logs: Numbers by name.
            start_time: As for ``transformers.Trainer``.
        """
        if "loss" in logs and self.run is not None:
            logs = {**logs, **self.run.read_window()}
        super().log(logs, start_time)

    def _begin_run(self) -> None:
        """Begin, or go on, once transformers has put weights, optimizer and schedule in place."""
        before, resumed = self.run, self._resumed
        terms, args, ranks = self.terms, self.args, self.ranks
        step = LanguageStep(
            terms.names,
            constraints=terms.constraints,
            dual=self.dual,
            ranks=ranks,
            horizon=self.state.max_steps,
            device=args.device,
            **terms.settings(),
        )
        self._sample = self.choose_sample(self.trace_sequences)
        recorder = self.open_recorder(self._sample)
        self.run = LanguageRun(terms, step, recorder, ranks, self._weights_optimizer, self.rollouts)
        self._resumed = None
        if resumed is not None:
            self.run.load(resumed)
            self.passed_over = self.state.global_step * args.gradient_accumulation_steps
            return
        self.passed_over = 0
        if before is not None:  # train() again: multipliers go on as weights do
            self.run.step.load_state_dict(before.step.state_dict())
        if self.start_multipliers is not None:
            self.run.set_multipliers(self.start_multipliers)
        self._record_point()

    def _finish_step(self) -> None:
        self._require_run().finish()

    def _trace_step(self) -> None:
        steps = self._trace_steps or max(1, -(-self.state.max_steps // 10))
        if self.state.global_step % steps == 0:
            self._record_point()

    def _end_run(self) -> None:
        self._record_point(again=self.args.load_best_model_at_end)
        if residuals := self._require_run().take_residuals():
            self.log(residuals)

    def _record_point(self, again: bool = False) -> None:
        """Read a point of the trace, and keep the student where it is the best so far."""
        run = self._require_run()
        point = run.record(self.state.global_step, int(self.state.epoch or 0), again=again)
        if point is None:
            return
        if self.args.save_strategy == "no":
            return
        for name, feasible in (("best_feasible", True), ("most_feasible", False)):
            if run.recorder.is_best(feasible):
                self.keep_student(name)

    def _require_run(self) -> LanguageRun:
        if self.run is None:
            raise InvalidInput(
                "This trainer has had no run, which moves multipliers and is judged; call trainer.train() first."
            )
        return self.run

    @property
    def multipliers(self) -> dict[str, float]:
        """Multiplier of each constraint, nats a unit of safety; 0 before the run."""
        names = [constraint.name for constraint in self.terms.constraints]
        values = [0.0] * len(names) if self.run is None else self.run.multipliers.tolist()
        return dict(zip(names, values, strict=True))

    @property
    def trace(self) -> pd.DataFrame:
        """One row a point, columns as in every trace: step, distillation_loss, safety_<name>, lambda_<name>, kkt_..."""
        return Trace([] if self.run is None else self.run.recorder.points).table()

    def result(self) -> TrainerResult:
        """Return how the run ended, with its evidence and the next move.

        Raises:
            InvalidInput: There was no run.
        """
        run = self._require_run()
        folders = {name: self.best_folder(name) for name in ("best_feasible", "most_feasible")}
        return TrainerResult(
            judge_trainer(run.recorder.points, self.tolerance, self._list_facts()),
            run.recorder.points[-1],
            self.trace,
            self.multipliers,
            **{name: folder if folder.is_dir() else None for name, folder in folders.items()},
        )

    def _list_facts(self) -> TrainerFacts:
        groups = [] if self.optimizer is None else self.optimizer.param_groups
        run, sample = self._require_run(), self._sample
        assert sample is not None  # made with the run
        last, rate = run.recorder.points[-1], max((float(group["lr"]) for group in groups), default=0.0)
        violated = last.residuals.primal > self.tolerance
        bound, missing = self.bound_point(last, run.recorder.batches or sample.read()) if violated else (None, [])
        cap, evaluated = getattr(self.dual, "cap", None), self.find_evaluated()
        return TrainerFacts(rate, cap, last.capped, sample.sequences, sample.of, bound, missing, evaluated)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the student as transformers does; it loads without this library.

        A checkpoint gets the state of multipliers, engine, rule and trace before anything else, so that one that is
        whole has them.

        Args:
            output_dir: Folder; None for ``output_dir`` of the arguments.
            _internal_call: Whether transformers is writing a checkpoint.
        """
        if _internal_call and self.is_in_train and output_dir is not None and self.run is not None:
            state = self.run.state()
            if self.args.should_save:
                write_trainer_state(Path(output_dir), self.state.global_step, state, self.describe_run())
        super().save_model(output_dir, _internal_call)

    def create_model_card(self, *given: Any, **named: Any) -> None:
        """Write the model card of transformers, with what was promised and shown of safety.

        Args:
            given: As for ``transformers.Trainer``.
            named: The same.
        """
        super().create_model_card(*given, **named)
        card = self.output_folder / "README.md"
        if self.is_world_process_zero() and card.is_file():
            add_safety_section(card, None if self.run is None else self.result(), self.certificates)

    def describe_run(self) -> dict[str, Any]:
        """Return what decides the run, as plain JSON."""
        sequences, seeds = self.get_total_train_batch_size(self.args), (self.args.seed, self.args.data_seed)
        about = self.describe_data(), self.processing_class, sequences, seeds
        return describe_trainer_run(self.teachers, self.terms, self.dual, self.columns, *about)
