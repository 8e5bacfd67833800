"""Read numbers that a user gave, and refuse those that cannot be meant.

Axes: K teachers, M rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.errors import InvalidInput

from ._partial_orders import find_teacher

_MOST_TEACHERS = 10_000_000

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]


def read_count(value: object) -> int:
    """Return ``value`` as a number of teachers, an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise InvalidInput(
            f"`n_teachers` must be a whole number of at least 1; found {value!r}. Pass how many teachers vote."
        )
    count = int(value)
    if count > _MOST_TEACHERS:
        raise InvalidInput(
            f"`n_teachers` is {count:,}; wanted at most {_MOST_TEACHERS:,}, whose bounds fill a gigabyte."
        )
    return count


def read_array(name: str, value: object) -> npt.NDArray[np.float64]:
    """Return ``value`` as finite float64 numbers of any shape."""
    try:
        array: Any = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as cause:
        raise InvalidInput(
            f"`{name}` must hold real numbers; found {value!r}. Pass a number or a list of numbers."
        ) from cause
    if not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0]
        place = f" at {tuple(int(i) for i in where)}" if array.ndim else ""
        raise InvalidInput(f"`{name}` must be finite; found {array[tuple(where)]}{place}. Replace it with a number.")
    tidy: npt.NDArray[np.float64] = array + 0.0
    return tidy  # -0.0 and 0.0 must be one value: polytopes are compared by content


def read_bound(name: str, value: object, n_teachers: int) -> Vector:
    """Return one bound per teacher from a scalar or from ``n_teachers`` numbers."""
    array = read_array(name, value)
    if array.ndim > 1 or (array.ndim == 1 and array.size != n_teachers):
        raise InvalidInput(
            f"`{name}` must be one number, or one for each of the {n_teachers} teachers; found shape {array.shape}. "
            f"Pass a scalar or a list of {n_teachers}."
        )
    return tuple(float(x) for x in np.broadcast_to(array, (n_teachers,)))


def read_names(names: Iterable[str], n_teachers: int) -> tuple[str, ...]:
    """Return the names of the teachers, none or one each."""
    known = () if isinstance(names, str) else tuple(names)
    if isinstance(names, str) or not all(isinstance(name, str) for name in known):
        raise InvalidInput(f"`names` is {names!r}; wanted a list of text, a name for each teacher.")
    if known and (len(known) != n_teachers or len(set(known)) < len(known)):
        raise InvalidInput(f"`names` are {', '.join(known)}; wanted {n_teachers} different ones, one for each teacher.")
    return known


def number_bounds(value: object, names: tuple[str, ...], default: float) -> object:
    """Return bounds by teacher in place of a mapping by name; teachers that it does not name get ``default``."""
    if not isinstance(value, Mapping):
        return value
    if not names:
        raise InvalidInput(
            f"Bounds by name, {dict(value)!r}, need the teachers' names: WeightPolytope(..., names=[...])."
        )
    bounds = [default] * len(names)
    for name, bound in value.items():
        bounds[find_teacher(str(name), names)] = bound
    return bounds


def read_nonnegative(name: str, value: object) -> float:
    """Return ``value`` as one number of at least 0."""
    array = read_array(name, value)
    if array.ndim != 0 or array < 0:
        raise InvalidInput(f"`{name}` must be one number of at least 0; found {value!r}. Pass 0 for none.")
    return float(array)


def read_rows(names: tuple[str, str], matrix: object, rhs: object) -> tuple[Matrix, Vector]:
    """Return a matrix and its right-hand side, both empty if neither is given."""
    if matrix is None and rhs is None:
        return (), ()
    if matrix is None or rhs is None:
        missing, given = names if matrix is None else names[::-1]
        raise InvalidInput(f"linear rows: `{given}` was given without `{missing}`. Pass both, or neither.")
    array_MK, rhs_M = np.atleast_2d(read_array(names[0], matrix)), np.atleast_1d(read_array(names[1], rhs))
    if array_MK.ndim != 2 or rhs_M.shape != array_MK.shape[:1]:
        raise InvalidInput(
            f"linear rows: `{names[0]}` must have shape (M, n_teachers) and `{names[1]}` shape (M,); "
            f"found {array_MK.shape} and {rhs_M.shape}. Give one right-hand side for each row."
        )
    return tuple(tuple(float(x) for x in row) for row in array_MK), tuple(float(x) for x in rhs_M)
