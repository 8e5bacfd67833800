"""The compiled walk of one row at a time: a reference that is compiled once, whatever the number of teachers.

Kernels for rows side by side are compiled for each number of teachers and kind of order, which takes seconds each;
``test_engines.py`` holds them to this walk.
"""

from __future__ import annotations

import pytest
from torch import Tensor

from solvers.projection._projection_orders import RowOrder
from solvers.projection.exact.cpu_kernels._cpu_rows import project_on_cpu
from solvers.projection.exact.cpu_kernels.simd._vector_kernels import SimdSettings


def project_one_by_one(v_BK: Tensor, order: RowOrder, lower: float, upper: float, kl: bool) -> tuple[Tensor, Tensor]:
    """Return weights and labels as ``project_on_cpu`` does, by the walk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("solvers.projection.exact.cpu_kernels._cpu_rows.SIMD", SimdSettings(longest={}))
        return project_on_cpu(v_BK, order, lower, upper, kl)
