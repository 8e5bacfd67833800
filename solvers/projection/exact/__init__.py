"""The exact projection: an isotonic regression for the order, one threshold for sum and bounds.

``_projection_autograd`` is the differentiable function.  It sends rows on the processor to ``cpu_kernels``, rows on a
GPU to the Triton kernels in ``gpu``, or, where those do not serve, to sorts and cumulative sums (``_torch_rows``, with
``_torch_isotonic`` and ``_torch_threshold``).  Bounds that differ and margins have kernels of their own
(``_bounded_projection``).
"""

from ._projection_autograd import project_exact, project_rows_exactly, pull_back_blocks, read_block_labels

__all__ = ["project_exact", "project_rows_exactly", "pull_back_blocks", "read_block_labels"]
