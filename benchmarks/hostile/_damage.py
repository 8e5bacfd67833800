"""What may happen to the files of a folder: damage that anybody's disk does, and what only somebody else would do.

Each kind of damage takes a random stream and a file, changes the file's place, and says whether the content is what it
was.  Nothing here knows what the file holds.
"""

from __future__ import annotations

import os
import pickle
import shutil
import stat
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np

Rng = np.random.Generator
MARK = "exploded"  # the folder that a bomb leaves
OUTSIDE = "elsewhere"  # beside the folder that is read
_TERABYTE = 1 << 40


class Bomb:
    """Leaves a mark when somebody unpickles it."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (MARK,)


def write_bomb(rng: Rng) -> bytes:
    """Return a pickle, bare, as torch.save packs it, or as numpy does."""
    bare = pickle.dumps(Bomb(), protocol=int(rng.integers(2, 6)))
    how = int(rng.integers(3))
    if how == 0:
        return bare
    stream = BytesIO()
    if how == 1:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(zipfile.ZipInfo("archive/data.pkl"), bare)
            archive.writestr(zipfile.ZipInfo("archive/version"), "3\n")
    else:
        np.save(stream, np.array([[Bomb()]], dtype=object), allow_pickle=True)
    return stream.getvalue()


def _truncate(rng: Rng, file: Path) -> bool:
    size = file.stat().st_size
    os.truncate(file, int(rng.integers(size)) if size else 0)
    return size == 0


def _flip_bits(rng: Rng, file: Path) -> bool:
    data = bytearray(file.read_bytes())
    if not data:
        return True
    start = 0 if rng.random() < 0.5 else max(0, len(data) - 200)
    stop = len(data) if rng.random() < 0.5 else min(len(data), start + 200)
    places = {int(rng.integers(start * 8, stop * 8)) for _ in range(int(rng.integers(1, 4)))}
    for place in places:
        data[place // 8] ^= 1 << place % 8
    file.write_bytes(data)
    return False


def _append(rng: Rng, file: Path) -> bool:
    with file.open("ab") as stream:
        stream.write(rng.bytes(int(rng.integers(1, 100))))
    return False


def _overwrite(rng: Rng, file: Path) -> bool:
    data, content = file.read_bytes(), rng.bytes(int(rng.integers(0, 300)))
    file.write_bytes(content)
    return data == content


def _swap_inside(rng: Rng, file: Path) -> bool:
    others = sorted(path for path in file.parent.iterdir() if path.is_file() and path != file)
    if not others:
        return True
    other = others[int(rng.integers(len(others)))]
    one, two = file.read_bytes(), other.read_bytes()
    file.write_bytes(two)
    other.write_bytes(one)
    return one == two


def _remove(rng: Rng, file: Path) -> bool:
    file.unlink()
    return False


def _poison(rng: Rng, file: Path) -> bool:
    file.write_bytes(write_bomb(rng))
    return False


def _make_huge(rng: Rng, file: Path) -> bool:
    os.truncate(file, _TERABYTE)  # of holes: no disk is needed
    return False


def _link_to_a_copy(rng: Rng, file: Path) -> bool:
    outside = file.with_name(f".copy of {file.name}") if rng.random() < 0.5 else _find_outside(file) / file.name
    file.replace(outside)
    file.symlink_to(outside)
    return True


def _link_to_something_else(rng: Rng, file: Path) -> bool:
    targets = ["/dev/zero", "/dev/null", "/etc/passwd", file.name, "nowhere", str(_find_outside(file)), "..", "/dev/fd"]
    file.unlink()
    file.symlink_to(str(rng.choice(targets)))
    return False


def _make_a_pipe(rng: Rng, file: Path) -> bool:
    file.unlink()
    os.mkfifo(file)
    return False


def _make_a_socket(rng: Rng, file: Path) -> bool:
    file.unlink()
    os.mknod(file, stat.S_IFSOCK | 0o600)
    return False


def _make_a_folder(rng: Rng, file: Path) -> bool:
    file.unlink()
    file.mkdir()
    if rng.random() < 0.5:
        (file / "inside").write_bytes(b"x")
    return False


def _find_outside(file: Path) -> Path:
    return next(parent / OUTSIDE for parent in file.parents if (parent / OUTSIDE).is_dir())


DAMAGE: Mapping[str, Callable[[Rng, Path], bool]] = {
    "cut short": _truncate,
    "bits turned": _flip_bits,
    "added to": _append,
    "overwritten": _overwrite,
    "swapped with its neighbor": _swap_inside,
    "removed": _remove,
    "a pickle in its place": _poison,
    "a terabyte of holes": _make_huge,
    "a link to a copy": _link_to_a_copy,
    "a link elsewhere": _link_to_something_else,
    "a pipe in its place": _make_a_pipe,
    "a socket in its place": _make_a_socket,
    "a folder in its place": _make_a_folder,
}
OFTEN = ("cut short", "bits turned", "overwritten")  # each as often as three others


def damage_file(rng: Rng, file: Path) -> tuple[str, bool]:
    """Do something to a file; return what, and whether its content is what it was."""
    kinds = [*DAMAGE, *OFTEN, *OFTEN]
    how = kinds[int(rng.integers(len(kinds)))]
    return how, DAMAGE[how](rng, file)


def take_snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return what stands in a folder, and in all folders in it, by path; links are not followed."""
    found: dict[str, tuple[object, ...]] = {}
    waiting = [folder]
    while waiting:
        for entry in os.scandir(waiting.pop()):
            name, status = os.path.relpath(entry.path, folder), entry.stat(follow_symlinks=False)
            if entry.is_symlink():
                found[name] = ("link", os.readlink(entry.path))
            elif entry.is_dir(follow_symlinks=False):
                found[name] = ("folder",)
                waiting.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                whole = status.st_size <= 1 << 22
                found[name] = ("file", Path(entry.path).read_bytes() if whole else (status.st_size, status.st_mtime_ns))
            else:
                found[name] = ("other", stat.S_IFMT(status.st_mode))
    return found


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder, and make one beside it where somebody else's files lie."""
    shutil.copytree(source, target)
    outside = target.parent / OUTSIDE
    outside.mkdir(exist_ok=True)
    (outside / "x").write_bytes(b"somebody else's")
