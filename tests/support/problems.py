"""Training problems whose answers are known in closed form.

A student of free logits gives one distribution p, whatever the input.  Its teachers agree on q, so

    min KL(q || p)  s.t.  p_0 >= s     has     p_0 = s,  p_k = q_k (1 - s) / (1 - q_0)     for s >= q_0
    value      q_0 log(q_0 / s) + (1 - q_0) log((1 - q_0) / (1 - s))
    multiplier (1 - q_0) / (1 - s) - q_0 / s,  the derivative of the value by s

Axes: V classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import safekd as kd
from safekd.safety import TruthProbability
from safekd.teachers import StoredTeacher

Q = (0.3, 0.5, 0.2)
SPLITS = ("train", "validation")  # that the same rows of a stored teacher are about


class FreeLogits(nn.Module):
    """One row of free logits for each value of the inputs' last column."""

    def __init__(self, classes: int = 3, rows: int = 1, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(rows, classes, dtype=dtype))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.logits[inputs[..., -1].long()]

    def p(self, row: int = 0) -> list[float]:
        return torch.softmax(self.logits[row].detach(), -1).tolist()


def answer(s: float, q: Sequence[float] = Q) -> list[float]:
    """The optimal distribution."""
    return list(q) if s <= q[0] else [s, *(q_k * (1 - s) / (1 - q[0]) for q_k in q[1:])]


def value(s: float, q: Sequence[float] = Q) -> float:
    """The optimal loss."""
    return 0.0 if s <= q[0] else q[0] * math.log(q[0] / s) + (1 - q[0]) * math.log((1 - q[0]) / (1 - s))


def optimal_multiplier(s: float, q: Sequence[float] = Q) -> float:
    """The optimal multiplier."""
    return 0.0 if s <= q[0] else (1 - q[0]) / (1 - s) - q[0] / s


def one_each(classes: int = 3, name: str = "train") -> kd.Split:
    """One example of each class, all of them of row 0 of ``FreeLogits``; other examples than the training split's."""
    return kd.Split(name, torch.full((classes, 1), 0.0 if name == "train" else 0.5), torch.arange(classes))


def agreeing(q: Sequence[float] = Q, examples: int = 3) -> list[StoredTeacher]:
    """One teacher that says q about every example."""
    return [StoredTeacher("q", dict.fromkeys(SPLITS, torch.tensor(q, dtype=torch.float64).expand(examples, -1)))]


def at_least(s: float, name: str = "first", critical: int = 0, **more) -> kd.SafetyConstraint:
    return kd.SafetyConstraint(name, TruthProbability(critical=[critical]), s, **more)


def trainer_for(
    *constraints: kd.SafetyConstraint, student=None, teachers=None, lr=0.5, **more
) -> kd.ConstrainedTrainer:
    """A trainer by plain gradient descent, full batches."""
    student = FreeLogits() if student is None else student
    return kd.ConstrainedTrainer(
        student,
        agreeing() if teachers is None else teachers,
        constraints=constraints,
        optimizer=torch.optim.SGD(student.parameters(), lr=lr),
        **more,
    )


def fit_tightened(**more) -> kd.FitResult:
    """A run whose thresholds were raised, as far as two rounds go."""
    table = torch.tensor(Q, dtype=torch.float64).expand(300, -1)
    trainer = trainer_for(at_least(0.4), teachers=[StoredTeacher("q", {"train": table[:3], "validation": table})])
    judge = kd.Split("validation", torch.full((300, 1), 0.5), torch.zeros(300).long())
    return trainer.fit(one_each(), judge, epochs=40, tighten=kd.Tighten(attempts=2, folds=0), **more)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
