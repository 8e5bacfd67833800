"""The multipliers of one problem, and the step that moves them.

Multipliers live outside the model, in float64, on the device of the problem; nothing here copies to the host
except what a caller asks for, and, where a rule is scale-free, whether a row without a scale is violated.
Signs: ``solvers.lagrangian``.  Axes: M inequalities, E equalities, C = M + E rows, B rows of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput
from ._engine_state import EngineState
from ._few_rows import SETTINGS as FEW_ROWS
from ._few_rows import can_move, move_rows
from ._gains import SETTINGS, Gains, is_reading, measure_gains, update_mean_weights, update_scales
from ._merit import hold_back
from ._methods import DualInputs, DualMethod, PIGain
from ._multiplier_scale import MultiplierScales, read_scales
from ._native_arrays import Array, namespace_of, to_array, to_tensor
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
        self._step = state.fill(C, self.method.step)
        self._plain = can_move(self.method)
        self._settings, self.largest_distance = SETTINGS.shorten(horizon), largest_distance
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
        M = self.M if index is None else len(index)
        rows_C = join_rows(objective, {"inequality": (inequality, M), "equality": (equality, self.E)})
        if not rows_C.numel():
            self._state.undo = lambda: None
            return objective
        seen = rows_C
        if measured is not None or measured_equality is not None:
            g = inequality if measured is None else measured
            h = equality if measured_equality is None else measured_equality
            seen = join_rows(objective, {"measured": (g, M), "measured_equality": (h, self.E)})
        state, present = self._state, complete_presence(present, len(rows_C), self.E)
        present_C = None if present is None else to_array(present, state.device, torch.bool)
        if isinstance(present_C, np.ndarray) and present_C.all():  # a GPU is not waited for
            present = present_C = None
        if present is not None:
            rows_C = torch.where(present, rows_C, 0.0)
        place_C = None if index is None else to_array(index_rows(index, self.M, self.E), state.device, torch.int64)
        value_C = to_array(seen, state.device)
        now = state.select(place_C)
        floor_C = self._floor if place_C is None else self._floor[place_C]
        state.begin_step(place_C, now)
        if state.readings or (self.method.scale_free and is_reading(state.steps)):
            violated_C = self._find_violated(rows_C, value_C, present_C, floor_C)
            now = self._with_scales(now, objective, rows_C, violated_C, scales)
        changed, weight_C = self._move_rows(now, objective.detach(), value_C, present_C, floor_C)
        state.store(place_C, now | changed)
        weight = to_tensor(weight_C).to(rows_C)
        if index is not None:
            weight = torch.cat([weight[: len(index)] * (self.M / max(len(index), 1)), weight[len(index) :]])
        if present is not None:
            weight = torch.where(present, weight, 0.0)
        return objective + torch.dot(weight, rows_C)

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

    @property
    def rho(self) -> Tensor:
        """Penalty coefficients of the inequalities, shape (M,)."""
        return self._state.read("rho")[: self.M]

    @property
    def equality_rho(self) -> Tensor:
        """Penalty coefficients of the equalities, shape (E,)."""
        return self._state.read("rho")[self.M :]

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

    def _move_rows(
        self,
        now: Mapping[str, Array],
        objective: Tensor,
        value_C: Array,
        present_C: Array | None,
        floor_C: Array,
    ) -> tuple[dict[str, Array], Array]:
        """Return what of the state changes, and the weights of the rows; the one place where it is chosen how."""
        state, method = self._state, self.method
        if method.scale_free:
            keep = None if state.steps == 1 else method.ema or 0.0
            state.merit = state.merit.advance(objective, keep, self._settings)
        if self._plain and isinstance(value_C, np.ndarray) and len(value_C) <= FEW_ROWS.most:
            moved = move_rows(now, value_C, present_C, floor_C, state.merit, method, self._settings)
            if moved is not None:
                state.merit = moved.merit
                return moved.changed, moved.weight_C
        with np.errstate(all="ignore"):  # what is not finite shows in the gradient
            changed, weight_C = self._update_rows(now, value_C, present_C, floor_C)
        if present_C is not None:
            where = namespace_of(value_C).where
            changed = {
                name: new if new is now[name] else where(present_C, new, now[name]) for name, new in changed.items()
            }
        return changed, weight_C

    def _update_rows(
        self, now: Mapping[str, Array], value_C: Array, present_C: Array | None, floor_C: Array
    ) -> tuple[dict[str, Array], Array]:
        """Return what would change if all rows were present, and the weights of the rows."""
        method = self.method
        changed, e_C = self._update_average(now, value_C, present_C)
        if method.dead_band:
            e_C = e_C - e_C.clip(-method.dead_band, method.dead_band)
        before_C = now["last_violation"]
        if now["average_weight"] is not self._state.one:  # a first value has not changed yet
            before_C = namespace_of(e_C).where(now["average_weight"] > 0, before_C, e_C)
        changed["last_violation"] = e_C
        rho_C, step_C = now["rho"], self._step[: len(e_C)]
        if method.scale_free:
            shown, gains = measure_gains(now, e_C, before_C, self._settings)
            changed |= shown
            changed["rho"] = rho_C = method.rho0 * gains.gain_C
            step_C = method.step / self._settings.integral * rho_C
        lambda_C, weight_C = method.update(now["multiplier"], DualInputs(e_C, before_C, rho_C, step_C, floor_C))
        if method.scale_free:
            lambda_C, weight_C = self._check_merit(now, changed, gains, (lambda_C, weight_C), present_C)
        changed["multiplier"] = lambda_C
        if method.scale_free:
            changed["mean_weight"] = update_mean_weights(now, weight_C, self._settings)
        return changed, weight_C

    def _check_merit(
        self,
        now: Mapping[str, Array],
        changed: dict[str, Array],
        gains: Gains,
        updated: tuple[Array, Array],
        present_C: Array | None,
    ) -> tuple[Array, Array]:
        """Return multipliers and weights, held back where primal steps are too long for them (``_merit``)."""
        state, old_C, e_C = self._state, now["multiplier"], changed["last_violation"]
        xp = namespace_of(e_C)
        change_C = changed["last_change"] if present_C is None else xp.where(present_C, changed["last_change"], 0.0)
        state.merit = state.merit.add_rows(old_C, change_C)
        excessive = state.merit.is_excessive(gains.weight_C, changed["violation_range"])
        if excessive is False:  # else it is true, or a GPU knows, which is not waited for
            return updated
        # what is thrown to and fro by steps that are too long says nothing of the gain
        range_C = xp.maximum(now["violation_range"], abs(e_C))
        changed["least_range"] = xp.where(excessive, now["least_range"], changed["least_range"])
        changed["violation_range"] = xp.where(excessive, range_C, changed["violation_range"])
        lambda_C, weight_C = updated
        held_C = xp.where(excessive, hold_back(lambda_C, old_C, self._settings), lambda_C)
        return held_C, held_C if weight_C is lambda_C else weight_C

    def _update_average(
        self, now: Mapping[str, Array], value_C: Array, present_C: Array | None
    ) -> tuple[dict[str, Array], Array]:
        """Return the moving averages after this step, and what they say; an absent row stays as it was."""
        keep = self.method.ema or 0.0
        if present_C is not None:
            value_C = namespace_of(value_C).where(present_C, value_C, 0.0)  # what an absent row holds may be 0/0
        if not keep:
            one_C = self._state.one
            return {"average_weight": one_C if len(one_C) == len(value_C) else one_C[: len(value_C)]}, value_C
        sum_C = keep * now["average_sum"] + (1 - keep) * value_C
        weight_C = keep * now["average_weight"] + (1 - keep)
        return {"average_sum": sum_C, "average_weight": weight_C}, sum_C / weight_C  # the start counts for nothing

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
        if state.readings and now is state.rows and not bool(unknown_C.any()):
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
            scales = read_scales(
                objective,
                rows_C,
                inequalities=len(rows_C) - self.E,
                rows_each=len(self._floor) / len(rows_C),
                largest_distance=self.largest_distance,
            )
        scale_C, gain_C = (to_array(values, state.device) for values in (scales.multiplier, scales.largest_gain))
        return dict(now) | update_scales(now, scale_C, gain_C, asked_C)
