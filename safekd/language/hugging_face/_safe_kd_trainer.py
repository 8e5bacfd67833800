"""``SafeKDTrainer``: a ``transformers.Trainer`` whose loss is distillation of several teachers under constraints.

transformers drives: batches, accumulation, mixed precision, DistributedDataParallel, schedules, logs, checkpoints.  This
class says what the loss is, moves the multipliers after each optimizer step, and reads the trace.  In one step:

    get_batch_samples     all microbatches are known: the step's positions are counted over all processes
    compute_loss          teachers, the student's hidden states, the fused loss; the losses of microbatches add up
    on_optimizer_step     the multipliers move, by sums over all processes
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from solvers.primal_dual import DualMethod

from ..._torch_state import evaluation_mode
from ...data import Batch
from ...distributed import find_ranks
from ...divergences import TemperedDivergence
from ...errors import InvalidInput, SafekdWarning
from ...fingerprints import describe
from ...safety import Certificate, Constraint
from ...training.trace import Trace
from ...weights import Rule, TeacherEvidence
from ..loss import Head
from ._language_run import LanguageRun
from ._model_card import add_safety_section
from ._step_callback import StepCallback
from ._trainer_arguments import (
    copy_arguments,
    list_readable,
    name_tokens,
    read_constraints,
    read_teachers,
    require_supported,
)
from ._trainer_certificate import certify_sequences
from ._trainer_checkpoint import choose_checkpoint, read_trainer_state, write_trainer_state
from ._trainer_verdict import TrainerFacts, TrainerResult, judge_trainer
from ._training_sample import choose_sample
from .passes import (
    Answers,
    DistillationTerms,
    SequenceCollator,
    SequenceColumns,
    SequenceReading,
    name_groups,
    number_rows,
    read_hidden,
    read_sequences,
    require_head,
    require_same_logits,
    split_columns,
)


class SafeKDTrainer(Trainer):  # type: ignore[misc]  # transformers has no types
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
        constraints: What the student must meet on what it is trained on; contexts, tasks and critical tokens by number or
            name.
        divergence: ``kd.language.ForwardKL()``, the default, ``ReverseKL()`` or ``JSD(beta)``.
        pool: "arithmetic" or "geometric".
        temperature: Of teachers and student; or one a teacher.
        temper: "teachers" softens each teacher, then pools; "pool" the other way round.
        cross_entropy: Share of the cross-entropy on the labels in the loss.
        dual: How multipliers move; None for ``kd.PIGain()``.
        vocabulary: How many tokens are compared, where models are padded beyond their tokenizer.
        budget: Memory for distributions: bytes, or text such as "64MiB".
        evidence: What was measured of the teachers, for rules.
        critical_classes: Tokens at which safety orderings of the weights apply.
        critical_contexts: Contexts in which they apply.
        train_dataset: Rows by number, or a stream of them.
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
        pool: str = "arithmetic",
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
        mine = copy_arguments(args)
        self.teachers = read_teachers(teachers)
        given = read_constraints(constraints)
        several = [train_dataset, *(eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset])]
        self.columns = name_groups(
            SequenceColumns(context_column, task_column, index_column),
            [data for data in several if data is not None],
            {"contexts": context_names, "tasks": task_names},
        )
        names = self.columns.group_names(name_tokens(given, processing_class))
        self.terms = DistillationTerms(
            names=tuple(str(teacher.name) for teacher in self.teachers),
            weights=weights,
            constraints=tuple(constraint.with_names(names) for constraint in given),
            divergence=divergence,
            pool=pool,
            temperature=temperature,
            temper=temper,
            cross_entropy=cross_entropy,
            vocabulary=vocabulary,
            budget=budget,
            evidence=evidence,
            critical_classes=critical_classes,
            critical_contexts=critical_contexts,
        )
        self.dual, self.held_out, self.tolerance = dual, held_out, tolerance
        self._trace_steps, self._trace_sequences = trace_steps, trace_sequences
        self._weights_optimizer = weights_optimizer
        collator = SequenceCollator(
            self.columns,
            data_collator,
            list_readable(model, args),
            padding=getattr(processing_class, "pad_token_id", None) or 0,
            side=getattr(processing_class, "padding_side", None) or "right",
        )
        super().__init__(
            model=model,
            args=mine,
            data_collator=collator,
            train_dataset=number_rows(train_dataset, index_column),
            eval_dataset=number_rows(eval_dataset, index_column),
            processing_class=processing_class,
            **trainer,
        )
        self.model_accepts_loss_kwargs = True  # the step's positions are counted before its first microbatch
        self.ranks = find_ranks()
        self.run: LanguageRun | None = None
        self._resumed: Mapping[str, Any] | None = None
        self._head_is_checked = False
        self.certificates: list[Certificate] = []
        self.add_callback(StepCallback(self._begin_run, self._finish_step, self._trace_step, self._end_run))
