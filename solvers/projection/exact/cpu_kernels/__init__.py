"""The exact projection on the processor, by kernels that numba compiles (``_kernel_compiler``).

``_cpu_rows`` hands the rows of a call out to threads (``_row_threads``, ``_row_shares``).  Rows of few teachers go side
by side through vector registers (``simd``), partial orders through ``partial_orders``, all others one by one through
``_batch_kernels``, whose steps on a row are ``_row_kernels``.  ``_bounded_batch_kernels`` and ``_bounded_kernels`` do
the same under bounds that differ and margins.

A kernel of another room is compiled by ``cpu_kernel`` too, and calls no function of another file.
"""

from ._kernel_compiler import cpu_kernel

__all__ = ["cpu_kernel"]
