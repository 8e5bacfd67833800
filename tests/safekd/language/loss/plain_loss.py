"""The loss written out plainly, whole matrices and autograd, beside the one that works in chunks.

Axes: N positions, H width, K teachers, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from safekd.divergences import ForwardKL, ReverseKL
from safekd.language import Head, Hidden, Logits, TopK
from safekd.language.loss import _memory_budget
from safekd.pooling import POOLS, LogLinearPool

DOUBLE = torch.float64


def plain_logits(hidden: Tensor, head: Head | None) -> Tensor:
    """Return logits, in float64."""
    if head is None:
        return hidden.double()
    z = hidden.double() @ head.weight.double().T
    z = (z if head.bias is None else z + head.bias.double()) * head.scale
    return z if head.softcap is None else head.softcap * torch.tanh(z / head.softcap)


def plain_teacher(output, vocabulary: int) -> Tensor:
    """Return a teacher's logits, (..., V), in float64."""
    if isinstance(output, Hidden):
        return plain_logits(output.hidden, output.head)[..., :vocabulary]
    if isinstance(output, Logits):
        return output.logits.double()[..., :vocabulary]
    size = output.vocabulary or vocabulary
    p = output.log_p.double().exp()
    tail = (1 - p.sum(-1)).clamp_min(0) if output.tail is None else output.tail.double()
    full = (tail / max(size - p.shape[-1], 1))[..., None].expand(*p.shape[:-1], size).clone()
    return full.scatter(-1, output.ids.long(), p).log()[..., :vocabulary]


def plain_pool(log_p_NKV: Tensor, w_NK: Tensor, pool) -> Tensor:
    """Return the log of the pool; weights of a mean are divided by their sum."""
    pool = POOLS[pool] if pool in ("arithmetic", "power") else pool
    if isinstance(pool, LogLinearPool):
        return pool(log_p_NKV, w_NK)
    if not isinstance(pool, str):
        return pool(log_p_NKV, w_NK / w_NK.sum(-1, keepdim=True))
    return torch.log_softmax(torch.where(w_NK[..., None] == 0, 0.0, w_NK[..., None] * log_p_NKV).sum(-2), -1)


def plain_divergence(divergence, log_q: Tensor, log_s: Tensor) -> Tensor:
    """Return one divergence a position, terms of probability zero left out."""
    q, s = log_q.exp(), log_s.exp()

    def expect(p, value):
        return torch.where(p == 0, 0.0, p * torch.where(p == 0, 0.0, value)).sum(-1)

    if isinstance(divergence, ForwardKL):
        return expect(q, log_q - log_s)
    if isinstance(divergence, ReverseKL):
        return expect(s, log_s - log_q)
    beta = divergence.beta
    log_m = (beta * q + (1 - beta) * s).log()
    return beta * expect(q, log_q - log_m) + (1 - beta) * expect(s, log_s - log_m)


@dataclass
class Case:
    """A student, teachers and settings, all small; leaves of the graph are in ``leaves``."""

    hidden: Tensor
    head: Head | None
    teachers: list
    weights: Tensor
    labels: Tensor | None = None
    mask: Tensor | None = None
    settings: dict = field(default_factory=dict)
    leaves: dict[str, Tensor] = field(default_factory=dict)

    @property
    def vocabulary(self) -> int:
        """V."""
        width = self.hidden.shape[-1] if self.head is None else self.head.vocabulary
        return self.settings.get("vocabulary") or width

    def kept(self) -> Tensor:
        """Which positions count."""
        kept = torch.ones(self.hidden.shape[:-1], dtype=torch.bool)
        if self.labels is not None:
            kept &= self.labels != -100
        return kept if self.mask is None else kept & self.mask

    def log_student(self, temperature: float = 1.0) -> Tensor:
        """Return the student's log-probabilities, (..., V)."""
        z = plain_logits(self.hidden, self.head)[..., : self.vocabulary]
        return torch.log_softmax(z / temperature, -1)

    def plain(self) -> Tensor:
        """Return the loss by autograd."""
        given = {"pool": "arithmetic", "temper": "teachers", "temperature": None, "cross_entropy": 0.0, **self.settings}
        divergence = given.get("divergence", ForwardKL())
        T = given["temperature"]
        several = isinstance(T, (list, tuple))
        own = divergence.temperature if T is None or several else T
        each = list(T) if several else [own] * len(self.teachers)
        z = torch.stack([plain_teacher(t, self.vocabulary) for t in self.teachers], -2)
        log_p = torch.log_softmax(z, -1)
        if given["temper"] == "teachers":
            log_p = torch.log_softmax(log_p / torch.tensor(each, dtype=DOUBLE)[:, None], -1)
        w = self.weights.double().expand(*self.hidden.shape[:-1], len(self.teachers))
        log_q = plain_pool(log_p, w, given["pool"])
        if given["temper"] == "pool":
            log_q = torch.log_softmax(log_q / own, -1)
        loss = plain_divergence(divergence, log_q, self.log_student(own)) * own**2
        share = given["cross_entropy"]
        if share:
            truth = self.log_student().gather(-1, self.labels.clamp_min(0)[..., None])[..., 0]
            loss = (1 - share) * loss - share * truth
        count = given.get("count") or max(int(self.kept().sum()), 1)
        return loss[self.kept()].sum() / count


def set_chunks(monkeypatch, rows: int, block: int, vocabulary: int, itemsize: int = 8) -> None:
    """Make chunks and blocks as small as a test is."""
    sizes = _memory_budget.ChunkSettings(rows, rows, block * vocabulary * itemsize, block * vocabulary * itemsize)
    monkeypatch.setattr(_memory_budget, "SETTINGS", sizes)


def leaf(*shape, scale: float = 1.0, dtype=DOUBLE) -> Tensor:
    """Return random numbers that get a gradient."""
    return (scale * torch.randn(*shape, dtype=dtype)).requires_grad_()


def simplex(*shape, dtype=DOUBLE) -> Tensor:
    """Return random weights that get a gradient."""
    return torch.softmax(torch.randn(*shape, dtype=dtype), -1).requires_grad_()


def table(logits: Tensor, k: int, vocabulary: int | None = None, **more) -> TopK:
    """Return the k most probable tokens of a distribution."""
    log_p, ids = torch.log_softmax(logits, -1).topk(k, -1)
    return TopK(ids, log_p, vocabulary=vocabulary, **more)


def make_case(V=13, H=7, lead=(11,), kinds=("logits", "hidden", "topk"), *, bias=True, scale=1.0, softcap=None, **more):
    """Return a student with a head, teachers of the kinds named, and weights, all float64 leaves where they learn."""
    leaves = {"hidden": leaf(*lead, H), "weight": leaf(V, H), "weights": simplex(*lead, len(kinds))}
    if bias:
        leaves["bias"] = leaf(V)
    head = Head(leaves["weight"], leaves.get("bias"), scale, softcap)
    teachers = [make_teacher(kind, lead, V) for kind in kinds]
    labels = torch.randint(V, lead)
    labels.flatten()[3 % labels.numel()] = -100
    return Case(leaves["hidden"], head, teachers, leaves["weights"], labels, settings=more, leaves=leaves)


def make_teacher(kind: str, lead, V: int):
    """Return what a teacher says, in one of its forms."""
    if kind == "hidden":
        return Hidden(torch.randn(*lead, 5, dtype=DOUBLE), Head(torch.randn(V, 5, dtype=DOUBLE), softcap=4.0))
    logits = 2 * torch.randn(*lead, V, dtype=DOUBLE)
    return Logits(logits) if kind == "logits" else table(logits, min(4, V))


def gradients(loss: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradient in each leaf, zeros where the loss does not see it."""
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, retain_graph=True)
    return {name: torch.zeros_like(x) if g is None else g for (name, x), g in zip(leaves.items(), found, strict=True)}


def assert_same(loss: Tensor, plain: Tensor, leaves: dict[str, Tensor], value=1e-12, gradient=1e-10) -> None:
    """Compare a loss and its gradients with plain ones."""
    assert abs(float(loss.detach()) - float(plain.detach())) <= value * max(1, abs(float(plain.detach())))
    own, other = gradients(loss, leaves), gradients(plain, leaves)
    for name in leaves:
        torch.testing.assert_close(
            own[name], other[name], rtol=gradient, atol=gradient, msg=lambda m, n=name: f"{n}: {m}"
        )
