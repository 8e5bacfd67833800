"""Softening operators by name."""

from __future__ import annotations

from collections.abc import Mapping

from ._softening_operator import PowerSoftening, Softening, UniformMixing

SOFTENINGS: Mapping[str, Softening] = {"power": PowerSoftening(), "uniform": UniformMixing()}
