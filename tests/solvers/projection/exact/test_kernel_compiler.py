"""Compiled kernels are kept between processes, and compiled anew after a change to any file that they may use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from solvers.projection.exact.cpu_kernels import _kernel_cache, _kernel_compiler
from solvers.projection.exact.cpu_kernels._kernel_cache import KernelCache

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


@pytest.fixture
def kernels(tmp_path):
    """A package with the rooms of ours: the kernel that changes stands in a room below that of its caller."""
    cpu = tmp_path / "kernels" / "exact" / "cpu"
    (cpu / "simd").mkdir(parents=True)
    texts = {"caller.py": CALLER, "simd/helper.py": HELPER}
    for name in ("../../__init__.py", "../__init__.py", "__init__.py", "simd/__init__.py"):
        texts[name] = ""
    for name, text in texts.items():
        (cpu / name).write_text(text)
    for module in (_kernel_compiler, _kernel_cache):
        shutil.copy(module.__file__, cpu)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def use() -> str:
        command = [sys.executable, "-c", USE]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    return cpu, use


def test_kernels_are_kept_until_a_file_of_a_sub_room_changes(kernels):
    cpu, use = kernels
    assert use() == "30 0\n"
    for path in cpu.rglob("*.py"):
        path.touch()
    assert use() == "30 1\n", "times of files say nothing"
    (cpu / "simd" / "helper.py").write_text(HELPER.replace("x + 1", "x + 5"))
    assert use() == "70 0\n"
    assert len(list(cpu.rglob("*.kernel"))) == 2, "what older sources gave is taken away"


def test_a_kernel_of_another_room_is_compiled_anew_when_its_own_file_changes(kernels):
    cpu, use = kernels
    room = cpu.parents[2] / "kernels" / "caller_elsewhere.py"
    text = CALLER.replace("from ._kernel", "from kernels.exact.cpu._kernel").replace(
        "from .simd", "from kernels.exact.cpu.simd"
    )
    room.write_text(text)
    (cpu / "caller.py").write_text("from kernels.caller_elsewhere import caller")
    assert use() == "30 0\n"
    assert use() == "30 1\n"
    room.write_text(text.replace("10 *", "20 *"))
    assert use() == "60 0\n"


def test_damaged_machine_code_is_compiled_again(kernels):
    """Not run: a bit of every byte turned, the end cut off, two files exchanged, nothing in them."""
    cpu, use = kernels
    assert use() == "30 0\n"
    helper, caller = sorted(cpu.rglob("*.kernel"), key=lambda path: "simd" not in path.parts)
    whole = helper.read_bytes(), caller.read_bytes()
    damages = [
        lambda: caller.write_bytes(bytes(byte ^ 1 for byte in whole[1])),
        lambda: caller.write_bytes(whole[1][:-1]),
        lambda: (helper.write_bytes(whole[1]), caller.write_bytes(whole[0])),
        lambda: [path.write_bytes(b"") for path in (helper, caller)],
    ]
    for damage in damages:
        damage()
        assert use() == "30 0\n"
        assert use() == "30 1\n", "and kept again"


KEY, DATA = ("signature", ("x86", "cpu")), {"code": bytes(range(256)), "name": "kernel"}


def test_one_bit_turned_anywhere_is_seen(tmp_path):
    cache = KernelCache(tmp_path, "kernel", "sources")
    assert cache.load(KEY) is None
    cache.save(KEY, DATA)
    assert cache.load(KEY) == DATA
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        assert cache.load(KEY) is None
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert cache.load(KEY) is None
    path.write_bytes(whole)
    assert cache.load(KEY) == DATA


def test_files_of_others_and_other_sources_are_not_taken(tmp_path):
    cache = KernelCache(tmp_path, "kernel", "sources")
    cache.save(KEY, DATA)
    (path,) = tmp_path.iterdir()
    other = KernelCache(tmp_path, "kernel-2", "sources")
    path.rename(other._find_file(KEY))
    assert other.load(KEY) is None
    cache.save(KEY, DATA)
    cache.save("another", DATA)
    assert KernelCache(tmp_path, "kernel", "new sources").load(KEY) is None
    KernelCache(tmp_path, "kernel", "new sources").save(KEY, 1)
    assert cache.load(KEY) is None
    cache.save(KEY, DATA)
    cache.flush()
    assert cache.load(KEY) is None
    assert [one.name.split(".")[0] for one in tmp_path.iterdir()] == ["kernel-2"]


def test_without_room_for_it_machine_code_is_not_kept(tmp_path):
    (tmp_path / "file").write_text("")
    cache = KernelCache(tmp_path / "file", "kernel", "sources")
    cache.save(KEY, DATA)
    assert cache.load(KEY) is None
