"""Which temperature each teacher has where: by teacher, position, task and context.  Axes: ... positions, K teachers.

The scales compose as weights do, by their product; then the product is clipped into bounds, so that no combination
softens or sharpens beyond what was asked for.  Clipping keeps what rises rising, and what is continuous continuous.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..divergences import require_temperature
from ..errors import InvalidInput


class SoftenedSignals(Protocol):
    """What temperatures may look at; ``kd.weights.Signals`` has it all, and more that a function may use."""

    @property
    def log_p(self) -> Tensor:
        """Teachers' log-probabilities, (..., K, V)."""
        ...

    task: Tensor | None
    context: Tensor | None
    teachers: Sequence[str] | None


Factor = float | Sequence[float] | Tensor | Mapping[Any, float] | Callable[[Any], Tensor]


@dataclass(frozen=True)
class Temperatures:
    """A temperature for each teacher at each position, ``clip(teacher * token * task * context, lowest, highest)``.

    Attributes:
        teacher: One number for all; one a teacher, as a list, a tensor (K,) or a dictionary by name, those left out at
            1.
        token: 1, or a function of the ``Signals`` that returns a temperature a position, (..., K) or (..., 1).
        task: One number, or one a task: a list, a tensor, or a dictionary by number, those that are left out at 1.
        context: Likewise.
        lowest: Smallest temperature that comes out.
        highest: Largest.

    Raises:
        InvalidInput: A number is no temperature.

    Source: the fifth open question of arXiv:2601.17910.
    """

    teacher: Factor = 1.0
    token: float | Callable[[Any], Tensor] = 1.0
    task: Factor = 1.0
    context: Factor = 1.0
    lowest: float = 1e-4
    highest: float = 1e4

    def __post_init__(self) -> None:
        require_temperature(self.lowest)
        require_temperature(self.highest)
        if self.lowest > self.highest:
            raise InvalidInput(f"`lowest` is {self.lowest:g}, `highest` {self.highest:g}; wanted the first below.")
        for name in ("teacher", "token", "task", "context"):
            self._require_factor(name, getattr(self, name))

    def _require_factor(self, name: str, factor: Any) -> None:
        if callable(factor) and not isinstance(factor, type):
            return
        if name in ("task", "context") and isinstance(factor, Mapping) and not all(type(key) is int for key in factor):
            raise InvalidInput(f"`{name}` has the keys {list(factor)}; wanted numbers of {name}s, from 0.")
        several = isinstance(factor, (Sequence, Tensor, Mapping)) and not isinstance(factor, str)
        if name == "token" and several:
            raise InvalidInput("`token` is a table; wanted 1, or a function of the signals of each position.")
        numbers: Any = list(factor.values()) if isinstance(factor, Mapping) else factor
        for number in torch.as_tensor(numbers).flatten().tolist() if several else [factor]:
            require_temperature(number, given=factor)

    @property
    def by_teacher_alone(self) -> bool:
        """Whether it is the same at every position, and no teacher is named."""
        plain = not callable(self.teacher) and not isinstance(self.teacher, Mapping)
        return plain and all(isinstance(one, (int, float)) for one in (self.token, self.task, self.context))

    def __call__(self, signals: SoftenedSignals) -> Tensor:
        """Return the temperature of each teacher at each position, (..., K).

        Args:
            signals: Of the positions.

        Raises:
            InvalidInput: There is no such teacher, task or context, or not one number for each; or a function gives
                what is none.
        """
        return self._clip(self._read_teacher(signals) * self._read_positions(signals), signals.log_p)

    def for_teachers(self, log_p_KV: Tensor) -> Tensor:
        """Return the temperature of each teacher where nothing is known of positions, (K,).

        Args:
            log_p_KV: Teachers' log-probabilities, (..., K, V).

        Raises:
            InvalidInput: It depends on more than the teacher's number.
        """
        if not self.by_teacher_alone:
            raise InvalidInput(
                "Temperatures by name, position, task or context need signals; the trainer gives them. Elsewhere call "
                "pool.pool_signals(signals, weights), or give one number a teacher."
            )
        factor: Any = torch.as_tensor(self.teacher, dtype=torch.float64)
        others = float(self.token) * float(self.task) * float(self.context)  # type: ignore[arg-type]
        return self._clip(_require_count(factor, log_p_KV.shape[-2], "teacher") * others, log_p_KV)

    def _clip(self, T_K: Tensor, log_p_KV: Tensor) -> Tensor:
        return T_K.clamp(self.lowest, self.highest).to(log_p_KV.device).expand(log_p_KV.shape[:-1])

    def _read_teacher(self, signals: SoftenedSignals) -> Tensor:
        K, factor = signals.log_p.shape[-2], self.teacher
        if isinstance(factor, Mapping):
            names = list(signals.teachers or ())
            if unknown := [name for name in factor if name not in names]:
                raise InvalidInput(f"`teacher` names '{unknown[0]}'; the teachers are {', '.join(names) or 'unnamed'}.")
            factor = [float(factor.get(name, 1.0)) for name in names]
        return _require_count(_ask_factor("teacher", factor, signals), K, "teacher")

    def _read_positions(self, signals: SoftenedSignals) -> Tensor:
        product = _ask_factor("token", self.token, signals)
        for name, factor in (("task", self.task), ("context", self.context)):
            if callable(factor) or isinstance(factor, (int, float)):
                product = product * _ask_factor(name, factor, signals)
                continue
            group = getattr(signals, name)
            if group is None:
                raise InvalidInput(f"`{name}` has a temperature for each {name}, and the data name none.")
            table = _read_table(factor, int(group.max()) + 1, name)
            while group.ndim < signals.log_p.ndim - 2:  # of an example, at each of its positions
                group = group.unsqueeze(-1)
            product = product * table.to(group.device)[group].unsqueeze(-1)
        return product


def _ask_factor(name: str, factor: Any, signals: SoftenedSignals) -> Tensor:
    """Return a factor that broadcasts to (..., K)."""
    if not callable(factor):
        return torch.as_tensor(factor, dtype=torch.float64)
    answer = factor(signals)
    lead = signals.log_p.shape[:-1]
    if not isinstance(answer, Tensor) or answer.shape not in (lead, (*lead[:-1], 1)):
        found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise InvalidInput(
            f"`{name}` gives {found}; wanted a temperature a position, {(*lead[:-1], 1)} or {tuple(lead)}."
        )
    if not bool((torch.isfinite(answer) & (answer > 0)).all()):
        raise InvalidInput(f"`{name}` gives a temperature that is not above 0 and finite.")
    return answer.detach().double()


def _read_table(factor: Any, count: int, name: str) -> Tensor:
    if isinstance(factor, Mapping):
        size = max([count, *(key + 1 for key in factor)])
        return torch.tensor([float(factor.get(number, 1.0)) for number in range(size)], dtype=torch.float64)
    table = torch.as_tensor(factor, dtype=torch.float64)
    if table.ndim != 1 or len(table) < count:
        raise InvalidInput(
            f"`{name}` has {table.numel()} temperatures, the data have {count} {name}s; wanted one each."
        )
    return table


def _require_count(T_K: Tensor, teachers: int, name: str) -> Tensor:
    if T_K.ndim == 1 and len(T_K) != teachers:
        raise InvalidInput(f"`{name}` has {len(T_K)} temperatures for {teachers} teachers; wanted one each, or one.")
    return T_K
