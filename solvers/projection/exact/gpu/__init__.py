"""The exact projection on a GPU, in Triton: ``_triton_launch`` starts ``_triton_kernels``.

A tile of rows is split into columns in registers and sorted there (``_triton_columns``), pooled and moved to its
threshold (``_triton_rows``), and written once.  Triton itself is imported when the first CUDA tensor is projected.
"""

from ._triton_launch import can_use_triton, project_on_triton, pull_back_on_triton

__all__ = ["can_use_triton", "project_on_triton", "pull_back_on_triton"]
