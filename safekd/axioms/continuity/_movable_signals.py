"""The signals of a batch, taken apart so that they can be moved.

A ``Signals`` holds tensors (log-probabilities, say), looks others up in its evidence, and computes the rest from them.
What is computed must follow when its source moves; everything else is a source, whether given outright or looked up.
Axes: ... positions, K teachers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...weights import Signals

_TEMPLATE = "_template"  # what Signals takes its shape and dtype from


class MovableSignals:
    """The sources of signals, taken apart so that they can be moved.

    Labels, tasks, contexts and critical positions stay.

    Args:
        signals: The signals of a batch.
        widen: Whether sources are in float64.

    Attributes:
        sources: Floats by name.
        teachers: K.
    """

    def __init__(self, signals: Signals, widen: bool = True) -> None:
        self._type = type(signals)
        self._lead = signals.shape[:-1]
        self.teachers = signals.shape[-1]
        computed = {
            name for cls in self._type.__mro__ for name, v in vars(cls).items() if isinstance(v, cached_property)
        }
        kept = {name: value for name, value in vars(signals).items() if name not in computed}
        stored = {key: v for key, v in kept.items() if _is_float(v) and key != _TEMPLATE}
        self._key = {_public_name(signals, key, v): key for key, v in stored.items()}
        full, alone = self._copy_with(dict(vars(signals))), self._copy_with({**kept, "evidence": None})
        for name in sorted(computed):
            value = _read_property(full, name)
            if isinstance(value, Tensor) and not _is_float(value):
                kept[name] = value  # where positions are critical does not move
            elif isinstance(value, Tensor) and not _equal_values(value, _read_property(alone, name)):
                self._key[name], stored[name] = name, value
        self.sources = {name: _widen(stored[key], widen) for name, key in sorted(self._key.items())}
        kept[_TEMPLATE] = _widen(kept[_TEMPLATE], widen)
        self._base = {**kept, **{self._key[name]: value for name, value in self.sources.items()}}

    @classmethod
    def finest(cls, signals: Signals, weights: Callable[[Signals], Tensor]) -> MovableSignals:
        """Return the signals in float64, where differences show longest, if the weights take them."""
        wide = cls(signals)
        try:
            weights(wide.replace_sources({}))
        except RuntimeError:  # a network whose parameters are of a shorter type
            return cls(signals, widen=False)
        return wide

    @property
    def lead(self) -> torch.Size:
        """Shape of the positions."""
        return self._lead

    def replace_sources(self, changed: Mapping[str, Tensor]) -> Signals:
        """Return the signals with other tensors for some sources.

        Args:
            changed: Tensors by the name of the source.
        """
        return self._copy_with({**self._base, **{self._key[name]: value for name, value in changed.items()}})

    def gather_rows(self, rows_R: Tensor) -> MovableSignals:
        """Return the signals of some positions, in one row, a position as often as it is named.

        Args:
            rows_R: Numbers of positions, counted through all leading axes, (R,).
        """
        made = object.__new__(MovableSignals)
        made.__dict__.update(self.__dict__)
        made._lead = torch.Size([len(rows_R)])
        made._base = {key: self._gather(value, rows_R) for key, value in self._base.items()}
        made.sources = {name: made._base[key] for name, key in self._key.items()}
        return made

    def _gather(self, value: Any, rows_R: Tensor) -> Any:
        axes = len(self._lead)
        if not isinstance(value, Tensor) or value.shape[:axes] != self._lead:
            return value
        return value.reshape(self._lead.numel(), *value.shape[axes:])[rows_R.to(value.device)]

    def _copy_with(self, content: dict[str, Any]) -> Signals:
        made = object.__new__(self._type)
        made.__dict__.update(content)
        return made


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _public_name(signals: Signals, key: str, value: Tensor) -> str:
    """Return the property that hands out what is stored as ``key``."""
    for name in dir(type(signals)):
        if isinstance(getattr(type(signals), name), property) and _read_property(signals, name) is value:
            return name
    return key.lstrip("_")


def _read_property(signals: Signals, name: str) -> Any:
    try:
        return getattr(signals, name)
    except InvalidInput:  # it asks for what was not given
        return None


def _equal_values(one: Tensor, other: Tensor | None) -> bool:
    return (
        other is not None and one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())
    )


def _widen(value: Tensor, widen: bool) -> Tensor:
    return value.detach().double() if widen else value.detach()
