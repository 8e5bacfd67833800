"""The multipliers of one problem, and the step that moves them.

Multipliers live outside the model, in float64, on the device of the problem; nothing here copies to the host
except what a caller asks for, and, where a rule is scale-free, whether a row without a scale is violated.
Signs: ``solvers.lagrangian``.  Axes: M inequalities, E equalities, C = M + E rows, B rows of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InvalidInput
from ._array_rows import find_smoothing, move_arrays
from ._engine_state import EngineState
from ._few_rows import SETTINGS as FEW_ROWS
from ._few_rows import can_move, move_rows
from ._gains import SETTINGS, is_reading, update_scales
from ._merit import MeritState, Scalar
from ._methods import DualMethod, PIGain
from ._multiplier_scale import MultiplierScales, read_scales
from ._native_arrays import Array, to_array, to_tensor
from ._row_values import Evaluate, complete_presence, index_rows, join_rows, name_values


class PrimalDual:
    """Primal-dual steps for ``min f  s.t.  g <= 0 (M rows), h = 0 (E rows)`` in the caller's own loop.

    Args:
        inequalities: How many rows g, M >= 0.
        equalities: How many rows h, E >= 0.
        method: How multipliers move, one of ``DUAL_METHODS``: ``PIGain()`` (the default), ``AugmentedLagrangian()``,
            ``PlainAscent()``, ``FixedPenalty()``.
        device: Where the multipliers live.
        least_range: Violation, in units of each row, below which a scale-free gain grows no further: one number, or one
            a row, (M + E,).  A run that begins next to its answer has seen no large violation to measure its gain by.
        horizon: Steps that the run will take at most, where that is known: scale-free rules hurry in short ones.
        largest_distance: How far the variables may have to move, in their own units, where that is known: the
            multiplier of a row whose gradient would need more than that to make up its violation waits.
        exact: Whether values are those of all the data and hold no noise: oscillation of a row that weighs little then
            comes from the optimizer, and does not make its gain small.

    Raises:
        InvalidInput: A count or a range is negative; in the methods, values have the wrong shape.

    >>> x = torch.zeros(1, requires_grad=True)
    >>> engine = PrimalDual(inequalities=1)                     # min x  s.t.  1 - x <= 0
    >>> total = engine.step(x.sum(), inequality=1 - x)
    >>> bool(engine.multipliers > 0), total.requires_grad
    (True, True)
    """

    def __init__(
        self,
        inequalities: int,
        equalities: int = 0,
        method: DualMethod | None = None,
        device: torch.device | str = "cpu",
        least_range: float | Sequence[float] = 0.0,
        horizon: int | None = None,
        largest_distance: float = math.inf,
        exact: bool = False,
    ) -> None:
        if inequalities < 0 or equalities < 0:
            raise InvalidInput(f"Counts of constraints cannot be negative: got {inequalities} and {equalities}.")
        self.method = PIGain() if method is None else method
        self.M, self.E = inequalities, equalities
        C = inequalities + equalities
        least_C = torch.as_tensor(least_range, dtype=torch.float64)
        if least_C.shape not in ((), (C,)) or not bool((least_C >= 0).all()):
            raise InvalidInput(f"`least_range` is {least_range!r}; wanted a number of at least 0, or one for each row.")
        state = self._state = EngineState(C, device)
        state.rows["multiplier"][:inequalities] = self.method.start
        state.rows["rho"] += self.method.rho0
        state.rows["least_range"] += to_array(least_C.expand(C), state.device)
        self._floor = state.fill(C, 0.0)
        self._floor[inequalities:] = -math.inf
        self._floors = [0.0] * inequalities + [-math.inf] * equalities
        self._plain = state.device.type == "cpu" and 0 < C <= FEW_ROWS.most and can_move(self.method)
        self._settings, self.largest_distance = SETTINGS.shorten(horizon), largest_distance
        if exact:
            self._settings = replace(self._settings, least_reversals=0.0)
        state.readings = self._settings.first_readings if self.method.scale_free and C else 0

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
        scales: Callable[[], MultiplierScales] | None = None,
    ) -> Tensor:
        """Move the multipliers, then return the scalar whose gradient is the primal step's.

        Args:
            objective: f, a scalar with its gradients.
            inequality: g, shape (M,), with gradients; positive is violated.
            equality: h, shape (E,), with gradients.
            measured: What the multipliers see instead of g, shape (M,): for a row that is a surrogate of something
                like recall, or whose value comes from a batch of its own, so that the penalty term is free of bias.
            measured_equality: The same for h, shape (E,).
            present: Bool, shape (M,) or (M + E,), False where this batch says nothing of a row; its multiplier and
                moving average then rest, and its value, which may be NaN, is left out.
            index: Which of the M inequalities the batch speaks of, distinct whole numbers, shape (B,); ``inequality``
                and the others then have B entries in that order, only those multipliers move, and their rows count
                M / B times, so that the gradient stands for all M.
            scales: Asked for the rows' multiplier scales, shape (C,) as ``inequality`` and ``equality`` together, in
                the steps where they are read, in place of the graph: for values whose graph does not reach the
                variables, as in a step of several microbatches or processes (``GradientSums``).

        Returns:
            f plus the weighed rows, a scalar in units of f.

        Raises:
            InvalidInput: A shape does not fit the engine, or ``index`` repeats itself or is out of range.
        """
        g, h = (inequality, equality), (measured, measured_equality)
        rows_C, weight_C = self._weigh(objective, g, h, present, index, scales)
        return objective + torch.dot(weight_C, rows_C) if rows_C.numel() else objective

    def weigh(
        self,
        objective: Tensor,
        inequality: Tensor,
        *,
        measured: Tensor | None = None,
        present: Tensor | None = None,
        scales: Callable[[], MultiplierScales] | None = None,
    ) -> Tensor:
        """Move the multipliers as ``step`` does, for a caller who knows the gradients: return what each row counts.

        Args:
            objective: f, a scalar; its gradients are not looked at, nor those of the rows.
            inequality: g, shape (M,), of an engine without equalities.
            measured: What the multipliers see instead of g, shape (M,).
            present: Bool, shape (M,), False where this batch says nothing of a row.
            scales: Asked for the rows' multiplier scales where they are due, see ``read_scales``.

        Returns:
            Weight of each row's gradient beside the objective's, shape (M,), of the type of ``inequality``.

        Raises:
            InvalidInput: A shape does not fit the engine.
        """
        return self._weigh(objective, (inequality, None), (measured, None), present, None, scales)[1]

    def read_scales(self, objective: Tensor, rows_C: Tensor) -> MultiplierScales:
        """Return the multiplier scales that gradients show, for who gives ``scales`` to a step.

        Args:
            objective: f with its graph, which stays.
            rows_C: g, then h, with theirs, shape (C,).

        Returns:
            The scales, NaN where a row has no gradient.
        """
        return read_scales(
            objective,
            rows_C,
            inequalities=len(rows_C) - self.E,
            rows_each=len(self._floor) / max(len(rows_C), 1),
            largest_distance=self.largest_distance,
        )

    def step_with(self, evaluate: Evaluate, optimizer: torch.optim.Optimizer) -> Tensor:
        """Take one whole step: evaluate, move the multipliers, go back, move the variables.

        Args:
            evaluate: Called without arguments; returns what ``step`` takes: (f, g), (f, g, h) or a dictionary.
            optimizer: Any of torch, made on the variables.

        Returns:
            f as it was before the step, a scalar without gradients.
        """
        values = name_values(evaluate())
        total = self.step(**values)
        optimizer.zero_grad()
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        objective: Tensor = values["objective"].detach()
        return objective

    def undo(self) -> None:
        """Take the last ``step`` back, for a caller that found its gradient unusable."""
        self._state.undo()
        self._state.undo = lambda: None

    @property
    def multipliers(self) -> Tensor:
        """Multipliers of the inequalities, lambda >= 0, shape (M,)."""
        return self._state.read("multiplier")[: self.M]

    @multipliers.setter
    def multipliers(self, lambda_M: Tensor) -> None:
        self._state.set_multipliers(lambda_M, slice(0, self.M))

    @property
    def equality_multipliers(self) -> Tensor:
        """Multipliers of the equalities, of either sign, shape (E,)."""
        return self._state.read("multiplier")[self.M :]

    @equality_multipliers.setter
    def equality_multipliers(self, mu_E: Tensor) -> None:
        self._state.set_multipliers(mu_E, slice(self.M, None))

    def copy_multipliers(self) -> Tensor:
        """Return all multipliers as they are now, (M + E,), inequalities first, in a tensor of the caller's own."""
        return self._state.copy_multipliers()

    @property
    def rho(self) -> Tensor:
        """Penalty coefficients of the inequalities, shape (M,)."""
        return self._state.read("rho")[: self.M]

    @property
    def equality_rho(self) -> Tensor:
        """Penalty coefficients of the equalities, shape (E,)."""
        return self._state.read("rho")[self.M :]

    @property
    def peak_weights(self) -> Tensor:
        """Largest weight of each row's gradient beside the objective's in a step so far, shape (M + E,)."""
        return self._state.read("peak_weight")

    @property
    def multiplier_scales(self) -> Tensor:
        """Weight at which each row's gradient was as large as the objective's, shape (M + E,); NaN where unread."""
        scale_C = self._state.read("multiplier_scale")
        return torch.where(scale_C > 0, scale_C, torch.nan)

    @property
    def smoothed(self) -> Tensor:
        """What the multipliers last saw of each row, after averaging, shape (M + E,); NaN where that is nothing."""
        return torch.where(self._state.read("average_weight") > 0, self._state.read("last_violation"), torch.nan)

    @property
    def capped(self) -> Tensor:
        """True where a multiplier stands at its cap, shape (M + E,), inequalities first."""
        multiplier_C = self._state.read("multiplier")
        if self.method.cap is None:
            return torch.zeros_like(multiplier_C, dtype=torch.bool)
        return multiplier_C.abs() >= self.method.cap

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of everything that a continued run needs."""
        return self._state.to_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what ``state_dict`` gave, on this engine's device.

        Args:
            state: The tensors by name, rows of shape (M + E,).

        Raises:
            InvalidInput: It belongs to another problem; nothing is changed then.
        """
        self._state.load_dict(state)

    def _weigh(
        self,
        objective: Tensor,
        given: tuple[Tensor | None, Tensor | None],
        measured: tuple[Tensor | None, Tensor | None],
        present: Tensor | None,
        index: Tensor | None,
        scales: Callable[[], MultiplierScales] | None,
    ) -> tuple[Tensor, Tensor]:
        """Move the multipliers; return the rows, 0 where they are absent, and their weights."""
        M = self.M if index is None else len(index)
        rows_C = join_rows(objective, ("inequality", given[0], M), ("equality", given[1], self.E))
        if not rows_C.numel():
            self._state.undo = lambda: None
            return rows_C, rows_C
        seen_C = rows_C
        if measured[0] is not None or measured[1] is not None:
            g, h = (given[k] if measured[k] is None else measured[k] for k in (0, 1))
            seen_C = join_rows(objective, ("measured", g, M), ("measured_equality", h, self.E))
        present = complete_presence(present, len(rows_C), self.E)
        if present is not None and present.is_cpu and bool(present.all()):  # a GPU is not waited for
            present = None
        if present is not None:
            rows_C = torch.where(present, rows_C, 0.0)
        if self._plain and index is None:
            weight_C = self._move_plain_rows(objective, rows_C, seen_C, present, scales)
        else:
            place = None if index is None else index_rows(index, self.M, self.E)
            weight_C = self._move_rows(objective, rows_C, seen_C, present, scales, place)
        if index is not None:
            weight_C = torch.cat([weight_C[: len(index)] * (self.M / max(len(index), 1)), weight_C[len(index) :]])
        return rows_C, weight_C if present is None else torch.where(present, weight_C, 0.0)

    def _move_plain_rows(
        self,
        objective: Tensor,
        rows_C: Tensor,
        seen_C: Tensor,
        present_C: Tensor | None,
        scales: Callable[[], MultiplierScales] | None,
    ) -> Tensor:
        """Move the multipliers in plain numbers (``_few_rows``), where that will do; return the weights of the rows."""
        state, readings = self._state, self._state.readings
        value, present = seen_C.tolist(), [True] * len(seen_C) if present_C is None else present_C.tolist()
        reads = is_reading(state.steps + 1)
        if readings or reads:
            unknown, rows = state.plain.unknown, rows_C.tolist()
            readings = readings if any(unknown) else 0
            for here, g, e, floor, new in zip(present, rows, value, self._floors, unknown, strict=True):
                if here and (reads or new) and ((g > 0 and e > 0) or floor < 0):
                    return self._move_rows(objective, rows_C, seen_C, present_C, scales)
        merit = self._advance_merit(objective, state.steps + 1)
        moved = move_rows(state.plain, value, present, self._floors, merit, self.method, self._settings)
        if moved is None:
            return self._move_rows(objective, rows_C, seen_C, present_C, scales)
        state.begin_step(None)
        state.plain, state.merit, state.readings = moved.rows, moved.merit, readings
        return torch.tensor(moved.weight_C, dtype=rows_C.dtype, device=rows_C.device)

    def _move_rows(
        self,
        objective: Tensor,
        rows_C: Tensor,
        seen_C: Tensor,
        present: Tensor | None,
        scales: Callable[[], MultiplierScales] | None,
        place: Tensor | None = None,
    ) -> Tensor:
        """Move the multipliers, those at some places or all; return the weights of the rows."""
        state = self._state
        place_C = None if place is None else to_array(place, state.device, torch.int64)
        present_C = None if present is None else to_array(present, state.device, torch.bool)
        value_C = to_array(seen_C, state.device)
        now = state.select(place_C)
        floor_C = self._floor if place_C is None else self._floor[place_C]
        state.begin_step(place_C)
        if state.readings or (self.method.scale_free and is_reading(state.steps)):
            violated_C = self._find_violated(rows_C, value_C, present_C, floor_C)
            now = self._with_scales(now, objective, rows_C, violated_C, scales)
        merit = self._advance_merit(objective, state.steps)
        moved = move_arrays(now, value_C, present_C, floor_C, state.one, merit, self.method, self._settings)
        state.store(place_C, now | moved.changed)
        state.merit = moved.merit
        return to_tensor(moved.weight_C).to(rows_C)

    def _advance_merit(self, objective: Tensor, step: int) -> MeritState:
        if not self.method.scale_free:
            return self._state.merit
        return self._state.merit.advance(objective.detach(), None if step == 1 else self._find_keep(), self._settings)

    def _find_keep(self) -> Scalar:
        """Return the share of the past that stays in the smoothed objective: that of the noisiest row."""
        keep, state = find_smoothing(self.method), self._state
        if keep is not None:
            return keep
        if self._plain:
            return max(state.plain.smoothing)
        most = state.rows["smoothing"].max()
        return most if isinstance(most, Tensor) else float(most)

    def _find_violated(self, rows_C: Tensor, value_C: Array, present_C: Array | None, floor_C: Array) -> Array:
        """Return where there is something to make up, in what is measured as in what has the gradient."""
        violated_C = (to_array(rows_C, self._state.device) > 0) & (value_C > 0) | (floor_C < 0)
        return violated_C if present_C is None else violated_C & present_C

    def _with_scales(
        self,
        now: Mapping[str, Array],
        objective: Tensor,
        rows_C: Tensor,
        violated_C: Array,
        ask: Callable[[], MultiplierScales] | None,
    ) -> dict[str, Array]:
        """Return the state with scales for the rows that can be given one; those without go by a scale of 1.

        A met inequality says nothing of what it costs to meet it: where it is met with room to spare its gradient may
        be as good as zero, and the scale read off it as good as infinite.  It is asked as soon as it is violated.
        """
        state = self._state
        unknown_C = now["multiplier_scale"] == 0
        if state.readings and len(unknown_C) == len(self._floor) and not bool(unknown_C.any()):
            state.readings = 0
        asked_C = violated_C if is_reading(state.steps) else violated_C & unknown_C
        if not bool(asked_C.any()):
            return dict(now)
        state.readings = max(state.readings - 1, 0)
        if ask is not None:
            scales = ask()
            if {scales.multiplier.shape, scales.largest_gain.shape} != {rows_C.shape}:
                found = f"{tuple(scales.multiplier.shape)} and {tuple(scales.largest_gain.shape)}"
                raise InvalidInput(f"`scales` gave values of shapes {found}; wanted {tuple(rows_C.shape)} twice.")
        else:
            scales = self.read_scales(objective, rows_C)
        scale_C, gain_C = (to_array(values, state.device) for values in (scales.multiplier, scales.largest_gain))
        return dict(now) | update_scales(now, scale_C, gain_C, asked_C)
