"""What makes a sweep the sweep it is, as plain JSON: two sweeps with the same record have the same points.

What decides a result is told by its content, not by its name: functions by their code and what they close over, a
student by structure, first weights and what is frozen, teachers by what they say of every example.  One full pass of
the first student, before anything is trained, shows what none of this could see.  The first run's trainer is looked at;
that make_trainer does likewise for other thresholds and seeds is taken on trust.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._torch_state import evaluation_mode, limit_threads
from ...data import Split, as_split, move_split
from ...errors import SafekdError
from ...fingerprints import describe, fingerprint, fingerprint_structure
from ...training import ConstrainedTrainer, read_full_pass
from ._sweep_plan import SweepPlan
from ._training_run import SweepJob

_LISTENERS = ("callbacks", "on_trace", "on_round")  # who watches changes no number
_ANSWERS, _PASS = "teacher_probabilities", "first_pass"
_CHUNK = 4096  # examples that a teacher is asked about at a time
_SHOWN = 60  # characters of a value in a message
_MOST_CHANGES = 6  # differences in a message
_SUMS = 9  # numbers in a digest: the size, and sums with random signs
_ROUNDING = 1e-6  # of its size, by which what a GPU computes may differ from one time to the next


def describe_sweep(plan: SweepPlan, job: SweepJob, trainer: ConstrainedTrainer) -> dict[str, Any]:
    """Return the record of a sweep; ``trainer`` is the one of its first run, not yet trained."""
    fit = {name: describe(value) for name, value in job.fit.items() if name not in (*_LISTENERS, "splits")}
    given = {
        "train": job.train,
        **({} if job.validation is None else {"validation": job.validation}),
        **(job.fit.get("splits") or {}),
    }
    with limit_threads(job.threads):
        return {
            "sweep": plan.describe(),
            "epochs": job.epochs,
            "fit": fit,
            "threads": job.threads or torch.get_num_threads(),
            "libraries": {
                "safekd": _read_own_version(),
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "numpy": np.__version__,
            },
            "data": {name: _hash_split(as_split(data, name)) for name, data in given.items()},
            "trainer": _describe_trainer(trainer),
            _ANSWERS: _describe_answers(trainer, job),
            _PASS: _describe_first_pass(trainer, job),
        }


def hash_record(record: Mapping[str, Any]) -> str:
    """Return a name for all that a record states, twelve characters."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]


def find_record_changes(kept: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what differs between two records, one phrase a difference; what follows from another is left out."""
    before, after = ({name: value for name, value in side.items() if name != _PASS} for side in (kept, now))
    changes = _compare_values(before, after) or _compare_values({_PASS: kept.get(_PASS)}, {_PASS: now.get(_PASS)})
    if len(changes) > _MOST_CHANGES:
        changes = [*changes[:_MOST_CHANGES], f"and {len(changes) - _MOST_CHANGES} more"]
    return changes


def _read_own_version() -> str:
    try:
        return version("safekd")
    except PackageNotFoundError:  # run from its source
        return "source"


def _describe_trainer(trainer: ConstrainedTrainer) -> dict[str, Any]:
    problem, objective, student = trainer.problem, trainer.objective, trainer.student
    return {
        "student": {name: list(p.shape) for name, p in student.named_parameters()},
        "student_structure": f"{type(student).__qualname__} [{fingerprint_structure(student)}]",
        "student_start": fingerprint(list(student.state_dict().items())),
        "frozen": [name for name, p in student.named_parameters() if not p.requires_grad],
        "in_eval_mode": [name for name, part in student.named_modules() if not part.training],
        "teachers": list(objective.ensemble.names),
        "weighting_rule": describe(objective.rule),
        "divergence": describe(objective.divergence),
        "pool": describe(objective.pooling),
        "features": describe(objective.features),
        "perturbation": describe(objective.perturbation),
        "evidence": None if objective.evidence is None else fingerprint(objective.evidence),
        "critical_classes": sorted(objective.critical_classes, key=str),
        "critical_contexts": sorted(objective.critical_contexts, key=str),
        "constraints": [describe(constraint) for constraint in trainer.constraints],
        "dual": {"kind": type(problem.dual).__name__, **{k: describe(v) for k, v in vars(problem.dual).items()}},
        "optimizer": _describe_optimizer(problem.optimizer, student),
        "weights_optimizer": _describe_optimizer(problem.learning.optimizer, None),
        "scheduler": _describe_scheduler(problem.scheduler),
        "batch_size": problem.batch_size,
        "independent_batches": problem.independent_batches,
        "seed": problem.seed,
        "device": str(problem.device),
    }


def _describe_optimizer(
    optimizer: torch.optim.Optimizer | None, student: torch.nn.Module | None
) -> dict[str, Any] | None:
    """Return kind and settings, those of the first group by name, and which parameters stand in which group."""
    if optimizer is None:
        return None
    names = {} if student is None else {id(p): name for name, p in student.named_parameters()}
    first, *others = [
        {name: describe(value) for name, value in group.items() if name != "params"}
        | {"parameters": [names.get(id(p), "another") for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    state = optimizer.state_dict()["state"]
    more = {"further_groups": others} if others else {}
    return {"kind": type(optimizer).__name__, **first, **more, "state": fingerprint(state) if state else None}


def _describe_scheduler(scheduler: Any) -> str | None:
    if scheduler is None:
        return None
    state = {name: value for name, value in vars(scheduler).items() if name != "optimizer"}
    return f"{type(scheduler).__name__} [{fingerprint(state)}]"


def _describe_answers(trainer: ConstrainedTrainer, job: SweepJob) -> dict[str, Any]:
    """Return a digest of all that each teacher says of every split."""
    device, size = trainer.problem.device, trainer.problem.batch_size or _CHUNK
    splits = {"train": move_split(job.train, "train", device), **job.place_splits(trainer)}
    ensemble = trainer.objective.ensemble
    answers: dict[str, dict[str, Any]] = {name: {} for name in ensemble.names}
    try:
        for split_name, split in splits.items():  # asked in the ensemble's way, which keeps what the runs will need
            parts = [ensemble.cached_log_probabilities(split, batch) for batch in split.batches(size)]
            for k, name in enumerate(ensemble.names):
                answers[name][split_name] = _digest_numbers([part[..., k, :] for part in parts])
    except SafekdError as error:  # the run itself will say so
        return {name: str(error) for name in ensemble.names}
    return answers


def _describe_first_pass(trainer: ConstrainedTrainer, job: SweepJob) -> dict[str, Any] | None:
    """Return what the first student reads before it is trained; None where that fails, as its run then will."""
    objective = trainer.objective
    try:
        train, splits = move_split(job.train, "train", trainer.problem.device), job.place_splits(trainer)
        with evaluation_mode(objective.readers):
            full = read_full_pass(objective, train, splits, trainer.constraints, with_gradients=True)
    except Exception:
        return None
    finally:
        objective.clear_non_finite_source()
    gradient_n, _ = full.require_gradients()
    return {
        "loss": _digest_numbers([torch.tensor(full.loss, dtype=torch.float64, device=gradient_n.device)]),
        "safety": {
            reading.name: _digest_numbers([torch.tensor([reading.measured, reading.surrogate]).to(gradient_n)])
            for reading in full.readings
        },
        "gradient": _digest_numbers([gradient_n]),
    }


def _digest_numbers(parts: Sequence[Tensor]) -> Any:
    """Return a fingerprint of numbers, or of those on a GPU, whose last digits may differ, some weighted sums."""
    if all(part.device.type == "cpu" for part in parts):
        return fingerprint([fingerprint(part.detach()) for part in parts])
    draw = torch.Generator().manual_seed(0)
    sums = torch.zeros(_SUMS, dtype=torch.float64)
    for part in parts:
        numbers = torch.nan_to_num(part.detach().double().flatten().cpu())
        sums[0] += numbers.abs().sum()
        for number in range(1, _SUMS):
            sums[number] += numbers @ (2.0 * torch.randint(0, 2, numbers.shape, generator=draw) - 1).double()
    return sums.tolist()


def _hash_split(split: Split) -> str:
    """Return a digest of the examples in their order, with all that is said of them."""
    return fingerprint({name: getattr(split, name) for name in split.__dataclass_fields__ if name != "name"})


def _compare_values(kept: Any, now: Any, place: str = "") -> list[str]:
    if isinstance(kept, dict) and isinstance(now, dict):
        if place == _ANSWERS:  # teachers are told by their names, all in one phrase
            names = [name for name in [*kept, *now] if _compare_values(kept.get(name), now.get(name))]
            kept, now = ({name: side[name] for name in side if name in names} for side in (kept, now))
            return [] if not names else [_phrase_change(place, kept, now)]
        names = [*kept, *(name for name in now if name not in kept)]
        pairs = [(f"{place}.{name}".lstrip("."), kept.get(name), now.get(name)) for name in names]
        return [phrase for name, old, new in pairs for phrase in _compare_values(old, new, name)]
    if kept == now or _differ_by_rounding(kept, now):
        return []
    return [_phrase_change(place, kept, now)]


def _phrase_change(place: str, kept: Any, now: Any) -> str:
    old, new = _shorten_pair(json.dumps(kept), json.dumps(now))
    hint = f"; give threads={kept}, or `jobs` as before" if place == "threads" else ""
    return f"`{place}` was {old} and is now {new}{hint}"


def _differ_by_rounding(one: Any, other: Any) -> bool:
    """Say whether two lists of ``_digest_numbers`` differ by no more than rounding."""
    if not all(isinstance(side, list) and len(side) == _SUMS and isinstance(side[0], float) for side in (one, other)):
        return False
    allowed = _ROUNDING * max(abs(one[0]), abs(other[0]))
    return all(abs(a - b) <= allowed for a, b in zip(one, other, strict=True))


def _shorten_pair(old: str, new: str) -> tuple[str, str]:
    """Return two texts, cut to where they differ first."""
    if max(len(old), len(new)) <= _SHOWN:
        return old, new
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(0, same - _SHOWN // 2)
    return _cut_text(old, start), _cut_text(new, start)


def _cut_text(text: str, start: int) -> str:
    shown = text[start : start + _SHOWN]
    return f"{'...' if start else ''}{shown}{'...' if start + _SHOWN < len(text) else ''}"
