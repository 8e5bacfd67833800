"""Good folders of every kind, and who reads them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

import safekd as kd
from safekd.errors import InvalidInput
from safekd.io.folders import MANIFEST, format_checked_json
from safekd.training.resume import CheckpointStore
from safekd.training.trace import read_trace

from ._command import run_here
from ._folder_inputs import FolderReader, FolderTarget
from ._forged_json import forge_tensors
from ._input import EITHER, REFUSED

_N, _VOCABULARY = 24, 40


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


class _Teacher:
    """Hidden states that add up what came before, and a head."""

    def __init__(self, name: str, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.name, self.vocabulary, self._seed = name, _VOCABULARY, seed
        self._table, self._head = (
            torch.randn(_VOCABULARY, 8, generator=draw),
            torch.randn(_VOCABULARY, 8, generator=draw),
        )

    def manifest(self) -> dict[str, str | int]:
        return {"kind": "table", "revision": str(self._seed)}

    def __call__(self, batch: kd.data.Batch) -> kd.language.Hidden:
        ids = batch.inputs["input_ids"]
        return kd.language.Hidden(self._table[ids].cumsum(1).tanh(), kd.language.Head(self._head))


def _make_sequences() -> kd.Split:
    draw = torch.Generator().manual_seed(3)
    return kd.language.as_text_source(torch.randint(0, _VOCABULARY, (12, 7), generator=draw).tolist())


def _make_cache(folder: Path, seed: int) -> None:
    for kind in ("hidden", "topk"):
        teacher = _Teacher(kind, seed)
        kd.language.write_cache(folder, teacher, _make_sequences(), kind=kind, k=5, batch_size=3, shard_bytes=600)


@cache
def _read_good_cache() -> tuple[dict[str, bytes], list[torch.Tensor]]:
    """Return the JSON files of the good cache, and all its numbers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "cache"
        _make_cache(folder, 0)
        return _list_json(folder), _read_numbers(folder)


def _list_json(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.json"))}


def _read_numbers(folder: Path) -> list[torch.Tensor]:
    data, numbers = _make_sequences(), []
    for name in ("hidden", "topk"):
        teacher = kd.language.CachedTeacher(folder, name)
        repr(teacher), teacher.manifest()
        for batch in data.batches(5):
            said = teacher(batch)
            numbers += [value for value in vars(said).values() if isinstance(value, torch.Tensor)]
            numbers += [said.head.weight] if isinstance(said, kd.language.Hidden) else []
    return numbers


def _read_cache(folder: Path) -> str:
    numbers = _read_numbers(folder)
    texts, wanted = _read_good_cache()
    if _list_json(folder) != texts:
        return ""  # forged through and through: another cache
    same = [
        torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)) for one, other in zip(numbers, wanted, strict=True)
    ]
    return "" if all(same) else "numbers were accepted that nobody has written"


def _call_on_cache(command: str) -> Callable[[Path], str]:
    def call(folder: Path) -> str:
        ran = run_here(("cache", command, str(folder)))
        if faults := ran.find_faults():
            return "; ".join(faults)
        if ran.code:
            raise InvalidInput(f"{ran.out} {ran.err}")
        return ""

    return call


def _forge_cache(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """Change heads of shards, or lead out of the folder by a name in a manifest."""
    teacher = folder / str(rng.choice(["hidden", "topk"]))
    if rng.random() < 0.6:
        shards = sorted(teacher.glob("*.safetensors"))
        return forge_tensors(rng, shards[int(rng.integers(len(shards)))]), EITHER
    place = str(
        rng.choice(["../elsewhere/x", "/etc/passwd", "../hidden/head.safetensors", "..", "a/b", "\0", ".", "nul/"])
    )
    path = (folder / "cache.json") if rng.random() < 0.3 else teacher / MANIFEST
    record = json.loads(path.read_text(encoding="utf-8"))
    if path.name == "cache.json":
        record["teachers"]["hidden"] = place
    else:
        old = record["shards"][0]["file"]
        record["shards"][0]["file"] = place
        record["files"][place] = record["files"].pop(old)
    path.write_text(format_checked_json(record), encoding="utf-8")
    return f"{path.name} leads to {place!r}", REFUSED


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
    FolderTarget(
        "cache",
        _make_cache,
        (
            FolderReader("CachedTeacher", _read_cache, lambda name: name.endswith(".json")),
            FolderReader("safekd cache verify", _call_on_cache("verify")),
            FolderReader("safekd verify", _verify_by_command),
            FolderReader("safekd cache info", _call_on_cache("info"), lambda name: False),  # of a twin too
        ),
        forge=_forge_cache,
    ),
)
