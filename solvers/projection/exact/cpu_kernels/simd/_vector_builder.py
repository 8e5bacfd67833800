"""SIMD code generation: arithmetic on symbols becomes straight vector code for rows side by side in registers.

A compiler turns loops into vector instructions when it can prove enough about them, which it seldom can for loops over
teachers inside loops over rows.  Here the code is written for one row, as Python over lists of ``Vector``; running it
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


class VectorMask:
    """A SIMD mask: a yes or no for each row."""

    def __init__(self, builder: Any, bits: Any) -> None:
        self.ir, self.bits = builder, bits

    def __and__(self, other: VectorMask) -> VectorMask:
        return VectorMask(self.ir, self.ir.and_(self.bits, other.bits))

    def __or__(self, other: VectorMask) -> VectorMask:
        return VectorMask(self.ir, self.ir.or_(self.bits, other.bits))

    def __invert__(self) -> VectorMask:
        return VectorMask(self.ir, self.ir.not_(self.bits))

    def pack_bits(self) -> Any:
        """Return one 64-bit number with a bit for each row, the first row lowest."""
        count = self.bits.type.count
        return self.ir.zext(self.ir.bitcast(self.bits, ir.IntType(count)), _INDEX)


class Vector:
    """A SIMD vector: one float64 for each row.  Operators write instructions; plain numbers hold for all rows alike."""

    def __init__(self, builder: Any, vector: Any) -> None:
        self.ir, self.vector = builder, vector

    def fill(self, number: float) -> Vector:
        """Return the same number in each row."""
        return Vector(self.ir, ir.Constant(self.vector.type, [float(number)] * self.vector.type.count))

    def _to_vector(self, other: Vector | float) -> Any:
        return other.vector if isinstance(other, Vector) else self.fill(other).vector

    def __add__(self, other: Vector | float) -> Vector:
        return Vector(self.ir, self.ir.fadd(self.vector, self._to_vector(other)))

    def __sub__(self, other: Vector | float) -> Vector:
        return Vector(self.ir, self.ir.fsub(self.vector, self._to_vector(other)))

    def __mul__(self, other: Vector | float) -> Vector:
        return Vector(self.ir, self.ir.fmul(self.vector, self._to_vector(other)))

    def __truediv__(self, other: Vector | float) -> Vector:
        return Vector(self.ir, self.ir.fdiv(self.vector, self._to_vector(other)))

    def _compare(self, how: str, other: Vector | float) -> VectorMask:
        return VectorMask(self.ir, self.ir.fcmp_ordered(how, self.vector, self._to_vector(other)))

    def __lt__(self, other: Vector | float) -> VectorMask:
        return self._compare("<", other)

    def __le__(self, other: Vector | float) -> VectorMask:
        return self._compare("<=", other)

    def __gt__(self, other: Vector | float) -> VectorMask:
        return self._compare(">", other)

    def __ge__(self, other: Vector | float) -> VectorMask:
        return self._compare(">=", other)

    def absolute(self) -> Vector:
        """Return the absolute value."""
        kind = self.vector.type
        signature = ir.FunctionType(kind, [kind])
        fabs = cgutils.get_or_insert_function(self.ir.module, signature, f"llvm.fabs.v{kind.count}f64")
        return Vector(self.ir, self.ir.call(fabs, [self.vector]))

    def equals(self, other: Vector | float) -> VectorMask:
        """Tell where two numbers are equal; NaN equals nothing."""
        return self._compare("==", other)


def select(mask: VectorMask, yes: Vector, no: Vector | float) -> Vector:
    """Take ``yes`` where the mask says so, ``no`` elsewhere."""
    return Vector(yes.ir, yes.ir.select(mask.bits, yes.vector, yes._to_vector(no)))


def vector_minimum(a: Vector, b: Vector) -> Vector:
    """Return the smaller of two; the second where one is NaN."""
    return select(a < b, a, b)


def vector_maximum(a: Vector, b: Vector) -> Vector:
    """Return the larger of two; the second where one is NaN."""
    return select(a > b, a, b)


def clip_vector(x: Vector, lower: Vector, upper: Vector) -> Vector:
    """Return x within bounds."""
    return vector_minimum(vector_maximum(x, lower), upper)


def sum_pairwise(terms: Sequence[Vector]) -> Vector:
    """Return the sum, added pairwise: short chains of instructions, and little rounding."""
    return reduce_pairwise(terms, lambda a, b: a + b)


def reduce_pairwise(terms: Sequence[T], join: Callable[[T, T], T]) -> T:
    """Return what is left when neighbors are put together by ``join`` again and again."""
    while len(terms) > 1:
        paired = [join(a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = [*paired, terms[-1]] if len(terms) % 2 else paired
    return terms[0]


class VectorBuilder:
    """Access to the rows that one piece of vector code works on: ``rows`` of them, from ``row`` on."""

    def __init__(self, context: Any, builder: Any, row: Any, rows: int, K: int) -> None:
        self.context, self.ir, self.rows, self.K = context, builder, rows, K
        self._row = row
        self._type = ir.VectorType(_NUMBER, rows)

    def broadcast(self, number: Any) -> Vector:
        """Return a float64 argument in each row."""
        bare = ir.Constant(self._type, ir.Undefined)
        one = self.ir.insert_element(bare, number, ir.Constant(_SHORT, 0))
        zeros = ir.Constant(ir.VectorType(_SHORT, self.rows), [0] * self.rows)
        return Vector(self.ir, self.ir.shuffle_vector(one, bare, zeros))

    def load_permutation(self, array_type: Any, array: Any) -> list[Any]:
        """Return the K entries of an int64 array."""
        data = make_array(array_type)(self.context, self.ir, array).data
        return [self.ir.load(self._point_to(data, self._constant(k))) for k in range(self.K)]

    def load(self, array_type: Any, array: Any, columns: Sequence[Any] | None = None) -> list[Vector]:
        """Return the columns of an array (B, K) or (1, K), any float or integer type, as vectors."""
        held = make_array(array_type)(self.context, self.ir, array)
        alike = self.ir.icmp_signed("==", self.ir.extract_value(held.shape, 0), self._constant(1))
        step = self.ir.select(alike, self._constant(0), self._constant(self.K))
        places = self._find_row_starts(step)
        square = self._count_square_columns(array_type, columns)
        loaded = [x for k in range(0, square, _SIDE) for x in self._load_square(held.data, places, k)]
        rest = self._pick_columns(columns)[square:]
        return loaded + [self._load_column(held.data, array_type.dtype, places, column) for column in rest]

    def store(self, array_type: Any, array: Any, x: Sequence[Vector], columns: Sequence[Any] | None = None) -> None:
        """Write vectors to the columns of an array (B, K)."""
        data = make_array(array_type)(self.context, self.ir, array).data
        places = self._find_row_starts(self._constant(self.K))
        square = self._count_square_columns(array_type, columns)
        for k in range(0, square, _SIDE):
            self._store_square(data, places, k, x[k : k + _SIDE])
        for column, vector in zip(self._pick_columns(columns)[square:], x[square:], strict=True):
            for slot, place in enumerate(places):
                at = self._point_to(data, self.ir.add(place, column))
                self.ir.store(self._narrow(self._extract(vector, slot), array_type.dtype), at)

    def scatter(self, array_type: Any, array: Any, x: Sequence[Vector], columns: Sequence[Vector]) -> None:
        """Write vectors to columns that differ from row to row."""
        data = make_array(array_type)(self.context, self.ir, array).data
        places = self._find_row_starts(self._constant(self.K))
        for column, vector in zip(columns, x, strict=True):
            for slot, place in enumerate(places):
                own = self.ir.fptosi(self._extract(column, slot), _INDEX)
                at = self._point_to(data, self.ir.add(place, own))
                self.ir.store(self._narrow(self._extract(vector, slot), array_type.dtype), at)

    @contextmanager
    def if_any_rows(self, array_type: Any, array: Any) -> Iterator[None]:
        """Run the instructions written inside only if the array has rows."""
        rows = self.ir.extract_value(make_array(array_type)(self.context, self.ir, array).shape, 0)
        with self.ir.if_then(self.ir.icmp_signed(">", rows, self._constant(0))):
            yield

    def repeat_until(
        self, finished: VectorMask, state: list[Vector], step: Callable[..., tuple[VectorMask, list[Vector]]], most: int
    ) -> tuple[VectorMask, list[Vector]]:
        """Repeat ``finished, state = step(*state)``, at most so often, until all rows have finished.

        A row that has finished keeps its state, whatever the others still do.
        """
        builder = self.ir
        held = [cgutils.alloca_once_value(builder, vector.vector) for vector in state]
        done = cgutils.alloca_once_value(builder, finished.bits)
        with cgutils.for_range(builder, self._constant(most)) as loop:
            before = VectorMask(builder, builder.load(done))
            with builder.if_then(builder.icmp_unsigned("==", (~before).pack_bits(), self._constant(0))):
                loop.do_break()
            old = [Vector(builder, builder.load(place)) for place in held]
            now, new = step(*old)
            for place, was, is_now in zip(held, old, new, strict=True):
                builder.store(select(before, was, is_now).vector, place)
            builder.store((before | now).bits, done)
        return VectorMask(builder, builder.load(done)), [Vector(builder, builder.load(place)) for place in held]

    def _pick_columns(self, columns: Sequence[Any] | None) -> Sequence[Any]:
        return [self._constant(k) for k in range(self.K)] if columns is None else columns

    def _find_row_starts(self, step: Any) -> list[Any]:
        """Return where each row begins."""
        rows = [self.ir.add(self._row, self._constant(slot)) for slot in range(self.rows)]
        return [self.ir.mul(row, step) for row in rows]

    def _count_square_columns(self, array_type: Any, columns: Sequence[Any] | None) -> int:
        """Return how many columns can be moved by whole squares: where they stand side by side, and are float64."""
        return self.K // _SIDE * _SIDE if columns is None and array_type.dtype == types.float64 else 0

    def _load_square(self, data: Any, places: Sequence[Any], column: int) -> list[Vector]:
        """Read columns ``column`` to ``column + 3``: rows as they lie in memory, turned four by four."""
        parts = []
        for first in range(0, self.rows, _SIDE):
            rows = [self._point_to_four(data, place, column) for place in places[first : first + _SIDE]]
            parts.append(self._transpose([self.ir.load(row, align=_ALIGNED) for row in rows]))
        return [Vector(self.ir, reduce_pairwise([part[k] for part in parts], self._join)) for k in range(_SIDE)]

    def _store_square(self, data: Any, places: Sequence[Any], column: int, x: Sequence[Vector]) -> None:
        for first in range(0, self.rows, _SIDE):
            own = list(range(first, first + _SIDE))
            rows = self._transpose([self._shuffle(vector.vector, vector.vector, own) for vector in x])
            for row, place in zip(rows, places[first : first + _SIDE], strict=True):
                self.ir.store(row, self._point_to_four(data, place, column), align=_ALIGNED)

    def _point_to_four(self, data: Any, place: Any, column: int) -> Any:
        at = self._point_to(data, self.ir.add(place, self._constant(column)))
        return self.ir.bitcast(at, ir.VectorType(_NUMBER, _SIDE).as_pointer())

    def _transpose(self, rows: Sequence[Any]) -> list[Any]:
        """Return the columns of four vectors of four."""
        a, b, c, d = rows
        even = self._shuffle(a, b, [0, 4, 2, 6]), self._shuffle(c, d, [0, 4, 2, 6])
        odd = self._shuffle(a, b, [1, 5, 3, 7]), self._shuffle(c, d, [1, 5, 3, 7])
        return [self._shuffle(*pair, halves) for halves in ([0, 1, 4, 5], [2, 3, 6, 7]) for pair in (even, odd)]

    def _join(self, one: Any, other: Any) -> Any:
        return self._shuffle(one, other, list(range(2 * one.type.count)))

    def _shuffle(self, one: Any, other: Any, places: list[int]) -> Any:
        return self.ir.shuffle_vector(one, other, ir.Constant(ir.VectorType(_SHORT, len(places)), places))

    def _load_column(self, data: Any, dtype: Any, places: Sequence[Any], column: Any) -> Vector:
        vector = ir.Constant(self._type, ir.Undefined)
        for slot, place in enumerate(places):
            number = self.ir.load(self._point_to(data, self.ir.add(place, column)))
            if isinstance(dtype, types.Integer):
                number = self.ir.sitofp(number, _NUMBER)
            elif dtype == types.float32:
                number = self.ir.fpext(number, _NUMBER)
            vector = self.ir.insert_element(vector, number, ir.Constant(_SHORT, slot))
        return Vector(self.ir, vector)

    def _narrow(self, number: Any, dtype: Any) -> Any:
        if isinstance(dtype, types.Integer):
            return self.ir.fptosi(number, self.context.get_value_type(dtype))
        return self.ir.fptrunc(number, ir.FloatType()) if dtype == types.float32 else number

    def _extract(self, vector: Vector, slot: int) -> Any:
        return self.ir.extract_element(vector.vector, ir.Constant(_SHORT, slot))

    def _point_to(self, data: Any, index: Any) -> Any:
        return self.ir.gep(data, [index])

    def _constant(self, number: int) -> Any:
        return ir.Constant(_INDEX, number)
