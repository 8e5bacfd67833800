"""Good folders of every kind, and who reads them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import nn

import safekd as kd
from safekd.errors import InvalidInput
from safekd.training.resume import CheckpointStore
from safekd.training.trace import read_trace

from ._command import run_here
from ._folder_inputs import FolderReader, FolderTarget

_N = 24


def _make_splits() -> tuple[kd.Split, kd.Split]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2 * _N, 2, generator=draw)
    y = (x[:, 0] + 0.3 * torch.randn(2 * _N, generator=draw) > 0).long()
    return kd.Split("train", x[:_N], y[:_N]), kd.Split("validation", x[_N:], y[_N:])


def _make_student() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(2, 2)


def _make_trainer(threshold: float, seed: int = 0) -> kd.ConstrainedTrainer:
    student = _make_student()
    teachers = [
        kd.teachers.CallableTeacher(name, lambda x, slope=slope: torch.stack([-slope * x[:, 0], x[:, 0]], -1), "logits")
        for name, slope in (("a", 1.0 + seed), ("b", 2.0))
    ]
    return kd.ConstrainedTrainer(
        student,
        teachers,
        weights=kd.weights.Uniform(),
        constraints=[kd.SafetyConstraint("safe", kd.safety.TruthProbability(critical=[0]), threshold)],
        optimizer=torch.optim.Adam(student.parameters(), lr=0.1),
        seed=seed,
    )


def _make_run(folder: Path, seed: int) -> None:
    train, validation = _make_splits()
    _make_trainer(0.7, seed).fit(train, validation, epochs=12, trace_every=4, run_dir=folder)


def _load_run(folder: Path) -> str:
    student = _make_student()
    before = [parameter.clone() for parameter in student.parameters()]
    try:
        result = kd.FitResult.load(folder, student)
    except kd.SafekdError:
        same = all(torch.equal(one, other) for one, other in zip(before, student.parameters(), strict=True))
        if not same:
            return "a student was filled from what was refused"
        raise
    repr(result), result.feasible, [str(certificate) for certificate in result.certificates]
    return ""


def _read_traces(folder: Path) -> str:
    for name in ("trace.csv", "trace.jsonl"):
        if not len(read_trace(folder / name)):
            return f"{name} has no rows"
    return ""


def _verify_by_command(path: Path) -> str:
    ran = run_here(("verify", str(path)))
    if faults := ran.find_faults():
        return "; ".join(faults)
    if ran.code:
        raise InvalidInput(f"{ran.out} {ran.err}")
    return ""


def _make_sweep(folder: Path, seed: int) -> None:
    train, validation = _make_splits()
    kd.trace_frontier(
        lambda threshold: _make_trainer(threshold, seed),
        train,
        validation,
        targets=[0.6, 0.7],
        epochs=8,
        run_dir=folder,
        threads=1,
    )


def _verify_students(folder: Path) -> str:
    report = kd.verify(folder, _make_trainer, *_make_splits())
    if not report.holds():
        raise InvalidInput(f"{folder}: {report}")
    return ""


@cache
def _trace_once(seed: int) -> kd.Frontier:
    train, validation = _make_splits()
    return kd.trace_frontier(lambda t: _make_trainer(t, seed), train, validation, targets=[0.6, 0.7], epochs=8)


def _make_frontier(folder: Path, seed: int) -> None:
    folder.mkdir()
    _trace_once(seed).to_csv(folder / "frontier.csv")


def _read_frontier(folder: Path) -> str:
    frontier = kd.Frontier.from_csv(folder / "frontier.csv")
    repr(frontier), frontier.summary()
    return ""


def _make_checkpoint(folder: Path, seed: int) -> None:
    folder.mkdir()
    trainer, (train, _) = _make_trainer(0.7, seed), _make_splits()
    trainer.fit(train, epochs=2)
    state = {
        "student": trainer.student.state_dict(),
        "optimizer": trainer.problem.optimizer.state_dict(),
        "loop": {"step": 2 + seed, "gaps": (0.5, None), "rates": [0.1 * n for n in range(40)], "seen": {3, 1}},
    }
    CheckpointStore(folder).save(2, state, {"note": f"of seed {seed}"})


def _read_checkpoint(folder: Path) -> str:
    store = CheckpointStore(folder)
    found = store.find_latest()
    if found is None:
        raise InvalidInput("; ".join(store.damaged.values()) or f"{folder} holds no checkpoint.")
    repr(store.read(found))
    return ""


TARGETS = (
    FolderTarget(
        "checkpoint",
        _make_checkpoint,
        (
            FolderReader("CheckpointStore.read", _read_checkpoint),
            FolderReader("safekd verify", _verify_by_command),
        ),
    ),
    FolderTarget(
        "run",
        _make_run,
        (
            FolderReader("FitResult.load", _load_run),
            FolderReader("safekd verify", _verify_by_command),
            FolderReader("read_trace", _read_traces, lambda name: name in ("trace.csv", "trace.jsonl")),
        ),
        finishes=True,
    ),
    FolderTarget(
        "sweep",
        _make_sweep,
        (
            FolderReader("safekd verify", _verify_by_command),
            # no row rests on the run that finds the range of thresholds
            FolderReader("kd.verify", _verify_students, lambda name: not name.startswith("anchor/")),
        ),
    ),
    FolderTarget(
        "frontier",
        _make_frontier,
        (
            FolderReader("Frontier.from_csv", _read_frontier),
            FolderReader("safekd verify", lambda folder: _verify_by_command(folder / "frontier.csv")),
        ),
    ),
)
