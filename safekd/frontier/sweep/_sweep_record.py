"""What makes a sweep the sweep it is, as plain JSON: two sweeps with the same record have the same points.

What decides a result is told by its content, not by its name: functions by their code and what they close over, a
student by structure, first weights and what is frozen, teachers by what they say of every example.  One full pass of
the first student, before anything is trained, shows what none of this could see.  The first run's trainer is looked at;
that make_trainer does likewise for other thresholds and seeds is taken on trust.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

from ..._torch_state import evaluation_mode, limit_threads
from ...data import as_split, move_split
from ...errors import SafekdError
from ...fingerprints import compare_records, describe, digest_numbers, fingerprint
from ...training import ConstrainedTrainer, describe_problem, describe_source, list_libraries, read_full_pass
from ._sweep_plan import SweepPlan
from ._training_run import SweepJob

_LISTENERS = ("callbacks", "on_trace", "on_round")  # who watches changes no number
_ANSWERS, _PASS = "teacher_probabilities", "first_pass"
_CHUNK = 4096  # examples that a teacher is asked about at a time
_MOST_CHANGES = 6  # differences in a message


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
            "libraries": list_libraries(),
            "data": {name: describe_source(as_split(data, name)) for name, data in given.items()},
            "trainer": {
                **describe_problem(trainer.problem),
                "student_start": fingerprint([*trainer.student.state_dict().items()]),
                "weighting_rule_start": fingerprint(trainer.objective.rule),
                "optimizer_start": fingerprint(trainer.problem.optimizer.state_dict()["state"]),
            },
            _ANSWERS: _describe_answers(trainer, job),
            _PASS: _describe_first_pass(trainer, job),
        }


def hash_record(record: Mapping[str, Any]) -> str:
    """Return a name for all that a record states, twelve characters."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]


def find_record_changes(kept: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what differs between two records, one phrase a difference; what follows from another is left out."""
    before, after = ({name: value for name, value in side.items() if name != _PASS} for side in (kept, now))
    changes = [
        f"{phrase}; give threads={kept['threads']}, or `jobs` as before" if key == "threads" else phrase
        for key, phrase in compare_records(before, after, grouped=[_ANSWERS]).items()
    ] or [*compare_records({_PASS: kept.get(_PASS)}, {_PASS: now.get(_PASS)}).values()]
    if len(changes) > _MOST_CHANGES:
        changes = [*changes[:_MOST_CHANGES], f"and {len(changes) - _MOST_CHANGES} more"]
    return changes


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
                answers[name][split_name] = digest_numbers([part[..., k, :] for part in parts])
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
        "loss": digest_numbers([torch.tensor(full.loss, dtype=torch.float64, device=gradient_n.device)]),
        "safety": {
            reading.name: digest_numbers([torch.tensor([reading.measured, reading.surrogate]).to(gradient_n)])
            for reading in full.readings
        },
        "gradient": digest_numbers([gradient_n]),
    }
