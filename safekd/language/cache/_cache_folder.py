"""The folders of a cache: one a teacher, listed in ``cache.json``; nothing that leads out of them is followed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from ...errors import InvalidInput
from ...io import is_plain_name
from ...io.folders import MANIFEST, read_checked_json, write_checked_json

CACHE, TEACHER_CACHE = "cache.json", "teacher cache"
_MOST_CHARACTERS = 60


def is_cache(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is the folder of a cache.

    Args:
        path: Any.
    """
    return os.path.lexists(Path(path) / CACHE)


def list_teachers(root: Path) -> dict[str, str]:
    """Return the folder of each teacher of a cache, by its name, in the order in which they were added.

    Args:
        root: Folder of the cache.

    Raises:
        InvalidInput: It is none, was changed, or lists what is no folder in it.
    """
    if not is_cache(root):
        raise InvalidInput(f"{root} holds no {TEACHER_CACHE}: there is no {CACHE}.")
    record = read_checked_json(root / CACHE)
    teachers = record.get("teachers")
    if record.get("kind") != TEACHER_CACHE or not isinstance(teachers, dict):
        raise InvalidInput(f"{root / CACHE} is not that of a {TEACHER_CACHE}.")
    for folder in teachers.values():
        if not is_plain_name(folder) or folder.startswith("."):
            raise InvalidInput(
                f"{root / CACHE} lists {str(folder)[:80]!r}, which is no plain name of a folder beside it."
            )
    return {str(name): folder for name, folder in teachers.items()}


def add_teacher(root: Path, name: str) -> Path:
    """Return the folder of a teacher, which is made and listed where there is none.

    Args:
        root: Folder of the cache, locked.
        name: Of the teacher.

    Raises:
        InvalidInput: Something else lies where its folder would be.
    """
    known = list_teachers(root) if is_cache(root) else {}
    if name not in known:
        taken = {folder.lower() for folder in known.values()}
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:_MOST_CHARACTERS].strip("-. ") or "teacher"
        plain = plain if is_plain_name(plain) else f"{plain}-teacher"
        number, folder = 1, plain
        while folder.lower() in taken:
            number, folder = number + 1, f"{plain}-{number + 1}"
        if os.path.lexists(root / folder):
            raise InvalidInput(
                f"Cannot write {root / folder}: something lies there. Move it, or choose another folder."
            )
        known[name] = folder
        write_checked_json({"kind": TEACHER_CACHE, "teachers": known}, root / CACHE)
    (root / known[name]).mkdir(exist_ok=True)
    return require_folder(root / known[name])


def find_teacher_folder(path: Path, name: str | None) -> Path:
    """Return the folder of one teacher.

    Args:
        path: That folder, or the cache's.
        name: Of the teacher; None where there is one.

    Raises:
        InvalidInput: There is no such teacher, or it is not clear which one is meant.
    """
    if not is_cache(path) and os.path.lexists(path / MANIFEST):
        return path
    known = list_teachers(path)
    if name is None and len(known) == 1:
        (name,) = known
    if name is None or name not in known:
        names = ", ".join(f"'{one}'" for one in known)
        what = f"holds {len(known)} teachers" if name is None else f"holds no teacher '{name}'"
        raise InvalidInput(f"{path} {what}; it has: {names}. Wanted one of them: CachedTeacher(path, 'name').")
    return require_folder(path / known[name])


def require_folder(folder: Path) -> Path:
    """Return a folder, unless it is missing, something else, or a link.

    Args:
        folder: Where it should be.

    Raises:
        InvalidInput: It is none.
    """
    if not os.path.lexists(folder):
        raise InvalidInput(f"{folder} is missing.")
    if folder.is_symlink() or not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder, or a link to one.")
    return folder


def find_misfit(folder: Path, name: str, stated: Mapping[str, object]) -> str | None:
    """Return what is wrong with a file by its size and kind alone, in words, None where nothing is.

    Args:
        folder: Where it lies.
        name: Its name.
        stated: What the manifest says of it.
    """
    try:
        found = (folder / name).lstat()
    except OSError:
        return f"{name} is missing"
    if not stat.S_ISREG(found.st_mode):
        return f"{name} is a link, or no regular file"
    if found.st_size != stated.get("bytes"):
        return f"{name} has {found.st_size:,} bytes, wanted {stated.get('bytes')!r:.20}"
    return None
