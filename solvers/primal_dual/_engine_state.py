"""What an engine keeps of each row between steps: what a continued run needs, and what ``undo`` puts back.

Rows are never written in place, but for those of a batch that speaks of some only.  Axes: C rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..errors import InvalidInput
from ._gains import FIRST_GAIN_STATE, weigh_by_scale
from ._merit import MeritState

# all (C,), float64; the last ones are those of ``_gains``
ROWS = {
    "multiplier": "lambda of an inequality, mu of an equality",
    "rho": "penalty coefficient of the last step",
    "average_sum": "moving average of the violation, times average_weight",
    "average_weight": "how much of the moving average comes from values, 1 in the long run; 0: nothing was seen yet",
    "last_violation": "what the method last saw of the row",
    **dict.fromkeys(FIRST_GAIN_STATE, "see ``_gains``"),
}


class EngineState:
    """The rows of one engine, the number of steps it took, and how to take the last one back."""

    def __init__(self, C: int, device: torch.device | str) -> None:
        self.rows = {name: torch.zeros(C, dtype=torch.float64, device=device) for name in ROWS}
        for name, value in FIRST_GAIN_STATE.items():
            self.rows[name] += value
        self.one = torch.ones(C, dtype=torch.float64, device=device)
        self.merit, self.steps, self.readings = MeritState(), 0, 0
        self.undo: Callable[[], None] = lambda: None

    def select(self, place_B: Tensor | None) -> dict[str, Tensor]:
        """Return the rows at some places, all of them for None."""
        return self.rows if place_B is None else {name: row[place_B] for name, row in self.rows.items()}

    def begin_step(self, place_B: Tensor | None, now: Mapping[str, Tensor]) -> None:
        """Count a step, and prepare ``undo``: ``now`` holds the rows as they are."""
        steps, readings, merit = self.steps, self.readings, self.merit

        def undo() -> None:
            self.store(place_B, dict(now))
            self.steps, self.readings, self.merit = steps, readings, merit

        self.undo = undo
        self.steps += 1

    def store(self, place_B: Tensor | None, rows: dict[str, Tensor]) -> None:
        """Put rows back at some places, all of them for None."""
        if place_B is None:
            self.rows = rows
            return
        if self.rows["average_weight"] is self.one:
            self.one = self.one.clone()  # the other one is written to now
        for name, row_B in rows.items():
            self.rows[name].index_copy_(0, place_B, row_B)

    def set_multipliers(self, value: Tensor, where: slice) -> None:
        """Replace multipliers.  Raises InvalidInput for another number of them.

        Where nothing has shown a row's multiplier scale, the multiplier of somebody who knew it is one.
        """
        held = self.rows["multiplier"].clone()
        if value.shape != held[where].shape:
            raise InvalidInput(f"Multipliers have shape {tuple(value.shape)}; wanted {tuple(held[where].shape)}.")
        held[where] = value.to(held)
        unknown_C = (self.rows["multiplier_scale"] == 0) & (held != 0)
        weights = weigh_by_scale(held.abs()) | {"mean_weight": held.abs()}
        shown = {name: torch.where(unknown_C, value_C, self.rows[name]) for name, value_C in weights.items()}
        self.rows = self.rows | shown | {"multiplier": held}

    def to_dict(self) -> dict[str, Tensor]:
        """Return copies of the rows, and of all else that is kept, as scalars."""
        counts = {"steps": torch.tensor(self.steps), "readings": torch.tensor(self.readings)}
        return {name: value.clone() for name, value in (self.rows | self.merit.to_dict() | counts).items()}

    def load_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what ``to_dict`` gave.  Raises InvalidInput on a misfit, and then changes nothing."""
        for name, old in self.to_dict().items():
            new = state.get(name)
            if new is None or new.shape != old.shape:
                given = "nothing" if new is None else f"shape {tuple(new.shape)}"
                raise InvalidInput(f"State of another problem: `{name}` is {given}, wanted shape {tuple(old.shape)}.")
        self.rows = {name: state[name].to(old).clone() for name, old in self.rows.items()}
        self.merit = MeritState.from_dict(state, self.one.device)
        self.steps, self.readings = int(state["steps"]), int(state["readings"])
