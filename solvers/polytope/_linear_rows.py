"""Extra linear rows  A w <= b,  C w = d.

Axes: K teachers, M rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from solvers.errors import InvalidInput

from ..short_repr import ShortRepr
from ._polytope_numbers import Matrix, Vector, read_rows


@dataclass(frozen=True, init=False, repr=False)
class LinearRows(ShortRepr):
    """Rows ``A w <= b`` and ``C w = d``, held as tuples so that equal rows are equal values.

    Args:
        A: Coefficients of inequalities, shape (M, K), or None.
        b: Their right-hand sides, shape (M,), or None.
        C: Coefficients of equalities, shape (M, K), or None.
        d: Their right-hand sides, shape (M,), or None.

    Raises:
        InvalidInput: A number is not finite, one half of a pair is missing, or a right-hand side does not fit.

    >>> LinearRows(A=[[1.0, 1.0, 0.0]], b=[0.7]).b
    (0.7,)
    """

    A: Matrix
    b: Vector
    C: Matrix
    d: Vector

    def __init__(self, A: object = None, b: object = None, C: object = None, d: object = None) -> None:
        for names, matrix, rhs in ((("A", "b"), A, b), (("C", "d"), C, d)):
            rows, right = read_rows(names, matrix, rhs)
            object.__setattr__(self, names[0], rows)
            object.__setattr__(self, names[1], right)

    def with_ties(self, groups: tuple[tuple[int, ...], ...], n_teachers: int) -> LinearRows:
        """Return these rows and those that make the teachers of each group weigh the same.

        Args:
            groups: Teachers of each group, at least two.
            n_teachers: K, how many teachers there are.
        """
        C, d = list(self.C), list(self.d)
        for group in groups:
            for k in group[1:]:
                C.append(tuple(float(m == group[0]) - float(m == k) for m in range(n_teachers)))
                d.append(0.0)
        return LinearRows(self.A or None, self.b or None, C or None, d or None)

    def __bool__(self) -> bool:
        """Tell whether there is any row."""
        return bool(self.b or self.d)


def read_linear(value: object, n_teachers: int) -> LinearRows:
    """Return linear rows over ``n_teachers`` from None, a record, a tuple (A, b) or (A, b, C, d), or a mapping."""
    rows = _read_record(value)
    for name in ("A", "C"):
        for index, row in enumerate(getattr(rows, name)):
            if len(row) != n_teachers:
                raise InvalidInput(
                    f"linear rows: row {index} of `{name}` has {len(row)} coefficients; wanted {n_teachers}, "
                    "one for each teacher."
                )
    return rows


def _read_record(value: object) -> LinearRows:
    if value is None:
        return LinearRows()
    if isinstance(value, LinearRows):
        return value
    if isinstance(value, Mapping):
        unknown = sorted(str(key) for key in value if key not in ("A", "b", "C", "d"))
        if unknown:
            raise InvalidInput(f"linear rows: unknown key {', '.join(unknown)}; wanted A, b, C, d.")
        return LinearRows(**value)
    if isinstance(value, tuple | list) and len(value) in (2, 4):
        return LinearRows(*value)
    raise InvalidInput(
        "`linear` must be None, LinearRows, (A, b), (A, b, C, d) or a mapping with those keys; "
        f"found {type(value).__name__}."
    )
