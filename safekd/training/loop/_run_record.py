"""What makes a run the run it is, as plain JSON: everything that decides its numbers, told by content.

A run that goes on from a checkpoint compares its record with the one that was kept.  Where it began, first weights and
multipliers, is no part of it: the checkpoint holds what became of them.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..._own_version import __version__
from ..._torch_state import evaluation_mode
from ...data import ExampleSource, Split, SurveyedSource
from ...errors import SafekdError
from ...fingerprints import describe, digest_numbers, fingerprint, fingerprint_structure
from .._training_problem import TrainingProblem
from ..resume import ResumeOptions, RunCheckpoints, keep_random_states, open_checkpoints, share_checkpoints

_ASKED = 64  # examples that each teacher is asked about: a change of its code shows in them


def begin_checkpoints(
    folder: Path | None,
    problem: TrainingProblem,
    sources: Mapping[str, ExampleSource],
    told: Mapping[str, Any],
    options: ResumeOptions,
) -> RunCheckpoints:
    """Return the checkpoints of a run, and what it goes on from.

    Args:
        folder: Of the run, locked; None on a rank that writes nothing.
        problem: What is trained.
        sources: All data by name, "train" among them.
        told: What ``fit`` was told besides, by name.
        options: What it was told of checkpoints.

    Raises:
        InvalidInput: There is nothing to go on from where there must be, or it is of another run.
        RankFailure: The same, on the other ranks.
    """

    def open_folder(folder: Path) -> RunCheckpoints:
        record = describe_run(problem, sources, told)
        return open_checkpoints(folder, record, lambda: _describe_moving(problem), describe_machine(), options)

    return share_checkpoints(None if folder is None else lambda: open_folder(folder), options, problem.ranks)


def describe_run(
    problem: TrainingProblem, sources: Mapping[str, ExampleSource], told: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the record of a run.

    Args:
        problem: What is trained.
        sources: All data by name, "train" among them.
        told: What ``fit`` was told besides, by name; who watches changes no number.
    """
    return {
        **{name: describe(value) for name, value in told.items() if name not in ("callbacks", "checkpoints")},
        **describe_problem(problem),
        "data": {name: describe_source(source) for name, source in sources.items()},
        "teachers": _describe_teachers(problem, sources["train"]),
        "order_of_teachers": list(problem.objective.ensemble.names),
    }


def describe_machine() -> dict[str, Any]:
    """Return what decides the last digits of what is computed: versions of libraries, and threads."""
    return {"libraries": list_libraries(), "threads": torch.get_num_threads()}


def list_libraries() -> dict[str, str]:
    """Return the versions of what computes."""
    return {
        "safekd": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def describe_problem(problem: TrainingProblem) -> dict[str, Any]:
    """Return what a problem is made of, apart from what has been learned; its teachers by name.

    Args:
        problem: What is trained.
    """
    objective, student = problem.objective, problem.student
    return {
        "student": {name: list(p.shape) for name, p in student.named_parameters()},
        "student_structure": f"{type(student).__qualname__} [{fingerprint_structure(student)}]",
        "frozen": [name for name, p in student.named_parameters() if not p.requires_grad],
        "in_eval_mode": [name for name, part in student.named_modules() if not part.training],
        "teachers": list(objective.ensemble.names),
        "weighting_rule": describe(objective.rule, with_state=False),
        "divergence": describe(objective.divergence),
        "pool": describe(objective.pooling),
        "features": describe(objective.features),
        "perturbation": describe(objective.perturbation),
        "evidence": None if objective.evidence is None else fingerprint(objective.evidence),
        "critical_classes": sorted(objective.critical_classes, key=str),
        "critical_contexts": sorted(objective.critical_contexts, key=str),
        "constraints": [describe(constraint) for constraint in problem.constraints],
        "dual": {"kind": type(problem.dual).__name__, **{k: describe(v) for k, v in vars(problem.dual).items()}},
        "optimizer": _describe_optimizer(problem.optimizer, problem.trained.moved),
        "weights_optimizer": _describe_optimizer(problem.learning.optimizer, None),
        "scheduler": _describe_scheduler(problem.scheduler),
        "batch_size": problem.batch_size,
        "microbatch_size": problem.microbatch_size,
        "clip_norm": problem.clip_norm,
        "ema": problem.ema,
        "autocast": describe(objective.autocast),
        "independent_batches": problem.independent_batches,
        "seed": problem.seed,
        "device": str(problem.device),
    }


def _describe_moving(problem: TrainingProblem) -> dict[str, Any]:
    """Return what of a problem's description moves while it is trained: rates, where there is a schedule.

    Args:
        problem: What is trained.
    """
    return {
        "optimizer": _describe_optimizer(problem.optimizer, problem.trained.moved),
        "scheduler": _describe_scheduler(problem.scheduler),
    }


def describe_source(source: ExampleSource) -> str:
    """Return a fingerprint of the examples in their order, with all that is said of them.

    Args:
        source: A split is read as a whole; of other data the keys of all examples and the first examples are looked at.
    """
    if isinstance(source, Split):
        fields = [field.name for field in dataclasses.fields(source) if field.name != "name"]
        return fingerprint({name: getattr(source, name) for name in fields})
    content = source.seen.fingerprint if isinstance(source, SurveyedSource) else None
    first = next(iter(source.batches(_ASKED)), None)
    seen = None if first is None else {f.name: getattr(first, f.name) for f in dataclasses.fields(first)}
    said = (type(source).__qualname__, source.positions, source.names, content, seen)
    return f"{len(source)} examples [{fingerprint(said)}]"


def _describe_teachers(problem: TrainingProblem, train: ExampleSource) -> dict[str, Any]:
    """Return what each teacher rests on, and a digest of what it says of the first examples; of moving ones nothing."""
    ensemble = problem.objective.ensemble
    contents = {
        name: {place: describe(value) for place, value in content.items()}
        for name, content in ensemble.read_contents().items()
    }
    answers: dict[str, Any] = {}
    try:
        batch = next(iter(train.batches(_ASKED)))
        with keep_random_states(), evaluation_mode(problem.objective.readers):
            log_p_KV = ensemble.log_probabilities(batch, train.name)
        answers = {name: digest_numbers([log_p_KV[..., k, :]]) for k, name in enumerate(ensemble.names)}
    except (SafekdError, StopIteration):  # the run itself will say so
        pass
    still = [name for name in ensemble.names if name not in ensemble.moving]
    return {name: {**contents[name], "answers": answers.get(name)} for name in still}


def _describe_optimizer(optimizer: torch.optim.Optimizer | None, student: nn.Module | None) -> dict[str, Any] | None:
    """Return kind and settings, those of the first group by name, and which parameters stand in which group."""
    if optimizer is None:
        return None
    names = {} if student is None else {id(p): name for name, p in student.named_parameters()}
    first, *others = [
        {name: describe(value) for name, value in group.items() if name != "params"}
        | {"parameters": [names.get(id(p), "another") for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    return {"kind": type(optimizer).__name__, **first, **({"further_groups": others} if others else {})}


def _describe_scheduler(scheduler: Any) -> str | None:
    if scheduler is None:
        return None
    state = {name: value for name, value in vars(scheduler).items() if name != "optimizer"}
    return f"{type(scheduler).__name__} [{fingerprint(state)}]"
