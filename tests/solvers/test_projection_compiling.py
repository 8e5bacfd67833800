"""Compiled kernels are kept between processes, and compiled anew after any change to their sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import solvers

USE = """
import numpy as np
from solvers.projection import _lane_kernels
v = np.array([[0.9, 0.3, -1.0]])
w, labels, order = np.empty_like(v), np.empty((0, 3), np.int16), np.arange(3)
_lane_kernels.project_lanes(v, order, np.zeros((1, 3)), w, labels, 0.1, 0.6, 0, 1, (0, 0, 0), ())
print(w[0].tolist(), sum(_lane_kernels.project_lanes.stats.cache_hits.values()))
"""


def test_kernels_are_kept_until_a_file_they_use_changes(tmp_path):
    shutil.copytree(Path(solvers.__file__).parent, tmp_path / "solvers", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def use() -> str:
        command = [sys.executable, "-c", USE]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    first = use()
    assert first.startswith("[0.6, 0.3")
    assert first.endswith(" 0\n")
    assert use().endswith(" 1\n")
    programs = tmp_path / "solvers" / "projection" / "_lane_programs.py"
    programs.write_text(programs.read_text().replace("K * 2.0**-53", "K * 2.0**-52"))
    assert use().endswith(" 0\n")
