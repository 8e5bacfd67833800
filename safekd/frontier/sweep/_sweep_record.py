"""What makes a sweep the sweep it is, as plain JSON: two sweeps with the same record have the same points."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...data import Split, as_split
from ...training import ConstrainedTrainer
from ..store import MEASURED
from ._sweep_plan import SweepPlan
from ._training_run import SweepJob

_LISTENERS = ("callbacks", "on_trace", "on_round")  # who watches changes no number
_SAMPLE = 64  # probabilities in a record: what a reader of the file bears


def describe_sweep(plan: SweepPlan, job: SweepJob, trainer: ConstrainedTrainer) -> dict[str, Any]:
    """Return the record of a sweep; ``trainer`` is the one of its first run, not yet trained."""
    fit = {name: _make_json(value) for name, value in job.fit.items() if name not in (*_LISTENERS, "splits")}
    given = {
        "train": job.train,
        **({} if job.validation is None else {"validation": job.validation}),
        **(job.fit.get("splits") or {}),
    }
    return {
        "sweep": plan.describe(),
        "epochs": job.epochs,
        "fit": fit,
        "threads": job.threads or torch.get_num_threads(),
        "data": {name: _hash_split(as_split(data, name)) for name, data in given.items()},
        "trainer": _describe_trainer(trainer),
        MEASURED: _sample_teachers(trainer, job),
    }


def hash_record(record: Mapping[str, Any]) -> str:
    """Return a name for all that a record states, twelve characters."""
    stated = {name: value for name, value in record.items() if name != MEASURED}
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:12]


def _describe_trainer(trainer: ConstrainedTrainer) -> dict[str, Any]:
    group = trainer.problem.optimizer.param_groups[0]
    return {
        "student": {name: list(p.shape) for name, p in trainer.student.named_parameters()},
        "teachers": list(trainer.objective.ensemble.names),
        "weighting_rule": _make_json(trainer.objective.rule),
        "constraints": [_make_json(constraint) for constraint in trainer.constraints],
        "dual": {
            "kind": type(trainer.problem.dual).__name__,
            **{k: _make_json(v) for k, v in vars(trainer.problem.dual).items()},
        },
        "optimizer": {
            "kind": type(trainer.problem.optimizer).__name__,
            **{name: _make_json(value) for name, value in group.items() if name != "params"},
        },
        "batch_size": trainer.problem.batch_size,
        "seed": trainer.problem.seed,
        "device": str(trainer.problem.device),
    }


def _sample_teachers(trainer: ConstrainedTrainer, job: SweepJob) -> list[float]:
    """Return some of what the teachers say of the first training examples: other teachers say something else."""
    if job.folder is None:
        return []
    first = torch.arange(min(4, len(job.train)))
    p = trainer.objective.ensemble.cached_log_probabilities(job.train, first).exp().flatten()
    step = max(1, p.numel() // _SAMPLE)
    values: list[float] = p[::step].double().tolist()
    return values


def _hash_split(split: Split) -> str:
    """Return the SHA-256 of the examples in their order."""
    digest = hashlib.sha256()
    for what in ("inputs", "labels", "task", "context"):
        value = getattr(split, what)
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            digest.update(f"{what} {plain.dtype} {tuple(plain.shape)}".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _make_json(value: Any) -> Any:
    """Return a value as JSON has it, or its text without addresses in memory."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
