"""What an engine keeps of each row between steps: what a continued run needs, and what ``undo`` puts back.

Rows are held as ``_native_arrays`` says, and never written in place, but for those of a batch that speaks of some only.
Axes: C rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..errors import InvalidInput
from ._few_rows import PlainRows
from ._gains import FIRST_GAIN_STATE, weigh_by_scale
from ._merit import MeritState
from ._native_arrays import Array, namespace_of, to_array, to_tensor

# all (C,), float64; the last ones are those of ``_gains``
ROWS = {
    "multiplier": "lambda of an inequality, mu of an equality",
    "rho": "penalty coefficient of the last step",
    "average_sum": "moving average of the violation, times average_weight",
    "average_weight": "how much of the moving average comes from values, 1 in the long run; 0: nothing was seen yet",
    "last_violation": "what the method last saw of the row",
    "peak_weight": "largest weight of the row's gradient in a step so far",
    "seen_value": "last value of the row, like the next four where its rule does not say how to smooth",
    "seen_change": "its change from the value before",
    "seen_changes": "mean size of two changes that follow each other",
    "seen_reversals": "mean of what the second one takes back",
    "smoothing": "share of the past that stays in the moving average",
    **dict.fromkeys(FIRST_GAIN_STATE, "see ``_gains``"),
}


class EngineState:
    """The rows of one engine, the number of steps it took, and how to take the last one back."""

    def __init__(self, C: int, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._rows: dict[str, Array] = {name: self.fill(C, FIRST_GAIN_STATE.get(name, 0.0)) for name in ROWS}
        self._plain: PlainRows | None = None  # where rows were moved as plain numbers, they are these
        self.one = self.fill(C, 1.0)
        self.merit, self.steps, self.readings = MeritState(), 0, 0
        self.undo: Callable[[], None] = lambda: None

    @property
    def rows(self) -> dict[str, Array]:
        """The rows by name.  Who holds them may write to them: they are then read again."""
        if self._plain is not None:
            self._rows, self._plain = self._rows | self._plain.to_rows(), None
        return self._rows

    @rows.setter
    def rows(self, rows: dict[str, Array]) -> None:
        self._rows, self._plain = rows, None

    @property
    def plain(self) -> PlainRows:
        """The rows as plain numbers."""
        if self._plain is None:
            self._plain = PlainRows.read(self._rows)
        return self._plain

    @plain.setter
    def plain(self, plain: PlainRows) -> None:
        self._plain = plain

    def fill(self, C: int, value: float) -> Array:
        """Return rows of one value."""
        return to_array(torch.full((C,), value, dtype=torch.float64), self.device)

    def read(self, name: str) -> Tensor:
        """Return rows as a tensor, which shares their memory."""
        return to_tensor(self.rows[name])

    def copy_multipliers(self) -> Tensor:
        """Return the multipliers in a tensor of their own."""
        if self._plain is not None:
            return torch.tensor(self._plain.moved[0], dtype=torch.float64)
        return self.read("multiplier").clone()

    def select(self, place_B: Array | None) -> dict[str, Array]:
        """Return the rows at some places, all of them for None."""
        return self.rows if place_B is None else {name: row[place_B] for name, row in self.rows.items()}

    def begin_step(self, place_B: Array | None) -> None:
        """Count a step, and prepare ``undo``."""
        steps, readings, merit = self.steps, self.readings, self.merit
        held = (self._rows, self._plain) if place_B is None else self.select(place_B)

        def undo() -> None:
            if isinstance(held, tuple):
                self._rows, self._plain = held
            else:
                self.store(place_B, held)
            self.steps, self.readings, self.merit = steps, readings, merit

        self.undo = undo
        self.steps += 1

    def store(self, place_B: Array | None, rows: dict[str, Array]) -> None:
        """Put rows back at some places, all of them for None."""
        if place_B is None:
            self.rows = rows
            return
        if self.rows["average_weight"] is self.one:
            self.one = self.fill(len(self.one), 1.0)  # the other one is written to now
        for name, row_B in rows.items():
            self.rows[name][place_B] = row_B

    def set_multipliers(self, value: Tensor, where: slice) -> None:
        """Replace multipliers.  Raises InvalidInput for another number of them.

        Where nothing has shown a row's multiplier scale, the multiplier of somebody who knew it is one.
        """
        held = self.read("multiplier").clone()
        if value.shape != held[where].shape:
            raise InvalidInput(f"Multipliers have shape {tuple(value.shape)}; wanted {tuple(held[where].shape)}.")
        held[where] = value.to(held)
        held_C = to_array(held, self.device)
        unknown_C = (self.rows["multiplier_scale"] == 0) & (held_C != 0)
        weights = weigh_by_scale(abs(held_C)) | {"mean_weight": abs(held_C)}
        where_C = namespace_of(held_C).where
        shown = {name: where_C(unknown_C, value_C, self.rows[name]) for name, value_C in weights.items()}
        self.rows = self.rows | shown | {"multiplier": held_C}

    def to_dict(self) -> dict[str, Tensor]:
        """Return copies of the rows, and of all else that is kept, as scalars."""
        rows = {name: self.read(name).clone() for name in self.rows}
        return (
            rows | self.merit.to_dict() | {"steps": torch.tensor(self.steps), "readings": torch.tensor(self.readings)}
        )

    def load_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what ``to_dict`` gave.  Raises InvalidInput on a misfit, and then changes nothing."""
        for name, old in self.to_dict().items():
            new = state.get(name)
            if new is None or new.shape != old.shape:
                given = "nothing" if new is None else f"shape {tuple(new.shape)}"
                raise InvalidInput(f"State of another problem: `{name}` is {given}, wanted shape {tuple(old.shape)}.")
        self.rows = {name: to_array(state[name].clone(), self.device) for name in self.rows}
        self.merit = MeritState.from_dict(state, self.device)
        self.steps, self.readings = int(state["steps"]), int(state["readings"])
