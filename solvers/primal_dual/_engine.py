"""The multipliers of one problem, and the step that moves them.

Multipliers live outside the model, in float64, on the device of the problem; nothing here copies to the host
except what a caller asks for.  Signs: ``solvers.lagrangian``.  Axes: M inequalities, E equalities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..lagrangian import equality_weights, inequality_weights, lagrangian
from ._methods import AugmentedLagrangian, DualMethod

_STATE = ("multipliers", "equality_multipliers", "rho", "equality_rho", "_smooth", "_seen", "_audited", "_still")
_PATIENCE = 3  # audits in a row: noise of minibatches looks like standing still for one or two


class PrimalDual:
    """Primal-dual steps for ``min f  s.t.  g <= 0 (M rows), h = 0 (E rows)`` in the caller's own loop.

    inequalities, equalities: how many rows of each kind, at least 0.  method: how multipliers move
    (``AugmentedLagrangian()`` or ``PlainAscent()``).  device: where they live.
    Raises InvalidInput for negative counts and for values of the wrong shape.
    """

    def __init__(
        self,
        inequalities: int,
        equalities: int = 0,
        method: DualMethod | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if inequalities < 0 or equalities < 0:
            raise InvalidInput(f"Counts of constraints cannot be negative: got {inequalities} and {equalities}.")
        self.method = AugmentedLagrangian() if method is None else method

        def vector(size: int, value: float) -> Tensor:
            return torch.full((size,), value, dtype=torch.float64, device=device)

        self.multipliers = vector(inequalities, self.method.start)
        self.equality_multipliers = vector(equalities, 0.0)
        self.rho = vector(inequalities, self.method.rho0)
        self.equality_rho = vector(equalities, self.method.rho0)
        self._smooth = vector(inequalities, 0.0)
        self._seen = vector(inequalities, 0.0)  # total weight in the moving average: corrects its start
        self._audited = vector(inequalities, torch.inf)
        self._still = vector(inequalities, 0.0)  # audits in a row that found no progress
        self._before: dict[str, Tensor] = {}

    def step(
        self,
        objective: Tensor,
        inequality: Tensor | None = None,
        equality: Tensor | None = None,
        *,
        measured: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Move the multipliers, then return the scalar whose gradient is the primal step's.

        objective: scalar f.  inequality: g, shape (M,), carries gradients; equality: h, shape (E,).
        measured: what the multipliers see instead of g's own value, shape (M,), for a g that is a smooth
        stand-in of something like recall.  present: bool (M,), False where this batch says nothing of a row;
        its multiplier and moving average then rest, and its value, which may be NaN, is left out.
        """
        g_M = self._rows(inequality, self.multipliers, "inequality", objective)
        h_E = self._rows(equality, self.equality_multipliers, "equality", objective)
        value_M = g_M if measured is None else self._rows(measured, self.multipliers, "measured", objective)
        self._before = {name: getattr(self, name) for name in _STATE}  # nothing below writes in place
        seen_M = self._smoothed(value_M.detach().double(), present)
        h_value_E = h_E.detach().double()

        step_M = self.method.step * self._growth(self.rho)
        moved = (self.multipliers + step_M * seen_M).clamp(0, self.method.cap)
        self.multipliers = moved if present is None else torch.where(present, moved, self.multipliers)
        self.equality_multipliers = self.equality_multipliers + self.method.step * h_value_E

        weight_M = inequality_weights(self.multipliers, seen_M, self.rho)
        weight_E = equality_weights(self.equality_multipliers, h_value_E, self.equality_rho)
        if present is not None:
            g_M = torch.where(present, g_M, 0.0)
        return lagrangian(objective, g_M, h_E, weight_M, weight_E)

    def undo(self) -> None:
        """Take the last ``step`` back, for a caller that found its gradient unusable."""
        for name, value in self._before.items():
            setattr(self, name, value)

    def audit(self, g_M: Tensor, tolerance: float) -> None:
        """Tell the engine full-pass values of g: rho, and the multiplier step with it, grow where three calls in a
        row find a violation that has not fallen by a tenth since the call before.

        A violation at most ``tolerance`` is none, and one that comes and goes does not stand still.  Without this
        call rho keeps its first value.
        """
        violation_M = g_M.detach().to(self.rho).clamp_min(0)
        stuck_M = (violation_M > tolerance) & (self._audited > tolerance) & (violation_M > 0.9 * self._audited)
        self._still = torch.where(stuck_M, self._still + 1, 0.0)
        grown_M = (self.rho * self.method.growth).clamp_max(self.method.rho_max)
        self.rho = torch.where(self._still >= _PATIENCE, grown_M, self.rho)
        self._audited = violation_M

    @property
    def capped(self) -> Tensor:
        """True where a multiplier stands at its cap, shape (M,)."""
        if self.method.cap is None:
            return torch.zeros_like(self.multipliers, dtype=torch.bool)
        return self.multipliers >= self.method.cap

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of everything that a continued run needs."""
        return {name.lstrip("_"): getattr(self, name).clone() for name in _STATE}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what ``state_dict`` gave, on this engine's device.  Raises InvalidInput on a misfit."""
        for name in _STATE:
            old, new = getattr(self, name), state.get(name.lstrip("_"))
            if new is None or new.shape != old.shape:
                found = "nothing" if new is None else f"shape {tuple(new.shape)}"
                raise InvalidInput(
                    f"State of another problem: `{name.lstrip('_')}` is {found}, wanted shape {tuple(old.shape)}."
                )
        for name in _STATE:
            setattr(self, name, state[name.lstrip("_")].to(getattr(self, name)).clone())

    def _smoothed(self, value_M: Tensor, present: Tensor | None) -> Tensor:
        keep = self.method.ema or 0.0
        fresh_M = torch.ones_like(value_M) if present is None else present.to(value_M)
        value_M = torch.where(fresh_M > 0, value_M, 0.0)  # what an absent row holds may be 0/0
        decay_M = 1 - (1 - keep) * fresh_M  # in float64, which torch.where of two numbers would not be
        self._smooth = decay_M * self._smooth + (1 - keep) * fresh_M * value_M
        self._seen = decay_M * self._seen + (1 - keep) * fresh_M
        return torch.where(self._seen > 0, self._smooth / self._seen.clamp_min(1e-300), 0.0)

    def _growth(self, rho: Tensor) -> Tensor:
        """How much rho has grown; the multiplier step keeps its proportion to it."""
        return rho / self.method.rho0 if self.method.rho0 > 0 else torch.ones_like(rho)

    @staticmethod
    def _rows(value: Tensor | None, like: Tensor, name: str, objective: Tensor) -> Tensor:
        if value is None:
            if like.numel():
                raise InvalidInput(f"`{name}` is missing: this engine holds {like.numel()} multipliers for it.")
            return objective.new_zeros(0)
        if value.shape != like.shape:
            raise InvalidInput(
                f"`{name}` has shape {tuple(value.shape)}; this engine was made for {tuple(like.shape)}."
            )
        return value
