"""What the tests of this folder run on every rank; each returns plain values."""

from __future__ import annotations

import os
import signal

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from safekd.distributed import adopt_student, find_ranks, measure_total_norm
from safekd.errors import InvalidInput, RankFailure

INPUTS = 7  # examples: no multiple of two or three


def small_module(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3, bias=False)).double()


def inputs():
    return torch.randn(INPUTS, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def add_up_vectors(ranks):
    vector = torch.arange(4, dtype=torch.float64) / 3 + 0.1 * ranks.rank
    total = ranks.add_up(lambda: vector, 4)
    nan = ranks.add_up(lambda: torch.tensor([float("nan") if ranks.rank else 1.0]).double(), 1)
    return {"total": total, "nan": nan, "found": [find_ranks().rank, find_ranks().size]}


def fail_on_one(ranks):
    def compute():
        if ranks.rank == 1:
            raise InvalidInput("teacher 'nurse' gave nothing.")
        return torch.zeros(3, dtype=torch.float64)

    try:
        ranks.add_up(compute, 3)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return None


def broadcast_values(ranks):
    some = [
        torch.full((2,), float(ranks.rank + 5)),
        torch.tensor(ranks.rank + 3),
        torch.ones(2, 2).double() * ranks.rank,
    ]
    ranks.broadcast(some)
    return some


def compare_hashes(ranks):
    ranks.require_alike("The multipliers", [torch.ones(3)])
    try:
        ranks.require_alike("The multipliers", [torch.ones(3) + 1e-7 * ranks.rank])
    except RankFailure as error:
        return str(error)
    return None


def wrap_student(kind, module):
    if kind == "ddp":
        return DistributedDataParallel(module)
    if kind == "fsdp":
        fully_shard(module[0])
        return fully_shard(module)
    return module


def loss_of(module, x_BD):
    return module(x_BD).square().sum()


def reduce_gradients(ranks):
    """Two microbatches a rank, of uneven size: the gradient of the sum over all examples, under each wrapper."""
    out = {}
    for kind in ("plain", "ddp", "fsdp"):
        student = adopt_student(wrap_student(kind, small_module(seed=0 if kind != "plain" else ranks.rank)), ranks)
        student.begin()
        student.caller.eval()
        student.refresh()
        start = [p.detach().clone() for p in student.module.parameters()]
        own = inputs()[ranks.take_own(torch.arange(INPUTS))]
        for p in student.parameters.values():
            p.grad = None
        parts = own.split(2)
        for i, part in enumerate(parts):
            with student.accumulate(i == len(parts) - 1):
                (loss_of(student.caller, part) * student.gradient_factor).backward()
        student.add_up_gradients()
        gradients = [p.grad for p in student.parameters.values()]
        whole = [g.full_tensor() if kind == "fsdp" else g for g in gradients]
        out[kind] = {"start": start, "gradients": whole, "norm": measure_total_norm(gradients)}
    return out


def sharded_whole(ranks):
    """A sharded student: its whole copy after a step, and what is written back."""
    student = adopt_student(wrap_student("fsdp", small_module()), ranks)
    optimizer = torch.optim.Adam(student.parameters.values(), lr=0.1)
    (loss_of(student.caller, inputs()[ranks.rank :: ranks.size]) * student.gradient_factor).backward()
    optimizer.step()
    student.share_buffers()
    student.refresh()
    state = {name: value.clone() for name, value in student.module.state_dict().items()}
    with torch.no_grad():
        for p in student.module.parameters():
            p.fill_(0.5)
    student.write_back()
    student.refresh()
    halves = all(bool((p == 0.5).all()) for p in student.module.parameters())
    kinds = [type(part).__name__ for part in student.module.modules()]
    return {"state": state, "halves": halves, "kinds": kinds}


def die_in_the_middle(ranks):
    try:
        for step in range(4):
            if step == 2 and ranks.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            ranks.add_up(lambda: torch.zeros(3, dtype=torch.float64), 3)
    except RankFailure as error:
        return str(error)
    return None


def die_in_backward(ranks):
    student = adopt_student(wrap_student("ddp", small_module()), ranks)
    try:
        for step in range(4):
            if step == 2 and ranks.rank == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            with ranks.watch():
                loss_of(student.caller, inputs()).backward()
    except RankFailure as error:
        return str(error)
    return None
