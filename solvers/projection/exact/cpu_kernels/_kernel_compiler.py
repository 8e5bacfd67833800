"""How kernels are compiled, in one place.

numba compiles at the first call, and ``_kernel_cache`` keeps the machine code beside the source, so later processes
load it in milliseconds.  The interpreter lock is released while a kernel runs.  numba's own thread layer stays unused:
threads come from ``_row_threads``, which survives a fork.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numba.extending
from numba.core.cgutils import false_bit

from ._kernel_cache import KernelCache

F = TypeVar("F", bound=Callable[..., Any])


def cpu_kernel(function: F) -> F:
    """Compile ``function``; float arithmetic stays IEEE, so that bounds, ties and NaN mean what they say."""
    return cast(F, _compile_function(function))


def inlined_kernel(function: F) -> F:
    """Compile ``function`` into its callers: handing it a record of arrays may take longer than all it does."""
    return cast(F, _compile_function(function, forceinline=True))


def _compile_function(function: Callable[..., Any], **options: bool) -> Any:
    common: dict[str, Any] = {"nogil": True, "error_model": "numpy", **options}
    try:
        compiled: Any = numba.njit(cache=True, **common)(function)
    except RuntimeError:  # nowhere to keep machine code: an installation that may not be written to
        return numba.njit(**common)(function)
    # numba looks at the function's own file only, and would run old code after a change to one that it calls, and it
    # runs whatever is in its files, damaged or not; there is no public way to give it others.  Tried on numba 0.68;
    # test_kernel_compiler.py fails where this is gone
    cache = compiled._cache
    cache._cache_file = KernelCache(
        cache.cache_path, cache._impl.filename_base, _hash_sources(function.__code__.co_filename)
    )
    return compiled


@lru_cache
def _hash_sources(own: str) -> str:
    """Return what changes whenever a source that a kernel may use does: its own, those of this room's parents and all
    below.

    Contents are read, not times: a checkout that changes nothing compiles nothing.
    """
    exact, root = Path(__file__).resolve().parents[1:3]
    digest = hashlib.blake2b(digest_size=16)
    shared = sorted([*root.glob("*.py"), *exact.rglob("*.py")])
    for name, path in [(path.relative_to(root).as_posix(), path) for path in shared] + [("own", Path(own))]:
        for part in (name.encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make an instruction for kernels of a function that returns its signature and what writes its code."""
    return cast(Callable[..., Any], numba.extending.intrinsic(function))


@intrinsic
def lowest_bit(_: Any, bits: Any) -> Any:
    """Return the place of the lowest bit that is set in an int64 other than 0: one instruction."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], false_bit)

    return numba.int64(numba.int64), build
