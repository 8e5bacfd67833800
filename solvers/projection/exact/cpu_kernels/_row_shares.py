"""Shares of the rows of one call, handed out in compiled code: whoever is free takes the next and says when it is done.

A tally (3,), int64, counts rows handed out and rows done, and holds the largest result so far; all three change
atomically, so any number of threads may work on one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.np import arrayobj

from ._kernel_compiler import cpu_kernel, inlined_kernel, intrinsic

make_array: Any = arrayobj.make_array

Tally = npt.NDArray[np.int64]

_TAKEN, _DONE, LARGEST = 0, 1, 2
_PATIENCE = 1 << 15  # looks at a tally before a waiting thread sleeps: some tens of us, what waking it would take


def new_tally() -> Tally:
    """Return the tally of a call of which nothing is done."""
    return np.zeros(3, dtype=np.int64)


def _changing(how: str) -> Any:
    def change(_: Any, tally: Any, place: Any, number: Any) -> Any:
        def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            held, at, by = arguments
            address = builder.gep(make_array(tally)(context, builder, held).data, [at])
            return builder.atomic_rmw(how, address, by, "seq_cst")

        return types.int64(tally, types.int64, types.int64), write

    return change


_add, _raise_to = intrinsic(_changing("add")), intrinsic(_changing("max"))


@inlined_kernel
def take_share(tally: Any, share: int) -> int:
    """Return the first row of the next share."""
    return int(_add(tally, _TAKEN, share))


@inlined_kernel
def finish_share(tally: Any, rows: int, result: int) -> None:
    """Say that so many rows are done, and with what result; what was written for them can be read from then on."""
    _raise_to(tally, LARGEST, result)
    _add(tally, _DONE, rows)


@cpu_kernel
def wait_for_rows(tally: Any, rows: int) -> bool:
    """Wait a little for all rows to be done; return whether they are."""
    looks = 0
    while _add(tally, _DONE, 0) < rows and looks < _PATIENCE:
        looks += 1
    return looks < _PATIENCE
