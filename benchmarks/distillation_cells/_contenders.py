"""Who takes part: ours in a loop, six peers, a fixed penalty, and a multiplier moved by hand.

Every contender runs at its documented setting and at each other one of its grid.  Axes: M constraints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..primal_dual._peers import PEERS as ALL_PEERS
from ..primal_dual._problems import Problem
from ..primal_dual._steps import PENALTIES, Contender, Scale, Walker, ours


class ByHand:
    """What one writes without a library: ascent on the multipliers, and a weight that sees the value of the moment.

        lambda = max(0, lambda + eta g),   minimize  f + max(0, lambda + rho g) g   with the weight held fixed

    Args:
        problem: What is solved.
        x: The parameters that move.
        setting: (eta, rho).
    """

    cost = 1

    def __init__(self, problem: Problem, x: Sequence[Tensor], setting: tuple[float, float]) -> None:
        self.x, (self.eta, self.rho) = x, setting
        self.optimizer, self.samples = problem.optimizer(x), problem.stream()
        self.lambda_M = torch.zeros(problem.M)

    def step(self) -> None:
        """Move the multipliers, then the parameters."""
        f, g_M, _ = next(self.samples).evaluate(self.x)
        value_M = g_M.detach()
        self.lambda_M = (self.lambda_M + self.eta * value_M).clamp_min(0)
        weight_M = (self.lambda_M + self.rho * value_M).clamp_min(0)
        self.optimizer.zero_grad()
        (f + weight_M @ g_M).backward()
        self.optimizer.step()

    def multipliers(self) -> tuple[Tensor, Tensor]:
        """Return lambda as it is now, and no multiplier of an equality."""
        return self.lambda_M, torch.zeros(0)


def _build_by_hand(problem: Problem, x: Sequence[Tensor], setting: Scale) -> Walker:
    return ByHand(problem, x, setting)


TRAINER = "ours, ConstrainedTrainer"
LOOP = Contender(
    "ours, PrimalDual", ours(None), "PrimalDual() at defaults in the same loop", "default", grid=False, scales=(1.0,)
)
PEERS = [who for who in ALL_PEERS if who.name != "Cooper, extragradient"]  # two evaluations a step
PENALTY = next(who for who in PENALTIES if who.name == "fixed penalty, linear")
BY_HAND = Contender(
    "by hand",
    _build_by_hand,
    "lambda = max(0, lambda + eta g), weight max(0, lambda + rho g); eta, rho = 0.01, 1; grid "
    "0.1, 1; 0.001, 1; 0.1, 10; 0.01, 10",
    "no source",
    scales=((0.01, 1.0), (0.1, 1.0), (0.001, 1.0), (0.1, 10.0), (0.01, 10.0)),
)
CONTENDERS = [LOOP, *PEERS, PENALTY, BY_HAND]
NAMES = [TRAINER, *(who.name for who in CONTENDERS)]


def label(scale: Scale) -> str:
    """Return a setting of the grid in words.

    Args:
        scale: A number, or (eta, rho).

    Returns:
        For example "0.1", or "eta 0.1, rho 10".
    """
    return f"eta {scale[0]:g}, rho {scale[1]:g}" if isinstance(scale, tuple) else f"{scale:g}"
