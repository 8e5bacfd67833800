"""How kernels are compiled, in one place.

numba compiles at the first call and keeps the machine code beside the source, so later processes load it in
milliseconds.  The interpreter lock is released while a kernel runs.  Its own thread layer stays unused: threads come
from ``_threads``, which survives a fork.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile ``function``; float arithmetic stays IEEE, so that bounds, ties and NaN mean what they say."""
    return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy")(function))
