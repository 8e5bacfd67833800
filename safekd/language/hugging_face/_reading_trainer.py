"""A trainer that reads data sets in the memory of a step: loss, perplexity, safety; no logits are kept."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from ..._torch_state import evaluation_mode
from ...data import Batch
from ...distributed import find_ranks
from ...errors import InvalidInput, SafekdWarning
from ...safety import Certificate, Constraint, Correction
from ...training.diagnosis import EvidenceBudget, FeasibilityBound
from ...weights import collect_modules
from ..loss import Head, TeacherOutput
from ..rollouts import WrittenConstraint
from ..teachers import TeacherSet
from ._rollout_stream import RolloutStream, find_rollouts, write_trace_batches
from ._trace_recorder import TraceRecorder
from ._trainer_certificate import certify_sequences, find_unused_rows, hash_rows, number_batches
from .passes import (
    DistillationTerms,
    SampleLogits,
    SequenceAnswers,
    SequenceCollator,
    TrainingSample,
    add_row_numbers,
    bound_sample,
    capture_hidden,
    count_reading_rows,
    describe_data,
    make_sequence_batch,
    read_sequences,
    sample_rows,
)


class ReadingTrainer(Trainer):
    """Asks student and teachers about sequences, and reads whole data sets.

    Args:
        model: The student.
        args: Those of the run, its own copy.
        teachers: Asked about each batch.
        terms: What the loss is made of.
        collator: Makes batches of rows.
        held_out: What ``certify`` reads where it is told nothing else.
        trainer: As for ``transformers.Trainer``, data sets among them.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        teachers: TeacherSet,
        terms: DistillationTerms,
        collator: SequenceCollator,
        held_out: Any,
        trainer: Mapping[str, Any],
    ) -> None:
        self.teachers, self.terms, self.columns, self.held_out = teachers, terms, collator.columns, held_out
        data = {
            name: add_row_numbers(trainer.get(name), self.columns.index) for name in ("train_dataset", "eval_dataset")
        }
        super().__init__(model=model, args=args, data_collator=collator, **{**trainer, **data})
        self.ranks = find_ranks()  # transformers has joined them by now
        self.certificates: list[Certificate] = []
        self.rollouts = find_rollouts(self.train_dataset)
        self._bound_known: tuple[object, tuple[FeasibilityBound | None, list[str]]] = (None, (None, []))
        self._data_known: tuple[Any, dict[str, Any]] | None = None
        self.passed_over = 0  # batches of the rollouts that a run which goes on has used

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the training data; what the student writes comes batch by batch, none ahead."""
        if self.rollouts is None:
            return super().get_train_dataloader()
        return RolloutStream(self.rollouts, self._take_passed_over).open_loader()

    def describe_data(self) -> dict[str, Any]:
        """Return what the training data are, as plain JSON; each data set is read once."""
        if self._data_known is None or self._data_known[0] is not self.train_dataset:
            self._data_known = (self.train_dataset, describe_data(self.train_dataset, self.rollouts))
        return self._data_known[1]

    def _take_passed_over(self) -> int:
        """Return how many batches transformers is about to pass over, once."""
        count, self.passed_over = self.passed_over, 0
        return 0 if self.args.ignore_data_skip else count

    def choose_sample(self, sequences: int) -> TrainingSample:
        """Return what a trace reads of the training data, at each point.

        Args:
            sequences: How many, and as many more as constraints need.

        Raises:
            InvalidInput: A constraint speaks of nothing in them.
        """
        args, ranks, rollouts, steps = self.args, self.ranks, self.rollouts, self.args.max_steps
        if rollouts is None:
            data, collate, size = self.train_dataset, self.data_collator, args.per_device_train_batch_size
            return sample_rows(data, sequences, args.seed, collate, self.terms.constraints, size, ranks, args.device)
        written = partial(write_trace_batches, rollouts, sequences, steps, args.seed, args.device)
        return TrainingSample(sequences, None, written)

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Read loss, perplexity and safety of a data set, in the memory that training takes; no logits are kept.

        Metrics are ``loss`` (distillation), ``cross_entropy``, ``perplexity``, and for each constraint
        ``safety_<name>``, ``safety_se_<name>`` (its standard error, clustered by sequence) and ``violation_<name>``,
        each after the prefix.

        Args:
            dataloader: Gives collated batches.
            description: As for ``transformers.Trainer``.
            prediction_loss_only: The same; there is never more.
            ignore_keys: The same.
            metric_key_prefix: What names of metrics begin with.
        """
        with evaluation_mode(self.readers):
            reading = read_sequences(
                self._list_batches(dataloader),
                self._ask,
                self.terms.read_loss,
                self._list_of_fixed_text(),
                self.ranks,
                rows=self._count_rows(),
                split=description.lower(),
            )
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in reading.as_metrics().items()}
        none: Any = None  # as transformers has it where no logits are kept
        return EvalLoopOutput(predictions=none, label_ids=None, metrics=metrics, num_samples=reading.sequences)

    def _list_batches(self, dataloader: DataLoader[Any]) -> Iterator[Batch]:
        """Yield what this process reads; of what fills up the last batch, so that all processes have one, nothing."""
        for collated in dataloader:
            batch = make_sequence_batch(collated).to(self.args.device)
            gathered = self.accelerator.gradient_state
            if gathered.end_of_dataloader and gathered.remainder > 0:
                mine = gathered.remainder - self.ranks.rank * len(batch)
                batch = batch.select(slice(0, max(mine, 0)))
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            if len(batch):
                yield batch

    @property
    def student(self) -> nn.Module:
        """The model, without what wraps it in a run."""
        assert isinstance(self.model, nn.Module)
        return self.model

    @property
    def readers(self) -> nn.Module:
        """The student and what learns inside the weighting rule: all that has an eval mode."""
        return nn.ModuleList([self.student, *collect_modules(self.terms.weights).values()])

    def _ask(self, batch: Batch) -> SequenceAnswers:
        return replace(self._read_student(batch), teachers=self._ask_teachers(batch))

    def _read_student(self, batch: Batch) -> SequenceAnswers:
        with self.accelerator.autocast():
            hidden = capture_hidden(self.student, self.student, batch.inputs)
        head = Head.of(self.student)
        return SequenceAnswers(hidden, head if self.terms.vocabulary is None else head.cut(self.terms.vocabulary), [])

    def _count_rows(self) -> int:
        """Return of how many positions logits are held at once."""
        head = Head.of(self.student)
        return count_reading_rows(self.terms.budget, self.terms.vocabulary or head.vocabulary, head.weight)

    def certify(
        self,
        held_out: Any = None,
        confidence: float = 0.95,
        *,
        method: str = "auto",
        correction: Correction = "holm",
        seed: int = 0,
    ) -> list[Certificate]:
        """Return what held-out text shows of each constraint; its sequences are independent, their positions are not.

        Sequences that the run has trained on or evaluated are left out, and counted.

        Args:
            held_out: Rows; None for the data that the trainer was given for it.
            confidence: Of all certificates together, in (0, 1).
            method: Which bound, see ``kd.certify``.
            correction: For several constraints, see ``kd.certify``.
            seed: Of the order in which a betting bound sees the sequences.

        Raises:
            InvalidInput: There is no such data, the run has used all of it, or a constraint covers nothing of it.
        """
        data = self.held_out if held_out is None else held_out
        if data is None:
            raise InvalidInput(
                "Give text that nothing else saw: trainer.certify(dataset), or held_out= of the trainer."
            )
        evaluated = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        rows, left_out = find_unused_rows(data, [self.train_dataset, *evaluated], self.columns.taken)
        if written := [f"'{one.name}'" for one in self.terms.constraints if isinstance(one, WrittenConstraint)]:
            message = f"Not certified: {', '.join(written)}, about what the student writes; held-out text is fixed."
            warnings.warn(message, SafekdWarning, stacklevel=2)
        with evaluation_mode(self.readers), torch.no_grad():
            self.certificates = certify_sequences(
                number_batches(rows, self.data_collator, self.args.per_device_eval_batch_size, self.ranks),
                lambda batch: self._read_student(batch.to(self.args.device)),
                self._list_of_fixed_text(),
                self._count_rows(),
                self.ranks,
                confidence=confidence,
                correction=correction,
                method=method,
                seed=seed,
                left_out=left_out,
                row_hashes=hash_rows(rows, self.columns.taken),
                student=self.student,
            )
        return list(self.certificates)

    def open_recorder(self, sample: TrainingSample) -> TraceRecorder:
        """Return what reads points of a trace.

        Args:
            sample: What it reads.
        """
        whole, moves, rows = sample.is_whole, self.rollouts is not None, self._count_rows()
        student, readers = self.student, self.readers
        return TraceRecorder(self.terms, self._ask, student, readers, sample.read, self.ranks, rows, whole, moves)

    def bound_point(self, point: object, batches: Sequence[Batch]) -> tuple[FeasibilityBound | None, list[str]]:
        """Return what any student could reach at a point of the trace, None where nobody knows, and why; asked once.

        Args:
            point: The point.
            batches: Its sequences.
        """
        if self._bound_known[0] is not point:
            self._bound_known = (point, self._bound_sequences(batches))
        return self._bound_known[1]

    def _bound_sequences(self, batches: Sequence[Batch]) -> tuple[FeasibilityBound | None, list[str]]:
        what = "what any student could reach"
        if self.rollouts is not None:
            return None, [f"{what} (the student writes other text each time)"]
        if self.ranks.size > 1:
            return None, [f"{what} (each process holds a part of the sequences)"]
        source = SampleLogits(self.student, self._read_student)
        try:
            return bound_sample(batches, source, self.terms.constraints, EvidenceBudget()), []
        except Exception as error:  # a probe loses nothing of the run
            return None, [f"{what} ({' '.join(str(error).split())[:200]})"]

    def find_evaluated(self) -> dict[str, float]:
        """Return the safety of each constraint in the last evaluation, by name; empty where there was none."""
        names = {f"eval_safety_{one.name}": one.name for one in self.terms.constraints}
        logs = (log for log in reversed(self.state.log_history) if names.keys() & log.keys())
        return {names[key]: value for key, value in next(logs, {}).items() if key in names}

    def _list_of_fixed_text(self) -> list[Constraint]:
        """Return the constraints of which fixed text says something."""
        return [one for one in self.terms.constraints if not isinstance(one, WrittenConstraint)]

    def keep_student(self, name: str) -> None:
        """Save the student as it is; the folder of the one that it replaces is there until it is whole.

        Args:
            name: Of the folder.
        """
        folder = self.best_folder(name)
        part = folder.with_name(f"{folder.name}.part")
        Trainer.save_model(self, str(part), _internal_call=True)
        if self.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(part, folder)

    def best_folder(self, name: str) -> Path:
        """Return the folder of a student that is kept.

        Args:
            name: What it is kept for.
        """
        return self.output_folder / f"_{name}"  # the underscore keeps it out of push_to_hub

    @property
    def output_folder(self) -> Path:
        """``output_dir`` of the arguments."""
        return Path(self.args.output_dir or ".")

    def _ask_teachers(self, batch: Batch) -> list[TeacherOutput]:
        with torch.no_grad():
            return self.teachers(batch)
