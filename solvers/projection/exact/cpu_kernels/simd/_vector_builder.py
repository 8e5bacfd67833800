"""Rows side by side in vector registers: write arithmetic on symbols, get straight vector code.

A compiler turns loops into vector instructions when it can prove enough about them, which it seldom can for loops over
teachers inside loops over rows.  Here the code is written for one row, as Python over lists of ``Lanes``; running it
once with symbols writes LLVM instructions on whole vectors, with every loop over teachers unrolled.  Nothing is left to
be proved, compiling takes a fraction of a second, and on narrower machines LLVM splits the vectors.

Arithmetic stays IEEE: no reordering, no fused operations.  Axes: K teachers, L rows side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from llvmlite import ir
from numba.core import cgutils as _cgutils
from numba.core import types
from numba.np import arrayobj

# these helpers of numba carry no types
cgutils: Any = _cgutils
make_array: Any = arrayobj.make_array

T = TypeVar("T")

_INDEX = ir.IntType(64)
_SHORT = ir.IntType(32)
_NUMBER = ir.DoubleType()
_SIDE = 4  # numbers that one load moves
_ALIGNED = 8  # bytes: rows begin where they will


class Mask:
    """A yes or no for each row."""

    def __init__(self, builder: Any, bits: Any) -> None:
        self.builder, self.bits = builder, bits

    def __and__(self, other: Mask) -> Mask:
        return Mask(self.builder, self.builder.and_(self.bits, other.bits))

    def __or__(self, other: Mask) -> Mask:
        return Mask(self.builder, self.builder.or_(self.bits, other.bits))

    def __invert__(self) -> Mask:
        return Mask(self.builder, self.builder.not_(self.bits))

    def packed(self) -> Any:
        """Return one 64-bit number with a bit for each row, the first row lowest."""
        count = self.bits.type.count
        return self.builder.zext(self.builder.bitcast(self.bits, ir.IntType(count)), _INDEX)


class Lanes:
    """One float64 for each row.  Operators write instructions; plain numbers stand for all rows alike."""

    def __init__(self, builder: Any, vector: Any) -> None:
        self.builder, self.vector = builder, vector

    def filled(self, number: float) -> Lanes:
        """Return the same number in each row."""
        return Lanes(self.builder, ir.Constant(self.vector.type, [float(number)] * self.vector.type.count))

    def _vector_of(self, other: Lanes | float) -> Any:
        return other.vector if isinstance(other, Lanes) else self.filled(other).vector

    def __add__(self, other: Lanes | float) -> Lanes:
        return Lanes(self.builder, self.builder.fadd(self.vector, self._vector_of(other)))

    def __sub__(self, other: Lanes | float) -> Lanes:
        return Lanes(self.builder, self.builder.fsub(self.vector, self._vector_of(other)))

    def __mul__(self, other: Lanes | float) -> Lanes:
        return Lanes(self.builder, self.builder.fmul(self.vector, self._vector_of(other)))

    def __truediv__(self, other: Lanes | float) -> Lanes:
        return Lanes(self.builder, self.builder.fdiv(self.vector, self._vector_of(other)))

    def _compared(self, how: str, other: Lanes | float) -> Mask:
        return Mask(self.builder, self.builder.fcmp_ordered(how, self.vector, self._vector_of(other)))

    def __lt__(self, other: Lanes | float) -> Mask:
        return self._compared("<", other)

    def __le__(self, other: Lanes | float) -> Mask:
        return self._compared("<=", other)

    def __gt__(self, other: Lanes | float) -> Mask:
        return self._compared(">", other)

    def __ge__(self, other: Lanes | float) -> Mask:
        return self._compared(">=", other)

    def size(self) -> Lanes:
        """Return the absolute value."""
        kind = self.vector.type
        signature = ir.FunctionType(kind, [kind])
        fabs = cgutils.get_or_insert_function(self.builder.module, signature, f"llvm.fabs.v{kind.count}f64")
        return Lanes(self.builder, self.builder.call(fabs, [self.vector]))

    def same_as(self, other: Lanes | float) -> Mask:
        """Tell where two numbers are equal; NaN equals nothing."""
        return self._compared("==", other)


def where(mask: Mask, yes: Lanes, no: Lanes | float) -> Lanes:
    """Take ``yes`` where the mask says so, ``no`` elsewhere."""
    return Lanes(yes.builder, yes.builder.select(mask.bits, yes.vector, yes._vector_of(no)))


def smaller(a: Lanes, b: Lanes) -> Lanes:
    """Return the smaller of two; the second where one is NaN."""
    return where(a < b, a, b)


def larger(a: Lanes, b: Lanes) -> Lanes:
    """Return the larger of two; the second where one is NaN."""
    return where(a > b, a, b)


def clip(x: Lanes, lower: Lanes, upper: Lanes) -> Lanes:
    """Return x within bounds."""
    return smaller(larger(x, lower), upper)


def total(terms: Sequence[Lanes]) -> Lanes:
    """Return the sum, added pairwise: short chains of instructions, and little rounding."""
    return combined(terms, lambda a, b: a + b)


def combined(terms: Sequence[T], join: Callable[[T, T], T]) -> T:
    """Return what is left when neighbours are put together by ``join`` again and again."""
    while len(terms) > 1:
        paired = [join(a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = [*paired, terms[-1]] if len(terms) % 2 else paired
    return terms[0]


class Program:
    """Access to the rows that one piece of vector code works on: ``lanes`` of them, from ``row`` on."""

    def __init__(self, context: Any, builder: Any, row: Any, lanes: int, K: int) -> None:
        self.context, self.builder, self.lanes, self.K = context, builder, lanes, K
        self._row = row
        self._type = ir.VectorType(_NUMBER, lanes)

    def spread(self, number: Any) -> Lanes:
        """Return a float64 argument in each row."""
        bare = ir.Constant(self._type, ir.Undefined)
        one = self.builder.insert_element(bare, number, ir.Constant(_SHORT, 0))
        zeros = ir.Constant(ir.VectorType(_SHORT, self.lanes), [0] * self.lanes)
        return Lanes(self.builder, self.builder.shuffle_vector(one, bare, zeros))

    def permutation(self, array_type: Any, array: Any) -> list[Any]:
        """Return the K entries of an int64 array."""
        data = make_array(array_type)(self.context, self.builder, array).data
        return [self.builder.load(self._at(data, self._constant(k))) for k in range(self.K)]

    def load(self, array_type: Any, array: Any, columns: Sequence[Any] | None = None) -> list[Lanes]:
        """Return the columns of an array (B, K) or (1, K), any float or integer type, as Lanes."""
        held = make_array(array_type)(self.context, self.builder, array)
        alike = self.builder.icmp_signed("==", self.builder.extract_value(held.shape, 0), self._constant(1))
        step = self.builder.select(alike, self._constant(0), self._constant(self.K))
        places = self._places(step)
        square = self._squares(array_type, columns)
        loaded = [x for k in range(0, square, _SIDE) for x in self._load_square(held.data, places, k)]
        rest = self._columns(columns)[square:]
        return loaded + [self._load_column(held.data, array_type.dtype, places, column) for column in rest]

    def store(self, array_type: Any, array: Any, x: Sequence[Lanes], columns: Sequence[Any] | None = None) -> None:
        """Write Lanes to the columns of an array (B, K)."""
        data = make_array(array_type)(self.context, self.builder, array).data
        places = self._places(self._constant(self.K))
        square = self._squares(array_type, columns)
        for k in range(0, square, _SIDE):
            self._store_square(data, places, k, x[k : k + _SIDE])
        for column, lanes in zip(self._columns(columns)[square:], x[square:], strict=True):
            for lane, place in enumerate(places):
                at = self._at(data, self.builder.add(place, column))
                self.builder.store(self._narrowed(self._lane(lanes, lane), array_type.dtype), at)

    def scatter(self, array_type: Any, array: Any, x: Sequence[Lanes], columns: Sequence[Lanes]) -> None:
        """Write Lanes to columns that differ from row to row."""
        data = make_array(array_type)(self.context, self.builder, array).data
        places = self._places(self._constant(self.K))
        for column, lanes in zip(columns, x, strict=True):
            for lane, place in enumerate(places):
                own = self.builder.fptosi(self._lane(column, lane), _INDEX)
                at = self._at(data, self.builder.add(place, own))
                self.builder.store(self._narrowed(self._lane(lanes, lane), array_type.dtype), at)

    @contextmanager
    def unless_empty(self, array_type: Any, array: Any) -> Iterator[None]:
        """Run the instructions written inside only if the array has rows."""
        rows = self.builder.extract_value(make_array(array_type)(self.context, self.builder, array).shape, 0)
        with self.builder.if_then(self.builder.icmp_signed(">", rows, self._constant(0))):
            yield

    def until(
        self, finished: Mask, state: list[Lanes], step: Callable[..., tuple[Mask, list[Lanes]]], most: int
    ) -> tuple[Mask, list[Lanes]]:
        """Repeat ``finished, state = step(*state)``, at most so often, until all rows have finished.

        A row that has finished keeps its state, whatever the others still do.
        """
        builder = self.builder
        held = [cgutils.alloca_once_value(builder, lanes.vector) for lanes in state]
        done = cgutils.alloca_once_value(builder, finished.bits)
        with cgutils.for_range(builder, self._constant(most)) as loop:
            before = Mask(builder, builder.load(done))
            with builder.if_then(builder.icmp_unsigned("==", (~before).packed(), self._constant(0))):
                loop.do_break()
            old = [Lanes(builder, builder.load(place)) for place in held]
            now, new = step(*old)
            for place, was, is_now in zip(held, old, new, strict=True):
                builder.store(where(before, was, is_now).vector, place)
            builder.store((before | now).bits, done)
        return Mask(builder, builder.load(done)), [Lanes(builder, builder.load(place)) for place in held]

    def _columns(self, columns: Sequence[Any] | None) -> Sequence[Any]:
        return [self._constant(k) for k in range(self.K)] if columns is None else columns

    def _places(self, step: Any) -> list[Any]:
        """Return where each row begins."""
        rows = [self.builder.add(self._row, self._constant(lane)) for lane in range(self.lanes)]
        return [self.builder.mul(row, step) for row in rows]

    def _squares(self, array_type: Any, columns: Sequence[Any] | None) -> int:
        """Return how many columns can be moved by whole squares: where they stand side by side, and are float64."""
        return self.K // _SIDE * _SIDE if columns is None and array_type.dtype == types.float64 else 0

    def _load_square(self, data: Any, places: Sequence[Any], column: int) -> list[Lanes]:
        """Read columns ``column`` to ``column + 3``: rows as they lie in memory, turned four by four."""
        parts = []
        for first in range(0, self.lanes, _SIDE):
            rows = [self._four_at(data, place, column) for place in places[first : first + _SIDE]]
            parts.append(self._turned([self.builder.load(row, align=_ALIGNED) for row in rows]))
        return [Lanes(self.builder, combined([part[k] for part in parts], self._joined)) for k in range(_SIDE)]

    def _store_square(self, data: Any, places: Sequence[Any], column: int, x: Sequence[Lanes]) -> None:
        for first in range(0, self.lanes, _SIDE):
            own = list(range(first, first + _SIDE))
            rows = self._turned([self._shuffled(lanes.vector, lanes.vector, own) for lanes in x])
            for row, place in zip(rows, places[first : first + _SIDE], strict=True):
                self.builder.store(row, self._four_at(data, place, column), align=_ALIGNED)

    def _four_at(self, data: Any, place: Any, column: int) -> Any:
        at = self._at(data, self.builder.add(place, self._constant(column)))
        return self.builder.bitcast(at, ir.VectorType(_NUMBER, _SIDE).as_pointer())

    def _turned(self, rows: Sequence[Any]) -> list[Any]:
        """Return the columns of four vectors of four."""
        a, b, c, d = rows
        even = self._shuffled(a, b, [0, 4, 2, 6]), self._shuffled(c, d, [0, 4, 2, 6])
        odd = self._shuffled(a, b, [1, 5, 3, 7]), self._shuffled(c, d, [1, 5, 3, 7])
        return [self._shuffled(*pair, halves) for halves in ([0, 1, 4, 5], [2, 3, 6, 7]) for pair in (even, odd)]

    def _joined(self, one: Any, other: Any) -> Any:
        return self._shuffled(one, other, list(range(2 * one.type.count)))

    def _shuffled(self, one: Any, other: Any, places: list[int]) -> Any:
        return self.builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(_SHORT, len(places)), places))

    def _load_column(self, data: Any, dtype: Any, places: Sequence[Any], column: Any) -> Lanes:
        vector = ir.Constant(self._type, ir.Undefined)
        for lane, place in enumerate(places):
            number = self.builder.load(self._at(data, self.builder.add(place, column)))
            if isinstance(dtype, types.Integer):
                number = self.builder.sitofp(number, _NUMBER)
            elif dtype == types.float32:
                number = self.builder.fpext(number, _NUMBER)
            vector = self.builder.insert_element(vector, number, ir.Constant(_SHORT, lane))
        return Lanes(self.builder, vector)

    def _narrowed(self, number: Any, dtype: Any) -> Any:
        if isinstance(dtype, types.Integer):
            return self.builder.fptosi(number, self.context.get_value_type(dtype))
        return self.builder.fptrunc(number, ir.FloatType()) if dtype == types.float32 else number

    def _lane(self, lanes: Lanes, lane: int) -> Any:
        return self.builder.extract_element(lanes.vector, ir.Constant(_SHORT, lane))

    def _at(self, data: Any, index: Any) -> Any:
        return self.builder.gep(data, [index])

    def _constant(self, number: int) -> Any:
        return ir.Constant(_INDEX, number)
