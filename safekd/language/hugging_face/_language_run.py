"""One run of the trainer, beside what transformers keeps of it: multipliers, the weighting rule, the trace."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...distributed import Ranks
from ...errors import InvalidInput
from ...training import ConstraintLayout
from ...training.trace import TracePoint
from ...weights import collect_modules, load_rule_state, rule_state
from ..rollouts import Rollouts
from ..steps import LanguageStep
from ._trace_recorder import StepState, TraceRecorder
from .passes import DistillationTerms

_RATE = 1e-2  # of Adam where a rule learns and nobody gives an optimizer, as everywhere in this library


class LanguageRun:
    """Moves multipliers and the weighting rule, adds up what logs say, and reads the trace.

    Args:
        terms: The loss and the constraints.
        step: Holds the multipliers.
        recorder: Reads the trace.
        ranks: Who trains.
        weights_optimizer: Of a rule that learns; None for Adam.
        rollouts: The training data, where the student writes them; their state is the run's.
    """

    def __init__(
        self,
        terms: DistillationTerms,
        step: LanguageStep,
        recorder: TraceRecorder,
        ranks: Ranks,
        weights_optimizer: torch.optim.Optimizer | None,
        rollouts: Rollouts | None = None,
    ) -> None:
        self._terms, self.step, self.recorder, self._ranks = terms, step, recorder, ranks
        self._rollouts = rollouts
        self._layout = ConstraintLayout(terms.constraints, step.device)
        modules = collect_modules(terms.weights).values()
        self._learned = [p for module in modules for p in module.parameters() if p.requires_grad]
        if weights_optimizer is not None and not self._learned:
            raise InvalidInput("`weights_optimizer` was given, and nothing learns in `weights`; leave it out.")
        self._optimizer = weights_optimizer
        if self._learned and weights_optimizer is None:
            self._optimizer = torch.optim.Adam(self._learned, lr=_RATE)
        self._window = _LogWindow([constraint.name for constraint in terms.constraints])
        self._residuals: dict[str, float] = {}

    @property
    def multipliers(self) -> Tensor:
        """Multiplier of each constraint, (M,), float64."""
        return self.step.multipliers.detach().cpu().double()

    def set_multipliers(self, multipliers: Sequence[float]) -> None:
        """Begin with other multipliers than 0.

        Args:
            multipliers: One a constraint.

        Raises:
            InvalidInput: There are more, or fewer.
        """
        value_M = torch.tensor([float(value) for value in multipliers], dtype=torch.float64)
        if value_M.shape != self.multipliers.shape:
            raise InvalidInput(
                f"{len(value_M)} multipliers were given; wanted {len(self.multipliers)}, one a constraint."
            )
        engine = self.step.engine
        engine.multipliers, engine.equality_multipliers = self._layout.split_by_kind(value_M)
        # what the next step's gradients weigh; penalty terms come with what that step shows
        self.step.load_state_dict({**self.step.state_dict(), "weight": value_M})

    def finish(self) -> None:
        """Move what moves beside the student, after the optimizer has moved that."""
        if self._optimizer is not None:
            gradients = [p.grad for p in self._learned if p.grad is not None]
            self._ranks.add_up_in_place(gradients)
            for gradient in gradients:  # each process has weighed its share by the number of processes
                gradient /= self._ranks.size
            self._optimizer.step()
            self._optimizer.zero_grad()
        record = self.step.finish()
        self._window.add(record.loss, record.safety)

    def read_window(self) -> dict[str, float]:
        """Return what logs say of the steps since the last one, and forget them."""
        numbers = self._window.take()
        for constraint, multiplier in zip(self._terms.constraints, self.multipliers.tolist(), strict=True):
            numbers |= {f"required_{constraint.name}": constraint.required, f"lambda_{constraint.name}": multiplier}
        return {**numbers, **self.take_residuals()}

    def take_residuals(self) -> dict[str, float]:
        """Return the residuals of a point that no log has said yet; they wait for the log of a step.

        A log of their own between two steps would take the place of the step's.
        """
        residuals, self._residuals = self._residuals, {}
        return residuals

    def record(self, step: int, epoch: int, again: bool = False) -> TracePoint | None:
        """Read a point of the trace; None where the last one is of this step.

        Args:
            step: Optimizer steps so far.
            epoch: Passes over the training data so far.
            again: Whether a point of this step is to be read anew: the student is another one.
        """
        points = self.recorder.points
        if points and points[-1].step == step:
            if not again:
                return None
            points.pop()
        engine, M = self.step.engine, self.step.engine.M
        join = self._layout.join_kinds
        state = StepState(
            step,
            epoch,
            self.multipliers,
            join(engine.rho, engine.equality_rho),
            join(engine.capped[:M], engine.capped[M:]),
            join(engine.smoothed[:M], engine.smoothed[M:]),
        )
        point = self.recorder.record(state)
        self._residuals = {f"kkt_{name}": value for name, value in vars(point.residuals).items()}
        return point

    def state(self) -> dict[str, Any]:
        """Return all that moves, by part; all processes ask for it together, since each writes texts of its own."""
        texts = [] if self._rollouts is None else self._ranks.gather(dict(self._rollouts.state_dict()))
        return {
            "rollouts": {str(rank): state for rank, state in enumerate(texts)},
            "step": dict(self.step.state_dict()),
            "rule": rule_state(self._terms.weights),
            "rule_optimizer": None if self._optimizer is None else self._optimizer.state_dict(),
            "trace": self.recorder.state(),
            "window": self._window.state(),
            "residuals": dict(self._residuals),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave, to the last bit.

        Args:
            state: The same.

        Raises:
            InvalidInput: It is the state of another run.
        """
        self.step.load_state_dict(state["step"])
        load_rule_state(self._terms.weights, state["rule"])
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["rule_optimizer"])
        self.recorder.load(state["trace"])
        self._window.load(state["window"])
        self._residuals = dict(state["residuals"])
        if self._rollouts is not None:
            self._rollouts.load_state_dict(state["rollouts"][str(self._ranks.rank)])


class _LogWindow:
    """Means over the steps between two logs; a constraint counts in those that spoke of it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [*names]
        self._sums = torch.zeros(2, 1 + len(self._names), dtype=torch.float64)

    def add(self, loss: float, safety_M: Tensor) -> None:
        values = torch.cat([torch.tensor([float(loss)], dtype=torch.float64), safety_M.detach().cpu().double()])
        known = ~torch.isnan(values)
        self._sums[0] += torch.where(known, values, 0.0)
        self._sums[1] += known

    def take(self) -> dict[str, float]:
        total, count = self._sums.tolist()
        means = [value / n if n else math.nan for value, n in zip(total, count, strict=True)]
        self._sums.zero_()
        names = ["distillation_loss", *(f"safety_{name}" for name in self._names)]
        return dict(zip(names, means, strict=True))

    def state(self) -> Tensor:
        return self._sums.clone()

    def load(self, state: Tensor) -> None:
        self._sums.copy_(state)
