"""Files of one result that take the place of those of another together.

New files are written to a folder of their own inside, and listed in a manifest.  Renaming that folder is the moment at
which they count; they are then moved to their places one by one, and a process that finds the renamed folder, since
another was killed in between, moves the rest.  Files are moved, never written through: what a symbolic or a hard link
in their place leads to is left as it is.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...errors import InvalidInput
from .._regular_files import is_plain_name
from ._checked_json import read_checked_json
from ._manifest import MANIFEST, is_as_written, write_manifest

_PART, _READY = ".part", ".ready"


@contextmanager
def replace_files(folder: str | os.PathLike[str], kind: str, about: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Yield a folder to write files into; on success they take the place of those that the last writer left.

    Files that no manifest lists stay where they are, unless a new one has their name.

    Args:
        folder: Where the files belong; locked by the caller, made if absent.
        kind: What writes them, for the manifest.
        about: What else the manifest notes.

    Yields:
        An empty folder inside ``folder``.

    Raises:
        InvalidInput: The folder cannot be written to; what was there is there still.
    """
    target = Path(folder)
    part = target / f".{secrets.token_hex(8)}{_PART}"
    try:
        try:
            for stale in target.glob(f".*{_PART}"):  # of a writer that was killed: there is one at a time
                shutil.rmtree(stale, ignore_errors=True)
            finish_replacement(target)
            part.mkdir(parents=True)
            yield part
            write_manifest(part, kind, about)
            require_no_folders(target, [path.name for path in part.iterdir()])
            flush_folder(part)
            part.rename(target / _READY)
        except OSError as error:
            raise InvalidInput(
                f"Cannot write {target}: {error.strerror or error}. Make room there, or choose another folder."
            ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    finish_replacement(target)


def finish_replacement(folder: Path) -> None:
    """Move files into place that a writer had finished when it was killed; readers may call it too.

    Args:
        folder: As for ``replace_files``; may be absent.

    Raises:
        InvalidInput: They cannot be moved, or are not what a writer had finished.
    """
    ready = folder / _READY
    if not os.path.lexists(ready):
        return
    try:
        new = _list_finished_files(ready)
        for name in sorted(new):
            with suppress(FileNotFoundError):  # it was moved before
                os.replace(ready / name, folder / name)
        for name in list_own_files(folder) - new if new else ():
            (folder / name).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            os.replace(ready / MANIFEST, folder / MANIFEST)
        ready.rmdir()
    except OSError as error:
        raise InvalidInput(
            f"Cannot write {folder}: {error.strerror or error}. New files lie complete in {ready}; "
            "mend that, and the next run or reader moves them."
        ) from error
    flush_folder(folder)


def _list_finished_files(ready: Path) -> set[str]:
    """Return the names of files that are to be moved; InvalidInput where one of them is not as it was written.

    Somebody else's folder may hold anything: names that lead out of it, links, and files that nobody finished.
    """
    if ready.is_symlink() or not ready.is_dir():
        raise InvalidInput(f"{ready} is not the folder of a writer; remove it.")
    if not os.path.lexists(ready / MANIFEST):  # it was moved last
        return set()
    files = read_checked_json(ready / MANIFEST).get("files")
    if not isinstance(files, dict) or not all(map(is_plain_name, files)):
        raise InvalidInput(f"{ready / MANIFEST} lists files that are not beside it; remove {ready}.")
    for name, stated in files.items():
        place = ready / name
        if os.path.lexists(place) and (place.is_symlink() or not is_as_written(place, stated)):
            raise InvalidInput(f"{place} is not what its writer had finished; remove {ready}.")
    return set(files)


def list_own_files(folder: Path) -> set[str]:
    """Return the files that the manifest of a folder lists; none where there is no readable one.

    Args:
        folder: May be absent.
    """
    try:
        files = read_checked_json(folder / MANIFEST)["files"]
    except (InvalidInput, KeyError):
        return set()
    return {name for name in files if is_plain_name(name)} if isinstance(files, dict) else set()


def require_no_folders(folder: Path, names: Collection[str]) -> None:
    """Raise InvalidInput where a folder stands in the place of a file that is to be written.

    Args:
        folder: Where.
        names: Of the files.

    Raises:
        InvalidInput: The message names the folder.
    """
    for name in names:
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            raise InvalidInput(f"Cannot write {folder / name}: it is a folder. Move it, or choose another folder.")


def flush_folder(folder: Path) -> None:
    """Make renames last through a power cut, where folders can be flushed.

    Args:
        folder: In which files were renamed.
    """
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
