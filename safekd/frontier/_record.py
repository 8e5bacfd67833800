"""What makes a sweep the sweep it is, as plain JSON: two sweeps with the same record have the same cells."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..data import Split, as_split
from ..training import ConstrainedTrainer
from ._cells import MEASURED
from ._plan import Plan
from ._solve import Job

_LISTENERS = ("callbacks", "on_trace", "on_round")  # who watches changes no number
_SHOWN = 64


def record_of(plan: Plan, job: Job, trainer: ConstrainedTrainer) -> dict[str, Any]:
    """Return the record of a sweep.  trainer: the one of its first cell, not yet trained."""
    fit = {name: _plain(value) for name, value in job.fit.items() if name not in (*_LISTENERS, "splits")}
    given = {
        "train": job.train,
        **({} if job.validation is None else {"validation": job.validation}),
        **(job.fit.get("splits") or {}),
    }
    return {
        "sweep": plan.record(),
        "epochs": job.epochs,
        "fit": fit,
        "threads": job.threads or torch.get_num_threads(),
        "data": {name: _digest(as_split(data, name)) for name, data in given.items()},
        "trainer": _described(trainer),
        MEASURED: _heard(trainer, job),
    }


def run_id(record: Mapping[str, Any]) -> str:
    """Return a name for all that a record states, twelve characters."""
    stated = {name: value for name, value in record.items() if name != MEASURED}
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:12]


def _described(trainer: ConstrainedTrainer) -> dict[str, Any]:
    group = trainer.problem.optimizer.param_groups[0]
    return {
        "student": {name: list(p.shape) for name, p in trainer.student.named_parameters()},
        "teachers": list(trainer.objective.ensemble.names),
        "weights": _plain(trainer.objective.rule),
        "constraints": [_plain(rule) for rule in trainer.constraints],
        "dual": {
            "kind": type(trainer.problem.dual).__name__,
            **{k: _plain(v) for k, v in vars(trainer.problem.dual).items()},
        },
        "optimizer": {
            "kind": type(trainer.problem.optimizer).__name__,
            **{name: _plain(value) for name, value in group.items() if name != "params"},
        },
        "batch_size": trainer.problem.batch_size,
        "seed": trainer.problem.seed,
        "device": str(trainer.problem.device),
    }


def _heard(trainer: ConstrainedTrainer, job: Job) -> list[float]:
    """Return some of what the teachers say of the first training examples: other teachers say something else."""
    if job.folder is None:
        return []
    first = torch.arange(min(4, len(job.train)))
    p = trainer.objective.ensemble.on(job.train, first).exp().flatten()
    step = max(1, p.numel() // _SHOWN)
    values: list[float] = p[::step].double().tolist()
    return values


def _digest(split: Split) -> str:
    """Return the SHA-256 of the examples in their order."""
    found = hashlib.sha256()
    for what in ("inputs", "labels", "task", "context"):
        value = getattr(split, what)
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            found.update(f"{what} {plain.dtype} {tuple(plain.shape)}".encode())
            found.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, or its text without addresses in memory."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
