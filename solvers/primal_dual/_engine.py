"""The multipliers of one problem, and the step that moves them.

Multipliers live outside the model, in float64, on the device of the problem; nothing here copies to the host
except what a caller asks for, and the first steps of a scale-free rule.  Signs: ``solvers.lagrangian``.
Axes: M inequalities, E equalities, C = M + E rows, B rows of a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..errors import InvalidInput
from . import _stiffness
from ._evaluation import Evaluate, named
from ._lookahead import look_ahead
from ._methods import AugmentedLagrangian, DualMethod, Seen
from ._units import units

# by row, all (C,): what is kept, what a continued run needs, what ``undo`` puts back
_STATE = ("price", "rho", "unit", "smooth", "seen", "before", "audited", "still", "watched", "pace", "most")
_PATIENCE = 3  # audits in a row: noise of minibatches looks like standing still for one or two
_FIRST_LOOKS = 20  # steps in which rows without a unit are asked again, which waits for the device


class PrimalDual:
    """Primal-dual steps for ``min f  s.t.  g <= 0 (M rows), h = 0 (E rows)`` in the caller's own loop.

    inequalities, equalities: how many rows of each kind, at least 0.  method: how multipliers move
    (``AugmentedLagrangian()``, ``PIGain()``, ``Extragradient()``, ``PlainAscent()``).  device: where they live.
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
        self.M, self.E = inequalities, equalities
        values = {"price": 0.0, "rho": self.method.rho0, "unit": 1.0, "audited": torch.inf, "most": torch.inf}
        if self.method.scale_free:
            values["unit"] = 0.0  # not known yet
        rows = inequalities + equalities
        self._state = {
            name: torch.full((rows,), values.get(name, 0.0), dtype=torch.float64, device=device) for name in _STATE
        }
        self._state["price"][:inequalities] = self.method.start
        self._floor = torch.zeros(rows, dtype=torch.float64, device=device)
        self._floor[inequalities:] = -torch.inf
        self._one = torch.ones_like(self._floor)
        self._looks = _FIRST_LOOKS if self.method.scale_free and rows else 0
        self._waiting = self.method.scale_free  # multipliers for some row; nobody works out what holds nobody back
        self._recent: deque[Tensor] = deque(maxlen=_stiffness.RINGS)
        self._taken = 0
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
        if self.method.looks_ahead:
            raise InvalidInput(f"{type(self.method).__name__} evaluates twice a step: call take(evaluate, optimizer).")
        return self.respond(
            objective,
            inequality,
            equality,
            measured=measured,
            measured_equality=measured_equality,
            present=present,
            index=index,
        )

    def respond(
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
        """Do what ``step`` does, for every method: a rule that looks ahead then takes its plain step."""
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
        if self._looks or (self.method.scale_free and _stiffness.is_look(self._taken + 1)):
            missed_C = _stiffness.violations(value_C.detach().double(), floor_C)
            now = self._in_units(now, objective, rows_C, missed_C, present_C)
        moved, weight_C = self._moved(now, value_C.detach().double(), present_C, floor_C)
        self._keep(place_C, now | moved)
        if index is not None:
            weight_C = torch.cat([weight_C[: len(index)] * (self.M / max(len(index), 1)), weight_C[len(index) :]])
        if present_C is not None:
            rows_C = torch.where(present_C, rows_C, 0.0)
            weight_C = torch.where(present_C, weight_C, 0.0)
        return objective + torch.dot(weight_C.to(rows_C), rows_C)

    def take(self, evaluate: Evaluate, optimizer: torch.optim.Optimizer) -> Tensor:
        """Take one whole step: evaluate, move the multipliers, go back, move the variables; return f as it was before.

        evaluate: called without arguments; returns what ``step`` takes, (f, g), (f, g, h) or a dictionary.  optimizer:
        any of torch, made on the variables.  The one way for a method that looks ahead, which evaluates twice.
        """
        if self.method.looks_ahead:
            return look_ahead(self, lambda: named(evaluate()), optimizer)
        values = named(evaluate())
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

    def audit(self, g_M: Tensor, tolerance: float, h_E: Tensor | None = None) -> None:
        """Tell the engine full-pass values: rho, and the multiplier step with it, grow where three calls in a row
        find a violation that has not fallen by a tenth since the call before.

        A violation at most ``tolerance`` is none, and one that comes and goes does not stand still.  Without this
        call rho never grows.
        """
        state = self._state
        h_E = state["price"].new_zeros(self.E) if h_E is None else h_E
        missed_C = torch.cat([g_M.detach().to(state["rho"]).clamp_min(0), h_E.detach().to(state["rho"]).abs()])
        stuck_C = (missed_C > tolerance) & (state["audited"] > tolerance) & (missed_C > 0.9 * state["audited"])
        still_C = torch.where(stuck_C, state["still"] + 1, 0.0)
        most_C = self.method.rho_max * _or_one(state["unit"])
        # never down: ringing may have taken rho below where it began, and growth is not to undo that at once
        grown_C = torch.minimum(state["rho"] * self.method.growth, most_C).maximum(state["rho"])
        self._state = state | {
            "still": still_C,
            "rho": torch.where(still_C >= _PATIENCE, grown_C, state["rho"]),
            "audited": missed_C,
        }

    @property
    def multipliers(self) -> Tensor:
        """Multipliers of the inequalities, lambda >= 0, shape (M,)."""
        return self._state["price"][: self.M]

    @multipliers.setter
    def multipliers(self, price_M: Tensor) -> None:
        self._set("price", price_M, slice(0, self.M))

    @property
    def equality_multipliers(self) -> Tensor:
        """Multipliers of the equalities, of either sign, shape (E,)."""
        return self._state["price"][self.M :]

    @equality_multipliers.setter
    def equality_multipliers(self, price_E: Tensor) -> None:
        self._set("price", price_E, slice(self.M, None))

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
            return torch.zeros_like(self._state["price"], dtype=torch.bool)
        return self._state["price"].abs() >= self.method.cap

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of everything that a continued run needs."""
        recent = torch.stack(list(self._recent)) if self._recent else self._floor.new_zeros(0, len(self._floor))
        counted = {"recent": recent, "taken": torch.tensor(self._taken)}
        return {name: held.clone() for name, held in self._state.items()} | counted

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what ``state_dict`` gave, on this engine's device.  Raises InvalidInput on a misfit."""
        rows = len(state.get("recent", ()))
        wanted = self._state | {"recent": self._floor.new_zeros(rows, len(self._floor)), "taken": torch.tensor(0)}
        for name, old in wanted.items():
            new = state.get(name)
            if new is None or new.shape != old.shape:
                found = "nothing" if new is None else f"shape {tuple(new.shape)}"
                raise InvalidInput(f"State of another problem: `{name}` is {found}, wanted shape {tuple(old.shape)}.")
        self._state = {name: state[name].to(old).clone() for name, old in self._state.items()}
        self._recent = deque(state["recent"].to(self._floor), maxlen=_stiffness.RINGS)
        self._taken = int(state["taken"])

    def _moved(
        self, now: Mapping[str, Tensor], value_C: Tensor, present_C: Tensor | None, floor_C: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return what of the state changes, and the weights of the rows."""
        method = self.method
        averages, e_C = self._averaged(now, value_C, present_C)
        if method.dead_band:
            e_C = e_C - e_C.clamp(-method.dead_band, method.dead_band)
        stiffness = self._stiffness(now, e_C, floor_C)
        rho_C = stiffness["rho"]
        step_C = self._step(now, rho_C, stiffness.get("pace"), e_C)
        price_C, weight_C = method.respond(now["price"], Seen(e_C, now["before"], rho_C, now["rho"], step_C, floor_C))
        moved = averages | stiffness | {"price": price_C, "before": e_C}
        if present_C is not None:
            moved = {
                name: new if new is now[name] else torch.where(present_C, new, now[name]) for name, new in moved.items()
            }
        return moved, weight_C

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

    def _stiffness(self, now: Mapping[str, Tensor], e_C: Tensor, floor_C: Tensor) -> dict[str, Tensor]:
        """Return rho for this step, and at a look the violations that the next look compares with."""
        self._taken += 1
        method, rho_C = self.method, now["rho"]
        if not method.scale_free:
            return {"rho": rho_C}
        changed = {"pace": _stiffness.paces(now["pace"], e_C, now["before"], now["seen"] > 0)} if self._waiting else {}
        if not method.ema and rho_C.shape == self._floor.shape:
            self._recent.append(e_C)
            if len(self._recent) == _stiffness.RINGS:
                softest_C = _stiffness.SOFTEST * method.rho0 * _or_one(now["unit"])
                rho_C = _stiffness.softened(rho_C, torch.stack(list(self._recent)), now["price"], softest_C)
                changed["most"] = torch.where(rho_C < now["rho"], _stiffness.CALM * now["rho"], now["most"])
                self._recent.clear()
        if not _stiffness.is_look(self._taken):
            return changed | {"rho": rho_C}
        missed_C = _stiffness.violations(e_C, floor_C)
        most_C = torch.minimum(changed.get("most", now["most"]), method.rho0 * _or_one(now["unit"]))
        pace_C = changed.get("pace", now["pace"])
        way_C = pace_C * _stiffness.since_look(self._taken)
        if pace_C.shape == self._floor.shape:
            self._waiting = self._waiting and not bool((pace_C >= _stiffness.keeps_up(method.step / method.rho0)).all())
        rho_C = _stiffness.hurried(rho_C, missed_C, now["watched"], now["price"], most_C, way_C)
        return changed | {"rho": rho_C, "watched": missed_C}

    def _step(self, now: Mapping[str, Tensor], rho_C: Tensor, pace_C: Tensor | None, e_C: Tensor) -> Tensor:
        """Return how far a unit of violation moves the multipliers."""
        method = self.method
        if method.rho0 == 0:
            return method.step * _or_one(now["unit"])
        share = method.step / method.rho0
        if pace_C is None:
            return rho_C * share
        away_C = e_C * now["price"] >= 0  # from 0; a multiplier that comes back waits for nobody
        return rho_C * torch.where(away_C, _stiffness.followed(share, pace_C, self._taken), share)

    def _in_units(
        self,
        now: Mapping[str, Tensor],
        objective: Tensor,
        rows_C: Tensor,
        missed_C: Tensor,
        present_C: Tensor | None,
    ) -> dict[str, Tensor]:
        """Return the state with units for the rows that can be given one; those without go by a unit of 1.

        At a look the units of rows that are violated are read anew: an objective bends more in some places than where
        it began.  They only grow.
        """
        unknown_C = now["unit"] == 0
        if self._looks:
            self._looks -= 1
            if now is self._state and not bool(unknown_C.any()):
                self._looks = 0
        asked_C = unknown_C | (missed_C > 0) if _stiffness.is_look(self._taken + 1) else unknown_C
        if present_C is not None:
            asked_C &= present_C
        if not bool(asked_C.any()):
            return dict(now)
        found = units(objective, rows_C, self.method.rho0, len(self._floor) / len(rows_C))
        asked_C &= ~found.unit.isnan()
        return dict(now) | {
            "unit": torch.where(asked_C, torch.fmax(found.unit, now["unit"]), now["unit"]),
            "rho": torch.where(asked_C & unknown_C, found.first, now["rho"]),
        }

    def _remember(self, place_C: Tensor | None, now: Mapping[str, Tensor]) -> None:
        """Prepare ``undo``: nothing is written in place, but for the rows of a batch, whose old values are kept."""
        looks, recent, taken = self._looks, tuple(self._recent), self._taken

        def undo() -> None:
            self._keep(place_C, dict(now))
            self._looks, self._recent, self._taken = looks, deque(recent, maxlen=_stiffness.RINGS), taken

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


def _or_one(unit_C: Tensor) -> Tensor:
    """Return units, 1 where none is known."""
    return torch.where(unit_C > 0, unit_C, 1.0)
