"""A small network that scores every teacher by the same function.  Axes: ... positions, K teachers, V classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..rules import require_number
from ..signals import Signals
from ._learned_rule import require_counts

NETWORK_NEEDS = frozenset({"log_p", "entropy", "cross_entropy", "student_log_p"})


@dataclass(frozen=True)
class TeacherNetworkSettings:
    """How statistics enter the network; ``tests/safekd/weights/test_learned.py`` notices.

    Attributes:
        largest: Statistics above it enter as it, nats: a teacher that gave the truth probability 0 has an infinite
            loss.
    """

    largest: float = 1e6


class TeacherNetwork(nn.Module):
    """Log-weights from four statistics of each teacher.

    They are entropy, cross-entropy on the label, KL to the student and largest p.  The network is one for all teachers,
    (4) -> hidden -> (1), so it works for any number of teachers and of classes, and renaming teachers renames weights.
    Statistics in nats enter as log(1 + x).  Its last layer begins at zero: uniform weights.

    Args:
        hidden: Width, at least 1.
        temperature: That of the KL, above 0.
        settings: How statistics enter; the defaults if left out.
    """

    def __init__(self, hidden: int, temperature: float, settings: TeacherNetworkSettings | None = None) -> None:
        super().__init__()
        require_counts(self, hidden=hidden)
        require_number(self, "temperature", temperature, above=0)
        self.temperature = float(temperature)
        self.settings = settings or TeacherNetworkSettings()
        self.inner = nn.Linear(4, hidden)
        self.outer = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.outer.weight)

    def forward(self, signals: Signals) -> Tensor:
        """Return log-weights, (..., K), whose exponentials sum to one, in the signals' dtype.

        Args:
            signals: The signals of a batch.
        """
        nats = signals.entropy, signals.cross_entropy, signals.student_divergence(self.temperature)
        statistics = [value.to(self.outer.weight).clamp(0, self.settings.largest).log1p() for value in nats]
        statistics.append(signals.log_p.amax(-1).exp())
        x_K4 = torch.stack([value.detach().to(self.outer.weight) for value in statistics], dim=-1)
        score_K = self.outer(torch.tanh(self.inner(x_K4))).squeeze(-1)
        return torch.log_softmax(score_K, dim=-1).to(signals.ones())
