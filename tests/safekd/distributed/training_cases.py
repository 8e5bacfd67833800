"""Small training runs in float64, the same on one process and on several; each gives back plain values."""

from __future__ import annotations

import torch
from torch import nn

import safekd as kd
from safekd.distributed import Ranks
from safekd.safety import KLBall, OneMinusBrier, Recall, SafetyConstraint, TruthProbability
from safekd.teachers import StoredTeacher

from .rank_cases import wrap_student

EXAMPLES, CLASSES, STEPS = 23, 3, 201
generator = torch.Generator().manual_seed(5)
INPUTS = torch.randn(EXAMPLES, 5, generator=generator, dtype=torch.float64)
LABELS = torch.arange(EXAMPLES) % CLASSES
CONTEXT = (torch.arange(EXAMPLES) >= EXAMPLES - 2).long()  # two examples of context 1: most batches of a rank have none
TABLES = [torch.randn(EXAMPLES, CLASSES, generator=generator, dtype=torch.float64).softmax(-1) for _ in range(2)]


def split(name, places):
    return kd.Split(name, INPUTS[places], LABELS[places], context=CONTEXT[places], numbers=places)


def everything():
    return torch.arange(EXAMPLES)


def teachers():
    return [StoredTeacher(f"t{k}", {"train": table, "validation": table}) for k, table in enumerate(TABLES)]


def student(kind="plain"):
    torch.manual_seed(3)
    return wrap_student(kind, nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double())


def constraints():
    first = TruthProbability([0])
    return [
        SafetyConstraint("first", first, 0.6),
        SafetyConstraint("rare", first, 0.55, contexts=[1], average="all"),
        SafetyConstraint(
            "worst", OneMinusBrier(), 0.5, by="context", contexts=[0, 1], average="all", worst=KLBall(0.1)
        ),
        SafetyConstraint("counted", Recall([1]), 0.5),
        SafetyConstraint("elsewhere", first, 0.5, split="validation"),
    ]


def train(ranks, kind="plain", *, batch=8, train_places=None, optimizer=torch.optim.Adam, steps=STEPS, **more):
    """Return what a run gave; ``train_places`` are those of this rank where each has a part of its own."""
    module = student(kind)
    trainer = kd.ConstrainedTrainer(
        module,
        teachers(),
        constraints=constraints(),
        optimizer=optimizer(module.parameters(), lr=0.02),
        batch_size=batch,
        **more,
    )
    per_epoch = 1 if batch is None else -(-EXAMPLES // batch)
    result = trainer.fit(
        split("train", everything() if train_places is None else train_places),
        split("validation", everything().flip(0)[:9]),
        epochs=-(-steps // per_epoch),
        trace_every=40,
        tolerance=1e-12,
    )
    return describe(result)


def describe(result):
    apart = {"wall_s", "memory_bytes", "peak_memory_bytes"}
    table = result.trace.drop(columns=[name for name in result.trace if name in apart])
    return {
        "trace": {name: column.tolist() for name, column in table.items() if column.dtype == float},
        "multipliers": result.multipliers,
        "state": {name: value.clone() for name, value in result.student.state_dict().items()},
        "most_feasible": {name: value.clone() for name, value in result.most_feasible.state_dict().items()},
        "status": result.status,
        "message": result.message,
        "uses": [f"{use}: {use.fingerprint}" for use in result.uses],
    }


def cases(ranks):
    own = {0: everything()[:15], 1: everything()[15:]}
    out = {kind: train(ranks, kind) for kind in ("plain", "ddp", "fsdp")}
    out |= {f"{kind} in microbatches": train(ranks, kind, microbatch_size=2) for kind in ("ddp", "fsdp")}
    out["full batch"] = train(ranks, "ddp", batch=None)
    out["independent"] = train(ranks, "ddp", independent_batches=True)
    out["own parts"] = train(ranks, "ddp", train_places=own[ranks.rank] if ranks.size > 1 else None)
    return out


def one_process():
    ranks = Ranks()
    return {
        "minibatches": train(ranks),
        "microbatches": train(ranks, microbatch_size=4),
        "full batch": train(ranks, batch=None),
        "independent": train(ranks, independent_batches=True),
    }
