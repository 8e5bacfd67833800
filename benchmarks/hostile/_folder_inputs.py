"""Folders of results with one file damaged, forged or replaced: what reads them notices, or nothing was lost.

A ``FolderTarget`` is any folder of files, how it is made, and who reads it; another format needs one more of them, in
``_good_folders``.  Paths that a command is given, and that lead to no file, are here too.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safekd.io.folders import MANIFEST

from ._damage import DAMAGE, OUTSIDE, copy_folder, damage_file, take_snapshot
from ._forged_json import forge_file, plant_unfinished_files
from ._input import ACCEPTED, EITHER, REFUSED, HostileInput

Rng = np.random.Generator


@dataclass(frozen=True)
class FolderReader:
    """Who reads a folder.

    Attributes:
        name: What stories call it.
        read: Reads the folder; raises SafekdError to refuse it, returns what is wrong with what it accepted, or "".
        sees: Says of a file, by its path in the folder, whether any change of its bytes must be refused.
    """

    name: str
    read: Callable[[Path], str]
    sees: Callable[[str], bool] = lambda name: True


@dataclass(frozen=True)
class FolderTarget:
    """A folder of files, and who reads it.

    Attributes:
        kind: The kind of its inputs.
        make: Writes a good one; the number is another one's seed.
        readers: At least one.
        finishes: Whether a reader moves files into place that a killed writer had finished.
        forge: Does what only somebody who knows the format would do; returns what, and what must come of that.
    """

    kind: str
    make: Callable[[Path, int], None]
    readers: tuple[FolderReader, ...]
    finishes: bool = False
    forge: Callable[[Rng, Path], tuple[str, str]] | None = None


@functools.cache
def make_good_folder(target: FolderTarget, seed: int) -> Path:
    """Return a good folder of a kind, made once in this process."""
    holder = tempfile.TemporaryDirectory(prefix="good-")
    _HELD.append(holder)
    folder = Path(holder.name) / target.kind
    target.make(folder, seed)
    return folder


_HELD: list[tempfile.TemporaryDirectory[str]] = []  # each is removed when the process ends


def draw_folder_input(rng: Rng, target: FolderTarget) -> HostileInput:
    """Return a folder of a kind with something done to it."""
    reader = target.readers[int(rng.integers(len(target.readers)))]
    good = make_good_folder(target, 0)
    files = sorted(name for name, (kind, *_) in take_snapshot(good).items() if kind == "file")
    name = files[int(rng.integers(len(files)))]
    how, seed = rng.random(), int(rng.integers(2**32))

    def prepare(folder: Path) -> tuple[str, str]:
        copy_folder(good, folder / target.kind)
        own, file = np.random.default_rng(seed), folder / target.kind / name
        if how < 0.02:
            return "nothing", ACCEPTED
        if how < 0.08 and target.finishes and reader.sees(MANIFEST):
            return plant_unfinished_files(own, folder / target.kind, folder / OUTSIDE), REFUSED
        if how < 0.3 and target.forge is not None:
            return target.forge(own, folder / target.kind)
        if how < 0.45 and name.endswith(".json"):
            return f"forged: {forge_file(own, file)}", EITHER
        twin = make_good_folder(target, 1) / name
        if how < 0.55 and twin.is_file():
            what, same = "from another", twin.read_bytes() == file.read_bytes()
            file.write_bytes(twin.read_bytes())
        else:
            what, same = damage_file(own, file)
        return what, REFUSED if reader.sees(name) and not same else EITHER

    def call(folder: Path) -> str:
        return reader.read(folder / target.kind)

    story, names = f"{name}, read by {reader.name}", (name, f"/{target.kind}")
    return HostileInput(target.kind, story, EITHER, call=call, prepare=prepare, names=names)


_COMMANDS = (
    ("train", "{path}"),
    ("frontier", "{path}", "-o", "out.csv"),
    ("verify", "{path}"),
    ("project", "{path}", "-o", "out.csv"),
    ("project", "good.csv", "-o", "out.csv", "--rules", "{path}"),
    ("audit", "{path}"),
    ("audit", "good.csv", "--rules", "{path}"),
)
_NAMES = (
    "x",
    "x.toml",
    "x.csv",
    "x.parquet",
    "x.npy",
    "../x",
    "../../../../nowhere/x",
    "/dev/zero",
    "/dev/full",
    "a\0b",
)
_NAMES = (
    *_NAMES,
    "x" * 300,
    "x/" * 3000,
    "",
    ".",
    "..",
    "/",
    "nul",
    "con.csv",
    "-",
    "~",
    "é\u202e",
    "file:///etc/passwd",
)


def draw_path_input(rng: Rng) -> HostileInput:
    """Return a command that is given the path of what is no file, or of none."""
    name = _NAMES[int(rng.integers(len(_NAMES)))]
    command = _COMMANDS[int(rng.integers(len(_COMMANDS)))]
    seed, plain = int(rng.integers(2**32)), name.startswith("x") and len(name) < 20
    pipe = rng.random() < 0.02  # one without a writer is waited for

    def prepare(folder: Path) -> tuple[str, str]:
        (folder / OUTSIDE).mkdir()
        wanted = EITHER if command[0] == "verify" else REFUSED  # which answers 1 where a file is not as it was written
        if not plain:
            return f"nothing at {name[:40]!r}", wanted
        own = np.random.default_rng(seed)
        (folder / name).write_bytes(b"a,b\n0.5,x\n")
        kinds = ["a link elsewhere", "a socket in its place", "a folder in its place", "a terabyte of holes", "removed"]
        how = "a pipe in its place" if pipe else str(own.choice([*kinds, "a pickle in its place"]))
        DAMAGE[how](own, folder / name)
        return how, wanted

    arguments = tuple(part.format(path=name) for part in command)
    files = {"good.csv": b"a,b\n0.5,0.5\n"}
    story = f"{command[0]} {name[:40]!r}"
    return HostileInput("path", story, REFUSED, files, arguments, prepare=prepare, code=None)
