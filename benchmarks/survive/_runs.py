"""Small runs of every kind that moves state, and what two of them must share to the last byte."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

import safekd as kd
from safekd.safety import TruthProbability
from safekd.training.trace import MACHINE_COLUMNS, read_trace


class SmallNet(nn.Module):
    """A network with batch normalization, dropout, and a buffer that its state_dict leaves out."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))
        self.register_buffer("seen", torch.zeros(1), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += inputs.sum().detach()
        return self.layers(inputs) + 1e-6 * self.seen


def make_split(name: str, examples: int, seed: int) -> kd.Split:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (examples,), generator=generator)
    inputs = torch.randn(examples, 4, generator=generator) + labels[:, None] * 0.7
    return kd.Split(name, inputs, labels)


def make_teachers(seed: int = 5) -> list:
    torch.manual_seed(seed)
    return [kd.teachers.TorchTeacher(name, nn.Linear(4, 3)) for name in ("one", "two")]


def make_trainer(kind: str = "minibatches", *, seed: int = 0, start: int = 11, **more) -> kd.ConstrainedTrainer:
    """A trainer whose student begins somewhere else for each ``start``."""
    teachers = more.pop("teachers", None) or make_teachers()
    torch.manual_seed(start)
    student = SmallNet(more.pop("dropout", 0.2))
    lr = more.pop("lr", 0.01)
    optimizer = torch.optim.Adam(student.parameters(), lr=lr)
    if kind == "schedule":
        optimizer = torch.optim.SGD(student.parameters(), lr=lr, momentum=0.9)
        more["scheduler"] = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=200)
    if kind == "learned rule":
        more["weights"] = kd.weights.PolicyGradient(hidden=4)
    at_least = more.pop("at_least", 0.5)
    constraints = [kd.SafetyConstraint(f"class {c}", TruthProbability(critical=[c]), at_least) for c in (0, 1)]
    return kd.ConstrainedTrainer(
        student,
        teachers,
        optimizer=optimizer,
        constraints=more.pop("constraints", constraints),
        batch_size=None if kind in ("full batches", "stream") else 16,
        autocast="float16" if kind == "float16" else None,
        microbatch_size=6 if kind == "microbatches" else more.pop("microbatch_size", None),
        independent_batches=kind == "independent batches",
        seed=seed,
        **more,
    )


def strip_clock(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in MACHINE_COLUMNS}


def contents_but_clock(folder: Path) -> dict[str, object]:
    """Every file of a finished run, without the readings of clock and memory."""
    contents: dict[str, object] = {}
    for path in sorted(folder.iterdir()):
        if path.name in ("manifest.json", "checkpoints"):
            continue
        if path.name == "verdict.json":
            record = json.loads(path.read_text())
            record["point"] = strip_clock({k: v for k, v in record["point"].items() if k != "memory"})
            contents[path.name] = json.dumps(record)
        elif path.name == "trace.jsonl":
            contents[path.name] = [json.dumps(strip_clock(json.loads(line))) for line in path.open()]
        elif path.name == "trace.csv":
            contents[path.name] = read_trace(path).drop(columns=[*MACHINE_COLUMNS], errors="ignore").to_csv()
        else:
            contents[path.name] = path.read_bytes()
    return contents
