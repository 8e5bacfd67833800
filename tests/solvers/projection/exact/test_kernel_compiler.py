"""Compiled kernels are kept between processes, and compiled anew after a change to any file that they may use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from solvers.projection.exact.cpu_kernels import _kernel_compiler

HELPER = """
from .._kernel_compiler import cpu_kernel

@cpu_kernel
def helper(x):
    return x + 1
"""
CALLER = """
from ._kernel_compiler import cpu_kernel
from .simd.helper import helper

@cpu_kernel
def caller(x):
    return 10 * helper(x)
"""
USE = "from kernels.exact.cpu.caller import caller; print(caller(2), sum(caller.stats.cache_hits.values()))"


def test_kernels_are_kept_until_a_file_of_a_sub_room_changes(tmp_path):
    """A package with the rooms of ours: the kernel that changes stands in a room below that of its caller."""
    cpu = tmp_path / "kernels" / "exact" / "cpu"
    (cpu / "simd").mkdir(parents=True)
    texts = {"caller.py": CALLER, "simd/helper.py": HELPER}
    for name in ("../../__init__.py", "../__init__.py", "__init__.py", "simd/__init__.py"):
        texts[name] = ""
    for name, text in texts.items():
        (cpu / name).write_text(text)
    shutil.copy(_kernel_compiler.__file__, cpu)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def use() -> str:
        command = [sys.executable, "-c", USE]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert use() == "30 0\n"
    for path in cpu.rglob("*.py"):
        path.touch()
    assert use() == "30 1\n", "times of files say nothing"
    (cpu / "simd" / "helper.py").write_text(HELPER.replace("x + 1", "x + 5"))
    assert use() == "70 0\n"
