"""What a folder of results holds: size and SHA-256 of each file, in ``manifest.json``, which is written last."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InvalidInput
from .._regular_files import is_plain_name, open_regular_file
from ._checked_json import format_checked_json, read_checked_json, write_checked_json

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """The files of one folder as they were written.

    Attributes:
        folder: Where they are.
        kind: What wrote them, such as "run".
        files: Size and SHA-256 of each, by name.
        about: What else was noted.
    """

    folder: Path
    kind: str
    files: Mapping[str, Mapping[str, Any]]
    about: Mapping[str, Any] = field(default_factory=dict)

    def find_changes(self, *, others_allowed: bool = True) -> dict[str, str]:
        """Return what is wrong with each file that is not as it was written, by name.

        Args:
            others_allowed: Whether files that the manifest does not list may lie beside those that it does.
        """
        present = {path.name for path in self.folder.iterdir()} - {MANIFEST}
        wrong = {name: f"{name} is missing" for name in sorted(set(self.files) - present)}
        if not others_allowed:
            wrong |= {name: f"{name} was not written there" for name in sorted(present - set(self.files))}
        for name in sorted(set(self.files) & present):
            if not is_as_written(self.folder / name, self.files[name]):
                wrong[name] = f"{name} is not what was written"
        return wrong

    def require_whole(self, *, others_allowed: bool = True) -> None:
        """Raise InvalidInput naming every file that is not as it was written.

        Args:
            others_allowed: Whether files that the manifest does not list may lie beside those that it does.

        Raises:
            InvalidInput: A file was changed or is missing.
        """
        if wrong := self.find_changes(others_allowed=others_allowed):
            raise InvalidInput(f"{self.folder} is damaged: {'; '.join(wrong.values())}.")


def hash_file(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file.

    Args:
        path: The file.

    Raises:
        InvalidInput: It cannot be read, or is no regular file.
    """
    with open_regular_file(path) as stream:
        try:
            size = os.fstat(stream.fileno()).st_size
            return {"bytes": size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
        except OSError as error:
            raise InvalidInput(f"Cannot read {path}: {error.strerror}.") from error


def is_as_written(path: Path, stated: object) -> bool:
    """Say whether a file has the size and the hash that a manifest states; one of another size is not read.

    Args:
        path: The file.
        stated: What the manifest says of it, whatever that is.
    """
    try:
        return (
            isinstance(stated, Mapping)
            and path.stat().st_size == stated.get("bytes")
            and hash_file(path) == dict(stated)
        )
    except (OSError, InvalidInput, ValueError):  # it is none, or cannot be read
        return False


def write_manifest(folder: Path, kind: str, about: Mapping[str, Any] | None = None) -> None:
    """List all files of a folder in its manifest.

    Args:
        folder: Holds them.
        kind: What wrote them.
        about: What else is to be noted, as JSON has it.
    """
    files = {path.name: hash_file(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    write_checked_json(_describe_files(kind, about or {}, files), folder / MANIFEST)


def format_manifest(kind: str, about: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the text of a manifest, for a folder that nobody sees before it is whole.

    Args:
        kind: What writes it.
        about: What else is to be noted, as JSON has it.
        files: What ``hash_file`` would say of each file, by name.
    """
    return format_checked_json(_describe_files(kind, about, files))


def _describe_files(kind: str, about: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {"kind": kind, **about, "files": files}


def read_manifest(folder: str | os.PathLike[str], kind: str) -> Manifest:
    """Return the manifest of a folder.

    Args:
        folder: Where it lies.
        kind: What the folder should be.

    Returns:
        The manifest; its files are not looked at.

    Raises:
        InvalidInput: There is none, it was changed, or the folder is something else.
    """
    file = Path(folder) / MANIFEST
    if not os.path.lexists(file):
        raise InvalidInput(f"{os.fspath(folder)} holds no finished {kind}: there is no {MANIFEST}.")
    record = read_checked_json(file)
    found, files = record.pop("kind", None), record.pop("files", None)
    if found != kind or not isinstance(files, dict):
        raise InvalidInput(f"{os.fspath(folder)} is the folder of a {str(found)[:80]}; wanted that of a {kind}.")
    if odd := [name for name in files if not is_plain_name(name)]:
        raise InvalidInput(
            f"{file} lists {odd[0][:80]!r}, which is no plain name of a file beside it; nothing of the folder was read."
        )
    return Manifest(Path(folder), kind, files, record)


def require_listed_as_written(path: Path) -> None:
    """Raise InvalidInput where the manifest beside a file lists it, and the file was changed since.

    Args:
        path: A file; in a folder without a manifest nobody knows what was written.

    Raises:
        InvalidInput: It was changed.
    """
    try:
        files = read_checked_json(path.parent / MANIFEST)["files"]
    except (InvalidInput, KeyError):
        return
    if isinstance(files, dict) and path.name in files and not is_as_written(path, files[path.name]):
        raise InvalidInput(f"{path} is not what was written: the {MANIFEST} beside it has another hash.")
