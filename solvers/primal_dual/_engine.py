"""The multipliers of one problem, and the step that moves them.

Multipliers live outside the model, in float64, on the device of the problem; nothing here copies to the host
except what a caller asks for, and the first steps of a scale-free rule.  Signs: ``solvers.lagrangian``.
Axes: M inequalities, E equalities, C = M + E rows, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..errors import InvalidInput
from ._evaluation import Evaluate, by_name
from ._gains import SETTINGS, first_state, gains, is_reading, mean_weights, read_scales
from ._merit import Merit, hold_back
from ._methods import DualMethod, PIGain, Seen
from ._multiplier_scale import read_gradients

# by row, all (C,): what is kept, what a continued run needs, what ``undo`` puts back
_GAIN = ("mean_weight", "scale", "lower", "upper", "stiffest", "softest", "range", "change")
_STATE = ("multiplier", "rho", "smooth", "seen", "before", *_GAIN)
_FIRST_READINGS = 20  # steps in which rows without a multiplier scale are asked again, which waits for the device


class PrimalDual:
    """Primal-dual steps for ``min f  s.t.  g <= 0 (M rows), h = 0 (E rows)`` in the caller's own loop.

    Args:
        inequalities: How many rows g, M >= 0.
        equalities: How many rows h, E >= 0.
        method: How multipliers move: ``PIGain()`` (the default), ``AugmentedLagrangian()``, ``PlainAscent()``.
        device: Where the multipliers live.
        least_range: Violation, in units of each row, below which a scale-free gain grows no further: one number, or one
            a row, (M + E,).  A run that begins next to its answer has seen no large violation to measure its gain by.
        horizon: Steps that the run will take at most, where that is known: scale-free rules hurry in short ones.

    Raises:
        InvalidInput: A count or a range is negative; in the methods, values have the wrong shape.
    """

    def __init__(
        self,
        inequalities: int,
        equalities: int = 0,
        method: DualMethod | None = None,
        device: torch.device | str = "cpu",
        least_range: float | Sequence[float] = 0.0,
        horizon: int | None = None,
    ) -> None:
        if inequalities < 0 or equalities < 0:
            raise InvalidInput(f"Counts of constraints cannot be negative: got {inequalities} and {equalities}.")
        self.method = PIGain() if method is None else method
        self.M, self.E = inequalities, equalities
        rows = inequalities + equalities
        self._state = {name: torch.zeros(rows, dtype=torch.float64, device=device) for name in _STATE}
        self._state["multiplier"][:inequalities] = self.method.start
        self._state["rho"] += self.method.rho0
        least_C = torch.as_tensor(least_range, dtype=torch.float64, device=device)
        if least_C.shape not in ((), (rows,)) or not bool((least_C >= 0).all()):
            raise InvalidInput(f"`least_range` is {least_range!r}; wanted a number of at least 0, or one for each row.")
        self._state["softest"] += least_C
        for name, value in first_state().items():
            self._state[name] += value
        self._floor = torch.zeros(rows, dtype=torch.float64, device=device)
        self._floor[inequalities:] = -torch.inf
        self._one = torch.ones_like(self._floor)
        self._step = self._one * self.method.step
        self._readings = _FIRST_READINGS if self.method.scale_free and rows else 0
        self._taken, self._settings, self._merit = 0, SETTINGS.within(horizon), Merit.fresh(device)
        self._undo: Callable[[], None] = lambda: None

    def step(
        self,
        objective: Tensor,
        inequality: Tensor | None = None,
        equality: Tensor | None = None,
        *,
        measured: Tensor | None = None,
        measured_equality: Tensor | None = None,
        present: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """Move the multipliers, then return the scalar whose gradient is the primal step's.

        objective: scalar f.  inequality: g, shape (M,), carries gradients; equality: h, shape (E,).
        measured, measured_equality: what the multipliers see instead of the rows' own values, same shapes: for a row
        that is a smooth stand-in of something like recall, or whose value comes from a batch of its own, so that the
        penalty term is free of bias.
        present: bool (M,), or (M + E,), False where this batch says nothing of a row; its multiplier and moving average
        then rest, and its value, which may be NaN, is left out.
        index: which of the M inequalities the batch speaks of, distinct whole numbers (B,); ``inequality`` and the
        others then have B entries in that order, only those multipliers move, and their rows count M / B times, so that
        the gradient stands for all M.
        """
        rows_C = self._joined(objective, inequality, equality, ("inequality", "equality"), index)
        if not rows_C.numel():
            self._undo = lambda: None
            return objective
        value_C = rows_C
        if measured is not None or measured_equality is not None:
            g, h = (
                (inequality if measured is None else measured),
                (equality if measured_equality is None else measured_equality),
            )
            value_C = self._joined(objective, g, h, ("measured", "measured_equality"), index)
        present_C = self._present(present, rows_C)
        place_C = None if index is None else self._places(index)
        now = self._state if place_C is None else {name: held[place_C] for name, held in self._state.items()}
        floor_C = self._floor if place_C is None else self._floor[place_C]
        self._remember(place_C, now)
        self._taken += 1
        if self._readings or (self.method.scale_free and is_reading(self._taken)):
            now = self._with_scales(now, objective, rows_C, present_C)
        changed, weight_C = self._update(now, objective.detach(), value_C.detach().double(), present_C, floor_C)
        self._keep(place_C, now | changed)
        if index is not None:
            weight_C = torch.cat([weight_C[: len(index)] * (self.M / max(len(index), 1)), weight_C[len(index) :]])
        if present_C is not None:
            rows_C = torch.where(present_C, rows_C, 0.0)
            weight_C = torch.where(present_C, weight_C, 0.0)
        return objective + torch.dot(weight_C.to(rows_C), rows_C)

    def step_with(self, evaluate: Evaluate, optimizer: torch.optim.Optimizer) -> Tensor:
        """Take one whole step: evaluate, move the multipliers, go back, move the variables; return f as it was before.

        Args:
            evaluate: Called without arguments; returns what ``step`` takes: (f, g), (f, g, h) or a dictionary.
            optimizer: Any of torch, made on the variables.
        """
        values = by_name(evaluate())
        total = self.step(**values)
        optimizer.zero_grad()
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        objective: Tensor = values["objective"].detach()
        return objective

    def undo(self) -> None:
        """Take the last ``step`` back, for a caller that found its gradient unusable."""
        self._undo()
        self._undo = lambda: None

    @property
    def multipliers(self) -> Tensor:
        """Multipliers of the inequalities, lambda >= 0, shape (M,)."""
        return self._state["multiplier"][: self.M]

    @multipliers.setter
    def multipliers(self, lambda_M: Tensor) -> None:
        self._set("multiplier", lambda_M, slice(0, self.M))

    @property
    def equality_multipliers(self) -> Tensor:
        """Multipliers of the equalities, of either sign, shape (E,)."""
        return self._state["multiplier"][self.M :]

    @equality_multipliers.setter
    def equality_multipliers(self, mu_E: Tensor) -> None:
        self._set("multiplier", mu_E, slice(self.M, None))

    @property
    def rho(self) -> Tensor:
        """Penalty coefficients of the inequalities, shape (M,)."""
        return self._state["rho"][: self.M]

    @property
    def equality_rho(self) -> Tensor:
        """Penalty coefficients of the equalities, shape (E,)."""
        return self._state["rho"][self.M :]

    @property
    def smoothed(self) -> Tensor:
        """What the multipliers last saw of each row, after averaging, shape (M + E,); NaN where that is nothing."""
        return torch.where(self._state["seen"] > 0, self._state["before"], torch.nan)

    @property
    def capped(self) -> Tensor:
        """True where a multiplier stands at its cap, shape (M + E,), inequalities first."""
        if self.method.cap is None:
            return torch.zeros_like(self._state["multiplier"], dtype=torch.bool)
        return self._state["multiplier"].abs() >= self.method.cap

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of everything that a continued run needs."""
        state = self._state | self._merit._asdict()
        return {name: held.clone() for name, held in state.items()} | {"taken": torch.tensor(self._taken)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what ``state_dict`` gave, on this engine's device.  Raises InvalidInput on a misfit."""
        for name, old in (self._state | self._merit._asdict() | {"taken": torch.tensor(0)}).items():
            new = state.get(name)
            if new is None or new.shape != old.shape:
                found = "nothing" if new is None else f"shape {tuple(new.shape)}"
                raise InvalidInput(f"State of another problem: `{name}` is {found}, wanted shape {tuple(old.shape)}.")
        self._state = {name: state[name].to(old).clone() for name, old in self._state.items()}
        self._merit = Merit(*(state[name].to(old).clone() for name, old in self._merit._asdict().items()))
        self._taken = int(state["taken"])

    def _update(
        self,
        now: Mapping[str, Tensor],
        objective: Tensor,
        value_C: Tensor,
        present_C: Tensor | None,
        floor_C: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return what of the state changes, and the weights of the rows."""
        method = self.method
        changed, e_C = self._averaged(now, value_C, present_C)
        if method.dead_band:
            e_C = e_C - e_C.clamp(-method.dead_band, method.dead_band)
        before_C = now["before"]
        if now["seen"] is not self._one:  # a first value has not changed yet
            before_C = torch.where(now["seen"] > 0, before_C, e_C)
        rho_C, step_C = now["rho"], self._step[: len(e_C)]
        if method.scale_free:
            shown, strength = gains(now, e_C, before_C, self._settings)
            changed |= shown
            changed["rho"] = rho_C = method.rho0 * strength.gain_C
            step_C = method.step / self._settings.integral * rho_C
        lambda_C, weight_C = method.update(now["multiplier"], Seen(e_C, before_C, rho_C, step_C, floor_C))
        if method.scale_free:
            change_C = changed["change"] if present_C is None else torch.where(present_C, changed["change"], 0.0)
            old_C, keep = now["multiplier"], None if self._taken == 1 else method.ema or 0.0
            self._merit = self._merit.updated(objective, old_C, change_C, keep, self._settings)
            excessive = self._merit.is_excessive(strength.weight_C, changed["range"])
            if not excessive.is_cpu or bool(excessive):  # a GPU is not waited for
                # what is thrown to and fro then says nothing of the gain
                changed["softest"] = torch.where(excessive, now["softest"], changed["softest"])
                changed["range"] = torch.where(excessive, torch.maximum(now["range"], e_C.abs()), changed["range"])
                held_C = torch.where(excessive, hold_back(lambda_C, old_C, self._settings), lambda_C)
                lambda_C, weight_C = held_C, held_C if weight_C is lambda_C else weight_C
        changed |= {"multiplier": lambda_C, "before": e_C}
        if method.scale_free:
            changed["mean_weight"] = mean_weights(now, weight_C, self._settings)
        if present_C is not None and not (present_C.is_cpu and bool(present_C.all())):  # a GPU is not waited for
            changed = {
                name: new if new is now[name] else torch.where(present_C, new, now[name])
                for name, new in changed.items()
            }
        return changed, weight_C

    def _averaged(
        self, now: Mapping[str, Tensor], value_C: Tensor, present_C: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the moving averages after this step, and what they say; an absent row stays as it was."""
        keep = self.method.ema or 0.0
        if present_C is not None:
            value_C = torch.where(present_C, value_C, 0.0)  # what an absent row holds may be 0/0
        if not keep:
            seen_C = self._one if value_C.shape == self._one.shape else torch.ones_like(value_C)
            return {"seen": seen_C}, value_C
        total_C, seen_C = keep * now["smooth"] + (1 - keep) * value_C, keep * now["seen"] + (1 - keep)
        return {"smooth": total_C, "seen": seen_C}, total_C / seen_C  # by what was seen: the start counts for nothing

    def _with_scales(
        self, now: Mapping[str, Tensor], objective: Tensor, rows_C: Tensor, present_C: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the state with scales for the rows that can be given one; those without go by a scale of 1."""
        asked_C = now["scale"] == 0
        if self._readings:
            self._readings -= 1
            if now is self._state and not bool(asked_C.any()):
                self._readings = 0
        if is_reading(self._taken):
            asked_C = torch.ones_like(asked_C)
        if present_C is not None:
            asked_C = asked_C & present_C
        if not bool(asked_C.any()):
            return dict(now)
        found = read_gradients(objective, rows_C, stands_for=len(self._floor) / len(rows_C))
        return dict(now) | read_scales(now, found, asked_C)

    def _remember(self, place_C: Tensor | None, now: Mapping[str, Tensor]) -> None:
        """Prepare ``undo``: nothing is written in place, but for the rows of a batch, whose old values are kept."""
        readings, taken, merit = self._readings, self._taken, self._merit

        def undo() -> None:
            self._keep(place_C, dict(now))
            self._readings, self._taken, self._merit = readings, taken, merit

        self._undo = undo

    def _keep(self, place_C: Tensor | None, state: dict[str, Tensor]) -> None:
        if place_C is None:
            self._state = state
            return
        if self._state["seen"] is self._one:
            self._one = self._one.clone()  # the other one is written to now
        for name, rows_C in state.items():
            self._state[name].index_copy_(0, place_C, rows_C)

    def _set(self, name: str, value: Tensor, where: slice) -> None:
        held = self._state[name].clone()
        if value.shape != held[where].shape:
            raise InvalidInput(f"Multipliers have shape {tuple(value.shape)}; wanted {tuple(held[where].shape)}.")
        held[where] = value.to(held)
        self._state = self._state | {name: held}

    def _present(self, present: Tensor | None, rows_C: Tensor) -> Tensor | None:
        if present is None or present.shape == rows_C.shape:
            return present
        lead = len(rows_C) - self.E
        if present.shape != (lead,):
            raise InvalidInput(f"`present` has shape {tuple(present.shape)}; wanted ({lead},) or ({len(rows_C)},).")
        return torch.cat([present, present.new_ones(self.E)])

    def _places(self, index: Tensor) -> Tensor:
        if (
            index.is_cpu
            and len(index)
            and (len(torch.unique(index)) < len(index) or not 0 <= index.min() <= index.max() < self.M)
        ):
            raise InvalidInput(
                f"`index` must hold distinct numbers from 0 to {self.M - 1}; found {index.tolist()[:10]}."
            )
        return torch.cat([index, torch.arange(self.M, self.M + self.E, device=index.device)])

    def _joined(
        self,
        objective: Tensor,
        inequality: Tensor | None,
        equality: Tensor | None,
        names: tuple[str, str],
        index: Tensor | None,
    ) -> Tensor:
        """Return inequalities and equalities as one row of values, each checked against what the engine holds."""
        wanted = {names[0]: self.M if index is None else len(index), names[1]: self.E}
        parts = []
        for (name, size), rows in zip(wanted.items(), (inequality, equality), strict=True):
            if rows is None and size:
                raise InvalidInput(f"`{name}` is missing: this engine holds {size} multipliers for it.")
            if rows is not None and rows.shape != (size,):
                raise InvalidInput(f"`{name}` has shape {tuple(rows.shape)}; this engine was made for {(size,)}.")
            if rows is not None and size:
                parts.append(rows)
        if not parts:
            return objective.new_zeros(0)
        return parts[0] if len(parts) == 1 else torch.cat(parts)
