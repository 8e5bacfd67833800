"""A weighting rule of your own: teachers count by their margin, and still obey bounds and an ordering.

    python examples/custom_rule.py

A rule maps ``Signals`` of a batch to scores, one a teacher and position.  Registered, an experiment file can name it.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

import safekd as kd
from safekd.weights import Signals, register_rule


@register_rule
@dataclass(frozen=True)
class Margin:
    """Score of a teacher: its most probable class against the next one, p_1 - p_2, to a power.

    Attributes:
        power: Above 0; the higher, the more the surest teacher counts.
    """

    power: float = 1.0
    scale: ClassVar[str] = "token"
    needs: ClassVar[frozenset[str]] = frozenset({"log_p"})
    continuous: ClassVar[bool] = True

    def __call__(self, signals: Signals) -> torch.Tensor:
        """Return scores, (..., K).

        Args:
            signals: Of a batch; ``log_p`` has shape (..., K, V).
        """
        highest = signals.log_p.exp().topk(2, dim=-1).values
        return (highest[..., 0] - highest[..., 1]) ** self.power


def main(epochs: int = 300) -> tuple[kd.FitResult, kd.AuditReport]:
    """Audit the rule, and train with it.

    Args:
        epochs: Passes over the training data at most.

    Returns:
        The result of the training and the report of the axioms.
    """
    torch.manual_seed(0)
    inputs = torch.randn(200, 2)
    train = kd.Split("train", inputs, (inputs[:, 0] > 0).long())
    teachers = [
        kd.teachers.CallableTeacher("sure", lambda x: torch.stack([-3 * x[:, 0], 3 * x[:, 0]], 1), gives="logits"),
        kd.teachers.CallableTeacher("wary", lambda x: torch.stack([-x[:, 0], x[:, 0]], 1), gives="logits"),
        kd.teachers.CallableTeacher("lost", lambda x: torch.stack([-x[:, 1], x[:, 1]], 1), gives="logits"),
    ]

    # Scores alone keep no bounds; Conforming projects them: nobody vanishes, and "lost" never passes "sure".
    polytope = kd.WeightPolytope(3, lower=0.1, upper=0.7, orderings=[(0, 2)])
    conforming = kd.weights.Conforming(Margin(power=2.0), polytope)
    log_p = torch.stack([teacher.log_probabilities(train.batch(), "train") for teacher in teachers], dim=-2)
    report = kd.audit(conforming, Signals(log_p=log_p.double()), polytope=polytope)

    student = torch.nn.Linear(2, 2)
    sgd = torch.optim.SGD(student.parameters(), lr=0.5)
    trainer = kd.ConstrainedTrainer(student, teachers, weights=conforming, optimizer=sgd)
    return trainer.fit(train, epochs=epochs), report


if __name__ == "__main__":
    result, report = main()
    print(report)
    print(result.message)
