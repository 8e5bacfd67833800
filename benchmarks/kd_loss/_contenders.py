"""The contenders: each gives a scalar loss of the same hidden states and heads, whose ``backward()`` is timed too.

    straightforward    whole matrices (N, V) and autograd; teachers are added up one by one, or stacked (N, K, V) first
    TRL                its chunked divergence, of one teacher: the mean of K calls, which is another loss for K > 1
    Liger              its fused Jensen-Shannon loss at beta = 0, likewise; not compiled, which needs a compiler
    ours               one call, at a budget of memory

All compute the forward divergence at temperature 1.  Axes: N positions, H width, K teachers, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from safekd.language import Head, Hidden, distillation_loss
from safekd.safety import LogTruthProbability
from safekd.weights import EntropyDecay, Rule, Unified
from solvers.polytope import WeightPolytope

STRAIGHT, STACKED, TRL = "straightforward", "straightforward, stacked", "TRL"
BUDGETS = (64, 128)  # MiB
LIGER_ROWS = (128, 1024)  # the first is about as many as ours has at 64 MiB, the second is its default
RULE = "rule and measures"
CRITICAL = 50  # tokens of each of the two measures; labels are drawn from them, so that every position is read


@dataclass(frozen=True)
class Size:
    """One cell: K teachers, V tokens, N positions, width H of all; whether the weights get a gradient."""

    K: int
    V: int
    N: int
    H: int
    learned: bool = False


@dataclass
class Problem:
    """Hidden states and heads, float32; one head a teacher, as teachers of other families have."""

    size: Size
    hidden: Tensor = field(init=False)
    weight: Tensor = field(init=False)
    teachers: list[tuple[Tensor, Tensor]] = field(init=False)
    scores: Tensor = field(init=False)
    labels: Tensor = field(init=False)

    def __post_init__(self) -> None:
        K, V, N, H = self.size.K, self.size.V, self.size.N, self.size.H
        make = torch.Generator().manual_seed(0)
        self.hidden = torch.randn(N, H, generator=make).requires_grad_()
        self.weight = torch.randn(V, H, generator=make).mul_(2 * H**-0.5).requires_grad_()
        self.teachers = [
            (torch.randn(N, H, generator=make), torch.randn(V, H, generator=make).mul_(2 * H**-0.5)) for _ in range(K)
        ]
        self.scores = torch.randn(N, K, generator=make).requires_grad_(self.size.learned)
        self.labels = torch.randint(min(V, 2 * CRITICAL), (N,), generator=make)

    @property
    def weights(self) -> Tensor:
        """Weights of the teachers, (N, K)."""
        return torch.softmax(self.scores, -1)

    def clear(self) -> None:
        """Forget all gradients."""
        self.hidden.grad = self.weight.grad = self.scores.grad = None

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradients that every contender hands over."""
        made = [self.hidden, self.weight, *([self.scores] if self.size.learned else [])]
        return sum(4 * x.numel() for x in made)


Contender = Callable[[Problem], Tensor]


def list_contenders(learned: bool, with_rule: bool) -> dict[str, Contender]:
    """Return contenders by name; libraries of one teacher know no weights that learn.

    learned: whether weights get a gradient.  with_rule: whether ours with a rule and measures takes part.
    """
    named: dict[str, Contender] = {STRAIGHT: compute_straight}
    if not learned:
        named[STACKED] = compute_stacked
        named |= {TRL: compute_trl} | {name_liger(rows): make_liger(rows) for rows in LIGER_ROWS}
    named |= {name_ours(budget): make_ours(budget) for budget in BUDGETS}
    if with_rule:
        named |= {f"{name_ours(budget)}, {RULE}": make_ruled(budget) for budget in BUDGETS}
    return named


def name_ours(budget: int) -> str:
    """Return what tables call ours at a budget, MiB."""
    return f"ours, {budget} MiB"


def name_liger(rows: int) -> str:
    """Return what tables call Liger with chunks of so many rows."""
    return f"Liger, {rows} rows"


def compute_straight(problem: Problem) -> Tensor:
    """Return the loss from whole matrices."""
    log_s = torch.log_softmax(problem.hidden @ problem.weight.T, -1)
    with torch.no_grad():
        teachers = [torch.softmax(h @ W.T, -1) for h, W in problem.teachers] if problem.size.learned else None
    if teachers is None:
        with torch.no_grad():
            w = problem.weights
            q = sum(w[:, k, None] * torch.softmax(h @ W.T, -1) for k, (h, W) in enumerate(problem.teachers))
    else:
        w = problem.weights
        q = sum(w[:, k, None] * p for k, p in enumerate(teachers))
    return kl_div(log_s, q, reduction="batchmean")


def compute_stacked(problem: Problem) -> Tensor:
    """Return the loss from whole matrices, all teachers in one."""
    log_s = torch.log_softmax(problem.hidden @ problem.weight.T, -1)
    with torch.no_grad():
        p_NKV = torch.softmax(torch.stack([h @ W.T for h, W in problem.teachers], 1), -1)
        q = (problem.weights[..., None] * p_NKV).sum(1)
    return kl_div(log_s, q, reduction="batchmean")


def compute_trl(problem: Problem) -> Tensor:
    """Return the mean over teachers of TRL's divergence."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    total = torch.zeros(())
    for h, W in problem.teachers:
        divergence_N, _ = ChunkedDivergenceFunction.apply(problem.hidden, problem.weight, None, h, W, None, 0.0)
        total = total + divergence_N.mean()
    return total / problem.size.K


def make_liger(rows: int) -> Contender:
    """Return Liger's loss in chunks of so many rows."""

    def compute(problem: Problem) -> Tensor:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

        loss = LigerFusedLinearJSDLoss(0.0, 1.0, beta=0.0, compiled=False, chunk_size=rows)
        several = [loss(problem.hidden, problem.weight, h, W, problem.labels) for h, W in problem.teachers]
        return torch.stack(several).sum() / problem.size.K

    return compute


def make_ours(budget: int) -> Contender:
    """Return ours at a budget, MiB."""
    return lambda problem: _distil(problem, budget, weights=problem.weights)


def make_ruled(budget: int) -> Contender:
    """Return ours at a budget, the weights from a rule, entropies and a projection, with two measures."""

    def compute(problem: Problem) -> Tensor:
        measures = [LogTruthProbability(range(i * CRITICAL, (i + 1) * CRITICAL), at=0.5) for i in range(2)]
        rule = make_rule(problem.size.K)
        more = {"labels": problem.labels, "measures": measures, "multipliers": [0.1, 0.2]}
        return _distil(problem, budget, weights=rule, **more)

    return compute


def make_rule(K: int) -> Rule:
    """Return weights by entropy, projected into a polytope."""
    return Unified(token=EntropyDecay(), polytope=WeightPolytope(K, lower=0.1 / K, upper=min(1.0, 2.0 / K)))


def _distil(problem: Problem, budget: int, **more: object) -> Tensor:
    teachers = [Hidden(h, Head(W)) for h, W in problem.teachers]
    return distillation_loss(problem.hidden, Head(problem.weight), teachers, budget=f"{budget}MiB", **more).loss


def read_self_distances(shifts: tuple[float, ...], padded: int = 64) -> list[tuple[float, float, float]]:
    """Return the distance of a model from itself, its teacher's head padded: (shift of all logits, Liger's, ours)."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    make = torch.Generator().manual_seed(0)
    h, W = torch.randn(64, 32, generator=make), torch.randn(1000 + padded, 32, generator=make) * 0.3
    labels, liger = torch.zeros(64, dtype=torch.long), LigerFusedLinearJSDLoss(0.0, 1.0, beta=0.0, compiled=False)
    W[1000:] = 0  # as padding is left by libraries that do not train it
    rows = []
    for shift in shifts:
        b = torch.full((1000 + padded,), shift)
        b[1000:] = -1e4  # the teacher gives padding nothing
        theirs = float(
            liger(h, W[:1000].clone().requires_grad_(), h, W, labels, b[:1000].clone().requires_grad_(), b).detach()
        )
        student = Head(W[:1000].clone(), b[:1000].clone())
        ours = float(distillation_loss(h, student, [Hidden(h, Head(W, b))], vocabulary=1000).loss)
        rows.append((shift, theirs, ours))
    return rows
