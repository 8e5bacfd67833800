"""Compiled kernels are kept between processes, and compiled anew after a change to any file that they may use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from solvers.projection import _jit

HELPER = """
from ._jit import kernel

@kernel
def helper(x):
    return x + 1
"""
CALLER = """
from ._jit import kernel
from .helper import helper

@kernel
def caller(x):
    return 10 * helper(x)
"""
USE = "from kernels.caller import caller; print(caller(2), sum(caller.stats.cache_hits.values()))"


def test_kernels_are_kept_until_a_file_they_use_changes(tmp_path):
    folder = tmp_path / "kernels"
    folder.mkdir()
    for name, text in (("__init__.py", ""), ("helper.py", HELPER), ("caller.py", CALLER)):
        (folder / name).write_text(text)
    shutil.copy(_jit.__file__, folder)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def use() -> str:
        command = [sys.executable, "-c", USE]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert use() == "30 0\n"
    assert use() == "30 1\n"
    (folder / "helper.py").write_text(HELPER.replace("x + 1", "x + 20"))
    assert use() == "220 0\n"
