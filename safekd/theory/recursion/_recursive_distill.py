"""Recursive meta-distillation of students: each generation's student becomes a teacher of the next.

    generation 0      learns p, the base teachers' pool
    generation n + 1  learns q_{n+1} = (1 - a) A(q_n) + a p, or its geometric form; A(q_n) is student n

Every generation is a new student trained by ``ConstrainedTrainer`` under the same constraints, from the same first
parameters and in the same order of batches, so that generations are iterates of one map.  Axes: N examples, V classes.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..._number_checks import is_number, require_seed
from ...data import Split, move_split
from ...errors import InvalidInput
from ...fingerprints import describe, digest_numbers, fingerprint
from ...io.folders import lock_folder
from ...safety import Constraint
from ...teachers import StoredTeacher, Teacher, TeacherEnsemble
from ...training import (
    FEASIBLE,
    ConstrainedTrainer,
    FitResult,
    describe_problem,
    describe_source,
    list_libraries,
    read_full_pass,
)
from ._distribution_recursion import Form, require_recursion
from ._generation_targets import (
    Rows,
    ask_student,
    average_distance,
    average_divergence,
    mix_targets,
    number_examples,
    pool_base_teachers,
)
from ._generation_trace import Generation, RecursiveDistillation
from ._recursion_folder import RecursionFolder, Resume, require_run_dir

MakeStudent = Callable[[], nn.Module]
MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]
_OF_THE_BASE = ("weights", "evidence", "pool", "critical_classes", "critical_contexts", "features", "perturbation")
_OF_EACH_GENERATION = ("student", "teachers", "optimizer", "constraints", "ranks")
_CHANGE_NO_NUMBER = ("callbacks", "on_trace", "on_round", "checkpoint_every", "allow_change")
_RATE = 0.01  # of Adam, where no optimizer is given: students of a few thousand parameters reach rest with it


def recursive_distill(
    student_factory: MakeStudent,
    teachers: TeacherEnsemble | Sequence[Teacher],
    train: Any,
    validation: Any = None,
    *,
    anchor: float | Sequence[float] = 0.3,
    generations: int = 10,
    epochs: int = 200,
    form: Form = "arithmetic",
    constraints: Sequence[Constraint] = (),
    optimizer: MakeOptimizer | None = None,
    fixed_point: float = 1e-3,
    splits: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
    seed: int = 0,
    run_dir: str | os.PathLike[str] | None = None,
    resume: Resume = "auto",
    on_generation: Callable[[Generation], object] | None = None,
    **fit: Any,
) -> RecursiveDistillation:
    """Distil generation after generation, each anchored to the base teachers, until students come to rest.

    Args:
        student_factory: Makes a student; torch's generator is seeded before each call, so that all begin alike.
        teachers: The base teachers, K of them, or a TeacherEnsemble.
        train: Training examples, a Split or what ``as_split`` takes, in memory.
        validation: Examples that judge, as ``ConstrainedTrainer.fit`` takes them; None for none.
        anchor: Share a of the base teachers in each target, from 0 (unanchored: only the student before teaches) to 1;
            or one for each generation, of which generation 0 needs none.
        generations: How many at most, the first one, which learns from the base teachers alone, among them.
        epochs: Of every generation.
        form: "arithmetic", ``(1 - a) A(q) + a p``, or "geometric", ``A(q)^(1 - a) p^a`` normalized.
        constraints: What every generation's student is to meet.
        optimizer: From a student to an optimizer on its parameters; Adam with a rate of 0.01 if left out.
        fixed_point: The recursion stops once a student is within this total variation of the one before, on average.
        splits: Further splits by name, for constraints posed there.
        trainer: Further arguments of ConstrainedTrainer.  ``weights``, ``pool``, ``evidence`` and others that say how
            teachers become one target are of the base teachers' pool, which must not move while students learn.
        seed: Of students and of the order of batches.
        run_dir: A folder that keeps a run folder for each generation and ``recursion.csv``; None to keep nothing.
        resume: "auto" to go on where the folder's recursion stopped, within a generation too; "must" to refuse to begin
            anew, "never" to begin anew.
        on_generation: Called with every Generation as it is done.
        fit: Further arguments of ``ConstrainedTrainer.fit``, such as ``tolerance``.

    Returns:
        A record a generation, the last student, the contraction factor with its band, and how it ended.

    Raises:
        InvalidInput: Something does not fit together; the message names it.

    Source: arXiv 2601.13100.
    """
    shares = require_recursion(anchor, generations, form)
    options = dict(trainer or {})
    _check_arguments(student_factory, optimizer, fixed_point, options, fit)
    device = torch.device(options.get("device", "cpu"))
    given = {"train": train, "validation": validation, **(splits or {})}
    placed = {name: move_split(data, name, device) for name, data in given.items() if data is not None}
    maker = _StudentMaker(student_factory, optimizer, require_seed(seed), options)
    base = pool_base_teachers(maker.pose(maker.make(), teachers, constraints, of_base=True), placed)
    job = _Recursion(
        maker=maker,
        base=base,
        splits={name: number_examples(split, name) for name, split in placed.items()},
        constraints=tuple(constraints),
        shares=shares,
        form=form,
        fixed_point=float(fixed_point),
        fit={"epochs": epochs, **fit},
    )
    with ExitStack() as stack:
        if run_dir is None:
            return job.run(None, resume, on_generation)
        folder = require_run_dir(run_dir, resume)
        stack.enter_context(lock_folder(folder, "a recursion"))
        return job.run(RecursionFolder(folder, job.describe(), resume), resume, on_generation)


@dataclass(frozen=True)
class _StudentMaker:
    """Makes students and the trainers that pose them."""

    factory: MakeStudent
    optimizer: MakeOptimizer | None
    seed: int
    options: Mapping[str, Any]

    def make(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            student = self.factory()
        if not isinstance(student, nn.Module):
            raise InvalidInput(f"`student_factory` gives a {type(student).__name__}; wanted a torch module.")
        return student

    def pose(
        self,
        student: nn.Module,
        teachers: TeacherEnsemble | Sequence[Teacher],
        constraints: Sequence[Constraint],
        *,
        of_base: bool = False,
    ) -> ConstrainedTrainer:
        """Return a trainer; how several teachers become one target is said of the base teachers alone."""
        options = {name: value for name, value in self.options.items() if of_base or name not in _OF_THE_BASE}
        made = torch.optim.Adam(student.parameters(), lr=_RATE) if self.optimizer is None else self.optimizer(student)
        options = {"seed": self.seed, **options}
        return ConstrainedTrainer(student, teachers, optimizer=made, constraints=constraints, **options)


@dataclass(frozen=True)
class _Recursion:
    """A recursion whose arguments have been checked."""

    maker: _StudentMaker
    base: Rows
    splits: Mapping[str, Split]
    constraints: tuple[Constraint, ...]
    shares: tuple[float, ...]
    form: Form
    fixed_point: float
    fit: Mapping[str, Any]

    def run(
        self, folder: RecursionFolder | None, resume: Resume, on_generation: Callable[[Generation], object] | None
    ) -> RecursiveDistillation:
        done: list[Generation] = []
        last: Rows | None = None
        for number, share in enumerate(self.shares):
            target = mix_targets(self.base, last, share, self.form)
            trainer = self._pose(target)
            kept = None if folder is None else folder.read(number, trainer.student)
            result = self._train(trainer, number, folder, resume) if kept is None else kept
            # what is handed on must be safe where anything was
            chosen = result.student if result.feasible or result.best_feasible is None else result.best_feasible
            says = ask_student(chosen, self.splits)
            done.append(self._describe_generation(number, trainer, result, chosen, target["train"], says, last))
            last = says
            if folder is not None:
                folder.finish(done)
            if on_generation is not None:
                on_generation(done[-1])
            if done[-1].moved <= self.fixed_point:
                break
        return RecursiveDistillation(
            generations=tuple(done),
            student=chosen.eval(),
            result=result,
            anchors=self.shares[: len(done)],
            form=self.form,
            fixed_point=self.fixed_point,
            folder=None if folder is None else folder.folder,
        )

    def describe(self) -> dict[str, Any]:
        """Return what makes the recursion the one it is, as plain JSON; how many generations there are is left out."""
        posed = self._pose(self.base)
        varying = len(set(self.shares)) > 1
        return {
            "anchor": list(self.shares) if varying else self.shares[0],
            "form": self.form,
            "fit": {name: describe(value) for name, value in self.fit.items() if name not in _CHANGE_NO_NUMBER},
            "libraries": list_libraries(),
            "data": {name: describe_source(split) for name, split in self.splits.items()},
            "base_teachers": {name: digest_numbers([rows]) for name, rows in self.base.items()},
            "student_start": fingerprint([*posed.student.state_dict().items()]),
            "trainer": describe_problem(posed.problem),
        }

    def _train(
        self, trainer: ConstrainedTrainer, number: int, folder: RecursionFolder | None, resume: Resume
    ) -> FitResult:
        others = {name: split for name, split in self.splits.items() if name not in ("train", "validation")}
        kept: dict[str, Any] = {}
        if folder is not None:
            kept = {"run_dir": folder.place(number), "resume": "never" if resume == "never" else "auto"}
        return trainer.fit(self.splits["train"], self.splits.get("validation"), splits=others, **kept, **self.fit)

    def _pose(self, target: Rows) -> ConstrainedTrainer:
        student = self.maker.make().to(self.splits["train"].device)
        return self.maker.pose(student, [StoredTeacher("the target", target, floor=0.0)], self.constraints)

    def _describe_generation(
        self,
        number: int,
        trainer: ConstrainedTrainer,
        result: FitResult,
        student: nn.Module,
        target_V: Tensor,
        says: Rows,
        last: Rows | None,
    ) -> Generation:
        train, validation = self.splits["train"], self.splits.get("validation")
        q_V, labels, mask = says["train"], train.batch().labels, train.batch().mask
        right = q_V.argmax(-1) == labels
        named = trainer.with_names(self.splits)
        read = read_full_pass(
            replace(named.objective, student=student), train, self.splits, named.constraints, with_gradients=False
        )
        return Generation(
            number=number,
            kl_to_anchor=average_divergence(self.base["train"], q_V, train),
            capacity_gap=average_divergence(target_V, q_V, train),
            moved=math.nan if last is None else average_distance(last["train"], q_V, train),
            kl_to_anchor_validation=math.nan
            if validation is None
            else average_divergence(self.base["validation"], says["validation"], validation),
            accuracy=float((right if mask is None else right[mask]).double().mean()),
            status=result.status,
            feasible=all(reading.violation <= FEASIBLE for reading in read.readings),
            safety={reading.name: reading.measured for reading in read.readings},
            steps=int(result.point.step),
        )


def _check_arguments(
    student_factory: object,
    optimizer: object,
    fixed_point: object,
    options: Mapping[str, Any],
    fit: Mapping[str, Any],
) -> None:
    if not callable(student_factory):
        raise InvalidInput(
            f"`student_factory` is a {type(student_factory).__name__}; wanted a function that makes a new student, "
            "since each generation trains one of its own."
        )
    if optimizer is not None and not callable(optimizer):
        raise InvalidInput(
            f"`optimizer` is a {type(optimizer).__name__}; wanted a function from a student to an optimizer on its "
            "parameters, lambda student: torch.optim.Adam(student.parameters(), lr=0.01) say."
        )
    if not is_number(fixed_point) or not fixed_point >= 0:  # type: ignore[operator]
        raise InvalidInput(f"`fixed_point` is {fixed_point!r}; wanted a total variation, at least 0.")
    _require_known(options, ConstrainedTrainer.__init__, _OF_EACH_GENERATION, "in `trainer` for ConstrainedTrainer")
    _require_known(fit, ConstrainedTrainer.fit, ("warm_start",), "for ConstrainedTrainer.fit")


def _require_known(given: Mapping[str, Any], call: Callable[..., Any], ours: Sequence[str], where: str) -> None:
    known = inspect.signature(call).parameters
    if unknown := [name for name in given if name not in known or name in ours]:
        why = "which the recursion decides" if unknown[0] in known else "which neither knows; check the spelling"
        raise InvalidInput(f"`{unknown[0]}` was given to recursive_distill {where}, {why}.")
