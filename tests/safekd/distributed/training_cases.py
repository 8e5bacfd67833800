"""Small training runs in float64, the same on one process and on several; each gives back plain values."""

from __future__ import annotations

import os
import signal

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import safekd as kd
from safekd.data import StreamSource
from safekd.distributed import Ranks
from safekd.errors import RankFailure
from safekd.safety import KLBall, OneMinusBrier, Recall, SafetyConstraint, TruthProbability
from safekd.teachers import CallableTeacher, StoredTeacher
from safekd.weights import Conforming, GradientMinNorm, MetaTeacher, PolicyGradient, Tracking

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


def stream(batches, name="train"):
    """Data as a stream of batches, each the places of its examples."""
    rows = [(INPUTS[places], LABELS[places], CONTEXT[places], places) for places in batches]
    return StreamSource(name, rows, fields=("inputs", "labels", "context", "numbers"))


def train(ranks, kind="plain", *, batch=8, data=None, optimizer=torch.optim.Adam, steps=STEPS, elsewhere=None, **more):
    """Return what a run gave; ``data`` are what this rank is given, the whole split if left out."""
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
        split("train", everything()) if data is None else data,
        split("validation", everything().flip(0)[:9]) if elsewhere is None else elsewhere,
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


SHORT = 27  # steps: every reading of scales up to the fifth, and an uneven last batch in each of nine epochs


def rules():
    """One rule a way of looking at a batch as a whole."""
    pair = kd.WeightPolytope(n_teachers=2, lower=0.2)
    torch.manual_seed(9)
    return {
        "MetaTeacher": MetaTeacher().double(),
        "PolicyGradient": PolicyGradient(4).double(),
        "Tracking": Tracking(Conforming(GradientMinNorm(), pair), pair, beta=0.5, by="context", groups=2),
    }


LONG = {"ddp over 201 steps": "ddp", "fsdp over 201 steps": "fsdp"}


def long_runs(ranks):
    return {name: train(ranks, kind) for name, kind in LONG.items()}


def short_runs(ranks):
    more = {
        "ddp": {},
        "fsdp": {},
        "plain": {},
        "ddp in microbatches": {"microbatch_size": 2},
        "fsdp in microbatches": {"microbatch_size": 2},
        "ddp on full batches": {"batch": None},
        "ddp on independent batches": {"independent_batches": True},
        "ddp clipped": {"clip_norm": 0.05},
        "ddp beside a stream": {"elsewhere": stream(everything().flip(0)[:9].split(4), "validation")},
        "fsdp beside a stream": {"elsewhere": stream(everything().flip(0)[:9].split(4), "validation")},
    }
    return {name: train(ranks, name.split()[0], steps=SHORT, **settings) for name, settings in more.items()}


def own_parts(ranks):
    """Each rank has a part of its own, one of them twice the other."""
    own = {0: everything()[:15], 1: everything()[15:]}[ranks.rank]
    mine = list(own.split(4))  # four batches, and two
    return {
        "own parts": train(ranks, "ddp", steps=SHORT, data=split("train", own)),
        "streams of parts": train(ranks, "fsdp", batch=None, steps=12, data=stream(mine)),
        "one stream": train(ranks, "ddp", batch=None, steps=12, data=stream(everything().split(8))),
    }


def learned(ranks):
    kinds = {"MetaTeacher": "fsdp", "PolicyGradient": "ddp", "Tracking": "plain"}
    return {name: train(ranks, kinds[name], steps=SHORT, weights=rule) for name, rule in rules().items()}


def one_process():
    """The same runs in one process, by the name of what they are compared with."""
    ranks, (longer, shorter) = Ranks(), (everything()[:15].split(4), everything()[15:].split(4))
    parts = [*map(torch.cat, zip(longer, shorter, strict=False)), *longer[len(shorter) :]]
    found = {
        "plain": train(ranks, steps=SHORT),
        "ddp on full batches": train(ranks, steps=SHORT, batch=None),
        "ddp on independent batches": train(ranks, steps=SHORT, independent_batches=True),
        "ddp clipped": train(ranks, steps=SHORT, clip_norm=0.05),
        "one stream": train(ranks, batch=None, steps=12, data=stream(everything().split(8))),
        "streams of parts": train(ranks, batch=None, steps=12, data=stream(parts)),
        **{name: train(ranks, steps=SHORT, weights=rule) for name, rule in rules().items()},
    }
    again = {
        "ddp": "plain",
        "fsdp": "plain",
        "ddp in microbatches": "plain",
        "fsdp in microbatches": "plain",
        "own parts": "plain",
        "ddp beside a stream": "plain",
        "fsdp beside a stream": "plain",
    }
    return found | {name: found[other] for name, other in again.items()}


def one_process_for_long():
    """What the long runs are compared with, by their names."""
    return dict.fromkeys(LONG, train(Ranks()))


class Fragile(nn.Module):
    """A student that gives no number for one example, the second: on two ranks the first of rank 1."""

    def __init__(self):
        super().__init__()
        self.inner = student()

    def forward(self, inputs):
        logits = self.inner(inputs)
        bad = (inputs == INPUTS[1]).all(-1, keepdim=True)
        return torch.where(bad, torch.nan, logits)


class Moody:
    """A teacher that fails on rank 1."""

    def __init__(self, rank):
        self.rank = rank

    def __call__(self, inputs):
        if self.rank == 1:
            raise RuntimeError("the teacher's server is down")
        return torch.full((len(inputs), CLASSES), 1 / CLASSES, dtype=torch.float64)


def failures(ranks):
    """What a run says where one rank alone meets something that is wrong."""
    module = nn.parallel.DistributedDataParallel(Fragile()) if ranks.size > 1 else Fragile()
    adam = torch.optim.Adam(module.parameters(), lr=0.01)
    trainer = kd.ConstrainedTrainer(module, teachers(), constraints=constraints()[:1], optimizer=adam)
    result = trainer.fit(split("train", everything()), epochs=3)
    out = {"nan": [result.status, result.message]}
    module = student()
    adam = torch.optim.Adam(module.parameters(), lr=0.01)
    trainer = kd.ConstrainedTrainer(
        module, [CallableTeacher("moody", Moody(ranks.rank))], constraints=constraints()[:1], optimizer=adam
    )
    try:
        trainer.fit(split("train", everything()), epochs=3)
    except Exception as error:
        out["teacher"] = [type(error).__name__, str(error)]
    return out


def run_with_folder(ranks, folder, kind, *, killed_at=None, killed_rank=1, **more):
    """Train into a folder; a rank dies at a step where that is asked for."""
    if ranks.rank == killed_rank and killed_at is not None:
        die_at_step(killed_at)
    module = student(kind)
    trainer = kd.ConstrainedTrainer(
        module,
        teachers(),
        constraints=constraints(),
        optimizer=torch.optim.Adam(module.parameters(), lr=0.02),
        batch_size=8,
    )
    result = trainer.fit(
        split("train", everything()),
        split("validation", everything().flip(0)[:9]),
        epochs=SHORT // 3,
        trace_every=9,
        tolerance=1e-12,
        run_dir=folder,
        checkpoint_every=10,
        **more,
    )
    return describe(result)


def die_at_step(step):
    """Let this process kill itself after that step."""
    seen = []

    def count(*_):
        seen.append(1)
        if len(seen) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_post_hook(count)


def killed_and_resumed(ranks):
    """Called twice, by processes of their own: the first time rank 1 dies in the middle."""
    folder, kind = os.environ["SAFEKD_TEST_FOLDER"], os.environ["SAFEKD_TEST_KIND"]
    first = "SAFEKD_TEST_KILL" in os.environ
    try:
        return run_with_folder(ranks, folder, kind, killed_at=16 if first else None)
    except RankFailure as error:
        return {"failure": str(error)}
